"""LangChain's standard suites for `ChatOpenAI` and `OpenAIEmbeddings`."""

from __future__ import annotations

from typing import Any

from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from langchain_tests.integration_tests import ChatModelIntegrationTests, EmbeddingsIntegrationTests

from .conftest import CHAT, EMBED, URL


class TestChat(ChatModelIntegrationTests):
    chat_model_class = ChatOpenAI
    chat_model_params = {
        "model": CHAT, "base_url": f"{URL}/v1", "api_key": "none", "max_tokens": 600, "seed": 1,
        "stream_usage": True, "max_retries": 0, "temperature": 0.7,
    }  # fmt: skip
    supports_json_mode = True
    has_tool_choice = True
    structured_output_kwargs = {"method": "json_schema"}


class TestResponses(TestChat):
    @property
    def chat_model_params(self) -> dict[str, Any]:
        params = TestChat.chat_model_params | {"use_responses_api": True}
        return {name: value for name, value in params.items() if name not in ("seed", "stream_usage")}


class TestEmbeddings(EmbeddingsIntegrationTests):
    embeddings_class = OpenAIEmbeddings
    embedding_model_params = {
        "model": EMBED, "base_url": f"{URL}/v1", "api_key": "none", "check_embedding_ctx_length": False,
    }  # fmt: skip
