"""Anthropic's client for Python, and requests as Claude Code writes them."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Literal

import anthropic
import pytest
from pydantic import BaseModel

from .conftest import CHAT
from .test_openai import RAIN

HELLO: list[Any] = [{"role": "user", "content": "Hello"}]
TOOL: Any = {
    "name": "rain",
    "description": "Whether it rains.",
    "input_schema": RAIN["function"]["parameters"],
}


@pytest.fixture(scope="module")
def client(url: str) -> Any:
    return anthropic.Anthropic(base_url=url, api_key="none", max_retries=0)


def test_messages(client: Any) -> None:
    told = client.messages.create(model=CHAT, max_tokens=100, messages=HELLO, system="Be short.")
    assert told.type == "message" and told.role == "assistant" and told.content[0].type == "text"
    assert told.stop_reason in ("end_turn", "max_tokens") and told.usage.output_tokens > 0 and told._request_id


def test_raw_stream(client: Any) -> None:
    with client.messages.create(model=CHAT, max_tokens=40, messages=HELLO, stream=True) as stream:
        kinds = [event.type for event in stream]
    assert kinds[0] == "message_start" and kinds[-2:] == ["message_delta", "message_stop"]


def test_stream_helper(client: Any) -> None:
    with client.messages.stream(model=CHAT, max_tokens=40, messages=HELLO) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == final.content[0].text and final.stop_reason
    with client.messages.stream(model=CHAT, max_tokens=40, messages=HELLO) as stream:
        kinds = {event.type for event in stream}
    assert {"message_start", "content_block_start", "text", "content_block_stop", "message_stop"} <= kinds


def test_tools(client: Any) -> None:
    asked = dict(
        model=CHAT, max_tokens=500, tools=[TOOL],
        tool_choice={"type": "any", "disable_parallel_tool_use": True},
    )  # fmt: skip
    told = client.messages.create(messages=HELLO, **asked)
    (call,) = [block for block in told.content if block.type == "tool_use"]
    assert told.stop_reason == "tool_use" and set(call.input) == {"city", "days"}
    result = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "No."}]}
    history = [*HELLO, {"role": "assistant", "content": told.content}, {"role": "user", "content": [result]}]
    assert client.messages.create(model=CHAT, max_tokens=40, messages=history, tools=[TOOL]).content is not None


def test_tools_streamed(client: Any) -> None:
    with client.messages.stream(
        model=CHAT, max_tokens=500, messages=HELLO, tools=[TOOL],
        tool_choice={"type": "tool", "name": "rain", "disable_parallel_tool_use": True},
    ) as stream:  # fmt: skip
        parts = "".join(event.partial_json for event in stream if event.type == "input_json")
        final = stream.get_final_message()
    (call,) = [block for block in final.content if block.type == "tool_use"]
    assert json.loads(parts) == call.input


def test_structured_output(client: Any) -> None:
    class Fox(BaseModel):  # without bounds: this client takes them out of the schema, and holds the answer to them
        name: str
        kind: Literal["red", "grey"]

    told = client.messages.parse(model=CHAT, max_tokens=400, messages=HELLO, output_format=Fox)
    assert isinstance(told.parsed_output, Fox)


def test_count_tokens(client: Any) -> None:
    few = client.messages.count_tokens(model=CHAT, messages=HELLO).input_tokens
    more = client.messages.count_tokens(model=CHAT, messages=HELLO, tools=[TOOL], system="Be short.").input_tokens
    told = client.messages.create(model=CHAT, max_tokens=1, messages=HELLO)
    assert 0 < few < more and told.usage.input_tokens == few


def test_thinking(client: Any) -> None:
    told = client.messages.create(
        model=CHAT, max_tokens=2000, messages=HELLO, thinking={"type": "enabled", "budget_tokens": 1024}
    )
    assert told.type == "message"


def test_errors(client: Any) -> None:
    with pytest.raises(anthropic.NotFoundError) as missing:
        client.messages.create(model="claude-none", max_tokens=10, messages=HELLO)
    assert missing.value.body["error"]["type"] == "not_found_error"
    with pytest.raises(anthropic.BadRequestError) as wrong:
        client.messages.create(model=CHAT, max_tokens=0, messages=HELLO)
    assert wrong.value.body["error"]["type"] == "invalid_request_error"


def test_models(client: Any) -> None:
    assert CHAT in {model.id for model in client.models.list()}
    assert client.models.retrieve(CHAT).type == "model"


def test_async(url: str) -> None:
    async def ask() -> list[Any]:
        async with anthropic.AsyncAnthropic(base_url=url, api_key="none", max_retries=0) as client:
            asked = [client.messages.create(model=CHAT, max_tokens=20, messages=HELLO) for _ in range(4)]
            return await asyncio.gather(*asked)

    assert len(asyncio.run(ask())) == 4
