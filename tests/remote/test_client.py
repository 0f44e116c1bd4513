"""The client against a server that does whatever networks and vendors do: the one right error, or a retry."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from brolly.errors import (
    BadAnswer,
    BrollyError,
    Busy,
    ContextTooLong,
    KeyRefused,
    NotFound,
    OptionError,
    Overloaded,
    QuotaSpent,
    RemoteError,
    Unreachable,
)
from brolly.remote import client as module
from brolly.remote import loop, parse
from brolly.remote.client import Client
from brolly.remote.dialect import DONE, Call, Told
from brolly.remote.proxies import trust
from brolly.verbs import RemoteOptions
from tests.remote.fakes import CUT, KEY, STALL, Fake, Reply, Request, sse

ANSWER = {"said": "Hello", "n": [1, 2.5, None]}
EVENTS = [sse({"n": 1}), sse({"n": 2}, "named"), sse({"said": "ünïcödé 🙂"}), sse(DONE)]
READ: list[tuple[str, Any]] = [("", {"n": 1}), ("named", {"n": 2}), ("", {"said": "ünïcödé 🙂"}), ("", DONE)]
CALL, STREAM = Call("/whole", {"a": 1}), Call("/stream", {"a": 1})
ONCE = Call("/whole", {"a": 1}, safe=False)


class Vendor(Fake):
    def answer(self, request: Request) -> Reply:
        if request.path == "/v1/stream":
            return Reply(chunks=EVENTS)
        if request.path == "/v1/whole":
            return Reply(body=ANSWER)
        return super().answer(request)


def told(body: Any) -> Told:
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return Told()
    return Told(str(error.get("code", "")), str(error.get("message", "")))


def error(status: int, code: str = "", message: str = "", **headers: str) -> Reply:
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, headers, {"error": {"code": code, "message": message}})


def client_of(fake: Fake, **manners: Any) -> Client:
    return Client(parse(f"{fake.url}/v1#model-1"), RemoteOptions(**manners))


def whole(client: Client, call: Call = CALL) -> Any:
    return asyncio.run(client.json(call, told))


def stream(client: Client, call: Call = STREAM) -> list[tuple[str, Any]]:
    async def read() -> list[tuple[str, Any]]:
        return [event async for batch in client.events(call, told) for event in batch]

    return asyncio.run(read())


@pytest.fixture
def fake() -> Iterator[Vendor]:
    with Vendor() as made:
        yield made


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No long pauses between tries, and no proxy of this machine's."""
    monkeypatch.setattr(module, "FIRST", 0.02)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def once(reply: Reply) -> Callable[[Request], Reply]:
    return lambda request: reply


# What goes and what comes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", [0, 1, 3])
def test_bodies_and_events_come_whole_however_they_are_cut(split: int) -> None:
    with Vendor(split=split) as fake:
        assert whole(client_of(fake)) == ANSWER
        assert stream(client_of(fake)) == READ


def test_what_is_sent_is_what_was_said(fake: Vendor) -> None:
    call = Call("/whole", {"text": "ü"}, headers={"x-more": "1"}, query={"a": "b c&d"})
    whole(client_of(fake), call)
    asyncio.run(client_of(fake).json(Call("/whole", method="GET"), told))
    sent, got = fake.requests
    assert (sent.method, sent.path, sent.query, sent.json) == ("POST", "/v1/whole", {"a": "b c&d"}, {"text": "ü"})
    assert sent.headers["user-agent"].startswith("brolly/") and sent.headers["x-more"] == "1"
    assert sent.headers["content-type"] == "application/json" and sent.headers["accept"] == "application/json"
    assert (got.method, got.body) == ("GET", b"") and "content-type" not in got.headers


def test_files_travel_as_multipart(fake: Vendor) -> None:
    sound = bytes(range(256)) * 1000
    files = [("file", ("a.wav", sound, "audio/wav")), ("more[]", ("b.png", b"\r\n--", "image/png"))]
    whole(client_of(fake), Call("/whole", files=files, form={"model": "m", "n": "2"}))
    parts = {part.name: part for part in fake.requests[0].parts}
    assert parts["file"].data == sound and parts["file"].filename == "a.wav" and parts["file"].type == "audio/wav"
    assert parts["more[]"].data == b"\r\n--" and parts["model"].data == b"m" and parts["n"].data == b"2"


def test_bytes_come_with_their_type(fake: Vendor) -> None:
    sound = bytes(range(256)) * 4096
    fake.faults.append(once(Reply(200, {"content-type": "audio/mpeg; x=y"}, sound)))
    assert asyncio.run(client_of(fake).bytes(CALL, told)) == (sound, "audio/mpeg")


def test_a_large_request_is_sent_whole(fake: Vendor) -> None:
    text = "ü" * (6 << 20)
    whole(client_of(fake), Call("/whole", {"text": text}))
    assert fake.requests[0].json == {"text": text}


def test_an_event_is_handed_out_when_it_comes_and_those_of_one_read_together(fake: Vendor) -> None:
    chunks = [EVENTS[0], 0.15, EVENTS[1] + EVENTS[2], 0.15, EVENTS[3]]
    fake.faults.append(once(Reply(chunks=chunks)))

    async def read() -> list[tuple[int, float]]:
        begun = time.perf_counter()
        return [(len(batch), time.perf_counter() - begun) async for batch in client_of(fake).events(STREAM, told)]

    (a, first), (b, second), (c, third) = asyncio.run(read())
    assert (a, b, c) == (1, 2, 1) and first < 0.14 < second < 0.29 < third


@pytest.mark.parametrize("rest", [[STALL], [0.05, b"data: {}\n\n"], [CUT]], ids=["stalled", "more", "cut"])
def test_done_ends_a_stream_whatever_follows(fake: Vendor, rest: list[Any]) -> None:
    fake.faults.append(once(Reply(chunks=[*EVENTS, *rest])))
    begun = time.perf_counter()
    assert stream(client_of(fake)) == READ
    assert time.perf_counter() - begun < 2


@pytest.mark.parametrize("bad", [{"a": "\ud800"}, {"a": float("nan")}, {"a": {1, 2}}, {"a": object()}], ids=str)
def test_what_json_cannot_say_is_refused_before_it_is_sent(fake: Vendor, bad: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="the request to"):
        whole(client_of(fake), Call("/whole", bad))
    assert not fake.requests


@pytest.mark.parametrize("path", ["@evil.example/v1", ".evil.example", "whole", ":99/whole", "/\n"])
def test_a_path_leads_nowhere_else(fake: Vendor, path: str) -> None:
    with pytest.raises(OptionError):
        whole(client_of(fake), Call(path, {}))
    assert not fake.requests


@pytest.mark.parametrize(
    "base",
    ["api.openai.com/v1", "ftp://h/v1", "https://", "https://user:hunter2@h/v1", "https://h/v1?key=hunter2"],
)  # fmt: skip
def test_an_address_that_is_none_is_told_by_its_variable(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", base)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(OptionError, match="OPENAI_BASE_URL") as caught:
        whole(Client(parse("openai:m"), RemoteOptions()))
    assert "hunter2" not in str(caught.value)


def test_a_port_that_is_none_is_told() -> None:
    with pytest.raises(OptionError, match="port 99999"):
        whole(Client(parse("http://127.0.0.1:99999/v1#m"), RemoteOptions()))


@pytest.mark.parametrize("deaf", [False, True], ids=["slow", "deaf"])
def test_a_slow_upload_is_no_silence(deaf: bool) -> None:
    def serve(listening: socket.socket) -> None:
        line, _ = listening.accept()
        left = len(body)
        while left > 0 and not deaf:
            time.sleep(0.005)
            came = len(line.recv(512 << 10))
            left = left - came if came else 0
        if not deaf:
            line.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        over.wait(5)
        line.close()

    body, over = "x" * (16 << 20), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        port = listening.getsockname()[1]
        client = Client(parse(f"http://127.0.0.1:{port}/v1#m"), RemoteOptions(retries=0, silence_seconds=0.8))
        try:
            if deaf:
                with pytest.raises(Unreachable, match="silent for 0.8 s"):
                    whole(client, Call("/whole", {"a": body}))
            else:
                assert whole(client, Call("/whole", {"a": body})) == {}
        finally:
            over.set()
            thread.join()


@pytest.mark.parametrize("value", ["a\nb", "a\r\nx-other: 1", "\x00"])
def test_a_header_cannot_carry_another(fake: Vendor, value: str) -> None:
    with pytest.raises(OptionError, match="header"):
        whole(client_of(fake), Call("/whole", {}, headers={"x-more": value}))
    assert not fake.requests


# Faults: one right error each -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "kind", "said"),
    [
        (error(401, "invalid_api_key", "Incorrect API key"), KeyRefused, "401"),
        (error(402), QuotaSpent, "402"),
        (error(404, "model_not_found"), NotFound, "model-1"),
        (error(400, "context_length_exceeded", "too long"), ContextTooLong, "too long"),
        (error(400, "", "temperature is wrong"), OptionError, "temperature is wrong"),
        (error(429, "insufficient_quota", retry_after="0"), QuotaSpent, "429"),
        (error(422), OptionError, "422"),
        (Reply(400, {"content-type": "text/html"}, "<html><title>No</title>"), OptionError, "a web page, titled 'No'"),
        (Reply(404, {"content-type": "text/plain"}, "404 page not found"), NotFound, "404 page not found"),
        (Reply(302, {"location": "https://evil.example/?key=1"}), BadAnswer, "evil.example"),
        (Reply(200, {"content-type": "text/html"}, "<html><title>Welcome</title>"), BadAnswer, "Welcome"),
        (Reply(200, {"content-type": "application/json"}, "{not JSON"), BadAnswer, "no JSON"),
        (Reply(200, {"content-type": "application/json"}, b"\xff\xfe"), BadAnswer, "no JSON"),
        (Reply(200, {"content-type": "application/json"}, "[" * 200_000), BadAnswer, "no JSON"),
        (Reply(200, {"content-encoding": "gzip"}, b"\x1f\x8b"), BadAnswer, "compressed"),
        (Reply(raw=b"SSH-2.0-OpenSSH_9.9\r\n\r\n"), BadAnswer, "does not speak HTTP"),
        (Reply(raw=b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 50_000 + b"\r\n"), BadAnswer, "does not speak HTTP"),
        (Reply(raw=b"HTTP/1.1 100 Continue\r\n\r\n" * 1000), BadAnswer, "does not speak HTTP"),
        (Reply(400, body="x" * (2 << 20)), OptionError, "400"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("ask", [whole, stream])
def test_what_no_retry_mends_is_told_at_once(
    fake: Vendor, ask: Callable[[Client], Any], reply: Reply, kind: type[BrollyError], said: str
) -> None:
    fake.faults.append(once(reply))
    with pytest.raises(kind, match=said) as caught:
        ask(client_of(fake))
    assert len(fake.requests) == 1 and type(caught.value) is kind
    assert str(fake.port) in str(caught.value) or kind is ContextTooLong
    assert caught.value.__cause__ is None and caught.value.__context__ is None


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (error(429), Busy), (error(429, retry_after="0.01"), Busy), (error(429, retry_after_ms="5"), Busy),
        (error(429, retry_after="Sun, 06 Nov 1994 08:49:37 GMT"), Busy), (error(529, "overloaded_error"), Overloaded),
        (error(503), Overloaded), (error(500), RemoteError), (error(502), Unreachable), (error(504), Unreachable),
        (error(408), Unreachable), (error(409), OptionError), (error(400, x_should_retry="true"), OptionError),
        (Reply(502, {"content-type": "text/html"}, "<html><title>Bad gateway"), Unreachable),
        (Reply(raw=b""), Unreachable), (Reply(chunks=[CUT]), BadAnswer),
        (Reply(200, {"content-length": "1000"}, b'{"a": '), BadAnswer),
        (Reply(chunks=[b'{"said": "He', CUT]), BadAnswer),
    ],
)  # fmt: skip
@pytest.mark.parametrize("ask", [whole, stream])
def test_what_passes_is_asked_again_and_told_if_it_stays(
    fake: Vendor, ask: Callable[[Client], Any], reply: Reply, kind: type[BrollyError]
) -> None:
    fake.faults.extend([once(reply)] * 2)
    assert ask(client_of(fake)) in (ANSWER, READ)
    assert len(fake.requests) == 3
    fake.faults.extend([once(reply)] * 3)
    with pytest.raises(kind) as caught:
        ask(client_of(fake))
    assert len(fake.requests) == 6 and type(caught.value) is kind and not fake.faults


@pytest.mark.parametrize("reply", [error(429), error(503), error(529)], ids=lambda r: r.status)
def test_what_was_refused_is_asked_again_even_if_it_must_not_be_done_twice(fake: Vendor, reply: Reply) -> None:
    fake.faults.append(once(reply))
    assert whole(client_of(fake), ONCE) == ANSWER


@pytest.mark.parametrize(
    "reply",
    [error(500), error(502), error(504), error(409), error(400, x_should_retry="true"), Reply(raw=b""),
     Reply(chunks=[CUT]), Reply(chunks=[STALL])],
)  # fmt: skip
def test_what_may_have_been_done_is_not_done_twice(fake: Vendor, reply: Reply) -> None:
    fake.faults.append(once(reply))
    with pytest.raises(BrollyError):
        whole(client_of(fake, silence_seconds=0.2), ONCE)
    assert len(fake.requests) == 1


def test_a_vendor_may_say_that_asking_again_is_no_use(fake: Vendor) -> None:
    fake.faults.append(once(error(500, x_should_retry="false")))
    with pytest.raises(RemoteError):
        whole(client_of(fake))
    assert len(fake.requests) == 1


def test_no_retries_are_none(fake: Vendor) -> None:
    fake.faults.append(once(error(500)))
    with pytest.raises(RemoteError):
        whole(client_of(fake, retries=0))
    assert len(fake.requests) == 1


def test_retry_after_is_waited_for(fake: Vendor) -> None:
    fake.faults.append(once(error(429, retry_after="0.4")))
    begun = time.perf_counter()
    assert whole(client_of(fake)) == ANSWER
    assert 0.4 <= time.perf_counter() - begun < 1.5


@pytest.mark.parametrize(("status", "kind"), [(429, Busy), (529, Overloaded)])
def test_a_long_pause_is_told_at_once_with_its_time(fake: Vendor, status: int, kind: Any) -> None:
    fake.faults.append(once(error(status, retry_after="3600")))
    client = client_of(fake)
    with pytest.raises(kind, match="3600 s") as caught:
        whole(client)
    assert caught.value.retry_after == 3600
    with pytest.raises(Busy) as again:  # who asks next is spared the way
        whole(client_of(fake))
    assert 3500 < again.value.retry_after <= 3600 and len(fake.requests) == 1


def test_a_pause_holds_for_all_of_this_process_and_for_that_model_alone(fake: Vendor) -> None:
    other = Client(parse(f"{fake.url}/v1#model-2"), RemoteOptions())
    fake.faults.append(once(error(429, retry_after="0.5")))

    async def several() -> list[float]:
        begun = time.perf_counter()

        async def timed(client: Client, late: float) -> float:
            await asyncio.sleep(late)
            await client.json(CALL, told)
            return time.perf_counter() - begun

        return await asyncio.gather(timed(client_of(fake), 0), timed(client_of(fake), 0.1), timed(other, 0.1))

    first, second, apart = asyncio.run(several())
    assert first >= 0.5 and second >= 0.5 and apart < 0.4


def test_a_cut_after_the_first_event_is_told_and_not_asked_again(fake: Vendor) -> None:
    fake.faults.append(once(Reply(chunks=[EVENTS[0], 0.05, b"data: {", CUT])))
    got: list[Any] = []

    async def read() -> None:
        async for batch in client_of(fake).events(STREAM, told):
            got.extend(batch)

    with pytest.raises(BadAnswer, match="broke off"):
        asyncio.run(read())
    assert got == READ[:1] and len(fake.requests) == 1


@pytest.mark.parametrize(
    ("chunk", "said"),
    [
        (b"data: {not json}\n\n", "no JSON"),
        (b"data: \xff\n\n", "UTF-8"),
        (b"data: " + b"[" * 200_000 + b"\n\n", "no JSON"),
    ],
)
def test_an_event_that_cannot_be_read_is_a_bad_answer(fake: Vendor, chunk: bytes, said: str) -> None:
    fake.faults.append(once(Reply(chunks=[EVENTS[0], chunk, STALL])))
    with pytest.raises(BadAnswer, match=said):
        stream(client_of(fake))
    fake.until(lambda: fake.left == 1)


def test_a_whole_answer_where_a_stream_was_asked_for_is_told(fake: Vendor) -> None:
    fake.faults.append(once(Reply(body=ANSWER)))
    with pytest.raises(BadAnswer, match="application/json where a stream"):
        stream(client_of(fake))
    fake.faults.append(once(error(200, "context_length_exceeded", "so long")))  # OpenRouter tells errors like this
    with pytest.raises(ContextTooLong, match="so long"):
        stream(client_of(fake))


@pytest.mark.parametrize("chunks", [[STALL], [b'{"a"', STALL]], ids=["at once", "later"])
def test_silence_ends_a_request(fake: Vendor, chunks: list[Any]) -> None:
    fake.faults.append(once(Reply(chunks=chunks)))
    begun = time.perf_counter()
    with pytest.raises(Unreachable, match="silent for 0.2 s"):
        whole(client_of(fake, silence_seconds=0.2, retries=0))
    assert 0.2 <= time.perf_counter() - begun < 1
    fake.until(lambda: fake.left == 1)


def test_silence_counts_from_the_last_byte(fake: Vendor) -> None:
    fake.faults.append(once(Reply(chunks=[part for event in EVENTS for part in (0.15, event)])))
    assert stream(client_of(fake, silence_seconds=0.3)) == READ
    fake.faults.append(once(Reply(chunks=[EVENTS[0], 0.1, EVENTS[1], STALL])))
    with pytest.raises(Unreachable, match="silent"):
        stream(client_of(fake, silence_seconds=0.3))
    assert len(fake.requests) == 2


def test_silence_before_an_answer_is_asked_again_where_that_is_safe(fake: Vendor) -> None:
    fake.faults.append(once(Reply(chunks=[STALL])))
    assert stream(client_of(fake, silence_seconds=0.2)) == READ
    assert len(fake.requests) == 2


def test_nobody_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(Unreachable, match=f"127.0.0.1:{port} was not reached: the connection was refused"):
        whole(Client(parse(f"http://127.0.0.1:{port}/v1#m"), RemoteOptions(retries=1)))
    with pytest.raises(Unreachable, match="name is not known"):
        whole(Client(parse("http://nobody.invalid/v1#m"), RemoteOptions(retries=0)))


def test_a_server_that_comes_late_is_reached_by_a_retry(fake: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST", 1.0)
    monkeypatch.setattr(module.random, "uniform", lambda a, b: b)
    port = fake.port
    fake.__exit__(None)
    late = Vendor()
    late.port = port
    timer = threading.Timer(0.5, late.__enter__)
    timer.start()
    try:
        assert whole(Client(parse(f"http://127.0.0.1:{port}/v1#m"), RemoteOptions())) == ANSWER
    finally:
        timer.join()
        late.__exit__(None)
        fake.__enter__()


def test_a_connection_that_nobody_takes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        port = deaf.getsockname()[1]
        held = [socket.socket() for _ in range(8)]
        for one in held:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        with pytest.raises(Unreachable, match="not reached within 0.3 s"):
            whole(Client(parse(f"http://127.0.0.1:{port}/v1#m"), RemoteOptions(retries=0, connect_seconds=0.3)))
        for one in held:
            one.close()


def test_bodies_are_bounded(fake: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BODY", 1 << 20)
    fake.faults.append(once(Reply(chunks=(b"x" * 65536 for _ in range(10_000)))))
    with pytest.raises(BadAnswer, match="more than 1 MiB"):
        whole(client_of(fake))
    fake.until(lambda: fake.left == 1)


# Connections ----------------------------------------------------------------------------------------------------------


def test_connections_are_used_again_and_closed_with_their_loop(fake: Vendor) -> None:
    async def several() -> None:
        client = client_of(fake)
        for _ in range(5):
            assert await client.json(CALL, told) == ANSWER
            assert [e async for b in client.events(STREAM, told) for e in b] == READ
        assert (fake.connections, fake.open) == (1, 1)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(several())
        gc.collect()
    fake.until(lambda: fake.open == 0)
    assert fake.left == 0


def test_closing_a_client_closes_its_connections_and_it_may_be_used_again(fake: Vendor) -> None:
    client = client_of(fake)
    assert loop.wait(client.json(CALL, told)) == ANSWER
    assert fake.open == 1
    loop.wait(client.aclose())
    fake.until(lambda: fake.open == 0)
    assert whole(client) == ANSWER  # on another loop
    assert loop.wait(client.json(CALL, told)) == ANSWER
    asyncio.run(client.aclose())
    fake.until(lambda: fake.open == 0)


def test_a_forgotten_client_closes_its_connections(fake: Vendor) -> None:
    async def forget() -> None:
        await client_of(fake).json(CALL, told)
        gc.collect()
        await asyncio.sleep(0.1)
        assert fake.open == 0

    asyncio.run(forget())


def test_idle_connections_close_by_themselves(fake: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    from brolly.remote import sockets

    monkeypatch.setattr(sockets, "IDLE", 0.2)

    async def idle() -> None:
        client = client_of(fake)
        await asyncio.gather(*(client.json(CALL, told) for _ in range(5)))
        assert fake.open > 1
        await asyncio.sleep(0.6)
        assert fake.open == 0
        assert await client.json(CALL, told) == ANSWER

    asyncio.run(idle())


def test_a_connection_that_the_vendor_closed_meanwhile_costs_no_try(fake: Vendor) -> None:
    async def twice() -> None:
        client = client_of(fake, retries=0)
        await client.json(CALL, told)
        fake._loop.call_soon_threadsafe(lambda: [line.transport.close() for line in list(fake._lines)])
        await asyncio.sleep(0.05)
        assert await client.json(CALL, told) == ANSWER
        fake.faults.append(once(Reply(raw=b"")))  # closed just as the request came
        assert await client.json(CALL, told) == ANSWER
        fake.faults.append(once(Reply(raw=b"")))
        with pytest.raises(Unreachable, match="closed the connection"):
            await client.json(ONCE, told)

    asyncio.run(twice())


def test_leaving_a_stream_closes_its_connection(fake: Vendor) -> None:
    async def leave() -> None:
        client = client_of(fake)
        fake.faults.append(once(Reply(chunks=[EVENTS[0], STALL])))
        async with aclosing(client.events(STREAM, told)) as events:
            assert await anext(events) == READ[:1]
        await asyncio.to_thread(fake.until, lambda: fake.left == 1 and fake.open == 0)
        assert client.limit.open == 0
        assert [e async for b in client.events(STREAM, told) for e in b] == READ

    asyncio.run(leave())


@pytest.mark.parametrize("chunks", [[STALL], [EVENTS[0], STALL]], ids=["before", "within"])
@pytest.mark.parametrize("ask", ["json", "events"])
def test_cancelling_closes_the_connection(fake: Vendor, chunks: list[Any], ask: str) -> None:
    async def cancel() -> None:
        client = client_of(fake)
        fake.faults.append(once(Reply(chunks=chunks)))

        async def read() -> None:
            if ask == "json":
                await client.json(CALL, told)
            async for _ in client.events(STREAM, told):
                pass

        task = asyncio.create_task(read())
        await asyncio.to_thread(fake.until, lambda: bool(fake.requests))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(fake.until, lambda: fake.left == 1 and fake.open == 0)
        assert client.limit.open == 0

    asyncio.run(cancel())


def test_sockets_do_not_leak_whatever_happens(fake: Vendor) -> None:
    faults = [
        Reply(raw=b""),
        Reply(chunks=[CUT]),
        error(400),
        Reply(chunks=[EVENTS[0], CUT]),
        error(500),
        Reply(raw=b"x\n\n"),
    ]

    async def mix() -> None:
        client = client_of(fake, retries=0, silence_seconds=0.2)
        for _ in range(5):
            fake.faults.extend(once(one) for one in faults)
            for _ in faults:
                with pytest.raises(BrollyError):
                    await client.json(CALL, told)
        assert await client.json(CALL, told) == ANSWER
        assert fake.open == 1 and client.limit.open == 0
        (lines,) = client._lines.values()
        assert len(lines._open) == 1

    asyncio.run(mix())
    fake.until(lambda: fake.open == 0)


# Limits ---------------------------------------------------------------------------------------------------------------


def test_concurrency_is_bounded_over_all_clients_of_a_vendor(fake: Vendor) -> None:
    open_ = most = 0

    class Counting(Vendor):
        def answer(self, request: Request) -> Reply:
            async def slowly() -> Any:
                nonlocal open_, most
                open_ += 1
                most = max(most, open_)
                yield 0.05
                open_ -= 1
                yield b"{}"

            return Reply(chunks=slowly())

    async def several(fake: Fake) -> None:
        clients = [client_of(fake, concurrency=3) for _ in range(4)]
        await asyncio.gather(*(client.json(CALL, told) for client in clients for _ in range(4)))

    with Counting() as slow:
        threads = [threading.Thread(target=lambda: asyncio.run(several(slow))) for _ in range(2)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        assert most == 3 and len(slow.requests) == 32 and client_of(slow).limit.open == 0


def test_who_waits_too_long_for_a_place_is_told(fake: Vendor) -> None:
    async def two() -> None:
        client = client_of(fake, concurrency=1, silence_seconds=0.2)
        fake.faults.append(once(Reply(chunks=[part for event in EVENTS for part in (event, 0.15)])))

        async def read() -> Any:
            return [e async for b in client.events(STREAM, told) for e in b]

        first = asyncio.create_task(read())
        await asyncio.sleep(0.05)
        with pytest.raises(Busy, match="1 requests are open"):
            await client.json(CALL, told)
        assert await first == READ
        assert await client.json(CALL, told) == ANSWER

    asyncio.run(two())


def test_who_stops_waiting_for_a_place_leaves_it_to_the_next(fake: Vendor) -> None:
    async def three() -> None:
        client = client_of(fake, concurrency=1)
        fake.faults.append(once(Reply(chunks=[0.2, b"{}"])))
        tasks = [asyncio.create_task(client.json(CALL, told)) for _ in range(3)]
        await asyncio.sleep(0.05)
        tasks[1].cancel()
        assert await tasks[0] == {} and await tasks[2] == ANSWER
        assert client.limit.open == 0

    asyncio.run(three())


def test_requests_begin_at_the_rate_that_is_asked_for(fake: Vendor) -> None:
    async def several() -> float:
        client = client_of(fake, rate=1200)  # 20 a second, so many at once, too
        begun = time.perf_counter()
        await asyncio.gather(*(client.json(CALL, told) for _ in range(30)))
        return time.perf_counter() - begun

    assert 0.4 <= asyncio.run(several()) < 1.5


def test_a_thousand_streams_run_through_one_loop() -> None:
    class Many(Vendor):
        def answer(self, request: Request) -> Reply:
            return Reply(chunks=[EVENTS[0], 0.3, *EVENTS[1:]])

    async def all_(fake: Fake) -> None:
        client = client_of(fake)

        async def read() -> list[Any]:
            return [e async for b in client.events(STREAM, told) for e in b]

        found = await asyncio.gather(*(read() for _ in range(1000)))
        assert all(one == READ for one in found)

    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 4096:
        if hard != resource.RLIM_INFINITY and hard < 4096:
            pytest.skip(f"this machine allows {hard} open files")
        resource.setrlimit(resource.RLIMIT_NOFILE, (4096, hard))
    try:
        with Many() as fake:
            asyncio.run(all_(fake))
            assert fake.connections <= 1000
            fake.until(lambda: fake.open == 0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# Keys -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vendor", "variable", "address", "header", "value"),
    [
        ("openai", "OPENAI_API_KEY", "OPENAI_BASE_URL", "authorization", f"Bearer {KEY}"),
        ("anthropic", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "x-api-key", KEY),
        ("gemini", "GEMINI_API_KEY", "GEMINI_BASE_URL", "x-goog-api-key", KEY),
    ],
)
def test_a_key_goes_where_the_vendor_wants_it(
    fake: Vendor, monkeypatch: pytest.MonkeyPatch, vendor: str, variable: str, address: str, header: str, value: str
) -> None:
    monkeypatch.setenv(address, f"{fake.url}/v1")
    monkeypatch.setenv(variable, KEY)
    client = Client(parse(f"{vendor}:m"), RemoteOptions())
    assert whole(client) == ANSWER
    assert fake.requests[0].headers[header] == value
    assert [name for name, sent in fake.requests[0].headers.items() if KEY in sent] == [header]
    for name, sent in client.target.vendor.headers.items():
        assert fake.requests[0].headers[name] == sent


def test_no_key_where_one_is_needed_names_what_to_set(fake: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    monkeypatch.setattr("brolly.remote.keys._read", lambda user: None)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", fake.url)
    client = Client(parse("anthropic:m"), RemoteOptions())
    with pytest.raises(KeyRefused, match="ANTHROPIC_API_KEY.*`brolly keys set anthropic`"):
        whole(client)
    assert not fake.requests
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    with pytest.raises(NotFound):  # the fake's root has no such route; what counts is that it was asked
        whole(client, Call("/other", {}))
    assert fake.requests[0].headers["x-api-key"] == KEY


def test_a_key_that_was_refused_is_looked_for_anew(fake: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", f"{fake.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-old")
    client = Client(parse("openai:m"), RemoteOptions())
    fake.faults.append(once(error(401, "invalid_api_key")))
    with pytest.raises(KeyRefused, match="OPENAI_API_KEY"):
        whole(client)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert whole(client) == ANSWER
    assert fake.requests[-1].headers["authorization"] == f"Bearer {KEY}"


def test_a_key_does_not_follow_a_redirect(fake: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", f"{fake.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with Vendor() as other:
        fake.faults.append(once(Reply(307, {"location": f"{other.url}/v1/whole"})))
        with pytest.raises(BadAnswer, match=str(other.port)):
            whole(Client(parse("openai:m"), RemoteOptions()))
        assert not other.requests


# Proxies and authorities ----------------------------------------------------------------------------------------------


class Proxy(Fake):
    """Reads requests and passes none on; tunnels where it is told to (to itself, for want of others)."""

    def answer(self, request: Request) -> Reply:
        return Reply(body={"asked": request.target, "key": request.headers.get("authorization")})


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_proxy_is_asked_for_http(fake: Vendor, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with Proxy() as proxy:
        monkeypatch.setenv(name, f"http://user:pass%20word@127.0.0.1:{proxy.port}")
        found = whole(client_of(fake), Call("/whole", {}, query={"a": "1"}))
        assert found["asked"] == f"{fake.url}/v1/whole?a=1" and not fake.requests
        assert proxy.requests[0].headers["proxy-authorization"] == "Basic dXNlcjpwYXNzIHdvcmQ="
        assert proxy.requests[0].headers["host"] == f"127.0.0.1:{fake.port}"
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert whole(client_of(fake)) == ANSWER


def test_a_proxy_that_cannot_be_is_told_without_its_password(fake: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "socks5://user:secret@127.0.0.1:1")
    with pytest.raises(OptionError, match="HTTP_PROXY says '127.0.0.1:1'") as caught:
        whole(client_of(fake))
    assert "secret" not in str(caught.value)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("HTTP_PROXY", f"http://user:secret@127.0.0.1:{port}")
    with pytest.raises(Unreachable, match=f"through the proxy at 127.0.0.1:{port}") as unreached:
        whole(client_of(fake, retries=0))
    assert "secret" not in str(unreached.value)


class Tunnel:
    """A proxy that takes CONNECT."""

    def __init__(self, status: bytes = b"200 Connection established") -> None:
        self.status, self.heads = status, []
        self.heads: list[bytes]

    def __enter__(self) -> Tunnel:
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()

        def live() -> None:
            self._server = self._loop.run_until_complete(asyncio.start_server(self._take, "127.0.0.1", 0))
            self.port = self._server.sockets[0].getsockname()[1]
            ready.set()
            self._loop.run_forever()
            self._server.close()
            self._loop.run_until_complete(asyncio.sleep(0))
            self._loop.close()

        self._thread = threading.Thread(target=live, daemon=True)
        self._thread.start()
        assert ready.wait(5)
        return self

    def __exit__(self, *_: Any) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        writer.write(b"HTTP/1.1 " + self.status + b"\r\n\r\n")
        if not self.status.startswith(b"200"):
            writer.close()
            return
        host, _, port = head.split()[1].decode().rpartition(":")
        there, back = await asyncio.open_connection(host, int(port))

        async def pass_on(a: asyncio.StreamReader, b: asyncio.StreamWriter) -> None:
            while data := await a.read(65536):
                b.write(data)
            b.close()

        await asyncio.gather(pass_on(reader, back), pass_on(there, writer), return_exceptions=True)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of our own making for 127.0.0.1, with its key, in one file."""
    x509 = pytest.importorskip("cryptography.x509")
    import datetime
    import ipaddress

    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "own.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture
def secure(certificate: Path) -> Iterator[Vendor]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with Vendor(context=context) as made:
        yield made


def test_an_authority_of_ones_own_is_trusted_by_its_file_and_no_other(
    secure: Vendor, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Unreachable, match="certificate is not trusted here .*SSL_CERT_FILE"):
        whole(client_of(secure))
    assert not secure.requests
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert whole(client_of(secure)) == ANSWER
    assert stream(client_of(secure)) == READ
    secure.until(lambda: secure.open == 0)


def test_an_authority_that_cannot_be_read_is_told(secure: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/own.pem")
    with pytest.raises(OptionError, match="/nowhere/own.pem"):
        whole(client_of(secure))


def test_a_tunnel_leads_through_a_proxy(secure: Vendor, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with Tunnel() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:word@127.0.0.1:{proxy.port}")
        client = client_of(secure)

        async def several() -> None:
            assert await client.json(CALL, told) == ANSWER
            assert [e async for b in client.events(STREAM, told) for e in b] == READ

        asyncio.run(several())
        (head,) = proxy.heads  # one connection served both
        assert head.startswith(f"CONNECT 127.0.0.1:{secure.port} HTTP/1.1\r\n".encode())
        assert b"proxy-authorization: basic dxnlcjp3b3jk" in head.lower()
        assert "proxy-authorization" not in secure.requests[0].headers
    with Tunnel(b"407 Proxy Authentication Required") as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        with pytest.raises(Unreachable, match=f"through the proxy at 127.0.0.1:{proxy.port}, which answered 407"):
            whole(client_of(secure))


def test_leaving_a_stream_closes_an_encrypted_connection_too(
    secure: Vendor, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    async def leave() -> None:
        secure.faults.append(once(Reply(chunks=[EVENTS[0], STALL])))
        async with aclosing(client_of(secure).events(STREAM, told)) as events:
            assert await anext(events) == READ[:1]
        await asyncio.to_thread(secure.until, lambda: secure.left == 1 and secure.open == 0)

    asyncio.run(leave())


def test_the_servers_own_kind_of_loop_does_as_well(
    fake: Vendor, secure: Vendor, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uvloop = pytest.importorskip("uvloop")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    async def both() -> None:
        for server in (fake, secure):
            client = client_of(server, silence_seconds=0.3, retries=0)
            assert await client.json(CALL, told) == ANSWER
            assert [e async for b in client.events(STREAM, told) for e in b] == READ
            server.faults.append(once(Reply(chunks=[EVENTS[0], STALL])))
            with pytest.raises(Unreachable, match="silent"):
                async for _ in client.events(STREAM, told):
                    pass
            await asyncio.to_thread(server.until, lambda at=server: at.left == 1 and at.open == 0)  # type: ignore[misc]

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(both())


def test_what_does_not_speak_tls_is_told() -> None:
    def answer(listening: socket.socket) -> None:
        line, _ = listening.accept()
        line.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        line.recv(65536)
        line.close()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=answer, args=(listening,))
        thread.start()
        port = listening.getsockname()[1]
        with pytest.raises(Unreachable, match="does not speak TLS"):
            whole(Client(parse(f"https://127.0.0.1:{port}/v1#m"), RemoteOptions(retries=0)))
        thread.join()
    assert trust() is trust()


# The loop of callers that have none -----------------------------------------------------------------------------------


def test_a_forked_child_begins_a_loop_of_its_own(fake: Vendor) -> None:
    code = (
        "import os, sys\nfrom brolly.remote import loop\n"
        "async def one():\n    return 1\n"
        "assert loop.wait(one()) == 1\npid = os.fork()\n"
        "if pid == 0:\n    os._exit(0 if loop.wait(one()) == 1 else 1)\n"
        "sys.exit(os.waitpid(pid, 0)[1])\n"
    )
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], timeout=20).returncode == 0
