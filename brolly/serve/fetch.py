"""What a request points at, a data: or an http(s) URL → bytes, without letting a stranger look into our network (SSRF).

A host must be allowed by name, every address that it resolves to must be public, and the connection goes to an address
that was checked, so that a second answer of the name server changes nothing. Each redirect passes the same gate. The
environment's proxies are not used: they would resolve the name again.
"""

from __future__ import annotations

import asyncio
import binascii
import re
import socket
import ssl
from base64 import b64decode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any
from urllib.parse import SplitResult, unquote_to_bytes, urljoin, urlsplit

import h11

from brolly import __version__
from brolly.serve.errors import Refused
from brolly.serve.settings import Settings

Address = IPv4Address | IPv6Address
PORTS = {"http": 80, "https": 443}
REDIRECTS = (301, 302, 303, 307, 308)
LONGEST_URL = 8192
# Public by the registries, and still not for us: Azure's own services, relays of 6to4, Teredo and 6to4 (which carry an
# IPv4 address inside), documentation and NAT64's local prefix.
NOT_PUBLIC = tuple(
    map(ip_network, ("168.63.129.16/32", "192.88.99.0/24", "2001::/23", "2002::/16", "3fff::/20", "64:ff9b:1::/48"))
)
NAT64 = ip_network("64:ff9b::/96")
GLOBAL_UNICAST = ip_network("2000::/3")


def is_public(address: Address) -> bool:
    """Whether an address is a stranger's on the internet: not private, loopback, link-local, multicast or reserved."""
    if any(address.version == net.version and address in net for net in NOT_PUBLIC):
        return False
    if isinstance(address, IPv6Address):
        if address in NAT64:
            return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
        return address in GLOBAL_UNICAST and address.is_global  # leaves out mapped and compatible IPv4 as well
    return address.is_global and not (address.is_multicast or address.is_reserved)


async def resolved(host: str, port: int) -> list[str]:
    """Every address of a host."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(row[4][0]) for row in found]


@dataclass(frozen=True)
class Fetcher:
    """How URLs are fetched. `hosts` are names, "name:port" beyond 80 and 443, or "*" for any public one."""

    hosts: tuple[str, ...]
    limit: int  # bytes
    seconds: float = 30.0  # for all of it, redirects included
    hops: int = 4
    resolve: Callable[[str, int], Awaitable[list[str]]] = resolved
    allows: Callable[[Address], bool] = is_public
    connect: Callable[..., Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]] = asyncio.open_connection

    async def get(self, url: str) -> bytes:
        """The body of an http or https URL. Raises Refused."""
        try:
            async with asyncio.timeout(self.seconds):
                for _ in range(self.hops + 1):
                    status, headers, body = await self._one(url)
                    if status in REDIRECTS and "location" in headers:
                        url = urljoin(url, headers["location"])
                        continue
                    if status != 200:
                        raise refused(f"{shown(url)} answered {status}; expected 200.")
                    return body
        except TimeoutError:
            raise refused(f"{shown(url)} took longer than {self.seconds:g} s; send the data itself.") from None
        except (OSError, h11.ProtocolError, ssl.SSLError, asyncio.IncompleteReadError) as error:
            raise refused(f"{shown(url)} could not be fetched ({type(error).__name__}).") from None
        raise refused(f"{shown(url)} is redirected more than {self.hops} times.")

    async def _one(self, url: str) -> tuple[int, dict[str, str], bytes]:
        """One exchange, with the address that was checked. The status, the headers, and the body of a 200."""
        parts, host, port = self._allowed(url)
        address = await self._checked(host, port)
        tls: dict[str, Any] = {}
        if parts.scheme == "https":
            tls = {"ssl": ssl.create_default_context(), "server_hostname": host}
        reader, writer = await self.connect(address, port, **tls)
        try:
            name = f"[{host}]" if ":" in host else host
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            wire = h11.Connection(h11.CLIENT)
            head = [
                ("Host", name if port == PORTS[parts.scheme] else f"{name}:{port}"), ("Accept", "*/*"),
                ("Accept-Encoding", "identity"), ("User-Agent", f"brolly/{__version__}"), ("Connection", "close"),
            ]  # fmt: skip
            for event in (h11.Request(method="GET", target=quoted(target), headers=head), h11.EndOfMessage()):
                writer.write(wire.send(event) or b"")
            await writer.drain()
            return await self._answer(wire, reader, url)
        finally:
            writer.close()

    async def _answer(
        self, wire: h11.Connection, reader: asyncio.StreamReader, url: str
    ) -> tuple[int, dict[str, str], bytes]:  # fmt: skip
        status, headers, body = 0, {}, bytearray()
        while True:
            event = wire.next_event()
            if event is h11.NEED_DATA:
                wire.receive_data(await reader.read(1 << 16))
            elif isinstance(event, h11.Response):
                status = event.status_code
                headers = {name.decode().lower(): value.decode("latin-1") for name, value in event.headers}
                if status != 200:
                    return status, headers, b""  # nobody reads it
                if headers.get("content-encoding", "identity") != "identity":
                    raise refused(f"{shown(url)} is sent compressed, which was not asked for.")
                told = headers.get("content-length", "0")
                if told.isdigit() and int(told) > self.limit:
                    raise self._too_large(url)
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > self.limit:
                    raise self._too_large(url)
            elif isinstance(event, h11.EndOfMessage):
                return status, headers, bytes(body)
            elif isinstance(event, h11.ConnectionClosed):
                raise refused(f"{shown(url)} ended before its answer did.")

    def _too_large(self, url: str) -> Refused:
        return refused(f"{shown(url)} has more than the {self.limit:,} bytes that are allowed.", 413)

    def _allowed(self, url: str) -> tuple[SplitResult, str, int]:
        """A URL taken apart, its host's name and its port, if both may be asked."""
        if len(url) > LONGEST_URL or re.search(r"[\x00-\x20\x7f\\]", url):
            raise refused(f"{shown(url)} is no URL: it is too long or holds spaces, backslashes or control characters.")
        try:
            parts = urlsplit(url)
            host = (parts.hostname or "").rstrip(".").encode("idna").decode().lower()
            port = parts.port or PORTS.get(parts.scheme, 0)
        except ValueError:
            raise refused(f"{shown(url)} is no URL that can be read.") from None
        if parts.scheme not in PORTS or not host or parts.username is not None or "%" in host:
            raise refused(f"{shown(url)} cannot be fetched; expected http:// or https:// and a host, without a user.")
        usual = port in PORTS.values()
        if not (f"{host}:{port}" in self.hosts or (usual and (host in self.hosts or "*" in self.hosts))):
            raise refused(
                f"this server fetches nothing from {host}{'' if usual else f':{port}'}; send the data itself, or have "
                "it started with --fetch and this host."
            )
        return parts, host, port

    async def _checked(self, host: str, port: int) -> str:
        """An address of the host, if every one is allowed."""
        try:
            found = [ip_address(text) for text in await self.resolve(host, port)]
        except ValueError:  # a zone: fe80::1%eth0
            found = []
        if not found or not all(map(self.allows, found)):
            raise refused(f"{host} has no address, or one that is not public; this server does not go there.")
        return str(found[0])


def refused(message: str, status: int = 400) -> Refused:
    return Refused(message, status, code="invalid_url" if status == 400 else "file_too_large")


def shown(url: str) -> str:
    """A URL as errors tell it: what may be secret, its query, is left out."""
    return repr(url.partition("?")[0][:100])


def quoted(target: str) -> bytes:
    """A path and query as it may travel: characters beyond ASCII percent-encoded, the rest as it is."""
    return "".join(c if c.isascii() else "".join(f"%{b:02X}" for b in c.encode()) for c in target).encode()


def decoded(url: str, limit: int) -> bytes:
    """The bytes of a data: URL (RFC 2397). Raises Refused."""
    head, comma, body = url.partition(",")
    if not comma:
        raise refused("a data: URL has no comma; expected data:TYPE;base64,DATA.")
    if len(body) > 4 * limit:
        raise refused(f"a data: URL has more than the {limit:,} bytes that are allowed.", 413)
    try:
        if head.lower().endswith(";base64"):
            text = b"".join(unquote_to_bytes(body).split())
            data = b64decode(text + b"=" * (-len(text) % 4), validate=True)
        else:
            data = unquote_to_bytes(body)
    except (binascii.Error, ValueError):
        raise refused("a data: URL is no base64 that can be read; expected data:TYPE;base64,DATA.") from None
    if len(data) > limit:
        raise refused(f"a data: URL has more than the {limit:,} bytes that are allowed.", 413)
    return data


async def content(url: str, settings: Settings, limit: int | None = None) -> bytes:
    """The bytes that a URL in a request stands for: of data: its own, of http(s) what is fetched. Raises Refused."""
    limit = settings.body_bytes if limit is None else limit
    if url[:5].lower() == "data:":
        return await asyncio.to_thread(decoded, url, limit)
    return await Fetcher(settings.fetch, limit).get(url)
