"""What the tests of other verbs share: a fake with its key in the environment, and two requests held side by side."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from brolly.remote import Remote
from tests.remote.fakes import KEY
from tests.remote.fakes.anthropic import FakeAnthropic
from tests.remote.fakes.gemini import FakeGemini
from tests.remote.fakes.openai import FakeOpenAI
from tests.remote.fakes.server import Request

VENDORS = {"OPENAI": FakeOpenAI, "ANTHROPIC": FakeAnthropic, "GEMINI": FakeGemini}


def known(fake: Any, monkeypatch: pytest.MonkeyPatch, vendor: str = "OPENAI") -> None:
    """`openai:` means this fake, or another vendor's name does."""
    monkeypatch.setenv(f"{vendor}_BASE_URL", getattr(fake, "base", fake.url))
    monkeypatch.setenv(f"{vendor}_API_KEY", getattr(fake, "key", KEY))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as server:
        known(server, monkeypatch)
        yield server


def theirs(fake: FakeOpenAI) -> Any:
    """OpenAI's own client of the fake."""
    import openai

    return openai.OpenAI(api_key=fake.key, base_url=fake.base, max_retries=0)


def ours(model: str, **options: Any) -> Remote:
    return Remote(f"openai:{model}", **{"retries": 0, **options})


def alike(one: Request, other: Request, *, named: bool = False) -> None:
    """Both ask the same: method, path, query and JSON; of forms the parts, in any order, names of files aside."""
    assert (one.method, one.path, one.query) == (other.method, other.path, other.query)
    if one.headers.get("content-type", "").startswith("multipart/"):
        assert parts(one, named) == parts(other, named)
    else:
        assert one.json == other.json


def parts(request: Request, named: bool) -> list[Any]:
    return sorted((p.name, (p.filename or "") if named else p.filename is not None, p.data) for p in request.parts)
