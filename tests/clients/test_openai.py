"""OpenAI's client for Python: every resource that is claimed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel, Field

from .conftest import CHAT, EAR, EMBED

HELLO: list[Any] = [{"role": "user", "content": "Hello"}]
RAIN: Any = {
    "type": "function",
    "function": {
        "name": "rain",
        "description": "Whether it rains.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}, "days": {"type": "integer"}},
            "required": ["city", "days"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}
FLAT: Any = {"type": "function", **RAIN["function"]}


class Pet(BaseModel):
    name: str = Field(max_length=12)
    kind: Literal["cat", "dog"]
    legs: int = Field(ge=0, le=8)


@pytest.fixture(scope="module")
def client(v1: str) -> Any:
    return openai.OpenAI(base_url=v1, api_key="none", max_retries=0)


# Chat completions


def test_chat(client: Any) -> None:
    told = client.chat.completions.create(model=CHAT, messages=HELLO, seed=1, max_completion_tokens=100)
    assert told.object == "chat.completion" and told.model and told.system_fingerprint and told._request_id
    assert told.choices[0].message.role == "assistant" and told.choices[0].message.content
    assert told.choices[0].finish_reason in ("stop", "length")
    assert told.usage.total_tokens == told.usage.prompt_tokens + told.usage.completion_tokens > 0


def test_chat_streamed_is_the_same(client: Any) -> None:
    asked = dict(model=CHAT, messages=HELLO, seed=1, max_completion_tokens=100)
    whole = client.chat.completions.create(**asked)
    with client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}) as stream:
        chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_chat_stream_helper(client: Any) -> None:
    with client.chat.completions.stream(model=CHAT, messages=HELLO, seed=2, max_tokens=2000) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert final.choices[0].message.content


def test_chat_tools(client: Any) -> None:
    told = client.chat.completions.create(
        model=CHAT,
        messages=HELLO,
        tools=[RAIN],
        tool_choice="required",
        parallel_tool_calls=False,
        seed=1,
        max_tokens=400,
    )
    (call,) = told.choices[0].message.tool_calls
    assert told.choices[0].finish_reason == "tool_calls" and call.function.name == "rain"
    assert set(json.loads(call.function.arguments)) == {"city", "days"}
    again = client.chat.completions.create(
        model=CHAT, max_tokens=60, tools=[RAIN],
        messages=[*HELLO, told.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "No."}],
    )  # fmt: skip
    assert again.choices[0].message.role == "assistant"


def test_chat_tools_streamed_are_the_same(client: Any) -> None:
    asked = dict(
        model=CHAT, messages=HELLO, tools=[RAIN], tool_choice={"type": "function", "function": {"name": "rain"}},
        parallel_tool_calls=False, seed=3, max_tokens=400,
    )  # fmt: skip
    whole = client.chat.completions.create(**asked).choices[0].message.tool_calls[0].function
    with client.chat.completions.stream(**asked) as stream:
        events = list(stream)
        final = stream.get_final_completion().choices[0].message.tool_calls[0].function
    assert "tool_calls.function.arguments.done" in {event.type for event in events}
    assert (final.name, final.arguments) == (whole.name, whole.arguments)


def test_chat_tool_choice_none_and_auto(client: Any) -> None:
    for choice in ("none", "auto"):
        told = client.chat.completions.create(
            model=CHAT, messages=HELLO, tools=[RAIN], tool_choice=choice, max_tokens=40, seed=1
        )
        assert choice == "auto" or not told.choices[0].message.tool_calls


def test_chat_parse(client: Any) -> None:
    told = client.chat.completions.parse(model=CHAT, messages=HELLO, response_format=Pet, max_tokens=400, seed=1)
    assert isinstance(told.choices[0].message.parsed, Pet)


def test_chat_parse_tools(client: Any) -> None:
    told = client.chat.completions.parse(
        model=CHAT, messages=HELLO, tools=[openai.pydantic_function_tool(Pet)], tool_choice="required", max_tokens=600,
        parallel_tool_calls=False, seed=1,
    )  # fmt: skip
    assert isinstance(told.choices[0].message.tool_calls[0].function.parsed_arguments, Pet)


def test_chat_json_object(client: Any) -> None:
    told = client.chat.completions.create(
        model=CHAT, messages=HELLO, response_format={"type": "json_object"}, max_tokens=600, seed=4
    )
    if told.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(told.choices[0].message.content), dict)


def test_chat_logprobs(client: Any) -> None:
    told = client.chat.completions.create(
        model=CHAT, messages=HELLO, logprobs=True, top_logprobs=3, max_tokens=5, temperature=0
    )
    for token in told.choices[0].logprobs.content:
        assert token.logprob <= 0 and len(token.top_logprobs) == 3
        assert token.top_logprobs[0].logprob == pytest.approx(token.logprob)


def test_chat_n_stop_seed_and_penalties(client: Any) -> None:
    asked = dict(
        model=CHAT, messages=HELLO, n=3, seed=5, stop=["e", "\n"], presence_penalty=0.5, frequency_penalty=0.5,
        temperature=0.8, top_p=0.9, max_tokens=20, user="somebody", metadata={"a": "b"}, logit_bias={"5": -100},
    )  # fmt: skip
    first, again = (client.chat.completions.create(**asked) for _ in range(2))
    texts = [c.message.content for c in first.choices]
    assert len(texts) == 3 and not any("e" in text for text in texts)
    assert texts == [c.message.content for c in again.choices]


def test_chat_content_parts_and_developer(client: Any) -> None:
    messages: list[Any] = [
        {"role": "developer", "content": "Be short."},
        {"role": "user", "name": "ann", "content": [{"type": "text", "text": "Hello"}]},
    ]
    assert client.chat.completions.create(model=CHAT, messages=messages, max_tokens=10).choices


def test_chat_with_raw_and_streaming_response(client: Any) -> None:
    raw = client.chat.completions.with_raw_response.create(model=CHAT, messages=HELLO, max_tokens=5)
    assert raw.headers["x-request-id"] and raw.parse().choices
    with client.chat.completions.with_streaming_response.create(
        model=CHAT, messages=HELLO, max_tokens=5, stream=True
    ) as response:
        lines = list(response.iter_lines())
    assert lines[0].startswith("data: {") and "data: [DONE]" in lines


def test_chat_async_at_once(v1: str) -> None:
    async def ask() -> list[Any]:
        async with openai.AsyncOpenAI(base_url=v1, api_key="none", max_retries=0) as client:

            async def one(seed: int) -> str:
                stream = await client.chat.completions.create(
                    model=CHAT, messages=HELLO, seed=seed, stream=True, max_tokens=40
                )
                return "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])

            return await asyncio.gather(*[one(seed) for seed in range(8)])

    assert len({*asyncio.run(ask())}) > 1


# Completions


def test_completions(client: Any) -> None:
    told = client.completions.create(model=CHAT, prompt="Once upon", max_tokens=8, logprobs=2, echo=True, seed=1)
    assert told.object == "text_completion" and told.choices[0].text.startswith("Once upon")
    assert told.choices[0].logprobs.token_logprobs[0] is None and told.choices[0].logprobs.text_offset[0] == 0


def test_completions_of_several_prompts_and_tokens(client: Any) -> None:
    told = client.completions.create(model=CHAT, prompt=["a", "b"], n=2, best_of=2, max_tokens=4)
    assert [c.index for c in told.choices] == [0, 1, 2, 3]
    assert client.completions.create(model=CHAT, prompt=[10, 11, 12], max_tokens=4).usage.prompt_tokens == 3


def test_completions_streamed_are_the_same(client: Any) -> None:
    asked = dict(model=CHAT, prompt="Once", max_tokens=20, seed=1)
    whole = client.completions.create(**asked).choices[0].text
    assert "".join(c.choices[0].text for c in client.completions.create(**asked, stream=True) if c.choices) == whole


# Responses


def test_responses(client: Any) -> None:
    told = client.responses.create(model=CHAT, input="Hello", instructions="Be short.", max_output_tokens=60)
    assert told.object == "response" and told.output_text and told.status in ("completed", "incomplete")
    assert told.usage.total_tokens == told.usage.input_tokens + told.usage.output_tokens


def test_responses_stream_helper(client: Any) -> None:
    with client.responses.stream(model=CHAT, input="Hello", max_output_tokens=60) as stream:
        events = list(stream)
        final = stream.get_final_response()
    kinds = [event.type for event in events]
    assert kinds[0] == "response.created" and kinds[-1] in ("response.completed", "response.incomplete")
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == final.output_text
    assert [e.sequence_number for e in events if hasattr(e, "sequence_number")] == sorted(
        e.sequence_number for e in events if hasattr(e, "sequence_number")
    )


def test_responses_raw_stream(client: Any) -> None:
    events = list(client.responses.create(model=CHAT, input="Hello", stream=True, max_output_tokens=20))
    assert events[0].type == "response.created" and events[0].response.id == events[-1].response.id


def test_responses_parse(client: Any) -> None:
    told = client.responses.parse(model=CHAT, input="A pet", text_format=Pet, max_output_tokens=400)
    assert isinstance(told.output_parsed, Pet)


def test_responses_tools(client: Any) -> None:
    told = client.responses.create(
        model=CHAT,
        input="Rain?",
        tools=[FLAT],
        tool_choice="required",
        parallel_tool_calls=False,
        max_output_tokens=400,
    )
    (call,) = [item for item in told.output if item.type == "function_call"]
    assert call.name == "rain" and set(json.loads(call.arguments)) == {"city", "days"}
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "No."}
    stateful = client.responses.create(
        model=CHAT, input=[result], previous_response_id=told.id, tools=[FLAT], max_output_tokens=40
    )
    assert stateful.previous_response_id == told.id
    history = [{"role": "user", "content": "Rain?"}, *told.output, result]
    assert client.responses.create(model=CHAT, input=history, tools=[FLAT], store=False, max_output_tokens=40).output


def test_responses_tools_streamed(client: Any) -> None:
    with client.responses.stream(
        model=CHAT,
        input="Rain?",
        tools=[FLAT],
        tool_choice="required",
        parallel_tool_calls=False,
        max_output_tokens=400,
    ) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_response()
    assert {"response.function_call_arguments.delta", "response.function_call_arguments.done"} <= kinds
    assert any(item.type == "function_call" for item in final.output)


def test_responses_retrieve_items_and_delete(client: Any) -> None:
    told = client.responses.create(model=CHAT, input="Hello", max_output_tokens=20)
    assert client.responses.retrieve(told.id).output_text == told.output_text
    assert client.responses.input_items.list(told.id).data[0].role == "user"
    client.responses.delete(told.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(told.id)


def test_responses_unstored(client: Any) -> None:
    told = client.responses.create(model=CHAT, input="Hello", store=False, max_output_tokens=20)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(told.id)


def test_responses_background_and_cancel(client: Any) -> None:
    told = client.responses.create(model=CHAT, input="Hello", background=True, max_output_tokens=2000)
    assert told.status in ("queued", "in_progress", "completed")
    assert client.responses.cancel(told.id).status in ("cancelled", "completed")


def test_responses_input_tokens(client: Any) -> None:
    assert client.responses.input_tokens.count(model=CHAT, input="Hello").input_tokens > 0


def test_conversations(client: Any) -> None:
    conversation = client.conversations.create(metadata={"topic": "test"})
    client.responses.create(model=CHAT, input="Hello", conversation=conversation.id, max_output_tokens=20)
    items = client.conversations.items.list(conversation.id).data
    assert {item.role for item in items} == {"user", "assistant"}
    assert client.conversations.delete(conversation.id).deleted


# Embeddings, sound, models


def test_embeddings(client: Any) -> None:
    told = client.embeddings.create(model=EMBED, input=["a cat", "a dog"])
    plain = client.embeddings.create(model=EMBED, input="a cat", encoding_format="float")
    assert told.data[0].embedding == pytest.approx(plain.data[0].embedding, abs=1e-5)
    assert [row.index for row in told.data] == [0, 1] and told.usage.prompt_tokens > 0


@pytest.mark.parametrize("form", ["json", "text", "srt", "vtt", "verbose_json"])
def test_transcriptions(client: Any, sound: Path, form: Any) -> None:
    with sound.open("rb") as file:
        told = client.audio.transcriptions.create(model=EAR, file=file, response_format=form)
    assert isinstance(told, str) == (form in ("text", "srt", "vtt"))


def test_transcription_words(client: Any, sound: Path) -> None:
    told = client.audio.transcriptions.create(
        model=EAR, file=sound, response_format="verbose_json", timestamp_granularities=["word", "segment"]
    )
    assert told.segments is not None and told.words is not None and told.duration


def test_transcription_streamed(client: Any, sound: Path) -> None:
    events = list(client.audio.transcriptions.create(model=EAR, file=sound, stream=True))
    assert events[-1].type == "transcript.text.done"


def test_translations(client: Any, sound: Path) -> None:
    assert isinstance(client.audio.translations.create(model=EAR, file=sound).text, str)


def test_models(client: Any) -> None:
    assert {CHAT, EMBED, EAR} <= {model.id for model in client.models.list()}
    assert client.models.retrieve(CHAT).object == "model"


# Errors


def test_errors_are_the_clients_own(client: Any) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-none", messages=HELLO)
    assert missing.value.code == "model_not_found" and missing.value.request_id
    with pytest.raises(openai.BadRequestError) as wrong:
        client.chat.completions.create(model=CHAT, messages=HELLO, temperature=9)
    assert wrong.value.param == "temperature" and wrong.value.type == "invalid_request_error"
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(model=CHAT, messages=[{"role": "user", "content": "no " * 70_000}])
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model=EMBED, messages=HELLO)


def test_what_is_not_here_yet_is_refused_plainly(client: Any) -> None:
    for ask in (
        lambda: client.images.generate(model=CHAT, prompt="a cat"),
        lambda: client.moderations.create(input="hello"),
        lambda: client.audio.speech.create(model=CHAT, voice="alloy", input="hello"),
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            ask()
        assert refused.value.code == "model_not_supported"
