"""What vendors say when they cannot answer, from their references and sources: each is the one right error."""

from __future__ import annotations

import json
from dataclasses import replace
from email.utils import formatdate
from importlib import import_module
from typing import Any

import pytest

from brolly.errors import (
    BadAnswer,
    BrollyError,
    Busy,
    ContextTooLong,
    Filtered,
    KeyRefused,
    NotFound,
    OptionError,
    Overloaded,
    QuotaSpent,
    RemoteError,
    Unreachable,
)
from brolly.remote import parse
from brolly.remote.dialect import Told
from brolly.remote.faults import LONGEST, cleaned, fault, kind_of, page_told, retry_after, seconds_within
from brolly.remote.vendors import vendors

TARGET = parse("openai:gpt-6")
SAID: list[tuple[int, str, str, type[BrollyError]]] = [
    # OpenAI
    (401, "invalid_api_key", "Incorrect API key provided: sk-te***63.", KeyRefused),
    (401, "mismatched_organization", "OpenAI-Organization header should match organization for API key", KeyRefused),
    (403, "unsupported_country_region_territory", "Country, region, or territory not supported", KeyRefused),
    (429, "rate_limit_exceeded", "Rate limit reached for gpt-6. Please try again in 1.5s.", Busy),
    (429, "tokens", "Rate limit reached for gpt-6 on tokens per min (TPM)", Busy),
    (429, "slow_down", "Slow down", Busy),
    (503, "slow_down", "Slow down", Busy),
    (429, "insufficient_quota", "You exceeded your current quota, please check your plan.", QuotaSpent),
    (429, "credit_balance_exhausted", "You have run out of credits.", QuotaSpent),
    (400, "billing_hard_limit_reached", "Billing hard limit has been reached", QuotaSpent),
    (400, "context_length_exceeded", "Your input exceeds the context window of this model.", ContextTooLong),
    (400, "content_policy_violation", "Your request was rejected as a result of our safety system.", Filtered),
    (400, "moderation_blocked", "Your request was rejected by the safety system.", Filtered),
    (400, "invalid_prompt", "Your prompt was flagged as potentially violating our usage policy.", Filtered),
    (404, "model_not_found", "The model `gpt-9` does not exist or you do not have access to it.", NotFound),
    (400, "unsupported_parameter", "Unsupported parameter: 'max_tokens'.", OptionError),
    (400, "invalid_request_error", "Invalid 'messages[0]'", OptionError),
    (500, "server_error", "The server had an error while processing your request.", RemoteError),
    (503, "server_is_overloaded", "Our servers are currently overloaded.", Overloaded),
    # Azure
    (400, "content_filter", "The response was filtered due to the content management policy.", Filtered),
    (404, "DeploymentNotFound", "The API deployment for this resource does not exist.", NotFound),
    # Anthropic
    (401, "authentication_error", "invalid x-api-key", KeyRefused),
    (403, "permission_error", "Your API key does not have permission to use the specified resource.", KeyRefused),
    (402, "billing_error", "There is an issue with your billing.", QuotaSpent),
    (400, "invalid_request_error", "Your credit balance is too low to access the Anthropic API.", QuotaSpent),
    (400, "invalid_request_error", "prompt is too long: 208310 tokens > 200000 maximum", ContextTooLong),
    (400, "invalid_request_error", "input length and `max_tokens` exceed context limit: 1 + 2 > 2", ContextTooLong),
    (400, "invalid_request_error", "max_tokens: Field required", OptionError),
    (404, "not_found_error", "model: claude-9", NotFound),
    (413, "request_too_large", "Request exceeds the maximum allowed number of bytes.", OptionError),
    (429, "rate_limit_error", "This request would exceed your organization's rate limit", Busy),
    (500, "api_error", "Internal server error", RemoteError),
    (504, "timeout_error", "Request timed out", Unreachable),
    (529, "overloaded_error", "Overloaded", Overloaded),
    (0, "overloaded_error", "Overloaded", Overloaded),
    (0, "api_error", "Internal server error", RemoteError),
    # Gemini
    (400, "API_KEY_INVALID", "API key not valid. Please pass a valid API key.", KeyRefused),
    (400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", KeyRefused),
    (400, "INVALID_ARGUMENT", "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
     ContextTooLong),
    (400, "INVALID_ARGUMENT", "Invalid value at 'generation_config.temperature'", OptionError),
    (400, "FAILED_PRECONDITION", "User location is not supported for the API use.", KeyRefused),
    (403, "PERMISSION_DENIED", "Permission denied", KeyRefused),
    (404, "NOT_FOUND", "models/gemini-9 is not found for API version v1beta", NotFound),
    (429, "RESOURCE_EXHAUSTED", "You exceeded your current quota. Please retry in 23.4s.", Busy),
    (500, "INTERNAL", "An internal error has occurred.", RemoteError),
    (503, "UNAVAILABLE", "The model is overloaded. Please try again later.", Overloaded),
    (504, "DEADLINE_EXCEEDED", "Deadline expired", Unreachable),
    # Bedrock
    (429, "ThrottlingException", "Too many requests, please wait before trying again.", Busy),
    (400, "ValidationException", "Input is too long for requested model.", ContextTooLong),
    (403, "AccessDeniedException", "You don't have access to the model.", KeyRefused),
    (404, "com.amazonaws#ResourceNotFoundException", "no such model", NotFound),
    # vLLM, llama.cpp, Mistral, DeepSeek, OpenRouter
    (400, "BadRequestError", "This model's maximum context length is 4096 tokens. However, you requested 5000.",
     ContextTooLong),
    (400, "exceed_context_size_error", "the request exceeds the available context size", ContextTooLong),
    (404, "NotFoundError", "The model `x` does not exist.", NotFound),
    (400, "3051", "Prompt contains 40000 tokens, too large for model with 32768 maximum", ContextTooLong),
    (402, "", "Insufficient Balance", QuotaSpent),
    (402, "402", "Insufficient credits", QuotaSpent),
    # nobody's envelope
    (400, "", "", OptionError), (401, "", "", KeyRefused), (403, "", "", KeyRefused), (404, "", "", NotFound),
    (408, "", "", Unreachable), (409, "", "", OptionError), (418, "", "", OptionError), (422, "", "", OptionError),
    (429, "", "", Busy), (500, "", "", RemoteError), (502, "", "", Unreachable), (503, "", "", Overloaded),
    (504, "", "", Unreachable), (529, "", "", Overloaded), (522, "", "", Unreachable),
    (524, "", "", Unreachable), (599, "", "", RemoteError), (302, "", "", BadAnswer),
    (0, "", "", RemoteError),
]  # fmt: skip


@pytest.mark.parametrize(("status", "kind", "message", "error"), SAID)
def test_what_vendors_say_is_the_one_right_error(
    status: int, kind: str, message: str, error: type[BrollyError]
) -> None:
    found = fault(status, Told(kind, message), TARGET)
    assert type(found) is error
    text = str(found)
    assert text.endswith(".") and text.isprintable() and "{" not in text and ".." not in text
    assert "api.openai.com" in text or error is ContextTooLong
    if status and isinstance(found, RemoteError):
        assert found.status == status and str(status) in text


def test_an_error_says_what_to_do() -> None:
    refused = str(fault(401, Told("invalid_api_key", "Incorrect API key"), TARGET))
    assert "OPENAI_API_KEY" in refused and "`brolly keys set openai`" in refused
    own = parse("https://my.host:8000/v1#m")
    assert "`brolly keys set https://my.host:8000`" in str(fault(401, Told(), own, keyed=False))
    assert "wants a key" in str(fault(401, Told(), own, keyed=False))
    assert "`brolly list openai:`" in str(fault(404, Told(), TARGET))
    away = replace(TARGET, base="http://my.host")  # without the /v1
    lost = str(fault(404, Told("", "Invalid URL (POST /chat/completions)"), away))
    assert "see whether http://my.host is its address (otherwise it is https://api.openai.com/v1)" in lost
    assert f"has no {TARGET.model}" not in lost
    assert f"has no {TARGET.model}" in str(fault(404, Told("", f"{TARGET.model} is not found"), away))
    assert TARGET.vendor.console in str(fault(402, Told(), TARGET))
    assert "at temperature" in str(fault(400, Told("unsupported_value", "no", "temperature"), TARGET))


def test_when_to_ask_again_is_the_headers_then_the_bodys_then_the_messages_word() -> None:
    told = Told("rate_limit_exceeded", "Please try again in 3s.", after=2.0)
    busy = fault(429, told, TARGET, after=1.0)
    assert isinstance(busy, Busy) and busy.retry_after == 1.0
    busy = fault(429, told, TARGET)
    assert isinstance(busy, Busy) and busy.retry_after == 2.0
    busy = fault(429, told._replace(after=None), TARGET)
    assert isinstance(busy, Busy) and busy.retry_after == 3.0 and "in 3 s" in str(busy)
    full = fault(529, Told(), TARGET, after=0.0)
    assert isinstance(full, Overloaded) and full.retry_after == 0.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3.0), ({"retry-after": "0.5"}, 0.5), ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25), ({"retry-after": "soon"}, None), ({}, None),
        ({"retry-after": "-1"}, None), ({"retry-after": "nan"}, None), ({"retry-after": "inf"}, None),
        ({"retry-after": "9" * 400}, None), ({"retry-after": ""}, None), ({"retry-after": "1e5"}, None),
        ({"retry-after": "Fri, 99 Foo 2026 00:00:00 GMT"}, None),
        ({"retry-after": formatdate(1_000_000_030, usegmt=True), "date": formatdate(1_000_000_000, usegmt=True)}, 30.0),
        ({"retry-after": formatdate(1_000_000_000, usegmt=True)}, 0.0),
    ],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date_and_never_nonsense(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Please try again in 20s.", 20.0), ("Please try again in 6m0s.", 360.0), ("try again in 431ms. Visit", 0.431),
        ("Please retry in 23.396s.", 23.396), ("try again in 1h2m3.5s", 3723.5), ("Please try again later.", None),
        ("try again in a moment", None), ("", None), ("retry after 12 seconds", 12.0),
    ],
)  # fmt: skip
def test_a_message_may_say_when_to_ask_again(text: str, seconds: float | None) -> None:
    assert seconds_within(text) == seconds


def test_vendors_words_are_one_bounded_line_without_keys() -> None:
    key = "sk-proj-AbCdEfGhIjKlMnOpQrStUvWx"
    assert key not in cleaned(f"Incorrect API key provided: {key}.", [key])
    for part in (key[:12], key[-12:], key[6:20]):
        assert part not in cleaned(f"the key {part}… is wrong", [key])
    assert cleaned("Incorrect API key provided: sk-te***************63.") == "Incorrect API key provided: …"
    assert cleaned("a\n\tb\x1b[31m\u202ec\x00  d.") == "a b [31m c d"
    assert len(cleaned("x" * 100_000)) == LONGEST
    assert cleaned("the model ollama is unknown", ["ollama-key"]) == "the model ollama is unknown"
    assert "hunter2" not in cleaned("key hunter2", ["hunter2"])


def test_a_page_tells_its_title() -> None:
    told = page_told(b"<!DOCTYPE html><html><head><title>\n502 Bad Gateway</title>", "text/html")
    assert "a web page" in told.message and "502 Bad Gateway" in told.message
    assert page_told(b"upstream \xff error", "text/plain").message.startswith("upstream")
    assert "a web page" in page_told(b"<html", "").message
    assert str(fault(502, told, TARGET)).count("502") == 2


WEIRD: list[Any] = [
    None, True, 0, 1e308, "", "text", [], [1], [[]], [None], {}, {"error": None}, {"error": 1}, {"error": "text"},
    {"error": []}, {"error": [1]}, {"error": {}}, {"error": {"message": None}}, {"error": {"message": 3, "code": []}},
    {"error": {"message": {"a": 1}, "type": {}, "code": 429, "status": 1, "param": ["x"], "details": {}}},
    {"error": {"details": [None, 1, "x", {}, {"@type": 3}, {"@type": "x.RetryInfo", "retryDelay": 5}]}},
    {"error": {"details": [{"@type": "x.RetryInfo", "retryDelay": "9" * 500 + "s"}]}},
    {"error": {"details": [{"@type": "x.ErrorInfo", "reason": []}]}},
    {"error": {"details": {"error_code": 5}}, "type": 7}, {"detail": [{"msg": 1, "loc": 3}]}, {"detail": "text"},
    {"message": ["x"], "Message": 5, "__type": {}}, {"error": {"message": "x" * 100_000, "type": "y" * 100_000}},
    [{"error": {"message": "m", "status": "NOT_FOUND"}}, 1], {"response": {"error": 5}}, {"error": {"code": True}},
]  # fmt: skip
NAMES = sorted({name for vendor in vendors().values() for names in vendor.dialects.values() for name in names})


@pytest.mark.parametrize("name", NAMES)
def test_every_dialect_takes_any_json_for_an_error(name: str) -> None:
    """A vendor's answer is hostile input."""
    told = import_module(f"brolly.remote.dialects.{name}").told
    for body in WEIRD:
        said = told(body)
        assert isinstance(said, Told) and all(isinstance(part, str) for part in said[:3]), body
        assert said.after is None or 0 <= said.after < 1e12, body
        for status in (0, 400, 429, 500):
            error = fault(status, said, TARGET)
            assert isinstance(error, BrollyError) and len(str(error)) < 1500, json.dumps(body)[:100]


def test_codes_are_read_whatever_their_letters() -> None:
    assert kind_of(400, Told("Context_Length_Exceeded")) is ContextTooLong
    assert kind_of(200, Told("overloaded_error")) is Overloaded
