"""Claude at Google Cloud, beside Anthropic's own package for it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

anthropic = pytest.importorskip("anthropic")
google_auth = pytest.importorskip("google.auth")

from brolly.errors import Busy, ContextTooLong, KeyRefused, NotFound, OptionError  # noqa: E402
from brolly.remote import Remote, parse  # noqa: E402
from brolly.remote.dialects.anthropic import vertex  # noqa: E402
from tests.remote.claude import HELLO, both_asked  # noqa: E402
from tests.remote.fakes import KEY, Reply, Request  # noqa: E402
from tests.remote.fakes.anthropic import NEW, OLD, FakeAnthropic, Refused, failure  # noqa: E402

HAIKU, OPUS = "claude-haiku-4-5@20251001", "claude-opus-4-6"
PLACE = "/v1/projects/my-project/locations/eu/publishers/anthropic/models/"
VERSIONS = {"vertex-2023-10-16": OLD, NEW: NEW}


class FakeVertex(FakeAnthropic):
    """Vertex's gate before Anthropic's model."""

    def answer(self, request: Request) -> Reply:
        if request.headers.get("authorization") != f"Bearer {KEY}":
            said = {
                "code": 401,
                "message": "Request had invalid authentication credentials.",
                "status": "UNAUTHENTICATED",
            }
            return Reply(401, {}, {"error": said})
        found = re.fullmatch(re.escape(PLACE) + r"([^/]+):(rawPredict|streamRawPredict)", request.path)
        if not found:
            return Reply(
                404, {}, {"error": {"code": 404, "message": "Publisher Model was not found.", "status": "NOT_FOUND"}}
            )
        body = dict(request.json)
        try:
            version = VERSIONS.get(body.pop("anthropic_version", ""))
            if version is None:
                raise Refused("anthropic_version: Field required")
            if found[1] == "count-tokens":
                return self.count(body)
            if "model" in body or (found[2] == "streamRawPredict") != body.get("stream", False):
                raise Refused("model: Extra inputs are not permitted")
            return self.message({"model": found[1], **body}, version)
        except Refused as error:
            return failure(error.kind, str(error))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeVertex]:
    from google.oauth2.credentials import Credentials

    monkeypatch.setattr(google_auth, "default", lambda **_: (Credentials(KEY), "my-project"))  # type: ignore[no-untyped-call]
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "my-project")
    monkeypatch.setenv("CLOUD_ML_REGION", "eu")
    with FakeVertex() as found:
        monkeypatch.setenv("ANTHROPIC_VERTEX_BASE_URL", f"{found.url}/v1")
        yield found


def theirs(fake: FakeVertex) -> Any:
    return anthropic.AnthropicVertex(
        project_id="my-project", region="eu", access_token=KEY, base_url=f"{fake.url}/v1", max_retries=0
    )


@pytest.mark.parametrize("model", [HAIKU, OPUS])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_requests_are_those_of_their_package(fake: FakeVertex, model: str, stream: bool) -> None:
    one, other = both_asked(fake, theirs(fake), f"vertex-anthropic:{model}", stream)
    assert (one.method, one.target, one.json) == (other.method, other.target, other.json)


def test_tokens_are_counted_as_by_their_package(fake: FakeVertex) -> None:
    found = theirs(fake).messages.count_tokens(model=HAIKU, messages=HELLO, system="Be kind.")
    rows = [{"role": "system", "content": "Be kind."}, *HELLO]
    assert Remote(f"vertex-anthropic:{HAIKU}").count(rows) == found.input_tokens == 3
    one, other = fake.requests
    assert (one.target, one.json) == (other.target, other.json)


def test_sampling_and_betas_have_their_words(fake: FakeVertex) -> None:
    remote = Remote(f"vertex-anthropic:{HAIKU}")
    assert remote.chat(HELLO, temperature=0.5).text == "You said: Hello"
    assert fake.requests[-1].json["anthropic_version"] == "vertex-2023-10-16"
    assert "anthropic-version" not in fake.requests[-1].headers
    ask = remote.prepare_chat(HELLO, extra={"betas": ["a", "b"]})
    assert vertex.call(ask, remote.target).headers == {"anthropic-beta": "a,b"}


def test_errors_of_the_gate_and_of_the_model_are_told(fake: FakeVertex, monkeypatch: pytest.MonkeyPatch) -> None:
    from google.oauth2.credentials import Credentials

    remote = Remote(f"vertex-anthropic:{HAIKU}", retries=0)
    with pytest.raises(NotFound):
        Remote("vertex-anthropic:claude-missing").chat(HELLO)
    with pytest.raises(ContextTooLong):
        remote.chat([{"role": "user", "content": "toolong"}])
    busy = {"error": {"code": 429, "message": "Quota exceeded", "status": "RESOURCE_EXHAUSTED"}}
    fake.faults.append(lambda _: Reply(429, {}, [busy]))
    with pytest.raises(Busy):
        remote.chat(HELLO)
    with pytest.raises(OptionError):
        vertex.call(remote.prepare_chat(HELLO), parse("vertex-anthropic:.."))
    monkeypatch.setattr(google_auth, "default", lambda **_: (Credentials("sk-test-wrong-1234"), ""))  # type: ignore[no-untyped-call]
    with pytest.raises(KeyRefused) as told:
        Remote(f"vertex-anthropic:{HAIKU}").chat(HELLO)
    assert "sk-test" not in str(told.value)
