"""Gemini's batchEmbedContents: a vector for each text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from brolly.errors import BadAnswer, OptionError
from brolly.remote.dialect import Call
from brolly.remote.dialects.gemini.answers import told as told
from brolly.remote.dialects.gemini.answers import usage_of
from brolly.remote.dialects.gemini.content import model_path
from brolly.remote.dialects.vectors import rows_of, texts_of, together
from brolly.remote.target import Target
from brolly.remote.traits import traits_of
from brolly.verbs import Embeddings, EmbedOptions

EMBED = frozenset({"role", "dimensions", "batch_size"})
most = 100
WIDEST = 1 << 20  # numbers of a vector that are believed
# what a text is for → Google's word
TASKS = {
    "query": "RETRIEVAL_QUERY", "document": "RETRIEVAL_DOCUMENT", "similarity": "SEMANTIC_SIMILARITY",
    "classification": "CLASSIFICATION", "clustering": "CLUSTERING", "question": "QUESTION_ANSWERING",
    "fact": "FACT_VERIFICATION", "code": "CODE_RETRIEVAL_QUERY",
}  # fmt: skip


def embed(inputs: Sequence[Any], options: EmbedOptions, target: Target) -> Call:
    """Raises UnsupportedTask, OptionError."""
    texts, task = asked(inputs, options, target)
    settings: dict[str, Any] = {"model": model_path(target, "").strip("/:")}
    settings |= {"taskType": task} if task else {}
    settings |= {"outputDimensionality": options.dimensions} if options.dimensions else {}
    requests = [{**settings, "content": content(text)} for text in texts]
    return Call(model_path(target, "batchEmbedContents"), {"requests": requests})


def content(text: str) -> dict[str, Any]:
    return {"parts": [{"text": text}], "role": "user"}


def asked(inputs: Sequence[Any], options: EmbedOptions, target: Target) -> tuple[list[str], str]:
    """The texts, and what they are for; where the model wants that said in the text, it is.

    Raises UnsupportedTask, OptionError.
    """
    texts = texts_of(inputs, target)
    if options.role is None:
        return texts, ""
    prompts = traits_of(target).prompts
    known: Mapping[str, str] = prompts or TASKS
    if options.role not in known:
        raise OptionError(f"role is {options.role!r:.40}; {target} knows {', '.join(known)}.")
    if prompts:
        return [prompts[options.role] + one for one in texts], ""
    return texts, TASKS[options.role]


def vectors(body: Any, n: int) -> Embeddings:
    """(n, dim) float32. Raises BadAnswer."""
    rows = rows_of(body.get("embeddings") if isinstance(body, Mapping) else None, n)
    found = [numbers(row, place) for place, row in enumerate(rows)]
    return together(found, usage_of(body.get("usageMetadata")).prompt_tokens)


def numbers(row: Any, place: int) -> Any:
    """The vector of one embedding: float32. Raises BadAnswer."""
    import numpy as np

    try:
        vector = np.asarray(row.get("values") if isinstance(row, Mapping) else None, np.float32)
    except (ValueError, TypeError, OverflowError):
        vector = np.zeros(0, np.float32)
    if vector.ndim != 1 or not 0 < len(vector) <= WIDEST or not np.isfinite(vector).all():
        raise BadAnswer(f"the vector of input {place} is no list of numbers.")
    return vector
