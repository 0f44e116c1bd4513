"""Files that go with a question: parts of a message where a model runs elsewhere, text before the prompt where here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from brolly.errors import OptionError
from brolly.remote.content import file_part, read

KINDS = {"image_url": "a picture", "input_audio": "a sound", "file": "a PDF"}


def attached(path: str | Path, model: Any) -> Mapping[str, Any]:
    """A file as a part of a message. Raises NotFound, MediaError; OptionError at a kind that is not read."""
    path = Path(path).expanduser()
    part = file_part(read(path), path.name)
    target = getattr(model, "target", None)
    if part["type"] == "text":
        return part
    what = KINDS[part["type"]]
    if target is None:
        raise OptionError(
            f"{path} is {what}; {model.card.header.path} reads text. Attach a text, or name a model that reads it."
        )
    reads, kind = model.traits.reads, {"image_url": "image", "input_audio": "audio", "file": "pdf"}[part["type"]]
    if reads and kind not in reads:
        raise OptionError(f"{path} is {what}; {target} reads {', '.join(('text', *reads))}.")
    return part


def content(parts: Sequence[Mapping[str, Any]], text: str) -> Any:
    """Files and the question behind them as a message's content: one text where all of them are texts."""
    if all(part["type"] == "text" for part in parts):
        return "\n\n".join([*(part["text"] for part in parts), *([text] if text else [])])
    return [*parts, *([{"type": "text", "text": text}] if text else [])]
