"""SigLIP (Zhai et al. 2023), both towers or one: Hugging Face's, OpenCLIP's and timm's layout."""

from __future__ import annotations

from typing import Any

from brolly.card import Family, Header, Rename
from brolly.families import clip, open_clip, towers

KINDS = ("siglip", "siglip_text_model", "siglip_vision_model")
NAFLEX = ("siglip2", "siglip2_text_model", "siglip2_vision_model")
UNSAID = clip.Unsaid("gelu_pytorch_tanh", 1e-6, 12, siglip=True)


def config(header: Header) -> Any:
    if towers.is_timm(header, "_siglip_"):
        return towers.timm_config(header)
    if open_clip.match(header):
        return open_clip.config(header)
    flexible = header.config["model_type"] in NAFLEX
    return clip.hugging_face(header, UNSAID, **({"resize": "bilinear", "antialias": True} if flexible else {}))


def names(header: Header) -> tuple[Rename, ...]:
    if towers.is_timm(header, "_siglip_"):
        return towers.timm_names(header)
    return open_clip.names(header) if open_clip.match(header) else clip.hugging_face_names(header)


def match(header: Header) -> bool:
    opened = open_clip.match(header) and "logit_bias" in header.tensors
    return opened or clip.is_hugging_face(header, KINDS + NAFLEX) or towers.is_timm(header, "_siglip_")


FAMILY = Family("SigLIP", match, config, names, ("embed", "classify"))
