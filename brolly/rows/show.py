"""Rows for a person's eyes, before anything is done with them."""

from __future__ import annotations

from pathlib import Path

from brolly.errors import RecipeError
from brolly.identity.show import clean
from brolly.rows.rows import Row, Rows
from brolly.rows.shapes import listed, told
from brolly.rows.values import (
    Captioned,
    Completion,
    Conversation,
    Judged,
    Labelled,
    Pair,
    Preference,
    Prompted,
    Spoken,
    Text,
    said,
)

WIDTH, LABEL, MOST_FAULTS, FAULT = 100, 12, 10, 400  # columns; faults told, and letters of one


def preview(rows: Rows, most: int = 3) -> str:
    """What the rows are, how many, which are bad and why, and the first `most`: reads every row once."""
    rows.check()
    n_bad = rows.n_bad
    lines = [f"{clean(rows.source)}: {len(rows):,} rows of the shape {rows.shape!r}"]
    lines.append(_line("columns", told(rows.columns)))
    first = next(iter(rows))
    taken = {*rows.columns.values(), *rows._found.negatives}
    if others := [str(name) for name in first.fields if name not in taken]:
        lines.append(_line("not used", listed(others)))
    lines += [_line("", note) for note in rows.notes]
    lines.append(_line("good", f"{len(rows) - n_bad:,}"))
    if n_bad:
        lines.append(_line("bad", f"{n_bad:,}"))
        lines += [f"  {'':{LABEL}}  {clean(str(fault)[:FAULT])}" for fault in rows.faults[:MOST_FAULTS]]
        if n_bad > MOST_FAULTS:
            lines.append(_line("", f"and {n_bad - MOST_FAULTS:,} more"))
    for row, _ in zip(rows, range(most), strict=False):
        lines.append("")
        lines.append(f"  {clean(row.where)}")
        lines += [_line(name, text) for name, text in parts(row)]
    return "\n".join(lines) + "\n"


def _line(name: str, text: str) -> str:
    room = WIDTH - LABEL - 4
    text = clean(text[: 4 * WIDTH].replace("\n", "⏎"))
    return f"  {name:{LABEL}}  {text if len(text) <= room else text[: room - 1] + '…'}".rstrip()


def parts(row: Row) -> list[tuple[str, str]]:
    """A row's parts by name, as texts."""
    match row.value:
        case Text(text):
            return [("text", text)]
        case Completion(prompt, completion):
            return [("prompt", prompt), ("completion", completion)]
        case Conversation(messages, tools):
            found = [(str(m["role"]), _message(m)) for m in messages]
            return found + ([("tools", f"{len(tools)}")] if tools else [])
        case Preference(prompt, chosen, rejected):
            return [("prompt", said(prompt)), ("chosen", said(chosen)), ("rejected", said(rejected))]
        case Judged(prompt, completion, good):
            return [("prompt", said(prompt)), ("good" if good else "bad", said(completion))]
        case Prompted(prompt):
            return [("prompt", said(prompt))]
        case Pair(query, positive, negatives, also):
            found = [("query", query), *(("positive", text) for text in (positive, *also))]
            return found + [("negative", text) for text in negatives[:3]]
        case Captioned(image, text):
            return [("image", _file(image)), ("text", text)]
        case Labelled(given, label):
            return [("input", given if isinstance(given, str) else _file(given)), ("label", label)]
        case Spoken(audio, text, language):
            return [("audio", _file(audio)), ("text", text), *([("language", language)] if language else [])]
    raise RecipeError(f"{row.where} holds {type(row.value).__name__}")


def _message(message: object) -> str:
    assert isinstance(message, dict)
    calls = ", ".join(str(c.get("function", {}).get("name", "?")) for c in message.get("tool_calls") or ())
    unlearnt = "  (not learnt)" if message.get("weight", 1) == 0 else ""
    return (message.get("content") or "") + (f"  calls {calls}" if calls else "") + unlearnt


def _file(given: Path | bytes) -> str:
    return f"{len(given):,} bytes" if isinstance(given, bytes) else str(given)
