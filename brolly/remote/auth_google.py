"""Google Cloud's own credentials (a service account, gcloud's login, the machine's): a token that lives an hour."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

from brolly.errors import KeyRefused, MissingExtra, Unreachable
from brolly.remote.target import Target

if TYPE_CHECKING:
    import httpx

SCOPE = "https://www.googleapis.com/auth/cloud-platform"


class Token:
    """What google-auth finds by itself. It is looked for at the first request, and asked anew when its hour is over."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._lock = threading.Lock()
        self._found: Any = None

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        request.headers.update(await asyncio.to_thread(self._headers))  # files, other programs, HTTP of its own
        response = yield request
        if response.status_code == 401:
            self._found = None

    def _headers(self) -> dict[str, str]:
        """The token, and the project that pays where that is another. Raises KeyRefused, Unreachable."""
        import google.auth
        from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, TransportError
        from google.auth.transport.requests import Request

        with self._lock:
            try:
                if self._found is None:
                    self._found, _ = google.auth.default(scopes=[SCOPE])
                if not self._found.valid:
                    self._found.refresh(Request())
            except DefaultCredentialsError as error:
                raise KeyRefused(
                    f"there are no credentials for {self.target.host} ({_said(error)}); set "
                    "GOOGLE_APPLICATION_CREDENTIALS to a key's file, or run `gcloud auth application-default login`."
                ) from None
            except TransportError:
                raise Unreachable(
                    f"Google's server of tokens was not reached for {self.target.host}; ask again."
                ) from None
            except (GoogleAuthError, OSError, ValueError) as error:
                raise KeyRefused(
                    f"Google gave no token for {self.target.host} ({_said(error)}); see to "
                    "GOOGLE_APPLICATION_CREDENTIALS, or run `gcloud auth application-default login`."
                ) from None
            found: dict[str, str] = {}
            self._found.apply(found)
            return found


def auth_of(target: Target) -> Token:
    """Raises MissingExtra."""
    try:
        import google.auth  # noqa: F401
        import requests  # noqa: F401
    except ModuleNotFoundError:
        raise MissingExtra("Google Cloud's credentials", "vertex") from None
    return Token(target)


def _said(error: Exception) -> str:
    """What of an error may be told: its first words, without what came with them."""
    text = str(error.args[0]) if error.args else type(error).__name__
    return " ".join(text.split())[:200].rstrip(".")
