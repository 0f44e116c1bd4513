"""What dialects of embeddings have alike: texts that hold something, as many vectors as texts, of one length."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from brolly.errors import BadAnswer, OptionError, UnsupportedTask
from brolly.remote.target import Target
from brolly.verbs import Embeddings


def texts_of(inputs: Sequence[Any], target: Target) -> list[str]:
    """The inputs, where all are texts. Raises UnsupportedTask, OptionError."""
    for at, one in enumerate(inputs):
        if not isinstance(one, str):
            what = one.name if isinstance(one, PurePath) else f"a {type(one).__name__}"
            raise UnsupportedTask(f"input {at} is {what}; {target} embeds texts.")
        if not one:
            raise OptionError(f"input {at} is empty; {target} embeds texts of at least one character.")
    return list(inputs)


def rows_of(rows: Any, n: int) -> list[Any]:
    """The embeddings of an answer, as many as were asked for. Raises BadAnswer."""
    if not isinstance(rows, list) or len(rows) != n:
        raise BadAnswer(f"{len(rows) if isinstance(rows, list) else 'no'} vectors came for {n} inputs.")
    return rows


def together(found: list[Any], n_tokens: int) -> Embeddings:
    """(n, dim) float32. Raises BadAnswer."""
    import numpy as np

    if len({len(vector) for vector in found}) != 1:
        raise BadAnswer("the vectors of one request differ in length.")
    return Embeddings(np.stack(found), ("text",) * len(found), n_tokens)
