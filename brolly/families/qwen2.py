"""Qwen2 and Qwen2.5: Llama with biases on query, key and value."""

from __future__ import annotations

from brolly.card import Family, Header, Rename
from brolly.configs import LlamaConfig
from brolly.families import llama


def config(header: Header) -> LlamaConfig:
    return llama.gguf_config(header) if header.format == "gguf" else llama.hugging_face_config(header)


def names(header: Header) -> tuple[Rename, ...]:
    return llama.gguf_names(interleaved=False) if header.format == "gguf" else llama.names(header)


def match(header: Header) -> bool:
    return llama.is_hugging_face(header, "qwen2") or llama.is_gguf(header, "qwen2")


FAMILY = Family("Qwen2", match, config, names, ("generate", "chat", "score"))
