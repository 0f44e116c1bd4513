"""Who asks: what goes with each request to show it. Knows where keys are kept, and that they are never told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from brolly.errors import BrollyError, KeyRefused
from brolly.remote.keys import Secret, key_of, no_key
from brolly.remote.target import Target

if TYPE_CHECKING:
    import httpx

# a vendor's `auth` → the header that carries the key, and what stands before it there
HEADERS = {
    "bearer": ("authorization", "Bearer "),
    "x_api_key": ("x-api-key", ""),
    "x_goog_api_key": ("x-goog-api-key", ""),
    "api_key": ("api-key", ""),
}
IF_ANY = "_if_any"  # behind such a name: no key is needed
LATE = {"google": "brolly.remote.auth_google", "aws": "brolly.remote.auth_aws"}  # each has `auth_of(target)`
SECRET = frozenset(
    ("authorization", "proxy-authorization", "x-api-key", "x-goog-api-key", "api-key", "x-amz-security-token")
)


class Auth(Protocol):
    """What httpx.Auth is, seen from here."""

    def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]: ...


class Key:
    """A key in a header. It is looked for at the first request, and again after it was refused."""

    def __init__(self, target: Target, header: str, before: str, needed: bool) -> None:
        self.target, self.header, self.before, self.needed = target, header, before, needed
        self._key: Secret | None = None
        self._looked = False

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        if not self._looked:
            problem = None
            try:
                self._key = await asyncio.to_thread(key_of, self.target)  # a keyring may ask its user first
            except BrollyError as error:
                problem = error.with_traceback(None)  # whose frames hold what was read
            if problem is not None:
                raise problem
            self._looked = True
        if self._key is not None:
            request.headers[self.header] = self.before + self._key.reveal()
        elif self.needed and not self.target.vendor.local:
            self._looked = False
            raise KeyRefused(no_key(self.target))
        response = yield request
        if response.status_code == 401:
            self._key, self._looked = None, False


def auth_of(target: Target) -> Auth:
    """How this target is shown who asks. Raises MissingExtra where that needs a package."""
    name = target.vendor.auth
    if name in LATE:
        found: Auth = import_module(LATE[name]).auth_of(target)
        return found
    header, before = HEADERS[name.removesuffix(IF_ANY)]
    return Key(target, header, before, needed=not name.endswith(IF_ANY))


def secrets_of(request: httpx.Request) -> tuple[str, ...]:
    """What a request carries that nobody may see, to be taken out of what a vendor answers."""
    values = [value for name, value in request.headers.items() if name in SECRET]
    return tuple(dict.fromkeys(part for value in values for part in (value, value.rpartition(" ")[2])))
