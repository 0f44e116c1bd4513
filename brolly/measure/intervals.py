"""Measures of rows, and where each lies: 95 % intervals by Wilson for shares, by a seeded bootstrap for all else.

A statistic is a function of how often each row counts: once each gives the value, rows drawn with replacement the
interval, and the same draws for two models that of their difference. n rows, D draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, Protocol

import numpy as np

DRAWS = 2000
MOST = 2**22  # numbers of a part of the draws: bounds memory
FEWEST = 6  # rows that tell two apart, if all agree: by chance that many do so 3 times in 100 (sign test), 5 do 6 times
Z = 1.959963984540054  # of 95 % of a normal distribution
Scores = Mapping[str, Any]  # of one row, by name


@dataclass(frozen=True)
class Measured:
    """A measure of n rows, and its 95 % interval. `better` is "higher" or "lower"."""

    name: str
    value: float
    low: float
    high: float
    n: int
    better: str = "higher"

    @property
    def bounded(self) -> bool:
        """Whether it is a share, from 0 to 1."""
        return self.better == "higher"


@dataclass(frozen=True)
class Difference:
    """b - a of a measure on the same n rows, its 95 % interval, and which of the two it shows better: "b", "a", ""."""

    name: str
    a: float
    b: float
    value: float
    low: float
    high: float
    n: int
    better: str


class Statistic(Protocol):
    """What is told of rows' scores."""

    @property
    def name(self) -> str: ...
    @property
    def better(self) -> str: ...
    def of(self, rows: Sequence[Scores]) -> Weighted: ...


class Weighted(Protocol):
    """A statistic of certain rows."""

    n: int
    share: tuple[int, int] | None  # how many of how many rows, where it is no more than that

    def __call__(self, counts: Any) -> Any:
        """Its values (D,), where row i counts as often as counts (D, n) say."""
        ...


@dataclass(frozen=True)
class Ratio:
    """Σ of one score / Σ of another, or / the rows that have it: a mean, a rate; then `last`, such as exp."""

    name: str
    above: str
    below: str = ""
    better: str = "higher"
    last: Callable[[Any], Any] | None = None

    def of(self, rows: Sequence[Scores]) -> Weighted:
        return _Ratio(self, rows)


class _Ratio:
    def __init__(self, asked: Ratio, rows: Sequence[Scores]) -> None:
        held = [row for row in rows if asked.above in row]
        self.n, self.last = len(held), asked.last
        self.above = np.array([row.get(asked.above, 0.0) for row in rows], np.float64)
        own = [row.get(asked.below, 0.0) if asked.below else float(asked.above in row) for row in rows]
        self.below = np.array(own, np.float64)
        whole = not asked.below and asked.last is None and all(row[asked.above] in (0, 1) for row in held)
        self.share = (int(self.above.sum()), self.n) if whole else None

    def __call__(self, counts: Any) -> Any:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            found = (counts @ self.above) / (counts @ self.below)
            return found if self.last is None else self.last(found)


@dataclass(frozen=True)
class MacroF1:
    """The mean over the classes that rows have of F1 = 2 tp / (2 tp + fp + fn), by two scores: class and answer."""

    name: str = "macro F1"
    true: str = "class"
    said: str = "said"
    better: str = "higher"

    def of(self, rows: Sequence[Scores]) -> Weighted:
        return _MacroF1([row for row in rows if self.true in row], len(rows), [self.true in row for row in rows], self)


class _MacroF1:
    share: tuple[int, int] | None = None

    def __init__(self, rows: Sequence[Scores], n_all: int, held: Sequence[bool], asked: MacroF1) -> None:
        classes = sorted({str(row[asked.true]) for row in rows})
        self.n, self.held = len(rows), np.flatnonzero(held)
        true, said = (np.array([str(row[name]) for row in rows], object) for name in (asked.true, asked.said))
        self.parts = [(true == c, said == c) for c in classes]

    def __call__(self, counts: Any) -> Any:
        counts = counts[:, self.held]
        total, n_classes = np.zeros(len(counts)), np.zeros(len(counts))
        for true, said in self.parts:
            hits, there, told = (counts @ mask.astype(np.float64) for mask in (true & said, true, said))
            both = there + told
            total += np.divide(2 * hits, both, out=np.zeros(len(counts)), where=both > 0)
            n_classes += there > 0  # a class that a draw has not is no part of its mean
        return np.divide(total, n_classes, out=np.full(len(counts), np.nan), where=n_classes > 0)


@dataclass(frozen=True)
class Auc:
    """How often a good row scores above a bad one, ties as a half: the area under the ROC curve."""

    name: str
    score: str
    good: str = "good"
    better: str = "higher"

    def of(self, rows: Sequence[Scores]) -> Weighted:
        return _Auc(rows, self)


class _Auc:
    share: tuple[int, int] | None = None

    def __init__(self, rows: Sequence[Scores], asked: Auc) -> None:
        held = np.array([asked.score in row for row in rows])
        self.n = int(held.sum())
        score = np.array([row.get(asked.score, 0.0) for row in rows], np.float64)
        self.order = np.flatnonzero(held)[np.argsort(score[held], kind="stable")]
        self.good = np.array([bool(row.get(asked.good)) for row in rows])[self.order].astype(np.float64)
        ordered = score[self.order]
        self.starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if self.n else np.zeros(0, int)

    def __call__(self, counts: Any) -> Any:
        counts = counts[:, self.order]
        if not self.n:
            return np.full(len(counts), np.nan)
        good = np.add.reduceat(counts * self.good, self.starts, axis=1)  # (D, distinct scores)
        bad = np.add.reduceat(counts * (1 - self.good), self.starts, axis=1)
        below = np.cumsum(bad, axis=1) - bad
        pairs = good.sum(1) * bad.sum(1)
        above = (good * (below + bad / 2)).sum(1)
        return np.divide(above, pairs, out=np.full(len(counts), np.nan), where=pairs > 0)


def wilson(k: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share of k in n (Wilson 1927)."""
    if not n:
        return 0.0, 1.0
    p, zz = k / n, Z * Z
    middle, half = p + zz / (2 * n), Z * sqrt(p * (1 - p) / n + zz / (4 * n * n))
    low, high = (middle - half) / (1 + zz / n), (middle + half) / (1 + zz / n)
    return (0.0 if k == 0 else low), (1.0 if k == n else high)


def draws(n: int, seed: int) -> Iterator[Any]:
    """How often each of n rows is drawn, in parts of DRAWS draws of n: (D, n)."""
    random = np.random.default_rng(seed)
    size = max(1, min(DRAWS, MOST // max(n, 1)))
    for start in range(0, DRAWS, size):
        many = min(size, DRAWS - start)
        counts = np.empty((many, n))
        for i in range(many):
            counts[i] = np.bincount(random.integers(0, n, n), minlength=n)
        yield counts


def measured(statistics: Sequence[Statistic], rows: Sequence[Scores], seed: int = 0) -> list[Measured]:
    """Each statistic of the rows that have its scores; those that none has are left out."""
    found = [(one, one.of(rows)) for one in statistics]
    found = [(one, weighted) for one, weighted in found if weighted.n]
    if not found:
        return []
    once = np.ones((1, len(rows)))
    drawn: list[list[Any]] = [[] for _ in found]
    if any(weighted.share is None for _, weighted in found):
        for counts in draws(len(rows), seed):
            for (_, weighted), values in zip(found, drawn, strict=True):
                if weighted.share is None:
                    values.append(weighted(counts))
    out = []
    for (one, weighted), values in zip(found, drawn, strict=True):
        value = float(weighted(once)[0])
        low, high = wilson(*weighted.share) if weighted.share else within(np.concatenate(values), value)
        out.append(Measured(one.name, value, low, high, weighted.n, one.better))
    return out


def differences(
    statistics: Sequence[Statistic], a: Sequence[Scores], b: Sequence[Scores], seed: int = 0
) -> list[Difference]:
    """b - a of each statistic, by the same draws of the same rows for both (paired bootstrap, Efron 1979)."""
    assert len(a) == len(b)
    found = [(one, one.of(a), one.of(b)) for one in statistics]
    found = [each for each in found if each[1].n and each[2].n]
    drawn: list[list[Any]] = [[] for _ in found]
    for counts in draws(len(a), seed) if found else ():
        for (_, first, second), values in zip(found, drawn, strict=True):
            values.append(second(counts) - first(counts))
    once = np.ones((1, len(a)))
    out = []
    for (one, first, second), values in zip(found, drawn, strict=True):
        x, y = float(first(once)[0]), float(second(once)[0])
        low, high = within(np.concatenate(values), y - x)
        unsure = low <= 0 <= high or min(first.n, second.n) < FEWEST
        sure = "" if unsure else "b" if (low > 0) == (one.better == "higher") else "a"
        out.append(Difference(one.name, x, y, y - x, low, high, min(first.n, second.n), sure))
    return out


def within(values: Any, value: float) -> tuple[float, float]:
    """Where 95 of 100 draws lie; draws in which a statistic has no value are left out."""
    values = values[np.isfinite(values)]
    if not len(values):
        return value, value
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
