"""OpenAI's /embeddings, which most compatible servers have."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

from brolly.errors import BadAnswer
from brolly.remote.dialect import Call
from brolly.remote.dialects.openai.envelope import tokens
from brolly.remote.dialects.openai.envelope import told as told
from brolly.remote.dialects.vectors import rows_of, texts_of, together
from brolly.remote.target import Target
from brolly.verbs import Embeddings, EmbedOptions

EMBED = frozenset({"dimensions", "truncate", "batch_size"})
most = 2048
# a request's inputs may have 300,000 tokens together; dense text has one in two bytes
most_bytes = 600_000
WIDEST = 1 << 20  # numbers of a vector that are believed


def embed(inputs: Sequence[Any], options: EmbedOptions, target: Target) -> Call:
    """Vectors as base64 of float32, a quarter of their size as decimal numbers. Raises UnsupportedTask, OptionError."""
    body: dict[str, Any] = {"model": target.model, "input": texts_of(inputs, target), "encoding_format": "base64"}
    if options.dimensions is not None:
        body["dimensions"] = options.dimensions
    if options.role is not None:
        body[target.vendor.words.get("role", "role")] = options.role
    return Call("/embeddings", body)


def vectors(body: Any, n: int) -> Embeddings:
    """(n, dim) float32. Raises BadAnswer."""
    rows = rows_of(body.get("data") if isinstance(body, Mapping) else None, n)
    found: list[Any] = [None] * n
    for place, row in enumerate(rows):
        index = row.get("index", place) if isinstance(row, Mapping) else None
        if type(index) is not int or not 0 <= index < n or found[index] is not None:
            raise BadAnswer(
                f"vector {place} says that it is of input {index!r:.40}; expected each of 0 to {n - 1} once."
            )
        found[index] = _numbers(row.get("embedding"), index)
    usage = tokens(body)
    return together(found, usage.prompt_tokens if usage else 0)


def _numbers(given: Any, index: int) -> Any:
    """One vector, of base64 or of numbers: some servers do not know encoding_format."""
    import numpy as np

    try:
        if isinstance(given, str):
            vector = np.frombuffer(base64.b64decode(given, validate=True), "<f4").astype(np.float32, copy=False)
        else:
            vector = np.asarray(given, np.float32)
    except (ValueError, TypeError, OverflowError, binascii.Error):
        vector = np.zeros(0, np.float32)
    if vector.ndim != 1 or not 0 < len(vector) <= WIDEST or not np.isfinite(vector).all():
        raise BadAnswer(f"the vector of input {index} is no list of numbers, nor base64 of float32.")
    return vector
