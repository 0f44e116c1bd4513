"""POST /v1/completions."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from brolly.serve.wire.chat import Sampling
from brolly.serve.wire.common import Answer, UsageBody

Token = Annotated[int, Field(ge=0, lt=2**31)]


class CompletionRequest(Sampling):
    prompt: str | list[str] | list[Token] | list[list[Token]] = ""  # then the model begins anew
    suffix: str | None = None
    echo: bool | None = False
    logprobs: int | None = Field(None, ge=0, le=20)
    best_of: int | None = Field(None, ge=1, le=128)
    return_tokens_as_token_ids: bool | None = None
    add_special_tokens: bool | None = None


class CompletionLogprobs(Answer):
    """The older shape: lists beside each other; the first token of an echoed prompt has no probability."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


class CompletionChoice(Answer):
    text: str
    index: int
    logprobs: CompletionLogprobs | None
    finish_reason: Literal["stop", "length", "content_filter"]


class Completion(Answer):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: UsageBody
    system_fingerprint: str
