"""Anthropic's messages. Fields that are not here are ignored: its betas bring new ones each month."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from brolly.serve.wire.common import Answer, Open


class TextBlock(Open):
    type: Literal["text"]
    text: str


class ToolUseBlock(Open):
    type: Literal["tool_use"]
    id: str
    name: str
    input: Any


class ToolResultBlock(Open):
    type: Literal["tool_result"]
    tool_use_id: str
    content: str | list[TextBlock | OtherBlock] | None = None
    is_error: bool | None = None


class ThinkingBlock(Open):
    type: Literal["thinking"]
    thinking: str
    signature: str | None = None


class OtherBlock(Open):
    """An image, a document and what else there is; refused by name where a model cannot read it."""

    type: str
    source: dict[str, Any] | None = None


KNOWN = ("text", "tool_use", "tool_result", "thinking")


def _kind(block: Any) -> str:
    found = block.get("type") if isinstance(block, dict) else getattr(block, "type", None)
    return found if found in KNOWN else "other"


Block = Annotated[
    Annotated[TextBlock, Tag("text")]
    | Annotated[ToolUseBlock, Tag("tool_use")]
    | Annotated[ToolResultBlock, Tag("tool_result")]
    | Annotated[ThinkingBlock, Tag("thinking")]
    | Annotated[OtherBlock, Tag("other")],
    Discriminator(_kind),
]


class Message(Open):
    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class Tool(Open):
    name: str
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    type: str | None = None
    cache_control: dict[str, Any] | None = None


class ToolChoice(Open):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(Open):
    """Whether to think; how much is for models elsewhere, as chat templates count no tokens."""

    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: int | None = Field(None, ge=0, lt=1 << 31)
    display: str | None = None


class OutputFormat(Open):
    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputConfig(Open):
    effort: str | None = None
    format: OutputFormat | None = None


class Metadata(Open):
    user_id: str | None = None


class CountRequest(Open):
    model: str
    messages: list[Message] = Field(min_length=1)
    system: str | list[TextBlock] | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = None
    cache_control: dict[str, Any] | None = None


class MessagesRequest(CountRequest):
    max_tokens: int = Field(ge=1)
    stop_sequences: list[str] | None = None
    temperature: float | None = Field(None, ge=0, le=1)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=0)
    metadata: Metadata | None = None
    service_tier: str | None = None
    stream: bool | None = None


class Counted(Answer):
    input_tokens: int


class UsageBody(Answer):
    """`input_tokens` are those computed now; those that were remembered are in `cache_read_input_tokens`."""

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int


class SaidText(Answer):
    type: Literal["text"]
    text: str


class SaidThinking(Answer):
    type: Literal["thinking"]
    thinking: str
    signature: str


class SaidRedacted(Answer):
    type: Literal["redacted_thinking"]
    data: str


class SaidToolUse(Answer):
    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]


class MessageBody(Answer):
    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[SaidText | SaidThinking | SaidRedacted | SaidToolUse]
    stop_reason: Literal[
        "end_turn", "max_tokens", "stop_sequence", "tool_use", "model_context_window_exceeded", "refusal"
    ]
    stop_sequence: str | None
    usage: UsageBody


class ErrorInner(Answer):
    type: str
    message: str


class AnthropicError(Answer):
    """Anthropic's envelope of errors."""

    type: Literal["error"]
    error: ErrorInner
    request_id: str | None = None


ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": AnthropicError, "description": "The request cannot be granted as it stands."},
    "5XX": {"model": AnthropicError, "description": "The server failed, or has no room now."},
}
