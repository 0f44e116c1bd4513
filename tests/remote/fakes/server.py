"""A small HTTP/1.1 server in a thread of its own: keep-alive, chunked answers, and every fault that a network has.

    class FakeVendor(Fake):
        def answer(self, request: Request) -> Reply: ...

    with FakeVendor() as fake:
        fake.url                      # http://127.0.0.1:PORT
        fake.faults.append(lambda request: Reply(429, {"retry-after": "0"}))     # used up first, one a request
        fake.requests[-1].json        # what came
        fake.until(lambda: fake.left == 1)     # a client left before its answer was whole

A request that no rule answers gives 404; an exception within `answer` gives 500 and is kept in `fake.broken`, which the
end of the `with` block raises.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
import time
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit


class _Sign:
    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


CUT = _Sign("CUT")  # a chunk: the connection is cut
STALL = _Sign("STALL")  # a chunk: nothing more comes until the client leaves
Chunk = bytes | str | float | _Sign
PHRASES = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 429: "Too Many Requests"}
PHRASES |= {500: "Internal Server Error", 503: "Service Unavailable"}


@dataclass(frozen=True)
class Part:
    """One part of a multipart body."""

    name: str
    filename: str | None
    type: str
    data: bytes


@dataclass(frozen=True)
class Request:
    """What came. `headers` have small names; `path` is unquoted, without the query; `target` is as it was sent."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    target: str = ""

    @cached_property
    def json(self) -> Any:
        """The parsed body; None of an empty one. Raises ValueError."""
        return json.loads(self.body) if self.body else None

    @cached_property
    def parts(self) -> list[Part]:
        """The parts of a multipart/form-data body, in their order."""
        import email
        import email.policy

        head = f"content-type: {self.headers.get('content-type', '')}\r\n\r\n".encode()
        message = email.message_from_bytes(head + self.body, policy=email.policy.HTTP)
        return [
            Part(
                str(part.get_param("name", "", "content-disposition")),
                part.get_filename(),
                part.get_content_type(),
                part.get_payload(decode=True) or b"",  # type: ignore[arg-type]
            )
            for part in message.iter_parts()  # type: ignore[attr-defined]
        ]


@dataclass(frozen=True)
class Reply:
    """An answer: `body` (bytes, a text, or what is sent as JSON) with its length, or `chunks` as they become ready.

    A chunk is bytes or a text, a pause in seconds (a float), CUT or STALL; `chunks` may be an asynchronous iterable.
    A content-length in `headers` is sent as it stands, and the connection closed. `raw` is sent instead of everything.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = b""
    chunks: Iterable[Chunk] | AsyncIterable[Chunk] | None = None
    raw: bytes | None = None


def sse(data: Any, event: str = "") -> bytes:
    """One server-sent event; `data` is a text as it stands, or sent as JSON."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    head = f"event: {event}\n" if event else ""
    return f"{head}data: {text}\n\n".encode()


class Fake:
    """A server at `url`, from `with` to its end. Subclasses have `answer`.

    split    what is sent comes in pieces of so many bytes, each an HTTP chunk of its own where there are chunks
    context  for TLS: then `url` is https
    """

    def __init__(self, *, split: int = 0, context: ssl.SSLContext | None = None) -> None:
        self.split, self.context = split, context
        self.requests: list[Request] = []
        self.faults: deque[Callable[[Request], Reply]] = deque()
        self.broken: list[BaseException] = []
        self.left = 0  # clients that went before their answer was whole
        self.connections = 0  # accepted so far
        self.open = 0  # open now
        self.port = 0
        self._lines: set[_Line] = set()

    @property
    def url(self) -> str:
        return f"{'https' if self.context else 'http'}://127.0.0.1:{self.port}"

    def answer(self, request: Request) -> Reply:
        """What to say to a request; called in the server's thread, so be quick."""
        return Reply(404, body={"error": {"message": f"no route {request.method} {request.path}"}})

    def until(self, true: Callable[[], bool], seconds: float = 5.0) -> None:
        """Wait until something becomes true. Raises AssertionError."""
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, f"waited {seconds:g} s in vain"
            time.sleep(0.005)

    def __enter__(self) -> Any:
        ready = threading.Event()
        self._loop = asyncio.new_event_loop()

        def live() -> None:
            asyncio.set_event_loop(self._loop)
            made = self._loop.create_server(lambda: _Line(self), "127.0.0.1", self.port, ssl=self.context, backlog=2048)
            self._server = self._loop.run_until_complete(made)
            self.port = self._server.sockets[0].getsockname()[1]
            ready.set()
            self._loop.run_forever()
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

        self._thread = threading.Thread(target=live, name="fake", daemon=True)
        self._thread.start()
        assert ready.wait(10), "the fake did not start"
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        self._loop.call_soon_threadsafe(self._stop)
        self._thread.join(10)
        if kind is None and self.broken:
            raise self.broken[0]

    def _stop(self) -> None:
        self._server.close()
        for line in list(self._lines):
            line.quiet = True
            line.transport.abort()
        self._loop.call_later(0.01, self._loop.stop)

    def _reply(self, request: Request) -> Reply:
        self.requests.append(request)
        try:
            return self.faults.popleft()(request) if self.faults else self.answer(request)
        except Exception as error:
            self.broken.append(error)
            return Reply(500, body={"error": {"message": f"the fake broke: {error!r}"}})


class _Line(asyncio.Protocol):
    """One connection."""

    transport: asyncio.Transport

    def __init__(self, fake: Fake) -> None:
        self.fake, self.buffer, self.task, self.quiet = fake, bytearray(), None, False
        self.task: asyncio.Task[None] | None
        self.head: tuple[str, str, dict[str, str]] | None = None
        self.wakes: asyncio.Event | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.fake.connections += 1
        self.fake.open += 1
        self.fake._lines.add(self)

    def connection_lost(self, _: Any) -> None:
        self.fake.open -= 1
        self.fake._lines.discard(self)
        if self.task is not None and not self.task.done():
            self.fake.left += not self.quiet
            self.task.cancel()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if self.task is None or self.task.done():
            self._next()

    def _next(self, _: Any = None) -> None:
        request = None if self.transport.is_closing() else self._parsed()
        if request is not None:
            self.task = asyncio.ensure_future(self._say(request))
            self.task.add_done_callback(self._next)

    def _parsed(self) -> Request | None:
        """The next whole request; None until it is there."""
        if self.head is None:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return None
            lines = self.buffer[:end].decode("latin-1").split("\r\n")
            del self.buffer[: end + 4]
            method, target, _ = lines[0].split(" ", 2)
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
            self.head = method, target, headers
        method, target, headers = self.head
        if headers.get("transfer-encoding", "").lower() == "chunked":
            body = self._dechunked()
            if body is None:
                return None
        else:
            length = int(headers.get("content-length", 0))
            if len(self.buffer) < length:
                return None
            body = bytes(self.buffer[:length])
            del self.buffer[:length]
        self.head = None
        parts = urlsplit(target)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        return Request(method, unquote(parts.path), query, headers, body, target)

    def _dechunked(self) -> bytes | None:
        at, found = 0, []
        while True:
            end = self.buffer.find(b"\r\n", at)
            if end < 0:
                return None
            size = int(bytes(self.buffer[at:end]).partition(b";")[0], 16)
            if len(self.buffer) < end + 4 + size:
                return None
            if not size:
                del self.buffer[: end + 4]
                return b"".join(found)
            found.append(bytes(self.buffer[end + 2 : end + 2 + size]))
            at = end + 4 + size

    async def _say(self, request: Request) -> None:
        reply, transport, split = self.fake._reply(request), self.transport, self.fake.split
        if reply.raw is not None:
            transport.write(reply.raw)
            return self._close()
        headers = {name.lower(): value for name, value in reply.headers.items()}
        over = "content-length" in headers or request.headers.get("connection", "").lower() == "close"
        body = reply.body
        if reply.chunks is not None:
            headers.setdefault("content-type", "text/event-stream")
            headers["transfer-encoding"] = "chunked"
        else:
            if isinstance(body, str):
                body = body.encode()
            elif not isinstance(body, (bytes, bytearray)):
                body = json.dumps(body).encode()
                headers.setdefault("content-type", "application/json")
            headers.setdefault("content-length", str(len(body)))
        lines = [f"HTTP/1.1 {reply.status} {PHRASES.get(reply.status, 'Status')}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        transport.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
        if reply.chunks is None:
            for at in range(0, len(body), split or len(body) or 1):
                transport.write(body[at : at + (split or len(body))])
                await asyncio.sleep(0)
        else:
            several = reply.chunks if isinstance(reply.chunks, AsyncIterable) else _awaited(reply.chunks)
            async for chunk in several:
                if isinstance(chunk, (int, float)):
                    await asyncio.sleep(chunk)
                elif chunk is CUT:
                    self.quiet = True
                    return transport.abort()
                elif chunk is STALL:
                    await asyncio.Event().wait()
                else:
                    data = chunk.encode() if isinstance(chunk, str) else bytes(chunk)  # type: ignore[arg-type]
                    for at in range(0, len(data), split or len(data) or 1):
                        part = data[at : at + (split or len(data))]
                        transport.write(b"%x\r\n%b\r\n" % (len(part), part))
                        await asyncio.sleep(0)
            transport.write(b"0\r\n\r\n")
        if over:
            self._close()

    def _close(self) -> None:
        self.quiet = True
        self.transport.close()


async def _awaited(chunks: Iterable[Chunk]) -> Any:
    for chunk in chunks:
        yield chunk
