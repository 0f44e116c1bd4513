"""Talks to a server that runs: where it is, what it said, and why it could not be asked."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from typing import Any

from brolly.errors import BrollyError, OptionError

HERE = "http://127.0.0.1:8000"


def add_server(command: argparse.ArgumentParser) -> None:
    command.add_argument("--url", help=f"the server's address (default: $BROLLY_HOST, else {HERE})")
    command.add_argument("--api-key", help="where the server asks for one (default: $BROLLY_API_KEY)")


def address(args: argparse.Namespace) -> str:
    """The server's URL; a host alone gets the usual scheme."""
    text = (args.url or os.environ.get("BROLLY_HOST") or HERE).strip().rstrip("/").removesuffix("/v1")
    return text if "://" in text else f"http://{text}"


def ask(args: argparse.Namespace, path: str, body: dict[str, Any] | None = None) -> Any:
    """The JSON that a route answers. Raises BrollyError."""
    return json.loads(b"".join(_lines(args, path, body)))


def events(args: argparse.Namespace, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A route's events as they come. Raises BrollyError, also where one of them is an error."""
    for line in _lines(args, path, body):
        if line.startswith(b"data: {"):
            found = json.loads(line[6:])
            if "error" in found:
                raise BrollyError(found["error"]["message"])
            yield found


def _lines(args: argparse.Namespace, path: str, body: dict[str, Any] | None) -> Iterator[bytes]:
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import ProxyHandler, Request, build_opener

    url = address(args)
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} if data else {}
    if key := args.api_key or os.environ.get("BROLLY_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    try:
        # the server is this user's own: no proxy of the environment stands between
        with build_opener(ProxyHandler({})).open(Request(url + path, data, headers), timeout=600) as answer:
            yield from answer
    except HTTPError as error:
        raise BrollyError(_said(error.read(65536), f"{url} answered {error.code}")) from None
    except ValueError as error:
        raise OptionError(f"{url[:200]!r} is no server's address ({error}).") from None
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        reason = getattr(reason, "strerror", None) or reason
        raise BrollyError(
            f"no server answers at {url} ({str(reason).lower()}); start one with `brolly serve`, or say where it is "
            "with --url or BROLLY_HOST."
        ) from None


def _said(body: bytes, otherwise: str) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"{otherwise}; is it brolly's?"
