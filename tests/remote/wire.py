"""Asks put to a dialect without a client: what it sends, and what it makes of an answer."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
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


@cache
def client() -> Any:
    import httpx

    return httpx.Client(trust_env=False, verify=False, timeout=20)


def posted(url: str, body: Any, key: str) -> Any:
    return client().post(url, json=body, headers={"authorization": f"Bearer {key}"})


def put(dialect: Any, ask: Ask, target: Target, key: str) -> list[Piece]:
    """An ask sent to a fake, and its pieces."""
    call = dialect.call(ask, target)
    reply = posted(target.base + call.path, call.body, key)
    assert reply.status_code == 200, reply.text
    if ask.stream:
        return read(dialect, ask, target, events_of(reply.content))
    found: list[Piece] = dialect.whole(reply.json(), ask, target)
    return found


# Hostile answers ------------------------------------------------------------------------------------------------------

ODD: list[Any] = [
    None, True, False, 0, -1, 1 << 70, 1.5, float("nan"), float("inf"), "", "x", "\ud800", "stop", [], [[]], [None], {},
    {"": {}}, [{}], {"a": [1]}, 10**3000,
]  # fmt: skip


def paths(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [here]
    if isinstance(value, dict):
        for key in value:
            found += paths(value[key], (*here, key))
    elif isinstance(value, list):
        for at, one in enumerate(value):
            found += paths(one, (*here, at))
    return found


def changed(value: Any, path: tuple[Any, ...], odd: Any, drop: bool) -> Any:
    made = copy.deepcopy(value)
    if not path:
        return odd
    inner = made
    for step in path[:-1]:
        inner = inner[step]
    if drop:
        del inner[path[-1]]
    else:
        inner[path[-1]] = odd
    return made


def mutants(value: Any, seed: int, most: int) -> list[Any]:
    """The value with one place changed or left out: all of them, or so many by chance."""
    every = [(path, odd, drop) for path in paths(value) for odd, drop in [*((odd, False) for odd in ODD), (None, True)]]
    every = [one for one in every if one[0] or not one[2]]
    chosen = every if len(every) <= most else random.Random(seed).sample(every, most)
    return [changed(value, *one) for one in chosen]
