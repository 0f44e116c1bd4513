"""Rows as the JSON lines that hosted tuning learns: conversations and preferences, which is how it is asked then."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from brolly.errors import RecipeError
from brolly.rows.rows import Row, Rows
from brolly.rows.values import Completion, Conversation, Preference, Said

SHAPES = ("chat", "completion", "preference")


@dataclass(frozen=True)
class Lines:
    """JSON lines, how many there are, and what they are learnt by: "supervised" or "dpo"."""

    data: bytes
    n: int
    method: str


def lines(rows: Rows, numbers: Iterable[int] | None = None) -> Lines:
    """The good rows, or those of these numbers; the bad ones are noted in `rows.faults`.

    A prompt becomes a user's turn, what follows it the assistant's. Raises RecipeError.
    """
    if rows.shape not in SHAPES:
        raise RecipeError(
            f"{rows.source} holds rows of the shape {rows.shape!r}; hosted tuning learns {', '.join(SHAPES)}. "
            "Tune a model on this disk, or say --shape."
        )
    good: Iterable[Row] = rows if numbers is None else rows.only(numbers)
    made = [json.dumps(_line(row), ensure_ascii=False).encode("utf-8", "replace") for row in good]
    return Lines(b"\n".join([*made, b""]), len(made), "dpo" if rows.shape == "preference" else "supervised")


def _line(row: Row) -> Mapping[str, Any]:
    value = row.value
    if isinstance(value, Completion):
        return {"messages": [*_turns(value.prompt, "user"), *_turns(value.completion, "assistant")]}
    if isinstance(value, Preference):
        return {
            "input": {"messages": _turns(value.prompt, "user")},
            "preferred_output": _turns(value.chosen, "assistant"),
            "non_preferred_output": _turns(value.rejected, "assistant"),
        }
    assert isinstance(value, Conversation)
    return {"messages": _turns(value.messages, ""), **({"tools": list(value.tools)} if value.tools else {})}


def _turns(said: Said, role: str) -> list[dict[str, Any]]:
    """Messages; a text is one of this role. Calls without an id, and their answers, get one."""
    if isinstance(said, str):
        return [{"role": role, "content": said}]
    found: list[dict[str, Any]] = []
    waiting: list[str] = []
    for message in said:
        turn = {key: value for key, value in message.items() if value is not None or key == "content"}
        if turn.get("tool_calls"):
            turn["tool_calls"] = _named(turn["tool_calls"], len(found))
            waiting = [call["id"] for call in turn["tool_calls"]]
        elif turn["role"] == "tool" and "tool_call_id" not in turn and waiting:
            turn["tool_call_id"] = waiting.pop(0)
        found.append(turn)
    return found


def _named(calls: Sequence[Mapping[str, Any]], turn: int) -> list[dict[str, Any]]:
    return [{"id": f"call_{turn}_{at}", "type": "function", **call} for at, call in enumerate(calls)]
