"""How a reader must take a hostile file: an error of ours that names it, soon, in little memory; or a sound header."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import tracemalloc
import warnings
from pathlib import Path

from brolly import errors
from brolly.checkpoint import Mapped, read_header
from brolly.errors import BrollyError

MAX_SECONDS = 2.0  # of the process
MAX_BYTES = 100 * 2**20
LARGE = 2**16  # bytes of a file; tracemalloc is exact and slow, so that larger ones are read in a process of their own


def survives(path: Path) -> BrollyError | None:
    """What reading says, within its time and its memory; None if the header is sound."""
    error, seconds, n_bytes = (_apart if path.is_file() and path.stat().st_size > LARGE else _here)(path)
    assert seconds < MAX_SECONDS, f"{path.name} took {seconds:.1f} s"
    assert n_bytes < MAX_BYTES, f"{path.name} took {n_bytes:,} bytes"
    return error


def _here(path: Path) -> tuple[BrollyError | None, float, int]:
    tracemalloc.start()
    start = time.process_time()
    try:
        error = outcome(path)
        return error, time.process_time() - start, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _apart(path: Path) -> tuple[BrollyError | None, float, int]:
    run = subprocess.run(
        [sys.executable, "-m", "tests.checkpoint.hostile", path],
        capture_output=True, text=True, timeout=600, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    kind, said, seconds, n_bytes = json.loads(run.stdout)
    return getattr(errors, kind)(said) if kind else None, seconds, n_bytes


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


def address_space(key: str) -> int:
    """VmSize (now) or VmPeak (the most ever) of this process in bytes; nought where no system says."""
    status = Path("/proc/self/status")
    rows = dict(row.split(":", 1) for row in status.read_text().splitlines()) if status.exists() else {}
    return int(rows[key].split()[0]) * 1024 if key in rows else 0


def main(path: Path) -> None:
    before, start = address_space("VmSize"), time.process_time()
    error = outcome(path)
    seconds = time.process_time() - start
    mapped = path.stat().st_size if error is None or path.suffix == ".gguf" else 0  # addresses, not memory
    print(json.dumps([error and type(error).__name__, str(error), seconds, address_space("VmPeak") - before - mapped]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
