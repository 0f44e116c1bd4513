"""Every error has a status, and says it as each dialect's clients read it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("fastapi")

from brolly import errors as tree  # noqa: E402
from brolly.errors import BrollyError, Busy, CheckpointError, MissingExtra, NotFound, OptionError  # noqa: E402
from brolly.serve.errors import ROWS, Refused, envelope, respond, told  # noqa: E402
from tests.serve.small import client  # noqa: E402


def kinds(root: type[BrollyError] = BrollyError) -> Iterator[type[BrollyError]]:
    for kind in root.__subclasses__():
        if kind.__module__ == tree.__name__:
            yield kind
            yield from kinds(kind)


def made(kind: type[BrollyError]) -> BrollyError:
    return MissingExtra("hearing", "audio") if kind is MissingExtra else kind("what was found")


@pytest.mark.parametrize("kind", list(kinds()), ids=lambda kind: kind.__name__)
def test_every_error_of_brollys_tree_has_a_row(kind: type[BrollyError]) -> None:
    row = next((row for row in ROWS if issubclass(kind, row[0])), None)
    assert row is not None, f"{kind.__name__} would be told as an unknown failure"
    refused = told(made(kind))
    assert (refused.status, refused.kind, refused.code) == row[1:]


def test_rows_of_narrower_kinds_come_before_wider_ones() -> None:
    for n, (kind, *_) in enumerate(ROWS):
        assert not any(issubclass(kind, earlier) for earlier, *_ in ROWS[:n]), kind


def test_busy_tells_when_to_come_again() -> None:
    assert told(Busy("full", retry_after=2.6)).headers == {"retry-after": "3"}
    assert told(Busy("full", retry_after=0.01)).headers == {"retry-after": "1"}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v1/chat/completions", {"error": {
            "message": "m", "type": "invalid_request_error", "param": "p", "code": "c"}}),
        ("/v1/messages", {"type": "error", "error": {"type": "not_found_error", "message": "m"}, "request_id": "r"}),
        ("/v1/messages/count_tokens", {
            "type": "error", "error": {"type": "not_found_error", "message": "m"}, "request_id": "r"}),
        ("/api/chat", {"error": "m"}),
        ("/v1/rerank", {"id": "r", "message": "m", "error": {
            "message": "m", "type": "invalid_request_error", "param": "p", "code": "c"}}),
    ],
)  # fmt: skip
def test_each_dialect_has_its_envelope(path: str, expected: dict[str, Any]) -> None:
    assert envelope(path, Refused("m", 404, code="c", param="p"), "r") == expected


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "invalid_request_error"), (401, "authentication_error"), (403, "permission_error"),
     (405, "invalid_request_error"), (413, "request_too_large"), (429, "rate_limit_error"), (500, "api_error"),
     (501, "api_error"), (503, "overloaded_error"), (504, "timeout_error")],
)  # fmt: skip
def test_anthropics_kinds_follow_the_status(status: int, kind: str) -> None:
    assert envelope("/v1/messages", Refused("m", status))["error"]["type"] == kind


@pytest.mark.parametrize(
    ("body", "code", "param", "said"),
    [
        ({}, "missing_required_parameter", "model", "Missing required parameter: 'model'."),
        ({"model": 3}, "invalid_type", "model", "expected a string, but got an integer"),
        ({"model": "m", "n": "x"}, "invalid_type", "n", "expected an integer, but got a string"),
        ({"model": "m", "n": 0}, "integer_below_min_value", "n", ">= 1, but got 0"),
        ({"model": "m", "temperature": 3.5}, "decimal_above_max_value", "temperature", "<= 2.0, but got 3.5"),
        ({"model": "m", "messages": [{}, 1]}, "invalid_type", "messages[1]", "expected an object, but got an integer"),
        ({"model": "m", "more": 1}, "unknown_parameter", "more", "Unknown parameter: 'more'."),
        ({"model": "m", "parts": ["a", {}]}, "missing_required_parameter", "parts[1].text", "parts[1].text"),
        ({"model": "m", "parts": ["a"] * 4}, "array_above_max_length", "parts", "at most 3"),
    ],
)
def test_invalid_parameters_are_told_as_openai_does(body: Any, code: str, param: str, said: str) -> None:
    reply = client().post("/v1/echo", json=body)
    error = reply.json()["error"]
    assert (reply.status_code, error["type"], error["code"], error["param"]) == (
        400, "invalid_request_error", code, param,
    )  # fmt: skip
    assert said in error["message"]


def test_a_path_that_is_not_there_and_a_method_that_is_not_taken() -> None:
    reply = client().get("/v1/nothing")
    assert reply.status_code == 404 and reply.json()["error"]["code"] == "unknown_url"
    reply = client().get("/v1/echo")
    assert reply.status_code == 405 and reply.json()["error"]["code"] == "method_not_allowed"
    assert reply.headers["allow"] == "POST" and "it takes POST" in reply.json()["error"]["message"]


def test_a_failure_of_ours_tells_nothing_of_the_inside_and_is_logged_with_the_id(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logging.getLogger("brolly").propagate = True
    reply = client().post("/v1/fail", json={}, headers={"x-request-id": "mine"})
    assert reply.status_code == 500 and "inside" not in reply.text and "Zero" not in reply.text
    record = next(r for r in caplog.records if r.exc_info)
    assert record.request_id == "mine" and record.exc_info[0] is ZeroDivisionError  # type: ignore[attr-defined, index]


def test_a_broken_checkpoint_is_logged_without_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("brolly").propagate = True
    reply = respond(CheckpointError("weights.bin is cut short"), "POST", "/v1/chat/completions")
    assert reply.status_code == 500 and b"cut short" in reply.body
    assert [bool(r.exc_info) for r in caplog.records] == [False]


def test_a_message_with_half_a_character_can_be_sent() -> None:
    assert respond(NotFound("no \ud800 here"), "POST", "/v1/chat/completions").status_code == 404
    assert respond(OptionError("\udfff"), "POST", "/api/chat").status_code == 400
