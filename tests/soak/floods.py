"""Floods of connections that ask for nothing: who asks for something is answered meanwhile, and nothing stays behind.

    python -m tests.soak.floods --connections 10000

Three waves: silent ones; half heads, a byte now and then; bodies that come as slowly. Each wave is held for some
seconds, first against a server that may have fewer connections than come, then against one that may have all.
Ends with 0 if /health and chats were answered throughout, memory was bounded and given back, and no file stays.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.soak.process import MB, Held, Server, idle, serving, settled, unload_all
from tests.soak.traffic import hang_up, post

EACH = 64 << 10  # bytes that a connection may cost the server at most: its objects and what it has sent
MODEL = 150 * MB  # that the server takes for the model that answers meanwhile
ROOM = 48 * MB  # that the server may have grown by when all have gone: arenas of threads, and lists that once were long
AT_ONCE = 200  # connections that are being made
CHAT = {"model": "mini-llm", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nx-slow: "
BODY = post("/v1/chat/completions", b"x" * 100_000)[:-99_990]
WAVES = {"silent": (b"", b""), "half heads": (HEAD, b"z"), "slow bodies": (BODY, b"x")}  # first words, then each time


@dataclass
class Flood:
    """What one wave did."""

    name: str
    asked: int  # connections
    most: int = 0  # that the server had at a time
    answers: list[float] = field(default_factory=list)  # seconds that each took
    failures: list[str] = field(default_factory=list)
    again: int = 0  # answers for which one had to ask twice
    before: Held | None = None
    peak: int = 0  # bytes of its own
    after: Held | None = None

    def row(self) -> str:
        assert self.before and self.after
        before, after = self.before, self.after
        own = "".join(f" {n / MB:7.1f}" for n in (before.own, self.peak, after.own))
        return (
            f"{self.name:11}  {self.asked:6}  {self.most:7}  {len(self.answers):7}  {self.again:5}"
            f"  {max(self.answers):9.2f} {own}  {before.files:5} {after.files:5}  {len(self.failures):8}"
        )


TITLE = "wave         asked  at once  answers  twice  slowest s  own MB: first, most, last  files: both  failures"


async def flood(server: Server, name: str, connections: int, seconds: float) -> Flood:
    """One wave: made, held for so long, let go."""
    found = Flood(name, connections, before=await rest(server, []))
    first, again = WAVES[name]
    writers: list[asyncio.StreamWriter] = []
    asking = asyncio.create_task(ask(server, found))
    try:
        for start in range(0, connections, AT_ONCE):
            many = range(start, min(start + AT_ONCE, connections))
            writers += [
                writer for writer in await asyncio.gather(*(drip(server.port, n, first) for n in many)) if writer
            ]
            note(server, found)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for at, writer in enumerate(writers):
                if again and not writer.is_closing():
                    with suppress(OSError):
                        writer.write(again)
                if at % 500 == 0:
                    await asyncio.sleep(0)
            note(server, found)
            await asyncio.sleep(0.5)
    finally:
        asking.cancel()
        for writer in writers:
            hang_up(writer)
    found.after = await rest(server, found.failures)
    judge(found)
    return found


async def rest(server: Server, failures: list[str]) -> Held:
    """What it holds when nobody asks and no model is loaded; unloading gives free memory back."""
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        if left := await idle(client):
            failures.append(f"still in use: {left}")
        await unload_all(client)
    return await settled(server, 60)


def judge(flood: Flood) -> None:
    """Write down what did not hold."""
    assert flood.before and flood.after
    if flood.after.files > flood.before.files:
        flood.failures.append(f"{flood.after.files - flood.before.files} files stay open")
    if flood.peak - flood.before.own > flood.most * EACH + MODEL + ROOM:
        flood.failures.append(f"it grew by {(flood.peak - flood.before.own) / MB:.0f} MB")
    if flood.after.own - flood.before.own > ROOM:
        flood.failures.append(f"it keeps {(flood.after.own - flood.before.own) / MB:.0f} MB")
    if not flood.answers:
        flood.failures.append("nobody was answered meanwhile")


def note(server: Server, found: Flood) -> None:
    held = server.held()
    found.peak = max(found.peak, held.own)
    assert found.before
    found.most = max(found.most, held.files - found.before.files)


async def drip(port: int, n: int, first: bytes) -> asyncio.StreamWriter | None:
    """A connection from an address of its own now and then, so that ports do not run out; None where it was refused."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(f"127.0.1.{n % 250 + 1}", 0))
    except OSError:
        return None
    if first:
        with suppress(OSError):
            writer.write(first)
    return writer


async def ask(server: Server, found: Flood) -> None:
    """Ask as a client that means it, on a new connection each time, until cancelled."""
    while True:
        for way in ("/health", "/v1/chat/completions"):
            began = time.monotonic()
            failure = await once(server, way)
            if "disconnected" in failure:  # it was the one that made room, before it had said a word
                found.again += 1
                failure = await once(server, way)
            found.failures += [failure] if failure else []
            found.answers.append(time.monotonic() - began)
        await asyncio.sleep(0.1)


async def once(server: Server, way: str) -> str:
    """What went wrong with a question; nothing, it should be."""
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        try:
            reply = await (client.get(way) if way == "/health" else client.post(way, json=CHAT))
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError) as error:
            return f"{way}: disconnected: {error!r}"
        return "" if reply.status_code == 200 else f"{way}: {reply.status_code} {reply.text[:200]}"


async def warm(server: Server) -> None:
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        for _ in range(3):
            (await client.post("/v1/chat/completions", json=CHAT)).raise_for_status()


async def floods(server: Server, connections: int, seconds: float) -> list[Flood]:
    await warm(server)
    return [await flood(server, name, connections, seconds) for name in WAVES]


async def main(connections: int, seconds: float, few: int) -> int:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    most = min(connections, hard - 1000) if hard != resource.RLIM_INFINITY else connections
    failures: list[str] = []
    for allowed, patience in ((few, seconds / 2), (most + 500, 3 * seconds)):
        with tempfile.TemporaryDirectory() as place:
            words = ("mini-llm", "--connections", str(allowed), "--body-time", f"{patience:g}s")
            with serving(Path(place), *words, "--log", "json") as server:
                print(f"{allowed:,} connections at most", TITLE, sep="\n", flush=True)
                for found in await floods(server, most, seconds):
                    print(found.row(), flush=True)
                    failures += found.failures
                failures += server.failures()
    print("\n".join(failures[:50]) or "all held")
    return 1 if failures else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=20, help="that each wave is held")
    parser.add_argument("--few", type=int, default=1024, help="what the first server may have")
    asked = parser.parse_args()
    raise SystemExit(asyncio.run(main(asked.connections, asked.seconds, asked.few)))
