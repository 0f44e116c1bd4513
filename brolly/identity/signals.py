"""What a model does, told by its own files: each function is one signal, and `told` asks them in turn."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from brolly.identity.classes import by_config, of_class, stated
from brolly.identity.roles import MAX_WORDS, Told, one_line, part, role, whole, word
from brolly.identity.tables import table

if TYPE_CHECKING:
    from brolly.identity.subject import Subject


def told(subject: Subject) -> Told | None:
    """The first signal that says what the model does."""
    from brolly.identity.marks import by_tensors, left_over

    header = subject.header
    signals: tuple[Callable[[Subject], Told | None], ...] = (
        left_over, by_pipeline, by_adapter, by_sentence_transformers, by_lerobot, by_open_clip, by_timm,
        by_component, by_config, by_params, by_gguf, by_container, by_tensors, by_inputs,
    )  # fmt: skip
    if header.format == "gguf":  # it tells all itself; what lies beside it may be another model's
        signals = (by_gguf, by_tensors)
    for signal in signals:
        if found := signal(subject):
            return found
    if header.format == "tokenizer":
        return Told("", "tokenizer", "", "", "no weights and no config", "a tokenizer alone")
    return None


def by_pipeline(subject: Subject) -> Told | None:
    """diffusers' model_index.json; a pipeline that is not in the table is told by its denoiser."""
    index = subject.header.config
    if subject.header.format != "diffusers":
        return None
    name = word(index, "_class_name")
    row = table("pipelines.json")["pipelines"].get(name.removeprefix("Flax"))
    if row:
        return Told(row[0], row[1], "model_index.json", "_class_name", name, "the pipeline's class tells what it makes")
    for key, value in list(index.items())[:MAX_WORDS]:
        inner = value[1] if isinstance(value, list) and len(value) == 2 and isinstance(value[1], str) else ""
        if re.search(r"Transformer(2D|3D)?Model|UNet", inner[:200]):
            config = part(part(index, "components"), key)
            if found := component_of(inner[:200], config, "model_index.json", key):
                return found
    return None


def by_adapter(subject: Subject) -> Told | None:
    """PEFT's adapter_config.json: the task, and the base model's class or name."""
    from brolly.identity.relations import is_adapter

    config = subject.json("adapter_config.json")
    if not config or not is_adapter(subject):
        return None
    base, task = word(config, "base_model_name_or_path"), word(config, "task_type")
    mapped = word(part(config, "auto_mapping"), "base_model_class")
    if mapped and (found := of_class(mapped, {}, "adapter_config.json", "auto_mapping.base_model_class")):
        return found
    from brolly.identity.lineages import of_name

    family, named = of_name(base)
    roles = {"CAUSAL_LM": "llm", "SEQ_2_SEQ_LM": "seq2seq", "TOKEN_CLS": "classifier", "QUESTION_ANS": "classifier",
             "FEATURE_EXTRACTION": "embedder"}  # fmt: skip
    agreed = named and (task not in roles or role(named).kind in (role(roles[task]).kind, "lmm"))
    does = named if agreed else roles.get(task, "")
    if task == "SEQ_CLS":
        does = "classifier" if named and role(named).kind == "text-encoder" else "llm-classifier"
    if does:
        key = "base_model_name_or_path" if agreed else "task_type"
        return Told(family, does, "adapter_config.json", key, base if agreed else task, "what the adapter changes")
    from brolly.identity.marks import by_tensors

    by_names = by_tensors(subject)
    return by_names or Told(family, "", "adapter_config.json", "base_model_name_or_path", base, "an adapter")


def by_sentence_transformers(subject: Subject) -> Told | None:
    """modules.json is a list: a transformer, then pooling. Whatever the class is called, it gives vectors; so does
    ColBERT, a vector a token."""
    if subject.has("artifact.metadata") and "linear.weight" in subject.header.tensors and (inner := by_config(subject)):
        return Told(
            inner.family, "embedder", "artifact.metadata", "", "ColBERT", "a vector a token, for late interaction"
        )
    if not subject.has("modules.json"):
        return None
    text = subject.text("modules.json", 2**16)
    if "sentence_transformers" not in text or not re.search(
        r"models\.(Pooling|CLIPModel|WordEmbeddings)|Pooling|MultiVectorMask|pylate\.", text
    ):
        return None
    inner = by_config(subject)
    does = "embedder"
    if "CLIPModel" in text or (inner and role(inner.role).kind in ("vision-language-embedding", "lmm")):
        does = "multimodal-embedder"
    family = inner.family if inner else "CLIP" if "CLIPModel" in text else ""
    return Told(family, does, "modules.json", "type", "Pooling", "what is pooled is an embedding, whatever the class")


def by_lerobot(subject: Subject) -> Told | None:
    config = subject.header.config or subject.json("config.json")
    kind = word(config, "type")
    if not kind or not ("output_features" in config or "output_shapes" in config):
        return None
    names = {"pi0": "π0", "pi05": "π0.5", "pi0fast": "π0-FAST", "smolvla": "SmolVLA", "act": "ACT",
             "diffusion": "Diffusion Policy", "groot": "GR00T", "xvla": "X-VLA"}  # fmt: skip
    does = "policy" if kind in ("act", "diffusion", "tdmpc", "vqbet") else "robot"
    return Told(names.get(kind, kind), does, "config.json", "type", kind, "a LeRobot policy")


def by_open_clip(subject: Subject) -> Told | None:
    config = subject.json("open_clip_config.json")
    model = part(config, "model_cfg")
    if "embed_dim" not in model:
        return None
    text = part(model, "text_cfg")
    trunk = word(part(model, "vision_cfg"), "timm_model_name") + word(text, "hf_model_name")
    family = "SigLIP" if "init_logit_bias" in model else "CoCa" if "multimodal_cfg" in model else "CLIP"
    if family == "SigLIP" and whole(text, "vocab_size") == 256_000:  # Gemma's vocabulary
        family = "SigLIP 2"
    rule = f"an OpenCLIP model over {trunk}" if trunk else "an OpenCLIP model"
    return Told(family, "vlm-embedding", "open_clip_config.json", "model_cfg", "embed_dim", rule)


def by_timm(subject: Subject) -> Told | None:
    """timm's config.json: an architecture's name and a number of classes."""
    config = subject.header.config
    name = word(config, "architecture")
    if not name or "model_type" in config or not ("pretrained_cfg" in config or "num_features" in config):
        return None
    classes = whole(config, "num_classes") or whole(part(config, "pretrained_cfg"), "num_classes") or 0
    tag = word(part(config, "pretrained_cfg"), "tag")
    if "_clip_" in name and tag and "ft_" not in tag:
        classes = 0  # what timm calls classes is the space that texts share
    families = (("vit_", "ViT"), ("resnet", "ResNet"), ("convnextv2", "ConvNeXt V2"), ("convnext", "ConvNeXt"),
                ("swin", "Swin Transformer"), ("eva", "EVA"), ("efficientnet", "EfficientNet"), ("beit", "BEiT"),
                ("deit", "DeiT"), ("mobilenet", "MobileNet"), ("regnet", "RegNet"), ("samvit", "SAM"))  # fmt: skip
    family = next((f for start, f in families if name.startswith(start)), "")
    family = {"dinov2": "DINOv2", "dinov3": "DINOv3", "clip": "CLIP", "siglip": "SigLIP"}.get(
        next((w for w in ("dinov2", "dinov3", "siglip", "clip") if w in name), ""), family
    )
    rule = f"a timm model with {classes} classes" if classes else "a timm model without a head"
    return Told(family, "vision-classifier" if classes else "vision", "config.json", "architecture", name, rule)


def by_component(subject: Subject) -> Told | None:
    """One part of a diffusers pipeline, alone: its config has a `_class_name`."""
    config = subject.header.config
    name = word(config, "_class_name")
    if not name or subject.header.format == "diffusers":
        return None
    return component_of(name, config, "config.json", "_class_name")


def component_of(name: str, config: Mapping[str, Any], file: str, key: str) -> Told | None:
    """What a part of this class does; `config` is its own."""
    told_at = (file, key, name)
    if "Scheduler" in name:
        return Told("", "", *told_at, "a schedule of noise, no model")
    if re.match(r"Autoencoder|VQModel|ConsistencyDecoder|AsymmetricAutoencoder", name):
        video = re.search(r"Video|CogVideo|Wan|LTX|Mochi|Allegro|Cosmos|Magvit|Temporal", name)
        does = "codec" if re.search(r"Oobleck|Audio", name) else "video-vae" if video else "vae"
        return Told("TAESD" if name == "AutoencoderTiny" else "", does, *told_at, "the encoder and decoder of pictures")
    if name == "MotionAdapter":
        return Told("AnimateDiff", "video", "config.json", "_class_name", name, "layers that make an image model move")
    if "ControlNet" in name or "Adapter" in name:
        return Told(_of_part(name), "controlnet", *told_at, "steers a generator, and is none alone")
    if name == "UNet2DConditionModel":
        width = whole(config, "cross_attention_dim")
        family = "SDXL" if width == 2048 else "Stable Diffusion" if width in (768, 1024) else ""
        return Told(family, "image-part", *told_at, f"the denoiser, over a text encoder {width} wide")
    if name == "PriorTransformer":
        return Told("", "image-prior", *told_at, "from a text's embedding to an image's")
    if name == "UNet2DModel":
        return Told("", "image-uncond", *told_at, "a denoiser without words")
    if re.search(r"Transformer(2D|3D)?Model|UNet|PriorTransformer", name):
        video = re.search(r"3D|Video|Motion|SpatioTemporal|I2VGen|Wan|LTX|Mochi", name)
        return Told(_of_part(name), "video" if video else "image-part", *told_at, "the denoiser of a generator")
    return None


def _of_part(name: str) -> str:
    """A part's class name as a family: "FluxTransformer2DModel" → FLUX."""
    stem = re.split(r"(Controlled)?Transformer|ControlNet|MultiControlNet|UNet|Prior", name)[0]
    rows: Mapping[str, list[str]] = table("pipelines.json")["pipelines"]
    known = {"SD3": "Stable Diffusion 3", "UVit": "aMUSEd", "": ""}
    for candidate in (f"{stem}Pipeline", f"{stem}ImagePipeline", f"{stem}VideoPipeline"):
        if candidate in rows:
            return rows[candidate][0]
    return known.get(stem, "")


def by_params(subject: Subject) -> Told | None:
    """params.json of Meta and Mistral: sizes, and what lies beside the decoder."""
    config = subject.header.config
    if not {"dim", "n_layers", "n_heads"} <= config.keys() or "model_type" in config:
        return None
    sound = stated(config, ("multimodal",)) and "whisper_model_args" in part(config, "multimodal")
    if stated(config, ("vision_encoder",)):
        return Told(
            "Pixtral", "lmm", "params.json", "vision_encoder", "present", "Mistral's layout with an encoder of images"
        )
    if sound:
        return Told(
            "Voxtral", "lmm-audio", "params.json", "multimodal", "whisper_model_args", "with an encoder of sounds"
        )
    if stated(config, ("moe",)):
        return Told("Mixtral", "llm", "params.json", "moe", "present", "Mistral's layout with experts")
    from brolly.identity.marks import by_tensors

    found = by_tensors(subject)
    if found and found.role != "llm":
        return found
    family = "Mistral" if "head_dim" in config and "hidden_dim" in config else "Llama"
    family = "" if subject.header.format == "llama2c" else family
    file = "params.json" if subject.header.format != "llama2c" else ""
    return Told(family or "Llama", "llm", file, "dim, n_layers, n_heads", "present", "Llama's own sizes")


def by_gguf(subject: Subject) -> Told | None:
    """general.architecture and general.type; an image encoder beside the model makes it multimodal."""
    if subject.header.format != "gguf":
        return None
    metadata = subject.header.metadata
    name, kind = word(metadata, "general.architecture"), word(metadata, "general.type")
    file = subject.where.name
    if not subject.header.tensors and "tokenizer.ggml.tokens" in metadata:
        return Told("", "tokenizer", file, "tokenizer.ggml.tokens", "and no tensors", "a vocabulary alone")
    if kind == "imatrix" or name == "imatrix":
        return Told("", "", file, "general.type", "imatrix", "statistics for quantising, no model")
    if kind == "mmproj" or name == "clip":
        ears = metadata.get("clip.has_audio_encoder") is True and metadata.get("clip.has_vision_encoder") is not True
        projector = word(metadata, "clip.projector_type") or word(metadata, "clip.vision.projector_type")
        return Told("", "audio-projector" if ears else "projector", file, "general.architecture", name,
                    f"the encoder of a multimodal model {projector}".strip())  # fmt: skip
    row = table("gguf.json")["architectures"].get(name)
    if row is None:
        near = of_class(name.replace("-", "").replace("_", "") + "Model", {}) if name else None
        if f"{name}.block_count" in metadata and "tokenizer.ggml.tokens" in metadata:
            return Told(
                near.family if near else "", "llm", file, "general.architecture", name, "blocks and a vocabulary"
            )
        return near._replace(file=file, key="general.architecture", value=name) if near else None
    family, does = row
    pooled = whole(metadata, f"{name}.pooling_type")
    if pooled == 4:
        return Told(family, "reranker", file, f"{name}.pooling_type", "4", "pooled to a rank")
    if pooled in (1, 2, 3) and role(does).kind in ("llm", "text-encoder"):
        return Told(family, "embedder", file, f"{name}.pooling_type", str(pooled), "pooled to one vector")
    if does == "llm-part" and (beside := next((n for n in subject.files if n.startswith("mmproj")), "")):
        return Told(family, "lmm", beside, "general.architecture", name, "the encoder lies beside the language model")
    if name == "llama" and (whole(metadata, "llama.expert_count") or 0) > 1:
        family = "Mixtral"
    if name == "gemma3" and does == "llm-part":
        return Told(
            family, does, file, "general.architecture", name, "the language model; an mmproj file would add images"
        )
    return Told(family, does, file, "general.architecture", name, "the architecture's name")


def by_container(subject: Subject) -> Told | None:
    """ggml's own word for what it holds; NeMo's target class."""
    header = subject.header
    said = header.config if header.config else header.metadata
    if header.format == "ggml":
        name = word(header.metadata, "variant")
        if name == "lora":
            return Told("Llama", "llm", subject.where.name, "magic", "ggla", "an adapter of llama.cpp's first layout")
        row = table("gguf.json")["architectures"].get(name)
        if row:
            return Told(row[0], row[1], subject.where.name, "magic and sizes", name, "ggml's older layout")
    if header.format == "nemo":
        target = word(said, "target") or word(header.metadata, "target")
        for path, does in ((".asr.", "asr"), (".tts.", "tts"), ("vlm", "lmm"), (".nlp.", "llm"), (".llm.", "llm")):
            if path in target.lower():
                if does == "llm" and not re.search(r"gpt|llama|language_model|nemotron|mistral", target.lower()):
                    return None
                return Told("", does, "model_config.yaml", "target", target, "NeMo's class")
    return None


def by_inputs(subject: Subject) -> Told | None:
    """A graph's inputs and outputs (ONNX and its kin), where their names leave no doubt."""

    def names(key: str) -> set[str]:
        value = subject.header.metadata.get(key)
        rows = value[:MAX_WORDS] if isinstance(value, list) else []
        found = [r.get("name") if isinstance(r, Mapping) else r for r in rows]
        return {one_line(n) for n in found if isinstance(n, str)}

    into, out = names("inputs"), names("outputs")
    told_at = (subject.where.name, "inputs", ", ".join(sorted(into)[:4]))
    if {"input_ids", "pixel_values"} <= into and out & {"text_embeds", "image_embeds"}:
        return Told("", "vlm-embedding", *told_at, "texts and images in, embeddings out")
    if "input_ids" in into and any(n.startswith(("past_key_values", "present")) for n in into | out):
        return Told("", "llm", *told_at, "tokens in, and a cache of keys and values")
    if "input_ids" in into and out & {"last_hidden_state", "sentence_embedding", "token_embeddings", "pooler_output"}:
        return Told("", "text-encoder", *told_at, "tokens in, hidden states out")
    if into == {"pixel_values"} and "last_hidden_state" in out:
        return Told("", "vision", *told_at, "pixels in, hidden states out")
    return None
