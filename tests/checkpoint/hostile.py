"""How a reader must take a hostile file: an error of ours that names it, soon, in little memory; or a sound header."""

from __future__ import annotations

import time
import tracemalloc
import warnings
from pathlib import Path

from brolly.checkpoint import Mapped, read_header
from brolly.errors import BrollyError

MAX_SECONDS = 2.0  # of this process
MAX_BYTES = 100 * 2**20


def survives(path: Path) -> BrollyError | None:
    """What reading says, read once for the time and once for the memory; None if the header is sound."""
    start = time.process_time()
    error = outcome(path)
    seconds = time.process_time() - start
    tracemalloc.start()
    try:
        again = outcome(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert seconds < MAX_SECONDS, f"{path.name} took {seconds:.1f} s"
    assert peak < MAX_BYTES, f"{path.name} took {peak:,} bytes"
    assert str(again) == str(error)
    return error


def outcome(path: Path) -> BrollyError | None:
    """Read the header and touch every tensor that it promises; any error but ours goes through."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            header = read_header(path)
        with Mapped(header) as mapped:
            for info in header.tensors.values():
                buffer = mapped.buffer(info)
                assert len(buffer) == info.nbytes
                assert not buffer or buffer[0] + buffer[-1] >= 0
    except BrollyError as error:
        said = str(error)
        assert path.name in said, f"the message does not name the file: {said}"
        assert len(said.replace(str(path), "")) < 600 and said.isprintable(), f"nobody can read this: {said[:900]!r}"
        return error
    return None
