"""Plain vision transformers (Dosovitskiy et al. 2021): Hugging Face's and timm's layout."""

from __future__ import annotations

from typing import Any

from brolly.card import Family, Header, Rename
from brolly.families import dinov2, towers

OTHERS = ("_clip_", "_siglip_", "dinov2")  # of timm's names, those of other families


def config(header: Header) -> Any:
    if towers.is_timm(header, ""):
        return towers.timm_config(header)
    return dinov2.hugging_face(header, 1e-12, with_mean=False, antialias=False)


def names(header: Header) -> tuple[Rename, ...]:
    return towers.timm_names(header) if towers.is_timm(header, "") else dinov2.hugging_face_names(header)


def match(header: Header) -> bool:
    hugging_face = header.config.get("model_type") == "vit" and any(
        name.endswith("encoder.layer.0.attention.attention.query.weight") for name in header.tensors
    )
    return hugging_face or (towers.is_timm(header, "") and not towers.is_timm(header, *OTHERS))


FAMILY = Family("ViT", match, config, names, ("embed", "classify"))
