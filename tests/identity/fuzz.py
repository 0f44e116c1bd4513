"""Damaged files of every format: no crash, no hang over a second, no memory over 200 MB.

    python -m tests.identity.fuzz --files 100000 --seed 1      # in pieces of 2,000, each a process of its own

A file may be told or refused (BrollyError); anything else is a failure, and its bytes are kept.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from brolly.errors import BrollyError
from brolly.identity import examine

SECOND = 1.0
MEMORY = 200 * 2**20  # bytes, over that of an idle process
PIECE = 2000
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**40, 2**63 - 1, 2**64 - 1)


def damaged(raw: bytes, other: bytes, rng: random.Random) -> bytes:
    """One to four changes: cut, flip, a boundary number, a piece repeated, dropped or taken from another format."""
    data = bytearray(raw)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        if not data:
            break
        at = rng.randrange(min(len(data), rng.choice((64, 1024, 65536, len(data)))))
        match rng.randrange(7):
            case 0:
                del data[at:]
            case 1:
                data[at] ^= 1 << rng.randrange(8)
            case 2:
                width = rng.choice((1, 2, 4, 8))
                number = rng.choice(NUMBERS) % 2 ** (8 * width)
                data[at : at + width] = number.to_bytes(width, rng.choice(("little", "big")))
            case 3:
                piece = data[at : at + rng.randrange(1, 256)]
                data[at:at] = piece * rng.choice((1, 1, 50))
            case 4:
                del data[at : at + rng.randrange(1, 64)]
            case 5:
                start = rng.randrange(max(1, len(other)))
                data[at:at] = other[start : start + rng.randrange(1, 512)]
            case _:
                data[at : at + 8] = rng.randbytes(8)
    return bytes(data)


def one(path: Path) -> tuple[float, bool]:
    """Seconds that one file took, and whether it was refused; only a BrollyError may come out of it."""
    start, refused = time.perf_counter(), False
    try:
        examine(path).json()
    except BrollyError as error:
        assert str(error), "an error says something"
        refused = True
    return time.perf_counter() - start, refused


def peak() -> int:
    """Bytes of memory that this process has held at most, since it became itself."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def piece(samples: list[Path], count: int, seed: int, keep: Path) -> dict[str, object]:
    """`count` damaged files; the slowest, the peak of memory and what failed."""
    rng = random.Random(seed)
    raws = {path: path.read_bytes() for path in samples}
    for path in samples:
        one(path)  # modules and tables are loaded
    idle = peak()
    slowest, failures, refused = (0.0, ""), [], 0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            source = samples[rng.randrange(len(samples))]
            data = damaged(raws[source], raws[samples[rng.randrange(len(samples))]], rng)
            path = Path(folder) / source.name
            path.write_bytes(data)
            try:
                taken, no = one(path)
                refused += no
                # A busy machine may stop us for a while: what is slow is tried again before it counts.
                if taken > SECOND:
                    taken = min(taken, one(path)[0])
                failed = f"took {taken:.1f} s" if taken > SECOND else ""
            except Exception as error:
                taken, failed = 0.0, f"{type(error).__name__}: {error}"
            if failed:
                kept = keep / f"{seed}-{number}-{source.name}"
                kept.write_bytes(data)
                failures.append(f"{kept}: {failed}")
            slowest = max(slowest, (taken, f"{seed}-{number}-{source.name}"))
            path.unlink()
    held = peak() - idle
    if held > MEMORY:
        failures.append(f"seed {seed}: {held:,} bytes of memory")
    return {
        "files": count, "refused": refused, "slowest": slowest[0], "which": slowest[1], "memory": held,
        "failures": failures,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=PIECE)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "brolly-fuzz")
    parser.add_argument("--samples", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.keep.mkdir(parents=True, exist_ok=True)
    if args.worker:
        samples = sorted(p for p in args.samples.glob("*/*") if p.is_file())
        print(json.dumps(piece(samples, args.files, args.seed, args.keep)))
        return
    from tests.identity.samples import write_all

    total = {"files": 0, "refused": 0, "slowest": 0.0, "memory": 0}
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        write_all(Path(folder))
        for number in range(-(-args.files // PIECE)):
            count = min(PIECE, args.files - number * PIECE)
            command = [sys.executable, "-m", "tests.identity.fuzz", "--worker", "--samples", folder]
            command += ["--files", str(count), "--seed", str(args.seed + number), "--keep", str(args.keep)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
            if done.returncode:
                failures.append(
                    f"seed {args.seed + number}: the process ended with {done.returncode}: {done.stderr[-500:]}"
                )
                continue
            found = json.loads(done.stdout)
            for key in ("files", "refused"):
                total[key] += found[key]
            for key in ("slowest", "memory"):
                total[key] = max(total[key], found[key])
            failures += found["failures"]
            print(f"{total['files']:,} files; {len(failures)} failures", file=sys.stderr, flush=True)
    print(json.dumps(total | {"failures": failures[:50]}, indent=1))
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
