"""Qwen3: Llama with each query and key head normed."""

from __future__ import annotations

from brolly.card import Family, Header
from brolly.families import llama, qwen2


def match(header: Header) -> bool:
    return llama.is_hugging_face(header, "qwen3") or llama.is_gguf(header, "qwen3")


FAMILY = Family("Qwen3", match, qwen2.config, qwen2.names, ("generate", "chat", "score"))
