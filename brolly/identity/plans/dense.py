"""Networks that answer for every pixel or box, or read a picture aloud: DPT, Depth Anything, DETR, TrOCR, BLIP-2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from brolly.identity.plans.counting import Given, Untold, attention, block, conv, linear, norm, over
from brolly.identity.plans.vision import resnet

Parts = dict[str, int]


def _pyramid(c: Given, dim: int, readout: bool) -> int:
    """Four layers of the tower brought to four sizes, then fused from coarse to fine."""
    widths, out = c.ns("neck_hidden_sizes"), c.n("fusion_hidden_size")
    factors = c.get("reassemble_factors")
    if (
        not isinstance(factors, (list, tuple))
        or len(factors) != len(widths)
        or c.on("use_batch_norm_in_fusion_residual", False)
    ):
        raise Untold("reassemble_factors")
    total = 0
    for width, factor in zip(widths, factors, strict=True):
        if factor not in (0.5, 1, 2, 4, 8):
            raise Untold("reassemble_factors")
        total += conv(dim, width, 1) + conv(width, out, 3, False)
        total += conv(width, width, int(factor)) if factor > 1 else conv(width, width, 3) if factor < 1 else 0
        total += linear(2 * dim, dim) if readout else 0
        total += conv(out, out, 1) + 4 * conv(out, out, 3)
    return total


def dpt(c: Given) -> Parts:
    if c.architecture != "DPTForDepthEstimation" or c.on("is_hybrid", False) or c.get("backbone_config"):
        raise Untold(c.architecture)
    dim = c.n("hidden_size")
    tower = conv(c.n("num_channels"), dim, c.n("patch_size")) + (c.patches() + 2) * dim + norm(dim)
    layer = block(dim, c.n("intermediate_size")) - (0 if c.on("qkv_bias", True) else 3 * dim)
    tower += c.n("num_hidden_layers") * layer
    out = c.n("fusion_hidden_size")
    if c.on("add_projection", False):
        raise Untold("add_projection")
    head = conv(out, out // 2, 3) + conv(out // 2, 32, 3) + conv(32, 1, 1)
    return {"vision": tower, "neck": _pyramid(c, dim, c.word("readout_type") == "project"), "head": head}


def depth_anything(c: Given) -> Parts:
    from brolly.identity.plans import counted

    inner = c.config.get("backbone_config")
    if c.architecture not in ("", "DepthAnythingForDepthEstimation") or not isinstance(inner, Mapping):
        raise Untold("backbone_config")
    tower = counted({**inner, "architectures": ["Dinov2Backbone"]}) if inner.get("model_type") == "dinov2" else {}
    dim, out = inner.get("hidden_size"), c.n("fusion_hidden_size")
    if not tower or type(dim) is not int:
        raise Untold("backbone_config")
    small = c.n("head_hidden_size")
    head = conv(out, out // 2, 3) + conv(out // 2, small, 3) + conv(small, 1, 1)
    return {"vision": sum(tower.values()), "neck": _pyramid(c, dim, False), "head": head}


RESNETS = {
    "resnet50": {"depths": [3, 4, 6, 3], "hidden_sizes": [256, 512, 1024, 2048]},
    "resnet101": {"depths": [3, 4, 23, 3], "hidden_sizes": [256, 512, 1024, 2048]},
}


def detr(c: Given) -> Parts:
    """DETR, and the table transformer; the backbone's norms are frozen and no parameters."""
    from brolly.identity.plans import defaults

    inner = c.config.get("backbone_config")
    if isinstance(inner, Mapping) and inner.get("model_type") == "resnet":
        shape: Mapping[str, Any] = inner
    elif c.config.get("backbone") in RESNETS and not c.on("dilation", False):
        shape = RESNETS[str(c.config["backbone"])]
    else:
        raise Untold("backbone")
    given = Given({k: v for k, v in shape.items() if k != "architectures"}, defaults()["resnet"])
    if given.word("layer_type") != "bottleneck":
        raise Untold("layer_type")
    tower = sum(resnet(given).values()) - _norms(given)
    dim, last = c.n("d_model"), given.ns("hidden_sizes")[-1]
    encoder = c.n("encoder_layers") * block(dim, c.n("encoder_ffn_dim"))
    decoder = c.n("decoder_layers") * (block(dim, c.n("decoder_ffn_dim")) + attention(dim) + norm(dim)) + norm(dim)
    encoder += norm(dim) if c.config.get("model_type") == "table-transformer" else 0
    parts = {"vision": tower, "projection": conv(last, dim, 1), "encoder": encoder}
    parts["decoder"] = decoder + c.n("num_queries") * dim
    name = c.architecture
    if name in ("DetrForObjectDetection", "TableTransformerForObjectDetection"):
        parts["head"] = linear(dim, c.n_labels + 1) + 2 * linear(dim, dim) + linear(dim, 4)
    elif name not in ("", "DetrModel", "TableTransformerModel"):
        raise Untold(name)
    if c.word("position_embedding_type", "sine") != "sine":
        raise Untold("position_embedding_type")
    return parts


def _norms(c: Given) -> int:
    """Of a ResNet's bottlenecks, what their norms learn."""
    depths, dims = c.ns("depths"), c.ns("hidden_sizes")
    total, before = norm(c.n("embedding_size")), c.n("embedding_size")
    for i, (depth, dim) in enumerate(zip(depths, dims, strict=True)):
        total += depth * (2 * norm(dim // 4) + norm(dim)) + (norm(dim) if before != dim or i else 0)
        before = dim
    return total


def vision_encoder_decoder(c: Given) -> Parts:
    """A tower that sees and a decoder that writes: TrOCR, Donut, captions by GPT-2."""
    from brolly.identity.plans import counted, defaults

    eye, hand = c.config.get("encoder"), c.config.get("decoder")
    if c.architecture not in ("", "VisionEncoderDecoderModel") or not isinstance(eye, Mapping):
        raise Untold(c.architecture)
    if not isinstance(hand, Mapping):
        raise Untold("decoder")
    encoder = counted({k: v for k, v in eye.items() if k != "architectures"})
    given = Given(eye, defaults().get(str(eye.get("model_type")), {}))
    if eye.get("model_type") in ("donut-swin", "swin"):
        seen = given.n("embed_dim") * 2 ** (len(given.ns("depths")) - 1)
    else:
        seen = given.n("hidden_size")
    kind = hand.get("model_type")
    if kind == "gpt2":
        decoder, dim = _gpt2(hand)
    elif kind in ("trocr", "mbart"):
        decoder, dim, seen = _bart_decoder(hand, seen)
    else:
        raise Untold("decoder")
    joint = linear(seen, dim) if seen != dim and hand.get("cross_attention_hidden_size") is None else 0
    return {"vision": sum(encoder.values()), "decoder": decoder, "projection": joint}


def _gpt2(config: Mapping[str, Any]) -> tuple[int, int]:
    from brolly.identity.anatomy import anatomy_of

    own = anatomy_of(config)
    if own is None or not own.parts or not config.get("add_cross_attention"):
        raise Untold("decoder")
    dim = own.dim
    return own.total + len(own.layers) * (linear(dim, 2 * dim) + 2 * linear(dim, dim) + norm(dim)), dim


def _bart_decoder(config: Mapping[str, Any], seen: int) -> tuple[int, int, int]:
    """TrOCR's looks at the tower's own width; mBART's at its own, behind a projection."""
    from brolly.identity.plans import defaults

    kind = str(config["model_type"])
    c = Given(config, defaults().get(kind, {}))
    dim, hidden = c.n("d_model"), c.n("decoder_ffn_dim")
    context = dim
    if kind == "trocr":
        context = c.n("cross_attention_hidden_size", default=seen)
        seen = dim  # so that no projection is counted
    table = (c.n("max_position_embeddings") + 2) * dim if c.on("use_learned_position_embeddings", True) else 0
    first = norm(dim) if kind == "mbart" or c.on("layernorm_embedding", True) else 0
    layer = block(dim, hidden) + attention(dim, context=context) + norm(dim)
    total = c.n("vocab_size") * dim * (1 if c.tied else 2) + table + first + c.n("decoder_layers") * layer
    return total + (norm(dim) if kind == "mbart" else 0), dim, seen


def blip_2(c: Given, vision: Given, former: Given) -> Parts:
    """A frozen eye, 32 questions that look through a small BERT, a frozen language model."""
    from brolly.identity.anatomy import anatomy_of
    from brolly.identity.plans import counted
    from brolly.identity.plans.contrastive import blip_vision

    text = c.config.get("text_config")
    if c.architecture not in ("", "Blip2ForConditionalGeneration") or not isinstance(text, Mapping):
        raise Untold(c.architecture)
    if text.get("model_type") == "t5":
        found = counted({**text, "architectures": ["T5ForConditionalGeneration"]})
        words, dim = sum(found.values()), text.get("d_model")
    else:
        own = anatomy_of({**text, "model_type": text.get("model_type", "opt")})
        words, dim = (own.total, own.dim) if own and own.parts and own.exact else (0, None)
    if not words or type(dim) is not int:
        raise Untold("text_config")
    width, seen = former.n("hidden_size"), former.n("encoder_hidden_size")
    n, every = former.n("num_hidden_layers"), former.n("cross_attention_frequency")
    asks = c.n("num_query_tokens") * width + norm(width) + n * block(width, former.n("intermediate_size"))
    asks += -(-n // over(every)) * (attention(width, context=seen) + norm(width))
    if not vision.on("qkv_bias", True):
        raise Untold("qkv_bias")
    return {"language": words, "vision": blip_vision(vision), "qformer": asks, "projection": linear(width, dim)}
