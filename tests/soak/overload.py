"""Ten times more clients than there is room for: some are told to wait, none fails, and the work does not slow down.

    python -m tests.soak.overload --seconds 20

Clients ask, and ask again as soon as they are answered or their Retry-After is over; in turns as many as the engine and
its queue take, and ten times as many. Tokens that came in answers are counted. Ends with 0 if only 200 and 429 (with
Retry-After) came and the throughput is at least 95 % of that at capacity.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import httpx

from tests.soak.process import Server, idle, serving
from tests.soak.traffic import dial, hang_up, post

RUNNING = 64  # answers that an engine writes at a time


@dataclass
class Load:
    """What came back in one turn."""

    clients: int
    statuses: Counter[int] = field(default_factory=Counter)
    tokens: int = 0
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)

    @property
    def speed(self) -> float:
        return self.tokens / self.seconds


async def load(server: Server, clients: int, seconds: float, answers: int = 0) -> Load:
    """So many clients for so long, and until there are so many answers; what is under way then is not counted."""
    found, began = Load(clients), time.monotonic()

    async def work(n: int) -> None:
        r, reader, writer = random.Random(n), *await dial(server.port)
        try:
            while True:
                prompt = f"Once upon a time {r.randint(0, 999)}"
                body = {"model": "mini-llm", "prompt": prompt, "max_tokens": 32, "ignore_eos": True}
                writer.write(post("/v1/completions", json.dumps(body).encode()))
                status, headers, answer = await read(reader)
                found.statuses[status] += 1
                if status == 200:
                    found.tokens += json.loads(answer)["usage"]["completion_tokens"]
                elif status == 429 and "retry-after" in headers:
                    await asyncio.sleep(float(headers["retry-after"]) * (0.5 + r.random()))
                else:
                    found.failures.append(f"{status} {headers} {answer[:200]!r}")
        except (OSError, asyncio.IncompleteReadError) as error:
            found.failures.append(repr(error))
        finally:
            hang_up(writer)

    tasks = [asyncio.create_task(work(n)) for n in range(clients)]
    while time.monotonic() < began + seconds or found.statuses[200] < answers:
        await asyncio.sleep(0.1)
    found.seconds = time.monotonic() - began
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        if left := await idle(client):
            found.failures.append(f"still in use: {left}")
    return found


async def read(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """An answer's status, headers and body. A client of 700 connections must cost less than their server."""
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")[:-2]
    headers = dict(line.split(": ", 1) for line in lines)
    return int(first.split()[1]), headers, await reader.readexactly(int(headers["content-length"]))


async def overload(server: Server, waiting: int, seconds: float, turns: int) -> list[Load]:
    """At capacity and at ten times that, in turns."""
    capacity = RUNNING + waiting
    return [await load(server, n, seconds) for _ in range(turns) for n in (capacity, 10 * capacity)]


async def main(waiting: int, seconds: float, turns: int) -> int:
    with tempfile.TemporaryDirectory() as place:
        words = ("mini-llm", "--waiting", str(waiting), "--connections", "4096", "--log", "json")
        with serving(Path(place), *words) as server:
            await load(server, 8, 2)
            loads = await overload(server, waiting, seconds, turns)
            failures = [failure for one in loads for failure in one.failures] + server.failures()
    print("clients  200      429      tokens/s")
    for one in loads:
        print(f"{one.clients:7}  {one.statuses[200]:7}  {one.statuses[429]:7}  {one.speed:8.1f}")
    ratio = median(one.speed for one in loads[1::2]) / median(one.speed for one in loads[::2])
    print(f"throughput at ten times capacity: {ratio:.1%} of that at capacity")
    print("\n".join(failures[:50]) or "no failure but 429")
    return 1 if failures or ratio < 0.95 else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--waiting", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=20, help="of each turn")
    parser.add_argument("--turns", type=int, default=3)
    asked = parser.parse_args()
    raise SystemExit(asyncio.run(main(asked.waiting, asked.seconds, asked.turns)))
