"""What captions pass through before some networks' tokenizers: SigLIP's small letters without punctuation."""

from __future__ import annotations

import html
import re
import string
from collections.abc import Callable
from typing import Any

from brolly.card import Header

PUNCTUATION = str.maketrans("", "", string.punctuation)
GEMMA = 256_000  # rows of SigLIP 2's vocabulary


def cleaning(header: Header) -> Callable[[str], str] | None:
    """How this checkpoint's texts are cleaned, where its tokenizer's own files do not say."""
    if (kind := str(header.config.get("model_type"))).startswith("siglip"):
        said = header.config.get("text_config")
        rows = (said if isinstance(said, dict) else header.config).get("vocab_size")
        return str.lower if rows == GEMMA or kind.startswith("siglip2") else canonical
    trained: Any = header.config.get("sentence_transformers")
    if isinstance(trained, dict) and trained.get("do_lower_case") is True:
        return str.lower
    told: Any = header.config.get("model_cfg")
    for key in ("text_cfg", "tokenizer_kwargs", "clean"):
        told = told.get(key) if isinstance(told, dict) else None
    return canonical_of_open_clip if told == "canonicalize" else None


def canonical(text: str) -> str:
    """SigLIP's: small letters and single spaces, without ASCII's punctuation."""
    return re.sub(r"\s+", " ", text.lower().translate(PUNCTUATION)).strip()


def canonical_of_open_clip(text: str) -> str:
    """OpenCLIP's, which reads HTML's marks first and keeps words apart at underscores."""
    return canonical(html.unescape(html.unescape(text)).strip().replace("_", " "))
