"""Vectors of Google Cloud's text-embedding models, by :predict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from brolly.errors import BadAnswer
from brolly.remote.dialect import Call
from brolly.remote.dialects.gemini.answers import told as told
from brolly.remote.dialects.gemini.cloud import n_tokens
from brolly.remote.dialects.gemini.content import model_path
from brolly.remote.dialects.gemini.embeddings import asked, numbers
from brolly.remote.dialects.vectors import together
from brolly.remote.target import Target
from brolly.verbs import Embeddings, EmbedOptions

EMBED = frozenset({"role", "dimensions", "truncate", "batch_size"})
most = 250
most_bytes = 40_000  # a request may have 20,000 tokens; dense text has one in two bytes


def embed(inputs: Sequence[Any], options: EmbedOptions, target: Target) -> Call:
    """Raises UnsupportedTask, OptionError."""
    texts, task = asked(inputs, options, target)
    body: dict[str, Any] = {"instances": [{"content": one} | ({"task_type": task} if task else {}) for one in texts]}
    parameters: dict[str, Any] = {"outputDimensionality": options.dimensions} if options.dimensions else {}
    parameters |= {} if options.truncate else {"autoTruncate": False}
    return Call(model_path(target, "predict"), body | ({"parameters": parameters} if parameters else {}))


def vectors(body: Any, n: int) -> Embeddings:
    """(n, dim) float32. Raises BadAnswer."""
    given = body.get("predictions") if isinstance(body, Mapping) else None
    rows = (
        [one.get("embeddings") if isinstance(one, Mapping) else None for one in given]
        if isinstance(given, list)
        else []
    )
    if len(rows) != n:
        raise BadAnswer(f"{len(rows)} vectors came for {n} inputs.")
    found = [numbers(row, place) for place, row in enumerate(rows)]
    return together(found, sum(map(n_tokens, rows)))
