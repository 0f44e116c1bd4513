"""URLs in requests: fetched from public addresses of allowed hosts alone, whatever names, redirects and servers try."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

pytest.importorskip("fastapi")

from brolly.serve.errors import Refused  # noqa: E402
from brolly.serve.fetch import Fetcher, content, decoded, is_public  # noqa: E402
from brolly.serve.settings import Settings  # noqa: E402

PUBLIC = ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "64:ff9b::808:808"]
PRIVATE = """
    127.0.0.1 127.9.9.9 0.0.0.0 10.1.2.3 172.16.0.1 192.168.1.1 169.254.169.254 100.64.0.1 100.100.100.200 192.0.0.1
    192.0.2.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1 239.1.1.1 240.0.0.1 255.255.255.255 168.63.129.16
    192.88.99.1 ::1 :: fe80::1 fc00::1 fd00:ec2::254 ff02::1 2001:db8::1 3fff::1 ::ffff:127.0.0.1 ::ffff:8.8.8.8
    ::127.0.0.1 64:ff9b::7f00:1 64:ff9b::a00:1 64:ff9b:1::808:808 2002:7f00:1:: 2002:808:808:: 2001:0:1:: 100::1
"""


@pytest.mark.parametrize("address", PUBLIC)
def test_a_stranger_on_the_internet_is_public(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize("address", PRIVATE.split())
def test_what_is_ours_reserved_or_carries_another_address_is_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


def names(**addresses: str) -> Callable[[str, int], Awaitable[list[str]]]:
    """A name server that knows `a_b="1.2.3.4 ::1"` as a.b."""

    async def resolve(host: str, port: int) -> list[str]:
        return addresses[host.replace(".", "_")].split()

    return resolve


async def unreachable(*_: Any, **__: Any) -> Any:
    raise AssertionError("nothing may be connected to")


def refusal(fetcher: Fetcher, url: str) -> Refused:
    with pytest.raises(Refused) as caught:
        asyncio.run(fetcher.get(url))
    return caught.value


def answer(body: bytes = b"picture", status: str = "200 OK", *headers: str) -> bytes:
    head = [f"HTTP/1.1 {status}", *(headers or [f"Content-Length: {len(body)}"])]
    return "\r\n".join([*head, "", ""]).encode() + body


def visit(
    answers: dict[str, bytes], path: str = "/", *, host: str = "pictures.example", wait: float = 0.0, **changes: Any
) -> tuple[bytes, list[bytes]]:  # fmt: skip
    """Fetch `path` of a server here that gives these answers; the body, and the heads of the requests that came."""
    came: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        came.append(head)
        await asyncio.sleep(wait)
        writer.write(answers[head.split()[1].decode()])
        await writer.drain()
        writer.close()

    async def go() -> bytes:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            for key, said in answers.items():
                answers[key] = said.replace(b"PORT", str(port).encode())
            fetcher = Fetcher((f"{host}:{port}", f"inside.example:{port}"), 1000, seconds=5)
            resolve = names(pictures_example="127.0.0.1", inside_example="10.0.0.5")
            here = replace(fetcher, resolve=resolve, allows=lambda a: str(a) == "127.0.0.1")
            return await replace(here, **changes).get(f"http://{host}:{port}{path}")

    return asyncio.run(go()), came


def test_a_body_comes_from_the_address_that_was_checked_under_the_name_that_was_asked_for() -> None:
    body, [head] = visit({"/a%20b?x=1": answer()}, "/a%20b?x=1")
    assert body == b"picture"
    assert b"Host: pictures.example:" in head and b"Accept-Encoding: identity" in head


def test_a_chunked_body_comes_whole() -> None:
    chunked = b"3\r\npic\r\n4\r\nture\r\n0\r\n\r\n"
    assert visit({"/": answer(chunked, "200 OK", "Transfer-Encoding: chunked")})[0] == b"picture"


def test_a_redirect_to_an_allowed_host_is_followed() -> None:
    there = answer(b"", "302 Found", "Location: /b", "Content-Length: 0")
    assert visit({"/": there, "/b": answer(b"two")})[0] == b"two"


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("http://inside.example:PORT/", "not public"),
        ("http://169.254.169.254/latest/meta-data", "fetches nothing from 169.254.169.254"),
        ("http://pictures.example:22/", "fetches nothing"),
        ("file:///etc/passwd", "expected http"),
        ("gopher://pictures.example/", "expected http"),
        ("/", "more than 4 times"),
    ],
)
def test_a_redirect_passes_the_same_gate(where: str, why: str) -> None:
    with pytest.raises(Refused, match=why):
        visit({"/": answer(b"", "302 Found", f"Location: {where}", "Content-Length: 0")})


def test_the_name_server_is_asked_once_and_its_answer_is_where_we_go() -> None:
    """DNS rebinding: the second answer would lead inside."""
    asked, gone = [], []

    async def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["8.8.8.8"] if len(asked) == 1 else ["127.0.0.1"]

    async def connect(address: str, port: int, **tls: Any) -> Any:
        gone.append((address, port, tls.get("server_hostname"), tls["ssl"].check_hostname))
        raise OSError("enough seen")

    found = refusal(Fetcher(("pictures.example",), 10, resolve=rebinding, connect=connect), "https://pictures.example/")
    assert "could not be fetched" in str(found)
    assert asked == ["pictures.example"] and gone == [("8.8.8.8", 443, "pictures.example", True)]


@pytest.mark.parametrize("addresses", ["127.0.0.1", "8.8.8.8 10.0.0.1", "::ffff:127.0.0.1", "fe80::1%eth0", ""])
def test_one_address_inside_is_enough_to_refuse_a_host(addresses: str) -> None:
    fetcher = Fetcher(("*",), 10, resolve=names(pictures_example=addresses), connect=unreachable)
    assert "not public" in str(refusal(fetcher, "http://pictures.example/"))


SPELLINGS = "127.0.0.1 localhost 2130706433 0x7f.1 0177.0.0.1 127.1 [::1] [::ffff:127.0.0.1] 0 [::]"


@pytest.mark.parametrize("host", SPELLINGS.split())
def test_every_spelling_of_this_machine_is_refused(host: str) -> None:
    """By the machine's own resolver: what it does not read as a number has no address."""
    found = refusal(Fetcher(("*",), 10, connect=unreachable), f"http://{host}/")
    assert found.status == 400


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://user:secret@pictures.example/", "without a user"),
        ("http://pictures.example:8080/", "fetches nothing"),
        ("http://other.example/", "fetches nothing from other.example"),
        ("http://pictures.example.other.example/", "fetches nothing"),
        ("http://pictures.example\\@other.example/", "backslashes"),
        ("http://pictures.example/\r\nX: y", "control characters"),
        ("http://pictures.example:99999/", "no URL"),
        ("http://[::1/", "no URL"),
        ("http://" + "a" * 9000, "too long"),
        ("ftp://pictures.example/", "expected http"),
        ("//pictures.example/", "expected http"),
        ("pictures.example", "expected http"),
    ],
)
def test_what_is_not_allowed_is_refused_before_any_name_is_asked_for(url: str, why: str) -> None:
    found = refusal(Fetcher(("pictures.example",), 10, resolve=unreachable, connect=unreachable), url)
    assert why in str(found) and "secret" not in str(found).replace(url, "")


def test_a_body_beyond_the_limit_is_refused_by_its_length_and_by_its_bytes() -> None:
    said = answer(b"x" * 2000)
    endless = answer(b"x" * 2000, "200 OK", "Connection: close")
    for one in (said, endless):
        with pytest.raises(Refused, match="more than the 1,000 bytes") as caught:
            visit({"/": one})
        assert caught.value.status == 413


def test_a_slow_server_is_left() -> None:
    with pytest.raises(Refused, match="took longer than 0.05 s"):
        visit({"/": answer()}, wait=0.5, seconds=0.05)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (answer(b"", "404 Not Found"), "answered 404"),
        (answer(b"pic", "200 OK", "Content-Length: 7"), "could not be fetched"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "could not be fetched"),
        (answer(b"x", "200 OK", "Content-Encoding: gzip", "Content-Length: 1"), "compressed"),
        (b"", "could not be fetched"),
    ],
)
def test_an_answer_that_is_none_is_told_as_one_error(said: bytes, why: str) -> None:
    with pytest.raises(Refused, match=why):
        visit({"/": said})


def test_errors_keep_what_stands_in_the_query() -> None:
    with pytest.raises(Refused) as caught:
        visit({"/?token=hush": answer(b"", "403 Forbidden")}, "/?token=hush")
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "data"),
    [
        ("data:image/png;base64,aGVsbG8=", b"hello"), ("data:;base64,aGVs%0AbG8%3D", b"hello"),
        ("DATA:image/png;BASE64,aGVsbG8", b"hello"), ("data:text/plain,a%20b", b"a b"), ("data:,", b""),
    ],
)  # fmt: skip
def test_data_urls_are_their_own_bytes(url: str, data: bytes) -> None:
    assert decoded(url, 10) == data


@pytest.mark.parametrize("url", ["data:image/png;base64", "data:;base64,a", "data:;base64,§§§§"])
def test_broken_data_urls_are_told(url: str) -> None:
    with pytest.raises(Refused, match="data: URL"):
        decoded(url, 10)


def test_a_data_url_is_bounded_before_and_after_it_is_decoded() -> None:
    for url in ("data:,abcdefghijk", "data:," + "%41" * 11, "data:;base64," + "QUFB" * 4):
        with pytest.raises(Refused, match="more than the 10 bytes"):
            decoded(url, 10)


def test_nothing_is_fetched_unless_the_settings_allow_it() -> None:
    with pytest.raises(Refused, match="--fetch"):
        asyncio.run(content("http://pictures.example/", Settings()))
    assert asyncio.run(content("data:,ok", Settings())) == b"ok"
