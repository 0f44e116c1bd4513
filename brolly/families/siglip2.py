"""SigLIP 2 (Tschannen et al. 2025): SigLIP with Gemma's vocabulary; its NaFlex networks take pictures of any shape."""

from __future__ import annotations

from brolly.card import Family, Header
from brolly.families import siglip

ROWS = 256_000  # of Gemma's vocabulary
TABLES = ("text_model.embeddings.token_embedding.weight", "text.token_embedding.weight")


def match(header: Header) -> bool:
    rows = [header.tensors[name].shape[:1] for name in TABLES if name in header.tensors]
    return siglip.match(header) and (header.config.get("model_type") in siglip.NAFLEX or rows == [(ROWS,)])


FAMILY = Family("SigLIP 2", match, siglip.config, siglip.names, siglip.FAMILY.tasks, narrows=siglip.FAMILY)
