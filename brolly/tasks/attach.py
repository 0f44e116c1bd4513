"""Files that go with a question: parts of a message where a model runs elsewhere, text before the prompt where here."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from brolly.errors import OptionError
from brolly.remote.content import file_part, read

KINDS = {"image_url": ("image", "a picture"), "input_audio": ("audio", "a sound"), "file": ("pdf", "a PDF")}


def attached(path: str | Path, name: str, reads: Collection[str] | None) -> Mapping[str, Any]:
    """A file as a part of a message to the model called `name`, which reads these kinds beside text; None: who knows.

    Raises NotFound, MediaError; OptionError at a kind that is not read.
    """
    path = Path(path).expanduser()
    part = file_part(read(path), path.name)
    if part["type"] == "text" or reads is None:
        return part
    kind, what = KINDS[part["type"]]
    if kind not in reads:
        raise OptionError(
            f"{path} is {what}; {name} reads {', '.join(('text', *reads))}. Name a model that reads {what} as well."
        )
    return part


def reads_of(model: Any) -> tuple[str, Collection[str] | None]:
    """What a model is called, and what it reads beside text, as `attached` takes it; models on this disk read text."""
    if target := getattr(model, "target", None):
        return str(target), model.traits.reads or None
    return str(model.card.header.path), ()


def within_budget(model: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with a max_tokens that a budget pays for, where none is said and the model could write more than that."""
    budget, least = getattr(model, "budget", None), 16
    paid = budget.pays(model.price) if budget and options.get("max_tokens") is None else None
    if paid is None or paid < least or paid >= (model.traits.max_output or paid + 1):
        return dict(options)
    return {**options, "max_tokens": paid}


def content(parts: Sequence[Mapping[str, Any]], text: str) -> Any:
    """Files and the question behind them as a message's content: one text where all of them are texts."""
    if all(part["type"] == "text" for part in parts):
        return "\n\n".join([*(part["text"] for part in parts), *([text] if text else [])])
    return [*parts, *([{"type": "text", "text": text}] if text else [])]
