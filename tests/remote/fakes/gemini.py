"""A server that speaks Gemini's v1, as Google's own types and pages on errors have it.

Models: any whose name begins with gemini-, but "missing". Those of gemini-3 demand the signatures of their calls,
those of gemini-2 know no ids of calls. `FakeVertex` has Google Cloud's paths instead, and wants a bearer token.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

from google.genai import types
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from tests.remote.fakes import KEY
from tests.remote.fakes.script import Says, Talk, Tool, Turn, says, words
from tests.remote.fakes.server import Fake, Reply, Request

CONTEXT = 2000  # words
DIM = 8
PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
UNSIGNED = "skip_thought_signature_validator"
STATUS = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED", 500: "INTERNAL", 503: "UNAVAILABLE",
}  # fmt: skip
ENDS = {"stop": "STOP", "tool_calls": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY"}


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, populate_by_name=True)


class Settings(types.GenerationConfig):
    """generationConfig; the SDK has what draws in another type."""

    image_config: types.ImageConfig | None = None


class Generate(Strict):
    """generateContent's body."""

    contents: list[types.Content]
    system_instruction: types.Content | None = None
    generation_config: Settings | None = None
    tools: list[types.Tool] | None = None
    tool_config: types.ToolConfig | None = None
    safety_settings: list[types.SafetySetting] | None = None
    cached_content: str | None = None
    labels: dict[str, str] | None = None
    service_tier: str | None = None
    store: bool | None = None


class Counted(Generate):
    model: str


class Count(Strict):
    contents: list[types.Content] | None = None
    generate_content_request: Counted | None = None


class CloudCount(Generate):
    pass


class One(Strict):
    """One request of batchEmbedContents."""

    model: str | None = None
    content: types.Content
    task_type: str | None = None
    title: str | None = None
    output_dimensionality: int | None = None


class Batch(Strict):
    requests: list[One]


class Task(Strict):
    task_type: str | None = None
    title: str | None = None
    output_dimensionality: int | None = None
    auto_truncate: bool | None = None


class CloudOne(Strict):
    content: types.Content
    embed_content_config: Task | None = None


class CloudBatch(Strict):
    requests: list[CloudOne]


class Instance(BaseModel):
    """Of :predict, whose names are in snake_case."""

    model_config = ConfigDict(extra="forbid")
    content: str
    task_type: str | None = None
    title: str | None = None


class Parameters(Strict):
    output_dimensionality: int | None = None
    auto_truncate: bool | None = None


class Predict(Strict):
    instances: list[Instance]
    parameters: Parameters | None = None


class Refused(Exception):
    def __init__(self, status: int, message: str, *details: Mapping[str, Any]) -> None:
        self.status, self.message, self.details = status, message, details


def refusal(status: int, message: str, *details: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Reply:
    """An error as Google tells it."""
    error: dict[str, Any] = {"code": status, "message": message, "status": STATUS[status]}
    if details:
        error["details"] = list(details)
    return Reply(status, dict(headers or {}), {"error": error})


def busy(seconds: str = "0.01s", quota: str = "GenerateRequestsPerMinutePerProjectPerModel-FreeTier") -> Reply:
    """A rate limit: 429 without a header, the time within."""
    return refusal(
        429,
        "You exceeded your current quota, please check your plan and billing details. Please retry in " + seconds,
        {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": quota}]},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": seconds},
    )


def overloaded() -> Reply:
    return refusal(503, "The model is overloaded. Please try again later.")


def event(data: Any) -> bytes:
    """Google's lines end like HTTP's."""
    return f"data: {json.dumps(data, ensure_ascii=False)}\r\n\r\n".encode()


class FakeGemini(Fake):
    """Gemini at `url`/v1. `signed` are the signatures that it gave, `replied` its answers."""

    version = "v1"
    words_of_counts: type[BaseModel] = Count

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.signed: set[str] = set()
        self.replied: list[Reply] = []

    def answer(self, request: Request) -> Reply:
        try:
            self.let_in(request)
            found = self.route(request)
        except Refused as error:
            found = refusal(error.status, error.message, *error.details)
        self.replied.append(found)
        return found

    def let_in(self, request: Request) -> None:
        key = request.headers.get("x-goog-api-key") or request.query.get("key")
        if not key:
            raise Refused(
                403, "Method doesn't allow unregistered callers (callers without established identity). Please use API "
                "Key or other form of API consumer identity to call this API.",
            )  # fmt: skip
        if key != KEY:
            raise Refused(
                400, "API key not valid. Please pass a valid API key.",
                {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID",
                 "domain": "googleapis.com", "metadata": {"service": "generativelanguage.googleapis.com"}},
            )  # fmt: skip

    def route(self, request: Request) -> Reply:
        path = request.target.partition("?")[0].removeprefix(f"/{self.version}")
        if request.method == "GET" and path == "/models":
            return self.list(request)
        found = re.fullmatch(r"/(models|tunedModels)/([^/:]+):(\w+)", path)
        return self.call(request, unquote(found[2]), found[3]) if found and request.method == "POST" else Reply(404)

    def call(self, request: Request, model: str, method: str) -> Reply:
        if model == "missing" or not model.startswith("gemini-"):
            raise Refused(
                404, f"models/{model} is not found for API version {self.version}, or is not supported for {method}. "
                "Call ListModels to see the list of available models and their supported methods.",
            )  # fmt: skip
        if method in ("generateContent", "streamGenerateContent"):
            asked = self.read(Generate, request)
            stream = method == "streamGenerateContent"
            return self.generate(asked, model, stream, stream and request.query.get("alt") == "sse")
        if method == "countTokens":
            return Reply(body=self.count(self.read(self.words_of_counts, request)))
        if method == "batchEmbedContents":
            return self.embed(self.read(Batch, request), model)
        raise Refused(404, f"{method} is not found.")

    def read(self, kind: type[BaseModel], request: Request) -> Any:
        """The body as the SDK's own types have it."""
        try:
            return kind.model_validate_json(request.body, strict=False)
        except ValidationError as error:
            first = error.errors()[0]
            where, name = ".".join(map(str, first["loc"][:-1])), first["loc"][-1] if first["loc"] else ""
            said = f"Invalid value at '{where}.{name}': {first['msg']}"
            if first["type"] == "extra_forbidden":
                said = f"Invalid JSON payload received. Unknown name \"{name}\" at '{where}': Cannot find field."
            raise Refused(
                400, said,
                {"@type": "type.googleapis.com/google.rpc.BadRequest",
                 "fieldViolations": [{"field": where, "description": said}]},
            ) from None  # fmt: skip

    # writing

    def generate(self, asked: Generate, model: str, stream: bool, sse: bool) -> Reply:
        config = asked.generation_config or Settings()
        self.check(asked, config, model, stream)
        talk = talk_of(asked)
        if (n_words := sum(len(words(turn.text)) for turn in talk.messages)) > CONTEXT or "toolong" in talk.last:
            raise Refused(
                400, f"The input token count ({max(n_words, CONTEXT + 1)}) exceeds the maximum number of tokens "
                f"allowed ({CONTEXT}).",
            )  # fmt: skip
        said, ids = says(talk), "gemini-2" not in model
        if config.response_mime_type == "text/x.enum" and said.text:
            said = replace(said, text=said.text.strip('"'))  # a word of the list, without JSON's quotes
        head = {"modelVersion": model, "responseId": "b1F3aZ6rLtCk"}
        if "unspeakable" in talk.last:
            blocked = {
                "promptFeedback": {"blockReason": "PROHIBITED_CONTENT"},
                "usageMetadata": usage(said, n_words),
                **head,
            }
            return Reply(chunks=[event(blocked)]) if sse else Reply(body=blocked)
        if "IMAGE" in (config.response_modalities or []):
            return Reply(body={**drawing(said, talk), **head})
        n = config.candidate_count or 1
        if not sse:
            candidates = [self.whole(said, config, index, ids) for index in range(n)]
            body = {"candidates": candidates, "usageMetadata": usage(said, n_words, n), **head}
            return Reply(body=[body] if stream else body)
        return Reply(chunks=[event({**one, **head}) for one in self.stream(said, config, n_words, ids)])

    def check(self, asked: Generate, config: Settings, model: str, stream: bool) -> None:
        """What Google refuses though its types allow it."""
        if not asked.contents:
            raise Refused(400, "* GenerateContentRequest.contents: contents is not specified")
        if not 0 <= (config.temperature or 0) <= 2:
            raise Refused(
                400, "* GenerateContentRequest.generation_config.temperature: must be in the range [0.0, 2.0]."
            )
        if len(config.stop_sequences or []) > 5:
            raise Refused(400, "* GenerateContentRequest.generation_config.stop_sequences: at most 5.")
        if (config.candidate_count or 1) > (1 if stream or "gemini-3" in model else 8):
            raise Refused(400, "Multiple candidates is not enabled for this model")
        if config.logprobs is not None and not config.response_logprobs:
            raise Refused(400, "logprobs needs response_logprobs.")
        thinking = config.thinking_config
        if thinking and thinking.thinking_level and thinking.thinking_budget is not None:
            raise Refused(400, "You can only set only one of thinking budget and thinking level.")
        if thinking and thinking.thinking_level and "gemini-2" in model:
            raise Refused(400, "Thinking level is not supported for this model.")
        if (config.response_json_schema or config.response_schema) and not config.response_mime_type:
            raise Refused(400, "Response schema needs a response_mime_type.")
        open_calls = 0
        last_said = max((at for at, one in enumerate(asked.contents) if said_by_user(one)), default=0)
        for at, content in enumerate(asked.contents):
            if content.role not in ("user", "model"):
                raise Refused(400, "Please use a valid role: user, model.")
            if not content.parts:
                raise Refused(400, f"* GenerateContentRequest.contents[{at}].parts: contents.parts must not be empty.")
            calls = [part for part in content.parts if part.function_call]
            results = [part.function_response for part in content.parts if part.function_response]
            if len(results) != open_calls:
                raise Refused(
                    400, "Please ensure that the number of function response parts is equal to the number of function "
                    "call parts of the function call turn.",
                )  # fmt: skip
            if not all(one.name and isinstance(one.response, dict) for one in results):
                raise Refused(400, f"contents[{at}].parts.function_response.name: Name cannot be empty.")
            if "gemini-2" in model and any(one.id for one in [*results, *(part.function_call for part in calls)]):
                raise Refused(400, "Invalid JSON payload received. Unknown name \"id\" at 'function_call'.")
            open_calls = len(calls)
            if calls and "gemini-3" in model and at > last_said and not calls[0].thought_signature:
                name = calls[0].function_call.name
                raise Refused(400, f"Function call is missing a thought_signature in functionCall parts: `{name}`.")
            for part in content.parts:
                signature = part.thought_signature and base64.urlsafe_b64encode(part.thought_signature).decode()
                if signature and signature.rstrip("=") not in self.signed | {UNSIGNED}:
                    raise Refused(400, "Corrupted thought signature.")

    def parts(self, said: Says, ids: bool) -> Iterator[dict[str, Any]]:
        """Parts of an answer, by words: the first call is signed, or else the last part."""
        for word in words(said.thoughts):
            yield {"text": word, "thought": True}
        for word in said.pieces:
            yield {"text": word}
        for at, one in enumerate(said.calls):
            call = {"name": one.name, "args": one.arguments} | ({"id": f"fc_{len(self.signed)}_{at}"} if ids else {})
            yield {"functionCall": call} | ({"thoughtSignature": self.sign()} if at == 0 else {})
        if said.thoughts and not said.calls:
            yield {"text": "", "thoughtSignature": self.sign()}

    def sign(self) -> str:
        signature = base64.urlsafe_b64encode(f"signature {len(self.signed):06d}!".encode()).decode()
        self.signed.add(signature.rstrip("="))
        return signature

    def whole(self, said: Says, config: Settings, index: int, ids: bool) -> dict[str, Any]:
        """One candidate: texts of a kind in one part."""
        joined: list[dict[str, Any]] = []
        for part in self.parts(said, ids):
            if joined and "text" in part and joined[-1].keys() == part.keys() and "thoughtSignature" not in part:
                joined[-1]["text"] += part["text"]
            else:
                joined.append(dict(part))
        found: dict[str, Any] = {"content": {"parts": joined, "role": "model"}, "finishReason": ENDS[said.finish]}
        if said.finish == "content_filter":
            found["content"] = {"role": "model"}
            found["safetyRatings"] = [{"category": "HARM_CATEGORY_HARASSMENT", "probability": "HIGH", "blocked": True}]
        if index:
            found["index"] = index
        if config.response_logprobs:
            found["logprobsResult"] = chances(said.pieces, config.logprobs or 0)
        return found

    def stream(self, said: Says, config: Settings, n_words: int, ids: bool) -> Iterator[dict[str, Any]]:
        """Events: a part each, the last with the reason, each with the usage so far."""
        parts = list(self.parts(said, ids))
        if said.finish == "content_filter":
            parts = []
        for at, part in enumerate(parts or [None]):
            candidate: dict[str, Any] = {"content": {"parts": [part] if part else [], "role": "model"}, "index": 0}
            if config.response_logprobs and part and part.get("text") and not part.get("thought"):
                candidate["logprobsResult"] = chances([part["text"]], config.logprobs or 0)
            last = at == len(parts or [None]) - 1
            told = {"promptTokenCount": n_words, "totalTokenCount": n_words}
            if last:
                candidate["finishReason"] = ENDS[said.finish]
                told = usage(said, n_words)
            yield {"candidates": [candidate], "usageMetadata": told}

    # other methods

    def count(self, asked: Count) -> dict[str, Any]:
        inner = asked.generate_content_request
        contents = list(inner.contents if inner else asked.contents or [])
        if inner and inner.system_instruction:
            contents.append(inner.system_instruction)
        n = sum(len(words(text(one))) for one in contents) + 3 * len((inner and inner.tools) or [])
        return {"totalTokens": n, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": n}]}

    def embed(self, asked: Batch, model: str) -> Reply:
        if len(asked.requests) > 100:
            raise Refused(400, "* BatchEmbedContentsRequest.requests: at most 100 requests can be in one batch")
        if any(one.model != f"models/{model}" for one in asked.requests):
            raise Refused(400, "* BatchEmbedContentsRequest.requests: model must match the model in the batch request.")
        if "embedding-2" in model and any(one.task_type for one in asked.requests):
            raise Refused(400, "task_type is not supported for this model.")
        rows = [{"values": vector(text(one.content), one.output_dimensionality or DIM)} for one in asked.requests]
        n = sum(len(words(text(one.content))) for one in asked.requests)
        return Reply(body={"embeddings": rows, "usageMetadata": {"promptTokenCount": n, "totalTokenCount": n}})

    def list(self, request: Request) -> Reply:
        size, start = int(request.query.get("pageSize", 50)), int(request.query.get("pageToken") or 0)
        page = MODELS[start : start + min(size, 3)]  # small pages, so that there are several
        more = {"nextPageToken": str(start + len(page))} if start + len(page) < len(MODELS) else {}
        return Reply(body={"models": page, **more})


def _model(name: str, title: str, methods: list[str], read: int = 1048576, **more: Any) -> dict[str, Any]:
    return {
        "name": f"models/{name}", "version": "001", "displayName": title, "description": title, "inputTokenLimit": read,
        "outputTokenLimit": 65536, "supportedGenerationMethods": methods, **more,
    }  # fmt: skip


MODELS = [
    _model(
        "gemini-2.5-flash", "Gemini 2.5 Flash", ["generateContent", "countTokens"], temperature=1, topP=0.95, topK=64
    ),
    _model("gemini-3-pro", "Gemini 3 Pro", ["generateContent", "countTokens"], thinking=True),
    _model("gemini-3-pro-image", "Gemini 3 Pro Image", ["generateContent", "countTokens"], 65536),
    _model("gemini-embedding-001", "Gemini Embedding 001", ["embedContent", "countTextTokens"], 2048),
    _model("gemini-embedding-2", "Gemini Embedding 2", ["embedContent", "asyncBatchEmbedContent"], 8192),
]


def said_by_user(content: types.Content) -> bool:
    return content.role == "user" and not any(part.function_response for part in content.parts or [])


def text(content: types.Content | None) -> str:
    return " ".join(part.text for part in (content and content.parts) or [] if part.text)


def talk_of(asked: Generate) -> Talk:
    """What was asked, in no vendor's words."""
    config = asked.generation_config or Settings()
    turns = [Turn("system", text(asked.system_instruction))] if asked.system_instruction else []
    kinds = {"image": 0, "audio": 0, "application": 0}
    for content in asked.contents:
        spoken = "".join(part.text or "" for part in content.parts or [] if not part.thought)
        results = [part.function_response for part in content.parts or [] if part.function_response]
        if not results or spoken:
            turns.append(Turn("assistant" if content.role == "model" else "user", spoken))
        for result in results:
            given = result.response or {}
            turns.append(Turn("tool", str(given.get("output", given.get("error", json.dumps(given))))))
        for part in content.parts or []:
            file = part.inline_data or part.file_data
            if file:
                kinds[(file.mime_type or "").partition("/")[0]] += 1
    calling = asked.tool_config and asked.tool_config.function_calling_config
    mode = calling.mode.value if calling and calling.mode else "AUTO"
    names = (calling and calling.allowed_function_names) or []
    choice = {"NONE": "none", "ANY": names[0] if names else "required"}.get(mode, "auto")
    schema: Any = None
    if config.response_mime_type:
        schema = config.response_json_schema or {}
        if config.response_schema:
            schema = config.response_schema.model_dump(mode="json", exclude_none=True)
    tools = [
        Tool(one.name or "", one.parameters_json_schema or {})
        for tool in asked.tools or []
        for one in tool.function_declarations or []
    ]
    return Talk(
        messages=turns, tools=tools, choice=choice, schema=schema, max_tokens=config.max_output_tokens,
        stop=config.stop_sequences or (), pictures=kinds["image"], sounds=kinds["audio"], files=kinds["application"],
        thinking=bool(config.thinking_config and config.thinking_config.include_thoughts),
    )  # fmt: skip


def usage(said: Says, n_words: int, n: int = 1) -> dict[str, Any]:
    written = (said.completion_tokens - said.reasoning_tokens) * n
    found = {"promptTokenCount": n_words, "candidatesTokenCount": written}
    if said.reasoning_tokens:
        found["thoughtsTokenCount"] = said.reasoning_tokens
    if n_words > 20:
        found["cachedContentTokenCount"] = 16
    return found | {"totalTokenCount": n_words + written + said.reasoning_tokens}


def chances(pieces: list[str], n: int) -> dict[str, Any]:
    tops = [
        {"candidates": [{"token": f"{piece}{'?' * at}", "tokenId": at, "logProbability": -0.5 - at} for at in range(n)]}
        for piece in pieces
    ]
    chosen = [{"token": piece, "tokenId": 7, "logProbability": -0.5} for piece in pieces]
    return {"chosenCandidates": chosen, "topCandidates": tops}


def drawing(said: Says, talk: Talk) -> dict[str, Any]:
    if said.finish == "content_filter":
        return {"candidates": [{"content": {}, "finishReason": "IMAGE_SAFETY", "index": 0}]}
    inline = {"inlineData": {"mimeType": "image/png", "data": base64.b64encode(PICTURE).decode()}}
    parts = [{"text": "A draft.", "thought": True}, {**inline, "thought": True}, inline]
    told = {"promptTokenCount": len(words(talk.last)), "candidatesTokenCount": 1290, "thoughtsTokenCount": 2}
    return {
        "candidates": [{"content": {"parts": parts, "role": "model"}, "finishReason": "STOP"}],
        "usageMetadata": told,
    }


def vector(text: str, dim: int) -> list[float]:
    return [round(((hash_of(text) >> at) % 97) / 97 + 0.01, 6) for at in range(dim)]


def hash_of(text: str) -> int:
    found = 5381
    for byte in text.encode():
        found = (found * 33 + byte) % (1 << 64)
    return found


class FakeVertex(FakeGemini):
    """Google Cloud's address: {version}/projects/{project}/locations/{location}/publishers/google/models."""

    version = "v1beta1"
    words_of_counts = CloudCount
    token = "ya29.test-7d1f0a"

    def let_in(self, request: Request) -> None:
        if request.headers.get("authorization") != f"Bearer {self.token}":
            raise Refused(
                401, "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or "
                "other valid authentication credential.",
                {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "ACCESS_TOKEN_TYPE_UNSUPPORTED"},
            )  # fmt: skip

    def route(self, request: Request) -> Reply:
        path = request.target.partition("?")[0]
        found = re.fullmatch(
            rf"/{self.version}/projects/([^/]+)/locations/([^/]+)/publishers/google/models/([^/:]+):(\w+)", path
        )
        if not found or request.method != "POST":
            return Reply(404, {"content-type": "text/html"}, "<html><title>Error 404 (Not Found)!!1</title></html>")
        return self.call(request, unquote(found[3]), found[4])

    def call(self, request: Request, model: str, method: str) -> Reply:
        if method == "predict" and model.startswith("text-"):
            asked = self.read(Predict, request)
            dim = (asked.parameters and asked.parameters.output_dimensionality) or DIM
            told = [
                {"values": vector(one.content, dim), "statistics": {"token_count": len(words(one.content))}}
                for one in asked.instances
            ]
            return Reply(body={"predictions": [{"embeddings": one} for one in told]})
        if method == "batchEmbedContents":
            rows = self.read(CloudBatch, request).requests
            return Reply(body={"embeddings": [cloud_vector(one) for one in rows]})
        if method == "embedContent":
            one = self.read(CloudOne, request)
            n = len(words(text(one.content)))
            return Reply(body={"embedding": cloud_vector(one), "usageMetadata": {"promptTokenCount": n}})
        return super().call(request, model, method)

    def count(self, asked: Any) -> dict[str, Any]:
        contents = [*asked.contents, *([asked.system_instruction] if asked.system_instruction else [])]
        return {"totalTokens": sum(len(words(text(one))) for one in contents) + 3 * len(asked.tools or [])}


def cloud_vector(one: CloudOne) -> dict[str, Any]:
    config = one.embed_content_config or Task()
    n = len(words(text(one.content)))
    return {"values": vector(text(one.content), config.output_dimensionality or DIM), "statistics": {"tokenCount": n}}
