"""Damaged copies of a file, the same ones each time: cut short, bits flipped, stretches overwritten or repeated."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from brolly.errors import CheckpointError, NotFound

MAX_SECONDS = 1.0
EDGES = (0, 1, 0x7F, 0x80, 0xFF)


def spoilt(raw: bytes, n: int, seed: int = 0) -> Iterator[bytes]:
    """`n` damaged copies of `raw`."""
    dice = random.Random(seed)
    for i in range(n):
        bad = bytearray(raw)
        kind = i % 5
        if kind == 0:
            del bad[dice.randrange(len(bad)) :]
        elif kind == 1:
            for _ in range(dice.randint(1, 8)):
                bad[dice.randrange(len(bad))] ^= 1 << dice.randrange(8)
        elif kind == 2:
            for _ in range(dice.randint(1, 4)):
                bad[dice.randrange(len(bad))] = dice.choice(EDGES)
        else:
            begin, end = sorted((dice.randrange(len(bad)), dice.randrange(len(bad))))
            stretch = bad[begin : min(end, begin + 64)]
            at = dice.randrange(len(bad))
            if kind == 3:
                bad[at : at + len(stretch)] = stretch
            else:
                bad[at:at] = stretch
        yield bytes(bad)


def only_our_errors(read: Callable[[Path], Any], path: Path, raw: bytes, n: int, named: Path | None = None) -> int:
    """Read `n` damaged copies of `path`; how many were refused. Any other error, and any slowness, is a failure."""
    refused = 0
    for bad in spoilt(raw, n):
        path.write_bytes(bad)
        start = time.process_time()
        try:
            header = read(named or path)
            assert all(t.nbytes >= 0 and t.offset >= -1 for t in header.tensors.values())
            for tensor in header.tensors.values():
                assert tensor.offset < 0 or tensor.offset + tensor.nbytes <= tensor.file.stat().st_size, tensor
        except (CheckpointError, NotFound) as error:
            refused += 1
            assert str(error).isprintable() and len(str(error)) < 600, str(error)
        assert time.process_time() - start < MAX_SECONDS
    path.write_bytes(raw)
    return refused
