"""OpenAI's chats and those of servers that speak them: what is sent, what is refused, and what is read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from brolly.errors import BadAnswer, BrollyError, Busy, OptionError, Overloaded
from brolly.remote.dialects.openai import chat, responses
from brolly.remote.dialects.openai.words import loose
from brolly.remote.shapes import schema_of
from brolly.verbs import Generation, ToolCall, Usage
from tests.remote.wire import CITY, PNG, WEATHER, answer_of, ask_of, read, target_of

OPENAI = target_of()
VLLM = target_of("vllm:qwen3")


def body(ask: Any, target: Any = OPENAI) -> dict[str, Any]:
    found = chat.call(ask, target).body
    assert found is not None
    json.dumps(found)
    return dict(found)


# What is sent ---------------------------------------------------------------------------------------------------------


def test_a_vendors_own_words_are_said_and_no_others() -> None:
    ask = ask_of(
        "Hi", max_tokens=5, top_k=3, min_p=0.1, repetition_penalty=1.1, min_tokens=2, ignore_eos=True, regex="[ab]+",
        template={"enable_thinking": False}, effort="low",
    )  # fmt: skip
    assert body(ask, VLLM) == {
        "model": "qwen3", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5, "top_k": 3, "min_p": 0.1,
        "repetition_penalty": 1.1, "min_tokens": 2, "ignore_eos": True, "structured_outputs": {"regex": "[ab]+"},
        "chat_template_kwargs": {"enable_thinking": False}, "reasoning_effort": "low",
    }  # fmt: skip
    assert chat.lacks(ask, VLLM) == []
    renamed = target_of("mistral:large")
    assert body(ask_of("Hi", seed=3, max_tokens=4), renamed) | {"messages": []} == {
        "model": "large", "messages": [], "random_seed": 3, "max_tokens": 4,
    }  # fmt: skip
    told = target_of("groq:a")
    assert body(ask_of("Hi", thoughts=True), told)["include_reasoning"] is True
    assert body(ask_of("Hi", thoughts=True), VLLM).keys() == {"model", "messages"}
    nested = target_of("openrouter:a/b")
    assert body(ask_of("Hi", effort="high"), nested)["reasoning"] == {"effort": "high"}


def test_choices_and_grammars_travel_where_a_vendor_says_so() -> None:
    assert body(ask_of("Hi", choice=("a", "b")), VLLM)["structured_outputs"] == {"choice": ["a", "b"]}
    ask = ask_of("Hi", grammar='root ::= "a"')
    assert body(ask, VLLM)["structured_outputs"] == {"grammar": 'root ::= "a"'}
    llama = target_of("llamacpp:x", words={"grammar": "grammar"})
    assert body(ask, llama)["grammar"] == 'root ::= "a"'


def test_what_there_is_no_word_for_is_told() -> None:
    several = [
        (ask_of("Hi", logprobs=21), OPENAI, "20 log-probabilities"),
        (ask_of("Hi", template={"a": 1}), OPENAI, "chat template"),
        (ask_of("Hi", n=2), target_of(lacks=("n",)), "one answer"),
        (ask_of("Hi", tools=[WEATHER]), target_of(lacks=("tools",)), "no tools"),
        (ask_of("Hi", tools=[WEATHER], parallel=False), target_of(lacks=("parallel_tool_calls",)), "one call"),
        (ask_of([{"role": "user", "content": [sound("flac")]}]), OPENAI, "WAV and MP3, not flac"),
        (ask_of([{"role": "tool", "tool_call_id": "1", "content": [picture()]}]), OPENAI, "text alone from a tool"),
    ]
    for ask, target, why in several:
        (said,) = chat.lacks(ask, target)
        assert why in said
    assert chat.lacks(ask_of([{"role": "user", "content": [sound("flac")]}]), target_of(takes=("flac",))) == []


def test_effort_in_tokens_is_left_out_with_a_word() -> None:
    (hint,) = chat.hints(ask_of("Hi", effort="4096"), OPENAI)
    assert "4096 tokens" in hint
    assert "reasoning_effort" not in body(ask_of("Hi", effort="4096"))
    taker = target_of(words={"effort_tokens": "reasoning.max_tokens"})
    assert chat.hints(ask_of("Hi", effort="4096"), taker) == []
    assert body(ask_of("Hi", effort="4096"), taker)["reasoning"] == {"max_tokens": 4096}


def test_the_nearest_effort_that_a_model_knows_is_sent_with_a_word() -> None:
    target = target_of("openai:gpt-6.2-astra")
    (hint,) = chat.hints(ask_of("Hi", effort="minimal"), target)
    assert "has no effort 'minimal' (low is sent in its place)" in hint
    assert body(ask_of("Hi", effort="minimal"), target)["reasoning_effort"] == "low"
    flat = responses.call(ask_of("Hi", effort="minimal"), target).body
    assert flat is not None and flat["reasoning"] == {"effort": "low"}
    # one that can leave off thinking does so where it is told to, and only there
    able = target_of("openai:gpt-5.6-sol")
    assert body(ask_of("Hi", effort="minimal"), able)["reasoning_effort"] == "low"
    assert body(ask_of("Hi", effort="none"), able)["reasoning_effort"] == "none"


def test_an_effort_is_a_word_or_a_number() -> None:
    assert ask_of("Hi", effort=4096).options.effort == "4096"
    for wrong in (4.5, True, ["low"], "hard"):
        with pytest.raises(OptionError, match="effort is"):
            chat.call(ask_of("Hi", effort=wrong), OPENAI)


def test_any_json_needs_the_word_in_a_message() -> None:
    ask = ask_of("Hi", json_schema={})
    (hint,) = chat.hints(ask, OPENAI)
    assert "no message says JSON" in hint
    assert body(ask)["response_format"]["json_schema"] == {
        "name": "answer", "schema": {"type": "object"}, "strict": False,
    }  # fmt: skip
    assert chat.hints(ask_of("as json", json_schema={}), OPENAI) == chat.hints(ask, VLLM) == []
    assert body(ask_of("as json", json_schema={}))["response_format"] == {"type": "json_object"}


def test_a_schema_is_strict_where_openai_can_hold_it() -> None:
    assert chat.hints(ask_of("Hi", json_schema=CITY), OPENAI) == []
    open_ = {"type": "object", "properties": {"city": {"type": "string"}}}
    (hint,) = chat.hints(ask_of("Hi", json_schema=open_), OPENAI)
    assert "additionalProperties" in hint
    said = body(ask_of("Hi", json_schema=open_))["response_format"]
    assert said == {"type": "json_schema", "json_schema": {"name": "answer", "schema": open_, "strict": False}}
    assert body(ask_of("Hi", json_schema=open_), VLLM)["response_format"]["json_schema"]["strict"] is True
    assert chat.hints(ask_of("Hi", json_schema=open_), VLLM) == []
    with pytest.raises(OptionError, match="json_schema"):
        schema_of("[1]")


LOOSE = {
    "no object": {"type": "array", "items": {"type": "string"}},
    "open": {"type": "object", "properties": {}},
    "optional": {
        "type": "object", "properties": {"a": {"type": "string"}}, "required": [], "additionalProperties": False,
    },
    "default": {
        "type": "object", "properties": {"a": {"type": "string", "default": "b"}}, "required": ["a"],
        "additionalProperties": False,
    },
    "within": {
        "type": "object", "properties": {"a": {"type": "array", "items": {"type": "object", "properties": {}}}},
        "required": ["a"], "additionalProperties": False,
    },
    "any": {"type": "object", "properties": {"a": {}}, "required": ["a"], "additionalProperties": False},
    "all of": {"type": "object", "allOf": [], "properties": {}, "additionalProperties": False},
    "map": {"type": "object", "additionalProperties": {"type": "string"}},
    "beside": {
        "type": "object", "properties": {"a": {"$ref": "#/$defs/b", "description": "c"}}, "required": ["a"],
        "additionalProperties": False, "$defs": {"b": {"type": "string"}},
    },
    "elsewhere": {
        "type": "object", "properties": {"a": {"$ref": "https://example.com"}}, "required": ["a"],
        "additionalProperties": False,
    },
    "looks around": {
        "type": "object", "properties": {"a": {"type": "string", "pattern": "(?=b)"}}, "required": ["a"],
        "additionalProperties": False,
    },
    "length": {
        "type": "object", "properties": {"a": {"type": "string", "minLength": 2}}, "required": ["a"],
        "additionalProperties": False,
    },
    "wrong": {"type": "object", "properties": [], "required": 3, "additionalProperties": False},
}  # fmt: skip


def deep(n: int) -> dict[str, Any]:
    inner: dict[str, Any] = {"type": "string"}
    for _ in range(n):
        inner = {"type": "object", "properties": {"a": inner}, "required": ["a"], "additionalProperties": False}
    return inner


@pytest.mark.parametrize("name", LOOSE)
def test_schemas_that_openai_does_not_hold_are_known(name: str) -> None:
    assert loose(LOOSE[name])


def test_schemas_that_openai_holds_are_known() -> None:
    strict = {
        "type": "object", "title": "T", "description": "d", "required": ["a", "b", "c", "d"],
        "additionalProperties": False, "$defs": {"n": {"type": "object", "properties": {"n": {"$ref": "#/$defs/n"}},
        "required": ["n"], "additionalProperties": False}},
        "properties": {
            "a": {"type": ["string", "null"], "enum": ["x", None]},
            "b": {"anyOf": [{"$ref": "#/$defs/n"}, {"type": "null"}]},
            "c": {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1},
            "d": {"type": "string", "pattern": "^[a-z]+$", "format": "date"},
        },
    }  # fmt: skip
    assert loose(strict) == ""
    assert loose(deep(10)) == "" and loose(deep(11)) and loose(deep(5000))
    many = {f"p{i}": {"type": "string"} for i in range(5001)}
    assert loose({"type": "object", "properties": many, "required": [*many], "additionalProperties": False})


def test_what_their_package_makes_strict_is_strict_here() -> None:
    """openai.lib's maker of strict schemas is a second opinion."""
    pydantic = pytest.importorskip("pydantic")
    from openai.lib._pydantic import to_strict_json_schema

    class Leaf(pydantic.BaseModel):  # type: ignore[name-defined, misc]
        """A leaf."""

        size: float
        kind: str | None

    class Tree(pydantic.BaseModel):  # type: ignore[name-defined, misc]
        name: str
        leaves: list[Leaf]
        best: Leaf = pydantic.Field(description="the best")
        under: list[Tree]

    Tree.model_rebuild()
    assert loose(Tree.model_json_schema()) != ""
    assert loose(to_strict_json_schema(Tree)) == ""


def test_tools_are_held_to_their_schemas_where_that_can_be() -> None:
    def one(**function: Any) -> dict[str, Any]:
        return {"type": "function", "function": {"name": "f", **function}}

    open_ = {"type": "object", "properties": {"a": {"type": "string"}}}
    tools = [one(parameters=CITY), one(parameters=open_), one(), one(parameters=CITY, strict=False)]
    said = [tool["function"].get("strict") for tool in body(ask_of("Hi", tools=tools))["tools"]]
    assert said == [True, None, None, False]
    flat = responses.call(ask_of("Hi", tools=tools), OPENAI).body
    assert flat is not None and [tool["strict"] for tool in flat["tools"]] == [True, False, False, False]
    for plain in (target_of(lacks=("strict",)), target_of("cerebras:a")):
        assert "strict" not in body(ask_of("Hi", tools=tools[:1]), plain)["tools"][0]["function"]
    for wrong in ({"type": "web_search"}, {"type": "function"}, "f", one(name="")):
        with pytest.raises(OptionError, match="tool"):
            chat.call(ask_of("Hi", tools=[wrong]), OPENAI)


def picture() -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": PNG}}


def sound(format: str) -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": "AAAA", "format": format}}


def test_what_only_we_know_does_not_travel() -> None:
    thought = {
        "role": "assistant", "content": "Yes", "reasoning_content": "Hm", "opaque": [{"vendor": "anthropic"}],
    }  # fmt: skip
    marked = {"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]}
    assert body(ask_of([thought, marked]))["messages"] == [
        {"role": "assistant", "content": "Yes"}, {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
    ]  # fmt: skip
    taker = target_of(takes=("reasoning_content", "cache_control"))
    assert body(ask_of([thought, marked]), taker)["messages"] == [
        {"role": "assistant", "content": "Yes", "reasoning_content": "Hm"}, marked,
    ]  # fmt: skip
    assert body(ask_of([{"role": "developer", "content": "x"}]), target_of(lacks=("developer",)))["messages"] == [
        {"role": "system", "content": "x"}
    ]


def test_thoughts_go_back_with_calls_where_a_vendor_wants_them() -> None:
    """DeepSeek refuses a turn that called without them; clients of OpenAI's API have no place for them."""
    deepseek, events = target_of("deepseek:deepseek-chat"), [chunk({"reasoning_content": "Hm"}), *ASKED, *CALLED]
    answer = answer_of(read(chat, ask_of("Hi", stream=True), deepseek, events))
    assert answer.opaque == ({"vendor": "openai", "thoughts": "Hm"},)
    turn = {key: value for key, value in answer.message.items() if key != "reasoning_content"}
    assert body(ask_of([turn]), deepseek)["messages"][0]["reasoning_content"] == "Hm"
    assert "reasoning_content" not in body(ask_of([turn]))["messages"][0]


def test_sealed_thoughts_go_back_as_they_came() -> None:
    router = target_of("openrouter:a/b")
    rows = [
        {"type": "reasoning.text", "index": 0, "text": "H"}, {"type": "reasoning.text", "index": 0, "text": "m"},
        {"type": "reasoning.text", "index": 0, "text": None, "signature": "s"},
        {"type": "reasoning.encrypted", "index": 1, "data": "x"},
    ]  # fmt: skip
    events = [chunk({"reasoning_details": [row]}) for row in rows]
    answer = answer_of(read(chat, ask_of("Hi", stream=True), router, [*events, *WROTE, *ENDED]))
    details = [{"type": "reasoning.text", "index": 0, "text": "Hm", "signature": "s"}, rows[3]]
    assert answer.opaque == ({"vendor": "openai", "details": details},)
    assert body(ask_of([answer.message]), router)["messages"][0]["reasoning_details"] == details


def test_a_tool_that_failed_says_so() -> None:
    failed = {"role": "tool", "tool_call_id": "1", "content": "no such city", "is_error": True}
    assert body(ask_of([failed]))["messages"] == [
        {"role": "tool", "tool_call_id": "1", "content": "Error: no such city"}
    ]
    assert body(ask_of([{**failed, "is_error": False, "name": "weather"}]))["messages"] == [
        {"role": "tool", "tool_call_id": "1", "content": "no such city"}
    ]
    parts = {**failed, "content": [{"type": "text", "text": "Error 7"}]}
    assert body(ask_of([parts]))["messages"][0]["content"] == [{"type": "text", "text": "Error 7"}]


def test_other_fields_go_beside_ours_and_never_instead() -> None:
    found = body(ask_of("Hi", stream=True, extra={"model": "gpt-4.1", "metadata": {"a": "b"}}))
    assert (found["model"], found["stream"], found["metadata"]) == ("gpt-4.1", True, {"a": "b"})
    for name, value in (("model", "x"), ("stream", True), ("messages", "x"), ("n", 2), ("temperature", 1)):
        with pytest.raises(OptionError, match=f"extra has {name}, which the request says by itself"):
            body(ask_of("Hi", temperature=0.5, extra={name: value}))


# What is read ---------------------------------------------------------------------------------------------------------


def chunk(delta: Any = None, finish: Any = None, index: int = 0, usage: Any = None, **more: Any) -> tuple[str, Any]:
    choice = {"index": index, "delta": {} if delta is None else delta, "finish_reason": finish, **more}
    return "", {"object": "chat.completion.chunk", "choices": [choice], "usage": usage}


def call(index: Any = 0, id: Any = None, name: Any = None, arguments: Any = None, **more: Any) -> dict[str, Any]:
    function = {k: v for k, v in (("name", name), ("arguments", arguments)) if v is not None}
    row = {"index": index, "id": id, "function": function, **more}
    return {"tool_calls": [{k: v for k, v in row.items() if v is not None}]}


USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
COUNTED: tuple[str, Any] = ("", {"choices": [], "usage": USAGE})
DONE = ("", "[DONE]")
WROTE = [chunk({"role": "assistant", "content": ""}), chunk({"content": "He"}), chunk({"content": "llo"})]
ASKED = [
    chunk(call(0, "c1", "weather", "")),
    chunk(call(0, arguments='{"ci')),
    chunk(call(0, arguments='ty": "Oslo"}')),
]
CALLED, ENDED = [chunk(finish="tool_calls"), COUNTED], [chunk(finish="stop"), COUNTED]
OSLO = (ToolCall("c1", "weather", '{"city": "Oslo"}'),)
SEVEN = Usage(7, 5)


def generation(text: str = "", finish: str = "stop", usage: Usage = SEVEN, **more: Any) -> Generation:
    return Generation(text, [], finish, usage, logprobs=[], **more)


STREAMS: dict[str, tuple[list[tuple[str, Any]], Generation]] = {
    "usage behind": ([*WROTE, chunk(finish="stop"), COUNTED, DONE], generation("Hello")),
    "usage with the end": ([*WROTE, chunk(finish="stop", usage=USAGE), DONE], generation("Hello")),
    "usage all along": (
        [chunk({"content": "Hello"}, usage={"prompt_tokens": 7}), chunk(finish="stop", usage=USAGE)],
        generation("Hello"),
    ),
    "no usage": ([*WROTE, chunk(finish="stop"), DONE], generation("Hello", usage=Usage(0, 0))),
    "no DONE": ([*WROTE, chunk(finish="length")], generation("Hello", "length", Usage(0, 0))),
    "text with the end": ([*WROTE, chunk({"content": "!"}, "stop"), COUNTED], generation("Hello!")),
    "empty finish": ([chunk({"content": "Hello"}, ""), chunk(None, "stop"), COUNTED], generation("Hello")),
    "nothing": ([chunk(finish="stop"), DONE], generation(usage=Usage(0, 0))),
    "no delta": ([*WROTE, ("", {"choices": [{"index": 0, "finish_reason": "stop"}]}), COUNTED], generation("Hello")),
    "Azure's first": ([("", {"choices": [], "prompt_filter_results": []}), *WROTE, *ENDED], generation("Hello")),
    "Mistral's words": ([*WROTE, chunk(finish="model_length"), COUNTED], generation("Hello", "length")),
    "refused": (
        [chunk({"refusal": "I ", "content": None}), chunk({"refusal": "will not"}), *ENDED],
        generation("I will not", "content_filter"),
    ),
    "filtered": ([*WROTE, chunk(finish="content_filter"), COUNTED], generation("Hello", "content_filter")),
    "DeepSeek's thoughts": (
        [chunk({"reasoning_content": "Hm", "content": None}), chunk({"content": "Hello"}), *ENDED],
        generation("Hello", reasoning="Hm"),
    ),
    "OpenRouter's thoughts": (
        [chunk({"reasoning": "Hm", "reasoning_content": "Hm"}), *WROTE, *ENDED],
        generation("Hello", reasoning="Hm"),
    ),
    "Mistral's thoughts": (
        [
            chunk({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}]}),
            chunk({"content": [{"type": "text", "text": "Hello"}]}), chunk(finish="stop"), COUNTED,
        ],
        generation("Hello", reasoning="Hm"),
    ),
    "a call": ([*ASKED, *CALLED], generation("", "tool_calls", tool_calls=OSLO)),
    "a forced call": ([*ASKED, *ENDED], generation("", "tool_calls", tool_calls=OSLO)),
    "no call": ([*WROTE, *CALLED], generation("Hello")),
    "a cut call": (
        [*ASKED[:2], chunk(finish="length"), COUNTED],
        generation("", "length", tool_calls=(ToolCall("c1", "weather", '{"ci'),)),
    ),
    "a whole call": (
        [chunk(call(0, "c1", "weather", '{"city": "Oslo"}')), *CALLED],
        generation("", "tool_calls", tool_calls=OSLO),
    ),
    "without an index": (
        [chunk(call(None, "c1", "weather", '{"city": "Oslo"}')), chunk(call(None, "c2", "weather", "{}")), *CALLED],
        generation("", "tool_calls", tool_calls=(*OSLO, ToolCall("c2", "weather", "{}"))),
    ),
    "without an index, in parts": (
        [chunk(call(None, "c1", "weather", '{"city"')), chunk(call(None, None, None, ': "Oslo"}')), *CALLED],
        generation("", "tool_calls", tool_calls=OSLO),
    ),
    "all at the same index": (
        [chunk(call(0, "c1", "weather", '{"city": "Oslo"}')), chunk(call(0, "c2", "weather", "{}")), *CALLED],
        generation("", "tool_calls", tool_calls=(*OSLO, ToolCall("c2", "weather", "{}"))),
    ),
    "turn by turn": (
        [
            chunk(call(0, "c1", "weather", '{"city"')), chunk(call(1, "c2", "weather", "{")),
            chunk(call(0, arguments=': "Oslo"}')), chunk(call(1, arguments="}")), *CALLED,
        ],
        generation("", "tool_calls", tool_calls=(*OSLO, ToolCall("c2", "weather", "{}"))),
    ),
    "the id each time": (
        [chunk(call(0, "c1", "weather", '{"city"')), chunk(call(0, "c1", "", ': "Oslo"}')), *CALLED],
        generation("", "tool_calls", tool_calls=OSLO),
    ),
    "an object": (
        [chunk(call(0, "c1", "weather", {"city": "Oslo"})), *CALLED],
        generation("", "tool_calls", tool_calls=OSLO),
    ),
    "no arguments": (
        [chunk(call(0, "c1", "weather")), *CALLED],
        generation("", "tool_calls", tool_calls=(ToolCall("c1", "weather", "{}"),)),
    ),
    "its name late": (
        [chunk(call(0, "c1", None, '{"city"')), chunk(call(0, None, "weather", ': "Oslo"}')), *CALLED],
        generation("", "tool_calls", tool_calls=OSLO),
    ),
    "lone surrogates": ([chunk({"content": "a\ud83db"}), *ENDED], generation("a\ufffdb")),
}  # fmt: skip


@pytest.mark.parametrize("name", STREAMS)
def test_streams_of_many_servers_are_one_answer(name: str) -> None:
    events, expected = STREAMS[name]
    found = answer_of(read(chat, ask_of("Hi", stream=True), OPENAI, events))
    assert found == expected


@pytest.mark.parametrize("name", STREAMS)
def test_what_was_streamed_is_what_comes_whole(name: str) -> None:
    """The deltas joined into one message, as a server that does not stream sends them."""
    events, expected = STREAMS[name]
    message: dict[str, Any] = {"role": "assistant", "content": ""}
    finish, usage = None, None
    calls: list[dict[str, Any]] = []
    for _, data in events:
        if data == "[DONE]":
            continue
        usage = data.get("usage") or usage
        for choice in data["choices"]:
            finish = choice.get("finish_reason") or finish
            for key, value in (choice.get("delta") or {}).items():
                if key == "content" and isinstance(value, list):
                    message["content"] = [*(message["content"] or []), *value]
                elif key in ("content", "refusal", "reasoning", "reasoning_content"):
                    message[key] = (message.get(key) or "") + (value or "")
    for one in expected.tool_calls:
        calls.append({"id": one.id, "type": "function", "function": {"name": one.name, "arguments": one.arguments}})
    if calls:
        message |= {"content": None, "tool_calls": calls}
    body = {"object": "chat.completion", "usage": usage, "choices": [{"message": message, "finish_reason": finish}]}
    assert answer_of(chat.whole(body, ask_of("Hi"), OPENAI)) == expected


def test_a_call_without_an_id_gets_one() -> None:
    events = [chunk(call(0, None, "weather", "{}")), chunk(call(1, None, "weather", "{}")), chunk(finish="tool_calls")]
    found = answer_of(read(chat, ask_of("Hi", stream=True), OPENAI, events)).tool_calls
    assert len({one.id for one in found}) == 2 and all(one.id.startswith("call_") for one in found)


def test_an_old_function_call_is_a_call() -> None:
    events = [
        chunk({"function_call": {"name": "weather", "arguments": '{"city"'}}),
        chunk({"function_call": {"arguments": ': "Oslo"}'}}), chunk(finish="function_call"),
    ]  # fmt: skip
    found = answer_of(read(chat, ask_of("Hi", stream=True), OPENAI, events))
    assert [(one.name, one.arguments) for one in found.tool_calls] == [("weather", '{"city": "Oslo"}')]
    assert found.finish_reason == "tool_calls"


def test_several_answers_come_apart() -> None:
    events = [
        chunk({"content": "a"}, index=1), chunk({"content": "b"}, index=0), chunk(finish="stop", index=1),
        chunk({"content": "c"}, index=0), chunk(finish="length", index=0), COUNTED,
    ]  # fmt: skip
    pieces = read(chat, ask_of("Hi", n=2, stream=True), OPENAI, events)
    assert (answer_of(pieces, 0).text, answer_of(pieces, 1).text) == ("bc", "a")
    assert [answer_of(pieces, i).usage for i in (0, 1)] == [Usage(7, 5), Usage(7, 0)]


def test_counts_of_other_vendors_are_read() -> None:
    def usage(**given: Any) -> Usage:
        return answer_of(read(chat, ask_of("Hi", stream=True), OPENAI, [chunk(finish="stop", usage=given)])).usage

    read_, wrote = {"prompt_tokens": 10}, {"completion_tokens": 5}
    assert usage(**read_, **wrote, prompt_cache_hit_tokens=4) == Usage(10, 5, 4)
    thought = {"completion_tokens_details": {"reasoning_tokens": 3}}
    assert usage(**read_, **wrote, **thought, total_tokens=15) == Usage(10, 5, 0, 3)
    assert usage(**read_, **wrote, **thought, total_tokens=18) == Usage(10, 8, 0, 3)
    cached = {"prompt_tokens_details": {"cached_tokens": 99, "cache_write_tokens": 3}}
    assert usage(**read_, **wrote, **cached) == Usage(10, 5, 10)


def test_logprobs_have_bytes_or_their_text() -> None:
    others = [{"token": "e", "bytes": None, "logprob": -1}]
    rows = [
        {"token": "€", "bytes": [226, 130, 172], "logprob": -0.5, "top_logprobs": others},
        {"token": "x", "logprob": float("-inf")},
    ]  # fmt: skip
    events = [chunk({"content": "€x"}, logprobs={"content": rows}), chunk(finish="stop")]
    found = answer_of(read(chat, ask_of("Hi", logprobs=1, stream=True), OPENAI, events)).logprobs
    assert found is not None and [(one.token, one.text, one.said, one.logprob) for one in found] == [
        (-1, "€", "€".encode(), -0.5), (-1, "x", b"x", -9999.0),
    ]  # fmt: skip
    assert found[0].others == ((b"e", -1.0),)
    assert answer_of(read(chat, ask_of("Hi", stream=True), OPENAI, events)).logprobs == []


WRONG: dict[str, tuple[list[tuple[str, Any]], type[BrollyError], str]] = {
    "cut": (WROTE, BadAnswer, "before the answer was whole"),
    "one of two": ([chunk({"content": "a"}, "stop")], BadAnswer, "before the answer was whole"),
    "DONE too early": ([*WROTE, DONE], BadAnswer, "before the answer was whole"),
    "a broken call": ([*ASKED[:2], chunk(finish="tool_calls")], BadAnswer, "'weather'.*no JSON object"),
    "a call of a list": ([chunk(call(0, "c", "f", "[]")), chunk(finish="tool_calls")], BadAnswer, "no JSON object"),
    "a call without a name": ([chunk(call(0, "c", None, "{}")), *CALLED], BadAnswer, "without a name"),
    "an index too high": ([chunk({"content": "a"}, index=5)], BadAnswer, "answer 5"),
    "an unknown end": ([*WROTE, chunk(finish="abort")], BadAnswer, "'abort'"),
    "no object": ([("", 3)], BadAnswer, "expected an object"),
    "an error": ([*WROTE, ("", {"error": {"message": "no room", "code": "overloaded"}})], Overloaded, "no room"),
    "an error's event": ([("error", {"message": "slow down", "type": "rate_limit_error"})], Busy, "slow down"),
    "an error's text": ([("", {"error": "something broke"})], BrollyError, "something broke"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_streams_that_are_wrong_say_why(name: str) -> None:
    events, kind, why = WRONG[name]
    with pytest.raises(kind, match=why):
        read(chat, ask_of("Hi", n=2 if name == "one of two" else 1, stream=True), OPENAI, events)


def test_a_page_is_no_answer() -> None:
    for wrong in ({}, {"choices": []}, {"choices": None}, [], None, "x", {"choices": 3}):
        with pytest.raises(BadAnswer, match="OpenAI-compatible"):
            chat.whole(wrong, ask_of("Hi"), OPENAI)
    with pytest.raises(Busy):
        chat.whole({"error": {"code": "rate_limit_exceeded", "message": "wait"}}, ask_of("Hi"), OPENAI)


def test_an_answer_of_endless_calls_ends() -> None:
    reader = chat.reader(ask_of("Hi", stream=True), OPENAI)
    with pytest.raises(BadAnswer, match="1024"):
        for at in range(2000):
            reader.push(*chunk(call(at, f"c{at}", "f", "{}")))
