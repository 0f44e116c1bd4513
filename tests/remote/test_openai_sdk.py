"""OpenAI's own package and our dialects, side by side: what both send for a call, and what both read in the answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from brolly.remote.dialects.openai import chat, responses
from brolly.verbs import Generation
from tests.remote.fakes.openai import FakeOpenAI
from tests.remote.wire import CITY, PDF, PNG, WEATHER, answer_of, ask_of, posted, put, target_of

openai = pytest.importorskip("openai")

USER = {"role": "user", "content": "Tell me of the sea"}
SYSTEM = {"role": "system", "content": "Be brief"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
TRIP = [
    {"role": "user", "content": "How is the weather?"}, {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
]  # fmt: skip
SEEN = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": PNG, "detail": "low"}}]
HEARD = [
    {"type": "text", "text": "What is said?"},
    {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
]
READ = [{"type": "text", "text": "Sum up"}, {"type": "file", "file": {"filename": "a.pdf", "file_data": PDF}}]
FORM = {"type": "json_schema", "json_schema": {"name": "answer", "schema": CITY, "strict": True}}
NAMED = {"type": "function", "function": {"name": "weather"}}

# name → the messages, how we are asked, and what else their package is told
CHATS: dict[str, tuple[list[Any], dict[str, Any], dict[str, Any]]] = {
    "plain": ([USER], {}, {}),
    "system": ([SYSTEM, USER], {}, {}),
    "developer": (
        [{"role": "developer", "content": "Be brief"}, USER], {"max_tokens": 3}, {"max_completion_tokens": 3},
    ),
    "sampling": (
        [USER], {"temperature": 0.5, "top_p": 0.9, "presence_penalty": 0.5, "frequency_penalty": -0.5, "seed": 7},
        {"temperature": 0.5, "top_p": 0.9, "presence_penalty": 0.5, "frequency_penalty": -0.5, "seed": 7},
    ),
    "bias": ([USER], {"logit_bias": {50256: -100}}, {"logit_bias": {"50256": -100}}),
    "tools": ([{"role": "user", "content": "weather twice"}], {"tools": [WEATHER]}, {"tools": [WEATHER]}),
    "one call": (
        [{"role": "user", "content": "weather twice"}], {"tools": [WEATHER], "parallel": False},
        {"tools": [WEATHER], "parallel_tool_calls": False},
    ),
    "required": (
        [USER], {"tools": [WEATHER], "tool_choice": "required"}, {"tools": [WEATHER], "tool_choice": "required"},
    ),
    "forced": ([USER], {"tools": [WEATHER], "tool_choice": NAMED}, {"tools": [WEATHER], "tool_choice": NAMED}),
    "tool's answer": (TRIP, {"tools": [WEATHER]}, {"tools": [WEATHER]}),
    "schema": ([USER], {"json_schema": CITY}, {"response_format": FORM}),
    "any JSON": (
        [{"role": "user", "content": "as JSON"}], {"json_schema": {}}, {"response_format": {"type": "json_object"}},
    ),
    "picture": ([{"role": "user", "content": SEEN}], {}, {}),
    "sound": ([{"role": "user", "content": HEARD}], {}, {}),
    "file": ([{"role": "user", "content": READ}], {}, {}),
    "stop": ([USER], {"stop": ("of", "sea")}, {"stop": ["of", "sea"]}),
    "logprobs": ([USER], {"logprobs": 2}, {"logprobs": True, "top_logprobs": 2}),
    "two answers": ([USER], {"n": 2}, {"n": 2}),
    "refusal": ([{"role": "user", "content": "forbidden"}], {}, {}),
    "cached": ([{"role": "user", "content": "cached words"}], {"extra": {"verbosity": "low"}}, {"verbosity": "low"}),
}  # fmt: skip
THINKING: dict[str, tuple[list[Any], dict[str, Any], dict[str, Any]]] = {
    "effort": ([USER], {"effort": "high"}, {"reasoning_effort": "high"}),
    "no effort": ([USER], {"effort": "none", "tools": [WEATHER]}, {"reasoning_effort": "none", "tools": [WEATHER]}),
}

HELD = {"type": "json_schema", "name": "answer", "schema": CITY, "strict": True}
FLAT = {"type": "function", **WEATHER["function"]}  # type: ignore[dict-item]
SEALED = ["reasoning.encrypted_content"]
RESPONSES: dict[str, tuple[str, list[Any], dict[str, Any], dict[str, Any]]] = {
    "plain": ("gpt-4.1", [USER], {}, {"input": [USER]}),
    "system": (
        "gpt-4.1", [SYSTEM, USER], {"max_tokens": 16},
        {"instructions": "Be brief", "input": [USER], "max_output_tokens": 16},
    ),
    "sampling": (
        "gpt-4.1", [USER], {"temperature": 0.5, "top_p": 0.9}, {"input": [USER], "temperature": 0.5, "top_p": 0.9},
    ),
    "tools": (
        "gpt-4.1", [{"role": "user", "content": "weather twice"}], {"tools": [WEATHER]},
        {"input": [{"role": "user", "content": "weather twice"}], "tools": [FLAT]},
    ),
    "forced": (
        "gpt-4.1", [USER], {"tools": [WEATHER], "tool_choice": NAMED, "parallel": False},
        {
            "input": [USER], "tools": [FLAT], "tool_choice": {"type": "function", "name": "weather"},
            "parallel_tool_calls": False,
        },
    ),
    "tool's answer": (
        "gpt-4.1", TRIP, {"tools": [WEATHER]},
        {
            "input": [
                TRIP[0],
                {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city": "Oslo"}'},
                {"type": "function_call_output", "call_id": "call_1", "output": "rain"},
            ],
            "tools": [FLAT],
        },
    ),
    "schema": (
        "gpt-4.1", [USER], {"json_schema": CITY},
        {"input": [USER], "text": {"format": HELD}},
    ),
    "picture": (
        "gpt-4.1", [{"role": "user", "content": SEEN}], {},
        {"input": [{"role": "user", "content": [
            {"type": "input_text", "text": "What is this?"}, {"type": "input_image", "image_url": PNG, "detail": "low"},
        ]}]},
    ),
    "file": (
        "gpt-4.1", [{"role": "user", "content": READ}], {},
        {"input": [{"role": "user", "content": [
            {"type": "input_text", "text": "Sum up"}, {"type": "input_file", "filename": "a.pdf", "file_data": PDF},
        ]}]},
    ),
    "logprobs": (
        "gpt-4.1", [USER], {"logprobs": 2},
        {"input": [USER], "top_logprobs": 2, "include": ["message.output_text.logprobs"]},
    ),
    "refusal": (
        "gpt-4.1", [{"role": "user", "content": "forbidden"}], {},
        {"input": [{"role": "user", "content": "forbidden"}]},
    ),
    "long": (
        "gpt-4.1", [{"role": "user", "content": "a " * 40}], {"max_tokens": 16},
        {"input": [{"role": "user", "content": "a " * 40}], "max_output_tokens": 16},
    ),
    "thoughts": (
        "gpt-5.6-sol", [USER], {"effort": "low", "thoughts": True},
        {"input": [USER], "reasoning": {"effort": "low", "summary": "auto"}, "include": SEALED},
    ),
    "thoughts and tools": (
        "gpt-5.6-sol", [USER], {"effort": "high", "thoughts": True, "tools": [WEATHER], "tool_choice": "required"},
        {
            "input": [USER], "reasoning": {"effort": "high", "summary": "auto"}, "include": SEALED, "tools": [FLAT],
            "tool_choice": "required",
        },
    ),
    "other fields": (
        "gpt-4.1", [USER], {"json_schema": CITY, "extra": {"text": {"verbosity": "low"}, "truncation": "auto"}},
        {
            "input": [USER], "truncation": "auto",
            "text": {"verbosity": "low", "format": HELD},
        },
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as one:
        yield one


@pytest.fixture(scope="module")
def client(fake: FakeOpenAI) -> Iterator[Any]:
    with openai.OpenAI(api_key=fake.key, base_url=fake.base, max_retries=0) as one:
        yield one


def ours(answer: Generation) -> dict[str, Any]:
    usage = answer.usage
    return {
        "text": answer.text, "finish": answer.finish_reason, "thoughts": answer.reasoning or "",
        "calls": [(call.name, json.loads(call.arguments)) for call in answer.tool_calls],
        "usage": (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, usage.reasoning_tokens),
        "logprobs": [(row.text, row.logprob, row.said, row.others) for row in answer.logprobs or ()],
    }  # fmt: skip


def tokens_of(rows: Any) -> list[Any]:
    """The package's log-probabilities; where it has no bytes they are those of the text."""
    return [
        (
            row.token, row.logprob, said(row),
            tuple((said(one), one.logprob) for one in row.top_logprobs or ()),
        )
        for row in rows or ()
    ]  # fmt: skip


def said(row: Any) -> bytes:
    given = getattr(row, "bytes", None)
    return row.token.encode() if given is None else bytes(given)


def theirs_of_chat(message: Any, finish: str, logprobs: Any, usage: Any) -> dict[str, Any]:
    calls = [(call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls or ()]
    # they tell a refusal and a call that was forced as "stop"
    finish = "content_filter" if message.refusal else "tool_calls" if calls else finish
    return {
        "text": (message.content or "") + (message.refusal or ""), "finish": finish, "thoughts": "", "calls": calls,
        "usage": (
            usage.prompt_tokens, usage.completion_tokens, usage.prompt_tokens_details.cached_tokens,
            usage.completion_tokens_details.reasoning_tokens,
        ),
        "logprobs": tokens_of(logprobs and logprobs.content),
    }  # fmt: skip


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("case", [*CHATS, *THINKING])
def test_chats_are_sent_and_read_as_by_their_package(fake: FakeOpenAI, client: Any, case: str, stream: bool) -> None:
    messages, asked, more = (CHATS | THINKING)[case]
    model = "gpt-5.6-sol" if case in THINKING else "gpt-4.1"
    if stream:
        from openai.lib.streaming.chat import ChatCompletionStreamState

        more = {**more, "stream": True, "stream_options": {"include_usage": True}}
        state = ChatCompletionStreamState()
        for chunk in client.chat.completions.create(model=model, messages=messages, **more):
            state.handle_chunk(chunk)
        found = state.current_completion_snapshot
    else:
        found = client.chat.completions.create(model=model, messages=messages, **more)
    sent = fake.requests[-1].json
    ask = ask_of(messages, stream=stream, **asked)
    target = target_of(f"openai:{model}", fake.base)
    assert chat.lacks(ask, target) == chat.hints(ask, target) == []
    pieces = put(chat, ask, target, fake.key)
    assert fake.requests[-1].json == sent
    for choice in found.choices:
        expected = theirs_of_chat(choice.message, choice.finish_reason, choice.logprobs, found.usage)
        if choice.index:
            expected["usage"] = (found.usage.prompt_tokens, 0, 0, 0)  # the sum is the first one's
        assert ours(answer_of(pieces, choice.index)) == expected


def theirs_of_response(found: Any) -> dict[str, Any]:
    text = thoughts = ""
    calls, logprobs, refused = [], [], False
    for item in found.output:
        if item.type == "reasoning":
            thoughts += "\n\n".join(part.text for part in item.summary)
        elif item.type == "function_call":
            calls.append((item.name, json.loads(item.arguments)))
        else:
            for part in item.content:
                refused |= part.type == "refusal"
                text += part.refusal if part.type == "refusal" else part.text
                logprobs += [] if part.type == "refusal" else tokens_of(part.logprobs)
    usage = found.usage
    finish = (
        "length" if found.status == "incomplete" else "content_filter" if refused else "tool_calls" if calls else "stop"
    )
    return {
        "text": text, "finish": finish, "thoughts": thoughts, "calls": calls,
        "usage": (
            usage.input_tokens, usage.output_tokens, usage.input_tokens_details.cached_tokens,
            usage.output_tokens_details.reasoning_tokens,
        ),
        "logprobs": logprobs,
    }  # fmt: skip


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("case", RESPONSES)
def test_responses_are_sent_and_read_as_by_their_package(
    fake: FakeOpenAI, client: Any, case: str, stream: bool
) -> None:
    model, messages, asked, more = RESPONSES[case]
    if stream:
        events = list(client.responses.create(model=model, store=False, stream=True, **more))
        found = events[-1].response
    else:
        found = client.responses.create(model=model, store=False, **more)
    sent = fake.requests[-1].json
    ask = ask_of(messages, stream=stream, **asked)
    target = target_of(f"openai:{model}", fake.base)
    assert responses.lacks(ask, target) == responses.hints(ask, target) == []
    answer = answer_of(put(responses, ask, target, fake.key))
    assert fake.requests[-1].json == sent
    assert ours(answer) == theirs_of_response(found)


def test_thoughts_go_back_sealed_before_what_they_led_to(fake: FakeOpenAI) -> None:
    """Their package does that with `response.output`; the fake refuses thoughts that nothing follows."""
    target = target_of("openai:gpt-5.6-sol", fake.base)
    first = [{"role": "user", "content": "weather twice"}]
    for stream in (False, True):
        answer = answer_of(put(responses, ask_of(first, tools=[WEATHER], stream=stream), target, fake.key))
        results = [{"role": "tool", "tool_call_id": call.id, "content": "rain"} for call in answer.tool_calls]
        again = ask_of([*first, answer.message, *results], tools=[WEATHER], stream=stream)
        assert answer_of(put(responses, again, target, fake.key)).text == "The tool said rain and rain."
        kinds = [item.get("type", "message") for item in fake.requests[-1].json["input"]]
        assert kinds == ["message", "reasoning", *["function_call"] * 2, *["function_call_output"] * 2]


def test_tokens_are_counted_as_by_their_package(fake: FakeOpenAI, client: Any) -> None:
    theirs = client.responses.input_tokens.count(model="gpt-4.1", instructions="Be brief", input=[USER], tools=[FLAT])
    sent = fake.requests[-1]
    call = responses.count(ask_of([SYSTEM, USER], tools=[WEATHER]), target_of(base=fake.base))
    assert (call.body, fake.base + call.path) == (sent.json, fake.url + sent.path)
    reply = posted(fake.base + call.path, call.body, fake.key)
    assert responses.counted(reply.json()) == theirs.input_tokens == 7


def test_the_fake_answers_in_their_types(fake: FakeOpenAI, client: Any) -> None:
    """Their package does not check what it reads; this does."""
    from openai.types.chat import ChatCompletion, ChatCompletionChunk
    from openai.types.responses import Response, ResponseStreamEvent
    from pydantic import TypeAdapter

    for messages, _, more in CHATS.values():
        whole = client.chat.completions.with_raw_response.create(model="gpt-4.1", messages=messages, **more)
        ChatCompletion.model_validate_json(whole.content, strict=True)
        raw = client.chat.completions.with_raw_response.create(model="gpt-4.1", messages=messages, stream=True, **more)
        for line in raw.http_response.iter_lines():
            if line.startswith("data: {"):
                ChatCompletionChunk.model_validate_json(line[6:], strict=True)
    kinds: Any = TypeAdapter(ResponseStreamEvent)
    for model, _, _, more in RESPONSES.values():
        whole = client.responses.with_raw_response.create(model=model, **more)
        Response.model_validate_json(whole.content)
        raw = client.responses.with_raw_response.create(model=model, stream=True, **more)
        for line in raw.http_response.iter_lines():
            if line.startswith("data: {"):
                kinds.validate_json(line[6:])
