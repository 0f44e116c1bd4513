"""What several groups of routes share: strict and lenient bodies, the error envelope, usage, how a stream is told."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler, model_validator

FIELDS = 200  # that a request may have


def until_first(schema: Any) -> None:
    """Let every list below end at its first wrong element, in place."""
    if isinstance(schema, dict):
        if schema.get("type") == "list":
            schema["fail_fast"] = True
        schema = list(schema.values())
    if isinstance(schema, (list, tuple)):
        for inner in schema:
            until_first(inner)


def to_first(*kinds: type) -> BeforeValidator:
    """The same for a dictionary whose values are of these kinds: of wrong ones the first alone is left, to be told."""

    def check(given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return next(({name: value} for name, value in given.items() if type(value) not in kinds), given)

    return BeforeValidator(check)


Numbers = Annotated[dict[str, Annotated[float, Field(strict=True)]], to_first(int, float)]
Words = Annotated[dict[str, Annotated[str, Field(strict=True)]], to_first(str)]


class Given(BaseModel):
    """What a client sends. It is told one error: pydantic would collect one a wrong element, for each member of a
    union: a body of 600 KB kept the event loop for 17 s and took 2 GB."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> Any:
        found = handler(source)
        until_first(found)
        return found


class Strict(Given):
    """A request whose unknown fields are refused, as OpenAI refuses them."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def few(cls, given: Any) -> Any:
        """Each unknown field is an error of its own."""
        if isinstance(given, dict) and len(given) > FIELDS:
            raise ValueError(f"it has {len(given):,} fields; expected {FIELDS} at most")
        return given


class Open(Given):
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


class Listed(Answer):
    """A page of a list; `data` is each list's own."""

    object: Literal["list"]
    first_id: str | None
    last_id: str | None
    has_more: bool


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
