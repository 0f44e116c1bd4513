"""Networks that put pictures (or sounds) and texts into one space: CLIP, SigLIP, OWL-ViT, BLIP, CLAP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from brolly.identity.plans.counting import Given, Untold, attention, block, conv, linear, mlp, norm, over

Parts = dict[str, int]


def clip_text(c: Given) -> int:
    """Of the tower without its projection."""
    dim = c.n("hidden_size")
    rows = c.n("vocab_size") + c.n("max_position_embeddings")
    return rows * dim + c.n("num_hidden_layers") * block(dim, c.n("intermediate_size")) + norm(dim)


def clip_vision(c: Given) -> int:
    """Of the tower without its projection."""
    dim, patch = c.n("hidden_size"), c.n("patch_size")
    rows = (c.n("image_size") // over(patch)) ** 2 + 2
    stack = c.n("num_hidden_layers") * block(dim, c.n("intermediate_size"))
    return conv(c.n("num_channels"), dim, patch, False) + rows * dim + stack + 2 * norm(dim)


def clip(c: Given, text: Given, vision: Given) -> Parts:
    """All of CLIP; the towers have projections of their own only where they stand alone."""
    if c.architecture == "StableDiffusionSafetyChecker":  # its 20 concepts' vectors and thresholds
        joint = linear(vision.n("hidden_size"), c.n("projection_dim"), False) + 20 * (c.n("projection_dim") + 1)
        return {"vision": clip_vision(vision), "projection": joint}
    if c.architecture not in ("", "CLIPModel"):
        raise Untold(c.architecture)
    shared = c.n("projection_dim")
    projections = linear(text.n("hidden_size"), shared, False) + linear(vision.n("hidden_size"), shared, False)
    return {
        "text": clip_text(text),
        "vision": clip_vision(vision),
        "projection": projections + 1,
    }  # and its temperature


def clip_text_model(c: Given) -> Parts:
    name = c.architecture
    if name not in ("", "CLIPTextModel", "CLIPTextModelWithProjection"):
        raise Untold(name)
    parts = {"text": clip_text(c)}
    if name.endswith("Projection"):
        parts["projection"] = linear(c.n("hidden_size"), c.n("projection_dim"), False)
    return parts


def clip_vision_model(c: Given) -> Parts:
    name = c.architecture
    if name not in ("", "CLIPVisionModel", "CLIPVisionModelWithProjection"):
        raise Untold(name)
    parts = {"vision": clip_vision(c)}
    if name.endswith("Projection"):
        parts["projection"] = linear(c.n("hidden_size"), c.n("projection_dim"), False)
    return parts


def open_clip(config: Mapping[str, Any]) -> Parts:
    """open_clip_config.json; towers from timm or transformers are not told there."""
    inner = config.get("model_cfg")
    inner = inner if isinstance(inner, Mapping) else config
    seen, read = inner.get("vision_cfg"), inner.get("text_cfg")
    if not isinstance(seen, Mapping) or not isinstance(read, Mapping) or inner.get("multimodal_cfg"):
        raise Untold("vision_cfg")
    known_v = {"image_size", "layers", "width", "patch_size", "head_width", "mlp_ratio"}
    known_t = {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio", "hf_tokenizer_name",
               "tokenizer_kwargs"}  # fmt: skip
    if set(seen) - known_v or set(read) - known_t or set(inner) - {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu"}:
        raise Untold("a tower with other parts")
    v = Given(seen, {"mlp_ratio": 4.0})
    t = Given(read, {"mlp_ratio": 4.0, "context_length": 77, "vocab_size": 49408})
    dim, width, patch = t.n("width"), v.n("width"), v.n("patch_size")
    text = (t.n("vocab_size") + t.n("context_length")) * dim + norm(dim)
    text += t.n("layers") * block(dim, int(dim * t.real("mlp_ratio")))
    rows = (v.n("image_size") // over(patch)) ** 2 + 2
    vision = conv(3, width, patch, False) + rows * width + 2 * norm(width)
    vision += v.n("layers") * block(width, int(width * v.real("mlp_ratio")))
    shared = Given(inner, {}).n("embed_dim")
    return {"text": text, "vision": vision, "projection": (dim + width) * shared + 1}


def siglip_text(c: Given) -> int:
    dim = c.n("hidden_size")
    rows = c.n("vocab_size") + c.n("max_position_embeddings")
    stack = c.n("num_hidden_layers") * block(dim, c.n("intermediate_size"))
    return rows * dim + stack + norm(dim) + linear(dim, c.n("projection_size", default=dim))


def siglip_vision(c: Given) -> int:
    """With the head that pools by attention, unless the config leaves it out."""
    dim, patch = c.n("hidden_size"), c.n("patch_size")
    given = c.config.get("num_patches", c.defaults.get("num_patches"))  # siglip2 tells their number
    rows = given if type(given) is int and given > 0 else (c.n("image_size") // over(patch)) ** 2
    hidden = c.n("intermediate_size")
    stack = c.n("num_hidden_layers") * block(dim, hidden)
    total = conv(c.n("num_channels"), dim, patch) + rows * dim + stack + norm(dim)
    if c.on("vision_use_head", True):
        total += dim + attention(dim) + norm(dim) + mlp(dim, hidden)
    return total


def siglip(c: Given, text: Given, vision: Given) -> Parts:
    if c.architecture not in ("", "SiglipModel", "Siglip2Model"):
        raise Untold(c.architecture)
    return {"text": siglip_text(text), "vision": siglip_vision(vision), "projection": 2}  # temperature and bias


def siglip_text_model(c: Given) -> Parts:
    if c.architecture not in ("", "SiglipTextModel", "Siglip2TextModel"):
        raise Untold(c.architecture)
    return {"text": siglip_text(c)}


def siglip_vision_model(c: Given) -> Parts:
    if c.architecture not in ("", "SiglipVisionModel", "Siglip2VisionModel"):
        raise Untold(c.architecture)
    return {"vision": siglip_vision(c)}


def chinese_clip(c: Given, text: Given, vision: Given) -> Parts:
    """A RoBERTa beside CLIP's eye; without a pooler in the checkpoints that are published."""
    if c.architecture not in ("", "ChineseCLIPModel"):
        raise Untold(c.architecture)
    dim, shared = text.n("hidden_size"), c.n("projection_dim")
    rows = text.n("vocab_size") + text.n("max_position_embeddings") + text.n("type_vocab_size")
    words = rows * dim + norm(dim) + text.n("num_hidden_layers") * block(dim, text.n("intermediate_size"))
    projections = linear(dim, shared, False) + linear(vision.n("hidden_size"), shared, False)
    return {"text": words, "vision": clip_vision(vision), "projection": projections + 1}


def owl(c: Given, text: Given, vision: Given) -> Parts:
    """OWL-ViT and OWLv2, to detect what a text names; OWLv2 also tells how much an object each box is."""
    name = c.architecture
    if name not in ("OwlViTForObjectDetection", "Owlv2ForObjectDetection"):
        raise Untold(name)
    dim, words, shared = vision.n("hidden_size"), text.n("hidden_size"), c.n("projection_dim")
    projections = linear(words, shared, False) + linear(dim, shared, False) + 1
    boxes = 2 * linear(dim, dim) + linear(dim, 4)
    classes = linear(dim, words) + 2 * linear(dim, 1)
    head = boxes + classes + norm(dim)
    if name.startswith("Owlv2"):
        head += 2 * linear(dim, dim) + linear(dim, 1)
    return {"text": clip_text(text), "vision": clip_vision(vision), "projection": projections, "head": head}


def blip_vision(c: Given) -> int:
    dim, patch = c.n("hidden_size"), c.n("patch_size")
    rows = (c.n("image_size") // over(patch)) ** 2 + 2
    return (
        conv(3, dim, patch) + rows * dim + c.n("num_hidden_layers") * block(dim, c.n("intermediate_size")) + norm(dim)
    )


def blip(c: Given, text: Given, vision: Given) -> Parts:
    """BLIP, whose text network looks at the picture in every layer."""
    name = c.architecture
    dim, seen = text.n("hidden_size"), text.n("encoder_hidden_size")
    vocab = text.n("vocab_size")
    layer = block(dim, text.n("intermediate_size")) + attention(dim, context=seen) + norm(dim)
    words = (vocab + text.n("max_position_embeddings")) * dim + norm(dim) + text.n("num_hidden_layers") * layer
    language = linear(dim, dim) + norm(dim) + vocab
    parts = {"text": words, "vision": blip_vision(vision)}
    if name == "BlipForConditionalGeneration":
        parts["head"] = language + (0 if text.tied else vocab * dim)
    elif name == "BlipForImageTextRetrieval":
        shared = c.n("image_text_hidden_size")
        parts["projection"] = linear(vision.n("hidden_size"), shared) + linear(dim, shared) + linear(dim, 2)
    elif name in ("", "BlipModel"):
        shared = c.n("projection_dim")
        parts["projection"] = (vision.n("hidden_size") + dim) * shared + 1
        parts["head"] = linear(dim, dim)
    else:
        raise Untold(name)
    return parts


def clap(c: Given, text: Given, audio: Given) -> Parts:
    """A RoBERTa beside a Swin that listens; some listen to long sounds in four pieces and fuse them."""
    if c.architecture not in ("", "ClapModel"):
        raise Untold(c.architecture)
    dim, shared = text.n("hidden_size"), c.n("projection_dim")
    rows = text.n("vocab_size") + text.n("max_position_embeddings") + text.n("type_vocab_size")
    words = rows * dim + norm(dim) + text.n("num_hidden_layers") * block(dim, text.n("intermediate_size"))
    words += linear(dim, dim)
    width, window = audio.n("patch_embeds_hidden_size"), audio.n("window_size")
    depths = audio.ns("depths")
    heads = audio.ns("num_attention_heads", len(depths))
    sounds = 0
    for i, (depth, n_heads) in enumerate(zip(depths, heads, strict=True)):
        here = width * 2**i
        layer = block(here, int(audio.real("mlp_ratio") * here)) + (2 * window - 1) ** 2 * n_heads
        layer -= 0 if audio.on("qkv_bias", True) else 3 * here
        sounds += depth * layer
        sounds += linear(4 * here, 2 * here, False) + norm(4 * here) if i < len(depths) - 1 else 0
    patch, channels = audio.n("patch_size"), audio.n("patch_embed_input_channels")
    last = width * 2 ** (len(depths) - 1)
    if audio.on("enable_fusion", False):
        raise Untold("enable_fusion")
    sounds += conv(channels, width, patch) + (norm(width) if audio.on("enable_patch_layer_norm", True) else 0)
    sounds += norm(last) + norm(audio.n("num_mel_bins"))
    projections = mlp(dim, shared, shared) + mlp(last, shared, shared) + 2
    return {"text": words, "audio": sounds, "projection": projections}
