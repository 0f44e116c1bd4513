"""OpenAI through `Remote`: the same verbs as of a model on this disk, over a server made by its reference."""

from __future__ import annotations

import json
import time
import warnings
from dataclasses import replace
from typing import Any

import pytest

from brolly.errors import BadAnswer, ContextTooLong, KeyRefused, NotFound, OptionError, RemoteError
from brolly.remote import Remote
from brolly.verbs import Generation, gather
from tests.remote import more
from tests.remote.fakes.openai import FakeOpenAI
from tests.remote.fakes.server import CUT, Reply, sse
from tests.remote.wire import CITY, PNG, WEATHER

fake = more.fake  # a fixture

THINKS, PLAIN = "openai:gpt-5.6-sol", "openai:gpt-4.1"
UNKNOWN = "openai:gpt-9-of-which-nothing-is-known"


def user(text: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def both(model: Remote, messages: list[Any], **options: Any) -> Generation:
    """The answer, which is the same whole and streamed, but for the names of its calls."""
    whole = model.chat(messages, **options)
    streamed = gather(model.stream_chat(messages, **options), options.get("logprobs") is not None)
    # what is cut here is closed before its usage comes
    cut = ("usage",) if len(options.get("stop", ())) <= 4 else ()
    for name in ("text", "finish_reason", "reasoning", "logprobs", *cut):
        assert getattr(whole, name) == getattr(streamed, name), name
    assert [(c.name, c.arguments) for c in whole.tool_calls] == [(c.name, c.arguments) for c in streamed.tool_calls]
    return whole


ASKS: list[tuple[str, list[Any], dict[str, Any], str]] = [
    (PLAIN, user("Hi"), {}, "You said: Hi"),
    (PLAIN, user("one two three"), {"stop": "two"}, "You said: one "),
    (PLAIN, user("one two three"), {"stop": ("a!", "b!", "c!", "d!", "two")}, "You said: one "),
    (PLAIN, user("one two three"), {"max_tokens": 3}, "You said: one"),
    (PLAIN, user("Hi"), {"json_schema": CITY}, '{"city": "text"}'),
    (PLAIN, user("Hi"), {"json_schema": {"type": "array", "items": {"type": "string"}, "minItems": 1}}, '["text"]'),
    (PLAIN, user("Hi"), {"choice": ("yes", "no")}, "yes"),
    (PLAIN, user("Hi"), {"regex": "[0-9]{3}"}, "000"),
    (PLAIN, user(["See", {"type": "image_url", "image_url": {"url": PNG}}]), {}, "I see 1 picture."),
    (PLAIN, user("forbidden"), {}, "I cannot help with that."),
    (PLAIN, user("Hi there"), {"logprobs": 3}, "You said: Hi there"),
    (THINKS, user("Hi"), {}, "You said: Hi"),
    (THINKS, user("Hi"), {"thoughts": True, "effort": "high"}, "You said: Hi"),
    (THINKS, user("weather"), {"tools": [WEATHER]}, ""),
]


@pytest.mark.parametrize("at", range(len(ASKS)))
def test_an_answer_is_the_same_whole_streamed_and_byte_by_byte(fake: FakeOpenAI, at: int) -> None:
    reference, messages, options, text = ASKS[at]
    model = Remote(reference)
    found = both(model, messages, **options)
    assert found.text == text
    assert found.usage.prompt_tokens > 0
    fake.split = 1
    again = both(model, messages, **options)
    assert (again.text, again.usage, again.reasoning) == (found.text, found.usage, found.reasoning)


def test_thoughts_are_asked_of_the_dialect_that_tells_them(fake: FakeOpenAI) -> None:
    model = Remote(UNKNOWN)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.chat(user("Hi")).reasoning is None
        assert fake.requests[-1].path == "/v1/chat/completions"
        found = model.chat(user("Hi"), thoughts=True)
    assert (found.reasoning, fake.requests[-1].path) == ("Let me think.", "/v1/responses")
    assert found.usage.reasoning_tokens == 3


def test_tools_go_where_a_model_takes_them_and_its_thoughts_come_back(fake: FakeOpenAI) -> None:
    """Also by a client that keeps nothing of the vendor's own: they are remembered by the calls."""
    model, messages = Remote(THINKS), user("weather twice")
    for stream in (False, True):
        answer = (
            gather(model.stream_chat(messages, tools=[WEATHER])) if stream else model.chat(messages, tools=[WEATHER])
        )
        assert fake.requests[-1].path == "/v1/responses"
        assert answer.finish_reason == "tool_calls" and len({call.id for call in answer.tool_calls}) == 2
        turn = {key: value for key, value in answer.message.items() if key != "opaque"}
        results = [{"role": "tool", "tool_call_id": call.id, "content": "rain"} for call in answer.tool_calls]
        assert model.chat([*messages, turn, *results], tools=[WEATHER]).text == "The tool said rain and rain."
        kinds = [item.get("type") for item in fake.requests[-1].json["input"]]
        assert kinds == [None, "reasoning", *["function_call"] * 2, *["function_call_output"] * 2]


@pytest.mark.parametrize(
    ("name", "path"),
    [("gpt-4.1", "chat/completions"), ("gpt-5", "chat/completions"), ("gpt-5.2", "responses"), ("gpt-5.4", "responses"),
     ("gpt-5.5", "responses"), ("gpt-5.6-sol", "responses")],
)  # fmt: skip
def test_tools_of_models_that_think(fake: FakeOpenAI, name: str, path: str) -> None:
    effort: Any = {} if name == "gpt-4.1" else {"effort": "low"}
    answer = Remote(f"openai:{name}").chat(user("weather"), tools=[WEATHER], **effort)
    assert answer.finish_reason == "tool_calls" and fake.requests[-1].path == f"/v1/{path}"


def test_a_hint_is_told_once_and_refused_if_strict(fake: FakeOpenAI) -> None:
    model = Remote(UNKNOWN)
    with pytest.warns(UserWarning, match="4096 tokens"):
        model.chat(user("Hi"), effort="4096")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.chat(user("Hi"), effort="4096")
    with pytest.raises(OptionError, match="4096 tokens"):
        Remote(UNKNOWN, strict=True).chat(user("Hi"), effort="4096")


def test_a_hint_that_is_told_does_not_travel(fake: FakeOpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPSEEK_BASE_URL", fake.base)
    monkeypatch.setenv("DEEPSEEK_API_KEY", fake.key)
    with pytest.warns(UserWarning, match="no seed"):
        Remote("deepseek:deepseek-chat").chat(user("Hi"), seed=3)
    assert "seed" not in fake.requests[-1].json


def test_an_answer_that_is_whole_stays_so_whatever_follows(fake: FakeOpenAI) -> None:
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    row = {"index": 0, "delta": {"content": "Hello"}, "finish_reason": "stop"}
    whole = sse({**head, "choices": [row], "usage": {"prompt_tokens": 1, "completion_tokens": 1}})
    for end in (CUT, b"data: {broken\n\n", sse({"error": {"message": "late"}})):
        fake.faults.append(lambda _, end=end: Reply(chunks=[whole, 0.02, end]))
        assert gather(Remote(PLAIN).stream_chat(user("Hi"))).text == "Hello"
        job, came = Remote(PLAIN).prepare_chat(user("Hi")), list[Any]()
        fake.faults.append(lambda _, end=end: Reply(chunks=[whole, 0.02, end]))
        Remote(PLAIN).submit(job, came.append)
        fake.until(lambda came=came: len(came) > 1)
        time.sleep(0.1)
        assert [type(one).__name__ for one in came] == ["Piece", "Piece"]


def test_what_came_before_an_error_is_told_first(fake: FakeOpenAI) -> None:
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    row = {"index": 0, "delta": {"content": "Hel"}, "finish_reason": None}
    error = sse({"error": {"message": "it broke", "type": "server_error"}})
    fake.faults.append(lambda _: Reply(chunks=[sse({**head, "choices": [row]}) + error]))
    pieces = []
    with pytest.raises(RemoteError, match="it broke"):
        for piece in Remote(PLAIN).stream_chat(user("Hi")):
            pieces.append(piece.text)
    assert pieces == ["Hel"]


def test_an_answer_that_is_nested_too_deeply_is_none(fake: FakeOpenAI) -> None:
    for depth in (500, 900, 940, 980, 5000):
        deep = "[" * depth + "]" * depth
        for text in (f'{{"choices": {deep}}}', f'{{"choices": [{{"index": 0, "delta": {{"content": {deep}}}}}]}}'):
            fake.faults.append(lambda _, text=text: Reply(chunks=[sse(text)]))
            with pytest.raises(BadAnswer):
                list(Remote(PLAIN).stream_chat(user("Hi")))
            fake.faults.append(lambda _, text=text: Reply(headers={"content-type": "application/json"}, body=text))
            with pytest.raises(BadAnswer):
                Remote(PLAIN).chat(user("Hi"))


def test_what_openai_has_no_word_for_is_refused_before_it_is_sent(fake: FakeOpenAI) -> None:
    for name, value in (("top_k", 3), ("min_p", 0.1), ("grammar", "x"), ("logprobs", 50), ("ignore_eos", True)):
        with pytest.raises(OptionError, match=name.replace("logprobs", "log-probabilities")):
            Remote(PLAIN).chat(user("Hi"), **{name: value})
    assert fake.requests == []


def test_what_an_option_says_without_effect_needs_no_word(fake: FakeOpenAI) -> None:
    model = Remote("openai:gpt-5", strict=True)
    idle: dict[str, Any] = {"temperature": 1.0, "top_p": 1, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
    assert model.chat(user("Hello"), **idle).text == "You said: Hello"
    assert fake.requests[-1].json.keys() == {"model", "messages"}
    assert (
        Remote(PLAIN).chat(user("Hello"), temperature=1.0, top_k=0).text and fake.requests[-1].json["temperature"] == 1
    )
    for name, value in {"temperature": 0.9, "top_k": 1, "min_p": 0.1}.items():
        with pytest.raises(OptionError, match=f"has no {name}"):
            model.chat(user("Hello"), **{name: value})  # type: ignore[arg-type]


def test_several_answers_come_by_their_numbers(fake: FakeOpenAI) -> None:
    for stream in (False, True):
        model, came = Remote(PLAIN), list[Any]()
        model.submit(replace(model.prepare_chat(user("Hi"), n=3), stream=stream), came.append)
        fake.until(lambda came=came: sum(piece.finish_reason is not None for piece in came) == 3)
        answers = [gather(piece for piece in came if piece.index == index) for index in range(3)]
        assert [answer.text for answer in answers] == ["You said: Hi"] * 3
        assert [answer.usage.completion_tokens for answer in answers] == [9, 0, 0]


def test_tokens_are_counted(fake: FakeOpenAI) -> None:
    assert Remote(PLAIN).count(user("one two three")) == 3


def test_errors_are_the_one_right_error_and_never_show_the_key(
    fake: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Remote(PLAIN)
    for messages, reference, kind in (
        (user("toolong"), PLAIN, ContextTooLong), (user("Hi"), "openai:missing", NotFound),
    ):  # fmt: skip
        for stream in (False, True):
            with pytest.raises(kind):
                list(Remote(reference).stream_chat(messages)) if stream else Remote(reference).chat(messages)
    fake.faults.append(lambda _: Reply(chunks=[sse({"error": {"message": f"no {fake.key}", "type": "server_error"}})]))
    with pytest.raises(RemoteError) as error:
        list(model.stream_chat(user("Hi")))
    assert fake.key not in str(error.value) and fake.key[-8:] not in str(error.value)
    wrong = "sk-test-wr0ng-key-0123456789abcdef"
    monkeypatch.setenv("OPENAI_API_KEY", wrong)
    with pytest.raises(KeyRefused) as refused:
        Remote(PLAIN).chat(user("Hi"))
    assert wrong not in str(refused.value) and wrong[-4:] not in str(refused.value) and "keys set" in str(refused.value)


def test_a_stream_that_breaks_off_is_no_answer(fake: FakeOpenAI) -> None:
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    row = {"index": 0, "delta": {"content": "Hel"}, "finish_reason": None}
    for end in ([CUT], []):
        fake.faults.append(lambda _, end=end: Reply(chunks=[sse({**head, "choices": [row]}), *end]))
        pieces = []
        with pytest.raises(BadAnswer):
            for piece in Remote(PLAIN).stream_chat(user("Hi")):
                pieces.append(piece.text)
        assert "".join(pieces) == "Hel"


def test_one_who_leaves_closes_the_stream(fake: FakeOpenAI) -> None:
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    row = {"index": 0, "delta": {"content": "Hel"}, "finish_reason": None}
    fake.faults.append(lambda _: Reply(chunks=[sse({**head, "choices": [row]}), *[0.02, sse(": x")] * 500]))
    pieces = Remote(PLAIN).stream_chat(user("Hi"))
    assert next(pieces).text == "Hel"
    pieces.close()  # type: ignore[attr-defined]
    fake.until(lambda: fake.left == 1)


def test_any_address_is_spoken_to_as_such(fake: FakeOpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROLLY_KEYS", f"{fake.url}={fake.key}")
    model = Remote(f"{fake.base}#gpt-4.1")
    assert both(model, user("Hi"), max_tokens=50).text == "You said: Hi"
    sent = fake.requests[-1].json
    assert sent == {
        "model": "gpt-4.1", "messages": user("Hi"), "max_tokens": 50, "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    json.dumps(sent)
