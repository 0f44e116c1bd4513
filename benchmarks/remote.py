"""What `brolly serve` adds to a model that runs elsewhere: the same calls to a vendor directly and through the server.

python benchmarks/remote.py [--case first --case events --case streams] [--rounds 5] [--streams 1000] [--json]

The vendor is a process that answers at once in OpenAI's and Anthropic's wire formats; each event tells when it was sent
(one clock for all processes). The client reads sockets itself. Direct calls and calls through the server take turns, so
that whatever else this machine does meets both.

first: from a request to the first event. events: what is added to each event, paced (2 ms apart) and flat out.
streams: a thousand streams at a time through one server process, 50 events each, 200 ms apart.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
from benchmarks.common import machine, table

KEY = "sk-benchmark"
# what the client speaks, and to whom
WAYS = {
    "chat → openai": ("chat", "openai"), "messages → anthropic": ("messages", "anthropic"),
    "chat → anthropic": ("chat", "anthropic"),
}  # fmt: skip
DIRECT = {"openai": "chat", "anthropic": "messages"}  # a vendor's own words
PATHS = {"chat": "/v1/chat/completions", "messages": "/v1/messages"}
TEXT = "word " * 40


# ---- the vendor ----


class Vendor(asyncio.Protocol):
    """One connection to it. The model's name says how many events come, and how many ms apart: m-200-2."""

    def connection_made(self, transport: Any) -> None:
        self.transport, self.buffer, self.task = transport, b"", None
        self.task: asyncio.Task[None] | None

    def connection_lost(self, exc: Exception | None) -> None:
        if self.task:
            self.task.cancel()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, end, rest = self.buffer.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0) if end else 0
        if not end or len(rest) < length:
            return
        self.buffer = rest[length:]
        body = json.loads(rest[:length])
        self.task = asyncio.ensure_future(
            self.answer(body["model"], messages="messages" in head.split(b" ")[1].decode())
        )

    async def answer(self, model: str, messages: bool) -> None:
        n, pause = (float(part) for part in model.split("-")[1:3])
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        first = True
        for event in (anthropic if messages else openai)(model, int(n)):
            out = b"%x\r\n%b\r\n" % (len(event), event)
            self.transport.write(head + out if first else out)
            first = False
            await asyncio.sleep(pause / 1000)
        self.transport.write(b"0\r\n\r\n")


def stamp() -> str:
    return f"{time.clock_gettime_ns(time.CLOCK_MONOTONIC)} "


def openai(model: str, n: int) -> Iterator[bytes]:
    def chunk(choices: list[Any], **more: Any) -> bytes:
        row = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": choices}
        return f"data: {json.dumps({**row, **more})}\n\n".encode()

    for at in range(n):
        role = {"role": "assistant"} if at == 0 else {}
        yield chunk([{"index": 0, "delta": {**role, "content": stamp()}, "finish_reason": None}])
    usage = {"prompt_tokens": 40, "completion_tokens": n, "total_tokens": 40 + n}
    yield chunk([{"index": 0, "delta": {}, "finish_reason": "stop"}])
    yield chunk([], usage=usage) + b"data: [DONE]\n\n"


def anthropic(model: str, n: int) -> Iterator[bytes]:
    def event(kind: str, **more: Any) -> bytes:
        return f"event: {kind}\ndata: {json.dumps({'type': kind, **more})}\n\n".encode()

    message = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": model, "content": [], "stop_reason": None,
        "stop_sequence": None, "usage": {"input_tokens": 40, "output_tokens": 1},
    }  # fmt: skip
    head = event("message_start", message=message)
    head += event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    for at in range(n):
        delta = event("content_block_delta", index=0, delta={"type": "text_delta", "text": stamp()})
        yield head + delta if at == 0 else delta
    end = event("content_block_stop", index=0)
    end += event("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage={"output_tokens": n})
    yield end + event("message_stop")


async def vend() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Vendor, "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


# ---- the client ----


@dataclass
class Told:
    """One stream: when it was asked for, and each event's time of sending and of coming, in seconds."""

    asked: float = 0.0
    sent: list[float] = field(default_factory=list)
    came: list[float] = field(default_factory=list)
    whole: float = 0.0
    error: str = ""

    @property
    def first(self) -> float:
        return self.came[0] - self.asked

    @property
    def delays(self) -> list[float]:
        return [came - sent for sent, came in zip(self.sent, self.came, strict=True)]


def now() -> float:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) / 1e9


class Line(asyncio.Protocol):
    """A connection that is kept: a request at a time."""

    @classmethod
    async def open(cls, port: int) -> Line:
        _, line = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return line

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.told, self.done, self.rest = Told(), asyncio.get_running_loop().create_future(), b""
        self.begun = False
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        at, self.rest = now(), self.rest + data
        if not self.begun and not self.rest.startswith(b"HTTP/1.1 200"):
            return self.end(self.rest[:200].decode(errors="replace"))
        self.begun = True
        *events, self.rest = self.rest.split(b"\n\n") if b"data:" in self.rest else [self.rest]
        for event in events:
            for mark in (b'"content": "', b'"content":"', b'"text": "', b'"text":"'):
                said = event.partition(mark)[2].partition(b'"')[0].strip()
                if said.isdigit():
                    self.told.sent.append(int(said) / 1e9)
                    self.told.came.append(at)
                    break
        if self.rest.endswith(b"0\r\n\r\n") or b"\r\n0\r\n\r\n" in data:
            self.told.whole = at
            self.end()

    def connection_lost(self, exc: Exception | None) -> None:
        self.end("the connection was cut")

    def end(self, error: str = "") -> None:
        if not self.done.done():
            self.told.error = error
            self.done.set_result(self.told)

    async def ask(self, way: str, model: str, key: str) -> Told:
        messages = [{"role": "user", "content": TEXT}]
        body = {"model": model, "messages": messages, "stream": True, "max_tokens": 4096}
        if way == "chat":
            body["stream_options"] = {"include_usage": True}
        content = json.dumps(body).encode()
        rows = (
            f"POST {PATHS[way]} HTTP/1.1", "host: 127.0.0.1", "content-type: application/json", f"x-api-key: {key}",
            f"authorization: Bearer {key}", "anthropic-version: 2023-06-01", f"content-length: {len(content)}",
        )  # fmt: skip
        self.told, self.done, self.rest = Told(), asyncio.get_running_loop().create_future(), b""
        self.begun = False
        self.told.asked = now()
        self.transport.write("\r\n".join((*rows, "", "")).encode() + content)
        return await asyncio.wait_for(self.done, 120)


# ---- what is measured ----


@dataclass
class World:
    vendor: int  # ports
    server: int
    process: int

    async def pair(self, way: str, model: str, work: Callable[[Line, str, str], Awaitable[None]], rounds: int) -> None:
        """Direct and through the server in turns; `work` gets the line, the wire format and the model's name."""
        spoken, vendor = WAYS[way]
        direct, through = await Line.open(self.vendor), await Line.open(self.server)
        for _ in range(rounds):
            await work(direct, DIRECT[vendor], model)
            await work(through, spoken, f"{vendor}:{model}")
        for line in (direct, through):
            line.transport.close()


async def first(world: World, way: str, rounds: int) -> list[str]:
    found: dict[bool, list[float]] = {True: [], False: []}

    async def work(line: Line, spoken: str, model: str) -> None:
        told = await line.ask(spoken, model, KEY)
        assert not told.error, told.error
        found[":" in model].append(1000 * told.first)

    await world.pair(way, "m-3-0", work, 20)
    for each in found.values():
        each.clear()
    await world.pair(way, "m-3-0", work, 100 * rounds)
    added = [a - b for a, b in zip(found[True], found[False], strict=True)]
    rows = [found[False], found[True], added]
    return [f"{statistics.median(row):.2f} / {quantile(row, 0.95):.2f} ms" for row in rows]


async def events(world: World, way: str, rounds: int) -> list[str]:
    paced: dict[bool, list[float]] = {True: [], False: []}
    flat: dict[bool, list[float]] = {True: [], False: []}

    async def pace(line: Line, spoken: str, model: str) -> None:
        told = await line.ask(spoken, model, KEY)
        assert not told.error and len(told.came) == 200, (told.error, len(told.came))
        paced[":" in model] += [1000 * delay for delay in told.delays[1:]]

    async def rush(line: Line, spoken: str, model: str) -> None:
        told = await line.ask(spoken, model, KEY)
        assert not told.error and len(told.came) == 1000, (told.error, len(told.came))
        flat[":" in model].append((told.came[-1] - told.came[0]) / 999 * 1000)

    await world.pair(way, "m-200-2", pace, 2 * rounds)
    await world.pair(way, "m-1000-0", rush, 4 * rounds)
    added = [f"{statistics.median(paced[True]) - statistics.median(paced[False]):.3f} ms"]
    added.append(f"{quantile(paced[True], 0.95) - quantile(paced[False], 0.95):.3f} ms")
    each = [statistics.median(flat[side]) for side in (False, True)]
    return [*added, f"{each[0]:.3f} ms", f"{each[1]:.3f} ms", f"{each[1] - each[0]:.3f} ms"]


async def streams(world: World, way: str, n: int) -> list[str]:
    """As many streams at a time."""
    spoken, vendor = WAYS[way]

    async def one(model: str, port: int, spoken: str) -> Told:
        line = await Line.open(port)
        try:
            return await line.ask(spoken, model, KEY)
        finally:
            line.transport.close()

    found = []
    for model, port, words in (
        ("m-50-200", world.vendor, DIRECT[vendor]),
        (f"{vendor}:m-50-200", world.server, spoken),
    ):
        began = now()
        told = await asyncio.gather(*(one(model, port, words) for _ in range(n)))
        whole = [one for one in told if not one.error and len(one.came) == 50]
        took = max(one.whole for one in whole) - began
        delays = [1000 * delay for one in whole for delay in one.delays]
        found.append((n - len(whole), took, 50 * len(whole) / took, statistics.median(delays), quantile(delays, 0.95)))
    rss = resident(world.process)
    direct, through = found
    return [
        f"{through[0]}", f"{direct[1]:.2f} s", f"{through[1]:.2f} s", f"{through[2]:,.0f}/s",
        f"{direct[3]:.1f} / {direct[4]:.1f} ms", f"{through[3]:.1f} / {through[4]:.1f} ms", f"{rss / 1e6:,.0f} MB",
    ]  # fmt: skip


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def resident(process: int) -> int:
    rows = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(row.split()[1]) * 1024 for row in rows if row.startswith("VmRSS"))


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


CASES: dict[str, tuple[list[str], Any]] = {
    "first": (["to the first event (median / p95)", "directly", "through brolly", "added"], first),
    "events": (
        ["an event", "added, 2 ms apart: median", "p95", "flat out, directly", "through brolly", "added"], events,
    ),
    "streams": (
        ["streams", "failed", "directly", "through brolly", "events", "an event, directly (median / p95)",
         "through brolly", "memory of the server"],
        streams,
    ),
}  # fmt: skip


async def measure(args: argparse.Namespace, world: World) -> None:
    for case in args.case or CASES:
        head, work = CASES[case]
        rows = [head]
        for way in WAYS:
            rows.append([way, *await work(world, way, args.streams if case == "streams" else args.rounds)])
        if case == "streams":
            rows[0][0] = f"{args.streams:,} streams at a time"
        print(json.dumps(rows) if args.json else table(rows) + "\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", choices=list(CASES), help="default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--vendor", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.vendor:
        return asyncio.run(vend())
    vendor = subprocess.Popen([sys.executable, __file__, "--vendor"], stdout=subprocess.PIPE, text=True)
    assert vendor.stdout
    port, own = int(vendor.stdout.readline()), free_port()
    bases = {"OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1", "ANTHROPIC_BASE_URL": f"http://127.0.0.1:{port}"}
    keys = {"OPENAI_API_KEY": KEY, "ANTHROPIC_API_KEY": KEY}
    models = [f"{vendor}:{model}" for vendor in DIRECT for model in ("m-3-0", "m-200-2", "m-1000-0", "m-50-200")]
    with tempfile.TemporaryDirectory() as folder, open(f"{folder}/log", "w+") as log:
        flags = ["--port", str(own), "--store", folder, "--connections", "4096", "--vendor-concurrency", "4096"]
        command = [sys.executable, "-m", "brolly", "serve", *models, *flags]
        server = subprocess.Popen(command, env={**os.environ, **bases, **keys}, stdout=log, stderr=log)
        try:
            for _ in range(600):
                with socket.socket() as sock:
                    if sock.connect_ex(("127.0.0.1", own)) == 0:
                        break
                if server.poll() is not None:
                    log.seek(0)
                    sys.exit(f"the server ended: {log.read()[-2000:]}")
                time.sleep(0.1)
            if not args.json:
                print(f"{time.strftime('%Y-%m-%d')}, {machine('httpx', 'uvicorn', 'fastapi')}\n")
            asyncio.run(measure(args, World(port, own, server.pid)))
        finally:
            server.terminate()
            vendor.terminate()
            server.wait(20)


if __name__ == "__main__":
    main()
