"""A server that speaks as Anthropic does, held to the types of their Python package and the rules of their reference.

The name of a model decides what is allowed, as there (`knows`). One without "claude-", or with "missing", is not found.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from anthropic.types.message_count_tokens_params import MessageCountTokensParams
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming, MessageCreateParamsStreaming

from tests.remote.fakes import KEY, Fake, Reply, Request, Says, Talk, Tool, Turn, says, sse
from tests.remote.fakes.typed import complaint

OLD, NEW = "2023-06-01", "2026-10-21"
SAMPLING = ("temperature", "top_p", "top_k")
# what models of this name know, the first that matches; the newest think as they like and call what they like
KNOWS = (
    (r"claude-(haiku|sonnet|opus)-4-5", {"sampling", "budget", "prefill", "forced"}),
    (r"claude-(sonnet|opus)-4-6", {"sampling", "budget", "adaptive", "forced"}),
    (r"claude-opus-4-7", {"adaptive", "forced"}),
    (r"claude-(opus|sonnet)-5-5|claude-(fable|mythos)-5-[12]", {"adaptive", "system"}),
    (r"", {"adaptive", "system", "forced"}),
)
UNTOLD = ("minimum", "maximum", "multipleOf", "minLength", "maxLength", "maxItems", "uniqueItems")
STATUS = {
    "invalid_request_error": 400, "authentication_error": 401, "billing_error": 402, "permission_error": 403,
    "not_found_error": 404, "rate_limit_error": 429, "api_error": 500, "overloaded_error": 529,
}  # fmt: skip
STOPS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
MODELS = [
    ("claude-opus-5-5", "Claude Opus 5.5", "2026-09-21T00:00:00Z", 1_000_000, 128_000),
    ("claude-sonnet-5-5", "Claude Sonnet 5.5", "2026-09-21T00:00:00Z", 1_000_000, 128_000),
    ("claude-haiku-5-5", "Claude Haiku 5.5", "2026-09-21T00:00:00Z", 400_000, 64_000),
    ("claude-opus-4-6", "Claude Opus 4.6", "2026-02-05T00:00:00Z", 1_000_000, 128_000),
    ("claude-haiku-4-5", "Claude Haiku 4.5", "1970-01-01T00:00:00Z", 200_000, 64_000),
]


def failure(kind: str, message: str, headers: Mapping[str, str] | None = None, code: str = "") -> Reply:
    """An error in Anthropic's envelope, with the status of its kind."""
    return Reply(STATUS[kind], {"request-id": "req_011", **(headers or {})}, envelope(kind, message, code))


def envelope(kind: str, message: str, code: str = "") -> dict[str, Any]:
    details = {"details": {"error_code": code}} if code else {}
    return {"type": "error", "error": {"type": kind, "message": message, **details}, "request_id": "req_011"}


class Refused(Exception):
    """What is wrong with a request."""

    def __init__(self, message: str, kind: str = "invalid_request_error") -> None:
        super().__init__(message)
        self.kind = kind


class FakeAnthropic(Fake):
    """`cached` are prompts that are in the cache; `page` is how many models a page has at most."""

    def __init__(self, *, page: int = 1000, **given: Any) -> None:
        super().__init__(**given)
        self.page = page
        self.cached: set[str] = set()

    def answer(self, request: Request) -> Reply:
        try:
            version = self.let_in(request)
            match request.method, request.path:
                case "POST", "/v1/messages":
                    return self.message(request.json, version)
                case "POST", "/v1/messages/count_tokens":
                    return self.count(request.json)
                case "GET", "/v1/models":
                    return self.models(request.query)
            raise Refused(f"Not Found: {request.path}", "not_found_error")
        except Refused as error:
            return failure(error.kind, str(error))

    def let_in(self, request: Request) -> str:
        """The version of the API; raises where there is no key or no version."""
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        if KEY not in (request.headers.get("x-api-key"), bearer):
            raise Refused("invalid x-api-key", "authentication_error")
        version = request.headers.get("anthropic-version", "")
        if version not in (OLD, NEW):
            raise Refused("anthropic-version: header is required")
        return version

    def message(self, body: Any, version: str, frame: Any = None) -> Reply:
        """The answer to a body of /v1/messages; `frame` makes bytes of an event and its name."""
        kind = MessageCreateParamsStreaming if body.get("stream") is True else MessageCreateParamsNonStreaming
        plain = dict(body)
        if version != NEW:
            sampling(plain)
        if why := complaint(kind, plain):
            raise Refused(why)
        obey(body)
        said = says(talk(body))
        content, usage = blocks(body, said), self.usage(body, said)
        row = {
            "id": "msg_01XFDUDYJgAACzvnptvVoYEL", "type": "message", "role": "assistant", "model": body["model"],
            "content": content, "stop_reason": "stop_sequence" if said.stopped else STOPS[said.finish],
            "stop_sequence": said.stopped, "usage": usage,
            "stop_details": {"type": "refusal", "category": None, "explanation": None} if said.refusal else None,
        }  # fmt: skip
        headers = {"request-id": "req_011"}
        if body.get("stream") is not True:
            return Reply(200, headers, row)
        frame = frame or sse
        return Reply(200, headers, chunks=[frame(data, data["type"]) for data in events(row)])

    def usage(self, body: Any, said: Says) -> dict[str, Any]:
        """Tokens; what stands before a mark to cache is put there once, and read from there after that."""
        key = marked(body)
        inside = min(said.prompt_tokens, 7) if key else 0
        put = inside if key not in self.cached else 0
        if key:
            self.cached.add(key)
        return {
            "input_tokens": said.prompt_tokens - inside, "cache_creation_input_tokens": put,
            "cache_read_input_tokens": inside - put, "output_tokens": said.completion_tokens,
            "output_tokens_details": {"thinking_tokens": said.reasoning_tokens}, "service_tier": "standard",
            "cache_creation": {"ephemeral_5m_input_tokens": put, "ephemeral_1h_input_tokens": 0},
        }  # fmt: skip

    def count(self, body: Any) -> Reply:
        if why := complaint(MessageCountTokensParams, body):
            raise Refused(why)
        obey({**body, "max_tokens": 1 << 20})
        return Reply(200, {}, {"input_tokens": says(talk(body)).prompt_tokens})

    def models(self, query: Mapping[str, str]) -> Reply:
        ids = [row[0] for row in MODELS]
        start = ids.index(query["after_id"]) + 1 if "after_id" in query else 0
        size = min(int(query.get("limit", 20)), self.page)
        rows = [
            {
                "type": "model", "id": id, "display_name": title, "created_at": created, "lifecycle": "active",
                "max_input_tokens": context, "max_tokens": most, "line": id.split("-")[1], "capabilities": None,
            }
            for id, title, created, context, most in MODELS[start : start + size]
        ]  # fmt: skip
        ends = {"first_id": rows[0]["id"] if rows else None, "last_id": rows[-1]["id"] if rows else None}
        return Reply(200, {}, {"data": rows, "has_more": start + size < len(MODELS), **ends})


def sampling(body: dict[str, Any]) -> None:
    """Take out what the older version has beside; raises where it is out of range, or the model is newer."""
    for name in SAMPLING:
        if name in body:
            value = body.pop(name)
            if "sampling" not in knows(body.get("model", "")):
                raise Refused(f"`{name}` is deprecated for this model.")
            if not isinstance(value, (int, float)) or not 0 <= value <= (1 if name != "top_k" else 500):
                raise Refused(f"{name}: range: 0..1")


def knows(model: str) -> set[str]:
    """What a model of this name takes."""
    return next(found for pattern, found in KNOWS if re.search(pattern, model))


def obey(body: Mapping[str, Any]) -> None:
    """What the reference asks for beyond types. Raises Refused."""
    model, messages, thinking = body["model"], body["messages"], body.get("thinking") or {"type": "disabled"}
    if "missing" in model or "claude-" not in model:
        raise Refused(f"model: {model}", "not_found_error")
    known = knows(model)
    forced = (body.get("tool_choice") or {}).get("type") in ("any", "tool")
    if not messages:
        raise Refused("messages: at least one message is required")
    if body["max_tokens"] < 1:
        raise Refused("max_tokens: must be greater than or equal to 1")
    on = thinking["type"] in ("enabled", "adaptive")
    if thinking["type"] == "enabled":
        if "budget" not in known:
            raise Refused('"thinking.type.enabled" is not supported for this model. Use "thinking.type.adaptive".')
        if not 1024 <= thinking["budget_tokens"] < body["max_tokens"]:
            raise Refused("`max_tokens` must be greater than `thinking.budget_tokens`, which is at least 1024.")
        if forced:
            raise Refused("Thinking may not be enabled when tool_choice forces tool use.")
    if forced and "forced" not in known:
        raise Refused("tool_choice: this model does not support forced tool use")
    if thinking["type"] == "adaptive" and "adaptive" not in known:
        raise Refused("adaptive thinking is not supported on this model")
    if (body.get("output_config") or {}).get("effort") and "haiku-4-5" in model:
        raise Refused("This model does not support the effort parameter.")
    if on and (body.get("temperature", 1) != 1 or body.get("top_k") or body.get("top_p", 1) < 0.95):
        raise Refused("`temperature` may only be set to 1 when thinking is enabled.")
    if any(not stop.strip() for stop in body.get("stop_sequences") or ()):
        raise Refused("stop_sequences: each stop sequence must contain non-whitespace")
    if body.get("tool_choice") and not body.get("tools"):
        raise Refused("tool_choice may only be specified while providing tools.")
    shape = (body.get("output_config") or {}).get("format")
    if shape:
        obey_schema(shape["schema"])
    for at, tool in enumerate(body.get("tools") or ()):
        if "input_schema" in tool and tool["input_schema"].get("type") != "object":
            raise Refused(f"tools.{at}.custom.input_schema.type: Field required")
        if tool.get("strict"):
            obey_schema(tool["input_schema"])
    turns(messages, known, thinking["type"] == "enabled")
    if messages[-1]["role"] == "assistant":
        if on or "prefill" not in known:
            raise Refused("This model does not support assistant message prefill.")
        if text(messages[-1]["content"]).endswith((" ", "\n")):
            raise Refused("messages: final assistant content cannot end with trailing whitespace")


def turns(messages: Any, known: set[str], manual: bool) -> None:
    """Roles, ids, signatures and neighbours."""
    calls: set[str] = set()
    said = [at for at, one in enumerate(messages) if one["role"] == "user" and not results(one["content"])]
    last = max(said, default=-1)
    for at, message in enumerate(messages):
        role, content = message["role"], listed(message["content"])
        if not content and not (role == "assistant" and at == len(messages) - 1):
            raise Refused(f"messages.{at}: all messages must have non-empty content")
        if any(one["type"] == "text" and not one["text"] for one in content):
            raise Refused("messages: text content blocks must be non-empty")
        if role == "system":
            if "system" not in known:
                raise Refused("role 'system' is not supported on this model")
            after = messages[at + 1]["role"] if at + 1 < len(messages) else "assistant"
            if at == 0 or messages[at - 1]["role"] != "user" or after != "assistant":
                raise Refused(f"messages.{at}: a system message must follow a user turn and precede an assistant turn")
            continue
        if "toolong" in text(content):
            raise Refused("prompt is too long: 210000 tokens > 200000 maximum")
        given = [one["tool_use_id"] for one in content if one["type"] == "tool_result"]
        if calls - set(given) or [one["type"] == "tool_result" for one in content[: len(given)]] != [True] * len(given):
            raise Refused(f"messages.{at}: `tool_use` ids were found without `tool_result` blocks immediately after")
        if set(given) - calls:
            raise Refused(f"messages.{at}: unexpected `tool_use_id` found in `tool_result` blocks: {given}")
        calls = {one["id"] for one in content if one["type"] == "tool_use"}
        if any(not re.fullmatch(r"[a-zA-Z0-9_-]+", id) for id in calls):
            raise Refused(f"messages.{at}.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'")
        # behind what the user said last; earlier turns may be without thoughts
        thought = content[0]["type"] in ("thinking", "redacted_thinking") if content else False
        if manual and at > last and role == "assistant" and calls and not thought:
            raise Refused(f"messages.{at}.content.0.type: Expected `thinking` or `redacted_thinking`, but found other")
        for one in content:
            if one["type"] == "thinking" and one["signature"] != signature(one["thinking"]):
                raise Refused(f"messages.{at}: Invalid `signature` in `thinking` block")
            if one["type"] in ("image", "document") and role != "user":
                raise Refused(f"messages.{at}: {one['type']} blocks are not permitted in {role} messages")


def results(content: Any) -> bool:
    """Whether a user's turn answers calls, and is no turn of the user's own."""
    return any(one["type"] == "tool_result" for one in listed(content))


def obey_schema(schema: Any) -> None:
    """The subset of JSON Schema that is taken."""
    if not isinstance(schema, dict) or not schema:
        raise Refused("output_config.format.schema: a schema must have a type")
    if schema.get("type") == "object" and schema.get("additionalProperties") is not False:
        raise Refused("For 'object' type, 'additionalProperties' must be explicitly set to false")
    if strange := [name for name in UNTOLD if name in schema]:
        raise Refused(f"For '{schema.get('type')}' type, properties {strange} are not supported")
    inner = [*schema.get("properties", {}).values(), *schema.get("$defs", {}).values(), *schema.get("anyOf", ())]
    for one in [*inner, *([schema["items"]] if "items" in schema else [])]:
        obey_schema(one)


def talk(body: Mapping[str, Any]) -> Talk:
    """A request in no vendor's words."""
    heard: list[Turn] = [Turn("system", text(body["system"]))] if body.get("system") else []
    pictures = files = 0
    for message in body["messages"]:
        content = listed(message["content"])
        for one in content:
            pictures += one["type"] == "image"
            files += one["type"] == "document"
            if one["type"] == "tool_result":
                heard.append(Turn("tool", ("Error: " if one.get("is_error") else "") + text(one.get("content") or "")))
        if any(one["type"] != "tool_result" for one in content):
            heard.append(Turn(message["role"], text(content)))
    choice = body.get("tool_choice") or {"type": "auto"}
    names = {"auto": "auto", "none": "none", "any": "required"}
    shape = (body.get("output_config") or {}).get("format")
    tools = [Tool(one["name"], one["input_schema"]) for one in body.get("tools") or () if "input_schema" in one]
    return Talk(
        messages=heard, tools=tools, choice=names.get(choice["type"]) or choice["name"],
        parallel=not choice.get("disable_parallel_tool_use"), schema=shape["schema"] if shape else None,
        max_tokens=body.get("max_tokens"), stop=body.get("stop_sequences") or (), pictures=pictures, files=files,
        thinking=(body.get("thinking") or {}).get("type") in ("enabled", "adaptive"),
    )  # fmt: skip


def blocks(body: Mapping[str, Any], said: Says) -> list[dict[str, Any]]:
    """An answer's content."""
    found: list[dict[str, Any]] = []
    thinking = body.get("thinking") or {}
    if said.thoughts:
        told = thinking["type"] == "enabled" or thinking.get("display") == "summarized"
        thought = said.thoughts if told else ""
        found.append({"type": "thinking", "thinking": thought, "signature": signature(thought)})
        if "redacted" in text(body["messages"][-1]["content"]):
            found.append({"type": "redacted_thinking", "data": "EmwKAhgBEgy3va3pzix="})
    if said.text or said.refusal or not said.calls:
        found.append({"type": "text", "text": said.text or said.refusal})
    asked = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:20]
    for at, call in enumerate(said.calls):  # another request's calls have other ids
        found.append({"type": "tool_use", "id": f"toolu_{asked}A{at}", "name": call.name, "input": call.arguments})
    return found


def events(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A message as its stream tells it."""
    usage = row["usage"]
    begun = {**row, "content": [], "stop_reason": None, "stop_sequence": None, "stop_details": None}
    yield {"type": "message_start", "message": {**begun, "usage": {**usage, "output_tokens": 1}}}
    yield {"type": "ping"}
    for index, block in enumerate(row["content"]):
        empty = {"text": {"text": ""}, "thinking": {"thinking": "", "signature": ""}, "tool_use": {"input": {}}}
        head = {**block, **empty.get(block["type"], {})}
        yield {"type": "content_block_start", "index": index, "content_block": head}
        for delta in deltas(block):
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    end = {name: row[name] for name in ("stop_reason", "stop_sequence", "stop_details")}
    sums = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens")
    total = {name: usage[name] for name in (*sums, "output_tokens_details")}
    yield {"type": "message_delta", "delta": end, "usage": total}
    yield {"type": "message_stop"}


def deltas(block: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if block["type"] == "text":
        for word in re.findall(r"\S+\s*|\s+", block["text"]):
            yield {"type": "text_delta", "text": word}
    elif block["type"] == "thinking":
        for word in re.findall(r"\S+\s*", block["thinking"]):
            yield {"type": "thinking_delta", "thinking": word}
        yield {"type": "signature_delta", "signature": block["signature"]}
    elif block["type"] == "tool_use":
        yield {"type": "input_json_delta", "partial_json": ""}
        written = json.dumps(block["input"]) if block["input"] else ""
        for at in range(0, len(written), 5):
            yield {"type": "input_json_delta", "partial_json": written[at : at + 5]}


def listed(content: Any) -> list[dict[str, Any]]:
    """A content as blocks."""
    return ([{"type": "text", "text": content}] if content else []) if isinstance(content, str) else content


def text(content: Any) -> str:
    """The text of a content."""
    return "".join(one.get("text", "") for one in listed(content))


def signature(thought: str) -> str:
    return "sig_" + hashlib.sha256(thought.encode()).hexdigest()[:24]


def marked(body: Mapping[str, Any]) -> str:
    """What stands before the last mark to cache, as a name; "" without one."""
    written = json.dumps([body.get("tools"), body.get("system"), body["messages"]])
    at = written.rfind('"cache_control"')
    return hashlib.sha256(written[:at].encode()).hexdigest() if at >= 0 else ""
