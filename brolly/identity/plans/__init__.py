"""How many parameters a network has, from its config alone: for those that are not language models alone.

`TABLE` names for each `model_type` (transformers) or `_class_name` (diffusers) the function that counts it, and the
parts of its config with the type that each has where it names none itself.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from brolly.identity.plans.counting import MOST, Given, Untold
from brolly.identity.tables import table

if TYPE_CHECKING:
    from brolly.identity.subject import Subject

_TOWERS = "text_config:{0}_text_model vision_config:{0}_vision_model"
TABLE = {
    # text encoders
    "albert": "encoders.albert",
    "bert": "encoders.bert",
    "big_bird": "encoders.big_bird",
    "camembert": "encoders.roberta",
    "deberta": "encoders.deberta",
    "deberta-v2": "encoders.deberta_v2",
    "distilbert": "encoders.distilbert",
    "electra": "encoders.electra",
    "ernie": "encoders.bert",
    "longformer": "encoders.longformer",
    "modernbert": "encoders.modernbert",
    "mpnet": "encoders.mpnet",
    "new": "encoders.gte",
    "nomic_bert": "encoders.nomic_bert",
    "roberta": "encoders.roberta",
    "xlm-roberta": "encoders.roberta",
    "xlnet": "encoders.xlnet",
    # encoder-decoders
    "bart": "seq2seq.bart",
    "blenderbot": "seq2seq.blenderbot",
    "led": "seq2seq.led",
    "m2m_100": "seq2seq.m2m_100",
    "marian": "seq2seq.marian",
    "mbart": "seq2seq.mbart",
    "mt5": "seq2seq.t5",
    "pegasus": "seq2seq.pegasus",
    "plbart": "seq2seq.bart",
    "prophetnet": "seq2seq.prophetnet",
    "t5": "seq2seq.t5",
    "umt5": "seq2seq.umt5",
    # proteins
    "esm": "protein.esm",
    # pictures and texts in one space
    "blip": "contrastive.blip " + _TOWERS.format("blip"),
    "chinese_clip": "contrastive.chinese_clip " + _TOWERS.format("chinese_clip"),
    "clap": "contrastive.clap text_config:clap_text_model audio_config:clap_audio_model",
    "clip": "contrastive.clip " + _TOWERS.format("clip"),
    "clip_text_model": "contrastive.clip_text_model",
    "clip_vision_model": "contrastive.clip_vision_model",
    "owlv2": "contrastive.owl " + _TOWERS.format("owlv2"),
    "owlvit": "contrastive.owl " + _TOWERS.format("owlvit"),
    "siglip": "contrastive.siglip " + _TOWERS.format("siglip"),
    "siglip2": "contrastive.siglip " + _TOWERS.format("siglip2"),
    "siglip2_vision_model": "contrastive.siglip_vision_model",
    "siglip_text_model": "contrastive.siglip_text_model",
    "siglip_vision_model": "contrastive.siglip_vision_model",
    # pictures
    "beit": "vision.beit",
    "convnext": "vision.convnext",
    "convnextv2": "vision.convnextv2",
    "data2vec-vision": "vision.beit",
    "deit": "vision.deit",
    "dinov2": "vision.dinov2",
    "dinov2_with_registers": "vision.dinov2",
    "dinov3_vit": "vision.dinov3_vit",
    "donut-swin": "vision.swin",
    "resnet": "vision.resnet",
    "sam": "vision.sam vision_config:sam_vision prompt_encoder_config:sam_prompt mask_decoder_config:sam_mask",
    "segformer": "vision.segformer",
    "swin": "vision.swin",
    "swinv2": "vision.swinv2",
    "videomae": "vision.videomae",
    "vit": "vision.vit",
    "vit_mae": "vision.vit_mae",
    "yolos": "vision.yolos",
    # every pixel, boxes, a picture read aloud
    "blip-2": "dense.blip_2 vision_config:blip_2_vision_model qformer_config:blip_2_qformer",
    "depth_anything": "dense.depth_anything",
    "detr": "dense.detr",
    "dpt": "dense.dpt",
    "table-transformer": "dense.detr",
    "vision-encoder-decoder": "dense.vision_encoder_decoder",
    # series and actions
    "decision_transformer": "series.decision_transformer",
    "timesfm": "series.timesfm",
    # sounds
    "audio-spectrogram-transformer": "audio.spectrogram_transformer",
    "bark": "audio.bark semantic_config:semantic coarse_acoustics_config:coarse_acoustics "
    "fine_acoustics_config:fine_acoustics codec_config:encodec",
    "dac": "speech.dac",
    "encodec": "audio.encodec",
    "hubert": "audio.wav2vec2",
    "mimi": "speech.mimi",
    "musicgen": "audio.musicgen text_encoder:t5 audio_encoder:encodec decoder:musicgen_decoder",
    "speecht5": "speech.speecht5",
    "vits": "speech.vits",
    "wav2vec2": "audio.wav2vec2",
    "wavlm": "audio.wav2vec2",
    "whisper": "audio.whisper",
    # language models with eyes or ears
    "florence2": "multimodal.florence2 vision_config:florence_vision text_config:bart",
    "gemma3": "multimodal.gemma3 vision_config:siglip_vision_model",
    "idefics2": "multimodal.idefics2 vision_config:idefics2_vision perceiver_config:idefics2_perceiver",
    "idefics3": "multimodal.idefics3 vision_config:idefics3_vision",
    "internvl": "multimodal.internvl vision_config:internvl_vision",
    "internvl_chat": "multimodal.internvl_chat vision_config:intern_vit_6b",
    "llama4": "multimodal.llama4 vision_config:llama4_vision_model",
    "llava": "multimodal.llava vision_config:clip_vision_model",
    "llava_next": "multimodal.llava vision_config:clip_vision_model",
    "llava_onevision": "multimodal.llava vision_config:siglip_vision_model",
    "mistral3": "multimodal.mistral3 vision_config:pixtral",
    "mllama": "multimodal.mllama vision_config:mllama_vision_model text_config:mllama_text_model",
    "openvla": "multimodal.openvla",
    "paligemma": "multimodal.paligemma vision_config:siglip_vision_model",
    "phi3_v": "multimodal.phi3_v",
    "pixtral": "multimodal.pixtral_vision",
    "qwen2_5_vl": "multimodal.qwen2_5_vl vision_config:qwen2_5_vl_vision",
    "qwen2_audio": "multimodal.qwen2_audio audio_config:qwen2_audio_encoder",
    "qwen2_vl": "multimodal.qwen2_vl vision_config:qwen2_vl_vision",
    "qwen3_vl": "multimodal.qwen3_vl vision_config:qwen3_vl_vision",
    "qwen3_vl_moe": "multimodal.qwen3_vl vision_config:qwen3_vl_moe_vision",
    "smolvlm": "multimodal.idefics3 vision_config:smolvlm_vision",
    "voxtral": "multimodal.voxtral audio_config:voxtral_encoder",
    # noise away: U-Nets, autoencoders, transformers
    "AuraFlowTransformer2DModel": "dit.aura_flow",
    "AutoencoderDC": "autoencoders.deep_compression",
    "AutoencoderKL": "diffusion.autoencoder_kl",
    "AutoencoderKLCogVideoX": "autoencoders.cogvideox",
    "AutoencoderKLFlux2": "diffusion.autoencoder_kl",
    "AutoencoderKLQwenImage": "autoencoders.wan",
    "AutoencoderKLWan": "autoencoders.wan",
    "AutoencoderTiny": "diffusion.autoencoder_tiny",
    "CogVideoXTransformer3DModel": "dit.cogvideox",
    "ControlNetModel": "diffusion.controlnet",
    "DiTTransformer2DModel": "dit.dit",
    "Flux2Transformer2DModel": "dit.flux2",
    "FluxTransformer2DModel": "dit.flux",
    "HunyuanVideoTransformer3DModel": "dit.hunyuan_video",
    "LTXVideoTransformer3DModel": "dit.ltx",
    "Lumina2Transformer2DModel": "dit.lumina2",
    "MochiTransformer3DModel": "dit.mochi",
    "PixArtTransformer2DModel": "dit.pixart",
    "PriorTransformer": "dit.prior",
    "QwenImageTransformer2DModel": "dit.qwen_image",
    "SD3Transformer2DModel": "dit.sd3",
    "SanaTransformer2DModel": "dit.sana",
    "UNet2DConditionModel": "diffusion.unet",
    "UNet2DModel": "diffusion.unet2d",
    "VQModel": "diffusion.vq_model",
    "WanTransformer3DModel": "dit.wan",
    "ZImageTransformer2DModel": "dit.z_image",
}
# How many positions a network has; of RoBERTa's kin two are taken by the padding.
CONTEXT = {
    "max_position_embeddings": (
        "albert bart bert big_bird blenderbot deberta-v2 distilbert electra ernie marian mbart modernbert mpnet new "
        "pegasus plbart prophetnet clip_text_model siglip_text_model"
    ),
    "max_target_positions": "whisper",
    "n_positions": "nomic_bert",
}
PADDED = "camembert roberta xlm-roberta longformer esm"
# Published with code of their own, which is what is counted; of all others own code may mean another network.
OWN_CODE = ("florence2", "internvl_chat", "new", "nomic_bert", "openvla", "phi3_v")
NO_NETWORK = ("Scheduler", "Tokenizer", "TokenizerFast", "Processor", "ProcessorFast", "FeatureExtractor")
TOWERS = "blip chinese_clip clip siglip siglip2 owlv2 owlvit"


def plan(config: Mapping[str, Any], subject: Subject | None = None) -> Mapping[str, int] | None:
    """Parameters by component, each once, of the network that a config describes; None where it is not covered.

    Counted is what the class in `architectures` holds, its head included. Without a class it is the bare network, but
    of language models with eyes or ears the whole. Buffers (codebooks of running averages) are no parameters.
    """
    whole = str(config.get("_class_name")).endswith("Pipeline")
    if not whole and not _states_sizes(config):
        return None
    try:
        parts = pipeline(config, subject) if whole else counted(config)
    except (Untold, ArithmeticError, LookupError, TypeError, ValueError, AttributeError):
        return None  # a config that does not say enough, or says what no network can be
    if any(type(n) is not int or n < 0 for n in parts.values()) or sum(parts.values()) > MOST:
        return None
    return {name: n for name, n in parts.items() if n} or None


def counted(config: Mapping[str, Any]) -> Mapping[str, int]:
    """Parameters by component. Raises Untold."""
    if isinstance(config.get("model_cfg"), Mapping):
        from brolly.identity.plans.contrastive import open_clip

        return open_clip(config)
    kind = config.get("_class_name") or config.get("model_type")
    if not isinstance(kind, str) or kind not in TABLE:
        raise Untold("model_type")
    if config.get("pruned_heads") or (kind not in OWN_CODE and _own_code(config)):
        raise Untold("auto_map")
    row = TABLE[kind]
    name, *parts = row.split()
    module, function = name.split(".")
    import importlib

    count = getattr(importlib.import_module(f"brolly.identity.plans.{module}"), function)
    given = [part_of(config, *part.split(":")) for part in parts]
    found: Mapping[str, int] = count(Given(config, defaults().get(kind, {})), *given)
    return found


def pipeline(config: Mapping[str, Any], subject: Subject | None) -> Mapping[str, int]:
    """A diffusers pipeline (model_index.json): each of its networks by its own config. Raises Untold."""
    known = config.get("components")
    known = known if isinstance(known, Mapping) else {}
    parts: dict[str, int] = {}
    for name, said in list(config.items())[:64]:
        if not isinstance(said, list) or len(said) != 2 or not isinstance(said[1], str) or said[1].endswith(NO_NETWORK):
            continue
        found = known.get(name) or (subject.json(f"{name}/config.json") if subject and "/" not in name else None)
        if not isinstance(found, Mapping):
            raise Untold(name)
        parts[name] = _language_model(found, said[1]) or sum(counted(found).values())
    return parts


def _language_model(config: Mapping[str, Any], name: str) -> int:
    """Of a decoder that reads prompts for a pipeline, with its head only if its class has one; 0 for other networks."""
    if config.get("model_type") in TABLE:
        return 0
    from brolly.identity.anatomy import anatomy_of

    anatomy = anatomy_of(config)
    if anatomy is None or not anatomy.parts or not anatomy.exact or not name.endswith(("ForCausalLM", "Model")):
        return 0
    return anatomy.total - (0 if name.endswith("ForCausalLM") else anatomy.parts.get("lm_head", 0))


def _states_sizes(config: Mapping[str, Any]) -> bool:
    """Whether a config says any size of its own; one of defaults alone is a stub, and no network's."""
    for key, value in config.items():
        if isinstance(value, Mapping) and key not in ("id2label", "label2id", "quantization_config", "auto_map"):
            if _states_sizes(value):
                return True
        elif not str(key).endswith(("_id", "_ids")):
            first = value[0] if isinstance(value, (list, tuple)) and value else value
            if type(first) is int and first > 1:
                return True
    return False


def _own_code(config: Mapping[str, Any]) -> bool:
    """Whether the network is made by code in the repository."""
    names = config.get("auto_map")
    return isinstance(names, Mapping) and any(str(name).startswith("AutoModel") for name in names)


def part_of(config: Mapping[str, Any], key: str, kind: str) -> Given:
    """One part's config. Old CLIP configs say some of it a second time, and that is what counts."""
    inner = config.get(key)
    again = config.get(f"{key}_dict")
    inner = inner if isinstance(inner, Mapping) else {}
    if isinstance(again, Mapping):
        inner = {**inner, **again}
    own = inner.get("model_type")
    own = own if isinstance(own, str) and own in defaults() and own != config.get("model_type") else kind
    return Given(inner, defaults().get(own, {}))


def assumed(config: Mapping[str, Any]) -> bool:
    """Whether a whole part is not described at all, so that its library's defaults alone count it."""
    parts = TABLE.get(str(config.get("model_type")), "").split()[1:]
    keys = [part.partition(":")[0] for part in parts]
    return any(not config.get(key) and not config.get(f"{key}_dict") for key in keys)


@functools.cache
def defaults() -> Mapping[str, Mapping[str, Any]]:
    """What transformers and diffusers take for a key that a config leaves out, by type (scripts/plan_defaults.py)."""
    types: Mapping[str, Mapping[str, Any]] = table("plan_defaults.json")["types"]
    return types


def context_of(config: Mapping[str, Any]) -> int | None:
    """The longest text that the network has positions for, in tokens; None where there is no such limit, or no text."""
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in TABLE:
        return None
    try:
        if kind in TOWERS.split():
            return part_of(config, "text_config", f"{kind}_text_model").n("max_position_embeddings")
        given = Given(config, defaults().get(kind, {}))
        if kind in PADDED.split():
            return given.n("max_position_embeddings") - 2
        key = next((key for key, kinds in CONTEXT.items() if kind in kinds.split()), None)
        return given.n(key) if key else None
    except Untold:
        return None


__all__ = ["TABLE", "context_of", "defaults", "part_of", "plan"]
