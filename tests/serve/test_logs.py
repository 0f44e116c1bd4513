"""A line a request, for people or for programs, without prompts and keys."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

pytest.importorskip("fastapi")

from brolly.serve import logs  # noqa: E402
from brolly.serve.settings import Settings  # noqa: E402
from tests.serve.small import client  # noqa: E402

KEY = "a-key-of-a-user-0001"


@pytest.fixture
def lines(request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    """What is logged, in the form that the test asks for; the loggers are as before behind it."""
    found = [logging.getLogger(name) for name in ("brolly", "uvicorn")]
    before = [(logger.handlers, logger.propagate, logger.level) for logger in found]
    logs.configure(getattr(request, "param", "json"))
    stream = io.StringIO()
    logging.getLogger("brolly").handlers[0].stream = stream  # type: ignore[attr-defined]
    yield stream
    for logger, (handlers, propagate, level) in zip(found, before, strict=True):
        logger.handlers, logger.propagate, logger.level = handlers, propagate, level


def test_json_lines_tell_all_numbers_of_a_request(lines: io.StringIO) -> None:
    client().post("/v1/stream", json={"tokens": 3}, headers={"x-request-id": "mine"})
    (said,) = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert said["request_id"] == "mine" and said["route"] == "/v1/stream" and said["status"] == 200
    assert (said["prompt_tokens"], said["completion_tokens"], said["cached_tokens"]) == (7, 3, 3)
    assert said["model"] == "mini-llm" and said["client"] == "127.0.0.1" and said["level"] == "info"
    assert 0 <= said["time_to_first_token"] <= said["seconds"] and said["time"].endswith("+00:00")


@pytest.mark.parametrize("lines", ["text", "json"], indirect=True)
def test_no_prompt_and_no_key_is_logged(lines: io.StringIO) -> None:
    caller = client(Settings(api_keys=((KEY, "user"),)))
    caller.post("/v1/echo?key=" + KEY, json={"model": "a secret"}, headers={"x-api-key": KEY})
    caller.post("/v1/echo", json={"model": "a secret"}, headers={"x-api-key": KEY + "x"})
    caller.post("/v1/fail", json={"model": "a secret"}, headers={"authorization": f"Bearer {KEY}"})
    assert "key-1" in lines.getvalue() and "ZeroDivisionError" in lines.getvalue()
    assert "a secret" not in lines.getvalue() and KEY not in lines.getvalue()


@pytest.mark.parametrize("lines", ["text", "json"], indirect=True)
def test_prompts_are_logged_when_asked(lines: io.StringIO) -> None:
    client(Settings(log_prompts=True)).post("/v1/echo", json={"model": "a secret"})
    assert "a secret" in lines.getvalue()


@pytest.mark.parametrize("lines", ["text", "json"], indirect=True)
def test_a_client_cannot_write_lines_of_its_own(lines: io.StringIO) -> None:
    client().get("/x%0a12:00:00%20200%20GET%20/forged%1b[2J")
    assert len(lines.getvalue().splitlines()) == 1 and "\x1b" not in lines.getvalue()


@pytest.mark.parametrize("lines", ["text"], indirect=True)
def test_the_text_of_a_line_is_short(lines: io.StringIO) -> None:
    client().post("/v1/stream", json={"tokens": 3})
    assert "200 POST /v1/stream · mini-llm · 7 (3 cached) → 3 tokens · " in lines.getvalue()


def test_probes_are_quiet(lines: io.StringIO) -> None:
    client().get("/health")
    assert lines.getvalue() == ""


def test_a_failure_has_a_traceback_on_its_own_line_of_json(lines: io.StringIO) -> None:
    client().post("/v1/fail", json={})
    failure, request = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert "ZeroDivisionError" in failure["traceback"] and failure["request_id"] == request["request_id"]
    assert request["status"] == 500 and request["level"] == "error"
