"""TinyLlama 1.1B (Zhang et al. 2024): Llama 2's architecture and tokenizer, told by its shape."""

from __future__ import annotations

from brolly.card import Family, Header
from brolly.families import llama


def match(header: Header) -> bool:
    c = header.config
    shape = (c.get("hidden_size"), c.get("num_hidden_layers"), c.get("num_key_value_heads"), c.get("intermediate_size"))
    return llama.is_hugging_face(header, "llama") and shape == (2048, 22, 4, 5632)


FAMILY = Family("TinyLlama", match, llama.config, llama.names, llama.FAMILY.tasks, narrows=llama.FAMILY)
