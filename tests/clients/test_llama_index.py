"""LlamaIndex: OpenAILike and OpenAILikeEmbedding."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike, OpenAILikeResponses
from pydantic import BaseModel

from .conftest import CHAT, EMBED

HELLO = [ChatMessage(role="system", content="Be short."), ChatMessage(role="user", content="Hello")]


def rain(city: str, days: int) -> str:
    """Whether it rains."""
    return f"{city} {days}"


class Fox(BaseModel):
    """A fox."""

    name: str
    legs: int


@pytest.fixture(scope="module", params=[True, False], ids=["chat", "completions"])
def llm(request: Any, v1: str) -> Any:
    return made(v1, request.param)


def made(v1: str, chat: bool = True) -> Any:
    return OpenAILike(
        model=CHAT, api_base=v1, api_key="none", is_chat_model=chat, is_function_calling_model=chat,
        context_window=32768, max_tokens=400, temperature=0.7, max_retries=0, additional_kwargs={"seed": 1},
    )  # fmt: skip


def embedder(v1: str) -> Any:
    return OpenAILikeEmbedding(model_name=EMBED, api_base=v1, api_key="none", max_retries=0)


def test_complete_and_stream(llm: Any) -> None:
    whole = llm.complete("Hello").text
    assert whole and list(llm.stream_complete("Hello"))[-1].text == whole


def test_chat_and_stream(llm: Any) -> None:
    whole = llm.chat(HELLO).message.content
    assert whole and list(llm.stream_chat(HELLO))[-1].message.content == whole


def test_async(llm: Any) -> None:
    async def ask() -> tuple[Any, Any, Any]:
        parts = [part async for part in await llm.astream_chat(HELLO)]
        return await llm.acomplete("Hello"), await llm.achat(HELLO), parts

    text, told, parts = asyncio.run(ask())
    assert text.text and told.message.content and parts


def test_tools(v1: str) -> None:
    llm = made(v1)
    tool = FunctionTool.from_defaults(rain)
    told = llm.chat_with_tools([tool], user_msg="Rain?", tool_required=True, allow_parallel_tool_calls=False)
    (call,) = llm.get_tool_calls_from_response(told)
    assert call.tool_name == "rain" and set(call.tool_kwargs) == {"city", "days"}
    called = llm.predict_and_call([tool], user_msg="Rain?", tool_required=True, allow_parallel_tool_calls=False)
    assert called.sources[0].tool_name == "rain"


def test_structured(v1: str) -> None:
    llm = made(v1)
    found = llm.structured_predict(Fox, PromptTemplate("A fox"), llm_kwargs={"tool_choice": "required"})
    assert isinstance(found, Fox)


def test_responses(v1: str) -> None:
    llm = OpenAILikeResponses(
        model=CHAT,
        api_base=v1,
        api_key="none",
        is_function_calling_model=True,
        context_window=32768,
        max_output_tokens=60,
    )
    assert llm.chat(HELLO).message.content
    assert list(llm.stream_chat(HELLO))[-1].message.content


def test_embeddings(v1: str) -> None:
    model = embedder(v1)
    one, several = model.get_query_embedding("a cat"), model.get_text_embedding_batch(["a cat", "a dog"])
    assert one == pytest.approx(several[0], abs=1e-5) and len(several) == 2
    assert len(asyncio.run(model.aget_text_embedding("a cat"))) == len(one)


def test_an_index_is_asked(v1: str) -> None:
    texts = ["Foxes live in dens.", "Hens lay eggs.", "It rains in Rome."]
    index = VectorStoreIndex.from_documents([Document(text=text) for text in texts], embed_model=embedder(v1))
    found = index.as_query_engine(llm=made(v1), similarity_top_k=2).query("Where do foxes live?")
    assert str(found) and len(found.source_nodes) == 2
