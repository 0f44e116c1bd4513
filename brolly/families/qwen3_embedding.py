"""Qwen3-Embedding (Zhang et al. 2025): Qwen3 beside sentence-transformers' modules, which pool its last token."""

from __future__ import annotations

from brolly.card import Family, Header, Rename
from brolly.configs import LlamaTextsConfig
from brolly.errors import CheckpointError
from brolly.families import encoders, qwen2, qwen3


def config(header: Header) -> LlamaTextsConfig:
    made = of_texts(header)
    return made._replace(pool=encoders.fitting(header, encoders.pool(header, "lasttoken"), made.llama.dim))


def of_texts(header: Header) -> LlamaTextsConfig:
    """Qwen3's numbers, and the length that its folder sets."""
    llama = qwen2.config(header)
    longest = encoders.context(header, llama.context)
    if any(window is not None and window < longest for window in llama.windows):
        raise CheckpointError(f"{header.path}: it looks at {min(filter(None, llama.windows))} tokens; expected all.")
    return LlamaTextsConfig(llama._replace(context=longest))


def names(header: Header) -> tuple[Rename, ...]:
    return (Rename(r"lm_head\.weight", None), *encoders.behind(header), *qwen2.names(header))


def match(header: Header) -> bool:
    return qwen3.match(header) and any(step.get("type") == "Pooling" for step in encoders.modules(header))


FAMILY = Family("Qwen3", match, config, names, ("embed",), narrows=qwen3.FAMILY)
