"""`brolly serve` in a process of its own, and what it holds as the system counts it."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import IO

import httpx

ROOT = Path(__file__).resolve().parents[2]
MB = 1 << 20


@dataclass(frozen=True)
class Held:
    """Bytes and counts of a process. `own` is anonymous memory: files that are mapped, and so can go, are not in it."""

    own: int
    rss: int  # with pages of files, also those that others map too
    pss: int  # the same, each page shared out among those that map it
    threads: int
    files: int  # and sockets
    maps: int
    temporary: int  # files

    @property
    def counts(self) -> tuple[int, ...]:
        return astuple(self)[3:]


@dataclass(frozen=True)
class Server:
    """A server that runs: its process, where it listens, and the folder of its log, store and temporary files."""

    process: subprocess.Popen[str]
    url: str
    folder: Path

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def held(self) -> Held:
        place = Path(f"/proc/{self.process.pid}")
        rows = [line.split() for line in (place / "smaps_rollup").read_text().splitlines()[1:]]
        sizes = {row[0].rstrip(":"): int(row[1]) * 1024 for row in rows}
        return Held(
            sizes["Anonymous"], sizes["Rss"], sizes["Pss"], len(os.listdir(place / "task")),
            len(os.listdir(place / "fd")), len((place / "maps").read_text().splitlines()),
            len(os.listdir(self.folder / "tmp")),
        )  # fmt: skip

    def failures(self) -> list[str]:
        """What its log tells of our own mistakes."""
        lines = (self.folder / "log").read_text().splitlines()
        words = ("Traceback", "never retrieved", "never awaited", "the engine failed", "did not close")
        return [f"log: {line}" for line in lines if any(word in line for word in words)]


@contextmanager
def serving(folder: Path, *words: str) -> Iterator[Server]:
    """A server whose log, store and temporary files are in `folder`; killed at the end if it still runs."""
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "brolly", "serve", "--port", "0", "--store", str(folder / "store"), *words]
    env = {**os.environ, "TMPDIR": str(folder / "tmp"), "BROLLY_API_KEY": "", "PYTHONFAULTHANDLER": "1"}
    with (folder / "log").open("a") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            yield Server(process, _told(process, folder), folder)
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()


def _told(process: subprocess.Popen[str], folder: Path) -> str:
    """Where it says that it listens."""
    output: IO[str] = process.stdout  # type: ignore[assignment]
    url = ""
    for line in output:
        if found := re.match(r"at +(http://\S+)", line):
            url = found[1]
        if "in a browser" in line:
            return url
    raise AssertionError(f"the server did not start: {(folder / 'log').read_text()[-2000:]}")


async def numbers(client: httpx.AsyncClient) -> dict[str, float]:
    """What /metrics tells, summed over the labels."""
    found: dict[str, float] = {}
    for line in (await client.get("/metrics")).text.splitlines():
        if line.startswith("brolly_"):
            name, value = re.split(r"[{ ]", line)[0].removeprefix("brolly_"), float(line.rpartition(" ")[2])
            found[name] = found.get(name, 0.0) + value
    return found


BUSY = ("num_requests_running", "num_requests_waiting", "kv_blocks_used", "model_uses")


async def idle(client: httpx.AsyncClient, seconds: float = 30) -> dict[str, float]:
    """What is in use still when nobody asks any more, once it has had some time to end: nothing, it should be."""
    end = time.monotonic() + seconds
    while True:
        found = await numbers(client)
        left = {name: found[name] for name in BUSY if found.get(name)}
        if (others := found["requests_in_flight"] - 1) > 0:  # this question is one
            left["requests_in_flight"] = others
        if not left or time.monotonic() > end:
            return left
        await asyncio.sleep(0.05)


async def unload_all(client: httpx.AsyncClient, seconds: float = 30) -> list[str]:
    """Unload every model; which are still there at the end."""
    end = time.monotonic() + seconds
    while True:
        models = (await client.get("/v1/brolly/ps")).json()["models"]
        if not models or time.monotonic() > end:
            return [model["name"] for model in models]
        for model in models:
            (await client.post("/v1/brolly/unload", json={"model": model["name"]})).raise_for_status()
        await asyncio.sleep(0.05)


async def settled(server: Server, seconds: float = 10, least: Callable[[Held], int] = lambda held: held.files) -> Held:
    """What it holds once files (and with them connections) do not become fewer any more."""
    end, held, since = time.monotonic() + seconds, server.held(), time.monotonic()
    while (now := time.monotonic()) < end and now - since < 0.4:
        await asyncio.sleep(0.1)
        found = server.held()
        if least(found) != least(held):
            since = now
        held = found
    return held
