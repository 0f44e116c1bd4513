"""A vendor that does whatever networks and vendors do, and how tests of the transport ask it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from brolly.remote import client as module
from brolly.remote import limits, parse
from brolly.remote.client import Client
from brolly.remote.dialect import DONE, Call, Told
from brolly.verbs import RemoteOptions
from tests.remote.fakes import Fake, Reply, Request, sse

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


@pytest.fixture
def fake() -> Iterator[Vendor]:
    with Vendor() as made:
        yield made


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No long pauses between tries nor of another test's vendor at this port, and no proxy of this machine's."""
    monkeypatch.setattr(module, "FIRST", 0.02)
    monkeypatch.setattr(limits, "_limits", {})
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


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


def once(reply: Reply) -> Callable[[Request], Reply]:
    return lambda request: reply
