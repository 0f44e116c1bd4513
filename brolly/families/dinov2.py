"""DINOv2 (Oquab et al. 2023), with registers and without: Hugging Face's, Facebook's and timm's layout."""

from __future__ import annotations

from typing import Any

from brolly.card import Family, Header, Rename
from brolly.configs import ImageEncoderConfig
from brolly.families import towers
from brolly.families.towers import EYE, HF_EYE

KINDS = ("dinov2", "dinov2_with_registers")


def config(header: Header) -> Any:
    if towers.is_timm(header, "dinov2"):
        return towers.timm_config(header)
    found = towers.shapes(header, names(header))
    if header.config.get("model_type") not in KINDS:  # Facebook's, whose registers came with another way to resize
        n_heads = towers.usual_heads(found[f"{EYE}post_layernorm.weight"][0], False)
        gated = f"{EYE}encoder.layers.0.mlp.gate.weight" in found
        antialias = f"{EYE}embeddings.register_tokens" in found
        return ImageEncoderConfig(
            towers.eye(header, found, n_heads, "silu" if gated else "gelu", 1e-6, antialias=antialias)
        )
    return hugging_face(header, 1e-6, with_mean=True, antialias=header.config["model_type"] == KINDS[1])


def hugging_face(header: Header, norm_eps: float, *, with_mean: bool, antialias: bool) -> ImageEncoderConfig:
    """An eye in transformers' layout, and the classifier on it if there is one."""
    found = towers.shapes(header, hugging_face_names(header))
    gated = f"{EYE}encoder.layers.0.mlp.gate.weight" in found
    vision = towers.eye(
        header, found, header.whole("num_attention_heads", 12),
        "silu" if gated else header.config.get("hidden_act", "gelu"),
        float(header.number("layer_norm_eps", norm_eps, high=1)), antialias=antialias,
    )  # fmt: skip
    n_labels = found.get("classifier.weight", (0,))[0]
    return ImageEncoderConfig(vision, towers.labels_of(header, n_labels), with_mean)


def hugging_face_names(header: Header) -> tuple[Rename, ...]:
    prefix = r"(?:dinov2\.|dinov2_with_registers\.|vit\.)?"
    return tuple(row._replace(pattern=prefix + f"(?:{row.pattern})") for row in HF_EYE)


def names(header: Header) -> tuple[Rename, ...]:
    if header.config.get("model_type") in KINDS:
        return hugging_face_names(header)
    return towers.timm_names(header)


def match(header: Header) -> bool:
    if header.config.get("model_type") in KINDS:
        return any(name.endswith("encoder.layer.0.layer_scale1.lambda1") for name in header.tensors)
    if "architecture" in header.config:
        return towers.is_timm(header, "dinov2")
    facebook = ("mask_token", "pos_embed", "blocks.0.ls1.gamma"), ("mask_token", "pos_embed", "blocks.0.0.ls1.gamma")
    return "model_type" not in header.config and any(all(n in header.tensors for n in names) for names in facebook)


FAMILY = Family("DINOv2", match, config, names, ("embed", "classify"))
