"""Claude at AWS: signatures, frames, and Anthropic's own package beside."""

from __future__ import annotations

import json
import random
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from zlib import crc32

import pytest

anthropic = pytest.importorskip("anthropic")
botocore = pytest.importorskip("botocore")

from brolly.errors import (  # noqa: E402
    BadAnswer,
    BrollyError,
    Busy,
    KeyRefused,
    MissingExtra,
    NotFound,
    OptionError,
    Overloaded,
)
from brolly.remote import Remote, parse  # noqa: E402
from brolly.remote.auth_aws import region  # noqa: E402
from brolly.remote.dialects.anthropic import bedrock  # noqa: E402
from brolly.remote.frames import Frames  # noqa: E402
from brolly.verbs import gather  # noqa: E402
from tests.remote.claude import HELLO, SCHEMA, WEATHER, both_asked  # noqa: E402
from tests.remote.fakes import CUT, KEY, Reply, Request  # noqa: E402
from tests.remote.fakes.anthropic import events  # noqa: E402
from tests.remote.fakes.bedrock import ID, SECRET, TOKEN, FakeBedrock, chunk, exception, frame  # noqa: E402
from tests.remote.test_anthropic import ROW  # noqa: E402

MODEL = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Iterator[FakeBedrock]:
    for name in ("AWS_BEARER_TOKEN_BEDROCK", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    with FakeBedrock() as found:
        monkeypatch.setenv("ANTHROPIC_BEDROCK_BASE_URL", found.url)
        yield found


def theirs(fake: FakeBedrock, monkeypatch: pytest.MonkeyPatch, key: str | None = None) -> Any:
    """Their client; it takes credentials from boto3, whose place botocore takes here."""
    from anthropic.lib.aws import _auth
    from botocore.credentials import Credentials

    session = SimpleNamespace(get_credentials=lambda: Credentials(ID, SECRET), region_name="eu-west-1")
    monkeypatch.setattr(_auth, "_get_session", lambda **_: session)
    return anthropic.AnthropicBedrock(aws_region="eu-west-1", base_url=fake.url, api_key=key, max_retries=0)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_requests_are_those_of_their_package(fake: FakeBedrock, monkeypatch: pytest.MonkeyPatch, stream: bool) -> None:
    one, other = both_asked(fake, theirs(fake, monkeypatch), f"bedrock:{MODEL}", stream)
    assert (one.method, one.target) == (other.method, other.target)
    assert {**one.json, "anthropic_version": ""} == {**other.json, "anthropic_version": ""}
    assert other.json["anthropic_version"] == "bedrock-2023-05-31"
    shown = [request.headers["authorization"].partition(", SignedHeaders=") for request in fake.requests]
    assert shown[0][0].rpartition("/202")[0] == shown[1][0].rpartition("/202")[0]
    names = [set(after.partition(",")[0].split(";")) for _, _, after in shown]
    assert {"content-type", "host", "x-amz-date"} == names[1] <= names[0]


@pytest.mark.parametrize(
    "model",
    ["anthropic.claude-opus-4-6-v1", "arn:aws:bedrock:eu-west-1:1:inference-profile/eu.anthropic.claude-opus-4-6-v1:0"],
)
def test_names_and_profiles_are_paths_and_signed(
    fake: FakeBedrock, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    theirs(fake, monkeypatch).messages.create(model=model, max_tokens=100, messages=HELLO)
    assert Remote(f"bedrock:{model}").chat(HELLO).text == "You said: Hello"
    assert fake.requests[0].target == fake.requests[1].target
    with pytest.raises(OptionError):
        bedrock.path(parse("bedrock:.."), "invoke")


def test_their_key_goes_first_and_a_session_is_signed(fake: FakeBedrock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    assert Remote(f"bedrock:{MODEL}").chat(HELLO).text == "You said: Hello"
    sent = fake.requests[-1].headers
    assert sent["x-amz-security-token"] == TOKEN and "x-amz-security-token" in sent["authorization"]
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", KEY)
    assert Remote(f"bedrock:{MODEL}").chat(HELLO).text == "You said: Hello"
    assert fake.requests[-1].headers["authorization"] == f"Bearer {KEY}"
    theirs(fake, monkeypatch, KEY).messages.create(model=MODEL, max_tokens=100, messages=HELLO)
    assert fake.requests[-1].headers["authorization"] == f"Bearer {KEY}"


def test_wrong_and_missing_credentials_are_told(fake: FakeBedrock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "sk-test-wrong-77aa66bb")
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    with pytest.raises(KeyRefused) as told:
        Remote(f"bedrock:{MODEL}").chat(HELLO)
    assert "sk-test" not in str(told.value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    with pytest.raises(KeyRefused, match="AWS_BEARER_TOKEN_BEDROCK"):
        Remote(f"bedrock:{MODEL}").chat(HELLO)
    monkeypatch.setitem(sys.modules, "botocore.session", None)
    with pytest.raises(MissingExtra, match=r"brolly\[bedrock\]"):
        Remote(f"bedrock:{MODEL}").chat(HELLO)


def test_the_region_is_that_of_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "us-gov-west-1")
    assert region(parse("bedrock:x")) == "us-gov-west-1"
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "https://bedrock-runtime-fips.ca-central-1.amazonaws.com")
    assert region(parse("bedrock:x")) == "ca-central-1"
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "https://gate.example.org")
    assert region(parse("bedrock:x")) == "us-gov-west-1"
    monkeypatch.delenv("AWS_REGION")
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    with pytest.raises(OptionError, match="AWS_REGION"):
        region(parse("bedrock:x"))


def test_a_stream_is_the_whole_answer_by_any_bytes(fake: FakeBedrock, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"role": "user", "content": "The weather in Zürich ☂, twice?"}]
    given: Any = {"tools": [WEATHER], "effort": "low", "max_tokens": 5000}
    remote = Remote(f"bedrock:{MODEL}")
    expected = remote.chat(rows, **given)
    assert len(expected.tool_calls) == 2 and expected.reasoning == "Let me think." and len(expected.opaque) == 1
    for split in (0, 1, 7):
        fake.split = split
        streamed = gather(remote.stream_chat(rows, **given))
        assert [(c.name, c.arguments) for c in streamed.tool_calls] == [
            (c.name, c.arguments) for c in expected.tool_calls
        ]
        assert replace(streamed, tool_calls=expected.tool_calls) == expected  # but for the ids of another request
    with theirs(fake, monkeypatch).messages.stream(
        model=MODEL, max_tokens=5000, messages=rows, thinking={"type": "enabled", "budget_tokens": 2048},
        tools=[{"name": "weather", "input_schema": SCHEMA}],
    ) as told:  # fmt: skip
        final = told.get_final_message()
    assert [one.name for one in final.content if one.type == "tool_use"] == [one.name for one in expected.tool_calls]
    assert remote.count(rows) == 6


def test_errors_are_told_as_aws_does(fake: FakeBedrock) -> None:
    remote = Remote(f"bedrock:{MODEL}", retries=0)
    with pytest.raises(NotFound):
        Remote("bedrock:anthropic.claude-missing").chat(HELLO)
    with pytest.raises(OptionError, match="has no seed"):
        Remote(f"bedrock:{MODEL}", strict=True).chat(HELLO, seed=1)
    start = [chunk(row) for row in list(events(ROW))[:8]]
    for kind, error in (
        ("throttlingException", Busy), ("serviceUnavailableException", Overloaded),
        ("validationException", OptionError), ("modelStreamErrorException", BrollyError),
        ("internalServerException", BrollyError),
    ):  # fmt: skip
        fake.faults.append(framed([*start, exception(kind, "no")]))
        with pytest.raises(error):
            list(remote.stream_chat(HELLO))
    for rest in ([], [b"\0\0"], [CUT], [frame(b"no json", event_type="chunk")], [b"\0" * 40]):
        fake.faults.append(framed([*start, *rest]))
        with pytest.raises(BadAnswer):
            list(remote.stream_chat(HELLO))


def framed(chunks: list[Any]) -> Any:
    def reply(_: Request) -> Reply:
        return Reply(200, {"content-type": "application/vnd.amazon.eventstream"}, chunks=chunks)

    return reply


def test_frames_are_read_as_botocore_reads_them() -> None:
    from botocore.eventstream import EventStreamBuffer

    data = b"".join(chunk(row) for row in events(ROW)) + exception("throttlingException", "später")
    buffer = EventStreamBuffer()
    buffer.add_data(data)
    expected = []
    for event in buffer:
        names = event.headers
        expected.append((names.get(":event-type") or names[":exception-type"], event.payload.decode()))
    for size in (1, 3, 1000, len(data)):
        frames = Frames()
        found = [one for at in range(0, len(data), size) for one in frames.push(data[at : at + size])]
        assert found + frames.end() == expected
    kinds = b"\x01a\x00\x01b\x02\x07\x01c\x04" + bytes(4) + b"\x01d\x06\x00\x02xy\x01e\x09" + bytes(16)
    named = b"\x0b:event-type\x07\x00\x05chunk"
    assert Frames().push(made(kinds + named, b"{}")) == [("chunk", "{}")]
    said = frame(b"", message_type="error", error_code="throttled", error_message="no")
    assert Frames().push(said) == [("throttled", '{"message": "no"}')]


def made(head: bytes, payload: bytes) -> bytes:
    start = struct.pack("!II", 16 + len(head) + len(payload), len(head))
    whole = start + struct.pack("!I", crc32(start)) + head + payload
    return whole + struct.pack("!I", crc32(whole))


def test_mutated_frames_give_frames_or_our_errors() -> None:
    chance = random.Random(3)
    data = b"".join(chunk(row) for row in events(ROW))
    for _ in range(300):
        changed = bytearray(data)
        for _ in range(chance.randint(1, 4)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        frames = Frames()
        with pytest.raises(BadAnswer):
            frames.push(bytes(changed))
            frames.end()
    for _ in range(300):  # sums that are right, and headers that are not
        head = bytes(chance.randrange(256) for _ in range(chance.randrange(40)))
        with suppress(BadAnswer):
            Frames().push(made(head, b"{}"))
    with pytest.raises(BadAnswer, match="expected less"):
        Frames(most=100).push(made(b"", bytes(100)))


def test_chunks_that_hold_no_event_are_passed_or_told() -> None:
    reader = bedrock.Reader(parse("anthropic:x"))
    for data in (None, {}, [], {"bytes": 3}, {"bytes": "bnVsbA=="}):
        assert reader.push("chunk", data) == []
    assert reader.push("newEvent", {"x": 1}) == [] and reader.push("", json.loads("3")) == []
    for packed in ("!", "AAAA", "é"):
        with pytest.raises(BadAnswer, match="no JSON in base64"):
            reader.push("chunk", {"bytes": packed})
