"""The client against a server that does whatever networks and vendors do: the one right error, or a retry."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable
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
from brolly.remote import parse
from brolly.remote.client import Client
from brolly.remote.dialect import Call
from brolly.verbs import RemoteOptions
from tests.remote import asking
from tests.remote.asking import (
    ANSWER,
    CALL,
    EVENTS,
    ONCE,
    READ,
    STREAM,
    Vendor,
    client_of,
    error,
    once,
    stream,
    told,
    whole,
)
from tests.remote.fakes import CUT, KEY, STALL, Fake, Reply, Request

fake, quick = asking.fake, asking.quick  # fixtures


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
    chunks = [EVENTS[0], 0.4, EVENTS[1] + EVENTS[2], 0.4, EVENTS[3]]
    fake.faults.append(once(Reply(chunks=chunks)))

    async def read() -> list[tuple[int, float]]:
        begun = time.perf_counter()
        return [(len(batch), time.perf_counter() - begun) async for batch in client_of(fake).events(STREAM, told)]

    (a, first), (b, _), (c, third) = asyncio.run(read())
    assert (a, b, c) == (1, 2, 1) and third - first > 0.4


@pytest.mark.parametrize("rest", [[STALL], [0.05, b"data: {}\n\n"], [CUT]], ids=["stalled", "more", "cut"])
def test_done_ends_a_stream_whatever_follows(fake: Vendor, rest: list[Any]) -> None:
    fake.faults.append(once(Reply(chunks=[*EVENTS, *rest])))
    begun = time.perf_counter()
    assert stream(client_of(fake)) == READ
    assert time.perf_counter() - begun < 30  # not as long as it may be silent


@pytest.mark.parametrize(
    "bad",
    [{"a": "\ud800"}, {"a": float("nan")}, {"a": {1, 2}}, {"a": object()}],
    ids=["surrogate", "nan", "set", "object"],  # an object's own words differ from process to process
)
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


@pytest.mark.parametrize("server", ["slow", "deaf", "early"])
def test_a_slow_upload_is_no_silence(server: str) -> None:
    def serve(listening: socket.socket) -> None:
        line, _ = listening.accept()
        left = len(body)
        if server == "early":  # it answers when it has seen the head, and reads no more
            line.recv(4096)
            line.sendall(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\n{}")
        while left > 0 and server == "slow":
            time.sleep(0.005)
            came = len(line.recv(512 << 10))
            left = left - came if came else 0
        if server == "slow":
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
            if server != "slow":
                kind, said = (Unreachable, "silent for 0.8 s") if server == "deaf" else (OptionError, "413")
                with pytest.raises(kind, match=said):
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
        (error(503), Overloaded), (error(500), RemoteError), (error(502), Unreachable),
        (error(522), Unreachable), (error(504), Unreachable),
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
    assert 0.4 <= time.perf_counter() - begun < 30


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
    assert first >= 0.5 and second >= 0.5 and apart < min(first, second)


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
    assert 0.2 <= time.perf_counter() - begun < 30
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

    assert 0.4 <= asyncio.run(several()) < 30


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
