"""Which examples a row gets: the same for all, or those whose inputs are nearest to its own by an embedder's cosine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from brolly.adapt.prompt.prompt import Example, Prompt

TOGETHER = 64  # rows whose inputs are embedded in one pass
NEAR = 4  # examples a row where nobody says how many


class Nearest:
    """The examples' vectors; for rows, the nearest ones, the nearest last, beside the question."""

    def __init__(self, prompt: Prompt, embedder: Any) -> None:
        self.prompt, self.embedder = prompt, embedder
        self._vectors = self._embedded([example.values for example in prompt.examples])

    def choose(self, rows: Sequence[Mapping[str, Any]]) -> list[list[Example]]:
        """The examples of each row; never the row itself."""
        if not rows or not self.prompt.examples:
            return [[] for _ in rows]
        likeness = self._embedded(rows) @ self._vectors.T  # (rows, examples)
        order = np.argsort(-likeness, axis=1, kind="stable")
        return [self._kept(row, places.tolist()) for row, places in zip(rows, order, strict=True)]

    def _kept(self, row: Mapping[str, Any], places: Sequence[int]) -> list[Example]:
        others = [one for i in places if not same(self.prompt, (one := self.prompt.examples[i]).values, row)]
        most = self.prompt.select.most
        return others[: NEAR if most is None else most][::-1]

    def _embedded(self, rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """(rows, dim) float32 of length 1."""
        texts = [text_of(self.prompt, row) or " " for row in rows]
        if not texts:
            return np.zeros((0, 0), np.float32)
        vectors = np.asarray(self.embedder.embed(texts).vectors, np.float32)
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def fixed(prompt: Prompt, row: Mapping[str, Any]) -> list[Example]:
    """The first examples that are not the row itself."""
    return [one for one in prompt.examples if not same(prompt, one.values, row)][: prompt.select.most]


def same(prompt: Prompt, a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether two rows ask the same."""
    return all(a.get(v.name) == b.get(v.name) for v in prompt.variables)


def text_of(prompt: Prompt, row: Mapping[str, Any]) -> str:
    """What of a row is compared: its values, a line each."""
    return "\n".join(v.write(row[v.name]) for v in prompt.variables)
