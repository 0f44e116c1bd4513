"""API keys: who may call, and who may load, unload, pull and delete."""

from __future__ import annotations

import hmac
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path

from brolly.errors import OptionError

SCOPES = ("user", "admin")
OPEN = frozenset(
    {"/health", "/ready", "/", "/favicon.ico"}
)  # asked by who has no key: probes, and the page's own files
# what changes which models are here, and what tells about all users
ADMIN = re.compile(
    r"/metrics|/api/(pull|push|delete|create|copy|blobs)\b.*|/(v1|api)/(.*/)?(load|unload|pull)|/v1/(un)?load_lora_adapter"
)
SHORTEST = 16  # characters; what is shorter can be guessed


@dataclass(frozen=True)
class Caller:
    """Whose request it is: `name` for shares and logs (never the key), what it may do, whose stored answers it sees.

    `owner` is the same wherever the key stands in its file.
    """

    name: str
    scope: str
    owner: str = ""


class Keys:
    """The keys of a server, kept as digests under a secret of this process alone."""

    def __init__(self, keys: Iterable[tuple[str, str]]) -> None:
        self._secret = os.urandom(32)
        self._known = [
            (self._digest(key), Caller(f"key-{n}", scope, owner(key))) for n, (key, scope) in enumerate(keys, 1)
        ]

    def __bool__(self) -> bool:
        return bool(self._known)

    def caller(self, key: str) -> Caller | None:
        """Whose key this is; takes as long for a wrong key as for a right one."""
        asked, found = self._digest(key), None
        for digest, caller in self._known:
            if hmac.compare_digest(digest, asked):
                found = caller
        return found

    def _digest(self, key: str) -> bytes:
        return hmac.digest(self._secret, key.encode("utf-8", "surrogateescape"), "sha256")


def owner(key: str) -> str:
    """Half of a key's SHA-256: it finds what the key has stored, and does not find the key."""
    return sha256(b"brolly owner " + key.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def read_keys(path: Path | None = None) -> tuple[tuple[str, str], ...]:
    """(key, scope) of a file's lines, `key` or `key user|admin`, and of $BROLLY_API_KEY (admin). Raises OptionError."""
    found: dict[str, str] = {}
    if path is not None:
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise OptionError(f"{path}: the API keys cannot be read ({error}).") from error
        for number, line in enumerate(text.splitlines(), 1):
            words = line.split("#")[0].split()
            if not words:
                continue
            key, scope = words[0], words[1] if len(words) > 1 else "user"
            if len(words) > 2 or scope not in SCOPES:
                raise OptionError(f"{path}, line {number}: expected a key, then user, admin or nothing.")
            if len(key) < SHORTEST or not key.isascii():
                raise OptionError(
                    f"{path}, line {number}: a key of {len(key)} characters; expected {SHORTEST} or more of ASCII, "
                    "such as `openssl rand -hex 24` makes."
                )
            if key in found:
                raise OptionError(f"{path}, line {number}: this key stands in the file twice.")
            found[key] = scope
        if not found:
            raise OptionError(f"{path} has no key; with it nobody could call. Add one a line, or leave the option out.")
    if own := os.environ.get("BROLLY_API_KEY"):
        found[own] = "admin"
    return tuple(found.items())


def presented(headers: Iterable[tuple[bytes, bytes]]) -> list[str]:
    """The keys that a request shows: `Authorization: Bearer`, and `x-api-key`; some clients put a dummy into one."""
    found = []
    for name, value in headers:
        text = value.decode("latin-1").strip()
        if name == b"x-api-key":
            found.append(text)
        elif name == b"authorization" and text[:7].lower() == "bearer ":
            found.append(text[7:].strip())
    return found


def needs_admin(method: str, path: str) -> bool:
    """Whether a request changes which models are here, or tells about all users."""
    return (
        bool(ADMIN.fullmatch(path))
        or (method == "DELETE" and path.startswith("/v1/models/"))
        or (method == "POST" and path.startswith("/v1/fine_tuning/"))
    )


def is_address(host: str) -> bool:
    """Whether this is an IP address, and no name."""
    try:
        ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def is_loopback(host: str | None) -> bool:
    """Whether an address or a host's name is this machine, and reached from this machine alone."""
    name = (host or "").strip("[]").lower()
    if not is_address(name):
        return name == "localhost" or name.endswith(".localhost")
    address = ip_address(name)
    inner = getattr(address, "ipv4_mapped", None)
    return address.is_loopback or (inner is not None and inner.is_loopback)
