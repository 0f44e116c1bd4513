"""The server's sockets: connections within bounds, and an end that loses no request.

uvicorn bounds neither the time nor the size of a request's head, never lets go of a connection whose client does not
read, and ends by closing connections whose request it has not read yet. `Connection` and `Server` are its own classes
with that mended.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Generator
from functools import partial
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from brolly.errors import OptionError
from brolly.kernels.pages import few_arenas
from brolly.serve import logs
from brolly.serve.app import create
from brolly.serve.errors import Refused, envelope
from brolly.serve.keys import is_loopback
from brolly.serve.settings import Settings

log = logging.getLogger("brolly.serve")

HEAD_BYTES = 65536  # of a request's line and headers
KEEP_ALIVE = 15.0  # seconds that a connection waits for its next request
LINGER = 1.0  # seconds at the end in which connections without a request may still send one
LATE = 10.0  # seconds at the end that models have to close
SPARE_FILES = 512  # for models, responses and the rest, beside connections


class Connection(HttpToolsProtocol):
    """A client's connection. `settings` bounds how many there are and how long each part of a request may take."""

    def __init__(
        self, *args: Any, settings: Settings, most: int, line: dict[Connection, None],
        bodies: dict[Connection, None], **named: Any,
    ) -> None:  # fmt: skip
        """All connections of a server share `line`, those whose head is due, and `bodies`, those whose body is.

        In both stands first who has waited longest.
        """
        super().__init__(*args, **named)
        self.settings, self.most, self.line, self.bodies = settings, most, line, bodies
        self.head: asyncio.TimerHandle | None = None  # runs while a head is due
        self.unread: asyncio.TimerHandle | None = None  # runs while the client does not read
        self.head_bytes = 0
        self.in_body = self.ending = self.gone = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.most and not self._make_room():
            self.connections.discard(self)
            text = f"All {self.most:,} connections are in use; try again."
            return self._refuse(503, text, "overloaded", "retry-after: 1\r\n")
        self._expect_head()

    def _make_room(self) -> bool:
        """Close the connection that has waited longest for its client; False if all are being answered."""
        # those whose head is due have asked nothing yet: they go before clients that have
        kept: Any = self.connections
        first: Connection | None = next(iter(self.line), None)
        first = first or next((c for c in kept if c is not self and c.idle), None)
        first = first or next((c for c in self.bodies if not c.pipeline), None)  # who piped has answers to come
        if first is None:
            return False
        first._stop_head()
        self.bodies.pop(first, None)
        self.connections.discard(first)
        first.transport.abort()
        return True

    @property
    def idle(self) -> bool:
        """Whether no request is read or answered."""
        answered = self.cycle is None or self.cycle.response_complete
        return answered and not self.in_body and not self.pipeline

    def data_received(self, data: bytes) -> None:
        before, waiting = self.cycle, self.idle
        super().data_received(data)
        if self.transport.is_closing():
            return
        # what ends a body is not the next head's: only what came while one was due counts
        self.head_bytes = self.head_bytes + len(data) if waiting and self.idle and self.cycle is before else 0
        if self.head_bytes > HEAD_BYTES:
            return self._refuse(431, f"The request's head is larger than {HEAD_BYTES:,} bytes.", "headers_too_large")
        refused = self.in_body and self.cycle.response_complete  # the rest of a body that nobody wants has its time too
        if self.head is None and (self.idle or refused):
            self._expect_head()

    def on_headers_complete(self) -> None:
        self._stop_head()
        self.in_body = True
        self.bodies[self] = None
        super().on_headers_complete()
        if self.ending:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        self.in_body = False
        self.bodies.pop(self, None)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._give_up_later()  # the last bytes may still wait for a client that does not read

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._give_up_later()

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True
        self._unset_keepalive_if_required()  # which uvicorn leaves to run where the client left by a reset
        self._stop_head()
        self._stop_unread()
        self.bodies.pop(self, None)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._give_up_later()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.transport.is_closing():
            self._stop_unread()

    def shutdown(self) -> None:
        """The server ends: what is asked is answered, and then the connection closes."""
        self.ending = True
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False
        elif not self.head_bytes:  # a head that has begun may come to its end
            self.loop.call_later(LINGER, self._close_idle)

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, msg, "invalid_http")

    def _close_idle(self) -> None:
        answered = self.cycle is None or self.cycle.response_complete
        if answered and not self.head_bytes and not self.transport.is_closing():
            self.transport.close()

    def _expect_head(self) -> None:
        self.head = self.loop.call_later(self.settings.body_seconds, self._late)
        self.line[self] = None

    def _late(self) -> None:
        self._stop_head()
        if self.transport.is_closing():
            return
        if self.head_bytes:
            self._refuse(408, "The request's head did not arrive in time.", "timeout")
        else:
            self.transport.close()

    def _give_up_later(self) -> None:
        if self.unread is None and not self.gone:
            self.unread = self.loop.call_later(self.settings.request_seconds, self.transport.abort)

    def _stop_head(self) -> None:
        if self.head is not None:
            self.head.cancel()
            self.head = None
            self.line.pop(self, None)

    def _stop_unread(self) -> None:
        if self.unread is not None:
            self.unread.cancel()
            self.unread = None

    def _refuse(self, status: int, message: str, code: str, more: str = "") -> None:
        """An answer to what never became a request."""
        kind = "server_error" if status >= 500 else "invalid_request_error"
        body = json.dumps(envelope("", Refused(message, status, kind, code))).encode()
        head = f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n{more}\r\n"
        self.transport.write(STATUS_LINE[status] + head.encode() + body)
        self.transport.close()
        self._give_up_later()


class Server(uvicorn.Server):
    """uvicorn's server, which ends with 0 when told to, after everything that was asked is answered."""

    def __init__(self, config: uvicorn.Config, app: Any, settings: Settings) -> None:
        super().__init__(config)
        self.app, self.settings = app, settings
        self.tell: Callable[[], None] | None = None  # called once requests are taken
        self.late = threading.Timer(LATE, os._exit, (0,))  # a thread that computes for nobody must not keep the process

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal begins the end; the second ends at once."""
        if self.should_exit:
            os._exit(128 + sig)
        self.should_exit = self.app.state.stopping = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        assert sockets
        self.queues = [sock.dup() for sock in sockets]  # closing one listener leaves the kernel's queue open
        await super().startup(sockets)
        if self.tell is not None:
            self.tell()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.app.state.stopping = True
        for server in self.servers:
            server.close()
        for queue in self.queues:
            await self._accept_rest(queue)
            queue.close()
        for sock in sockets or []:
            sock.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        if running := len(self.server_state.tasks):
            seconds = self.settings.shutdown_seconds
            log.info("stopping: %d answers are finished first, for %g s at most", running, seconds)
        try:
            async with asyncio.timeout(self.settings.shutdown_seconds):
                while self.server_state.connections or self.server_state.tasks:
                    await asyncio.sleep(0.02)
        except TimeoutError:
            log.warning("stopped with %d answers unfinished", len(self.server_state.tasks))
            for task in list(self.server_state.tasks):
                task.cancel()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        if threading.current_thread() is threading.main_thread():
            desk = getattr(self.app.state, "desk", None)
            if desk is not None and desk.running:  # responses in the background were accepted, too
                self.late.interval += self.settings.shutdown_seconds
            self.late.daemon = True
            self.late.start()
        await self.lifespan.shutdown()

    async def _accept_rest(self, queue: socket.socket) -> None:
        """Connections that the kernel has made, and nobody has taken yet."""
        queue.setblocking(False)
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = queue.accept()
            except OSError:  # none is left, or one has gone again
                return
            sock.setblocking(False)
            await loop.connect_accepted_socket(
                lambda: self.config.http_protocol_class(  # type: ignore[call-arg]
                    config=self.config, server_state=self.server_state, app_state=self.lifespan.state
                ),
                sock,
            )


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises OptionError where it cannot."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError, OverflowError) as error:
        raise OptionError(f"{host}:{port} is no address to listen on ({error}).") from None
    try:
        if os.name == "posix":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(2048)
    except (OSError, OverflowError) as error:
        sock.close()
        raise OptionError(
            f"{host}:{port} cannot be listened on ({error}); choose another with --host and --port."
        ) from None
    return sock


def files_for(connections: int) -> int:
    """Raise the process's limit of open files for so many connections; returns how many there may be."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return connections
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = connections + SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < need:
        soft = need if hard == resource.RLIM_INFINITY else min(need, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= need:
        return connections
    most = max(16, soft - SPARE_FILES)
    log.warning("the system allows %d open files: %d connections are taken, not %d", soft, most, connections)
    return most


def warn(settings: Settings) -> None:
    """Say it where everybody on the network may use this server."""
    if not settings.api_keys and not is_loopback(settings.host):
        log.warning(
            "%s can be reached from other machines, and NO API KEY IS ASKED FOR: whoever reaches it may use every "
            "model. Start it with --api-key-file, or keep it on 127.0.0.1.", settings.host,
        )  # fmt: skip
    if "*" in settings.cors and not settings.api_keys:
        log.warning("--cors '*' without API keys: every web page that someone opens here may use this server.")


def server(app: Any, settings: Settings) -> Server:
    """A server of an application, to be run on sockets that listen."""
    kind: Any = partial(Connection, settings=settings, most=files_for(settings.connections), line={}, bodies={})
    config = uvicorn.Config(
        app, http=kind, ws="none", lifespan="on", log_config=None, access_log=False, server_header=False,
        timeout_keep_alive=int(KEEP_ALIVE),
    )  # fmt: skip
    return Server(config, app, settings)


def run(settings: Settings, started: Callable[[str, Any], None] | None = None) -> int:
    """Serve until a signal comes, then finish what was asked; returns 0.

    `started` is called with the address and the application once requests are taken. Raises OptionError, MissingExtra.
    """
    logs.configure(settings.log)
    warn(settings)
    few_arenas()
    # texts of every length come, and oneDNN keeps code for 1,024 shapes, some 20 MB, unless told otherwise
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    sock = listen(settings.host, settings.port)
    host, port = sock.getsockname()[:2]
    found = server(create(settings), settings)
    if started is not None:
        found.tell = partial(started, f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}", found.app)
    try:
        found.run([sock])
    finally:
        found.late.cancel()
    return 0 if found.started else 1
