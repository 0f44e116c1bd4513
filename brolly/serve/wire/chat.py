"""POST /v1/chat/completions."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from brolly.serve.wire.common import Answer, Numbers, Open, StreamOptions, Strict, TokenLogprobBody, UsageBody


class Part(Open):
    """A part of a message's content; which fields there are depends on the type."""

    type: str
    text: str | None = None
    refusal: str | None = None


class CalledFunction(Open):
    name: str
    arguments: str = ""


class Called(Open):
    """A tool call of the history."""

    id: str | None = None
    type: str = "function"
    function: CalledFunction


class Message(Open):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None
    name: str | None = None
    tool_calls: list[Called] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None


class FunctionDefinition(Open):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Open):
    type: str
    function: FunctionDefinition | None = None


class Named(Open):
    name: str | None = None


class AllowedTools(Open):
    mode: Literal["auto", "required"] | None = None
    tools: list[ToolChoice] | None = None


class ToolChoice(Named):
    """A tool that must be called, or those that may be: in the shape of chats, or of responses."""

    type: str = "function"
    function: Named | None = None
    mode: Literal["auto", "required"] | None = None
    tools: list[ToolChoice] | None = None
    allowed_tools: AllowedTools | None = None


class JsonSchema(Open):
    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] | bool | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Open):
    type: Literal["text", "json_object", "json_schema", "regex", "grammar"]
    json_schema: JsonSchema | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")  # llama.cpp's: beside json_object


class StructuredOutputs(Open):
    """vLLM's: what may be written; one of them."""

    json_: dict[str, Any] | str | None = Field(None, alias="json")
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None


class Sampling(Strict):
    """What chats and plain completions share: OpenAI's options, and those of vLLM and llama.cpp beside them."""

    model: str
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    n: int | None = Field(None, ge=1, le=128)
    max_tokens: int | None = Field(None, ge=0)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: Numbers | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    # vLLM's and llama.cpp's
    top_k: int | None = Field(None, ge=-1)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0)
    repeat_penalty: float | None = Field(None, gt=0)
    min_tokens: int | None = Field(None, ge=0)
    ignore_eos: bool | None = None
    priority: int | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: dict[str, Any] | str | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_schema: dict[str, Any] | None = None
    response_format: ResponseFormat | None = None
    # what asks for nothing that changes the text
    cache_prompt: bool | None = None
    cache_salt: str | None = None
    id_slot: int | None = None
    request_id: str | None = None
    skip_special_tokens: Literal[True] | None = None
    spaces_between_special_tokens: bool | None = None
    include_stop_str_in_output: Literal[False] | None = None
    use_beam_search: Literal[False] | None = None
    guided_decoding_backend: str | None = None
    timings_per_token: bool | None = None
    return_progress: bool | None = None
    keep_alive: str | float | None = None


class ChatRequest(Sampling):
    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=0)
    logprobs: bool | None = False
    top_logprobs: int | None = Field(None, ge=0, le=20)
    tools: list[Tool] | None = None
    tool_choice: str | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    documents: list[dict[str, Any]] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    include_reasoning: bool | None = None
    modalities: list[str] | None = None
    audio: dict[str, Any] | None = None
    prediction: dict[str, Any] | None = None
    service_tier: str | None = None
    verbosity: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    safety_identifier: str | None = None
    web_search_options: dict[str, Any] | None = None
    moderation: dict[str, Any] | None = None
    functions: list[dict[str, Any]] | None = None
    function_call: str | dict[str, Any] | None = None


class FunctionCall(Answer):
    name: str
    arguments: str


class ToolCallBody(Answer):
    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class ChatLogprobs(Answer):
    content: list[TokenLogprobBody] | None
    refusal: None = None


class AssistantMessage(Answer):
    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    annotations: list[Any] = []
    reasoning_content: str | None = None
    tool_calls: list[ToolCallBody] | None = None


class ChatChoice(Answer):
    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter"]


class ChatCompletion(Answer):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: UsageBody
    service_tier: str
    system_fingerprint: str
