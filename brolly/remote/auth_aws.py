"""AWS's ways to show who asks: Bedrock's own key where there is one, else a request signed with what botocore finds."""

from __future__ import annotations

import asyncio
import os
import re
import threading
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

from brolly.errors import KeyRefused, MissingExtra, OptionError
from brolly.remote.keys import key_of
from brolly.remote.target import Target

if TYPE_CHECKING:
    import httpx

SERVICE = "bedrock"
# headers that are signed: others may change on the way, through proxies
SIGNED = ("content-type", "host")
REGION = re.compile(r"\.([a-z]{2,4}(?:-[a-z]+)+-\d)\.")


class Signature:
    """Signs each request by SigV4. Credentials are looked for at the first one; botocore renews those that end."""

    requires_request_body = True

    def __init__(self, target: Target) -> None:
        self.target = target
        self._lock = threading.Lock()
        self._key: Any = None
        self._found: Any = None

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        body = await request.aread()
        request.headers.update(await asyncio.to_thread(self._headers, request, body))
        response = yield request
        if response.status_code == 401:
            self._key = self._found = None

    def _headers(self, request: httpx.Request, body: bytes) -> dict[str, str]:
        """What shows who asks. Raises KeyRefused, MissingExtra, OptionError."""
        with self._lock:
            self._key = self._key or key_of(self.target)
            if self._key is not None:
                return {"authorization": f"Bearer {self._key.reveal()}"}
            if self._found is None:
                self._found = credentials(self.target)
            return signed(request.method, str(request.url), request.headers, body, self._found, self.target)


def credentials(target: Target) -> Any:
    """What botocore finds: the environment, a profile, a login, the machine's role. Raises KeyRefused, MissingExtra."""
    try:
        import botocore.session
        from botocore.exceptions import BotoCoreError
    except ModuleNotFoundError:
        raise MissingExtra("Bedrock without AWS_BEARER_TOKEN_BEDROCK", "bedrock") from None
    try:
        found = botocore.session.Session().get_credentials()
    except BotoCoreError as error:
        raise KeyRefused(f"AWS's credentials for {target.host} cannot be read ({_said(error)}).") from None
    if found is None:
        raise KeyRefused(
            f"there are no credentials for {target.host}; set AWS_BEARER_TOKEN_BEDROCK, or AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE."
        )
    return found


def signed(method: str, url: str, headers: Any, body: bytes, found: Any, target: Target) -> dict[str, str]:
    """The headers that SigV4 adds. Raises KeyRefused where credentials cannot be renewed, OptionError."""
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.exceptions import BotoCoreError

    kept = {name: headers[name] for name in SIGNED if name in headers}
    request = AWSRequest(method=method, url=url, headers=kept, data=body)
    try:
        SigV4Auth(found, SERVICE, region(target)).add_auth(request)
    except BotoCoreError as error:
        raise KeyRefused(f"AWS's credentials for {target.host} are over ({_said(error)}); log in again.") from None
    return {name.lower(): value for name, value in request.headers.items() if name.lower() not in SIGNED}


def region(target: Target) -> str:
    """Of the address, else of the environment. Raises OptionError."""
    found = REGION.search(f".{target.host}")
    said = found[1] if found else os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if not said:
        raise OptionError(f"{target.host} does not tell its region; export AWS_REGION=…")
    return said


def auth_of(target: Target) -> Signature:
    return Signature(target)


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(".")
