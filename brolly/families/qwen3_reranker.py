"""Qwen3-Reranker (Zhang et al. 2025): Qwen3 that answers yes or no; only its name or its modules tell it from Qwen3."""

from __future__ import annotations

from brolly.card import Family, Header, Rename
from brolly.configs import LlamaTextsConfig
from brolly.families import encoders, qwen2, qwen3, qwen3_embedding


def config(header: Header) -> LlamaTextsConfig:
    steps = [step for step in encoders.modules(header) if step.get("type") == "LogitScore"]
    said = [step.get(key) for step in steps for key in ("true_token_id", "false_token_id")]
    yes, no = said if len(said) == 2 else (None, None)
    words = (yes, no) if type(yes) is int and type(no) is int else None
    return qwen3_embedding.of_texts(header)._replace(words=words)


def names(header: Header) -> tuple[Rename, ...]:
    return qwen2.names(header)


def match(header: Header) -> bool:
    named = "qwen3-reranker" in f"{header.path} {header.metadata.get('general.name')}".lower().replace(" ", "-")
    scores = any(step.get("type") == "LogitScore" for step in encoders.modules(header))
    return qwen3.match(header) and (named or scores)


FAMILY = Family("Qwen3", match, config, names, ("rerank",), narrows=qwen3.FAMILY)
