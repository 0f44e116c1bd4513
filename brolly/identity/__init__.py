"""Header to card: what a model is, how big, whose, under which rules. Standard library only, no torch."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import BinaryIO

from brolly.card import Header
from brolly.checkpoint import read_header
from brolly.errors import CheckpointError, HubError, NotFound, OptionError
from brolly.identity.card import Card
from brolly.identity.subject import Subject
from brolly.place import Place, Where

__all__ = ["Card", "identify"]

CACHED = re.compile(r"models--([\w.-]+?)(?:--([\w.-]+))?$")


def identify(
    reference: str | os.PathLike[str] | Where, *, tokens: float | None = None, flop: float | None = None
) -> Card:
    """The card of a folder, a file, a hub name, a URL, or a name in the table of known models.

    Of what is not on this disk only headers are fetched. `tokens` and `flop` state the training where no file does.
    Raises brolly.errors.BrollyError.
    """
    if isinstance(reference, Place):
        return examine(reference, tokens=tokens, flop=flop)
    text = os.fspath(reference)
    if not text.strip():
        raise OptionError("the model's name is empty; expected a path, org/name, a URL, or the name of a known model.")
    local = Path(text).expanduser()
    if os.path.lexists(local):
        return examine(local, name_of(local), tokens=tokens, flop=flop)
    from brolly import hub

    if hub.looks_local(text):
        raise NotFound(f"{text} does not exist; expected a folder or a file, or a hub name like org/name.")
    if text in hub.minis():
        return examine(hub.MINIS / text, text, tokens=tokens, flop=flop)
    if "/" not in text and (card := from_table(text, tokens=tokens, flop=flop)):
        return card
    return _elsewhere(text, tokens, flop)


def examine(where: Where, name: str | None = None, *, tokens: float | None = None, flop: float | None = None) -> Card:
    """The card of files that are here, in an archive, or behind a store. Raises CheckpointError."""
    if isinstance(where, Path) and os.path.isdir(where / "snapshots") and os.path.isdir(where / "blobs"):
        from brolly.checkpoint.folders import snapshot

        where = snapshot(where) or where
    faults: list[CheckpointError] = []
    header = read_header(where, faults)
    inside = header.path if isinstance(header.path, Place) else where  # an archive was opened
    return Card(Subject(inside, header, faults, name), tokens=tokens, flop=flop)


def name_of(path: Path) -> str | None:
    """org/name, where a path lies in the Hugging Face cache."""
    for part in reversed(path.absolute().parts):
        if matched := CACHED.fullmatch(part):
            return "/".join(p for p in matched.groups() if p)
    return None


def from_table(text: str, *, tokens: float | None = None, flop: float | None = None) -> Card | None:
    """The card of a name alone: what the table of known models says, no files seen."""
    from brolly.identity.known import by_name, in_common

    rows = by_name(text)
    if not rows:
        return None
    row, others = in_common(rows), tuple(row.name for row in rows[:8]) if len(rows) > 1 else ()
    where = Place(Nowhere(row.name))
    card = Card(Subject(where, Header(where, "table", {}), [], None), tokens=tokens, flop=flop)
    card.row, card.others = row, others
    return card


class Nowhere:
    """A store without files, for a model that is known by its name alone."""

    sizes: dict[str, int] = {}

    def __init__(self, title: str) -> None:
        self.title = title

    def open(self, name: str) -> BinaryIO:
        raise NotFound(f"{self.title} has no files here.")


def _is_providers(text: str, card: Card) -> bool:
    """Whether a closed model is asked for as resellers name it: its maker, a slash, its name (openai/gpt-4o)."""
    maker, _, _ = text.lower().partition("/")
    by = re.sub(r"\W", "", (card.row.organization or "").lower()) if card.row and card.row.open == "closed" else ""
    return bool(by) and re.sub(r"\W", "", maker) in (by, by.removesuffix("ai"), f"{by}ai", by.removesuffix("deepmind"))


def _elsewhere(text: str, tokens: float | None, flop: float | None) -> Card:
    """A repository or a file on the hub or anywhere: from the cache if it is there, else by its headers alone."""
    from brolly import hub
    from brolly.identity.known import suggest

    try:
        target = hub.parse(text)
        if isinstance(target, hub.Reference) and (found := hub.in_cache(target)):
            return examine(found, target.repo, tokens=tokens, flop=flop)
        from brolly.ranges import remote

        place, name = remote(target)
        return examine(place, name, tokens=tokens, flop=flop)
    except HubError as error:
        card = from_table(text, tokens=tokens, flop=flop)
        named = [name.lower() for name in card.row.ids] if card and card.row else []
        exact = "/" not in text or text.partition("@")[0].removeprefix("hf://").lower() in named
        if card and (exact or _is_providers(text, card)):
            card.unseen = str(error)
            return card
        raise
    except OptionError:
        close = suggest(text)
        hint = f" Did you mean {' or '.join(close[:3])}?" if close else ""
        raise NotFound(
            f"{text[:120]!r} is no path here, no hub name and not in the table of known models.{hint}"
        ) from None
