"""Gemini at Google Cloud: its address, its credentials, its own words."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from brolly.errors import KeyRefused, MissingExtra, OptionError, Unreachable
from brolly.remote.auth_google import auth_of
from brolly.remote.model import Remote
from brolly.remote.target import parse
from brolly.verbs import gather
from tests.remote.fakes.gemini import FakeVertex
from tests.remote.fakes.server import Fake, Reply, Request

PATH = "v1beta1/projects/my-project/locations/europe-west4/publishers/google"


class FakeTokens(Fake):
    """Google's server of tokens: a signed statement for a token."""

    token = FakeVertex.token

    def answer(self, request: Request) -> Reply:
        if b"assertion=" not in request.body or request.path != "/token":
            return Reply(400, body={"error": "invalid_request"})
        return Reply(body={"access_token": self.token, "expires_in": 3599, "token_type": "Bearer"})


@pytest.fixture(scope="module")
def private_key() -> str:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return made.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def account(folder: Path, key: str, tokens: str) -> Path:
    """A service account's file."""
    found = folder / "account.json"
    row = {
        "type": "service_account", "project_id": "my-project", "private_key_id": "1", "private_key": key,
        "client_email": "robot@my-project.iam.gserviceaccount.com", "client_id": "1", "token_uri": tokens,
    }  # fmt: skip
    found.write_text(json.dumps(row))
    return found


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, private_key: str) -> Iterator[tuple[FakeVertex, FakeTokens]]:
    with FakeVertex() as vertex, FakeTokens() as tokens:
        file = account(tmp_path, private_key, f"{tokens.url}/token")
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
        monkeypatch.setenv("GOOGLE_VERTEX_BASE_URL", f"{vertex.url}/")
        monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "my-project")
        monkeypatch.setenv("GOOGLE_CLOUD_LOCATION", "europe-west4")
        monkeypatch.setenv("NO_GCE_CHECK", "true")
        yield vertex, tokens


def said(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def test_a_service_account_gets_one_token_for_many_requests(cloud: tuple[FakeVertex, FakeTokens]) -> None:
    vertex, tokens = cloud
    model = Remote("vertex:gemini-3.1-pro-preview")
    assert model.chat(said("Hello")).text == "You said: Hello"
    assert gather(model.stream_chat(said("Hello"), thoughts=True)).reasoning == "Let me think."
    assert model.count([{"role": "system", "content": "Be brief."}, *said("Hello there")]) == 4
    assert len(tokens.requests) == 1
    found = Remote("vertex:gemini-embedding-001").embed(["one", "two words"], role="query", truncate=False)
    assert found.vectors.shape == (2, 8) and found.n_tokens == 3
    config = {"taskType": "RETRIEVAL_QUERY", "autoTruncate": False}
    assert vertex.requests[-1].json["requests"][0]["embedContentConfig"] == config
    assert Remote("vertex:gemini-embedding-001").embed("one").vectors.shape == (1, 8)
    found = Remote("vertex:text-embedding-005").embed(["one", "two words"], dimensions=3)
    assert found.vectors.shape == (2, 3) and found.n_tokens == 3
    assert vertex.requests[-1].path == f"/{PATH}/models/text-embedding-005:predict"


def test_calls_of_tools_go_through(cloud: tuple[FakeVertex, FakeTokens]) -> None:
    model = Remote("vertex:gemini-3.1-pro-preview")
    tool = {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}}
    first = model.chat(said("weather"), tools=[tool])
    result = {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "rain"}
    assert model.chat([*said("weather"), first.message, result], tools=[tool]).text == "The tool said rain."


def test_a_token_that_was_refused_is_asked_for_anew(cloud: tuple[FakeVertex, FakeTokens]) -> None:
    vertex, tokens = cloud
    tokens.token = "ya29.old"
    model = Remote("vertex:gemini-2.5-flash")
    with pytest.raises(KeyRefused) as refused:
        model.chat(said("Hello"))
    tokens.token = FakeVertex.token
    assert model.chat(said("Hello")).text == "You said: Hello" and len(tokens.requests) == 2
    assert "ya29" not in str(refused.value) + repr(refused.value) + repr(model)


def test_what_is_wrong_with_credentials_is_told(
    cloud: tuple[FakeVertex, FakeTokens], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, private_key: str
) -> None:
    vertex, tokens = cloud
    tokens.faults.append(lambda _: Reply(400, body={"error": "invalid_grant", "error_description": "Invalid JWT"}))
    with pytest.raises(KeyRefused, match="invalid_grant.*gcloud auth application-default login"):
        Remote("vertex:gemini-2.5-flash").chat(said("Hello"))
    account(tmp_path, private_key, "http://127.0.0.1:9/token")
    with pytest.raises(Unreachable, match="tokens was not reached"):
        Remote("vertex:gemini-2.5-flash", retries=0).chat(said("Hello"))
    account(tmp_path, "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n", "http://127.0.0.1:9/token")
    with pytest.raises(KeyRefused) as broken:
        Remote("vertex:gemini-2.5-flash").chat(said("Hello"))
    assert "c2VjcmV0" not in str(broken.value)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(KeyRefused, match="no credentials.*none.json"):
        Remote("vertex:gemini-2.5-flash").chat(said("Hello"))
    assert not vertex.requests


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "p")
    monkeypatch.setitem(__import__("sys").modules, "google.auth", None)
    with pytest.raises(MissingExtra, match=r"brolly\[vertex\]"):
        auth_of(parse("vertex:gemini-2.5-flash"))


def test_a_token_is_found_once_by_several_threads(cloud: tuple[FakeVertex, FakeTokens]) -> None:
    _, tokens = cloud
    token = auth_of(parse("vertex:gemini-2.5-flash"))
    threads = [threading.Thread(target=token._headers) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(tokens.requests) == 1


def test_the_address_is_the_places_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOOGLE_VERTEX_BASE_URL", raising=False)
    monkeypatch.delenv("GOOGLE_CLOUD_PROJECT", raising=False)
    monkeypatch.delenv("GOOGLE_CLOUD_LOCATION", raising=False)
    with pytest.raises(OptionError, match="export GOOGLE_CLOUD_PROJECT="):
        parse("vertex:gemini-3")
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "my-project")
    rest = "v1beta1/projects/my-project/locations/{}/publishers/google"
    for place, host in (
        ("", "aiplatform.googleapis.com"),
        ("global", "aiplatform.googleapis.com"),
        ("us", "aiplatform.us.rep.googleapis.com"),
        ("europe-west4", "europe-west4-aiplatform.googleapis.com"),
    ):
        monkeypatch.setenv("GOOGLE_CLOUD_LOCATION", place)
        assert parse("vertex:gemini-3").base == f"https://{host}/{rest.format(place or 'global')}"
    for wrong in ("evil.test/", "a b", "@evil.test", "x#", "{HOME}"):
        monkeypatch.setenv("GOOGLE_CLOUD_LOCATION", wrong)
        with pytest.raises(OptionError, match="GOOGLE_CLOUD_LOCATION is"):
            parse("vertex:gemini-3")
