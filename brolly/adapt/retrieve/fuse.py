"""Several orders of the same things → one (reciprocal ranks: Cormack, Clarke and Büttcher 2009), and words' weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log

K = 60  # their constant: how little the first places weigh above the next


def fuse(orders: Sequence[tuple[Sequence[int], float]]) -> list[tuple[int, float]]:
    """Things by falling score, each order with its weight; equal ones as the first order has them."""
    scores: dict[int, float] = {}
    for order, weight in orders:
        for rank, thing in enumerate(order):
            scores[thing] = scores.get(thing, 0.0) + weight / (K + rank + 1)
    return sorted(scores.items(), key=lambda item: -item[1])


def weights(frequencies: Mapping[str, int], total: int) -> dict[str, float]:
    """How much each stem tells: BM25's inverse document frequency. One that stands nowhere tells the most."""
    return {stem: log(1 + (total - n + 0.5) / (n + 0.5)) for stem, n in frequencies.items()}
