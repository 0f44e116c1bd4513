"""Connections: HTTP/1.1 by h11 over asyncio's transports, straight or through a proxy, and those kept to be used again.

Not by httpx, whose pool, locks and timeouts (httpcore's and anyio's) take three times as long for a request and twice
as long for an event: benchmarks/remote.py.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import weakref
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

HIGH = 1 << 20  # bytes that wait to be read before the peer is made to wait
SMALL = 64 << 10  # a request up to here goes in one packet or so
MOST_HEAD = 100 << 10  # bytes of an answer's status and headers
HEAD_SECONDS = 60.0  # in which they have to come, once they began
MOST_EARLY = 20  # answers before the answer: 100 Continue, 103 Early Hints
IDLE = 30.0  # seconds that a connection waits to be used again
# a vendor may think for minutes; without a sign of life gates on the way forget the connection
ALIVE = (("SO_KEEPALIVE", socket.SOL_SOCKET, 1), ("TCP_KEEPIDLE", socket.IPPROTO_TCP, 60),
         ("TCP_KEEPINTVL", socket.IPPROTO_TCP, 60), ("TCP_KEEPCNT", socket.IPPROTO_TCP, 5))  # fmt: skip
TOO, INSTEAD = 0.25, 1.0  # seconds until the next of a name's addresses is tried beside one, or in its place
Headers = list[tuple[bytes, bytes]]


class LineError(Exception):
    """`what` went wrong: "unreached" (`why` is the system's error), "late" to connect, "proxy", "silent", "closed",
    "garbled" or "unsendable"."""

    def __init__(self, what: str, why: Any = "") -> None:
        super().__init__(what)
        self.what, self.why = what, why


@dataclass(frozen=True, repr=False)
class Way:
    """How an address is reached. A context is there where the way is encrypted; `secret` shows us to the proxy."""

    host: str
    port: int
    context: ssl.SSLContext | None = None
    proxy: tuple[str, int] | None = None
    proxy_context: ssl.SSLContext | None = None
    secret: bytes = b""

    @property
    def forwarded(self) -> bool:
        """Whether the proxy reads the request, and so wants the whole address."""
        return self.proxy is not None and self.context is None

    def __str__(self) -> str:
        return f" through the proxy at {self.proxy[0]}:{self.proxy[1]}" if self.proxy else ""


class Line(asyncio.Protocol):
    """One connection, for one request at a time. The timeouts of all its reads share one timer. Raises LineError."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: Any = None
        self._http = _client()
        self._came: list[bytes] = []
        self._n_came = 0
        self._over = self._held = self._whole = False
        self._dry = False  # h11 has nothing more of what came
        self._error: Exception | None = None
        self._reader: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = 0.0

    # what the transport calls

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._came.append(data)
        self._n_came += len(data)
        if self._n_came > HIGH and not self._held:
            self._held = True
            self._transport.pause_reading()
        _wake(self._reader)
        _wake(self._room)

    def connection_lost(self, error: Exception | None) -> None:
        self._over, self._error = True, error
        _wake(self._reader)
        _wake(self._room)

    def pause_writing(self) -> None:
        self._room = self._loop.create_future()

    def resume_writing(self) -> None:
        _wake(self._room)
        self._room = None

    # a request and its answer

    async def ask(
        self, method: str, target: bytes, headers: Headers, body: bytes, silence: float
    ) -> tuple[int, Headers]:
        """Send a request; the answer's status and headers."""
        import h11

        self._whole = self._dry = False
        try:
            head = self._http.send(h11.Request(method=method, target=target, headers=headers)) or b""
            if body:
                self._http.send(h11.Data(data=body))
            self._http.send(h11.EndOfMessage())
        except h11.LocalProtocolError:
            head = None
        if head is None:
            raise LineError("unsendable")
        if len(body) <= SMALL:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)
        left = float("inf")
        while self._room is not None and not (self._over or self._came):  # who answers before the end has seen enough
            waiting = self._transport.get_write_buffer_size()
            if waiting >= left:  # nothing went in all that time
                raise LineError("silent")
            left = waiting
            await asyncio.wait((self._room,), timeout=silence)
        for _ in range(MOST_EARLY):
            event = await self._event(silence)
            if type(event) is h11.Response:
                return event.status_code, list(event.headers)  # names in small letters
            if type(event) is not h11.InformationalResponse or event.status_code == 101:
                break
        raise LineError("garbled")

    async def body(self, silence: float) -> bytes:
        """What has come of the answer's body, of all that can be read at once; b"" at its end."""
        import h11

        parts: list[bytes] = []
        while not self._whole:
            if self._dry:
                if parts:
                    break
                await self._feed(silence)
            event = self._next()
            if type(event) is h11.Data:
                parts.append(event.data)
            elif event is h11.NEED_DATA:
                self._dry = True
            elif type(event) is h11.EndOfMessage:
                self._whole = True
            else:
                raise LineError("garbled")
        return b"".join(parts) if len(parts) != 1 else bytes(parts[0])

    def renew(self) -> bool:
        """Make ready for another request; False: it has to be closed."""
        import h11

        if not self.fresh or self._http.trailing_data[0] or self._transport.get_write_buffer_size():
            return False
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    @property
    def fresh(self) -> bool:
        """Whether it is still open, and says nothing that nobody asked for."""
        return not (self._over or self._came or self._transport.is_closing())

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._came.clear()
        if self._transport is not None and not self._loop.is_closed():
            self._transport.abort()

    async def tunnel(self, way: Way, silence: float) -> None:
        """Through a proxy, by CONNECT, to where nobody on the way can read."""
        place = f"[{way.host}]:{way.port}" if ":" in way.host else f"{way.host}:{way.port}"
        headers = [(b"host", place.encode()), *_proof(way)]
        status, _ = await self.ask("CONNECT", place.encode(), headers, b"", silence)
        if not 200 <= status < 300:
            raise LineError("proxy", status)
        assert way.context is not None
        self._transport = await self._loop.start_tls(self._transport, self, way.context, server_hostname=way.host)
        self._http = _client()

    # inside

    async def _event(self, silence: float) -> Any:
        import h11

        until = 0.0
        while (event := self._next()) is h11.NEED_DATA:
            await self._feed(silence)
            until = until or self._loop.time() + HEAD_SECONDS
            if self._loop.time() > until:
                raise LineError("garbled")
        return event

    def _next(self) -> Any:
        import h11

        try:
            return self._http.next_event()
        except h11.RemoteProtocolError:
            what = "closed" if self._over and not self._came else "garbled"
        raise LineError(what)

    async def _feed(self, silence: float) -> None:
        """Hand over what came; at the end of the connection, that it ended."""
        import h11

        self._dry = False
        if not self._came and not self._over:
            await self._more(silence)
        if self._came:
            data = self._came[0] if len(self._came) == 1 else b"".join(self._came)
            self._came.clear()
            self._n_came = 0
            if self._held:
                self._held = False
                self._transport.resume_reading()
            self._http.receive_data(data)
        elif self._error is not None or self._http.their_state is h11.SEND_RESPONSE:
            raise LineError("closed")
        else:
            self._http.receive_data(b"")

    async def _more(self, silence: float) -> None:
        self._reader = self._loop.create_future()
        self._deadline = self._loop.time() + silence
        if self._timer is None or self._timer.when() > self._deadline:
            self._set_timer()
        try:
            await self._reader
        finally:
            self._reader = None

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._deadline, self._late)

    def _late(self) -> None:
        self._timer = None
        if self._reader is None or self._reader.done():
            return
        if self._loop.time() < self._deadline:  # something came since it was set
            self._set_timer()
        else:
            self._reader.set_exception(LineError("silent"))


def _client() -> Any:
    import h11

    return h11.Connection(h11.CLIENT, max_incomplete_event_size=MOST_HEAD)


def _wake(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)


def _proof(way: Way) -> Headers:
    return [(b"proxy-authorization", way.secret)] if way.secret else []


async def _dialled(loop: asyncio.AbstractEventLoop, host: str, port: int) -> socket.socket:
    """To the first of a name's addresses that answers in a while, or to the last. Raises OSError."""
    rows = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for left, (family, kind, protocol, _, address) in zip(range(len(rows) - 1, -1, -1), rows, strict=True):
        found = socket.socket(family, kind, protocol)
        found.setblocking(False)
        try:
            async with asyncio.timeout(INSTEAD if left else None):
                await loop.sock_connect(found, address)
            return found
        except BaseException as error:
            found.close()
            if not left or not isinstance(error, OSError):  # a TimeoutError is one
                raise
    raise OSError(f"{host} has no address")


async def connect(way: Way, seconds: float) -> Line:
    """A connection, proxy and TLS included. Raises LineError."""
    loop = asyncio.get_running_loop()
    line = Line(loop)
    host, port = way.proxy or (way.host, way.port)
    context = way.proxy_context if way.proxy else way.context
    more: dict[str, Any] = {"host": host, "port": port}
    named = host.rpartition(".")[2][:1].isalpha()
    if named and isinstance(loop, asyncio.BaseEventLoop):
        more["happy_eyeballs_delay"] = TOO  # which uvloop has no word for
    try:
        async with asyncio.timeout(seconds):
            if named and "happy_eyeballs_delay" not in more:
                more = {"sock": await _dialled(loop, host, port), "server_hostname": host if context else None}
            await loop.create_connection(lambda: line, ssl=context, **more)
            if way.proxy and not way.forwarded:
                await line.tunnel(way, seconds)
    except TimeoutError:
        problem = LineError("late")
    except OSError as error:  # TLS's among them
        problem = LineError("unreached", error.with_traceback(None))
    except BaseException:
        line.close()
        raise
    else:
        plain = line._transport.get_extra_info("socket")
        for name, level, value in ALIVE:
            if plain is not None and hasattr(socket, name):
                with suppress(OSError):
                    plain.setsockopt(level, getattr(socket, name), value)
        return line
    line.close()
    raise problem


class Connections:
    """Those to one address on one event loop: the last that was used is the first to be used again.

    They close by themselves after a while, and when the loop's generators are shut down (asyncio.run does that).
    """

    def __init__(self, way: Way) -> None:
        self.way = way
        self._loop = asyncio.get_running_loop()
        self._free: list[tuple[Line, float]] = []  # and since when
        self._open: set[Line] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._until: AsyncGenerator[None, None] | None = None

    async def take(self, seconds: float) -> tuple[Line, bool]:
        """A connection, and whether it was used before. Raises LineError."""
        while self._free:
            found, _ = self._free.pop()
            if found.fresh:
                return found, True
            self._end(found)
        if self._until is None:
            self._until = self._live()
            await anext(self._until)
        found = await connect(self.way, seconds)
        self._open.add(found)
        return found, False

    def give(self, used: Line) -> None:
        """Back; it is used again if its last answer was read to the end."""
        if used not in self._open or not used.renew():
            self._end(used)
            return
        self._free.append((used, self._loop.time()))
        if self._timer is None:
            self._sweep_in(IDLE)

    def proof(self) -> Headers:
        """What a proxy that reads requests wants with each."""
        return _proof(self.way) if self.way.forwarded else []

    def _sweep(self) -> None:
        self._timer = None
        now = self._loop.time()
        for found, since in self._free:
            if now - since >= IDLE:
                self._end(found)
        self._free = [(found, since) for found, since in self._free if now - since < IDLE]
        if self._free:
            self._sweep_in(self._free[0][1] + IDLE - now)

    def _sweep_in(self, seconds: float) -> None:
        mine = weakref.ref(self)  # a timer is no reason to live

        def sweep() -> None:
            if (there := mine()) is not None:
                there._sweep()

        self._timer = self._loop.call_later(max(0.05, seconds), sweep)

    def _end(self, line: Line) -> None:
        self._open.discard(line)
        line.close()

    async def aclose(self) -> None:
        """Close all; answers that are being read break off."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._free.clear()
        for line in list(self._open):
            self._end(line)
        await asyncio.sleep(0)  # in which transports let go of their sockets

    async def _live(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await self.aclose()
