"""No key in any output: messages, reprs, logs, warnings, tracebacks with their locals, cards, files."""

from __future__ import annotations

import asyncio
import copy
import gc
import io
import json
import logging
import pickle
import traceback
import warnings
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from typing import Any

import pytest

from brolly.errors import BrollyError
from brolly.remote import Remote, parse
from brolly.remote import client as module
from brolly.remote.client import Client
from brolly.remote.dialect import Call
from brolly.remote.keys import key_of
from brolly.verbs import RemoteOptions
from tests.remote.asking import CALL, STREAM, error, told
from tests.remote.fakes import CUT, STALL, Fake, Reply, Request, sse
from tests.remote.test_connections import Proxy

KEY = "sk-live-Zx81QpLm47VbNt29RgYw65Kd"
PASSWORD = "hunter2-hunter3"
PARTS = [KEY[at : at + 12] for at in range(len(KEY) - 11)]
VENDORS = {"openai": "OPENAI", "anthropic": "ANTHROPIC", "gemini": "GEMINI"}


class Echo(Fake):
    """A server that says everything that it was told."""

    def answer(self, request: Request) -> Reply:
        said = json.dumps(request.headers)
        if request.path.endswith("/stream"):
            return Reply(chunks=[sse({"said": said}), sse("[DONE]")])
        return Reply(body={"said": said})


def echoing(status: int, **headers: str) -> Any:
    """An error that repeats the key: whole, in part, and within its headers."""

    def reply(request: Request) -> Reply:
        sent = " ".join(f"{name}: {value}" for name, value in request.headers.items())
        message = f"Incorrect API key provided: {KEY}. You sent {KEY[:14]}***{KEY[-4:]} and {KEY[5:25]} and {sent}"
        return Reply(status, {"x-echo": KEY, **headers}, {"error": {"code": KEY, "message": message, "param": KEY}})

    return reply


FAULTS: dict[str, Any] = {
    **{str(status): echoing(status) for status in (400, 401, 402, 403, 404, 408, 409, 413, 422, 500, 502, 504, 599)},
    "429": echoing(429, **{"retry-after": "100"}),
    "503": echoing(503, **{"retry-after": "100"}),
    "529": echoing(529, **{"retry-after": "100"}),
    "redirect": lambda r: Reply(302, {"location": f"https://{KEY}.example/{KEY}?key={KEY}"}),
    "page": lambda r: Reply(500, {"content-type": "text/html"}, f"<html><title>{KEY}</title>{r.headers}"),
    "page that is well": lambda r: Reply(200, {"content-type": "text/html"}, f"<html><title>{KEY}</title>"),
    "text": lambda r: Reply(400, {"content-type": "text/plain"}, f"no {KEY} here"),
    "no JSON": lambda r: Reply(200, {"content-type": "application/json"}, f"{{{KEY}"),
    "no HTTP": lambda r: Reply(raw=f"{KEY}\r\n\r\n".encode()),
    "closed": lambda r: Reply(raw=b""),
    "cut": lambda r: Reply(chunks=[f'{{"a": "{KEY}'.encode(), CUT]),
    "cut stream": lambda r: Reply(chunks=[sse({"said": KEY}), CUT]),
    "stalled": lambda r: Reply(chunks=[STALL]),
    "stalled stream": lambda r: Reply(chunks=[sse({"said": KEY}), STALL]),
    "no UTF-8": lambda r: Reply(chunks=[b"data: " + KEY.encode() + b"\xff\n\n"]),
    "no event": lambda r: Reply(chunks=[f"data: {{{KEY}\n\n"]),
    "compressed": lambda r: Reply(200, {"content-encoding": "gzip"}, KEY.encode()),
    "in order": lambda r: Echo().answer(r),
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST", 0.01)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def output() -> Iterator[io.StringIO]:
    """Everything that logging says at DEBUG, of any package, and warnings, and what is printed."""
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        with warnings.catch_warnings(record=True) as caught, redirect_stdout(out), redirect_stderr(out):
            warnings.simplefilter("always")
            yield out
        for one in caught:
            print(one.message, file=out)
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


def shown(error: BaseException) -> str:
    """All that a debugger, a crash report or a test runner could print of an exception."""
    told_ = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    seen: list[BaseException] = []
    todo: list[BaseException | None] = [error]
    while todo:
        one = todo.pop()
        if one is not None and one not in seen:
            seen.append(one)
            todo += [one.__cause__, one.__context__]  # also those that are suppressed
            told_ += f"{one!r} {one} {one.args} {vars(one)}"
            frames = traceback.walk_tb(one.__traceback__)
            told_ += " ".join(repr(value) for frame, _ in frames for value in frame.f_locals.values())
    return told_


def clean(text: str) -> bool:
    return not any(part in text for part in PARTS) and PASSWORD not in text


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("name", FAULTS)
def test_no_key_is_told_whatever_goes_wrong(
    name: str, vendor: str, output: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Echo() as fake:
        monkeypatch.setenv(f"{VENDORS[vendor]}_BASE_URL", f"{fake.url}/v1")
        monkeypatch.setenv(f"{VENDORS[vendor]}_API_KEY", KEY)
        client = Client(parse(f"{vendor}:m"), RemoteOptions(retries=1, silence_seconds=0.1))
        said = []

        async def both() -> None:
            for ask in ("json", "events", "bytes"):
                fake.faults.extend([FAULTS[name]] * 2)
                try:
                    if ask == "events":
                        async for batch in client.events(STREAM, told):
                            said.append(repr(batch))
                    else:
                        said.append(repr(await getattr(client, ask)(CALL, told)))
                except BrollyError as error:
                    said.append(shown(error))
                fake.faults.clear()
            loop = asyncio.get_running_loop()
            said.extend(repr(task) for task in asyncio.all_tasks(loop))
            said.append(f"{client!r} {vars(client)} {client.auth!r} {vars(client.auth)} {list(client._lines.values())}")

        asyncio.run(both(), debug=True)
        assert any(KEY in value for value in fake.requests[0].headers.values())  # it was there to be told
    text = output.getvalue() + "\n".join(said)
    assert clean(text), [line for line in text.splitlines() if not clean(line)][:3]


@pytest.mark.parametrize("vendor", VENDORS)
def test_no_object_shows_a_key(vendor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{VENDORS[vendor]}_API_KEY", KEY)
    remote = Remote(f"{vendor}:some-model")
    key = key_of(remote.target)
    assert key is not None and key.reveal() == KEY
    objects = [
        remote,
        remote.client,
        remote.target,
        remote.target.vendor,
        remote.manners,
        remote.budget,
        key,
        remote.card,
    ]
    text = " ".join(f"{one!r} {one} {one:}" for one in objects) + remote.describe()
    text += " ".join(str(vars(one)) for one in objects if hasattr(one, "__dict__"))
    for one in objects:
        with suppress(TypeError, AttributeError, pickle.PicklingError, RecursionError):
            text += repr(copy.deepcopy(one))
        with suppress(TypeError, AttributeError, pickle.PicklingError, RecursionError):
            text += pickle.dumps(one).decode("latin-1")
    assert clean(text)


def test_a_key_that_cannot_be_one_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY} \n")
    client = Client(parse("openai:m"), RemoteOptions())
    with pytest.raises(BrollyError, match="OPENAI_API_KEY") as caught:
        asyncio.run(client.json(CALL, told))
    assert clean(shown(caught.value))


def test_no_password_of_a_proxy_is_told(output: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    said = []
    with Proxy() as proxy, Echo() as fake:
        for status in (200, 407, 502):
            monkeypatch.setenv("HTTP_PROXY", f"http://user:{PASSWORD}@127.0.0.1:{proxy.port}")
            proxy.faults.append(lambda request, status=status: error(status, "", f"{request.headers}"))  # type: ignore[misc]
            client = Client(parse(f"{fake.url}/v1#m"), RemoteOptions(retries=0))
            try:
                asyncio.run(client.json(CALL, told))
            except BrollyError as wrong:
                said.append(shown(wrong))
            said.append(f"{client!r} {vars(client)}")
        monkeypatch.setenv("HTTP_PROXY", f"http://user:{PASSWORD}@127.0.0.1:1")
        with pytest.raises(BrollyError) as caught:
            asyncio.run(Client(parse(f"{fake.url}/v1#m"), RemoteOptions(retries=0)).json(CALL, told))
        said.append(shown(caught.value))
    assert clean(output.getvalue() + "".join(said))


def test_what_a_call_carries_in_its_query_is_not_in_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    with Echo() as fake:
        fake.faults.append(lambda request: error(404))
        with pytest.raises(BrollyError) as caught:
            client = Client(parse(f"{fake.url}/v1#m"), RemoteOptions())
            asyncio.run(client.json(Call("/whole", {}, query={"token": KEY}), told))
    assert KEY not in str(caught.value)
    gc.collect()


def test_these_tests_would_see_a_key() -> None:
    def careless(header: str) -> None:
        raise BrollyError("no")

    with pytest.raises(BrollyError) as caught:
        careless(f"Bearer {KEY}")
    assert not clean(shown(caught.value)) and not clean(f"… {KEY[3:15]} …") and clean("nothing")
