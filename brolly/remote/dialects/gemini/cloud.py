"""What Gemini has in other words at Google Cloud: counting, and vectors of its newer embedders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from brolly.remote.ask import Ask
from brolly.remote.dialect import Call
from brolly.remote.dialects.gemini.answers import told as told
from brolly.remote.dialects.gemini.answers import usage_of
from brolly.remote.dialects.gemini.content import conversation, model_path
from brolly.remote.dialects.gemini.content import counted as counted
from brolly.remote.dialects.gemini.embeddings import asked, content, numbers
from brolly.remote.dialects.vectors import rows_of, together
from brolly.remote.target import Target
from brolly.verbs import Embeddings, EmbedOptions

EMBED = frozenset({"role", "dimensions", "truncate", "batch_size"})
most = 100


def count(ask: Ask, target: Target) -> Call:
    """countTokens, which reads instructions and tools beside the conversation. Raises OptionError."""
    return Call(model_path(target, "countTokens"), conversation(ask, target))


def embed(inputs: Sequence[Any], options: EmbedOptions, target: Target) -> Call:
    """embedContent of one text, batchEmbedContents of several. Raises UnsupportedTask, OptionError."""
    texts, task = asked(inputs, options, target)
    settings: dict[str, Any] = {"taskType": task} if task else {}
    settings |= {"outputDimensionality": options.dimensions} if options.dimensions else {}
    settings |= {} if options.truncate else {"autoTruncate": False}
    rows = [{"content": content(text)} | ({"embedContentConfig": settings} if settings else {}) for text in texts]
    if len(rows) == 1:
        return Call(model_path(target, "embedContent"), rows[0])
    return Call(model_path(target, "batchEmbedContents"), {"requests": rows})


def vectors(body: Any, n: int) -> Embeddings:
    """(n, dim) float32. Raises BadAnswer."""
    rows = rows_of(body.get("embeddings") or [body.get("embedding")] if isinstance(body, Mapping) else None, n)
    found = [numbers(row, place) for place, row in enumerate(rows)]
    told = usage_of(body.get("usageMetadata")).prompt_tokens or sum(map(n_tokens, rows))
    return together(found, told)


def n_tokens(row: Any) -> int:
    """What the statistics of one embedding tell."""
    found = row.get("statistics") if isinstance(row, Mapping) else None
    given = found.get("tokenCount", found.get("token_count")) if isinstance(found, Mapping) else None
    return int(given) if type(given) in (int, float) and 0 <= given < 1 << 53 else 0  # type: ignore[arg-type, operator]
