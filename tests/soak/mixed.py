"""Mixed traffic on every verb while models come and go and clients misbehave: nothing may be left behind.

    python -m tests.soak.mixed --minutes 30

Between rounds of traffic the server rests: nobody asks, and every model is unloaded, which gives memory back
(malloc_trim). What it holds then is compared: the mean of the second fifth of all rests with that of the last fifth.
`own` is anonymous memory; `rss` has pages of mapped files too. Ends with 0 if all held.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from tests.soak.models import write
from tests.soak.process import MB, Held, Server, idle, serving, settled, unload_all
from tests.soak.traffic import Traffic

MEMORY = "330MB"  # three or four of the seven models
EVERY = 3.0  # seconds between two looks while there is traffic


@dataclass
class Soak:
    """What was seen."""

    first: Held  # when it had done everything once
    rests: list[Held] = field(default_factory=list)
    peaks: list[Held] = field(default_factory=list)  # the one with most memory of each round
    failures: list[str] = field(default_factory=list)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)

    def fifths(self) -> list[list[Held]]:
        n = len(self.rests)
        return [self.rests[n * i // 5 : n * (i + 1) // 5] for i in range(5)]

    def growth(self, of: str) -> float:
        """How much more of it there is in the last fifth than in the second."""
        _, second, *_, last = ([getattr(held, of) for held in part] for part in self.fifths())
        return fmean(last) / fmean(second) - 1

    def verdicts(self, within: float) -> list[tuple[bool, str]]:
        """What had to hold, and whether it did."""
        found = [
            (abs(self.growth(of)) <= within, f"memory at rest is flat: {of} {self.growth(of):+.2%} (±{within:.0%})")
            for of in ("own", "rss")
        ]
        for of in ("threads", "files", "temporary", "maps"):
            before = max(getattr(held, of) for held in [self.first, *self.rests[: len(self.rests) // 5]])
            now = getattr(self.rests[-1], of)
            room = before * 0.1 if of == "maps" else 0  # glibc splits and joins its own
            found.append((now <= before + room, f"{of} at the last rest: {now}, in the beginning {before}"))
        wrong = sum(n for (_, how), n in self.counts.items() if how == "WRONG")
        done = sum(self.counts.values())
        found.append((not wrong, f"{done:,} things done: {wrong} had an answer that should not have come"))
        found.append((not self.failures, f"{len(self.failures)} failures"))
        return found


async def soak(
    server: Server, minutes: float, *, round: float = 20, beside: int = 6, seed: int = 0, tell: bool = False
) -> Soak:
    """Traffic in rounds of so many seconds by so many clients; a rest behind each one, and a line about it."""
    traffic = Traffic(server.url, seed)
    await traffic.each(beside)
    await traffic.fill_pools(beside)
    await traffic.run(min(round, 5), beside)
    seen = Soak(await rest(server, traffic, [], "the beginning"))
    end = time.monotonic() + minutes * 60
    while time.monotonic() < end or len(seen.rests) < 5:
        looking = asyncio.create_task(peak(server))
        await traffic.run(round, beside)
        looking.cancel()
        seen.peaks.append(await looking)
        seen.rests.append(held := await rest(server, traffic, seen.failures, f"round {len(seen.rests)}"))
        if tell:
            done, wrong = sum(traffic.counts.values()), len(traffic.failures)
            print(f"{len(seen.rests)}: own {held.own / MB:.1f} MB; {done:,} done, {wrong} wrong", file=sys.stderr)
        if server.process.poll() is not None:
            seen.failures.append(f"the server ended with {server.process.returncode}")
            break
    await traffic.close()
    seen.counts = traffic.counts
    seen.failures += traffic.failures + server.failures()
    return seen


async def peak(server: Server) -> Held:
    """The most that it held until it is cancelled."""
    most = server.held()
    try:
        while True:
            await asyncio.sleep(EVERY)
            most = max(most, server.held(), key=lambda held: held.rss)
    except asyncio.CancelledError:
        return most


async def rest(server: Server, traffic: Traffic, failures: list[str], when: str) -> Held:
    """What it holds when nobody asks and no model is loaded; what is not given back is a failure."""
    client = traffic.client
    if left := await idle(client):
        failures.append(f"{when}: still in use: {left}")
    if models := await unload_all(client):
        failures.append(f"{when}: not unloaded: {models}")
    await traffic.close()
    return await settled(server)


def table(seen: Soak) -> str:
    """A row a fifth of the time."""
    lines = ["         own MB  rss MB  pss MB  peak rss MB  threads  files  temporary  maps"]
    n = len(seen.rests)
    rows: Sequence[tuple[str, list[Held], list[Held]]] = [
        ("first", [seen.first], [seen.first]),
        *((f"{i + 1} of 5", part, seen.peaks[n * i // 5 : n * (i + 1) // 5]) for i, part in enumerate(seen.fifths())),
    ]
    for name, rests, peaks in rows:
        own, rss, pss = (fmean(getattr(held, of) for held in rests) / MB for of in ("own", "rss", "pss"))
        most, last = max(held.rss for held in peaks) / MB, rests[-1]
        lines.append(
            f"{name:7}  {own:6.1f}  {rss:6.1f}  {pss:6.1f}  {most:11.1f}  {last.threads:7}  {last.files:5}"
            f"  {last.temporary:9}  {last.maps:4}"
        )
    ways = Counter[str]()
    for (_, how), number in seen.counts.items():
        ways[how] += number
    lines += ["", ", ".join(f"{number:,} {how}" for how, number in ways.items())]
    lines += [f"  {how} × {n}: {name}" for (name, how), n in sorted(seen.counts.items()) if how != "as expected"]
    return "\n".join(lines)


async def main(minutes: float, round: float, beside: int, within: float, seed: int) -> int:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        words = write(folder / "models")
        with serving(folder, *words, "--memory", MEMORY, "--log", "json") as server:
            seen = await soak(server, minutes, round=round, beside=beside, seed=seed, tell=True)
            print(table(seen), "", sep="\n")
            for held, text in (verdicts := seen.verdicts(within)):
                print("holds" if held else "FAILS", text)
            print("\n".join(seen.failures[:50]))
    return 0 if all(held for held, _ in verdicts) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--round", type=float, default=20, help="seconds of traffic between two rests")
    parser.add_argument("--clients", type=int, default=6, help="at a time")
    parser.add_argument("--within", type=float, default=0.03, help="what counts as flat")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    raise SystemExit(asyncio.run(main(asked.minutes, asked.round, asked.clients, asked.within, asked.seed)))
