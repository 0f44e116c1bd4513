"""Ollama's /api. Fields that are not here are ignored, as Ollama ignores them; durations are nanoseconds."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from brolly.serve.wire.common import Answer, Open


class Options(Open):
    """How to write. What is for loading (num_gpu, num_thread …) is the server's affair here, and ignored."""

    num_predict: int | None = Field(None, description="Most tokens to write; -1 and -2: up to the context.")
    num_ctx: int | None = Field(None, ge=1, description="Prompt and answer fit into so many tokens, or are refused.")
    seed: int | None = None
    temperature: float | None = Field(None, ge=0, le=100)
    top_k: int | None = Field(None, ge=0)
    top_p: float | None = Field(None, ge=0, le=1)
    min_p: float | None = Field(None, ge=0, le=1)
    typical_p: float | None = None
    tfs_z: float | None = None
    mirostat: int | None = None
    repeat_penalty: float | None = Field(None, gt=0)
    repeat_last_n: int | None = None
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    stop: str | list[str] | None = None


class Request(Open):
    model: str = Field(min_length=1)
    keep_alive: float | str | None = Field(None, description="Seconds or 10m; -1 for ever, 0 not at all.")
    options: Options | None = None


class Writing(Request):
    stream: bool | None = None
    format: str | dict[str, Any] | None = Field(None, description="json, or a JSON Schema.")
    think: bool | str | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    template: str | None = None


class Function(Open):
    name: str
    arguments: dict[str, Any] | str = {}


class Called(Open):
    id: str | None = None
    function: Function


class Message(Open):
    role: str
    content: str | None = None
    thinking: str | None = None
    images: list[Any] | None = None
    tool_calls: list[Called] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class ToolFunction(Open):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(Open):
    type: str = "function"
    function: ToolFunction


class ChatRequest(Writing):
    messages: list[Message] | None = None
    tools: list[Tool] | None = None


class GenerateRequest(Writing):
    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    context: list[int] | None = Field(None, description="What an earlier answer gave, to go on from there.")
    raw: bool | None = Field(None, description="The prompt as it stands, without the chat template.")
    images: list[Any] | None = None


class EmbedRequest(Request):
    input: str | list[str]
    truncate: bool | None = Field(None, description="Cut what is longer than the model reads; by default it is.")
    dimensions: int | None = Field(None, ge=1, le=1 << 20)


class EmbeddingsRequest(Request):
    prompt: str = ""


class NameRequest(Open):
    model: str | None = None
    name: str | None = Field(None, description="What model was called before.")
    stream: bool | None = None


class OllamaError(Answer):
    """Ollama's envelope of errors."""

    error: str


ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": OllamaError, "description": "The request cannot be granted as it stands."},
    "5XX": {"model": OllamaError, "description": "The server failed, or has no room now."},
}


class Timed(Answer):
    model: str
    created_at: str
    done: bool
    done_reason: Literal["stop", "length", "load", "unload"] | None = None
    total_duration: int | None = None
    load_duration: int | None = None
    prompt_eval_count: int | None = None
    prompt_eval_duration: int | None = None
    eval_count: int | None = None
    eval_duration: int | None = None
    logprobs: list[dict[str, Any]] | None = None


class ChatAnswer(Timed):
    message: dict[str, Any]


class GenerateAnswer(Timed):
    response: str
    thinking: str | None = None
    context: list[int] | None = None


class EmbedAnswer(Answer):
    model: str
    embeddings: list[list[float]]
    total_duration: int
    load_duration: int
    prompt_eval_count: int


class EmbeddingsAnswer(Answer):
    embedding: list[float]


class Details(Answer):
    parent_model: str
    format: str
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str


class Listed(Answer):
    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: Details


class Tags(Answer):
    models: list[Listed]


class Processes(Answer):
    models: list[dict[str, Any]]


class Shown(Answer):
    modelfile: str
    parameters: str
    template: str
    license: str
    details: Details
    model_info: dict[str, Any]
    capabilities: list[str]
    modified_at: str


class Version(Answer):
    """`version` is that of the Ollama whose words are spoken here; `brolly` is the server's own."""

    version: str
    brolly: str
