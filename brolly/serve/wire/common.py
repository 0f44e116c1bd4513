"""What several groups of routes share: strict and lenient bodies, the error envelope, usage, how a stream is told."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """A request whose unknown fields are refused, as OpenAI refuses them."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class Open(BaseModel):
    """A part of a request whose unknown fields pass."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())


class Answer(BaseModel):
    """A part of an answer; nothing is served that is not told here."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class ErrorBody(Answer):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorEnvelope(Answer):
    """OpenAI's envelope of errors."""

    error: ErrorBody


class StreamOptions(Open):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class PromptDetails(Answer):
    cached_tokens: int = 0


class CompletionDetails(Answer):
    reasoning_tokens: int = 0


class UsageBody(Answer):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails


class TopLogprob(Answer):
    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprobBody(TopLogprob):
    top_logprobs: list[TopLogprob]


class Deleted(Answer):
    id: str
    object: str
    deleted: Literal[True] = True


ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorEnvelope, "description": "The request cannot be granted as it stands."},
    "5XX": {"model": ErrorEnvelope, "description": "The server failed, or has no room now."},
}


def streamed(model: type[BaseModel], what: str) -> dict[int | str, dict[str, Any]]:
    """The responses of a route that answers with `model`, or with server-sent events of `what` if asked to stream."""
    events = {"schema": {"description": f"Server-sent events: {what}"}}
    return {200: {"model": model, "description": "The answer.", "content": {"text/event-stream": events}}, **ERRORS}
