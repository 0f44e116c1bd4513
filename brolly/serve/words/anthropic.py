"""Anthropic's messages: a conversation of blocks → blocks. The whole answer is folded from the events of the stream."""

from __future__ import annotations

import asyncio
import hashlib
import json
from base64 import b64encode
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, cast
from uuid import uuid4

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import ValidationError
from pydantic_core import from_json

from brolly.serve.app import house
from brolly.serve.ask import Reads, Thinking, choose
from brolly.serve.elsewhere import Elsewhere, counted, prepared, reads_of, thought
from brolly.serve.errors import Refused, envelope, told
from brolly.serve.provenance import provenance
from brolly.serve.streams import Events, Pieces, event, unless_left
from brolly.serve.tell import reply, share
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
REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}


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
        job = await prepared(prepare, use.model, body)
        return reply({"input_tokens": await counted(use.model, job)}, provenance(use).headers)


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
        job = await prepared(prepare, use.model, body, user=user, adapter=use.adapter, **options)
        async with Pieces(use.model, job, stream=bool(body.stream)) as pieces:
            yield Telling(body, job), pieces


def prepare(model: Any, body: CountRequest, **options: Any) -> Any:
    """The job of a conversation. Raises Refused, and what the chat template and the options raise."""
    conversation = merged(list(rows_of(body, reads_of(model))))
    form = body.output_format or (body.output_config and body.output_config.format)
    if form:
        options["json_schema"] = json.dumps(form.schema_)
    tools, choice, parallel = tools_of(body, marked=isinstance(model, Elsewhere))
    if body.messages[-1].role == "assistant" and not getattr(model, "continues", False):
        # whose words the answer goes on with
        if tools:
            raise Refused("the last message is the assistant's, which cannot be gone on with when there are tools.")
        return model.prepare(continued(model, conversation, thinking_of(body).words(), True), **options)
    if isinstance(model, Elsewhere):
        options["extra"] = own(model, body)
    return model.prepare_chat(
        conversation, tools=tools, tool_choice=choice, parallel_tool_calls=parallel, **options,
        **thought(model, thinking_of(body), {}),
    )  # fmt: skip


def own(model: Elsewhere, body: CountRequest) -> dict[str, Any]:
    """What a vendor of the same words takes as it stands."""
    found: dict[str, Any] = {}
    if model.family == "anthropic":
        if body.cache_control:
            found["cache_control"] = body.cache_control
        if body.thinking and body.thinking.type == "adaptive" and model.traits.thinking in ("", "adaptive"):
            found["thinking"] = body.thinking.model_dump(exclude_none=True)
    return found


def thinking_of(body: CountRequest) -> Thinking:
    """How to think: not at all unless it is asked for, as Anthropic has it; what a vendor does by itself, it may."""
    given, effort = body.thinking, body.output_config.effort if body.output_config else None
    if given is None:
        return Thinking(effort, idle=effort is None)
    if given.type == "disabled":
        return Thinking(wanted=False)
    budget = str(given.budget_tokens) if given.budget_tokens is not None else None
    return Thinking(effort or budget, True, told=given.display != "omitted")


def tools_of(body: CountRequest, *, marked: bool) -> tuple[list[dict[str, Any]], str | dict[str, Any], bool]:
    """Tools, the choice among them and whether several may be called at once, in OpenAI's words. Raises Refused.

    `marked`: with what Anthropic is told to cache, which a chat template would show to the model.
    """
    tools = []
    for at, tool in enumerate(body.tools or ()):
        if tool.type not in (None, "custom") or tool.input_schema is None:
            raise Refused(
                f"tools.{at} is {tool.name!r:.80} of the type {tool.type!r:.40}, which runs at Anthropic alone; give a "
                "tool with a name, a description and an input_schema."
            )
        function = {"name": tool.name, "description": tool.description or "", "parameters": tool.input_schema}
        mark = {"cache_control": tool.cache_control} if marked and tool.cache_control else {}
        tools.append({"type": "function", "function": function, **mark})
    given = body.tool_choice
    if given is None:
        return *choose(tools, None), True
    known = {"any": "required"}.get(given.type, given.type)
    choice = ToolChoice(type="function", name=given.name) if given.type == "tool" else known
    return *choose(tools, choice), not given.disable_parallel_tool_use


def rows_of(body: CountRequest, reads: Reads) -> Iterator[dict[str, Any]]:
    """The conversation as `prepare_chat` takes it, the system's words first; each tool's result is a message."""
    if body.system:
        blocks = [TextBlock(type="text", text=body.system)] if isinstance(body.system, str) else body.system
        yield {"role": "system", "content": reads.joined([part for b in blocks for part in parts_of(b, reads)], "\n\n")}
    for message in body.messages:
        if isinstance(message.content, str):
            yield {"role": message.role, "content": message.content}
        else:
            yield from Turn(message.role, reads).rows(message.content)


class Turn:
    """One message of blocks."""

    def __init__(self, role: str, reads: Reads) -> None:
        self.role, self.reads = role, reads
        self.parts: list[dict[str, Any]] = []
        self.more: dict[str, Any] = {}

    def rows(self, blocks: Iterable[Block]) -> Iterator[dict[str, Any]]:
        """Its rows: its own words, and tools' results where they stand."""
        begun = False
        for block in blocks:
            match block:
                case ToolResultBlock():
                    if self.parts:
                        yield self.row()
                    yield self.result(block)
                    begun = True
                case ToolUseBlock():
                    function = {"name": block.name, "arguments": json.dumps(block.input, ensure_ascii=False)}
                    call = {"id": block.id, "type": "function", "function": function} | self.mark(block)
                    self.more.setdefault("tool_calls", []).append(call)
                case ThinkingBlock():
                    self.more["reasoning_content"] = self.more.get("reasoning_content", "") + block.thinking
                    self.keep(block, block.signature or "", block.thinking)
                case OtherBlock(type="redacted_thinking"):
                    self.keep(block, str((block.model_extra or {}).get("data", "")))
                case _:
                    self.parts += parts_of(block, self.reads)
        if self.parts or self.more or not begun:
            yield self.row()

    def row(self) -> dict[str, Any]:
        row = {"role": self.role, "content": self.reads.joined(self.parts, "\n"), **self.more}
        self.parts, self.more = [], {}
        return row

    def result(self, block: ToolResultBlock) -> dict[str, Any]:
        given = block.content or ""
        blocks = [TextBlock(type="text", text=given)] if isinstance(given, str) else given
        parts = [part for one in blocks for part in parts_of(one, self.reads)]
        if parts:
            parts[-1] |= self.mark(block)
        row = {"role": "tool", "tool_call_id": block.tool_use_id, "content": self.reads.joined(parts, "\n")}
        return row | ({"is_error": True} if block.is_error and self.reads.parts else {})

    def keep(self, block: Block, seal: str, text: str = "") -> None:
        """A block of thoughts, as the vendor that sealed it wants it back; what was sealed here, nobody wants."""
        if self.reads.parts and seal and seal != digest(text):
            at = [sum(len(part.get("text", "")) for part in self.parts), len(self.more.get("tool_calls", ()))]
            row = {"vendor": "anthropic", "block": block.model_dump(exclude_none=True), "at": at}
            self.more.setdefault("opaque", []).append(row)

    def mark(self, block: Block) -> dict[str, Any]:
        return mark_of(block) if self.reads.parts else {}


def parts_of(block: Block, reads: Reads) -> list[dict[str, Any]]:
    """A block as parts. Raises Refused at one that the model cannot read."""
    if isinstance(block, TextBlock):
        found = [{"type": "text", "text": block.text}]
    else:
        source = getattr(block, "source", None) or {}
        kind, more = source.get("type"), block.model_extra or {}
        data = source.get("data")
        url = f"data:{source.get('media_type')};base64,{data}" if kind == "base64" else source.get("url")
        where = "a message"
        match block.type, kind:
            case "document", "text" if isinstance(data, str):
                found = [{"type": "text", "text": data}]
            case "document", "content" if isinstance(source.get("content"), (str, list)):
                given = source["content"]
                rows = [{"type": "text", "text": given}] if isinstance(given, str) else given
                found = [part for one in inner_blocks(rows) for part in parts_of(one, reads)]
            case "document", "base64" | "url":
                found = [reads.file({"file_data": url, "filename": more.get("title")}, where, block.type)]
            case "image", "base64" | "url":
                found = [reads.image({"url": url}, where, block.type)]
            case _:
                raise reads.cannot(where, block.type)
    if found and reads.parts:
        found[-1] |= mark_of(block)
    return found


def inner_blocks(rows: list[Any]) -> list[Block]:
    """The blocks of a document that has some. Raises Refused."""
    try:
        return cast(list[Block], Message.model_validate({"role": "user", "content": rows}).content)
    except ValidationError:
        raise Refused("a document's source holds what is no block of text or picture.") from None


def mark_of(block: Block) -> dict[str, Any]:
    """Where a block ends what is to be cached."""
    mark = (block.model_extra or {}).get("cache_control")
    return {"cache_control": mark} if isinstance(mark, dict) else {}


def digest(thought: str) -> str:
    """What seals a thought of a model here: a form that clients want, and no proof of anything."""
    return b64encode(hashlib.sha256(thought.encode()).digest()).decode()


def merged(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Neighbours of one role as one message, as Anthropic joins them; tools' results stay apart."""
    found: list[dict[str, Any]] = []
    for row in rows:
        alike = bool(found) and row["role"] == found[-1]["role"] != "tool" and len(row) == len(found[-1]) == 2
        if alike and isinstance(row["content"], str) and isinstance(found[-1]["content"], str):
            found[-1] = {"role": row["role"], "content": f"{found[-1]['content']}\n\n{row['content']}"}
        else:
            found.append(row)
    return found


class Telling:
    """Pieces → Anthropic's events: blocks of thoughts, text and calls, one open at a time."""

    def __init__(self, body: MessagesRequest, job: Any) -> None:
        self.body = body
        self.at, self.open = -1, ""  # the index of the last block, and what it is while it is open
        self.thought, self.reason = "", "stop"
        self.seal: str | None = None  # the vendor's own, of the thought that is open
        self.stopped: str | None = None
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
            "input_tokens": u.prompt_tokens - u.cached_tokens - u.written_tokens,
            "cache_creation_input_tokens": u.written_tokens,
            "cache_read_input_tokens": u.cached_tokens, "output_tokens": u.completion_tokens,
        }  # fmt: skip

    def of(self, piece: Piece) -> list[dict[str, Any]]:
        """The events of one piece."""
        events: list[dict[str, Any]] = []
        if piece.reasoning:
            events += self.into("thinking", {"type": "thinking", "thinking": "", "signature": ""})
            self.thought += piece.reasoning
            events.append(self.delta({"type": "thinking_delta", "thinking": piece.reasoning}))
        for row in piece.opaque:
            events += self.kept(row)
        if piece.text:
            events += self.into("text", {"type": "text", "text": ""})
            events.append(self.delta({"type": "text_delta", "text": piece.text}))
        for call in piece.calls:
            own: dict[str, Any] = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
            events += self.into(f"tool {call.index}", own)
            if call.arguments:
                events.append(self.delta({"type": "input_json_delta", "partial_json": call.arguments}))
        self.stopped = piece.stopped if piece.finish_reason == "stop" else None
        self.reason, self.usage = piece.finish_reason or self.reason, piece.usage or self.usage
        return events

    def kept(self, row: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What a vendor wants back: its seal of the thought that is open, or thoughts that nobody may read."""
        block = row.get("block") if row.get("vendor") == "anthropic" else None
        if not isinstance(block, Mapping):  # another vendor's, which is remembered by the calls that it belongs to
            return []
        if block.get("type") == "redacted_thinking":
            events = self.into("redacted", {"type": "redacted_thinking", "data": block.get("data", "")})
            return [*events, *self.close()]
        events = self.into("thinking", {"type": "thinking", "thinking": "", "signature": ""})
        self.seal = str(block.get("signature", ""))
        return [*events, *self.close()]

    def into(self, kind: str, block: dict[str, Any]) -> list[dict[str, Any]]:
        """Open a block of this kind, unless it is the open one."""
        if self.open == kind:
            return []
        events = self.close()
        self.at, self.open = self.at + 1, kind
        return [*events, {"type": "content_block_start", "index": self.at, "content_block": block}]

    def close(self) -> list[dict[str, Any]]:
        """End the open block; a thought, with what seals it."""
        if not self.open:
            return []
        events: list[dict[str, Any]] = []
        if self.open == "thinking":
            seal = digest(self.thought) if self.seal is None else self.seal
            events.append(self.delta({"type": "signature_delta", "signature": seal}))
            self.thought, self.seal = "", None
        self.open = ""
        return [*events, {"type": "content_block_stop", "index": self.at}]

    def delta(self, said: dict[str, Any]) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": self.at, "delta": said}

    def end(self) -> list[dict[str, Any]]:
        """Why it ended, and what it took."""
        stop = self.stopped if self.body.stop_sequences else None
        reason = "stop_sequence" if stop is not None else REASONS[self.reason]
        if reason == "max_tokens" and self.usage.completion_tokens < self.body.max_tokens:
            reason = "model_context_window_exceeded"
        delta = {"stop_reason": reason, "stop_sequence": stop}
        return [
            *self.close(),
            {"type": "message_delta", "delta": delta, "usage": self.used()},
            {"type": "message_stop"},
        ]


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
    context, written = body["max_model_len"], body["brolly"].get("max_output")
    return {
        "type": "model", "id": body["id"], "display_name": body["id"], "created_at": at, "lifecycle": "active",
        "max_input_tokens": context, "max_tokens": written or context, "deprecated_at": None,
        "retires_at": None, "line": None, "capabilities": None,
    }  # fmt: skip


def in_stream(error: Exception) -> bytes:
    """An error as the last event of a stream."""
    return event(envelope("/v1/messages", told(error)), "error")
