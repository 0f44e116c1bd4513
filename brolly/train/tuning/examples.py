"""Rows made into examples once: tokens on disk, memory-mapped, so that data may be larger than memory; and their order.

Examples that are no tokens (pictures, sounds, pairs) are made anew from their row when a step draws them.
"""

from __future__ import annotations

import errno
import shutil
from array import array
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from brolly.errors import CheckpointError, DiskFull
from brolly.rows import RowFault

FEW = 20  # faults that are kept
CHUNK = 2**20  # tokens looked at together


class Tokens(NamedTuple):
    """An example of tokens: for each whether it is learnt (the first never is: nothing stands before it)."""

    ids: Sequence[int]
    learnt: Sequence[bool]
    cut: bool = False  # whether more stood behind them than the context holds


class Examples:
    """Examples by their place; of each, its row's number, the tokens that it takes and its weight."""

    def __init__(self, rows: Any, objective: Any, numbers: Sequence[int], folder: Path) -> None:
        self.rows, self.objective, self.folder = rows, objective, folder
        self.numbers, self.sizes, self.weights = array("q"), array("q"), array("d")
        self.cut = 0  # examples of which a part is left out
        self.faults: list[RowFault] = []  # the first of the rows that cannot be learnt
        self.n_bad = 0
        self._stored: list[Any] | None = None
        self._make(numbers)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, i: int) -> Any:
        if self._stored is None:
            return self.objective.example(self.rows[self.numbers[i]])
        ids, learnt, ends = self._stored
        part = slice(int(ends[i]), int(ends[i + 1]))
        return Tokens(ids[part], learnt[part])

    def learnt_tokens(self) -> list[int]:
        """Every token that is learnt somewhere, once."""
        found: set[int] = set()
        if self._stored is not None:
            ids, learnt, _ = self._stored
            for start in range(0, len(ids), CHUNK):
                part = slice(start, start + CHUNK)
                found.update(np.unique(ids[part][learnt[part]]).tolist())
        return sorted(found)

    def where(self, i: int) -> str:
        """The place of an example's row, for people."""
        return str(self.rows[self.numbers[i]].where)

    def _make(self, numbers: Sequence[int]) -> None:
        ends = array("q", [0])
        kinds = set()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / "ids").open("wb") as ids, (self.folder / "learnt").open("wb") as learnt:
                for i in numbers:
                    try:
                        example = self.objective.example(self.rows[i])
                        weight = self.objective.weight(example)
                        if not weight > 0:
                            raise RowFault(self.rows[i].where, "nothing in it is learnt")
                    except RowFault as fault:
                        self.n_bad += 1
                        self.faults += [fault] * (len(self.faults) < FEW)
                        continue
                    self.numbers.append(i)
                    self.sizes.append(self.objective.size(example))
                    self.weights.append(weight)
                    kinds.add(isinstance(example, Tokens))
                    if isinstance(example, Tokens):
                        self.cut += example.cut
                        ids.write(np.asarray(example.ids, np.uint32).tobytes())
                        learnt.write(np.asarray(example.learnt, np.bool_).tobytes())
                        ends.append(ends[-1] + len(example.ids))
        except OSError as error:
            raise full(error, self.folder) from None
        if kinds == {True} and ends[-1]:
            ids_of, learnt_of = (self.folder / "ids", np.uint32), (self.folder / "learnt", np.bool_)
            self._stored = [
                *(np.memmap(path, kind, "r") for path, kind in (ids_of, learnt_of)),
                np.frombuffer(ends, np.int64),
            ]

    def close(self) -> None:
        """Let go of the files, and delete them."""
        self._stored = None
        shutil.rmtree(self.folder, ignore_errors=True)


def full(error: OSError, folder: Path) -> Exception:
    """What to tell of a file that could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"{folder} does not fit: the disk is full. Free some, and go on with --resume.")
    return CheckpointError(f"{folder} cannot be written ({error.strerror or error}).")


@lru_cache(2)
def shuffled(n: int, seed: int, epoch: int) -> Any:
    """The order of n examples in an epoch: a function of the seed and the epoch alone."""
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(n)


def drawn(step: int, size: int, n: int, seed: int) -> list[int]:
    """Which examples a step sees: every one once an epoch."""
    places = range(step * size, (step + 1) * size)
    return [int(shuffled(n, seed, place // n)[place % n]) for place in places]
