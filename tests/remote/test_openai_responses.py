"""OpenAI's responses: what is sent, what goes back with the next turn, and what is read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from brolly.errors import BadAnswer, BrollyError, Busy, Filtered, OptionError, RemoteError
from brolly.remote.dialects.openai import responses
from brolly.verbs import Generation, ToolCall, Usage
from tests.remote.wire import PDF, PNG, WEATHER, answer_of, ask_of, read, target_of

OPENAI = target_of("openai-responses:gpt-4.1")


def body(ask: Any, target: Any = OPENAI) -> dict[str, Any]:
    found = responses.call(ask, target).body
    assert found is not None
    json.dumps(found)
    return dict(found)


def items(*messages: Any) -> list[Any]:
    found: list[Any] = body(ask_of([{"role": "user", "content": "Hi"}, *messages]))["input"][1:]
    return found


# What is sent ---------------------------------------------------------------------------------------------------------


def test_nothing_is_stored_and_instructions_stand_first() -> None:
    found = body(ask_of([
        {"role": "developer", "content": [{"type": "text", "text": "Be brief"}]}, {"role": "user", "content": "Hi"},
        {"role": "system", "content": "And kind"},
    ]))  # fmt: skip
    assert found == {
        "model": "gpt-4.1", "store": False, "instructions": "Be brief",
        "input": [{"role": "user", "content": "Hi"}, {"role": "system", "content": "And kind"}],
    }  # fmt: skip


def test_what_responses_have_no_word_for_is_told() -> None:
    sound = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    several = [
        (ask_of("Hi", n=2), "one answer"), (ask_of("Hi", max_tokens=15), "16 tokens or more"),
        (ask_of("Hi", logprobs=21), "20 log-probabilities"), (ask_of("Hi", template={"a": 1}), "chat template"),
        (ask_of([{"role": "user", "content": [sound]}]), "hears nothing"),
        (ask_of([{"role": "user", "content": [{"type": "video_url"}]}]), "no video_url"),
    ]  # fmt: skip
    for ask, why in several:
        (said,) = responses.lacks(ask, OPENAI)
        assert why in said
    for name in ("stop", "seed", "presence_penalty", "logit_bias", "top_k"):
        assert name not in responses.OPTIONS


def test_tools_may_be_allowed_by_name() -> None:
    choice = {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "weather"}}]},
    }
    assert body(ask_of("Hi", tools=[WEATHER], tool_choice=choice))["tool_choice"] == {
        "type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "weather"}],
    }  # fmt: skip
    nothing = {"type": "function", "function": {"name": "now"}}
    (tool,) = body(ask_of("Hi", tools=[nothing]))["tools"]
    assert tool == {
        "type": "function", "name": "now", "parameters": {"type": "object", "properties": {}}, "strict": False,
    }  # fmt: skip


def test_a_tools_answer_may_be_an_error_or_pictures() -> None:
    answer = {"role": "tool", "tool_call_id": "c1", "content": "none"}
    assert items(answer, {**answer, "is_error": True}) == [
        {"type": "function_call_output", "call_id": "c1", "output": "none"},
        {"type": "function_call_output", "call_id": "c1", "output": "Error: none"},
    ]
    parts = [{"type": "image_url", "image_url": {"url": PNG}}, {"type": "file", "file": {"file_data": PDF}}]
    said = [
        {"type": "input_image", "image_url": PNG, "detail": "auto"}, {"type": "input_file", "file_data": PDF},
    ]  # fmt: skip
    assert items({**answer, "content": parts})[0]["output"] == said
    assert items({**answer, "content": parts, "is_error": True})[0]["output"] == [
        {"type": "input_text", "text": "Error:"}, *said,
    ]  # fmt: skip
    assert items({**answer, "content": [{"type": "image_url", "image_url": PNG}]})[0]["output"] == said[:1]
    with pytest.raises(OptionError, match="image_url"):
        items({**answer, "content": [{"type": "image_url", "image_url": {}}]})


def thought(id: str) -> dict[str, Any]:
    return {"id": id, "type": "reasoning", "summary": [], "encrypted_content": f"sealed-{id}"}


def own(**fields: Any) -> dict[str, Any]:
    return {"vendor": "openai", **fields}


def called(id: str) -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": "weather", "arguments": "{}"}}


def test_a_turn_goes_back_in_the_order_in_which_it_was_written() -> None:
    turn = {
        "role": "assistant", "content": "Let me see. And again.", "tool_calls": [called("c1"), called("c2")],
        "opaque": [
            {"vendor": "anthropic", "item": {"type": "thinking"}}, own(item=thought("r1")),
            own(said="Let me see. ", phase="commentary"), own(item=thought("r2")), own(call="c1"),
            own(said="And again."), own(call="c2"),
        ],
    }  # fmt: skip
    call = {"type": "function_call", "name": "weather", "arguments": "{}"}
    assert items(turn) == [
        thought("r1"), {"role": "assistant", "content": "Let me see. ", "phase": "commentary"}, thought("r2"),
        {**call, "call_id": "c1"}, {"role": "assistant", "content": "And again."}, {**call, "call_id": "c2"},
    ]  # fmt: skip
    changed = {**turn, "content": "Other words", "tool_calls": [called("c2")]}
    assert items(changed) == [
        thought("r1"), {"role": "assistant", "content": "Other words", "phase": "commentary"}, thought("r2"),
        {**call, "call_id": "c2"},
    ]  # fmt: skip
    plain = {key: value for key, value in turn.items() if key != "opaque"}
    assert items(plain) == [
        {"role": "assistant", "content": "Let me see. And again."},
        {**call, "call_id": "c1"}, {**call, "call_id": "c2"},
    ]  # fmt: skip
    cut = {"role": "assistant", "content": None, "opaque": [own(item=thought("r1"))]}
    assert items(cut) == [{"role": "assistant", "content": ""}]


def test_thoughts_are_asked_for_sealed_where_a_model_thinks() -> None:
    assert "include" not in body(ask_of("Hi"))
    assert body(ask_of("Hi", effort="none"))["reasoning"] == {"effort": "none"}
    assert "include" not in body(ask_of("Hi", effort="none"))
    assert body(ask_of("Hi", thoughts=True))["include"] == ["reasoning.encrypted_content"]
    assert body(ask_of("Hi"), target_of("openai:gpt-6.2-astra"))["include"] == ["reasoning.encrypted_content"]
    assert "reasoning" not in body(ask_of("Hi", effort="4096"))


def test_lists_of_the_vendors_own_join_ours() -> None:
    found = body(ask_of("Hi", tools=[WEATHER], logprobs=1, extra={
        "tools": [{"type": "web_search"}], "include": ["web_search_call.results"], "store": False,
    }))  # fmt: skip
    assert [tool["type"] for tool in found["tools"]] == ["function", "web_search"]
    assert found["include"] == ["message.output_text.logprobs", "web_search_call.results"]
    assert found["store"] is False


# What is read ---------------------------------------------------------------------------------------------------------

USAGE = {
    "input_tokens": 7, "output_tokens": 5, "total_tokens": 12,
    "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 1},
    "output_tokens_details": {"reasoning_tokens": 3},
}  # fmt: skip
SEVEN = Usage(7, 5, 2, 3, 1)
TEXT = {"id": "m1", "type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hello"}]}
CALLED = {"id": "f1", "type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"a": 1}'}
THOUGHT = {**thought("r1"), "summary": [{"type": "summary_text", "text": "Hm"}, {"type": "summary_text", "text": "Ha"}]}
RAW = {"id": "r1", "type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm"}]}


def event(kind: str, at: int = 0, **more: Any) -> tuple[str, Any]:
    return f"response.{kind}", {"type": f"response.{kind}", "output_index": at, **more}


def ended(*output: Any, status: str = "completed", **more: Any) -> tuple[str, Any]:
    response = {"id": "x", "object": "response", "status": status, "output": list(output), "usage": USAGE, **more}
    return f"response.{status}", {"type": f"response.{status}", "response": response}


def generation(text: str = "", finish: str = "stop", **more: Any) -> Generation:
    return Generation(text, [], finish, SEVEN, logprobs=[], **more)


SEARCH = {"id": "w1", "type": "web_search_call", "status": "completed"}
LONG = {"reason": "max_output_tokens"}
WROTE = [event("output_text.delta", delta="Hel"), event("output_text.delta", delta="lo")]
WEATHER_CALL = (ToolCall("c1", "weather", '{"a": 1}'),)
STREAMS: dict[str, tuple[list[tuple[str, Any]], Generation]] = {
    "text": (
        [event("created", response={}), *WROTE, event("output_item.done", item=TEXT), ended(TEXT)], generation("Hello"),
    ),
    "only deltas": ([*WROTE, ended()], generation("Hello")),
    "only items": ([event("output_item.done", item=TEXT), ended()], generation("Hello")),
    "only the response": ([ended(TEXT)], generation("Hello")),
    "names of events alone": (
        [(name, {key: value for key, value in data.items() if key != "type"}) for name, data in [*WROTE, ended()]],
        generation("Hello"),
    ),
    "cut": (
        [*WROTE, ended(status="incomplete", incomplete_details=LONG)],
        generation("Hello", "length"),
    ),
    "filtered": (
        [*WROTE, ended(status="incomplete", incomplete_details={"reason": "content_filter"})],
        generation("Hello", "content_filter"),
    ),
    "refused": (
        [event("refusal.delta", delta="No"), event("refusal.delta", delta="."), ended()],
        generation("No.", "content_filter"),
    ),
    "refused as a whole": (
        [ended({**TEXT, "content": [{"type": "refusal", "refusal": "No."}]})], generation("No.", "content_filter"),
    ),
    "a call": (
        [
            event("output_item.added", item={**CALLED, "arguments": ""}),
            event("function_call_arguments.delta", delta='{"a"'), event("function_call_arguments.delta", delta=": 1}"),
            event("function_call_arguments.done", arguments='{"a": 1}'), event("output_item.done", item=CALLED),
            ended(CALLED),
        ],
        generation("", "tool_calls", tool_calls=WEATHER_CALL),
    ),
    "a whole call": (
        [event("output_item.done", item=CALLED), ended()], generation("", "tool_calls", tool_calls=WEATHER_CALL),
    ),
    "a cut call": (
        [
            event("output_item.added", item={**CALLED, "arguments": ""}),
            event("function_call_arguments.delta", delta='{"a"'),
            ended({**CALLED, "arguments": '{"a"'}, status="incomplete", incomplete_details=LONG),
        ],
        generation("", "length", tool_calls=(ToolCall("c1", "weather", '{"a"'),)),
    ),
    "thoughts": (
        [
            event("reasoning_summary_text.delta", summary_index=0, delta="H"),
            event("reasoning_summary_text.delta", summary_index=0, delta="m"),
            event("reasoning_summary_text.delta", summary_index=1, delta="Ha"), event("output_item.done", item=THOUGHT),
            event("output_text.delta", 1, delta="Hello"), event("output_item.done", 1, item=TEXT), ended(THOUGHT, TEXT),
        ],
        generation("Hello", reasoning="Hm\n\nHa", opaque=(own(item=THOUGHT), own(said="Hello"))),
    ),
    "thoughts as a whole": (
        [ended(THOUGHT, TEXT)],
        generation("Hello", reasoning="Hm\n\nHa", opaque=(own(item=THOUGHT), own(said="Hello"))),
    ),
    "gpt-oss's thoughts": (
        [event("reasoning_text.delta", content_index=0, delta="Hm"), ended(RAW, TEXT)],
        generation("Hello", reasoning="Hm", opaque=(own(item=RAW), own(said="Hello"))),
    ),
    "thoughts that nothing keeps": (
        [ended({**THOUGHT, "encrypted_content": None}, TEXT)], generation("Hello", reasoning="Hm\n\nHa"),
    ),
    "words, thoughts, a call": (
        [ended(TEXT, THOUGHT, CALLED)],
        generation(
            "Hello", "tool_calls", reasoning="Hm\n\nHa", tool_calls=WEATHER_CALL,
            opaque=(own(said="Hello"), own(item=THOUGHT), own(call="c1")),
        ),
    ),
    "words on the way": (
        [ended({**TEXT, "phase": "commentary"}, CALLED)],
        generation(
            "Hello", "tool_calls", tool_calls=WEATHER_CALL,
            opaque=(own(said="Hello", phase="commentary"), own(call="c1")),
        ),
    ),
    "a search": (
        [ended(SEARCH, TEXT)], generation("Hello", opaque=(own(item=SEARCH), own(said="Hello"))),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STREAMS)
def test_events_become_one_answer(name: str) -> None:
    events, expected = STREAMS[name]
    assert answer_of(read(responses, ask_of("Hi", stream=True), OPENAI, events)) == expected


@pytest.mark.parametrize("name", STREAMS)
def test_what_goes_back_says_the_same(name: str) -> None:
    events, expected = STREAMS[name]
    found = items(expected.message)
    text = "".join(item["content"] for item in found if item.get("role") == "assistant")
    assert text == expected.text
    assert [item["call_id"] for item in found if item.get("type") == "function_call"] == ["c1"] * len(
        expected.tool_calls
    )
    if expected.opaque:
        kinds = [item.get("type", "message") for item in events[-1][1]["response"]["output"]]
        assert [item.get("type", "message") for item in found] == kinds


BROKE = {"code": "server_error", "message": "it broke"}
WRONG: dict[str, tuple[list[tuple[str, Any]], type[BrollyError], str]] = {
    "cut": (WROTE, BadAnswer, "before the answer was whole"),
    "DONE too early": ([*WROTE, ("", "[DONE]")], BadAnswer, "before the answer was whole"),
    "an error": ([("error", {"type": "error", "code": "rate_limit_exceeded", "message": "slow"})], Busy, "slow"),
    "an error within": ([("error", {"type": "error", "error": BROKE})], RemoteError, "broke"),
    "failed": ([ended(status="failed", error=BROKE)], RemoteError, "broke"),
    "forbidden": ([ended(status="failed", error={"code": "invalid_prompt", "message": "no"})], Filtered, "no"),
    "cancelled": ([ended(status="cancelled")], BadAnswer, "cancelled"),
    "a broken call": ([ended({**CALLED, "arguments": "{"})], BadAnswer, "'weather'.*no JSON object"),
    "a call without a name": ([ended({**CALLED, "name": None})], BadAnswer, "without a name"),
    "arguments of nothing": ([event("function_call_arguments.delta", delta="{")], BadAnswer, "had not begun"),
    "no object": ([("", [])], BadAnswer, "expected an object"),
    "no place": ([event("output_text.delta", -1, delta="x")], BadAnswer, "output_index"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_events_that_are_wrong_say_why(name: str) -> None:
    events, kind, why = WRONG[name]
    with pytest.raises(kind, match=why):
        read(responses, ask_of("Hi", stream=True), OPENAI, events)


def test_a_response_that_is_none_says_why() -> None:
    for wrong, kind in (
        ([], BadAnswer), ({}, BadAnswer), ({"status": "queued", "output": []}, BadAnswer),
        ({"status": "completed", "output": 3}, BadAnswer),
        ({"error": {"message": "x", "code": "rate_limit_exceeded"}}, Busy),
    ):  # fmt: skip
        with pytest.raises(kind):
            responses.whole(wrong, ask_of("Hi"), OPENAI)
    for wrong in ({}, None, {"input_tokens": -1}, {"input_tokens": "3"}):
        with pytest.raises(BadAnswer):
            responses.counted(wrong)


def test_a_stream_is_read_once_it_ended_no_further() -> None:
    reader = responses.reader(ask_of("Hi", stream=True), OPENAI)
    assert [piece.finish_reason for piece in reader.push(*ended(TEXT))] == [None, "stop"]
    assert reader.push(*WROTE[0]) == [] and reader.push("", "[DONE]") == [] and reader.end() == []
