"""Connections within bounds, and an end that loses no request: a real server on real sockets."""

from __future__ import annotations

import asyncio
import gc
import http.client
import logging
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

pytest.importorskip("uvicorn")
pytest.importorskip("httptools")

from brolly.serve.account import Account  # noqa: E402
from brolly.serve.logs import access  # noqa: E402
from brolly.serve.server import Connection, listen, server  # noqa: E402
from brolly.serve.settings import Settings  # noqa: E402
from tests.serve.small import small  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
BODY = b'{"tokens": 40, "seconds": 0.02}'
ASK = b"POST /v1/stream HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
STREAM = ASK % len(BODY) + BODY
HEALTH = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"


def until(holds: Callable[[], object], what: str) -> None:
    """Wait for something that another thread or process does."""
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end, f"{what} did not come"
        time.sleep(0.01)


def rest(sock: socket.socket) -> bytes:
    """All that comes until the other side closes; "reset" in place of what was lost."""
    sock.settimeout(20)
    parts = []
    try:
        while part := sock.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        parts.append(b"reset")
    return b"".join(parts)


def call(port: int, sent: bytes = b"") -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), 20)
    if sent:
        sock.sendall(sent)
    return sock


@contextmanager
def process() -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server in a process of its own, and its port."""
    command = [sys.executable, "-m", "tests.serve.small"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as found:
        try:
            assert found.stdout is not None
            yield found, int(found.stdout.readline())
        finally:
            if found.poll() is None:
                found.kill()


def test_sigterm_under_load_loses_no_request_and_ends_with_0() -> None:
    with process() as (server, port), ExitStack() as stack:
        streams = [stack.enter_context(call(port, STREAM)) for _ in range(20)]
        for stream in streams:
            assert stream.recv(12) == b"HTTP/1.1 200"
        kept = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        kept.request("GET", "/health")
        assert kept.getresponse().read() == b'{"status":"ok"}'
        half = stack.enter_context(call(port, STREAM[:50]))  # a head that has begun
        time.sleep(0.1)
        os.kill(server.pid, signal.SIGSTOP)  # so that what follows is accepted by the kernel and read by nobody
        queued = [stack.enter_context(call(port, STREAM)) for _ in range(20)]
        kept.request("GET", "/health")
        os.kill(server.pid, signal.SIGTERM)
        os.kill(server.pid, signal.SIGCONT)
        assert kept.getresponse().read() == b'{"status":"ok"}'
        half.sendall(STREAM[50:])
        answers = [rest(sock) for sock in (*streams, *queued, half)]
        assert [a for a in answers if not a.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")] == []
        assert server.wait(20) == 0
        with pytest.raises(ConnectionRefusedError):
            call(port)


def test_connections_that_nobody_has_accepted_yet_are_answered() -> None:
    settings, sock, connected = Settings(shutdown_seconds=20), listen("127.0.0.1", 0), threading.Event()
    found = server(small(settings), settings)

    def stop_before_anything_is_accepted() -> None:
        assert connected.wait(20)  # the event loop stands still
        found.should_exit = True

    found.tell = stop_before_anything_is_accepted
    running = threading.Thread(target=found.run, args=([sock],), daemon=True)
    running.start()
    with ExitStack() as stack:
        queued = [stack.enter_context(call(sock.getsockname()[1], STREAM)) for _ in range(50)]
        silent = stack.enter_context(call(sock.getsockname()[1]))
        connected.set()
        assert [a for a in map(rest, queued) if not a.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")] == []
        assert rest(silent) == b""
    running.join(20)
    assert not running.is_alive()


def test_answers_that_take_too_long_are_cut_when_the_time_is_over(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with ExitStack() as stack:
        with thread(Settings(shutdown_seconds=0.3)) as (port, running):
            stream = stack.enter_context(call(port, STREAM.replace(b"0.02", b"9.00")))
            until(lambda: running() == 1, "the request")
        assert b"[DONE]" not in rest(stream)
    assert not [row for row in caplog.records if row.exc_info], "that is no failure"
    assert [row.account.error for row in caplog.records if hasattr(row, "account")] == ["server_stopped"]


def test_a_second_signal_ends_at_once() -> None:
    with process() as (server, port), call(port, STREAM.replace(b"0.02", b"9.00")):
        time.sleep(0.2)
        server.terminate()
        time.sleep(0.3)
        assert server.poll() is None
        server.terminate()
        assert server.wait(20) == 128 + signal.SIGTERM


def test_ready_says_no_while_the_server_stops() -> None:
    from fastapi.testclient import TestClient

    from brolly.serve.app import create

    app = create(Settings(models=("mini-llm",)))
    client = TestClient(app, base_url="http://localhost")
    assert client.get("/ready").status_code == 200
    app.state.stopping = True
    reply = client.get("/ready")
    assert reply.status_code == 503 and reply.json() == {"status": "stopping"} and reply.headers["retry-after"]


@contextmanager
def thread(settings: Settings) -> Iterator[tuple[int, Callable[[], int]]]:
    """A server in a thread of this process: its port, and how many requests it is answering."""
    app, sock = small(settings), listen("127.0.0.1", 0)
    found = server(app, settings)
    running = threading.Thread(target=found.run, args=([sock],), daemon=True)
    running.start()
    until(lambda: found.started, "the start")
    try:
        yield sock.getsockname()[1], lambda: len(found.server_state.tasks)
    finally:
        found.should_exit = True
        running.join(20)
        assert not running.is_alive()


def test_clients_that_vanish_leave_nothing_behind(caplog: pytest.LogCaptureFixture) -> None:
    def remembered() -> list[object]:
        gc.collect()
        return [one for one in gc.get_objects() if type(one) in (Account, Connection)]

    # pytest keeps every record, and those have accounts: where some library made INFO the level, no account would go
    caplog.set_level(logging.WARNING, access.name)
    before = remembered()  # what a test that failed keeps by its traceback
    with thread(Settings(shutdown_seconds=1)) as (port, running):
        for sent in (HEALTH, STREAM) * 5:
            with call(port, sent) as sock:
                assert sock.recv(12) == b"HTTP/1.1 200"
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # leaves by a reset
        until(lambda: not running(), "the end of their answers")
        until(lambda: len(remembered()) <= len(before), "the end of their connections")


def test_idle_connections_make_room_for_new_ones() -> None:
    with thread(Settings(connections=50, shutdown_seconds=1)) as (port, _), ExitStack() as stack:
        kept = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        kept.request("GET", "/health")
        assert kept.getresponse().read()
        socket_before = kept.sock
        for n in range(400):
            stack.enter_context(call(port, b"GET /he" if n % 2 else b""))
            if n % 40 == 0:
                assert call(port, HEALTH).recv(12) == b"HTTP/1.1 200"
        kept.request("GET", "/health")  # a client that has asked before is not the first to go
        assert kept.getresponse().status == 200 and kept.sock is socket_before
        kept.close()


def test_where_all_connections_are_busy_a_new_one_is_told_503() -> None:
    with thread(Settings(connections=3, shutdown_seconds=1)) as (port, running), ExitStack() as stack:
        streams = [stack.enter_context(call(port, STREAM)) for _ in range(3)]
        until(lambda: running() == 3, "three requests")
        answer = rest(stack.enter_context(call(port)))
        assert answer.startswith(b"HTTP/1.1 503") and b"retry-after: 1" in answer and b'"overloaded"' in answer
        for stream in streams:
            until(lambda stream=stream: b"[DONE]" in stream.recv(65536), "the end of a stream")  # type: ignore[misc]
        assert call(port, HEALTH).recv(12) == b"HTTP/1.1 200"


def test_a_request_that_does_not_arrive_is_given_up() -> None:
    with thread(Settings(body_seconds=0.2, shutdown_seconds=1)) as (port, _):
        assert rest(call(port)) == b""
        assert rest(call(port, STREAM[:30])).startswith(b"HTTP/1.1 408")
        assert rest(call(port, STREAM[:-5])).startswith(b"HTTP/1.1 408")
        trickling = call(port, b"GET /health HTTP/1.1\r\n")
        with pytest.raises(OSError):  # a byte now and then buys no time
            for _ in range(100):
                trickling.sendall(b"x: y\r\n")
                time.sleep(0.02)
        again = call(port, HEALTH)
        assert again.recv(65536).startswith(b"HTTP/1.1 200")
        for _ in range(3):
            again.sendall(b"\r\n")  # what the parser skips between requests
        assert rest(again).startswith(b"HTTP/1.1 408")


def test_a_head_without_end_is_431_and_garbage_is_400() -> None:
    with thread(Settings(shutdown_seconds=1)) as (port, _):
        long = call(port, b"GET /health HTTP/1.1\r\nx: ")
        with pytest.raises(OSError):
            for _ in range(200):
                long.sendall(b"x" * 4096)
                time.sleep(0.001)
            assert rest(long).startswith(b"HTTP/1.1 431")
            raise OSError
        answer = rest(call(port, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 TLS?\r\n\r\n"))
        assert answer.startswith(b"HTTP/1.1 400") and b'"invalid_http"' in answer


def test_a_client_that_does_not_read_is_cut_and_its_work_ends() -> None:
    with thread(Settings(request_seconds=0.4, shutdown_seconds=1)) as (port, running):
        body = b'{"tokens": 100000, "size": 100000}'
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", port))
        sock.sendall(ASK % len(body) + body)
        until(lambda: running() == 1, "the request")
        until(lambda: running() == 0, "its end")
        sock.close()


def test_a_client_that_leaves_ends_its_work() -> None:
    with thread(Settings(shutdown_seconds=1)) as (port, running):
        sock = call(port, STREAM.replace(b"0.02", b"0.05").replace(b"40", b"99"))
        until(lambda: running() == 1, "the request")
        sock.close()
        until(lambda: running() == 0, "its end")


def test_a_connection_is_kept_for_many_requests_and_pipelined_ones_are_all_answered() -> None:
    with thread(Settings(shutdown_seconds=1)) as (port, _):
        sock = call(port, HEALTH * 5)
        found = b""
        while found.count(b'{"status":"ok"}') < 5:
            found += sock.recv(65536)
        sock.sendall(HEALTH)
        assert sock.recv(12) == b"HTTP/1.1 200"


def test_a_refused_upload_does_not_spoil_the_connection() -> None:
    keyed = Settings(api_keys=(("a-key-of-a-user-0001", "user"),), shutdown_seconds=1)
    with thread(keyed) as (port, _):
        body = b"x" * 3_000_000
        sock = call(port, ASK % len(body))
        refused = sock.recv(65536)
        while b"invalid_api_key" not in refused:  # the head may come before the body
            refused += sock.recv(65536)
        assert refused.startswith(b"HTTP/1.1 401")
        sock.sendall(body)
        sock.sendall(HEALTH)
        assert sock.recv(65536).startswith(b"HTTP/1.1 200")


def test_the_end_of_a_body_that_nobody_wanted_is_no_head() -> None:
    keyed = Settings(api_keys=(("a-key-of-a-user-0001", "user"),))
    app = small(keyed)
    found, written = server(app, keyed), []

    class Wire(asyncio.Transport):
        def write(self, data: bytes) -> None:  # type: ignore[override]
            written.append(bytes(data))

        def is_closing(self) -> bool:
            return False

        def close(self) -> None:
            written.append(b"closed")

    async def send() -> None:
        found.config.load()
        kind = found.config.http_protocol_class
        wire = kind(config=found.config, server_state=found.server_state, app_state={})  # type: ignore[call-arg]
        wire.connection_made(Wire())  # type: ignore[arg-type]
        wire.data_received(ASK % 200_000)
        while not wire.cycle.response_complete:
            await asyncio.sleep(0)
        wire.data_received(b"x" * 200_000)  # in one piece, as a fast network brings it
        wire.data_received(HEALTH)
        while not wire.cycle.response_complete:
            await asyncio.sleep(0)
        wire.connection_lost(None)

    asyncio.run(asyncio.wait_for(send(), 20))
    said = b"".join(written)
    assert said.startswith(b"HTTP/1.1 401") and b"HTTP/1.1 200" in said and b"HTTP/1.1 431" not in said


def test_an_address_in_use_is_told() -> None:
    from brolly.errors import OptionError

    with listen("127.0.0.1", 0) as sock, pytest.raises(OptionError, match="cannot be listened on"):
        listen("127.0.0.1", sock.getsockname()[1])
