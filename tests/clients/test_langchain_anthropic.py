"""LangChain's standard suite for `ChatAnthropic`."""

from __future__ import annotations

from langchain_anthropic import ChatAnthropic
from langchain_tests.integration_tests import ChatModelIntegrationTests

from .conftest import CHAT, URL


class TestMessages(ChatModelIntegrationTests):
    chat_model_class = ChatAnthropic
    chat_model_params = {
        "model": CHAT, "base_url": URL, "api_key": "none", "max_tokens": 600, "max_retries": 0, "temperature": 0.7,
    }  # fmt: skip
    has_tool_choice = True
