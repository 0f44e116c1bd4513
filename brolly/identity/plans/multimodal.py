"""Language models with eyes or ears: a tower, a projector, and a decoder that anatomy.py counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from brolly.identity.plans.audio import whisper_encoder
from brolly.identity.plans.contrastive import clip_vision, siglip_vision
from brolly.identity.plans.counting import (
    MOST_LISTED,
    Given,
    Untold,
    attention,
    block,
    conv,
    gated,
    linear,
    mlp,
    norm,
    over,
)

Parts = dict[str, int]
WITH_HEAD = ("ForConditionalGeneration", "ForCausalLM", "ForVision2Seq", "ForActionPrediction", "ChatModel")


def language(c: Given, key: str = "text_config", kind: str = "") -> tuple[int, int, Mapping[str, Any]]:
    """Parameters of the decoder with its head, its width, its config. `kind`: its model type where it names none."""
    from brolly.identity.anatomy import anatomy_of

    name = c.architecture
    family = str(c.config.get("model_type")).replace("_", "")
    if name and not (name.endswith(WITH_HEAD) and name.lower().replace("_", "").startswith(family)):
        raise Untold(name)
    text = c.config.get(key)
    if key and not isinstance(text, Mapping):
        raise Untold(key)
    inner = dict(text) if isinstance(text, Mapping) else dict(c.config)
    if key:
        inner.setdefault("model_type", kind)
        if "tie_word_embeddings" in c.config:
            inner.setdefault("tie_word_embeddings", c.config["tie_word_embeddings"])
    anatomy = anatomy_of(inner)
    if anatomy is None or not anatomy.parts or not anatomy.exact:
        raise Untold(key)
    return anatomy.total, anatomy.dim, inner


def pixtral(c: Given) -> int:
    dim = c.n("hidden_size")
    layer = attention(dim, bias=False) + gated(dim, c.n("intermediate_size")) + 2 * dim
    return conv(c.n("num_channels"), dim, c.n("patch_size"), False) + dim + c.n("num_hidden_layers") * layer


def pixtral_vision(c: Given) -> Parts:
    return {"vision": pixtral(c)}


TOWERS = {
    "clip_vision_model": clip_vision,
    "pixtral": pixtral,
    "siglip2_vision_model": siglip_vision,
    "siglip_vision_model": siglip_vision,
}


def tower(vision: Given) -> int:
    kind = vision.config.get("model_type")
    if not isinstance(kind, str) or kind not in TOWERS:
        raise Untold("vision_config")
    return TOWERS[kind](vision)


def _features(c: Given) -> int:
    """How many layers of the tower are laid side by side."""
    chosen = c.get("vision_feature_layer")
    return len(chosen) if isinstance(chosen, list) and len(chosen) <= MOST_LISTED else 1


def llava(c: Given, vision: Given) -> Parts:
    """LLaVA in transformers' spelling; NeXT and OneVision also learn where a row of patches ends."""
    words, dim, _ = language(c)
    seen, bias = vision.n("hidden_size") * _features(c), c.on("multimodal_projector_bias", True)
    joint = linear(seen, dim, bias) + linear(dim, dim, bias)
    joint += dim if c.config.get("model_type") in ("llava_next", "llava_onevision") else 0
    return {"language": words, "vision": tower(vision), "projection": joint}


def mistral3(c: Given, vision: Given) -> Parts:
    words, dim, _ = language(c)
    seen, merge = vision.n("hidden_size"), c.n("spatial_merge_size")
    bias = c.on("multimodal_projector_bias", False)
    joint = seen + linear(seen * merge * merge, seen, False)
    joint += linear(seen * _features(c), dim, bias) + linear(dim, dim, bias)
    return {"language": words, "vision": tower(vision), "projection": joint}


def _qwen_text(c: Given) -> int:
    """Flat in the configs that are published, in a part of its own in those of later versions."""
    nested = isinstance(c.config.get("text_config"), Mapping)
    return language(c, "text_config" if nested else "", str(c.config.get("model_type")))[0]


def _qwen_patches(vision: Given, dim: int, bias: bool) -> int:
    patch = vision.n("patch_size")
    return conv(vision.n("in_chans", "in_channels"), dim, (vision.n("temporal_patch_size"), patch, patch), bias)


def qwen2_vl(c: Given, vision: Given) -> Parts:
    dim, merge = vision.n("embed_dim"), vision.n("spatial_merge_size") ** 2
    layer = block(dim, int(dim * vision.real("mlp_ratio")))
    merger = norm(dim) + mlp(merge * dim, merge * dim, vision.n("hidden_size"))
    eyes = _qwen_patches(vision, dim, False) + vision.n("depth") * layer
    return {"language": _qwen_text(c), "vision": eyes, "projection": merger}


def qwen2_5_vl(c: Given, vision: Given) -> Parts:
    dim, merge = vision.n("hidden_size"), vision.n("spatial_merge_size") ** 2
    layer = attention(dim) + gated(dim, vision.n("intermediate_size"), True) + 2 * dim
    merger = dim + mlp(merge * dim, merge * dim, vision.n("out_hidden_size"))
    eyes = _qwen_patches(vision, dim, False) + vision.n("depth") * layer
    return {"language": _qwen_text(c), "vision": eyes, "projection": merger}


def qwen3_vl(c: Given, vision: Given) -> Parts:
    """Some layers of the eye reach into the decoder by mergers of their own."""
    dim, merge, out = vision.n("hidden_size"), vision.n("spatial_merge_size") ** 2, vision.n("out_hidden_size")
    layer = block(dim, vision.n("intermediate_size"))
    eyes = _qwen_patches(vision, dim, True) + vision.n("num_position_embeddings") * dim + vision.n("depth") * layer
    last = mlp(merge * dim, merge * dim, out)
    deep = len(vision.ns("deepstack_visual_indexes"))
    return {
        "language": _qwen_text(c),
        "vision": eyes,
        "projection": norm(dim) + last + deep * (norm(merge * dim) + last),
    }


def gemma3(c: Given, vision: Given) -> Parts:
    words, dim, _ = language(c, kind="gemma3_text")
    seen = vision.n("hidden_size")
    return {"language": words, "vision": tower(vision), "projection": seen * dim + seen}


def paligemma(c: Given, vision: Given) -> Parts:
    words, _, _ = language(c, kind="gemma")
    joint = linear(vision.n("hidden_size"), c.n("projection_dim"))
    return {"language": words, "vision": tower(vision), "projection": joint}


def _idefics_vision(c: Given) -> int:
    dim, patch = c.n("hidden_size"), c.n("patch_size")
    rows = (c.n("image_size") // over(patch)) ** 2
    stack = c.n("num_hidden_layers") * block(dim, c.n("intermediate_size"))
    return conv(c.n("num_channels"), dim, patch) + rows * dim + stack + norm(dim)


def idefics2(c: Given, vision: Given, perceiver: Given) -> Parts:
    """A perceiver turns any number of patches into a few vectors."""
    words, dim, text = language(c, kind="mistral")
    hidden = text.get("intermediate_size", 14336)
    if type(hidden) is not int:
        raise Untold("intermediate_size")
    seen, heads = vision.n("hidden_size"), perceiver.n("resampler_n_heads")
    head, kv = perceiver.n("resampler_head_dim"), perceiver.n("num_key_value_heads")
    layer = 2 * dim * heads * head + 2 * dim * kv * head + gated(dim, 4 * dim) + 3 * dim
    joint = 2 * seen * hidden + hidden * dim + perceiver.n("resampler_n_latents") * dim + dim
    joint += perceiver.n("resampler_depth") * layer
    return {"language": words, "vision": _idefics_vision(vision), "projection": joint}


def idefics3(c: Given, vision: Given) -> Parts:
    words, dim, _ = language(c, kind="llama")
    joint = vision.n("hidden_size") * c.n("scale_factor") ** 2 * dim
    return {"language": words, "vision": _idefics_vision(vision), "projection": joint}


def _intern_vision(vision: Given, bias: bool, normed: bool) -> int:
    dim = vision.n("hidden_size")
    layer = (
        attention(dim) - (0 if bias else 3 * dim) + mlp(dim, vision.n("intermediate_size")) + 2 * norm(dim) + 2 * dim
    )
    layer += 2 * dim if normed else 0
    rows = vision.patches() + 2
    height, width = vision.pair("patch_size")
    return conv(vision.n("num_channels"), dim, (height, width)) + rows * dim + vision.n("num_hidden_layers") * layer


def internvl(c: Given, vision: Given) -> Parts:
    """In transformers' spelling."""
    words, dim, _ = language(c)
    seen = vision.n("hidden_size")
    if vision.word("norm_type", "layer_norm") != "layer_norm" or vision.on("use_mask_token", False):
        raise Untold("norm_type")
    eyes = _intern_vision(vision, vision.on("attention_bias", False), vision.on("use_qk_norm", False))
    eyes += 0 if vision.on("use_mean_pooling", True) else norm(seen)
    if not vision.on("use_absolute_position_embeddings", True):
        raise Untold("use_absolute_position_embeddings")
    merged = int(seen * round(1 / (c.real("downsample_ratio") or 1)) ** 2)
    return {"language": words, "vision": eyes, "projection": norm(merged) + mlp(merged, dim, dim)}


def internvl_chat(c: Given, vision: Given) -> Parts:
    """In its authors' spelling."""
    words, dim, _ = language(c, "llm_config")
    if vision.config.get("model_type") != "intern_vit_6b" or vision.word("norm_type", "layer_norm") != "layer_norm":
        raise Untold("vision_config")
    eyes = _intern_vision(vision, vision.on("qkv_bias"), vision.on("qk_normalization"))
    merged = int(vision.n("hidden_size") * round(1 / (c.real("downsample_ratio") or 1)) ** 2)
    return {"language": words, "vision": eyes, "projection": norm(merged) + mlp(merged, dim, dim)}


def _mllama_text(c: Given) -> tuple[int, int]:
    """Llama 3.1 with eight words more to read, some of whose layers look at the picture in place of the text."""
    dim, heads, n = c.n("hidden_size"), c.n("num_attention_heads"), c.n("num_hidden_layers")
    head = dim // over(heads)
    crossed = len(set(c.ns("cross_attention_layers")) & set(range(min(n, MOST_LISTED))))
    layer = 2 * dim * dim + 2 * dim * c.n("num_key_value_heads") * head
    layer += gated(dim, c.n("intermediate_size")) + 2 * dim
    total = n * layer + crossed * (2 * head + 2) + dim + (c.n("vocab_size") + 8) * dim
    return total + (0 if c.on("tie_word_embeddings", False) else c.n("vocab_size") * dim), dim


def mllama(c: Given, vision: Given, text: Given) -> Parts:
    """Llama 3.2 Vision: pictures in tiles that know their place; two stacks of layers, the second with gates."""
    words, dim = _mllama_text(text)
    if c.architecture not in ("", "MllamaForConditionalGeneration"):
        raise Untold(c.architecture)
    seen, patch = vision.n("hidden_size"), vision.n("patch_size")
    rows = (vision.n("image_size") // over(patch)) ** 2 + 1
    ratios, tiles = vision.get("supported_aspect_ratios"), vision.n("max_num_tiles")
    if not isinstance(ratios, (list, tuple)) or len(ratios) > MOST_LISTED:
        raise Untold("supported_aspect_ratios")
    kinds = len(ratios) + 1
    layer = attention(seen, bias=False) + mlp(seen, vision.n("intermediate_size")) + 2 * norm(seen)
    eyes = seen + conv(vision.n("num_channels"), seen, patch, False) + 2 * norm(seen)
    eyes += rows * seen + 1 + kinds * tiles * rows * seen + 2 * (1 + kinds * tiles * seen)
    eyes += vision.n("num_hidden_layers") * layer + vision.n("num_global_layers") * (layer + 2)
    out = seen * (1 + len(vision.ns("intermediate_layers_indices")))
    return {"language": words, "vision": eyes, "projection": linear(out, dim)}


def qwen2_audio(c: Given, audio: Given) -> Parts:
    words, dim, _ = language(c, kind="qwen2")
    return {"language": words, "audio": whisper_encoder(audio), "projection": linear(audio.n("d_model"), dim)}


def voxtral(c: Given, audio: Given) -> Parts:
    words, dim, _ = language(c, kind="llama")
    joint = linear(audio.n("encoder_ffn_dim", "intermediate_size"), dim, False) + linear(dim, dim, False)
    names = {"d_model": "hidden_size", "encoder_layers": "num_hidden_layers", "encoder_ffn_dim": "intermediate_size"}
    both = {**audio.defaults, **audio.config}
    ears = Given({name: both.get(name, both.get(other)) for name, other in names.items()}, both)
    return {"language": words, "audio": whisper_encoder(ears), "projection": joint}


def openvla(c: Given) -> Parts:
    """OpenVLA and Prismatic: DINOv2 and SigLIP side by side (timm's), three layers, Llama 2."""
    names = c.words("timm_model_ids")
    if names != ["vit_large_patch14_reg4_dinov2.lvd142m", "vit_so400m_patch14_siglip_224"]:
        raise Untold("timm_model_ids")
    words, dim, _ = language(c, kind="llama")
    rows = 16 * 16
    dino = conv(3, 1024, 14) + (rows + 5) * 1024 + 24 * (block(1024, 4096) + 2 * 1024) + norm(1024)
    siglip = conv(3, 1152, 14) + rows * 1152 + 27 * block(1152, 4304) + norm(1152)
    siglip += 1152 + attention(1152) + norm(1152) + mlp(1152, 4304)
    seen = 1024 + 1152
    joint = linear(seen, 4 * seen) + linear(4 * seen, dim) + linear(dim, dim)
    return {"language": words, "vision": dino + siglip, "projection": joint}


def florence2(c: Given, vision: Given, text: Given) -> Parts:
    """DaViT, which looks in windows and between channels, beside BART."""
    from brolly.identity.plans.seq2seq import bart

    if c.architecture not in ("", "Florence2ForConditionalGeneration"):
        raise Untold(c.architecture)
    dims, depths = vision.ns("dim_embed" if "dim_embed" in vision.config else "embed_dim"), vision.ns("depths")
    kernels, n_in, eyes = vision.ns("patch_size"), 3, 0
    first = vision.get("patch_prenorm")
    first = first if isinstance(first, list) else [False] * len(dims)
    for i, (dim, depth, kernel, before) in enumerate(zip(dims, depths, kernels, first, strict=True)):
        layer = 2 * (2 * conv(dim, dim, 3, groups=dim) + block(dim, int(vision.real("mlp_ratio", default=4.0) * dim)))
        eyes += conv(n_in, dim, kernel) + norm(n_in if before and i else dim) + depth * layer
        n_in = dim
    if not dims:
        raise Untold("embed_dim")
    shared = vision.n("projection_dim", default=c.n("projection_dim", default=0))
    tables = vision.get("image_pos_embed", "max_position_embeddings")
    tables = tables.get("max_pos_embeddings") if isinstance(tables, Mapping) else tables
    if type(tables) is not int or not shared:
        raise Untold("max_position_embeddings")
    joint = n_in * shared + norm(shared) + tables * n_in
    reader = {k: v for k, v in text.config.items() if k != "architectures"}
    words = sum(bart(Given({**reader, "tie_word_embeddings": True}, text.defaults)).values())
    return {"text": words, "vision": eyes, "projection": joint}


def llama4(c: Given, vision: Given) -> Parts:
    words, dim, _ = language(c, kind="llama4_text")
    seen, patch, wide = vision.n("hidden_size"), vision.n("patch_size"), vision.n("projector_output_dim")
    rows = (vision.n("image_size") // over(patch)) ** 2 + 2
    eyes = rows * seen + vision.n("num_channels") * patch * patch * seen + 2 * norm(seen)
    eyes += vision.n("num_hidden_layers") * block(seen, vision.n("intermediate_size"))
    eyes += vision.n("intermediate_size") * vision.n("projector_input_dim") + wide * wide
    if vision.n("projector_input_dim") != wide:
        raise Untold("projector_input_dim")
    return {"language": words, "vision": eyes, "projection": vision.n("vision_output_dim") * dim}


def phi3_v(c: Given) -> Parts:
    """Phi-3 and 3.5 Vision, by their own code: CLIP's eye, four patches to a vector, two learned separators."""
    said = c.config.get("img_processor")
    if not isinstance(said, Mapping) or said.get("model_name") != "openai/clip-vit-large-patch14-336":
        raise Untold("img_processor")
    words, dim, _ = language(c, "")
    eye = {"hidden_size": 1024, "image_size": 336, "intermediate_size": 4096, "num_channels": 3, "patch_size": 14,
           "num_hidden_layers": 24}  # fmt: skip
    seen = 4 * 1024
    return {"language": words, "vision": clip_vision(Given(eye, {})), "projection": mlp(seen, dim, dim) + 2 * seen}
