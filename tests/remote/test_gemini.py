"""Gemini: what is said in its words, what it answers, and what of it goes wrong."""

from __future__ import annotations

import base64
import json
import random
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
    Filtered,
    KeyRefused,
    NotFound,
    OptionError,
    Overloaded,
    UnsupportedTask,
)
from brolly.remote.dialects.gemini import answers, content, embeddings, images, models
from brolly.remote.model import Remote
from brolly.remote.target import parse
from brolly.verbs import DrawOptions, EmbedOptions, gather
from tests.remote.fakes import CUT, KEY
from tests.remote.fakes.gemini import PICTURE, UNSIGNED, FakeGemini, busy, event, overloaded, refusal
from tests.remote.fakes.server import Reply
from tests.remote.wire import answer_of, ask_of

TARGET = parse("gemini:gemini-3.1-pro-preview")
OLDER = parse("gemini:gemini-2.5-flash")
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGemini]:
    with FakeGemini() as found:
        at(found, monkeypatch)
        yield found


def at(fake: FakeGemini, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    monkeypatch.setenv("GEMINI_BASE_URL", f"{fake.url}/v1")


def said(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def body_of(ask: Any, target: Any = TARGET) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(content.call(ask, target).body))
    return found


# ---- conversations with a server


@pytest.mark.parametrize("split", [0, 1])
def test_an_answer_is_the_same_whole_by_pieces_and_byte_by_byte(split: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeGemini(split=split) as fake:
        at(fake, monkeypatch)
        model = Remote("gemini:gemini-3.1-pro-preview")
        asked = said("Grüße, 你好, 👩‍🚀 and so on")
        whole = model.chat(asked, thoughts=True)
        pieces = list(model.stream_chat(asked, thoughts=True))
    assert whole.text == "You said: Grüße, 你好, 👩‍🚀 and so on" and whole.reasoning == "Let me think."
    streamed = gather(pieces)
    assert (streamed.text, streamed.reasoning, streamed.usage) == (whole.text, whole.reasoning, whole.usage)
    assert streamed.usage.reasoning_tokens == 3 and pieces[-1].finish_reason == "stop"
    assert sum(bool(piece.text) for piece in pieces) > 5


@pytest.mark.parametrize("model", ["gemini-3.1-pro-preview", "gemini-2.5-flash"])
def test_calls_and_their_results_go_through(fake: FakeGemini, model: str) -> None:
    asked = said("weather twice")
    first = Remote(f"gemini:{model}").chat(asked, tools=[TOOL])
    results = [{"role": "tool", "tool_call_id": call.id, "content": "rain"} for call in first.tool_calls]
    found = Remote(f"gemini:{model}").chat([*asked, first.message, *results], tools=[TOOL])
    assert found.text == "The tool said rain and rain." and len({call.id for call in first.tool_calls}) == 2


@pytest.mark.parametrize("stream", [False, True])
def test_signatures_of_calls_go_back_though_the_client_forgets_them(fake: FakeGemini, stream: bool) -> None:
    model = Remote("gemini:gemini-3.1-pro-preview")
    asked = said("weather twice")
    pieces = model.stream_chat(asked, tools=[TOOL]) if stream else None
    first = gather(pieces) if pieces else model.chat(asked, tools=[TOOL])
    assert first.finish_reason == "tool_calls" and len(first.tool_calls) == 2
    turn = {**first.message}
    turn.pop("opaque")
    results = [{"role": "tool", "tool_call_id": call.id, "content": "rain"} for call in first.tool_calls]
    assert model.chat([*asked, turn, *results], tools=[TOOL]).text == "The tool said rain and rain."
    parts = fake.requests[-1].json["contents"][1]["parts"]
    assert [part.get("thoughtSignature") for part in parts] == [first.opaque[0]["signature"], None]
    assert [part["functionCall"]["id"] for part in parts] == [call.id for call in first.tool_calls]
    # another process knows neither signature nor id, and Gemini takes what stands for them
    other = Remote("gemini:gemini-3.1-pro-preview")
    assert other.chat([*asked, turn, *results], tools=[TOOL]).text == "The tool said rain and rain."
    parts = fake.requests[-1].json["contents"][1]["parts"]
    assert [part.get("thoughtSignature") for part in parts] == [UNSIGNED, None]
    assert "id" not in parts[0]["functionCall"]


def test_older_models_get_neither_ids_nor_signatures_that_they_did_not_give(fake: FakeGemini) -> None:
    turn = {
        "role": "assistant",
        "tool_calls": [{"id": "toolu_1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}],
        "opaque": [{"vendor": "anthropic", "call": "toolu_1", "signature": "theirs"}],
    }
    result = {"role": "tool", "tool_call_id": "toolu_1", "content": "rain"}
    found = Remote("gemini:gemini-2.5-flash").chat([*said("weather"), turn, result], tools=[TOOL])
    assert found.text == "The tool said rain."
    assert fake.requests[-1].json["contents"][1]["parts"] == [{"functionCall": {"name": "get_weather", "args": {}}}]
    # nor a newer one's: a conversation may change its model
    asked = said("weather twice")
    newer = Remote("gemini:gemini-3.1-pro-preview").chat(asked, tools=[TOOL])
    results = [{"role": "tool", "tool_call_id": call.id, "content": call.id} for call in newer.tool_calls]
    found = Remote("gemini:gemini-2.5-flash").chat([*asked, newer.message, *results], tools=[TOOL])
    assert found.text == "The tool said " + " and ".join(call.id for call in newer.tool_calls) + "."


def test_the_signature_of_a_text_goes_back_where_it_stood(fake: FakeGemini) -> None:
    model = Remote("gemini:gemini-3.1-pro-preview")
    first = gather(model.stream_chat(said("Hello"), thoughts=True))
    assert first.opaque == ({"vendor": "gemini", "after": 15, "length": 0, "signature": first.opaque[0]["signature"]},)
    model.chat([*said("Hello"), first.message, *said("And?")])
    parts = fake.requests[-1].json["contents"][1]["parts"]
    assert parts == [{"text": "You said: Hello"}, {"text": "", "thoughtSignature": first.opaque[0]["signature"]}]


def test_what_ran_at_googles_goes_back_as_it_came() -> None:
    ran = {"executableCode": {"language": "PYTHON", "code": "1+1"}}
    told = {"content": {"parts": [{"text": "I count. "}, ran, {"text": "2", "thoughtSignature": "c2ln"}]}}
    body = {"candidates": [{**told, "finishReason": "STOP"}]}
    found = answer_of(content.whole(body, ask_of("Count"), TARGET))
    assert found.text == "I count. 2"
    back = body_of(ask_of([*said("Count"), found.message, *said("Again")]))["contents"][1]
    assert back == {
        "role": "model", "parts": [{"text": "I count. "}, ran, {"text": "2", "thoughtSignature": "c2ln"}]
    }  # fmt: skip
    shorter = {**found.message, "content": "No."}
    parts = body_of(ask_of([*said("Count"), shorter, *said("Again")]))["contents"][1]["parts"]
    assert parts[0] == {"text": "No."} and ran in parts


def test_errors_are_the_ones_that_fit(fake: FakeGemini, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Remote("gemini:gemini-3.1-pro-preview", retries=0)
    for stream in (False, True):

        def ask(text: str, model: Remote = model, stream: bool = stream) -> Any:
            return gather(model.stream_chat(said(text))) if stream else model.chat(said(text))

        with pytest.raises(NotFound, match="missing"):
            ask("Hello", Remote("gemini:missing"))
        with pytest.raises(ContextTooLong, match="2001"):
            ask("toolong")
        with pytest.raises(Filtered, match="PROHIBITED_CONTENT"):
            ask("unspeakable")
        assert ask("forbidden").finish_reason == "content_filter"
        fake.faults.append(lambda _: busy("0.25s"))
        with pytest.raises(Busy) as told:
            ask("Hello")
        assert told.value.retry_after == 0.25
        fake.faults.append(lambda _: overloaded())
        with pytest.raises(Overloaded):
            ask("Hello")
        fake.faults.append(lambda _: Reply(400, body=[refusal(400, "Request contains an invalid argument.").body]))
        with pytest.raises(OptionError, match="invalid argument"):
            ask("Hello")
        monkeypatch.setenv("GEMINI_API_KEY", "sk-test-another-0123456789")
        with pytest.raises(KeyRefused) as refused:
            ask("Hello", Remote("gemini:gemini-3.1-pro-preview"))
        assert "another" not in str(refused.value) and "keys set gemini" in str(refused.value)
        monkeypatch.setenv("GEMINI_API_KEY", KEY)


def test_a_busy_vendor_is_asked_again_when_it_says(fake: FakeGemini) -> None:
    fake.faults += [lambda _: busy("0.01s"), lambda _: overloaded()]
    assert Remote("gemini:gemini-2.5-flash").chat(said("Hello")).text == "You said: Hello"
    assert len(fake.requests) == 3


def test_an_error_within_a_stream_is_told(fake: FakeGemini) -> None:
    start = {"candidates": [{"content": {"parts": [{"text": "Hel"}], "role": "model"}}]}
    model = Remote("gemini:gemini-2.5-flash", retries=0)
    for broken, kind in (
        (event(overloaded().body), Overloaded),
        (event([busy("3s").body]), Busy),
        (
            event({"error": {"code": 500, "message": "An internal error has occurred.", "status": "INTERNAL"}}),
            BrollyError,
        ),
        (event({"error": "odd"}), BrollyError),
        (CUT, BadAnswer),
        (b"", BadAnswer),
        (b"data: {\r\n\r\n", BadAnswer),
    ):
        fake.faults.append(lambda _, broken=broken: Reply(chunks=[event(start), 0.01, broken]))
        stream = model.stream_chat(said("Hello"))
        assert next(stream).text == "Hel"
        with pytest.raises(kind):
            list(stream)


def test_a_stream_that_nobody_reads_is_closed(fake: FakeGemini) -> None:
    parts = [event({"candidates": [{"content": {"parts": [{"text": "so "}]}}]}), 0.05] * 200
    fake.faults.append(lambda _: Reply(chunks=parts))
    stream = Remote("gemini:gemini-2.5-flash").stream_chat(said("Hello"))
    next(stream)
    stream.close()
    fake.until(lambda: fake.left == 1)


def test_embedding_counting_drawing_and_the_list(fake: FakeGemini) -> None:
    found = Remote("gemini:gemini-embedding-001").embed(
        [f"text {at}" for at in range(230)], role="document", dimensions=4
    )
    assert found.vectors.shape == (230, 4) and found.n_tokens == 460
    assert sorted(len(request.json["requests"]) for request in fake.requests) == [30, 100, 100]
    assert fake.requests[0].json["requests"][0]["taskType"] == "RETRIEVAL_DOCUMENT"
    Remote("gemini:gemini-embedding-2").embed("Where?", role="query")
    asked = fake.requests[-1].json["requests"][0]
    assert asked["content"]["parts"][0]["text"] == "task: search result | query: Where?" and "taskType" not in asked
    full = [{"role": "system", "content": "Be brief."}, *said("Hello there")]
    assert Remote("gemini:gemini-2.5-flash").count(full, tools=[TOOL]) == 7
    drawn = Remote("gemini:gemini-2.5-flash-image").draw("A dot", [PICTURE], size="1:1")
    assert [(one.format, one.data) for one in drawn.pictures] == [("png", PICTURE)]
    with pytest.raises(Filtered, match="IMAGE_SAFETY"):
        Remote("gemini:gemini-2.5-flash-image").draw("forbidden")


# ---- what is said


def test_neighbours_of_a_role_are_one_turn_and_nothing_is_sent_empty() -> None:
    found = body_of(ask_of([*said("One"), *said("Two"), {"role": "assistant", "content": None}, *said("Three")]))
    assert found["contents"] == [{"role": "user", "parts": [{"text": "One"}, {"text": "Two"}, {"text": "Three"}]}]


def test_results_stand_in_the_order_of_their_calls() -> None:
    calls = [{"id": id, "type": "function", "function": {"name": "look", "arguments": "{}"}} for id in "abc"]
    results = [{"role": "tool", "tool_call_id": id, "content": id.upper()} for id in "cab"]
    turn = {"role": "assistant", "content": None, "tool_calls": calls}
    contents = body_of(ask_of([*said("Look"), turn, *results, turn, *results[:2], *said("So?")]))["contents"]
    # results alone make the turn behind their calls: what the user says then is another
    assert [c["role"] for c in contents] == ["user", "model", "user", "model", "user", "user"]
    assert contents[5]["parts"] == [{"text": "So?"}]
    for turn, wanted in ((contents[2], "ABC"), (contents[4], "AC")):
        given = [part["functionResponse"]["response"]["output"] for part in turn["parts"]]
        assert given == list(wanted)


def test_pictures_that_a_tool_gave_go_with_its_answer() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    result = {"role": "tool", "tool_call_id": "a", "content": ["It is small.", PICTURE]}
    found = body_of(ask_of([*said("Look"), {"role": "assistant", "tool_calls": [call]}, result]))
    inline = {"mimeType": "image/png", "data": base64.b64encode(PICTURE).decode()}
    assert found["contents"][2]["parts"] == [
        {
            "functionResponse": {
                "name": "look",
                "response": {"output": "It is small."},
                "parts": [{"inlineData": inline}],
            }
        }
    ]


LACKING = [
    (dict(logprobs=21), "20 alternatives"),
    (dict(top_k=0), "top_k of 0"),
    (dict(n=2, stream=True), "one if it is streamed"),
    (dict(n=9), "up to 8 answers"),
    (dict(tools=[TOOL], parallel=False), "parallel_tool_calls"),
]


@pytest.mark.parametrize("options,told", LACKING)
def test_what_there_is_no_word_for_is_told(options: dict[str, Any], told: str) -> None:
    assert told in "; ".join(content.lacks(ask_of("Hello", **options), OLDER))


def shown(url: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]


UNSAID: list[tuple[Any, str]] = [
    ([{"role": "system", "content": "Be brief."}], "instructions alone"),
    ([{"role": "tool", "tool_call_id": "x", "content": "rain"}], "no message calls 'x'"),
    ([{"role": "user", "content": [{"type": "video_url", "video_url": {}}]}], "'video_url'"),
    (shown("http://a.test/b.png"), "send the file"),
    (shown("https://a.test/b"), "does not tell"),
    (shown("file:///etc/passwd"), "send the file"),
    ([{"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]}], "send the file"),
]


@pytest.mark.parametrize("messages,told", UNSAID)
def test_parts_that_cannot_travel_are_refused_before_anything_is_sent(messages: Any, told: str) -> None:
    ask = ask_of(messages)
    assert told in "; ".join(content.lacks(ask, TARGET))
    with pytest.raises(OptionError, match="expected|send|has no|wants|answers"):
        content.count(ask, TARGET)


def test_the_model_is_refused_what_it_has_not_and_warned_of_hints() -> None:
    model = Remote("gemini:gemini-3.1-pro-preview")
    for options in (dict(min_p=0.1), dict(logit_bias={1: 2.0}), dict(grammar="root ::= 'a'"), dict(ignore_eos=True)):
        with pytest.raises(OptionError, match="has no"):
            model.check(model.prepare_chat(said("Hello"), **options))  # type: ignore[arg-type]
    for options, told in (
        (dict(effort="max"), r"no effort 'max' \(high is sent in its place\)"),
        (dict(effort="4096"), "counts no tokens of thinking"),
        (dict(seed=2**40), "no seed beyond"),
        (dict(json_schema='{"type":"string","pattern":"a+","minLength":3}'), "minLength, pattern"),
        (dict(tools=[{**TOOL, "function": {**TOOL["function"], "strict": True}}]), "strict tools"),  # type: ignore[dict-item]
    ):
        with pytest.warns(UserWarning, match=told):
            model.check(model.prepare_chat(said("Hello"), **options))  # type: ignore[arg-type]
        strict = Remote("gemini:gemini-3.1-pro-preview", strict=True)
        with pytest.raises(OptionError, match=told):
            strict.check(strict.prepare_chat(said("Hello"), **options))  # type: ignore[arg-type]
    assert "seed" not in body_of(ask_of("Hello", seed=2**40)).get("generationConfig", {})


def test_words_of_effort_are_levels_or_budgets_as_the_model_has_them() -> None:
    def thinking(target: Any, **options: Any) -> Any:
        return body_of(ask_of("Hello", **options), target).get("generationConfig", {}).get("thinkingConfig")

    assert thinking(TARGET, effort="low") == {"thinkingLevel": "LOW"}
    assert thinking(OLDER, effort="high") == {"thinkingBudget": 24576}
    assert thinking(OLDER, effort="none", thoughts=True) == {"includeThoughts": True, "thinkingBudget": 0}
    assert thinking(OLDER, effort="xhigh") == thinking(OLDER, effort="max") == {"thinkingBudget": 24576}
    assert thinking(TARGET, effort="minimal") == thinking(TARGET, effort="none") == {"thinkingLevel": "LOW"}
    assert thinking(parse("gemini:gemini-9-new"), effort="xhigh") == {"thinkingLevel": "XHIGH"}
    assert thinking(parse("gemini:gemini-2.5-pro"), effort="none") == {"thinkingBudget": 1024}  # it always thinks
    none = parse("gemini:gemini-2.0-flash")
    assert thinking(none, effort="high") is None and content.hints(ask_of("Hello", effort="high"), none)
    assert not content.hints(ask_of("Hello", effort="none"), none)


def test_more_stop_texts_than_it_takes_are_looked_for_here(fake: FakeGemini) -> None:
    stops = ("a", "b", "c", "d", "e", "there")
    model = Remote("gemini:gemini-2.5-flash")
    assert model.chat(said("Hi there you"), stop=("x", "there")).text == "You said: Hi "
    assert "stopSequences" in fake.requests[-1].json["generationConfig"]
    found = gather(model.stream_chat(said("Hi there you"), stop=stops[3:] + ("1", "2", "3")))
    assert found.text == "You sai" and "generationConfig" not in fake.requests[-1].json


def test_a_name_of_a_model_leads_nowhere_else() -> None:
    assert content.model_path(parse("gemini:tunedModels/my-1"), "x") == "/tunedModels/my-1:x"
    assert content.model_path(parse("gemini:models/gemini-3"), "x") == "/models/gemini-3:x"
    assert content.model_path(parse("gemini:a?b&c"), "x") == "/models/a%3Fb%26c:x"
    for name in ("../files", "..", "models/../files", "a/b"):
        with pytest.raises(OptionError, match="no name of a model"):
            content.model_path(parse(f"gemini:{name}"), "x")


def test_a_tool_choice_of_several_is_said() -> None:
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [TOOL]}}
    calling = body_of(ask_of("Hello", tools=[TOOL], tool_choice=choice))["toolConfig"]["functionCallingConfig"]
    assert calling == {"mode": "VALIDATED", "allowedFunctionNames": ["get_weather"]}
    for wrong in ("sometimes", {"type": "web_search"}, {"type": "function"}):
        with pytest.raises(OptionError, match="expected"):
            body_of(ask_of("Hello", tools=[TOOL], tool_choice=wrong))
    with pytest.raises(OptionError, match="a tool is"):
        body_of(ask_of("Hello", tools=[{"type": "web_search"}]))


def test_pictures_take_a_ratio_and_no_pixels() -> None:
    for size in ("1024x1024", "16:9 16:9", "big", "1:1 2K 4K"):
        with pytest.raises(OptionError, match="takes a ratio"):
            images.draw("A dot", [], DrawOptions(size=size), TARGET)
    with pytest.raises(OptionError, match="one picture a request"):
        Remote("gemini:gemini-2.5-flash-image").draw("A dot", n=2, seed=1)
    with pytest.raises(UnsupportedTask):
        embeddings.embed([b"x"], EmbedOptions(), TARGET)
    with pytest.raises(OptionError, match="role is 'poem'"):
        embeddings.embed(["x"], EmbedOptions(role="poem"), TARGET)


# ---- what it answers


def test_ends_have_the_meaning_that_google_gives_them() -> None:
    def ended(reason: Any, **more: Any) -> Any:
        body = {"candidates": [{"content": {"parts": [{"text": "x"}]}, "finishReason": reason, **more}]}
        return answer_of(content.whole(body, ask_of("Hello"), TARGET)).finish_reason

    assert [ended(one) for one in ("STOP", "MAX_TOKENS", "SAFETY", "RECITATION", "SPII")] == [
        "stop", "length", "content_filter", "content_filter", "content_filter"
    ]  # fmt: skip
    for reason in ("MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "OTHER", "A_NEW_ONE"):
        with pytest.raises(BadAnswer, match=f"{reason}.*: print"):
            ended(reason, finishMessage="print(1)")
    with pytest.raises(BadAnswer, match="cut off"):
        ended(None)


def test_several_answers_are_told_apart_though_the_first_repeats_the_others() -> None:
    parts = [{"text": "A"}], [{"text": "B", "thought": True}, {"text": "B"}], [{"text": "C"}]

    def made(*several: Any) -> list[str]:
        rows = [
            {"content": {"parts": one}, "finishReason": "STOP"} | ({"index": at} if at else {})
            for at, one in enumerate(several)
        ]
        told = {"candidatesTokenCount": 30, "promptTokenCount": 4}
        found = content.whole({"candidates": rows, "usageMetadata": told}, ask_of("Hello", n=3), OLDER)
        assert sum(piece.usage.completion_tokens for piece in found if piece.usage) == 30
        return [answer_of(found, index).text for index in range(3)]

    assert made(*parts) == made([*parts[0], *parts[1], *parts[2]], *parts[1:]) == ["A", "B", "C"]
    assert made(parts[0], parts[0], parts[0]) == ["A", "A", "A"]


def test_calls_are_checked() -> None:
    def called(call: Any) -> Any:
        body = {"candidates": [{"content": {"parts": [{"functionCall": call}]}, "finishReason": "STOP"}]}
        return answer_of(content.whole(body, ask_of("Hello"), TARGET)).tool_calls

    (found,) = called({"name": "now"})
    assert found.arguments == "{}" and found.id.startswith("call_")
    (found,) = called({"name": "now", "id": "fc_1", "args": {"city": "Köln", "half": "\ud83d"}})
    assert json.loads(found.arguments)["city"] == "Köln" and found.arguments.encode()
    for wrong in (None, [], {"args": {}}, {"name": 3}, {"name": "x", "args": []}, {"name": "x", "args": {"a": 1e999}}):
        with pytest.raises(BadAnswer):
            called(wrong)


def test_usage_has_all_that_was_read_and_written() -> None:
    told = {
        "promptTokenCount": 100, "cachedContentTokenCount": 60, "candidatesTokenCount": 10, "thoughtsTokenCount": 5,
        "toolUsePromptTokenCount": 7, "totalTokenCount": 122,
    }  # fmt: skip
    found = answers.usage_of(told)
    assert (found.prompt_tokens, found.completion_tokens) == (107, 15)
    assert (found.cached_tokens, found.reasoning_tokens) == (60, 5) and found.total_tokens == 122
    assert answers.usage_of({"promptTokenCount": -1, "candidatesTokenCount": "many"}).total_tokens == 0


CALL = {"functionCall": {"name": "f", "args": {"a": [1, {"b": "c"}]}, "id": "1"}, "thoughtSignature": "c2ln"}
CHANCES = {
    "chosenCandidates": [{"token": "x", "logProbability": -0.1}],
    "topCandidates": [{"candidates": [{"token": "y", "logProbability": -3}]}],
}
PARTS = [{"text": "t", "thought": True}, {"text": "x"}, CALL, {"executableCode": {"code": "1"}}]
CANDIDATE = {
    "content": {"parts": PARTS, "role": "model"},
    "finishReason": "STOP",
    "index": 0,
    "logprobsResult": CHANCES,
}
USED = {"promptTokenCount": 3, "candidatesTokenCount": 2}
BODY = {"candidates": [CANDIDATE], "usageMetadata": USED, "promptFeedback": {}, "modelVersion": "x"}
RETRY = {"@type": "a.RetryInfo", "retryDelay": "1s"}
FAULT = {"error": {"code": 429, "message": "m", "status": "S", "details": [RETRY]}}
VECTORS = {"embeddings": [{"values": [0.1, 0.2]}, {"values": [0.1, 0.3]}], "usageMetadata": USED}
INLINE = {"inlineData": {"mimeType": "image/png", "data": base64.b64encode(PICTURE).decode()}}
DRAWN = {"candidates": [{"content": {"parts": [{"text": "x"}, INLINE]}, "finishReason": "STOP"}], "usageMetadata": USED}
LISTED = {"models": [{"name": "models/x", "inputTokenLimit": 3, "supportedGenerationMethods": ["generateContent"]}]}


def mutated(value: Any, luck: random.Random) -> Any:
    """The same with something else within."""
    odd = (None, True, -1, 1e400, "", "x" * 5000, "\ud800", [], {}, [None], {"x": 1}, 2**70)
    if luck.random() < 0.06:
        return luck.choice(odd)
    if isinstance(value, dict):
        return {name: mutated(one, luck) for name, one in value.items() if luck.random() > 0.03}
    if isinstance(value, list):
        return [mutated(one, luck) for one in value for _ in range(1 + (luck.random() < 0.03))]
    return value


def test_whatever_comes_makes_pieces_or_one_of_our_errors() -> None:
    luck, ask, fine, wrong = random.Random(7), ask_of("Hello", logprobs=1), 0, 0

    def stream() -> list[Any]:
        return [mutated(BODY, luck), mutated(BODY, luck), *[mutated(FAULT, luck)] * luck.choice((0, 0, 1))]

    runs: list[Callable[[], Any]] = [
        lambda: content.whole(mutated(BODY, luck), ask, TARGET),
        lambda: streamed(
            [mutated(BODY, luck), mutated(BODY, luck), *[mutated(FAULT, luck)] * luck.choice((0, 0, 1))], ask
        ),
        lambda: embeddings.vectors(mutated(VECTORS, luck), 2),
        lambda: images.drawn(mutated(DRAWN, luck)),
        lambda: models.listed(mutated(LISTED, luck)),
        lambda: content.counted(mutated({"totalTokens": 3}, luck)),
    ]
    for run in runs * 2000:
        after = content.told(mutated(FAULT, luck)).after
        assert after is None or after >= 0
        try:
            made = run()
        except BrollyError as caught:
            assert len(str(caught)) < 2000
            wrong += 1
            continue
        fine += 1
        if isinstance(made, list):
            answer = gather(made, True)
            json.dumps([answer.text, answer.reasoning, *[call.arguments for call in answer.tool_calls]]).encode()
            (answer.text + (answer.reasoning or "")).encode()
            content.call(ask_of([*said("Hello"), answer.message, *said("So?")]), TARGET)
    assert fine > 3000 and wrong > 3000


def streamed(bodies: list[Any], ask: Any) -> Any:
    reader = content.reader(ask, TARGET)
    return [piece for body in bodies for piece in reader.push("", body)] + reader.end()


def test_no_key_is_in_anything(fake: FakeGemini, capsys: pytest.CaptureFixture[str]) -> None:
    model = Remote("gemini:gemini-3.1-pro-preview", retries=0)
    fake.faults.append(lambda request: refusal(400, f"odd key {request.headers['x-goog-api-key']} in it"))
    echo = {"error": {"code": 500, "message": f"odd key {KEY} in it", "status": "INTERNAL"}}
    fake.faults.append(lambda _: Reply(chunks=[event(echo)]))
    told = [repr(model), repr(model.client), str(vars(model.target))]
    for stream in (False, True):
        with pytest.raises(BrollyError) as error, warnings.catch_warnings():
            list(model.stream_chat(said("Hello"))) if stream else model.chat(said("Hello"))
        told += [str(error.value), repr(error.value)]
    told += capsys.readouterr()
    assert not any(KEY in one for one in told)
    assert KEY not in str([request.target for request in fake.requests])
    assert replace(TARGET).host == "generativelanguage.googleapis.com"


@pytest.mark.parametrize(
    "settings", [{"maxOutputTokens": 9}, {"candidateCount": 2}, {"temperature": 1.0}], ids=lambda one: next(iter(one))
)
def test_fields_of_the_vendors_own_go_beside_ours_and_never_instead(settings: dict[str, Any]) -> None:
    own = {"mediaResolution": "MEDIA_RESOLUTION_LOW"}
    said = ask_of("Hi", max_tokens=3, temperature=0.5, extra={"generationConfig": own})
    assert body_of(said)["generationConfig"]["mediaResolution"] == "MEDIA_RESOLUTION_LOW"
    with pytest.raises(
        OptionError, match=rf"extra has generationConfig\.{next(iter(settings))}, which the request says"
    ):
        body_of(ask_of("Hi", max_tokens=3, temperature=0.5, extra={"generationConfig": settings}))
