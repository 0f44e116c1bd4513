"""Connections as httpcore reads and writes them, over asyncio's transports; and those that wait to be used again.

httpcore's own go through anyio, whose timeouts cost more than the rest of an event: docs/closed-models.md has numbers.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import suppress
from typing import Any

HIGH = 1 << 20  # bytes that wait to be read before the peer is made to wait
TOGETHER = 64 << 10  # bytes of a request that are sent in one go
IDLE = 30.0  # seconds that a connection waits to be used again
# a vendor may think for minutes; without a sign of life gates on the way forget the connection
ALIVE = (("SO_KEEPALIVE", socket.SOL_SOCKET, 1), ("TCP_KEEPIDLE", socket.IPPROTO_TCP, 60),
         ("TCP_KEEPINTVL", socket.IPPROTO_TCP, 60), ("TCP_KEEPCNT", socket.IPPROTO_TCP, 5))  # fmt: skip


class Socket(asyncio.Protocol):
    """One connection; httpcore's AsyncNetworkStream. Timeouts of all its reads share one timer."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: Any = None
        self._came: list[bytes] = []
        self._n_came = 0
        self._going: list[bytes] = []
        self._n_going = 0
        self._over = self._held = False
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
        self._wake(self._reader)

    def connection_lost(self, error: Exception | None) -> None:
        self._over, self._error = True, error
        self._wake(self._reader)
        self._wake(self._room)

    def pause_writing(self) -> None:
        self._room = self._loop.create_future()

    def resume_writing(self) -> None:
        self._wake(self._room)
        self._room = None

    @staticmethod
    def _wake(waiting: asyncio.Future[None] | None) -> None:
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    # what httpcore calls

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """All that has come, at least a byte; b"" at the end."""
        if self._n_going:
            self._flush()
        if not self._came and not self._over:
            await self._more(timeout)
        if not self._came:
            if self._error is not None:
                import httpcore

                raise httpcore.ReadError(str(self._error))
            return b""
        data = self._came[0] if len(self._came) == 1 else b"".join(self._came)
        self._came.clear()
        self._n_came = 0
        if self._held:
            self._held = False
            self._transport.resume_reading()
        return data

    async def _more(self, timeout: float | None) -> None:
        self._reader = self._loop.create_future()
        if timeout is not None:
            self._deadline = self._loop.time() + timeout
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
            return
        import httpcore

        self._reader.set_exception(httpcore.ReadTimeout("silence"))

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Goes with what follows, up to 64 KiB, or when an answer is waited for."""
        if self._over:
            import httpcore

            raise httpcore.WriteError(str(self._error or "closed"))
        self._going.append(buffer)
        self._n_going += len(buffer)
        if self._n_going >= TOGETHER:
            self._flush()
            if self._room is not None:
                try:
                    async with asyncio.timeout(timeout):
                        await self._room
                except TimeoutError:
                    late = True
                else:
                    late = False
                if late:
                    import httpcore

                    raise httpcore.WriteTimeout("silence")

    def _flush(self) -> None:
        self._transport.write(b"".join(self._going))
        self._going.clear()
        self._n_going = 0

    async def aclose(self) -> None:
        self.close()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._came.clear()
        if self._transport is not None and not self._loop.is_closed():
            self._transport.abort()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> Socket:
        """Itself, from here on encrypted."""
        import httpcore

        try:
            async with asyncio.timeout(timeout):
                self._transport = await self._loop.start_tls(
                    self._transport, self, ssl_context, server_hostname=server_hostname
                )
            return self
        except TimeoutError:
            problem: Exception = httpcore.ConnectTimeout("TLS")
        except OSError as error:  # ssl.SSLError among them
            problem = httpcore.ConnectError(str(error))
            problem.__cause__ = error.with_traceback(None)
        except BaseException:
            self.close()
            raise
        self.close()
        raise problem

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":  # while nothing is asked: it is closed, or says what nobody wants to know
            return self._over or bool(self._came) or self._transport.is_closing()
        return self._transport.get_extra_info("socket" if info == "socket" else info)


class Backend:
    """httpcore's AsyncNetworkBackend."""

    async def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> Socket:  # fmt: skip
        import httpcore

        loop = asyncio.get_running_loop()
        # the next address after so many seconds, where the first is not to be reached; uvloop has no word for it
        more: dict[str, Any] = {"happy_eyeballs_delay": 0.25} if isinstance(loop, asyncio.BaseEventLoop) else {}
        try:
            async with asyncio.timeout(timeout):
                transport, made = await loop.create_connection(lambda: Socket(loop), host, port, **more)
        except TimeoutError:
            problem: Exception = httpcore.ConnectTimeout("TCP")
        except OSError as error:
            problem = httpcore.ConnectError(str(error))
            problem.__cause__ = error.with_traceback(None)
        else:
            plain = transport.get_extra_info("socket")
            for name, level, value in ALIVE:
                if hasattr(socket, name):
                    with suppress(OSError):
                        plain.setsockopt(level, getattr(socket, name), value)
            return made
        raise problem

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Connections:
    """Those to one address on one event loop: the last that was used is the first to be used again.

    They close by themselves after a while, and when the loop's generators are shut down (asyncio.run does that).
    """

    def __init__(self, make: Callable[[], Any], way: str = "") -> None:
        self._make = make  # a connection of httpcore's
        self.way = way  # " through the proxy at …"
        self._loop = asyncio.get_running_loop()
        self._free: list[tuple[Any, float]] = []  # and since when
        self._open: set[Any] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._until: AsyncGenerator[None, None] | None = None

    async def take(self) -> tuple[Any, bool]:
        """A connection, and whether it was used before."""
        if self._until is None:
            self._until = self._live()
            await anext(self._until)
        while self._free:
            found, _ = self._free.pop()
            if found.is_idle() and not found.has_expired():
                return found, True
            await self._end(found)
        found = self._make()
        self._open.add(found)
        return found, False

    async def give(self, used: Any) -> None:
        """Back; it is used again if its last answer was read to the end."""
        if used not in self._open or not used.is_idle() or used.has_expired():
            await self._end(used)
            return
        self._free.append((used, self._loop.time()))
        if self._timer is None:
            self._timer = self._loop.call_later(IDLE, self._sweep)

    def _sweep(self) -> None:
        self._timer = None
        now = self._loop.time()
        late = [found for found, since in self._free if now - since >= IDLE]
        self._free = [(found, since) for found, since in self._free if now - since < IDLE]
        if self._free:
            self._timer = self._loop.call_later(max(0.05, self._free[0][1] + IDLE - now), self._sweep)
        if late:
            task = self._loop.create_task(self._end(*late))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _end(self, *several: Any) -> None:
        for one in several:
            self._open.discard(one)
            await one.aclose()

    async def aclose(self) -> None:
        """Close all; answers that are being read break off."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._free.clear()
        await self._end(*self._open)
        await asyncio.sleep(0)  # in which transports let go of their sockets

    async def _live(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await self.aclose()
