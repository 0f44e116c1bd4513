"""OpenAI: /chat/completions, /responses and its tokens, models; what else there is comes from `openai_more`.

    with FakeOpenAI() as fake:
        OPENAI_BASE_URL=fake.base OPENAI_API_KEY=fake.key

Requests are held against the types of OpenAI's own SDK, and against rules that its reference states beside them. Models
called gpt-5 and above think; from gpt-5.2 on they take tools by /chat/completions only with reasoning_effort "none".
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming as ChatParams

from tests.remote.fakes import openai_more
from tests.remote.fakes.openai_more import refused
from tests.remote.fakes.script import THOUGHTS, Called, Says, Talk, Tool, Turn, says, words
from tests.remote.fakes.server import Chunk, Fake, Reply, Request, sse
from tests.remote.fakes.typed import complaint

NOW = 1_795_000_000
HEADERS = {
    "x-request-id": "req_0123456789abcdef", "openai-version": "2020-10-01", "openai-processing-ms": "12",
    "x-ratelimit-limit-requests": "10000", "x-ratelimit-remaining-requests": "9999",
    "x-ratelimit-reset-requests": "6ms",
}  # fmt: skip
MODELS = (
    "gpt-6-astra", "gpt-5.6-sol", "gpt-5", "gpt-4.1", "gpt-4o-mini", "text-embedding-3-large", "gpt-image-2",
    "whisper-1", "gpt-4o-mini-tts",
)  # fmt: skip


class FakeOpenAI(Fake):
    """A server of OpenAI's. `asked` are the conversations that it had, in no vendor's words."""

    key = "sk-test-0penAI-do-not-print-me"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.more = openai_more.More()
        self.asked: list[Talk] = []
        self.ids = itertools.count(1)

    @property
    def base(self) -> str:
        return f"{self.url}/v1"

    def answer(self, request: Request) -> Reply:
        from tests.remote.fakes import openai_responses

        if request.headers.get("authorization") != f"Bearer {self.key}":
            shown = request.headers.get("authorization", "").removeprefix("Bearer ")
            message = f"Incorrect API key provided: {shown[:8]}********{shown[-4:]}. You can find your API key at …"
            return refused(401, message, "invalid_api_key")
        routes = {
            ("POST", "/v1/chat/completions"): chat,
            ("POST", "/v1/responses"): openai_responses.respond,
            ("POST", "/v1/responses/input_tokens"): openai_responses.count,
        }
        rule = routes.get((request.method, request.path))
        if rule is not None:
            try:
                reply = rule(self, request)
            except Refused as error:
                reply = error.reply
            return Reply(reply.status, {**HEADERS, **reply.headers}, reply.body, reply.chunks, reply.raw)
        if request.method == "GET" and (match := re.fullmatch("/v1/models(?:/(.+))?", request.path)):
            return models(match[1])
        found = self.more.answer(request)
        return found or refused(404, f"Invalid URL ({request.method} {request.path})", None)

    def id(self, kind: str) -> str:
        return f"{kind}{next(self.ids):024x}"

    def says(self, talk: Talk) -> Says:
        self.asked.append(talk)
        if talk.thinking and talk.max_tokens is not None:  # thoughts take of what may be written
            talk = replace(talk, max_tokens=max(talk.max_tokens - len(words(THOUGHTS)), 0))
        return says(talk)


class Refused(Exception):
    """A request that OpenAI refuses."""

    def __init__(self, message: str, code: str | None = None, param: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.reply = refused(status, message, code, param)


def models(name: str | None) -> Reply:
    rows = [{"id": id, "object": "model", "created": NOW, "owned_by": "openai"} for id in MODELS]
    if name is None:
        return Reply(body={"object": "list", "data": rows})
    found = next((row for row in rows if row["id"] == name), None)
    return Reply(body=found) if found else refused(404, f"The model '{name}' does not exist", "model_not_found")


def checked(kind: Any, request: Request) -> dict[str, Any]:
    """The body, if the SDK's type knows it. Raises Refused."""
    try:
        body = dict(request.json)
    except ValueError:
        raise Refused("We could not parse the JSON body of your request.") from None
    stream = body.pop("stream", False)
    if type(stream) is not bool:
        raise Refused("Invalid type for 'stream'.", "invalid_type", "stream")
    if why := complaint(kind, body):
        param = why.partition(":")[0]
        if "Extra inputs" in why:
            raise Refused(f"Unknown parameter: '{param}'.", "unknown_parameter", param)
        raise Refused(f"Invalid value for {why}.", "invalid_value", param)
    if re.match("missing|no-such", body["model"]):
        raise Refused(
            f"The model `{body['model']}` does not exist or you do not have access to it.",
            "model_not_found",
            status=404,
        )
    if "stream_options" in body and not stream:
        raise Refused(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.", None, "stream_options"
        )
    if "toolong" in request.body.decode():
        raise Refused(
            "This model's maximum context length is 128000 tokens. However, your messages resulted in 200000 tokens.",
            "context_length_exceeded", "messages",
        )  # fmt: skip
    return {**body, "stream": stream}


def thinks(model: str) -> bool:
    return bool(re.match(r"gpt-[5-9]", model))


def within(body: Mapping[str, Any], name: str, low: float, high: float) -> None:
    value = body.get(name)
    if value is not None and not low <= value <= high:
        raise Refused(f"Invalid '{name}': {value}; expected {low} to {high}.", "invalid_value", name)


def held(schema: Any, name: str, param: str, strict: bool | None) -> None:
    """Whether a schema can be enforced. Raises Refused."""

    def no(why: str) -> Refused:
        return Refused(f"Invalid schema for '{name}': {why}.", "invalid_schema", param)

    if not isinstance(schema, dict) or schema.get("type") != "object":
        raise no("schema must be of 'type: \"object\"'")
    for one in _parts(schema) if strict else ():
        if "object" in str(one.get("type")):
            if one.get("additionalProperties") is not False:
                raise no("'additionalProperties' must be false")
            if set(one.get("required", ())) != set(one.get("properties", {})):
                raise no("'required' must have every key")
        if unknown := one.keys() & {"allOf", "not", "if", "oneOf", "patternProperties", "default", "uniqueItems"}:
            raise no(f"{unknown} is not permitted")


def _parts(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        yield schema
        for word in ("properties", "$defs", "definitions"):
            for one in schema.get(word, {}).values():
                yield from _parts(one)
        for one in [schema.get("items"), *schema.get("anyOf", [])]:
            yield from _parts(one)


# Chat -----------------------------------------------------------------------------------------------------------------


def chat(fake: FakeOpenAI, request: Request) -> Reply:
    body = checked(ChatParams, request)
    talk = _talk(body)
    said = fake.says(talk)
    if body["stream"]:
        return Reply(200, {"content-type": "text/event-stream; charset=utf-8"}, chunks=list(_stream(fake, body, said)))
    n = body.get("n") or 1
    choices = [
        {
            "index": at,
            "message": _message(fake, said),
            "logprobs": _logprobs(body, said.text),
            "finish_reason": _finish(body, said),
        }
        for at in range(n)
    ]
    found = {**_head(fake, body, "chat.completion"), "choices": choices, "usage": _usage(said, n, talk)}
    return Reply(body=found)


def _talk(body: dict[str, Any]) -> Talk:
    """Raises Refused."""
    for name, low, high in (("temperature", 0, 2), ("top_p", 0, 1), ("n", 1, 128), ("top_logprobs", 0, 20)):
        within(body, name, low, high)
    if body.get("top_logprobs") is not None and not body.get("logprobs"):
        raise Refused("'top_logprobs' is only allowed when 'logprobs' is true.", None, "top_logprobs")
    stop = body.get("stop") or []
    stop = [stop] if isinstance(stop, str) else stop
    if len(stop) > 4:
        raise Refused("Invalid 'stop': array too long. Expected at most 4.", "array_above_max_length", "stop")
    if body.get("tool_choice", "auto") != "auto" and not body.get("tools"):
        raise Refused("'tool_choice' is only allowed when 'tools' are specified.", None, "tool_choice")
    thinking = thinks(body["model"]) and body.get("reasoning_effort", "medium") != "none"
    if thinking and body.get("tools") and re.match(r"gpt-(5\.[2-9]|[6-9])", body["model"]):
        message = f"Function tools with reasoning_effort are not supported for {body['model']} in /v1/chat/completions."
        raise Refused(f"{message} To use function tools, use /v1/responses.", None, "reasoning_effort")
    if body.get("reasoning_effort") and not (thinks(body["model"]) or body["model"].startswith("gpt-5")):
        raise Refused("Unrecognized request argument supplied: reasoning_effort", None, "reasoning_effort")
    functions = [one["function"] for one in body.get("tools", ())]
    for function in functions:
        if "parameters" in function:
            held(function["parameters"], function["name"], "tools", function.get("strict"))
    form, schema = body.get("response_format"), None
    if form and form["type"] == "json_object":
        schema = {}
        if "json" not in json.dumps(body["messages"]).lower():
            raise Refused("'messages' must contain the word 'json' in some form.", None, "messages")
    elif form and form["type"] == "json_schema":
        schema = form["json_schema"].get("schema", {})
        held(schema, form["json_schema"]["name"], "response_format", form["json_schema"].get("strict"))
    turns, kinds = _turns(body["messages"])
    choice = body.get("tool_choice", "auto")
    return Talk(
        messages=turns, tools=[Tool(one["name"], one.get("parameters", {})) for one in functions],
        choice=choice if isinstance(choice, str) else choice["function"]["name"],
        parallel=body.get("parallel_tool_calls", True), schema=schema, stop=stop,
        max_tokens=body.get("max_completion_tokens") or body.get("max_tokens"),
        pictures=kinds.count("image_url"), sounds=kinds.count("input_audio"), files=kinds.count("file"),
        thinking=thinking,
    )  # fmt: skip


def _turns(messages: list[Any]) -> tuple[list[Turn], list[str]]:
    """Turns, and the kinds of their other parts. Raises Refused."""
    turns, kinds, open_ = [], [], set()
    for message in messages:
        role, content = message["role"], message.get("content")
        if open_ and role != "tool":
            raise Refused("An assistant message with 'tool_calls' must be followed by tool messages.", None, "messages")
        if role == "tool":
            if message["tool_call_id"] not in open_:
                raise Refused(
                    "messages with role 'tool' must be a response to a preceeding 'tool_calls'.", None, "messages"
                )
            open_.discard(message["tool_call_id"])
        if content is None and not message.get("tool_calls"):
            raise Refused("Invalid value for 'content': expected a string, got null.", None, "messages")
        for one in message.get("tool_calls", ()):
            json.loads(one["function"]["arguments"])
            open_.add(one["id"])
        parts = [{"type": "text", "text": content or ""}] if not isinstance(content, list) else content
        kinds += [part["type"] for part in parts]
        for part in parts:
            url = part.get("image_url", {}).get("url", "data:image/")
            if not url.startswith(("data:image/", "https://", "http://")):
                raise Refused("Invalid image URL.", "invalid_image_url", "messages")
        text = "".join(part.get("text", "") for part in parts)
        turns.append(Turn("system" if role == "developer" else role, text))
    return turns, kinds


def _head(fake: FakeOpenAI, body: dict[str, Any], kind: str) -> dict[str, Any]:
    return {
        "id": fake.id("chatcmpl-"), "object": kind, "created": NOW, "model": body["model"], "service_tier": "default",
        "system_fingerprint": "fp_44709d6fcb",
    }  # fmt: skip


def _finish(body: dict[str, Any], said: Says) -> str:
    """A call that was named ends with "stop", and so does a refusal."""
    if said.refusal or (said.calls and isinstance(body.get("tool_choice"), dict)):
        return "stop"
    return said.finish


def _message(fake: FakeOpenAI, said: Says) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant", "content": None if said.calls or said.refusal else said.text,
        "refusal": said.refusal or None, "annotations": [],
    }  # fmt: skip
    if said.calls:
        message["tool_calls"] = [_call(fake, call) for call in said.calls]
    return message


def _call(fake: FakeOpenAI, call: Called) -> dict[str, Any]:
    return {"id": fake.id("call_"), "type": "function", "function": {"name": call.name, "arguments": call.json}}


def token_rows(text: str, top: int) -> list[dict[str, Any]]:
    """Log-probabilities of a text's words."""
    rows = []
    for at, word in enumerate(words(text)):
        likely = -0.125 * (at + 1)
        others = [(word, likely), *((f"{word.strip()}{i}", likely - i) for i in range(1, top))][:top]
        several = [{"token": t, "logprob": p, "bytes": list(t.encode())} for t, p in others]
        rows.append({"token": word, "logprob": likely, "bytes": list(word.encode()), "top_logprobs": several})
    return rows


def _logprobs(body: dict[str, Any], text: str) -> dict[str, Any] | None:
    if not body.get("logprobs"):
        return None
    return {"content": token_rows(text, body.get("top_logprobs") or 0), "refusal": None}


def cached(talk: Talk, said: Says) -> int:
    """Tokens of the prompt that OpenAI remembers: of one that says so."""
    return said.prompt_tokens - 1 if "cached" in talk.last else 0


def _usage(said: Says, n: int, talk: Talk) -> dict[str, Any]:
    written = said.completion_tokens * n
    return {
        "prompt_tokens": said.prompt_tokens, "completion_tokens": written, "total_tokens": said.prompt_tokens + written,
        "prompt_tokens_details": {"cached_tokens": cached(talk, said), "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": said.reasoning_tokens * n, "audio_tokens": 0, "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }  # fmt: skip


def _stream(fake: FakeOpenAI, body: dict[str, Any], said: Says) -> Iterator[Chunk]:
    head, n = _head(fake, body, "chat.completion.chunk"), body.get("n") or 1
    counted = (body.get("stream_options") or {}).get("include_usage")

    told = _logprobs(body, said.text)

    def chunk(index: int, delta: dict[str, Any], finish: str | None = None, place: int | None = None) -> bytes:
        logprobs = {**told, "content": [told["content"][place]]} if told and place is not None else None
        choice = {"index": index, "delta": delta, "logprobs": logprobs}
        row = {**head, "choices": [{**choice, "finish_reason": finish}]} | ({"usage": None} if counted else {})
        return sse({**row, "obfuscation": "aZ3x"})

    for at in range(n):
        content = None if said.calls or said.refusal else ""
        yield chunk(at, {"role": "assistant", "content": content, "refusal": None})
    for place, piece in enumerate(said.pieces if not said.calls else ()):
        for at in range(n):
            yield chunk(at, {"content": piece}, place=place)
    for piece in words(said.refusal):
        for at in range(n):
            yield chunk(at, {"refusal": piece})
    for at in range(n):
        for place, one in enumerate(said.calls):
            call = _call(fake, one)
            written = call["function"]["arguments"]
            function = {**call["function"], "arguments": ""}
            yield chunk(at, {"tool_calls": [{"index": place, **call, "function": function}]})
            for start in range(0, len(written), 5):
                part = {"index": place, "function": {"arguments": written[start : start + 5]}}
                yield chunk(at, {"tool_calls": [part]})
    for at in range(n):
        yield chunk(at, {}, _finish(body, said))
    if counted:
        yield sse({**head, "choices": [], "usage": _usage(said, n, fake.asked[-1]), "obfuscation": ""})
    yield sse("[DONE]")
