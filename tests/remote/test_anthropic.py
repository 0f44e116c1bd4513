"""Claude: what is asked and what comes back, without Anthropic's package."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from brolly.errors import (
    BadAnswer,
    BrollyError,
    Busy,
    ContextTooLong,
    KeyRefused,
    NotFound,
    OptionError,
    Overloaded,
    QuotaSpent,
)
from brolly.remote import Remote, Target, parse
from brolly.remote.ask import Ask
from brolly.remote.dialects.anthropic import answers, models, schemas, thinking, turns
from brolly.remote.dialects.anthropic import messages as dialect
from brolly.verbs import GenerateOptions, Piece, gather
from tests.remote.fakes import CUT, KEY, Reply, Request, sse
from tests.remote.fakes.anthropic import FakeAnthropic, envelope, events, failure
from tests.remote.more import known

HELLO = {"role": "user", "content": "Hello"}
NEW, OLD = parse("anthropic:claude-haiku-5-5"), parse("anthropic:claude-haiku-4-5")
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
ROW: dict[str, Any] = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_reason": "tool_use",
    "stop_sequence": None, "stop_details": None,
    "content": [
        {"type": "thinking", "thinking": "Let me think.", "signature": "sig_1"},
        {"type": "redacted_thinking", "data": "EmwK"},
        {"type": "text", "text": "I look it up. ", "citations": [{"type": "char_location", "cited_text": "x"}]},
        {"type": "thinking", "thinking": "Both.", "signature": "sig_2"},
        {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Rome"}},
        {"type": "tool_use", "id": "toolu_2", "name": "now", "input": {}},
    ],
    "usage": {
        "input_tokens": 10, "cache_creation_input_tokens": 3, "cache_read_input_tokens": 4, "output_tokens": 20,
        "output_tokens_details": {"thinking_tokens": 6},
    },
}  # fmt: skip


ADAPTIVE = {"type": "adaptive"}


def budget(tokens: int) -> dict[str, Any]:
    return {"type": "enabled", "budget_tokens": tokens}


def ask(*messages: Any, **given: Any) -> Ask:
    own = {name: given.pop(name) for name in ("tools", "choice", "parallel", "n", "template", "extra") if name in given}
    return Ask(messages=messages or (HELLO,), options=GenerateOptions(**given), **own)


def sent(*messages: Any, to: Target = NEW, **given: Any) -> dict[str, Any]:
    body = dialect.call(ask(*messages, **given), to).body
    assert body is not None
    return dict(body)


def read(rows: Any, end: bool = True) -> list[Piece]:
    reader = dialect.reader(ask(), NEW)
    pieces = [piece for row in rows for piece in reader.push(row.get("type", ""), row)]
    return pieces + (reader.end() if end else [])


def whole(row: Any) -> list[Piece]:
    return dialect.whole(row, ask(), NEW)


# What is asked -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"temperature": 1.5}, "takes temperatures from 0 to 1, not 1.5"),
        ({"n": 2}, "gives one answer, not 2"),
        ({"template": {"x": 1}}, "no chat template"),
        ({"json_schema": "{}"}, "a schema that says its shape"),
        ({"json_schema": {"type": "object", "additionalProperties": True}}, "set additionalProperties to false"),
        ({"json_schema": {"type": "object"}}, "set additionalProperties to false"),
        ({"json_schema": {"type": "object", "properties": {"more": {"type": "object"}}}}, "named properties alone"),
        ({"json_schema": {"allOf": [SCHEMA, SCHEMA]}}, "no allOf of several objects"),
        ({"effort": "hard"}, "no effort 'hard' (expected none, minimal"),
        ({"tools": (WEATHER,), "choice": {"type": "allowed_tools"}}, "no tool_choice of the type 'allowed_tools'"),
    ],
)
def test_what_has_no_word_is_told(given: dict[str, Any], why: str) -> None:
    (found,) = dialect.lacks(ask(**given), OLD)
    assert why in found and "anthropic:claude-haiku-4-5" in found


def test_a_model_that_cannot_be_made_to_call_is_told() -> None:
    opus = parse("anthropic:claude-opus-5-5")
    (why,) = dialect.lacks(ask(tools=(WEATHER,), choice="required"), opus)
    assert "cannot be made to call a tool" in why
    assert not dialect.lacks(ask(tools=(WEATHER,), parallel=False), opus)
    assert not dialect.lacks(ask(choice="required"), opus)  # there is nothing to call


@pytest.mark.parametrize(
    ("part", "why"),
    [
        ({"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}, "reads no sounds"),
        ({"type": "video_url", "video_url": {}}, "has no parts of the type 'video_url'"),
        ({"type": "image_url", "image_url": {"url": "data:image/tiff;base64,aaaa"}}, "not image/tiff"),
        ({"type": "file", "file": {"file_data": "data:text/csv;base64,aaaa"}}, "not text/csv"),
    ],
)
def test_parts_that_it_does_not_read_are_told(part: Any, why: str) -> None:
    assert any(why in one for one in dialect.lacks(ask({"role": "user", "content": [part]}), NEW))


def test_system_messages_in_the_middle_go_where_the_model_knows_them() -> None:
    later = ({**HELLO}, {"role": "assistant", "content": "Hi"}, {"role": "developer", "content": "French!"}, HELLO)
    assert not dialect.lacks(ask(*later), NEW) and not dialect.hints(ask(*later), NEW)
    assert "a later one's place has no word" in dialect.hints(ask(*later), OLD)[0]
    moved = sent({"role": "system", "content": "Be kind."}, *later, to=OLD)
    assert [one["text"] for one in moved["system"]] == ["Be kind.", "French!"]
    assert [one["role"] for one in moved["messages"]] == ["user", "assistant", "user"]
    rows = sent({"role": "system", "content": "Be kind."}, *later)
    assert rows["system"] == "Be kind."
    assert [one["role"] for one in rows["messages"]] == ["user", "assistant", "user", "system"]
    lonely = (HELLO, {"role": "assistant", "content": "Hi"}, {"role": "system", "content": "Bye"})
    assert "place has no word" in dialect.hints(ask(*lonely), NEW)[0] and sent(*lonely)["system"] == "Bye"
    assert "system messages alone" in dialect.lacks(ask({"role": "system", "content": "x"}), NEW)[0]


def test_an_unfinished_answer_goes_to_models_that_take_one() -> None:
    begun = (HELLO, {"role": "assistant", "content": "Well,"})
    assert sent(*begun, to=OLD)["messages"][-1] == begun[-1]
    assert "unfinished message" in dialect.lacks(ask(*begun), NEW)[0]


def test_turns_of_a_role_are_one_and_results_come_first() -> None:
    calls = [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": ""}},
        {"id": "call_é|1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}},
    ]
    rows = sent(
        HELLO, {"role": "user", "content": [{"type": "text", "text": ""}, {"type": "text", "text": "you"}]},
        {"role": "assistant", "content": None, "tool_calls": calls}, {"role": "user", "content": "Well?"},
        {"role": "tool", "tool_call_id": "a", "content": "1"},
        {"role": "tool", "tool_call_id": "call_é|1", "content": ""},
        {"role": "assistant", "content": ""}, {"role": "user", "content": "So?"},
    )["messages"]  # fmt: skip
    assert [one["role"] for one in rows] == ["user", "assistant", "user"]
    assert rows[0]["content"] == [{"type": "text", "text": "Hello"}, {"type": "text", "text": "you"}]
    first, second = rows[1]["content"]
    assert first == {"type": "tool_use", "id": "a", "name": "f", "input": {}} and second["input"] == {"x": 1}
    assert turns.ID.fullmatch(second["id"]) and second["id"] != turns.call_id("call_e|1")
    kinds = [(one["type"], one.get("tool_use_id")) for one in rows[2]["content"]]
    assert kinds == [("tool_result", "a"), ("tool_result", second["id"]), ("text", None), ("text", None)]
    assert "content" not in rows[2]["content"][1]


@pytest.mark.parametrize("arguments", ["[1]", "{", "nul", 3])
def test_calls_that_are_no_json_are_refused(arguments: Any) -> None:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": arguments}}
    with pytest.raises(OptionError, match="expected a JSON object"):
        sent(HELLO, {"role": "assistant", "tool_calls": [call]})


def test_thoughts_go_back_to_their_places() -> None:
    message = gather(whole(ROW)).message
    (turn,) = [one for one in sent(HELLO, message)["messages"] if one["role"] == "assistant"]
    expected = [dict(one) for one in ROW["content"]]
    del expected[2]["citations"]
    assert turn["content"] == expected
    foreign = {**message, "opaque": [{"vendor": "gemini", "at": [0, 0], "block": {}}, {"vendor": "anthropic"}]}
    kinds = [one["type"] for one in sent(HELLO, foreign)["messages"][1]["content"]]
    assert kinds == ["text", "tool_use", "tool_use"]


def test_marks_to_cache_are_kept() -> None:
    mark = {"type": "ephemeral", "ttl": "1h"}
    result = {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "1", "cache_control": mark}]}
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    rows = sent({"role": "user", "content": [{"type": "text", "text": "x", "cache_control": mark}]},
                {"role": "assistant", "tool_calls": [call]}, result)["messages"]  # fmt: skip
    assert rows[0]["content"] == [{"type": "text", "text": "x", "cache_control": mark}]
    assert rows[2]["content"] == [{"type": "tool_result", "tool_use_id": "a", "content": "1", "cache_control": mark}]


def test_the_version_of_the_api_has_words_for_what_is_said() -> None:
    assert dialect.call(ask(), OLD).headers == {"anthropic-version": "2026-10-21"}
    assert dialect.call(ask(temperature=0.0), OLD).headers == {"anthropic-version": "2023-06-01"}
    assert dialect.call(ask(top_k=0), OLD).headers == {"anthropic-version": "2026-10-21"}
    assert dialect.call(ask(extra={"temperature": 1}), OLD).headers == {"anthropic-version": "2023-06-01"}


@pytest.mark.parametrize("extra", [{"max_tokens": 9}, {"model": "x"}, {"stream": True}, {"messages": "x"}])
def test_fields_of_the_vendors_own_go_beside_ours_and_never_instead(extra: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=f"extra has {next(iter(extra))}, which the request says by itself"):
        dialect.call(ask(max_tokens=3, extra=extra), OLD)


@pytest.mark.parametrize(
    ("model", "given", "expected"),
    [
        ("claude-haiku-5-5", {}, {"max_tokens": 16000}),
        ("claude-haiku-5-5", {"effort": "high"}, {"thinking": ADAPTIVE, "effort": "high"}),
        ("claude-haiku-5-5", {"effort": "minimal"}, {"thinking": ADAPTIVE, "effort": "low", "hints": 1}),
        ("claude-haiku-5-5", {"effort": "5000"}, {"hints": 1}),
        ("claude-opus-4-6", {"effort": "xhigh"}, {"thinking": ADAPTIVE, "effort": "high", "hints": 1}),
        ("claude-haiku-5-5", {"effort": "0"}, {"thinking": {"type": "disabled"}}),
        ("claude-opus-5-5", {"effort": "none"}, {"effort": "low", "hints": 1}),
        ("claude-unheard-of", {"effort": "low"}, {"thinking": ADAPTIVE, "effort": "low"}),
        ("claude-unheard-of", {"effort": "2048"}, {"thinking": budget(2048), "max_tokens": 18048}),
        ("claude-haiku-4-5", {"effort": "none"}, {}),
        ("claude-haiku-4-5", {"effort": "low"}, {"thinking": budget(2048), "max_tokens": 18048}),
        ("claude-opus-4-5", {"effort": "high"}, {"thinking": budget(16384), "effort": "high"}),
        ("claude-haiku-4-5", {"effort": "high", "max_tokens": 4000}, {"thinking": budget(3000)}),
        ("claude-haiku-4-5", {"effort": "high", "max_tokens": 1000}, {"hints": 1}),
        ("claude-haiku-4-5", {"thoughts": True}, {"thinking": budget(8192)}),
        ("claude-haiku-4-5", {"effort": "5000", "max_tokens": 5000}, {"lacks": 1}),
        ("claude-haiku-4-5", {"effort": "1000"}, {"lacks": 1}),
        ("claude-haiku-4-5", {"effort": "low", "temperature": 0.2}, {"lacks": 1}),
        ("claude-haiku-4-5", {"effort": "low", "tools": (WEATHER,), "choice": "required"}, {"hints": 1}),
        ("claude-3-haiku-20240307", {"effort": "low"}, {"hints": 1, "max_tokens": 4096}),
    ],
)  # fmt: skip
def test_effort_is_said_as_the_model_knows_it(model: str, given: dict[str, Any], expected: dict[str, Any]) -> None:
    plan = thinking.planned(ask(**given), parse(f"anthropic:{model}"))
    assert len(plan.hints) == expected.pop("hints", 0) and len(plan.lacks) == expected.pop("lacks", 0), plan
    if not plan.lacks:
        assert plan.effort == expected.pop("effort", None)
        shown = plan.thinking
        assert shown == expected.pop("thinking", None)
    assert plan.max_tokens == expected.pop("max_tokens", plan.max_tokens)
    if plan.thinking and "budget_tokens" in plan.thinking:
        assert plan.thinking["budget_tokens"] < plan.max_tokens


def test_a_call_whose_thoughts_are_lost_is_answered_without_thinking() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
    rows = [HELLO, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "a", "content": "1"}]
    lost = ask(*rows, tools=(WEATHER,), effort="low")
    assert "thoughts are not given back" in dialect.hints(lost, OLD)[0]
    assert "thinking" not in sent(*rows, to=OLD, tools=(WEATHER,), effort="low")
    assert not dialect.hints(lost, NEW)  # which goes on as it likes


def test_bounds_of_a_schema_are_told_and_written_out() -> None:
    shape = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 3, "description": "A name."},
            "maximum": {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 2},
        },
    }  # fmt: skip
    (why,) = dialect.hints(ask(json_schema=shape), NEW)
    assert why.endswith("is not bound by what a schema says by maxLength, minItems, minimum")
    found = sent(json_schema=shape)["output_config"]["format"]["schema"]["properties"]
    assert found["name"] == {"type": "string", "description": "A name. (maxLength: 3)"}
    assert found["maximum"]["description"] == "minItems: 2" and "minItems" not in found["maximum"]
    assert found["maximum"]["items"] == {"type": "integer", "description": "minimum: 0"}
    tool = {"type": "function", "function": {"name": "f", "strict": True, "parameters": shape}}
    assert dialect.hints(ask(tools=(tool,)), NEW) == [why]
    assert not dialect.hints(ask(tools=({**tool, "function": {**tool["function"], "strict": False}},)), NEW)


def test_schemas_are_closed_where_they_say_nothing() -> None:
    given = {
        "type": "object", "required": ["properties"],
        "properties": {
            "properties": {"type": ["object", "null"], "default": {"type": "object"}},
            "several": {"type": "array", "items": {"$ref": "#/$defs/one"}},
        },
        "$defs": {"one": {"type": "object", "properties": {}, "additionalProperties": False}},
    }  # fmt: skip
    found = schemas.taken(given)
    assert found["additionalProperties"] is False
    assert found["properties"]["properties"]["additionalProperties"] is False
    assert found["properties"]["properties"]["default"] == {"type": "object"}
    assert "additionalProperties" not in found["properties"]["several"]
    assert "additionalProperties" not in found["properties"] and "additionalProperties" not in given
    deep: Any = {}
    for _ in range(200):
        deep = {"items": deep}
    with pytest.raises(OptionError, match="64 deep"):
        schemas.taken(deep)


# What comes back -----------------------------------------------------------------------------------------------------


def test_a_stream_is_the_whole_answer() -> None:
    one, other = gather(whole(ROW)), gather(read(events(ROW)))
    assert one == other
    assert one.text == "I look it up. " and one.reasoning == "Let me think.Both." and one.finish_reason == "tool_calls"
    assert [(c.id, c.name, json.loads(c.arguments)) for c in one.tool_calls] == [
        ("toolu_1", "weather", {"city": "Rome"}), ("toolu_2", "now", {}),
    ]  # fmt: skip
    usage = one.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens) == (17, 20, 4)
    assert (usage.written_tokens, usage.reasoning_tokens) == (3, 6)
    assert [row["at"] for row in one.opaque] == [[0, 0], [0, 0], [14, 0]]


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"), ("max_tokens", "length"), ("refusal", "content_filter"), ("pause_turn", "length"),
        ("model_context_window_exceeded", "length"), ("stop_sequence", "stop"), ("something_new", "stop"),
    ],
)  # fmt: skip
def test_ends_are_told_in_our_words(reason: str, finish: str) -> None:
    row = {**ROW, "content": ROW["content"][2:3], "stop_reason": reason, "stop_sequence": "END"}
    for pieces in (whole(row), read(events({**row}))):
        assert pieces[-1].finish_reason == finish
        assert pieces[-1].stopped == ("END" if reason == "stop_sequence" else None)


def test_what_is_not_known_passes() -> None:
    rows = list(events(ROW))
    rows[1:1] = [
        {"type": "new_event", "index": 0},
        {"no": "type"},
        {"type": "content_block_delta", "index": 9, "delta": {}},
    ]
    rows[-2:-2] = [
        {
            "type": "content_block_start",
            "index": 6,
            "content_block": {"type": "server_tool_use", "id": "s", "name": "w"},
        },
        {"type": "content_block_delta", "index": 6, "delta": {"type": "input_json_delta", "partial_json": '{"q'}},
        {"type": "content_block_stop", "index": 6},
        {"type": "content_block_start", "index": 7, "content_block": {"type": "web_search_tool_result", "content": []}},
        {"type": "content_block_stop", "index": 7},
        {"type": "content_block_start", "index": 8, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 8, "delta": {"type": "citations_delta", "citation": {}}},
        {"type": "content_block_delta", "index": 8, "delta": {"type": "new_delta", "text": "no"}},
        {"type": "content_block_stop", "index": 8},
    ]
    assert gather(read(rows)) == gather(whole(ROW))


def broken(reason: str) -> list[Any]:
    return [
        {"type": "message_start", "message": {"usage": {"input_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "id": "a", "name": "f"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": '{"a": '}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 3}},
        {"type": "message_stop"},
    ]


def test_a_call_with_broken_json_is_no_answer_unless_it_was_cut() -> None:
    with pytest.raises(BadAnswer, match="'f' with what is no JSON object"):
        read(broken("tool_use"))
    cut = gather(read(broken("max_tokens")))
    assert cut.finish_reason == "length" and cut.tool_calls[0].arguments == '{"a": '


def test_blocks_that_nobody_closed_are_closed() -> None:
    rows = [row for row in events(ROW) if row["type"] != "content_block_stop"]
    one, other = gather(read(rows)), gather(whole(ROW))
    assert one.tool_calls == other.tool_calls and len(one.opaque) == 3


def test_an_answer_without_an_end_is_none() -> None:
    with pytest.raises(BadAnswer, match="before the answer was whole"):
        read(list(events(ROW))[:-2])
    assert read(list(events(ROW))[:-1])[-1].finish_reason == "tool_calls"  # all but the word that it is over
    for body in ([], "x", {}, {"content": "x"}, {"content": []}, None):
        with pytest.raises(BadAnswer):
            whole(body)
    with pytest.raises(BadAnswer, match="without a name"):
        whole({**ROW, "content": [{"type": "tool_use", "id": "a"}]})


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("overloaded_error", Overloaded), ("rate_limit_error", Busy), ("authentication_error", KeyRefused),
        ("billing_error", QuotaSpent), ("not_found_error", NotFound), ("invalid_request_error", OptionError),
        ("api_error", BrollyError), ("new_error", BrollyError),
    ],
)  # fmt: skip
def test_errors_within_a_stream_are_what_they_say(kind: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        read([*list(events(ROW))[:5], envelope(kind, "Overloaded")])


def test_a_spent_account_is_told_from_a_busy_one() -> None:
    said = answers.told(envelope("rate_limit_error", "Limit", "enforced_spend_limit_reached"))
    assert said.kind == "enforced_spend_limit_reached"
    assert answers.told({"message": "The security token is invalid"}).message == "The security token is invalid"
    for body in (None, [], "text", 3, {"error": "text"}, {"error": {"type": 3, "message": [], "details": 1}}):
        answers.told(body)


def test_models_are_listed_by_pages() -> None:
    fake = FakeAnthropic(page=2)
    found, after, n = [], "", 0
    while n == 0 or after:
        query = models.models(NEW, after).query
        rows, after = models.listed(fake.models(query).body)
        found += rows
        n += 1
    assert n == 3 and [one.id for one in found][::4] == ["claude-opus-5-5", "claude-haiku-4-5"]
    assert found[0] == ("claude-opus-5-5", "Claude Opus 5.5", 1789948800, 1_000_000, ("chat",))
    assert found[-1].created is None  # the API's year 1970
    for body in (None, [], {"data": 1}):
        with pytest.raises(BadAnswer):
            models.listed(body)


# With a server ------------------------------------------------------------------------------------------------------


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeAnthropic]:
    with FakeAnthropic() as found:
        known(found, monkeypatch, "ANTHROPIC")
        yield found


def test_a_conversation_with_a_tool_keeps_its_thoughts(fake: FakeAnthropic) -> None:
    for model in ("claude-haiku-5-5", "claude-haiku-4-5"):
        remote = Remote(f"anthropic:{model}")
        given: Any = {"tools": [WEATHER], "effort": "high", "thoughts": True}
        rows: list[Any] = [{"role": "user", "content": "The weather, twice, redacted?"}]
        first = gather(remote.stream_chat(rows, **given))
        assert first.reasoning == "Let me think." and len(first.tool_calls) == 2 and len(first.opaque) == 2
        results = [{"role": "tool", "tool_call_id": call.id, "content": "mild"} for call in first.tool_calls]
        kept = {name: value for name, value in first.message.items() if name != "opaque"}
        for message in (first.message, kept):  # what the client does not keep is remembered
            second = remote.chat([*rows, message, *results], **given)
            assert second.text == "The tool said mild and mild."
            blocks = [block["type"] for block in fake.requests[-1].json["messages"][1]["content"]]
            assert blocks == ["thinking", "redacted_thinking", "tool_use", "tool_use"]


def test_shapes_stops_and_lengths(fake: FakeAnthropic) -> None:
    remote = Remote("anthropic:claude-haiku-4-5")
    hello = [{"role": "user", "content": "one two three four"}]
    assert json.loads(remote.chat(hello, json_schema=SCHEMA).text) == {"city": "text"}
    assert remote.chat(hello, choice=["yes", "no"]).text == "yes"
    assert remote.chat(hello, regex="[a-c]{3}").text == "aaa"
    stopped = remote.chat(hello, stop=["three"])
    assert (stopped.text, stopped.finish_reason) == ("You said: one two ", "stop")
    assert [piece.stopped for piece in remote.stream_chat(hello, stop=["three"])][-1] == "three"
    blank = remote.chat([{"role": "user", "content": "one\ntwo"}], stop=["\n"])  # which the API refuses: cut here
    assert (blank.text, blank.finish_reason) == ("You said: one", "stop")
    assert remote.chat(hello, max_tokens=3).finish_reason == "length"
    assert remote.chat([{"role": "user", "content": "forbidden"}]).finish_reason == "content_filter"
    assert remote.chat([HELLO, {"role": "assistant", "content": "Well,"}]).text == "You said: Hello"
    assert remote.count(hello) == 4


def test_a_prompt_is_cached_and_counted(fake: FakeAnthropic) -> None:
    remote = Remote("anthropic:claude-haiku-5-5")
    mark = {"type": "text", "text": "one two three four five six", "cache_control": {"type": "ephemeral"}}
    rows = [{"role": "system", "content": [mark]}, HELLO]
    first, second = remote.chat(rows).usage, gather(remote.stream_chat(rows)).usage
    assert (first.prompt_tokens, first.written_tokens, first.cached_tokens) == (7, 7, 0)
    assert (second.prompt_tokens, second.written_tokens, second.cached_tokens) == (7, 0, 7)


def test_seed_warns_once_and_strict_refuses(fake: FakeAnthropic) -> None:
    remote = Remote("anthropic:claude-haiku-5-5")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        remote.chat([HELLO], seed=1)
        remote.chat([HELLO], seed=2)
    assert [str(one.message) for one in told] == [
        "anthropic:claude-haiku-5-5 has no seed; it is asked all the same (strict refuses)."
    ]
    with pytest.raises(OptionError, match="has no seed"):
        Remote("anthropic:claude-haiku-5-5", strict=True).chat([HELLO], seed=1)
    n = len(fake.requests)
    for option in ({"logprobs": 1}, {"presence_penalty": 1}, {"logit_bias": {1: 1}}, {"temperature": 0.5}):
        with pytest.raises(OptionError, match=f"has no {next(iter(option))}"):
            remote.chat([HELLO], **option)  # type: ignore[arg-type]
    assert len(fake.requests) == n


def test_bytes_one_by_one_are_the_same_answer(fake: FakeAnthropic) -> None:
    remote = Remote("anthropic:claude-haiku-5-5")
    rows = [{"role": "user", "content": "The weather in Zürich ☂, redacted?"}]
    given: Any = {"tools": [WEATHER], "effort": "high", "thoughts": True}
    expected = gather(remote.stream_chat(rows, **given))
    fake.split = 1
    assert gather(remote.stream_chat(rows, **given)) == expected
    whole = remote.chat(rows, **given)
    assert [(c.name, c.arguments) for c in whole.tool_calls] == [(c.name, c.arguments) for c in expected.tool_calls]
    assert replace(whole, tool_calls=expected.tool_calls) == expected  # but for the ids, which another request has


Fault = Callable[[Request], Reply]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (failure("rate_limit_error", "Too many", {"retry-after": "7"}), Busy),
        (failure("overloaded_error", "Overloaded"), Overloaded),
        (failure("authentication_error", "invalid x-api-key"), KeyRefused),
        (failure("permission_error", "no"), KeyRefused),
        (failure("not_found_error", "model: x"), NotFound),
        (failure("billing_error", "no credit"), QuotaSpent),
        (failure("invalid_request_error", "Your credit balance is too low to access the Anthropic API."), QuotaSpent),
        (failure("rate_limit_error", "Limit", code="enforced_spend_limit_reached"), QuotaSpent),
        (failure("invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum"), ContextTooLong),
        (failure("invalid_request_error", "messages: wrong"), OptionError),
    ],
)
def test_each_refusal_is_one_error(fake: FakeAnthropic, reply: Reply, error: type[Exception], stream: bool) -> None:
    fake.faults.append(lambda _: reply)
    remote = Remote("anthropic:claude-haiku-5-5", retries=0)
    with pytest.raises(error) as told:
        list(remote.stream_chat([HELLO])) if stream else remote.chat([HELLO])
    assert KEY not in str(told.value) and KEY not in repr(remote)
    if isinstance(told.value, Busy):
        assert told.value.retry_after == 7


def test_faults_within_a_stream(fake: FakeAnthropic) -> None:
    remote = Remote("anthropic:claude-haiku-5-5", retries=0)
    rows = [sse(row, row["type"]) for row in events({**ROW, "content": ROW["content"][2:3]})]
    fake.faults.append(lambda _: Reply(chunks=[*rows[:4], sse(envelope("overloaded_error", "Overloaded"), "error")]))
    with pytest.raises(Overloaded):
        list(remote.stream_chat([HELLO]))
    fake.faults.append(lambda _: Reply(chunks=rows[:5]))
    with pytest.raises(BadAnswer, match="before the answer was whole"):
        list(remote.stream_chat([HELLO]))
    fake.faults.append(lambda _: Reply(chunks=[*rows[:5], CUT]))
    with pytest.raises(BrollyError):
        list(remote.stream_chat([HELLO]))


def test_names_and_lengths_that_it_does_not_know(fake: FakeAnthropic) -> None:
    with pytest.raises(NotFound):
        Remote("anthropic:claude-missing").chat([HELLO])
    with pytest.raises(ContextTooLong):
        Remote("anthropic:claude-haiku-5-5").chat([{"role": "user", "content": "toolong"}])
    assert replace(NEW, base=fake.url).host.startswith("127.0.0.1")
