"""Connections, keys, proxies and authorities of the client."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, aclosing
from pathlib import Path
from typing import Any

import pytest

from brolly.errors import (
    BadAnswer,
    BrollyError,
    KeyRefused,
    NotFound,
    OptionError,
    Unreachable,
)
from brolly.remote import loop, parse
from brolly.remote.client import Client
from brolly.remote.dialect import Call
from brolly.remote.proxies import trust
from brolly.remote.sockets import Way, connect
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

    def __init__(self, status: bytes = b"200 Connection established", context: ssl.SSLContext | None = None) -> None:
        self.status, self.context, self.heads = status, context, []
        self.heads: list[bytes]

    def __enter__(self) -> Tunnel:
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()

        def live() -> None:
            self._server = self._loop.run_until_complete(
                asyncio.start_server(self._take, "127.0.0.1", 0, ssl=self.context)
            )
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


@pytest.mark.parametrize("loop_", ["asyncio", "uvloop"])
def test_the_proxy_itself_may_be_encrypted(
    secure: Vendor, certificate: Path, monkeypatch: pytest.MonkeyPatch, loop_: str
) -> None:
    new_event_loop = pytest.importorskip(loop_).new_event_loop
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    async def ask() -> None:
        client = client_of(secure)
        assert await client.json(CALL, told) == ANSWER
        assert [e async for b in client.events(STREAM, told) for e in b] == READ

    with Tunnel(context=secure.context) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"https://127.0.0.1:{proxy.port}")
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(ask())
        assert len(proxy.heads) == 1


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


@pytest.mark.parametrize("loop_", ["asyncio", "uvloop"])
def test_the_next_of_a_names_addresses_is_tried_where_one_does_not_answer(loop_: str) -> None:
    module = pytest.importorskip(loop_)

    class Loop(getattr(module, "SelectorEventLoop", None) or module.Loop):  # type: ignore[misc]
        async def getaddrinfo(self, host: str, port: int, **_: Any) -> list[Any]:
            several = ("127.0.0.2", "127.0.0.1") if host == "two.test" else (host,)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (at, port)) for at in several]

    with socket.create_server(("127.0.0.2", 0), backlog=0) as hole, ExitStack() as full:
        port = hole.getsockname()[1]
        for _ in range(3):  # who comes now waits for ever
            waiting = full.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.2", port))
        with socket.create_server(("127.0.0.1", port)), asyncio.Runner(loop_factory=Loop) as runner:
            line = runner.run(connect(Way("two.test", port), 10.0))
            assert line._transport.get_extra_info("peername")[0] == "127.0.0.1"
            line.close()


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
