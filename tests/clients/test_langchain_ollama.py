"""LangChain's standard suites for `ChatOllama` and `OllamaEmbeddings`."""

from __future__ import annotations

from langchain_ollama import ChatOllama, OllamaEmbeddings
from langchain_tests.integration_tests import ChatModelIntegrationTests, EmbeddingsIntegrationTests

from .conftest import CHAT, EMBED, URL


class TestChat(ChatModelIntegrationTests):
    chat_model_class = ChatOllama
    chat_model_params = {"model": CHAT, "base_url": URL, "num_predict": 600, "seed": 1, "temperature": 0.7}
    supports_json_mode = True
    has_tool_choice = False  # the protocol has none


class TestEmbeddings(EmbeddingsIntegrationTests):
    embeddings_class = OllamaEmbeddings
    embedding_model_params = {"model": EMBED, "base_url": URL}
