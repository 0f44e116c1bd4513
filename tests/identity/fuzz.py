"""Damaged models of every format, files and folders: no crash, no hang over a second, no memory over 200 MB.

    python -m tests.identity.fuzz --files 100000 --seed 1      # in pieces of 2,000, each a process of its own

A model may be told or refused (BrollyError); anything else is a failure, and its files are kept.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from brolly.checkpoint import read_header
from brolly.errors import BrollyError
from brolly.identity import examine
from tests.identity.damage import Hollow, spoilt, tree

SECOND = 1.0  # of CPU time
MEMORY = 200 * 2**20  # bytes, over that of an idle process
PIECE = 2000
LARGE = 2**20  # bytes
SMALL = 100_000  # bytes of all headers of a real model that is fuzzed
EVERY = 10  # of so many models one is also said in all other ways
HANG = 20  # seconds of CPU time after which a model is given up
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
Sample = bytes | dict[str, bytes]


class Hung(BaseException):
    """Raised out of whatever runs too long."""


def _give_up(*_: Any) -> None:
    raise Hung


def one(path: Path, everything: bool = False) -> tuple[float, bool]:
    """Seconds of CPU that a model took, and whether it was refused; only a BrollyError may come out of it."""
    start, refused = time.process_time(), False
    signal.setitimer(signal.ITIMER_VIRTUAL, HANG)
    try:
        card = examine(path)
        said = json.dumps(card.json(), allow_nan=False)
        assert len(said) < 2**20, "a card is not as long as a model"
    except BrollyError as error:
        assert str(error) and len(str(error)) < 2000, "an error says something, and not everything"
        refused = True
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    taken = time.process_time() - start
    if everything and not refused:
        aloud(card)
        with contextlib.suppress(BrollyError):
            read_header(path)  # as loading does: strictly
    return taken, refused


def aloud(card: Any) -> None:
    """The card in every other form; what a terminal would obey is in none of them."""
    from brolly.identity import html, sbom, show
    from brolly.identity.compare import compare, show_comparison
    from brolly.identity.gpai import form
    from brolly.identity.sarif import sarif

    text = show.show(card)
    assert not CONTROL.search(text), f"the terminal would obey {CONTROL.search(text)}"
    html.page(card).encode()
    compared = compare(card, card)
    assert not CONTROL.search(show_comparison(compared)), "nor in a comparison"
    for document in (sbom.cyclonedx(card), sbom.spdx(card), sarif([card]), form(card), compared):
        json.dumps(document, allow_nan=False)


def peak() -> int:
    """Bytes of memory that this process has held at most since the last call."""
    status = Path("/proc/self/status").read_text()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): the peak begins again at what is held now
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def read(path: Path) -> Sample:
    if path.is_file():
        return whole(path)
    return {str(p.relative_to(path)): whole(p) for p in sorted(path.rglob("*")) if p.is_file()}


def whole(path: Path) -> bytes:
    """A file; of a large one, whose numbers are a hole, what stands before it."""
    size = path.stat().st_size
    if size <= LARGE:
        return path.read_bytes()
    with path.open("rb") as file:
        head = file.read(8 + min(LARGE, int.from_bytes(file.read(8), "little")))
    return Hollow.of(head, size - len(head))


def write(path: Path, held: Sample) -> None:
    for name, raw in held.items() if isinstance(held, dict) else [("", held)]:
        place = path / name if name else path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(raw)
        if isinstance(raw, Hollow):
            os.truncate(place, len(raw) + raw.more)
    if held == {}:
        path.mkdir(parents=True)


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def piece(samples: list[Path], count: int, seed: int, keep: Path) -> dict[str, Any]:
    """`count` damaged models; the slowest, the peak of memory and what failed."""
    rng = random.Random(seed)
    signal.signal(signal.SIGVTALRM, _give_up)
    held = {path: read(path) for path in samples}
    pool = [raw for sample in held.values() for raw in (sample.values() if isinstance(sample, dict) else [sample])]
    groups = [g for g in ([p for p in samples if (p.parent.name == "real") == real] for real in (False, True)) if g]
    for path in samples:
        one(path, everything=True)  # modules and tables are loaded
    peak()
    idle = peak()
    slowest, heaviest, failures, refused = (0.0, ""), (0, ""), [], 0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            source = rng.choice(rng.choice(groups))
            sample, other = held[source], pool[rng.randrange(len(pool))]
            bad = tree(sample, other, rng) if isinstance(sample, dict) else spoilt(source.name, sample, other, rng)
            path, title = Path(folder) / source.name, f"{seed}-{number}-{source.name}"
            write(path, bad)
            try:
                taken, no = one(path, everything=number % EVERY == 0)
                refused += no
                if taken > SECOND / 4:  # once more: the machine may have been at something else
                    taken = min(taken, one(path)[0])
                failed = f"took {taken:.1f} s" if taken > SECOND else ""
            except Hung:
                taken, failed = float(HANG), f"took more than {HANG} s"
            except Exception as error:
                taken, failed = 0.0, f"{type(error).__name__}: {str(error)[:500]}"
            heaviest = max(heaviest, (held_at_most := peak() - idle, title))
            if held_at_most > MEMORY:
                failed = failed or f"took {held_at_most:,} bytes of memory"
            if failed:
                remove(keep / title)
                write(keep / title, bad)
                failures.append(f"{keep / title}: {failed}")
            slowest = max(slowest, (taken, title))
            remove(path)
    return {
        "files": count, "refused": refused, "slowest": slowest[0], "which": slowest[1], "memory": heaviest[0],
        "heaviest": heaviest[1], "failures": failures,
    }  # fmt: skip


def write_samples(folder: Path) -> list[Path]:
    """A sample of every format, and the real models of the tests, their numbers left out."""
    from tests.identity.real.files import written
    from tests.identity.samples import write_all

    samples = write_all(folder)
    for path in folder.glob("*/*"):  # what a sample needed on its way
        if path not in samples:
            remove(path)
    for number, line in enumerate((Path(__file__).parent / "real_models.jsonl").read_text().splitlines()):
        row = json.loads(line)
        path = folder / "real" / f"{number:03d}-{row['name'].replace('/', '-')}"
        written(row, path)
        held = read(path)
        if isinstance(held, dict) and sum(map(len, held.values())) <= SMALL:
            samples.append(path)
        else:
            remove(path)
    return samples


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
        samples = sorted(args.samples.glob("*/*"))
        print(json.dumps(piece(samples, args.files, args.seed, args.keep)))
        return
    total: dict[str, Any] = {"files": 0, "refused": 0, "slowest": 0.0, "which": "", "memory": 0, "heaviest": ""}
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        write_samples(Path(folder))
        for number in range(-(-args.files // PIECE)):
            count = min(PIECE, args.files - number * PIECE)
            command = [sys.executable, "-m", "tests.identity.fuzz", "--worker", "--samples", folder]
            command += ["--files", str(count), "--seed", str(args.seed + number), "--keep", str(args.keep)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
            if done.returncode:
                ended = f"the process ended with {done.returncode}: {done.stderr[-500:]}"
                failures.append(f"seed {args.seed + number}: {ended}")
                continue
            found = json.loads(done.stdout)
            for key in ("files", "refused"):
                total[key] += found[key]
            if found["slowest"] > total["slowest"]:
                total |= {"slowest": found["slowest"], "which": found["which"]}
            if found["memory"] > total["memory"]:
                total |= {"memory": found["memory"], "heaviest": found["heaviest"]}
            failures += found["failures"]
            print(f"{total['files']:,} models; {len(failures)} failures; {total}", file=sys.stderr, flush=True)
    print(json.dumps(total | {"failures": failures[:200]}, indent=1))
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
