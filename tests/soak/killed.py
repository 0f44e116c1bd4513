"""A server that is told to stop, and one that is killed: what was accepted is answered, what was acknowledged is kept.

    python -m tests.soak.killed --rounds 20

SIGTERM comes while streams and whole answers are written: all of them come to their end, those in the background are
completed, and the process ends with 0. SIGKILL comes at any moment: after a new start every response whose 200 had
arrived whole is there with its text, every stream's whose last event had arrived too, and each that was acknowledged in
the background is completed or has failed and says so. Ends with 0 if nothing was lost.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import signal
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.soak.process import Server, serving
from tests.soak.traffic import STREAMS, WHOLE, Body

MODEL = "mini-llm"
ASKED: dict[str, Callable[[random.Random], Body]] = {
    name: WHOLE[name] for name in ("chat", "completions", "messages", "ollama chat", "responses, not stored")
}  # fmt: skip
TOLD = {name: STREAMS[name] for name in STREAMS if name.endswith(" streamed") and "load" not in name}
STORED = {name: of for name, of in TOLD.items() if name == "responses, streamed"}
FINISHED = re.compile(r'"type": ?"response\.(completed|incomplete)"')
FAILED = "stopped while it wrote"  # what a response says that a server left unfinished


@dataclass
class Seen:
    """What clients saw: responses by id as they were acknowledged, and what went wrong."""

    whole: dict[str, Any] = field(default_factory=dict)  # id → output
    background: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


def ours(make: Callable[[random.Random], Body], r: random.Random, **more: Any) -> Body:
    path, body = make(r)
    return path, body | {"model": MODEL} | more


async def stored(client: httpx.AsyncClient, r: random.Random, seen: Seen) -> None:
    """A stored response, whole."""
    path, body = ours(ASKED["responses, not stored"], r, store=True)
    found = (await client.post(path, json=body)).raise_for_status().json()
    seen.whole[found["id"]] = found["output"]
    seen.counts["stored"] += 1


async def background(client: httpx.AsyncClient, r: random.Random, seen: Seen) -> None:
    path, body = ours(ASKED["responses, not stored"], r, store=True, background=True, max_output_tokens=200)
    found = (await client.post(path, json=body)).raise_for_status().json()
    seen.background.add(found["id"])
    seen.counts["background"] += 1


async def streamed(client: httpx.AsyncClient, r: random.Random, seen: Seen, of: dict[str, Any] = STORED) -> None:
    """A stream; a response's is acknowledged with its last event. Raises httpx.RemoteProtocolError where it is cut."""
    name = r.choice(list(of))
    make, ends = of[name]
    path, body = ours(make, r)
    lines: list[str] = []
    async with client.stream("POST", path, json=body) as reply:
        reply.raise_for_status()
        async for line in reply.aiter_lines():
            lines.append(line)
            if line.startswith("data:") and FINISHED.search(line):
                found = json.loads(line[5:])["response"]
                seen.whole[found["id"]] = found["output"]
    if not any(end in line for end in ends for line in lines[-6:]):
        seen.failures.append(f"{name} ended with {lines[-6:]}")
    seen.counts["streams"] += 1


async def asked(client: httpx.AsyncClient, r: random.Random, seen: Seen) -> None:
    """An answer, whole."""
    path, body = ours(ASKED[r.choice(list(ASKED))], r)
    (await client.post(path, json=body)).raise_for_status().json()
    seen.counts["answers"] += 1


async def terminated(server: Server, r: random.Random, n: int) -> Seen:
    """SIGTERM while n of each kind are on their way; nothing is lost, and the process ends with 0."""
    seen = Seen()
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=server.url, timeout=120, limits=limits) as client:
        await warm(client)

        async def every(client: httpx.AsyncClient, r: random.Random, seen: Seen) -> None:
            await streamed(client, r, seen, TOLD)

        kinds = [stored, background, every, asked]
        tasks = [asyncio.create_task(kind(client, random.Random(r.random()), seen)) for kind in kinds * n]
        while await arrived(client) < 1 + len(tasks):
            await asyncio.sleep(0.01)
        await asyncio.sleep(r.random() * 0.3)
        server.process.send_signal(signal.SIGTERM)
        for task, name in zip(tasks, [kind.__name__ for kind in kinds] * n, strict=True):
            try:
                await task
            except httpx.HTTPError as error:
                seen.failures.append(f"SIGTERM: {name} was lost: {error!r}")
    code = await asyncio.to_thread(server.process.wait, 60)
    if code != 0:
        seen.failures.append(f"SIGTERM: it ended with {code}")
    return seen


async def killed(server: Server, r: random.Random, beside: int) -> Seen:
    """SIGKILL at any moment of responses that are stored, by so many clients of each kind."""
    seen = Seen()
    async with httpx.AsyncClient(base_url=server.url, timeout=120) as client:
        await warm(client)

        async def work(kind: Callable[..., Any]) -> None:
            mine = random.Random(r.random())
            while True:
                try:
                    await kind(client, mine, seen)
                except httpx.HTTPError:
                    if server.process.poll() is not None:
                        return  # as it must be
                    await asyncio.sleep(0.01)

        tasks = [asyncio.create_task(work(kind)) for kind in (stored, streamed) * beside + (background,)]
        await asyncio.sleep(0.2 + r.random())
        server.process.kill()
        await asyncio.to_thread(server.process.wait, 60)
        await asyncio.gather(*tasks)
    return seen


async def found_again(server: Server, seen: Seen, statuses: Counter[str], finished: bool) -> None:
    """Look in a new server for what the one before acknowledged; `finished`: it had the time to complete all of it."""
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        for id in [*seen.whole, *seen.background]:
            reply = await client.get(f"/v1/responses/{id}")
            said = reply.json()
            if reply.status_code != 200:
                seen.failures.append(f"{id} was acknowledged and is lost: {reply.text[:200]}")
                continue
            statuses[said["status"]] += 1
            if id in seen.whole and said["output"] != seen.whole[id]:
                seen.failures.append(f"{id} says something else than it did: {said['output']}")
            left = said["status"] == "failed" and FAILED in said["error"]["message"] and not finished
            if said["status"] not in ("completed", "incomplete") and not (left and id in seen.background):
                seen.failures.append(f"{id} is {said['status']}: {said['error']}")


async def arrived(client: httpx.AsyncClient) -> int:
    """How many requests the server has taken so far, beside those for /metrics."""
    found = 0.0
    for line in (await client.get("/metrics")).text.splitlines():
        if line.startswith(("brolly_requests_in_flight ", "brolly_requests_total{")) and "/metrics" not in line:
            found += float(line.rpartition(" ")[2])
    return int(found) - 1  # this one is in flight


async def warm(client: httpx.AsyncClient) -> None:
    path, body = ours(ASKED["chat"], random.Random(0))
    (await client.post(path, json=body)).raise_for_status()


async def rounds(
    folder: Path, terms: int, kills: int, n: int, seed: int
) -> tuple[list[str], Counter[str], Counter[str]]:
    """What failed, what was done, and the states in which responses were found again."""
    r, failures = random.Random(seed), list[str]()
    counts, statuses = Counter[str](), Counter[str]()
    before, finished = Seen(), True
    for signals in ("TERM",) * terms + ("KILL",) * kills + ("",):
        with serving(folder, MODEL, "--log", "json", "--memory", "1GB") as server:
            await found_again(server, before, statuses, finished)
            failures += before.failures
            if signals:
                before = await (terminated(server, r, n) if signals == "TERM" else killed(server, r, n))
                counts += before.counts
                finished = signals == "TERM"
            failures += server.failures()
    return failures, counts, statuses


async def main(terms: int, kills: int, n: int, seed: int) -> int:
    with tempfile.TemporaryDirectory() as place:
        failures, counts, statuses = await rounds(Path(place), terms, kills, n, seed)
    print(f"SIGTERM {terms} times, SIGKILL {kills} times")
    print("acknowledged:", ", ".join(f"{number:,} {what}" for what, number in counts.items()))
    print("found again:", ", ".join(f"{number:,} {status}" for status, number in statuses.items()))
    print("\n".join(failures[:50]) or "nothing was lost")
    return 1 if failures else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="SIGKILLs; SIGTERMs are a fourth as many")
    parser.add_argument("--n", type=int, default=8, help="of each kind of request at a time")
    parser.add_argument("--seed", type=int, default=0)
    asked_for = parser.parse_args()
    given = max(1, asked_for.rounds // 4), asked_for.rounds, asked_for.n, asked_for.seed
    raise SystemExit(asyncio.run(main(*given)))
