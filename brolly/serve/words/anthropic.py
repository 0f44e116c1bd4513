"""Anthropic's messages: a conversation of blocks → blocks. The whole answer is folded from the events of the stream."""

from __future__ import annotations

import asyncio
import hashlib
import json
from base64 import b64encode
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic_core import from_json

from brolly.engine.job import Job
from brolly.serve.app import house
from brolly.serve.ask import choose, template_of
from brolly.serve.errors import Refused, envelope, told
from brolly.serve.provenance import provenance
from brolly.serve.streams import Events, Pieces, event, unless_left
from brolly.serve.tell import reply, share
from brolly.serve.threads import in_turn
from brolly.serve.wire.anthropic import (
    ERRORS,
    Block,
    Counted,
    CountRequest,
    Message,
    MessageBody,
    MessagesRequest,
    OtherBlock,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
)
from brolly.serve.wire.chat import ToolChoice
from brolly.serve.words.chat import continued
from brolly.verbs import Piece, Usage

router = APIRouter(tags=["anthropic"])
PING = 10.0  # seconds of silence before the first token, after which the client is told that we live
REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


@router.post(
    "/v1/messages", response_model=MessageBody,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}, **ERRORS},
)  # fmt: skip
async def messages(request: Request, body: MessagesRequest) -> Response:
    """Answer a conversation, as Anthropic does."""
    headers: dict[str, str] = {}
    if body.stream:
        return Events(stream(request, body, headers), in_stream, headers)
    return await unless_left(request, whole(request, body, headers))


@router.post("/v1/messages/count_tokens", response_model=Counted, responses=ERRORS)
async def count_tokens(request: Request, body: CountRequest) -> Response:
    """How many tokens a conversation has, with what the chat template puts around it."""
    async with house(request).use(body.model, "chat") as use:
        job = await in_turn(prepare, use.model, body)
        return reply({"input_tokens": len(job.prompt)}, provenance(use).headers)


async def stream(
    request: Request, body: MessagesRequest, headers: dict[str, str]
) -> AsyncGenerator[bytes, None]:  # fmt: skip
    """Server-sent events, each named by its type."""

    def sent(events: Iterable[dict[str, Any]]) -> bytes:
        return b"".join(event(one, one["type"]) for one in events)

    async with writing(request, body, headers) as (telling, pieces):
        yield sent([telling.start(), {"type": "ping"}])
        batches = pieces.batches()
        first = asyncio.ensure_future(anext(batches, []))
        try:
            while not (await asyncio.wait({first}, timeout=PING))[0]:
                yield sent([{"type": "ping"}])
        finally:
            first.cancel()
        yield sent(one for piece in first.result() for one in telling.of(piece))
        async for batch in batches:
            yield sent(one for piece in batch for one in telling.of(piece))
        yield sent(telling.end())


async def whole(request: Request, body: MessagesRequest, headers: dict[str, str]) -> Response:
    async with writing(request, body, headers) as (telling, pieces):
        events = [telling.start()]
        async for piece in pieces:
            events += telling.of(piece)
        events += telling.end()
    return reply(folded(events), headers)


@asynccontextmanager
async def writing(
    request: Request, body: MessagesRequest, headers: dict[str, str]
) -> AsyncIterator[tuple[Telling, Pieces]]:  # fmt: skip
    """The pieces of an answer, and what tells of them."""
    user = share(body.metadata.user_id if body.metadata else None)
    given = {
        "max_tokens": body.max_tokens, "stop": body.stop_sequences, "temperature": body.temperature,
        "top_p": body.top_p, "top_k": body.top_k,
    }  # fmt: skip
    options = {name: value for name, value in given.items() if value is not None}
    async with house(request).use(body.model, "chat") as use:
        headers.update(provenance(use).headers)
        job = await in_turn(prepare, use.model, body, user=user, adapter=use.adapter, **options)
        async with Pieces(use.model, job) as pieces:
            yield Telling(body, job, use.model.tokenizer), pieces


def prepare(model: Any, body: CountRequest, **options: Any) -> Job:
    """The job of a conversation. Raises Refused, and what the chat template and the options raise."""
    conversation = [row for message in opened(body) for row in rows_of(message)]
    template = thoughts(body)
    form = body.output_format or (body.output_config and body.output_config.format)
    if form:
        options["json_schema"] = json.dumps(form.schema_)
    tools, choice, parallel = tools_of(body)
    job: Job
    if body.messages[-1].role == "assistant":  # whose words the answer goes on with
        if tools:
            raise Refused("the last message is the assistant's, which cannot be gone on with when there are tools.")
        job = model.prepare(continued(model, merged(conversation), template, True), **options)
    else:
        job = model.prepare_chat(
            merged(conversation), tools=tools, tool_choice=choice, parallel_tool_calls=parallel, template=template,
            **options,
        )  # fmt: skip
    return job


def opened(body: CountRequest) -> list[Message]:
    """The messages, the system's first."""
    if not body.system:
        return body.messages
    said = body.system if isinstance(body.system, str) else "\n\n".join(block.text for block in body.system)
    return [Message(role="system", content=said), *body.messages]


def thoughts(body: CountRequest) -> dict[str, Any]:
    """What chat templates are told of thinking: off, unless it is asked for, as Anthropic has it."""
    wanted = body.thinking is not None and body.thinking.type != "disabled"
    effort = body.output_config.effort if body.output_config and wanted else None
    return template_of(effort, {"enable_thinking": wanted, "thinking": wanted})


def tools_of(body: CountRequest) -> tuple[list[dict[str, Any]], str | dict[str, Any], bool]:
    """Tools, the choice among them and whether several may be called at once, in OpenAI's words. Raises Refused."""
    tools = []
    for at, tool in enumerate(body.tools or ()):
        if tool.type not in (None, "custom") or tool.input_schema is None:
            raise Refused(
                f"tools.{at} is {tool.name!r:.80} of the type {tool.type!r:.40}, which runs at Anthropic alone; give a "
                "tool with a name, a description and an input_schema."
            )
        function = {"name": tool.name, "description": tool.description or "", "parameters": tool.input_schema}
        tools.append({"type": "function", "function": function})
    given = body.tool_choice
    if given is None:
        return *choose(tools, None), True
    known = {"any": "required"}.get(given.type, given.type)
    choice = ToolChoice(type="function", name=given.name) if given.type == "tool" else known
    return *choose(tools, choice), not given.disable_parallel_tool_use


def rows_of(message: Message) -> list[dict[str, Any]]:
    """A message as chat templates take it; each tool's result becomes one of its own, where it stands."""
    if isinstance(message.content, str):
        return [{"role": message.role, "content": message.content}]
    rows: list[dict[str, Any]] = []
    own: dict[str, Any] = {"role": message.role, "content": ""}
    for block in message.content:
        match block:
            case ToolResultBlock():
                if own["content"]:
                    rows.append(own)
                    own = {"role": message.role, "content": ""}
                content = block.content or ""
                said = content if isinstance(content, str) else "\n".join(text_of(part) for part in content)
                rows.append({"role": "tool", "tool_call_id": block.tool_use_id, "content": said})
            case ToolUseBlock():
                function = {"name": block.name, "arguments": json.dumps(block.input, ensure_ascii=False)}
                calls = own.setdefault("tool_calls", [])
                calls.append({"id": block.id, "type": "function", "function": function})
            case ThinkingBlock():
                own["reasoning_content"] = own.get("reasoning_content", "") + block.thinking
            case OtherBlock(type="redacted_thinking"):
                pass
            case _:
                own["content"] += ("\n" if own["content"] else "") + text_of(block)
    if len(own) > 2 or own["content"] or not rows:
        rows.append(own)
    return rows


def text_of(block: Block) -> str:
    """The text of a block. Raises Refused at one that a model of texts cannot read."""
    if isinstance(block, TextBlock):
        return block.text
    source = getattr(block, "source", None) or {}
    if block.type == "document" and source.get("type") == "text" and isinstance(source.get("data"), str):
        return str(source["data"])
    raise Refused(f"a message holds a block of the type {block.type!r:.40}; this model reads text alone.")


def merged(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Neighbours of one role as one message, as Anthropic joins them; tools' results stay apart."""
    found: list[dict[str, Any]] = []
    for row in rows:
        if found and row["role"] == found[-1]["role"] and row["role"] != "tool" and len(row) == len(found[-1]) == 2:
            found[-1] = {"role": row["role"], "content": f"{found[-1]['content']}\n\n{row['content']}"}
        else:
            found.append(row)
    return found


class Telling:
    """Pieces → Anthropic's events: blocks of thoughts, text and calls, one open at a time."""

    def __init__(self, body: MessagesRequest, job: Job, tokenizer: Any) -> None:
        self.body, self.job, self.tokenizer = body, job, tokenizer
        self.at, self.open = -1, ""  # the index of the last block, and what it is while it is open
        self.thought, self.reason = "", "stop"
        self.tokens: list[int] = []
        self.usage = Usage(len(job.prompt), 0)

    def start(self) -> dict[str, Any]:
        message: dict[str, Any] = {
            "id": f"msg_{uuid4().hex}", "type": "message", "role": "assistant", "model": self.body.model, "content": [],
            "stop_reason": None, "stop_sequence": None, "usage": self.used(),
        }  # fmt: skip
        return {"type": "message_start", "message": message}

    def used(self) -> dict[str, Any]:
        u = self.usage
        return {
            "input_tokens": u.prompt_tokens - u.cached_tokens, "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": u.cached_tokens, "output_tokens": u.completion_tokens,
        }  # fmt: skip

    def of(self, piece: Piece) -> list[dict[str, Any]]:
        """The events of one piece."""
        events: list[dict[str, Any]] = []
        if piece.reasoning:
            events += self.into("thinking", {"type": "thinking", "thinking": "", "signature": ""})
            self.thought += piece.reasoning
            events.append(self.delta({"type": "thinking_delta", "thinking": piece.reasoning}))
        if piece.text:
            events += self.into("text", {"type": "text", "text": ""})
            events.append(self.delta({"type": "text_delta", "text": piece.text}))
        for call in piece.calls:
            own: dict[str, Any] = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
            events += self.into(f"tool {call.index}", own)
            if call.arguments:
                events.append(self.delta({"type": "input_json_delta", "partial_json": call.arguments}))
        self.tokens += piece.tokens
        self.reason, self.usage = piece.finish_reason or self.reason, piece.usage or self.usage
        return events

    def into(self, kind: str, block: dict[str, Any]) -> list[dict[str, Any]]:
        """Open a block of this kind, unless it is the open one."""
        if self.open == kind:
            return []
        events = self.close()
        self.at, self.open = self.at + 1, kind
        return [*events, {"type": "content_block_start", "index": self.at, "content_block": block}]

    def close(self) -> list[dict[str, Any]]:
        """End the open block. A thought is signed by its digest: a form that clients want, and no proof of anything."""
        if not self.open:
            return []
        events: list[dict[str, Any]] = []
        if self.open == "thinking":
            digest = b64encode(hashlib.sha256(self.thought.encode()).digest()).decode()
            events.append(self.delta({"type": "signature_delta", "signature": digest}))
            self.thought = ""
        self.open = ""
        return [*events, {"type": "content_block_stop", "index": self.at}]

    def delta(self, said: dict[str, Any]) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": self.at, "delta": said}

    def end(self) -> list[dict[str, Any]]:
        """Why it ended, and what it took."""
        stop = self.stop()
        reason = "stop_sequence" if stop is not None else REASONS[self.reason]
        if reason == "max_tokens" and self.usage.completion_tokens < self.body.max_tokens:
            reason = "model_context_window_exceeded"
        delta = {"stop_reason": reason, "stop_sequence": stop}
        return [
            *self.close(),
            {"type": "message_delta", "delta": delta, "usage": self.used()},
            {"type": "message_stop"},
        ]

    def stop(self) -> str | None:
        """The stop sequence that ended the answer: the first one in the text of its tokens, which still have it."""
        if self.reason != "stop" or not self.body.stop_sequences:
            return None
        text = self.tokenizer.decode(self.tokens, skip_special=not self.job.keep_special, after=self.job.after)
        found = [(text.find(stop), stop) for stop in self.body.stop_sequences if stop in text]
        return min(found)[1] if found else None


def folded(events: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The message that a stream of events tells."""
    message: dict[str, Any] = {}
    arguments: dict[int, str] = {}
    for one in events:
        match one["type"]:
            case "message_start":
                message = one["message"]
            case "content_block_start":
                message["content"].append(one["content_block"])
            case "content_block_delta":
                block, delta = message["content"][one["index"]], one["delta"]
                if delta["type"] == "input_json_delta":
                    arguments[one["index"]] = arguments.get(one["index"], "") + delta["partial_json"]
                else:
                    key = {"text_delta": "text", "thinking_delta": "thinking"}.get(delta["type"], "signature")
                    block[key] += delta[key]
            case "message_delta":
                message |= one["delta"] | {"usage": one["usage"]}
    for at, said in arguments.items():
        message["content"][at]["input"] = parsed(said)
    return message


def parsed(arguments: str) -> dict[str, Any]:
    """A call's arguments as far as they were written, the way Anthropic's clients read them from a stream."""
    try:
        found = from_json(arguments, allow_partial=True)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}


def model_page(bodies: Sequence[Mapping[str, Any]], query: Mapping[str, str]) -> dict[str, Any]:
    """A page of /v1/models as Anthropic's clients read it, of OpenAI's rows. Raises Refused."""
    rows = [model_info(body) for body in bodies]
    ids = [row["id"] for row in rows]
    limit, after, before = query.get("limit", "20"), query.get("after_id"), query.get("before_id")
    if not limit.isdecimal() or not 1 <= int(limit) <= 1000:
        raise Refused(f"limit is {limit!r:.20}; expected 1 to 1000.")
    for given in (after, before):
        if given is not None and given not in ids:
            raise Refused(f"{given!r:.80} is the id of no model here.")
    first = ids.index(after) + 1 if after else 0
    last = ids.index(before) if before else len(ids)
    page = rows[first:last][-int(limit) :] if before else rows[first:last][: int(limit)]
    more = len(rows[first:last]) > len(page)
    ends = (page[0]["id"], page[-1]["id"]) if page else (None, None)
    return {"data": page, "has_more": more, "first_id": ends[0], "last_id": ends[1]}


def model_info(body: Mapping[str, Any]) -> dict[str, Any]:
    """A model as Anthropic's clients read it."""
    at = datetime.fromtimestamp(body["created"], UTC).isoformat().replace("+00:00", "Z")
    context = body["max_model_len"]
    return {
        "type": "model", "id": body["id"], "display_name": body["id"], "created_at": at, "lifecycle": "active",
        "max_input_tokens": context, "max_tokens": context, "deprecated_at": None, "retires_at": None, "line": None,
        "capabilities": None,
    }  # fmt: skip


def in_stream(error: Exception) -> bytes:
    """An error as the last event of a stream."""
    return event(envelope("/v1/messages", told(error)), "error")
