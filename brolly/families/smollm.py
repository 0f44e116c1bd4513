"""SmolLM and SmolLM2 (Hugging Face 2024): Llama's architecture in three small shapes over a vocabulary of 49152."""

from __future__ import annotations

from brolly.card import Family, Header
from brolly.families import llama

SHAPES = {(576, 30), (960, 32), (2048, 24)}  # 135M, 360M, 1.7B


def match(header: Header) -> bool:
    c = header.config
    shape = (c.get("hidden_size"), c.get("num_hidden_layers"))
    return llama.is_hugging_face(header, "llama") and c.get("vocab_size") == 49152 and shape in SHAPES


FAMILY = Family("SmolLM", match, llama.config, llama.names, llama.FAMILY.tasks, narrows=llama.FAMILY)
