"""Ollama's client for Python."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import ollama
import pytest

from .conftest import CHAT, EMBED
from .test_openai import RAIN, Pet

HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def client(url: str) -> Any:
    return ollama.Client(host=url)


def test_chat_whole_and_streamed(client: Any) -> None:
    options = {"seed": 1, "num_predict": 40}
    whole = client.chat(model=CHAT, messages=HELLO, options=options)
    parts = list(client.chat(model=CHAT, messages=HELLO, options=options, stream=True))
    assert whole.message.content == "".join(part.message.content or "" for part in parts)
    assert whole.done and parts[-1].done and parts[-1].eval_count == whole.eval_count > 0


def test_generate_whole_and_streamed(client: Any) -> None:
    options = {"seed": 1, "num_predict": 40}
    whole = client.generate(model=CHAT, prompt="Hello", options=options)
    assert whole.response == "".join(
        part.response for part in client.generate(model=CHAT, prompt="Hello", options=options, stream=True)
    )


def test_format_of_a_schema(client: Any) -> None:
    told = client.chat(model=CHAT, messages=HELLO, format=Pet.model_json_schema(), options={"num_predict": 400})
    assert Pet.model_validate_json(told.message.content)


def test_format_json(client: Any) -> None:
    told = client.generate(model=CHAT, prompt="Hello", format="json", options={"num_predict": 600, "seed": 4})
    if told.done_reason == "stop":
        json.loads(told.response)


def test_tools_may_be_called(client: Any) -> None:
    def snow(city: str) -> str:
        """Whether it snows.

        Args:
            city: where
        """
        return "no"

    told = client.chat(model=CHAT, messages=HELLO, tools=[snow, RAIN], options={"num_predict": 40})
    call = {"function": {"name": "snow", "arguments": {"city": "Rome"}}}
    history = [*HELLO, {"role": "assistant", "content": "", "tool_calls": [call]}]
    again = client.chat(
        model=CHAT, tools=[snow], options={"num_predict": 20},
        messages=[*history, {"role": "tool", "tool_name": "snow", "content": "no"}],
    )  # fmt: skip
    assert told.message.role == again.message.role == "assistant"


def test_embed(client: Any) -> None:
    told = client.embed(model=EMBED, input=["a cat", "a dog"])
    assert len(told.embeddings) == 2
    assert client.embeddings(model=EMBED, prompt="a cat").embedding


def test_list_show_ps(client: Any) -> None:
    assert any(model.model.startswith(CHAT) for model in client.list().models)
    shown = client.show(CHAT)
    assert "tools" in shown.capabilities and shown.modelinfo
    client.chat(model=CHAT, messages=HELLO, options={"num_predict": 1}, keep_alive="5m")
    assert any(model.model.startswith(CHAT) for model in client.ps().models)


def test_errors(client: Any) -> None:
    with pytest.raises(ollama.ResponseError) as missing:
        client.chat(model="none", messages=HELLO)
    assert missing.value.status_code == 404 and "none" in missing.value.error


def test_async(url: str) -> None:
    async def ask() -> str:
        parts = await ollama.AsyncClient(host=url).chat(
            model=CHAT, messages=HELLO, stream=True, options={"num_predict": 20}
        )
        return "".join([part.message.content or "" async for part in parts])

    assert asyncio.run(ask())
