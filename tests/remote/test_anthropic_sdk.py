"""Beside Anthropic's Python package: the same bodies for the same questions, the same answers from the same bytes."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

anthropic = pytest.importorskip("anthropic")

from brolly.remote import Remote, Target, parse  # noqa: E402
from brolly.remote.ask import Ask  # noqa: E402
from brolly.remote.dialects.anthropic import messages as dialect  # noqa: E402
from brolly.verbs import GenerateOptions, gather  # noqa: E402
from tests.remote.fakes import KEY  # noqa: E402
from tests.remote.fakes.anthropic import FakeAnthropic, signature  # noqa: E402

NEW, OLD = "claude-haiku-5-5", "claude-haiku-4-5"
HELLO = [{"role": "user", "content": "Hello"}]
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(20)).decode()
PDF = base64.b64encode(b"%PDF-1.7\n" + bytes(20)).decode()
EPHEMERAL = {"type": "ephemeral"}
SAMPLED = {"anthropic-version": "2023-06-01"}  # the last version that has sampling
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "weather", "description": "The weather.", "parameters": SCHEMA}}
THEIRS = {"name": "weather", "description": "The weather.", "input_schema": SCHEMA}
CLOSED = {**SCHEMA, "additionalProperties": False}
THOUGHT = {"type": "thinking", "thinking": "Let me think.", "signature": signature("Let me think.")}


def ours(content: Any = "Hello", *, messages: Any = None, model: str = NEW, **given: Any) -> Ask:
    names = ("tools", "choice", "parallel", "stream", "extra")
    parts = {name: given.pop(name) for name in names if name in given}
    parts["tools"] = tuple(parts.get("tools", ()))
    rows = messages or [{"role": "user", "content": content}]
    return Ask(
        messages=tuple(rows), options=GenerateOptions(**{"max_tokens": 100, **given}), **{"stream": False, **parts}
    )


def theirs(content: Any = "Hello", **given: Any) -> dict[str, Any]:
    messages = given.pop("messages", [{"role": "user", "content": content}])
    return {"model": NEW, "max_tokens": 100, "messages": messages, **given}


def image(url: str, **more: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}, **more}


CALLED = {
    "role": "assistant", "content": "I look.", "opaque": [{"vendor": "anthropic", "at": [0, 0], "block": THOUGHT}],
    "tool_calls": [
        {"id": f"toolu_{i}", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
        for i in (1, 2)
    ],
}  # fmt: skip
SAID = [
    THOUGHT,
    {"type": "text", "text": "I look."},
    *({"type": "tool_use", "id": f"toolu_{i}", "name": "weather", "input": {"city": "Rome"}} for i in (1, 2)),
]
RESULTS = [
    {"type": "tool_result", "tool_use_id": "toolu_1", "content": "mild"},
    {
        "type": "tool_result", "tool_use_id": "toolu_2", "is_error": True,
        "content": [
            {"type": "text", "text": "see"},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
        ],
    },
]  # fmt: skip

CASES: dict[str, tuple[Ask, dict[str, Any]]] = {
    "plain": (ours(), theirs()),
    "streamed": (ours(stream=True), theirs(stream=True)),
    "system": (
        ours(messages=[{"role": "system", "content": "Be kind."}, *HELLO]),
        theirs(system="Be kind."),
    ),
    "cached system": (
        ours(messages=[
            {"role": "system", "content": [{"type": "text", "text": "Be kind.", "cache_control": EPHEMERAL}]},
            {"role": "developer", "content": "Be brief."},
            *HELLO,
        ]),
        theirs(system=[
            {"type": "text", "text": "Be kind.", "cache_control": EPHEMERAL}, {"type": "text", "text": "Be brief."},
        ]),
    ),
    "later system": (
        ours(messages=[*HELLO, {"role": "system", "content": "Now in French."}, {"role": "user", "content": "Go on"}]),
        theirs(messages=[
            {"role": "user", "content": [{"type": "text", "text": "Hello"}, {"type": "text", "text": "Go on"}]},
            {"role": "system", "content": "Now in French."},
        ]),
    ),
    "tools": (
        ours(tools=[{**WEATHER, "cache_control": EPHEMERAL}]),
        theirs(tools=[{**THEIRS, "cache_control": EPHEMERAL}]),
    ),
    "strict tool": (
        ours(tools=[{"type": "function", "function": {**WEATHER["function"], "strict": True}}]),  # type: ignore[dict-item]
        theirs(tools=[{**THEIRS, "strict": True, "input_schema": CLOSED}]),
    ),
    "forced tool": (
        ours(tools=[WEATHER], choice={"type": "function", "function": {"name": "weather"}}),
        theirs(tools=[THEIRS], tool_choice={"type": "tool", "name": "weather"}),
    ),
    "any tool, one at a time": (
        ours(tools=[WEATHER], choice="required", parallel=False),
        theirs(tools=[THEIRS], tool_choice={"type": "any", "disable_parallel_tool_use": True}),
    ),
    "one tool at a time": (
        ours(tools=[WEATHER], parallel=False),
        theirs(tools=[THEIRS], tool_choice={"type": "auto", "disable_parallel_tool_use": True}),
    ),
    "no tool": (ours(tools=[WEATHER], choice="none"), theirs(tools=[THEIRS], tool_choice={"type": "none"})),
    "a vendor's tool": (
        ours(tools=[{"type": "web_search_20250305", "name": "web_search", "max_uses": 2}]),
        theirs(tools=[{"type": "web_search_20250305", "name": "web_search", "max_uses": 2}]),
    ),
    "picture": (
        ours(["Look", image(f"data:image/png;base64,{PNG}", cache_control=EPHEMERAL)]),
        theirs([
            {"type": "text", "text": "Look"},
            {
                "type": "image", "cache_control": EPHEMERAL,
                "source": {"type": "base64", "media_type": "image/png", "data": PNG},
            },
        ]),
    ),
    "picture elsewhere": (
        ours([image("https://example.org/a.png")]),
        theirs([{"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}]),
    ),
    "pdf": (
        ours([{"type": "file", "file": {"file_data": f"data:application/pdf;base64,{PDF}", "filename": "a.pdf"}}]),
        theirs([{
            "type": "document", "title": "a.pdf",
            "source": {"type": "base64", "media_type": "application/pdf", "data": PDF},
        }]),
    ),
    "tools' results with thoughts": (
        ours(
            messages=[
                *HELLO, CALLED, {"role": "tool", "tool_call_id": "toolu_1", "content": "mild"},
                {
                    "role": "tool", "tool_call_id": "toolu_2", "is_error": True,
                    "content": [{"type": "text", "text": "see"}, image(f"data:image/png;base64,{PNG}")],
                },
                {"role": "user", "content": "So?"},
            ],
            tools=[WEATHER], effort="high",
        ),
        theirs(
            messages=[
                *HELLO, {"role": "assistant", "content": SAID},
                {"role": "user", "content": [*RESULTS, {"type": "text", "text": "So?"}]},
            ],
            tools=[THEIRS], thinking={"type": "adaptive"}, output_config={"effort": "high"},
        ),
    ),
    "effort": (ours(effort="max"), theirs(thinking={"type": "adaptive"}, output_config={"effort": "max"})),
    "no effort": (ours(effort="none"), theirs(thinking={"type": "disabled"})),
    "thoughts": (ours(thoughts=True), theirs(thinking={"type": "adaptive", "display": "summarized"})),
    "schema": (
        ours(json_schema=SCHEMA, effort="low"),
        theirs(
            thinking={"type": "adaptive"},
            output_config={"effort": "low", "format": {"type": "json_schema", "schema": CLOSED}},
        ),
    ),
    "stop": (ours(stop=("a", "b")), theirs(stop_sequences=["a", "b"])),
    "the vendor's own": (
        ours(extra={"service_tier": "standard_only", "metadata": {"user_id": "u"}}),
        theirs(service_tier="standard_only", metadata={"user_id": "u"}),
    ),
}  # fmt: skip
OLDER: dict[str, tuple[Ask, dict[str, Any]]] = {
    "budget": (
        ours(effort="2000", max_tokens=4000),
        theirs(thinking={"type": "enabled", "budget_tokens": 2000}, max_tokens=4000),
    ),
    "sampling": (
        ours(temperature=0.5, top_p=0.9, top_k=5),
        theirs(extra_body={"temperature": 0.5, "top_p": 0.9, "top_k": 5}, extra_headers=SAMPLED),
    ),
    "unfinished answer": (
        ours(messages=[*HELLO, {"role": "assistant", "content": "Well,"}]),
        theirs(messages=[*HELLO, {"role": "assistant", "content": "Well,"}]),
    ),
}  # fmt: skip
ALL = [(name, NEW, *pair) for name, pair in CASES.items()] + [(name, OLD, *pair) for name, pair in OLDER.items()]


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeAnthropic]:
    with FakeAnthropic() as found, pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANTHROPIC_API_KEY", KEY)
        yield found


@pytest.fixture(scope="module")
def client(fake: FakeAnthropic) -> Any:
    """Theirs, which holds every answer against its types."""
    return anthropic.Anthropic(api_key=KEY, base_url=fake.url, max_retries=0, _strict_response_validation=True)


def target(model: str, fake: FakeAnthropic) -> Target:
    return replace(parse(f"anthropic:{model}"), base=fake.url)


def plain(ask: Ask) -> Ask:
    """The same as `Remote` has it: texts among parts are parts."""
    from brolly.remote.content import messages_of

    return replace(ask, messages=messages_of(ask.messages))


@pytest.mark.parametrize(("name", "model", "ask", "given"), ALL, ids=[one[0] for one in ALL])
def test_the_body_is_the_one_that_their_package_sends(
    name: str, model: str, ask: Ask, given: dict[str, Any], fake: FakeAnthropic, client: Any
) -> None:
    found = client.messages.create(**{**given, "model": model})
    if given.get("stream"):
        list(found)
    sent = fake.requests[-1]
    call = dialect.call(plain(ask), target(model, fake))
    assert not dialect.lacks(plain(ask), target(model, fake))
    assert json.loads(json.dumps(call.body)) == sent.json
    assert call.path == sent.path
    assert call.headers["anthropic-version"] == sent.headers["anthropic-version"]


@pytest.mark.parametrize(("name", "model", "ask", "given"), ALL, ids=[one[0] for one in ALL])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_what_their_package_reads_we_read(
    name: str, model: str, ask: Ask, given: dict[str, Any], stream: bool, fake: FakeAnthropic, client: Any
) -> None:
    given = {**given, "model": model}
    given.pop("stream", None)
    if stream:
        with client.messages.stream(**given) as told:
            theirs = told.get_final_message()
    else:
        theirs = client.messages.create(**given)
    remote = Remote(target(model, fake))
    mine = gather(remote._pieces(replace(plain(ask), stream=stream)))
    assert mine.text == "".join(one.text for one in theirs.content if one.type == "text")
    thoughts = "".join(one.thinking for one in theirs.content if one.type == "thinking")
    assert (mine.reasoning or "") == thoughts
    calls = [(one.id, one.name, one.input) for one in theirs.content if one.type == "tool_use"]
    assert [(one.id, one.name, json.loads(one.arguments)) for one in mine.tool_calls] == calls
    kept = [one.to_dict() for one in theirs.content if "thinking" in one.type]
    assert [row["block"] for row in mine.opaque] == kept
    assert mine.finish_reason == dialect_end(theirs.stop_reason)
    assert mine.usage.prompt_tokens == theirs.usage.input_tokens + (
        theirs.usage.cache_read_input_tokens + theirs.usage.cache_creation_input_tokens
    )
    assert mine.usage.completion_tokens == theirs.usage.output_tokens
    assert mine.usage.reasoning_tokens == theirs.usage.output_tokens_details.thinking_tokens


def dialect_end(reason: str) -> str:
    ends = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "tool_use": "tool_calls"}
    return ends[reason]


def test_tokens_are_counted_by_the_same_body(fake: FakeAnthropic, client: Any) -> None:
    ask, given = CASES["tools' results with thoughts"]
    counted = client.messages.count_tokens(**{name: value for name, value in given.items() if name != "max_tokens"})
    sent = fake.requests[-1]
    call = dialect.count(plain(ask), target(NEW, fake))
    assert json.loads(json.dumps(call.body)) == sent.json and call.path == sent.path
    assert dialect.counted({"input_tokens": counted.input_tokens}) == counted.input_tokens > 0


def test_betas_are_a_header_as_theirs(fake: FakeAnthropic, client: Any) -> None:
    betas = ["context-1m-2025-08-07", "files-api-2025-04-14"]
    client.beta.messages.create(model=NEW, max_tokens=100, messages=HELLO, betas=betas)
    sent = fake.requests[-1]
    call = dialect.call(ours(extra={"betas": betas}), target(NEW, fake))
    assert call.headers["anthropic-beta"] == sent.headers["anthropic-beta"]
    assert call.body is not None and dict(call.body) == sent.json


def test_models_are_those_that_their_package_lists(fake: FakeAnthropic, client: Any) -> None:
    from brolly.remote.dialects.anthropic import models

    found = list(client.models.list(limit=2))
    mine = models.listed(fake.models({"limit": "1000"}).body)[0]
    assert [(one.id, one.display_name, one.max_input_tokens) for one in found] == [
        (one.id, one.title, one.context) for one in mine
    ]  # fmt: skip
    assert [max(int(one.created_at.timestamp()), 0) for one in found] == [one.created or 0 for one in mine]


@pytest.mark.parametrize(("text", "status"), [("toolong", 400), ("forbidden", 200)])
def test_refusals_are_read_by_both(text: str, status: int, fake: FakeAnthropic, client: Any) -> None:
    rows = [{"role": "user", "content": text}]
    if status == 400:
        with pytest.raises(anthropic.BadRequestError) as told:
            client.messages.create(model=NEW, max_tokens=9, messages=rows)
        said = dialect.told(told.value.body)
        assert (said.kind, said.message) == ("invalid_request_error", told.value.api_message)
        return
    found = client.messages.create(model=NEW, max_tokens=9, messages=rows)
    mine = Remote(target(NEW, fake)).chat(rows, max_tokens=9)
    assert (found.stop_reason, mine.finish_reason, mine.text) == ("refusal", "content_filter", found.content[0].text)
