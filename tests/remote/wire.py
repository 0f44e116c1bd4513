"""Asks put to a dialect without a client: what it sends, and what it makes of an answer."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from brolly.remote.ask import Ask
from brolly.remote.content import messages_of, tools_of
from brolly.remote.target import Target, parse
from brolly.verbs import GenerateOptions, Generation, Piece, gather

CITY = {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False,
}  # fmt: skip
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "description": "What it is like outside.", "parameters": CITY, "strict": True},
}
PNG = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)
PDF = "data:application/pdf;base64,JVBERi0xLjQK"


def target_of(reference: str = "openai:gpt-4.1", base: str = "https://api.example.test/v1", **vendor: Any) -> Target:
    """A target; `vendor` are fields of its vendor's row."""
    found = parse(reference)
    return replace(found, base=base, vendor=replace(found.vendor, **vendor))


def ask_of(
    messages: str | list[Any], *, tools: Iterable[Any] = (), tool_choice: Any = "auto", parallel: bool = True,
    n: int = 1, stream: bool = False, extra: Any = None, template: Any = None, strict: bool = False, **options: Any,
) -> Ask:  # fmt: skip
    rows = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
    return Ask(
        messages=messages_of(rows), options=GenerateOptions(**options), choice=tool_choice,
        tools=tools_of(tools, tool_choice),
        parallel=parallel, n=n, stream=stream, extra=extra or {}, template=template or {}, strict=strict,
    )  # fmt: skip


def events_of(data: bytes) -> list[tuple[str, Any]]:
    """The events of a stream that is known to be sound."""
    found = []
    for block in data.decode().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if "data" in lines:
            text = lines["data"]
            found.append((lines.get("event", ""), text if text == "[DONE]" else json.loads(text)))
    return found


def read(dialect: Any, ask: Ask, target: Target, events: Iterable[tuple[str, Any]]) -> list[Piece]:
    reader = dialect.reader(ask, target)
    found = [piece for name, data in events for piece in reader.push(name, data)]
    return [*found, *reader.end()]


def answer_of(pieces: list[Piece], index: int = 0) -> Generation:
    """One of the answers; each has one end, behind all its pieces."""
    own = [piece for piece in pieces if piece.index == index]
    assert [piece.finish_reason is not None for piece in own] == [False] * (len(own) - 1) + [True]
    return gather(own, True)


def put(dialect: Any, ask: Ask, target: Target, key: str) -> list[Piece]:
    """An ask sent to a fake, and its pieces."""
    import httpx

    call = dialect.call(ask, target)
    reply = httpx.post(target.base + call.path, json=call.body, headers={"authorization": f"Bearer {key}"}, timeout=20)
    assert reply.status_code == 200, reply.text
    if ask.stream:
        return read(dialect, ask, target, events_of(reply.content))
    found: list[Piece] = dialect.whole(reply.json(), ask, target)
    return found
