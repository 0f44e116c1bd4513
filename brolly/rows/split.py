"""Rows kept apart for measuring, and what they share with those that are learnt."""

from __future__ import annotations

import hashlib
import re
from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from brolly.errors import OptionError
from brolly.rows.rows import Row, Rows
from brolly.rows.values import input_of, text_of

WORD = re.compile(r"\w+")
LEAST = 5  # words of a text that is looked for within others; a shorter one must be the whole of another
FORM = 0.1  # word runs in more than this share of held rows are the data's own form: a template, an instruction


def held_out(rows: Rows, share: float, most: int = 500) -> tuple[list[int], list[int]]:
    """The numbers of rows to learn and of those to hold out: about `share` of the good ones, `most` at most.

    By a hash of each row's input, so that equal inputs are on one side and an added row moves few others. At least one
    is held out where there are two inputs. Raises OptionError, RecipeError.
    """
    if not 0 <= share < 1:
        raise OptionError(f"the share held out is {share!r}; expected a number from 0 to below 1.")
    import numpy as np

    hashes, numbers = array("Q"), array("q")  # 16 bytes a row, however long its text
    for row in rows:
        hashes.append(_hash(input_of(row.value)))
        numbers.append(row.number)
    order = np.argsort(np.frombuffer(hashes, np.uint64), kind="stable")
    wanted = min(most, max(1, round(share * len(order)))) if share and most > 0 else 0
    room = min(most, max(wanted, len(order) // 2))  # for inputs that many rows share
    held: list[int] = []
    at = 0
    while at < len(order) and len(held) < wanted:
        end = at
        while end < len(order) and hashes[order[end]] == hashes[order[at]]:
            end += 1
        if len(held) + end - at <= min(room, len(order) - 1):
            held += [numbers[i] for i in order[at:end]]
        at = end
    kept = set(held)
    return [number for number in numbers if number not in kept], sorted(held)


def _hash(given: str | bytes) -> int:
    raw = given.encode("utf-8", "surrogatepass") if isinstance(given, str) else given
    return int.from_bytes(hashlib.sha256(raw).digest()[:8], "big")


@dataclass(frozen=True)
class Overlap:
    """Held rows that share runs of `n` words with rows to learn: number → share of its runs; `n_held` in all."""

    n: int
    n_held: int
    rows: dict[int, float]

    @property
    def share(self) -> float:
        return len(self.rows) / self.n_held if self.n_held else 0.0

    def __str__(self) -> str:
        if not self.rows:
            return f"none of {self.n_held:,} held rows shares {self.n} words in a row with what is learnt"
        return (
            f"{len(self.rows):,} of {self.n_held:,} held rows ({self.share:.1%}) share {self.n} words in a row, or all "
            "of a shorter text, with what is learnt"
        )


def overlap(train: Iterable[Row], held: Iterable[Row], n: int = 13) -> Overlap:
    """Which held rows share a run of `n` words with a row to learn, capitals and punctuation aside.

    A text of fewer words is looked for as a whole: within others from LEAST words on, else as the whole of another.
    Runs that more than a tenth of the held rows (and three of them) share are the data's form, and do not count.
    """
    if n < LEAST:
        raise OptionError(f"n is {n}; expected at least {LEAST}, as shorter runs of words are in every text.")
    runs: dict[tuple[str, ...], list[int]] = {}
    whole: dict[tuple[str, ...], list[int]] = {}
    sizes: Counter[int] = Counter()
    n_runs: dict[int, int] = {}
    for row in held:
        words = tuple(WORD.findall(text_of(row.value).lower()))
        own = {words} if len(words) < n else set(_runs(words, n))
        n_runs[row.number] = len(own)
        for run in own:
            (runs if len(run) >= LEAST else whole).setdefault(run, []).append(row.number)
            sizes[len(run)] += 1
    most = max(3, FORM * len(n_runs))
    form = {run for run, numbers in runs.items() if len(run) == n and len(numbers) > most}
    for run in form:
        for number in runs.pop(run):
            n_runs[number] -= 1
    found: Counter[int] = Counter()
    looked = sorted(size for size in sizes if size >= LEAST)
    for row in train:
        words = tuple(WORD.findall(text_of(row.value).lower()))
        for number in whole.pop(words, ()):
            found[number] += 1
        for size in looked:
            for run in _runs(words, size):
                if run in runs:
                    for number in runs.pop(run):
                        found[number] += 1
    return Overlap(n, len(n_runs), {number: found[number] / n_runs[number] for number in sorted(found)})


def _runs(words: tuple[str, ...], n: int) -> Iterable[tuple[str, ...]]:
    return (words[i : i + n] for i in range(len(words) - n + 1))
