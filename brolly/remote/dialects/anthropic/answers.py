"""What Anthropic's /v1/messages answers, whole or as events → pieces. Unknown kinds of events and blocks pass."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from brolly.errors import BadAnswer
from brolly.remote.ask import Ask
from brolly.remote.content import clean
from brolly.remote.dialect import Told
from brolly.remote.dialects.anthropic.turns import FAMILY
from brolly.remote.faults import fault
from brolly.remote.target import Target
from brolly.verbs import Piece, ToolDelta, Usage

ENDS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "pause_turn": "length",  # a tool of the vendor's takes its time: the answer is not whole
    "refusal": "content_filter",
}
# an error that comes within a stream has no status of its own
STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}
MESSAGE = 2000  # characters of a vendor's message that are kept


@dataclass
class _Block:
    """One block of an answer, as far as it came. `call` is the number of a tool's call."""

    kind: str
    head: Mapping[str, Any]
    parts: list[str] = field(default_factory=list)  # of a thought, or of a call's JSON
    signature: str = ""
    call: int = -1
    at: tuple[int, int] = (0, 0)  # characters of text and calls before it

    @property
    def text(self) -> str:
        return "".join(self.parts)


@dataclass
class Reader:
    """Pieces of one stream's events."""

    target: Target
    blocks: dict[int, _Block] = field(default_factory=dict)  # that are open
    calls: list[_Block] = field(default_factory=list)
    characters: int = 0
    usage: dict[str, int] = field(default_factory=dict)
    reason: str = ""
    stopped: str | None = None
    over: bool = False

    def push(self, event: str, data: Any) -> list[Piece]:
        """What became certain with an event. Raises RemoteError, Busy and what else an error's kind means."""
        if self.over or not isinstance(data, Mapping):
            return []
        kind = data.get("type", event)
        if kind == "message_start":
            message = data.get("message")
            self._count(message.get("usage") if isinstance(message, Mapping) else None)
        elif kind == "content_block_start":
            return self._begin(data.get("index"), data.get("content_block"))
        elif kind == "content_block_delta":
            return self._go_on(data.get("index"), data.get("delta"))
        elif kind == "content_block_stop":
            return self._close(data.get("index"))
        elif kind == "message_delta":
            self._count(data.get("usage"))
            self._told_end(data.get("delta"))
        elif kind == "message_stop":
            return self.end()
        elif kind == "error":
            said = told(data)
            raise fault(STATUS.get(said.kind, 500), said, self.target)
        return []

    def end(self) -> list[Piece]:
        """The last piece. Raises BadAnswer where the answer did not end, or a call's arguments are no JSON."""
        if self.over:
            return []
        if not self.reason:
            raise BadAnswer(f"{self.target.host} ended its stream before the answer was whole; ask again.")
        rest = [piece for index in list(self.blocks) for piece in self._close(index)]
        self.over = True
        finish = ENDS.get(self.reason, "stop")
        if finish in ("stop", "tool_calls"):
            for block in self.calls:
                _arguments(block, self.target.host)
            finish = "tool_calls" if self.calls and self.reason != "stop_sequence" else finish
        return [*rest, Piece("", finish_reason=finish, usage=_usage(self.usage), stopped=self.stopped)]

    def _begin(self, index: Any, head: Any) -> list[Piece]:
        if type(index) is not int or not isinstance(head, Mapping) or not isinstance(head.get("type"), str):
            return []
        block = self.blocks[index] = _Block(head["type"], head, at=(self.characters, len(self.calls)))
        if block.kind == "text":
            return self._say(head.get("text"))
        if block.kind == "thinking":
            block.signature = clean(head.get("signature"))
            return self._think(block, head.get("thinking"))
        if block.kind == "tool_use":
            id, name = clean(head.get("id")), clean(head.get("name"))
            if not id or not name:
                raise BadAnswer(f"{self.target.host} called a tool without {'an id' if name else 'a name'}; ask again.")
            block.call = len(self.calls)
            self.calls.append(block)
            return [Piece("", calls=(ToolDelta(block.call, id=id, name=name),))]
        return []

    def _go_on(self, index: Any, delta: Any) -> list[Piece]:
        block = self.blocks.get(index) if type(index) is int else None
        if block is None or not isinstance(delta, Mapping):
            return []
        match block.kind, delta.get("type"):
            case "text", "text_delta":
                return self._say(delta.get("text"))
            case "thinking", "thinking_delta":
                return self._think(block, delta.get("thinking"))
            case "thinking", "signature_delta":
                block.signature = clean(delta.get("signature"))
            case "tool_use", "input_json_delta":
                return self._argue(block, clean(delta.get("partial_json")))
        return []

    def _close(self, index: Any) -> list[Piece]:
        block = self.blocks.pop(index, None) if type(index) is int else None
        if block is None:
            return []
        if block.kind == "tool_use" and not block.text:
            given = block.head.get("input")
            return self._argue(block, "{}" if given is None else json.dumps(given))
        if block.kind == "thinking" and block.signature:
            return self._keep(block, {"type": "thinking", "thinking": block.text, "signature": block.signature})
        if block.kind == "redacted_thinking" and (data := clean(block.head.get("data"))):
            return self._keep(block, {"type": "redacted_thinking", "data": data})
        return []

    def _say(self, text: Any) -> list[Piece]:
        said = clean(text)
        self.characters += len(said)
        return [Piece(said)] if said else []

    def _think(self, block: _Block, text: Any) -> list[Piece]:
        thought = clean(text)
        block.parts.append(thought)
        return [Piece("", reasoning=thought)] if thought else []

    def _argue(self, block: _Block, part: str) -> list[Piece]:
        block.parts.append(part)
        return [Piece("", calls=(ToolDelta(block.call, part),))] if part else []

    def _keep(self, block: _Block, whole: dict[str, Any]) -> list[Piece]:
        """What goes back with the next turn, and how much text and how many calls come before it."""
        return [Piece("", opaque=({"vendor": FAMILY, "block": whole, "at": list(block.at)},))]

    def _count(self, usage: Any) -> None:
        """Counts are sums so far; what is left out stays."""
        if not isinstance(usage, Mapping):
            return
        details = usage.get("output_tokens_details")
        rows = {**usage, **(details if isinstance(details, Mapping) else {})}
        self.usage |= {name: rows[name] for name in COUNTS if type(rows.get(name)) is int and 0 <= rows[name] < 1 << 53}

    def _told_end(self, delta: Any) -> None:
        if isinstance(delta, Mapping):
            self.reason = clean(delta.get("stop_reason")) or self.reason
            self.stopped = (clean(delta.get("stop_sequence")) or None) if self.reason == "stop_sequence" else None


COUNTS = (
    "input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens", "thinking_tokens",
)  # fmt: skip


def whole(body: Any, ask: Ask, target: Target) -> list[Piece]:
    """The pieces of an answer that was not streamed. Raises BadAnswer."""
    content = body.get("content") if isinstance(body, Mapping) else None
    if not isinstance(content, list):
        raise BadAnswer(f"{target.host} answered with {_kind(body)}; expected a message with its content.")
    reader = Reader(target)
    reader._count(body.get("usage"))
    reader._told_end(body)
    pieces: list[Piece] = []
    for index, block in enumerate(content):
        pieces += reader._begin(index, block) + reader._close(index)
    if not reader.reason:
        raise BadAnswer(f"{target.host} did not say why its answer ended; ask again.")
    return pieces + reader.end()


def told(body: Any) -> Told:
    """An error's kind and message, in Anthropic's envelope or without one."""
    error = body.get("error") if isinstance(body, Mapping) else None
    if not isinstance(error, Mapping):
        message = body.get("message", body) if isinstance(body, Mapping) else body  # AWS's and Google's gates
        return Told(message="" if message is None else str(message)[:MESSAGE])
    kind, message = clean(error.get("type"))[:200], clean(error.get("message"))[:MESSAGE]
    details = error.get("details")
    code = clean(details.get("error_code"))[:200] if isinstance(details, Mapping) else ""
    return Told(code if "spend_limit" in code else kind, message)  # a limit that waiting does not lift


def _arguments(block: _Block, host: str) -> None:
    """Raises BadAnswer where a call's arguments are no JSON object."""
    try:
        found = json.loads(block.text or "{}")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise BadAnswer(f"{host} called {block.head.get('name')!r:.60} with what is no JSON object; ask again.")


def _usage(counts: Mapping[str, int]) -> Usage:
    cached, written = counts.get("cache_read_input_tokens", 0), counts.get("cache_creation_input_tokens", 0)
    return Usage(
        counts.get("input_tokens", 0) + cached + written,
        counts.get("output_tokens", 0),
        cached_tokens=cached,
        reasoning_tokens=counts.get("thinking_tokens", 0),
        written_tokens=written,
    )


def _kind(body: Any) -> str:
    return f"an object of the type {body.get('type')!r:.40}" if isinstance(body, Mapping) else type(body).__name__
