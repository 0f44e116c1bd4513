"""POST /tokenize and /detokenize, in vLLM's shapes."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from brolly.serve.wire.chat import Message, Tool
from brolly.serve.wire.common import Answer, Open
from brolly.serve.wire.completions import Token


class TokenizeRequest(Open):
    """Either `prompt` or `messages`."""

    model: str
    prompt: str | None = None
    messages: list[Message] | None = Field(None, min_length=1)
    tools: list[Tool] | None = None
    add_special_tokens: bool | None = None  # default: true for a prompt, false for messages
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    chat_template_kwargs: dict[str, Any] | None = None
    return_token_strs: bool | None = None


class Tokenized(Answer):
    count: int
    max_model_len: int | None
    tokens: list[int]
    token_strs: list[str] | None


class DetokenizeRequest(Open):
    model: str
    tokens: list[Token]


class Detokenized(Answer):
    prompt: str
