"""Writes identity/data's tables of architectures: transformers' and diffusers' tables, and what is added by hand.

    python scripts/architectures.py

Reads the installed packages' source (Apache-2.0; names and which task each serves, no code), never imports them.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from datetime import date
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
DATA = HERE.parent / "brolly" / "identity" / "data"
Rows = dict[str, list[str]]

# role: kind, modalities in > out, flavours
ROLES = {
    "llm": "llm text>text",
    "llm-code": "llm text>text code",
    "llm-part": "llm text>text",
    "seq2seq": "llm text>text",
    "seq2seq-code": "llm text>text code",
    "translation": "other text>text translation",
    "draft": "llm text>text",
    "lmm": "lmm text,image>text",
    "lmm-caption": "lmm image,text>text",
    "lmm-video": "lmm text,image,video>text",
    "lmm-audio": "lmm text,audio>text",
    "lmm-speech": "lmm text,image,audio>text",
    "lmm-speech-chat": "lmm text,audio>text,audio",
    "lmm-all": "lmm text,image,audio,video>text",
    "lmm-omni": "lmm text,image,audio,video>text,audio",
    "lmm-draws": "lmm text,image>text,image",
    "ocr": "lmm text,image>text ocr",
    "ocr-small": "vision image>text ocr",
    "vision-language-task": "lmm text,image>text",
    "text-encoder": "text-encoder text>embedding",
    "embedder": "text-encoder text>embedding embedder",
    "reranker": "text-encoder text>score reranker",
    "classifier": "text-encoder text>label classifier",
    "document-encoder": "text-encoder text,image>embedding",
    "reward": "other text>score reward",
    "llm-classifier": "other text>label classifier",
    "guard-image": "lmm text,image>label guard",
    "vlm-embedding": "vision-language-embedding text,image>embedding",
    "multimodal-embedder": "vision-language-embedding text,image>embedding embedder",
    "vlm-encoder": "vision-language-embedding text,image>embedding",
    "video-text": "vision-language-embedding text,video>embedding",
    "audio-text": "audio text,audio>embedding",
    "vision": "vision image>embedding",
    "vision-classifier": "vision image>label classifier",
    "detector": "vision image>label",
    "open-detector": "vision text,image>label",
    "segmenter": "vision image>mask",
    "open-segmenter": "vision text,image>mask",
    "sam": "vision image>mask",
    "sam-video": "vision image,video>mask",
    "depth": "vision image>image",
    "keypoints": "vision image>label",
    "video-vision": "vision video>embedding",
    "video-classifier": "vision video>label classifier",
    "projector": "vision image>embedding",
    "audio-projector": "audio audio>embedding",
    "asr": "speech audio>text",
    "asr-llm": "speech text,audio>text",
    "tts": "speech text>audio",
    "speech-encoder": "speech audio>embedding",
    "speech-classifier": "speech audio>label classifier",
    "speech-translation": "speech text,audio>text,audio translation",
    "speech-dialogue": "speech audio>text,audio",
    "vocoder": "audio audio>audio vocoder",
    "codec": "audio audio>tokens,audio codec",
    "audio": "audio text>audio",
    "audio-uncond": "audio >audio",
    "audio-classifier": "audio audio>label classifier",
    "music": "music text>audio",
    "music-melody": "music text,audio>audio",
    "music-cover": "music audio>audio",
    "protein": "protein protein>embedding",
    "protein-structure": "protein protein>structure",
    "protein-generator": "protein protein>protein",
    "protein-multi": "protein protein,structure>protein,structure",
    "protein-chat": "protein protein,text>text",
    "protein-design": "protein structure>protein,structure",
    "dna": "scientific dna>embedding",
    "dna-generator": "scientific dna>dna",
    "cells": "scientific tabular>embedding",
    "molecule": "scientific molecule>embedding",
    "molecule-property": "scientific molecule>score",
    "weather": "scientific weather>weather",
    "earth": "scientific image>embedding",
    "robot": "robotics text,image>action",
    "policy": "robotics image>action",
    "decision": "other tabular>action",
    "time-series": "time-series time-series>time-series",
    "tabular": "other tabular>label",
    "image": "image text>image",
    "image-edit": "image text,image>image",
    "image-uncond": "image >image",
    "image-control": "image text,image>image controlnet",
    "image-prior": "image text>embedding",
    "image-restorer": "image image>image",
    "image-part": "image text>image",
    "vae": "image image>image vae",
    "controlnet": "image image>image controlnet",
    "video": "video text>video",
    "video-edit": "video text,video>video",
    "video-from-image": "video text,image>video",
    "video-from-image-only": "video image>video",
    "video-audio": "video text,image>video,audio",
    "video-vae": "video video>video vae",
    "shape": "other text>3d",
    "shape-from-image": "other image>3d",
    "tokenizer": "other text>tokens tokenizer",
    "optimizer": "other > optimizer",
}
# transformers' tables, the first that has a type tells its role
TABLES = (
    ("SPEECH_SEQ_2_SEQ", "asr"), ("CTC", "asr"), ("RNNT", "asr"), ("TDT", "asr"), ("TEXT_TO_WAVEFORM", "tts"),
    ("TEXT_TO_SPECTROGRAM", "tts"), ("RETRIEVAL", "multimodal-embedder"), ("IMAGE_TEXT_TO_TEXT", "lmm"),
    ("MULTIMODAL_LM", "lmm-audio"), ("ZERO_SHOT_IMAGE_CLASSIFICATION", "vlm-embedding"), ("MASK_GENERATION", "sam"),
    ("TIME_SERIES_PREDICTION", "time-series"), ("TIME_SERIES_CLASSIFICATION", "time-series"),
    ("ZERO_SHOT_OBJECT_DETECTION", "open-detector"), ("OBJECT_DETECTION", "detector"),
    ("UNIVERSAL_SEGMENTATION", "segmenter"), ("INSTANCE_SEGMENTATION", "segmenter"),
    ("DEPTH_ESTIMATION", "depth"), ("KEYPOINT_DETECTION", "keypoints"), ("KEYPOINT_MATCHING", "keypoints"),
    ("POSE_ESTIMATION", "keypoints"), ("TEXT_RECOGNITION", "ocr-small"), ("TABLE_RECOGNITION", "ocr-small"),
    ("IMAGE_MATTING", "segmenter"), ("VIDEO_CLASSIFICATION", "video-vision"), ("IMAGE_TO_IMAGE", "image-restorer"),
    ("SEQ_TO_SEQ_CAUSAL_LM", "seq2seq"), ("MASKED_LM", "text-encoder"), ("CAUSAL_LM", "llm"),
    ("IMAGE_CLASSIFICATION", "vision"), ("MASKED_IMAGE_MODELING", "vision"), ("IMAGE", "vision"),
    ("SEMANTIC_SEGMENTATION", "segmenter"), ("AUDIO_CLASSIFICATION", "audio-classifier"),
    ("BACKBONE", "vision"), ("TEXT_ENCODING", "text-encoder"),
)  # fmt: skip
# parts of a model that has its own type: the ending of the part's type, and its role
PARTS = (
    (r"_text_model$|_text_encoder$", "text-encoder"), (r"_text$", "llm"),
    (r"_vision(_model|_encoder)?$|_vit$", "vision"), (r"_audio(_model|_encoder)?$", "speech-encoder"),
    (r"(asr|speech\w*|audio\w*|voxtral\w*|streaming|lasr|parakeet)_encoder$", "speech-encoder"),
)  # fmt: skip
# diffusers: folder of the pipeline → family, role of its plain pipeline
FOLDERS = {
    "ace_step": "ACE-Step|music", "allegro": "Allegro|video", "animatediff": "AnimateDiff|video",
    "anyflow": "AnyFlow|video", "audioldm2": "AudioLDM 2|audio", "aura_flow": "AuraFlow|image",
    "bria": "Bria|image", "bria_fibo": "Bria FIBO|image", "bria_fibo2": "Bria FIBO 2|image", "chroma": "Chroma|image",
    "chronoedit": "ChronoEdit|image-edit", "cogvideo": "CogVideoX|video", "cogview3": "CogView3|image",
    "cogview4": "CogView4|image", "consisid": "ConsisID|video-from-image",
    "consistency_models": "Consistency Models|image-uncond", "controlnet": "Stable Diffusion|image-control",
    "controlnet_hunyuandit": "Hunyuan-DiT|image-control", "controlnet_sd3": "Stable Diffusion 3|image-control",
    "cosmos": "Cosmos|video", "ddim": "DDIM|image-uncond", "ddpm": "DDPM|image-uncond",
    "deepfloyd_if": "DeepFloyd IF|image", "diffusion_gemma": "DiffusionGemma|lmm", "dit": "DiT|image-uncond",
    "dreamlite": "DreamLite|image", "easyanimate": "EasyAnimate|video", "ernie_image": "ERNIE-Image|image",
    "flux": "FLUX|image", "flux2": "FLUX.2|image-edit", "glm_image": "GLM-Image|image", "helios": "Helios|video",
    "hidream_image": "HiDream|image", "hunyuan_image": "HunyuanImage|image", "hunyuan_video": "HunyuanVideo|video",
    "hunyuan_video1_5": "HunyuanVideo|video", "hunyuandit": "Hunyuan-DiT|image", "ideogram4": "Ideogram 4|image",
    "joyimage": "JoyImage|image", "kandinsky": "Kandinsky|image", "kandinsky2_2": "Kandinsky|image",
    "kandinsky3": "Kandinsky|image", "kandinsky5": "Kandinsky 5|image", "kandinsky6": "Kandinsky 6|video-audio",
    "kolors": "Kolors|image", "krea2": "Krea 2|image", "latent_consistency_models": "LCM (Stable Diffusion)|image",
    "latent_diffusion": "Latent Diffusion|image", "latte": "Latte|video", "ledits_pp": "Stable Diffusion|image-edit",
    "llada2": "LLaDA 2|llm", "longcat_audio_dit": "LongCat-AudioDiT|audio", "longcat_image": "LongCat-Image|image",
    "ltx": "LTX-Video|video", "ltx2": "LTX-2|video-audio", "lucy": "Lucy Edit|video-edit", "lumina": "Lumina|image",
    "lumina2": "Lumina 2|image", "marigold": "Marigold|depth", "mochi": "Mochi|video",
    "motif_video": "Motif-Video|video", "nucleusmoe_image": "Nucleus-Image|image", "omnigen": "OmniGen|image-edit",
    "ovis_image": "Ovis-Image|image", "pag": "Stable Diffusion|image", "pixart_alpha": "PixArt|image",
    "prx": "PRX|image", "qwenimage": "Qwen-Image|image", "qwenimage21": "Qwen-Image|image",
    "rfd4_proteina": "RFdiffusion 4|protein-design", "sana": "SANA|image", "sana_video": "SANA-Video|video",
    "sana_wm": "SANA-WM|video-from-image", "shap_e": "Shap-E|shape", "skyreels_v2": "SkyReels|video",
    "stable_audio": "Stable Audio|audio", "stable_audio_3": "Stable Audio|audio",
    "stable_cascade": "Stable Cascade|image", "stable_diffusion": "Stable Diffusion|image",
    "stable_diffusion_3": "Stable Diffusion 3|image", "stable_diffusion_xl": "SDXL|image",
    "stable_video_diffusion": "Stable Video Diffusion|video-from-image-only",
    "t2i_adapter": "Stable Diffusion|image-control", "visualcloze": "VisualCloze|image-edit", "wan": "Wan|video",
    "z_image": "Z-Image|image",
}  # fmt: skip
# a word in the pipeline's class name → family and role; "" keeps the folder's
CLASS_WORDS = (
    (r"StableDiffusion3", "Stable Diffusion 3", ""), (r"StableDiffusionXL|AnimateDiffSDXL", "SDXL", ""),
    (r"^Kolors", "Kolors", ""), (r"^Sana(?!Video|Image|WM)", "SANA", ""), (r"^HunyuanDiT", "Hunyuan-DiT", ""),
    (r"^PixArt", "PixArt", ""), (r"^AudioLDM(?!2)", "AudioLDM", "audio"), (r"^MusicLDM", "MusicLDM", "music"),
    (r"^Wuerstchen", "Würstchen", "image"), (r"^UnCLIP", "unCLIP", "image"), (r"^Amused", "aMUSEd", "image"),
    (r"^VersatileDiffusion", "Versatile Diffusion", "image"), (r"^VQDiffusion", "VQ-Diffusion", "image"),
    (r"^AltDiffusion", "AltDiffusion", "image"), (r"^BlipDiffusion", "BLIP-Diffusion", "image-edit"),
    (r"^I2VGenXL", "I2VGen-XL", "video-from-image"), (r"^TextToVideo", "ModelScope text-to-video", "video"),
    (r"^VideoToVideoSD", "ModelScope text-to-video", "video-edit"),
    (r"^DanceDiffusion", "Dance Diffusion", "audio-uncond"),
    (r"^AudioDiffusion", "Audio Diffusion", "audio-uncond"),
    (r"^SpectrogramDiffusion", "Spectrogram Diffusion", "music"),
    (r"^UniDiffuser", "UniDiffuser", "image"), (r"^PIA", "PIA", "video-from-image"),
    (r"^PaintByExample", "Paint by Example", "image-edit"),
    (r"^LEditsPPPipelineStableDiffusionXL", "SDXL", "image-edit"),
    (r"^ScoreSdeVe|^PNDM|^KarrasVe|^LDMPipeline|^RePaint", "", "image-uncond"),
    (r"^AnimateDiff", "AnimateDiff", "video"), (r"^CogView", "", "image"),
    (r"^CosmosTextToImage|^Cosmos2TextToImage", "", "image"),
    (r"^Cosmos3Omni", "Cosmos 3", "video-audio"), (r"^MarigoldNormals|^MarigoldIntrinsics", "", "depth"),
    (r"^ShapEImg2Img", "", "shape-from-image"),
    (r"Kandinsky5I2V", "", "video-from-image"), (r"^SemanticStable", "Stable Diffusion", "image"),
    (r"Kandinsky5T2I", "", "image"), (r"Kandinsky5I2I", "", "image-edit"), (r"Kandinsky5T2V", "", "video"),
)  # fmt: skip
# a word in the class name → role, by the kind that it has without it
DOING = (
    (r"ControlNet|Adapter(?!Plus)|Control(?!led)", {"image": "image-control", "video": "video-edit"}),
    (r"VideoToVideo|VideoToWorld|VACE|^WanAnimate", {"video": "video-edit"}),
    (r"ImageToVideo|Image2Video|I2V|I2VLong", {"video": "video-from-image"}),
    (r"Prior", {"image": "image-prior"}),
    (r"Img2Img|Inpaint|Edit|Upscale|Pix2Pix|Kontext|Fill|SuperResolution|ImageVariation|Depth2Img|Redux|Refiner|I2I|Layered",
     {"image": "image-edit"}),
)  # fmt: skip


def source(package: str, path: str) -> ast.Module:
    found = find_spec(package)
    assert found and found.submodule_search_locations, f"pip install {package}"
    return ast.parse((Path(found.submodule_search_locations[0]) / path).read_text())


def tables(path: str) -> dict[str, dict[str, Any]]:
    """Each `X_NAMES = OrderedDict([...])` of one of transformers' files: model type → class name, or several."""
    found: dict[str, dict[str, Any]] = {}
    for node in source("transformers", path).body:
        if not isinstance(node, (ast.Assign, ast.AnnAssign)) or not isinstance(node.value, ast.Call):
            continue
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        if not isinstance(target, ast.Name) or not node.value.args or not isinstance(node.value.args[0], ast.List):
            continue
        rows: dict[str, Any] = {}
        for pair in node.value.args[0].elts:
            if isinstance(pair, ast.Tuple) and isinstance(pair.elts[0], ast.Constant):
                value = pair.elts[1]
                is_plain = isinstance(value, (ast.Constant, ast.Tuple))
                rows[str(pair.elts[0].value)] = ast.literal_eval(value) if is_plain else ""
        found[target.id] = rows
    return found


def by_hand() -> Rows:
    """model type → [family, role], of the table beside this script."""
    found: Rows = {}
    for line in (HERE / "architectures_by_hand.txt").read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            name, family, role, *_ = (part.strip() for part in line.split("|"))
            assert not role or role in ROLES, f"{line}: no role {role!r}"
            found[name] = [family, role]
    return found


def architectures() -> Rows:
    """model type → [family, role, stem of its classes' names]."""
    configs = tables("models/auto/auto_mappings.py")["CONFIG_MAPPING_NAMES"]
    tasks = tables("models/auto/modeling_auto.py")
    own = by_hand()
    rows: Rows = {}
    for name in sorted({*configs, *own}):
        stem = str(configs.get(name, "")).removesuffix("Config")
        family, role = own.get(name, ["", ""])
        told = next((r for table, r in TABLES if name in tasks.get(f"MODEL_FOR_{table}_MAPPING_NAMES", {})), "")
        parent = next((p for p in sorted(configs, key=len, reverse=True) if name.startswith(p + "_")), "")
        part = next((r for pattern, r in PARTS if re.search(pattern, name)), "")
        if name not in own and parent in {*own, *configs} and (part or not told):
            if not part:
                continue  # a decoder of masks, a quantiser: never published alone
            told = part
            family = own.get(parent, ["", ""])[0] or configs.get(parent, "").removesuffix("Config")
        if name in own and not family and not role:
            raise SystemExit(f"{name} is in the table by hand and says nothing")
        if not (role or told):
            print(f"no role: {name} ({stem})", file=sys.stderr)
            continue
        named_by_parts = name in own and not family  # encoder-decoder: any family's parts
        rows[name] = [family or ("" if named_by_parts else pretty(stem)), role or told, stem]
    return rows


def pretty(stem: str) -> str:
    """A class's stem as a name: "Qwen2_5_VL" → "Qwen2.5-VL"."""
    return re.sub(r"(\d)_(\d)", r"\1.\2", stem).replace("_", " ").strip()


def pipelines() -> Rows:
    """Pipeline class → [family, role]."""
    found = find_spec("diffusers")
    assert found and found.submodule_search_locations, "pip install diffusers"
    root = Path(found.submodule_search_locations[0]) / "pipelines"
    rows: Rows = {}
    for path in sorted(root.rglob("*.py")):
        folder = path.relative_to(root).parts
        folder_name = folder[1] if folder[0] == "deprecated" and len(folder) > 2 else folder[0]
        for node in ast.parse(path.read_text()).body:
            if not isinstance(node, ast.ClassDef) or not re.search(r"Pipeline", node.name):
                continue
            if re.search(
                r"Output$|Mixin$|^AutoPipeline|^DiffusionPipeline|^FlaxDiffusion|Safe$|^Onnx.*Legacy", node.name
            ):
                continue
            row = pipeline(node.name, FOLDERS.get(folder_name, "|"))
            if row:
                rows.setdefault(node.name, row)
    rows["StableDiffusionPipelineSafe"] = ["Stable Diffusion", "image"]
    return rows


def pipeline(name: str, folder: str) -> list[str]:
    family, role = folder.split("|")
    if name.startswith("StableDiffusion") and not family:
        family, role = "Stable Diffusion", "image"
    for pattern, its_family, its_role in CLASS_WORDS:
        if re.search(pattern, name):
            family, role = its_family or family, its_role or role
            break
    role = role or "image"
    kind = ROLES[role].split()[0]
    if not role.endswith(("-only", "-audio", "-uncond")):
        role = next((roles[kind] for pattern, roles in DOING if re.search(pattern, name) and kind in roles), role)
    return [family or pretty(name.removesuffix("Pipeline")), role]


def write(path: Path, about: dict[str, Any], sections: dict[str, Any]) -> None:
    """JSON with a row a line, sorted, so that a difference can be read."""
    lines = [f'"about": {json.dumps(about)}']
    for title, rows in sections.items():
        inner = ",\n".join(f"{json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in sorted(rows.items()))
        lines.append(f"{json.dumps(title)}: {{\n{inner}\n}}")
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print(f"{path.name}: {sum(len(rows) for rows in sections.values())} rows, {path.stat().st_size:,} bytes")


def main() -> None:
    today = date.today().isoformat()

    def about(package: str) -> dict[str, Any]:
        by = {"package": package, "version": version(package), "licence": "Apache-2.0", "date": today}
        return {"by": "scripts/architectures.py", "from": by}

    write(DATA / "architectures.json", about("transformers"), {"roles": ROLES, "types": architectures()})
    write(DATA / "pipelines.json", about("diffusers"), {"pipelines": pipelines()})


if __name__ == "__main__":
    main()
