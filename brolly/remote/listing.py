"""Which models a vendor has: asked page by page, then kept in the user's cache for an hour."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from brolly.errors import BadAnswer, NotFound, OptionError
from brolly.remote import loop
from brolly.remote.dialect import Listed, dialects
from brolly.remote.keys import origin_of
from brolly.remote.meant import no_vendor
from brolly.remote.target import COMPATIBLE, Target
from brolly.remote.traits import traits_of
from brolly.remote.vendors import vendors
from brolly.verbs import RemoteOptions

HOUR = 3600.0  # seconds for which a list is believed
PAGES, MOST = 100, 50_000  # of a list; models
NAME, NAMES = 300, 20  # characters of a model's name; verbs
KEPT_BYTES = 32 << 20  # of a list in the cache
LATEST = 1 << 37  # seconds since 1970, until which a day can be told; no context is as long
CLOSE = 2000  # names that are looked through for one like a wrong one


def source_of(reference: str) -> Target:
    """Whose list openai:, openai or https://host/v1 means; a model behind it is left out. Raises OptionError."""
    head, colon, _ = reference.partition(":")
    if colon and head in ("http", "https"):
        base = reference.partition("#")[0].rstrip("/")
        origin_of(base)
        if "?" in base:
            raise OptionError(f"{base.partition('?')[0]!r:.120} has a query behind it; expected https://host/v1.")
        return Target(base, vendors()[COMPATIBLE], base, "")
    vendor = vendors().get(head)
    if vendor is None or head == COMPATIBLE:
        raise no_vendor(head)
    return Target(f"{head}:", vendor, vendor.address(), "")


def reference_of(source: Target, id: str) -> str:
    """What `brolly run` calls a model of a list."""
    return f"{source.base}#{id}" if source.vendor.name == COMPATIBLE else f"{source.vendor.name}:{id}"


def models(source: Target, *, refresh: bool = False) -> list[Listed]:
    """The vendor's models by name: from the cache, if it is fresh. Raises RemoteError's kinds, UnsupportedTask."""
    if not refresh and (found := cached(source)) is not None:
        return found
    return loop.wait(ask(source))


async def ask(source: Target, manners: RemoteOptions | None = None) -> list[Listed]:
    """The same from the vendor itself; it is then in the cache."""
    from brolly.remote.client import Client

    (dialect, *_) = dialects(source, "list")
    client = Client(source, manners or RemoteOptions())
    found: dict[str, Listed] = {}
    after, seen = "", {""}
    try:
        for _ in range(PAGES):
            rows, after = dialect.listed(await client.json(dialect.models(source, after), dialect.told))
            found |= {row.id: _told(source, row) for row in rows if 0 < len(row.id) <= NAME and row.id.isprintable()}
            if after in seen:
                break
            if len(found) > MOST:
                raise BadAnswer(f"{source.host} lists more than {MOST:,} models; expected fewer.")
            seen.add(after)
        else:
            raise BadAnswer(f"{source.host} has more than {PAGES} pages of models; expected fewer.")
    except NotFound:
        raise NotFound(f"{source.host} has no list of models; is its address {source.base}?") from None
    finally:
        await client.aclose()
    listed = sorted(found.values(), key=lambda row: row.id)
    keep(source, listed)
    return listed


def _told(source: Target, row: Listed) -> Listed:
    """A row with what the table of traits has and the vendor does not tell."""
    traits = traits_of(Target(source.name, source.vendor, source.base, row.id))
    created, context = (n if n is not None and 0 <= n < LATEST else None for n in (row.created, row.context))
    title = row.title if row.title.isprintable() else ""
    return Listed(row.id, title[:NAME], created, context or traits.context, (row.verbs or traits.verbs)[:NAMES])


def folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "brolly" / "models"


def _file(source: Target) -> Path:
    name = hashlib.sha256(f"{source.vendor.name} {source.base}".encode()).hexdigest()[:32]
    return folder() / f"{name}.json"


def cached(source: Target, age: float = HOUR) -> list[Listed] | None:
    """What was listed in the last `age` seconds; None where nothing is kept, or what is kept cannot be read."""
    try:
        with _file(source).open("rb") as file:
            data = file.read(KEPT_BYTES + 1)
        kept: Any = json.loads(data) if len(data) <= KEPT_BYTES else None
        if (kept["vendor"], kept["base"]) != (source.vendor.name, source.base):
            return None
        if not 0 <= time.time() - float(kept["time"]) <= age:
            return None
        return [_row(*row) for row in kept["models"][:MOST]]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _row(id: str, title: str, created: int | None, context: int | None, verbs: list[str]) -> Listed:
    for text in (id, title, *verbs):
        if not isinstance(text, str) or len(text) > NAME:
            raise ValueError("no name")
    for number in (created, context):
        if number is not None and (type(number) is not int or not 0 <= number < LATEST):
            raise ValueError("no number")
    return Listed(id, title, created, context, tuple(verbs[:NAMES]))


def keep(source: Target, listed: list[Listed]) -> None:
    """Into the cache, in one step; a disk that cannot be written keeps nothing."""
    kept = {"vendor": source.vendor.name, "base": source.base, "time": time.time(), "models": listed[:MOST]}
    try:
        folder().mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=folder(), suffix=".part", delete=False, encoding="utf-8") as file:
            json.dump(kept, file)
        os.replace(file.name, _file(source))
    except OSError:
        return


def hint(target: Target) -> str:
    """Models like the one that was not found, by what the cache has of any age, as the end of a sentence."""
    names = [row.id for row in (cached(target, float("inf")) or ())[:CLOSE]]
    close = get_close_matches(target.model[:NAME], names, n=3, cutoff=0.6)
    if close:
        return f"perhaps {' or '.join(reference_of(target, id) for id in close)} is meant"
    whose = target.base if target.vendor.name == COMPATIBLE else f"{target.vendor.name}:"
    return f"`brolly list {whose}` tells what it has"
