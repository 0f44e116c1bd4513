"""Mistral 7B v0.1 (sliding window) to Mistral Large 123B, in Hugging Face's layout and Mistral's own."""

from __future__ import annotations

from brolly.card import Family, Header, Rename
from brolly.configs import LlamaConfig
from brolly.families import llama


def config(header: Header) -> LlamaConfig:
    if not llama.is_mistral_native(header):
        return llama.hugging_face_config(header)
    window = header.whole("sliding_window", high=2**30) if header.config.get("sliding_window") else None
    context = header.whole("max_seq_len", header.config.get("max_position_embeddings") or 32768, high=2**30)
    return llama.native_config(header, context, window)


def names(header: Header) -> tuple[Rename, ...]:
    return llama.META if llama.is_mistral_native(header) else llama.names(header)


def match(header: Header) -> bool:
    return llama.is_hugging_face(header, "mistral") or llama.is_mistral_native(header)


FAMILY = Family("Mistral", match, config, names, ("generate", "chat", "score"))
