"""Which models a server has, and which of them a request means."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from brolly import hub
from brolly.checkpoint import json_object
from brolly.errors import BrollyError, NotFound, OptionError
from brolly.identity import Card, name_of
from brolly.remote import Target, is_remote, parse
from brolly.remote.meant import check
from brolly.remote.target import COMPATIBLE
from brolly.serve.ledger import Share
from brolly.serve.settings import Settings

LATEST = ":latest"  # what Ollama's clients put behind a name


@dataclass(eq=False)
class Entry:
    """One model that is served: its files, its names, and the model itself while it is in memory.

    One that runs elsewhere has a target instead of files, and is always there.
    """

    name: str
    path: Path = Path()
    revision: str = ""  # "bundled", "url", a commit, or nothing for other files
    asked: bool = False  # by name, not found in the cache
    aliases: list[str] = field(default_factory=list)
    adapters: dict[str, Path] = field(default_factory=dict)  # a LoRA's name → its folder, in PEFT's layout
    unsure: set[str] = field(default_factory=set)  # adapters that do not say whose they are
    adapted: dict[str, int] = field(default_factory=dict)  # those that are loaded → their bytes
    created: int = 0  # seconds since 1970
    card: Card | None = None
    fault: str = ""  # why there is no card
    share: Share = field(default_factory=Share)
    model: Any = None  # brolly.model.Model while it is loaded; brolly.serve.elsewhere.Elsewhere
    target: Target | None = None
    loading: asyncio.Task[None] | None = None
    failed: tuple[BrollyError | None, float] = (None, 0.0)  # the last load's error, and when

    @property
    def place(self) -> str:
        """Where it is, as brolly's commands take it."""
        return str(self.target or self.path)

    @property
    def verbs(self) -> tuple[str, ...]:
        """What it can do here; nothing while its card is not read."""
        if self.target is not None:
            return tuple(self.model.verbs)
        return self.card.verbs if self.card is not None else ()

    @property
    def words(self) -> tuple[str, ...]:
        """All that it is called."""
        return (self.name, *self.aliases)


def served(settings: Settings, *, quiet: bool = True) -> tuple[list[Entry], list[str]]:
    """The models of these settings, downloaded where they are not here, and what was odd about their names.

    Raises NotFound, OptionError and the hub's errors.
    """
    if settings.models:
        every = [_given(reference, quiet) for reference in dict.fromkeys(settings.models)]
    else:
        every = [_cached(model) for model in hub.cached() if model.complete]
    found: dict[str, Entry] = {}
    notes: list[str] = []
    for model in every:
        other = found.get(model.name)
        if other and _same(other, model):
            continue
        if other:
            apart = f"{model.target.host}/{model.name}" if model.target else str(model.path)
            notes.append(f"{model.place} and {other.place} have the same name; the first is served as {apart}.")
            model.name = apart
        found[model.name] = model
    for alias, target in settings.alias.items():
        if alias in found:
            raise OptionError(f"the alias {alias!r} is already the name of a model; choose another.")
        find(found.values(), target).aliases.append(alias)
    for entry in found.values():
        entry.created = int(time.time() if entry.target else entry.path.stat().st_mtime)
    for name, folder in settings.adapters.items():
        adopt(found, name, hub.resolve(folder, quiet=quiet))
    for name in settings.pin:
        find(found.values(), name)
    return list(found.values()), notes


def _given(reference: str, quiet: bool) -> Entry:
    if not reference.strip():
        raise OptionError("a model's name is empty; expected a path, org/name, a URL, or a bundled model.")
    if is_remote(reference):
        away = parse(reference)
        # where an address is, is nobody's business but the server's
        name = away.model if away.vendor.name == COMPATIBLE else away.name
        return Entry(name, asked=True, target=away)
    check(reference)
    path = hub.resolve(reference, quiet=quiet)
    if Path(reference).expanduser().exists():
        return Entry(name_of(path) or path.absolute().name, path, asked=True)
    if reference in hub.minis():
        return Entry(reference, path, "bundled", asked=True)
    target = hub.parse(reference)
    if isinstance(target, str):  # a URL
        return Entry(path.name, path, "url", asked=True)
    name = target.repo if target.revision == "main" else f"{target.repo}@{target.revision}"
    return Entry(f"{name}/{target.file}" if target.file else name, path, _commit(path), asked=True)


def _same(a: Entry, b: Entry) -> bool:
    return a.target == b.target if a.target or b.target else a.path.resolve() == b.path.resolve()


def _cached(model: hub.CachedModel) -> Entry:
    if model.bundled:
        return Entry(model.name, model.path, model.revision)
    if model.revision == "url":
        return Entry(model.path.name, model.path, model.revision)
    newest = hub.in_cache(hub.Reference(model.name)) == model.path
    return Entry(model.name if newest else f"{model.name}@{model.revision}", model.path, model.path.name)


def _commit(path: Path) -> str:
    parts = path.parts
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts[:-1] else ""


def adopt(found: Mapping[str, Entry], name: str, folder: Path) -> tuple[list[Entry], str]:
    """Give an adapter to the model that it names, or to the one of its own file, or to all; those, and its short name.

    Raises NotFound, OptionError, CheckpointError.
    """
    settings = folder / "adapter_config.json"
    if not os.path.isfile(settings):  # which says no where Path would raise
        raise OptionError(
            f"the adapter {name!r} is {folder}, which has no adapter_config.json; expected PEFT's layout."
        )
    base, _, short = name.rpartition(":")
    if not short:
        raise OptionError(f"the adapter {name!r} has no name; expected NAME=FOLDER or BASE:NAME=FOLDER.")
    if base:
        bases = [find(found.values(), base)]
    else:
        said = json_object(settings).get("base_model_name_or_path")
        bases = [model for model in found.values() if said == model.place]
        with suppress(NotFound):  # it was trained on a copy of another name; which one fits is told when it is loaded
            bases = bases or ([find(found.values(), said)] if isinstance(said, str) else [])
        if not bases:
            bases = [model for model in found.values() if model.target is None]
            for model in bases:
                model.unsure.add(short)
    for model in bases:
        if model.target:
            raise OptionError(f"{model.name} runs elsewhere and takes no adapter; name a tuned model of its vendor's.")
        if short in model.adapters:
            raise OptionError(f"{model.name} has two adapters called {short!r}; rename one.")
    for model in bases:
        model.adapters[short] = folder
    return bases, short


def find(entries: Iterable[Entry], name: str) -> Entry:
    """The model of a name; where it says an adapter too, `pick` tells which. Raises NotFound."""
    return pick(entries, name)[0]


def pick(entries: Iterable[Entry], name: str) -> tuple[Entry, str | None]:
    """The model that a name means, and the adapter where it is "base:adapter" or an adapter's own. Raises NotFound.

    A name is the model's own or an alias, in any case of letters, without the owner where that is clear, and with a
    revision ("org/name@main") or Ollama's ":latest" behind it.
    """
    entries = list(entries)
    if found := _plain(entries, name):
        return found, None
    base, _, adapter = name.rpartition(":")
    if base and (found := _plain(entries, base)) and adapter in found.adapters:
        return found, adapter
    owners = [entry for entry in entries if name in entry.adapters]
    if len(owners) == 1:
        return owners[0], name
    if owners:
        raise NotFound(f"{name!r} is an adapter of {_few(e.name for e in owners)}; say BASE:{name}.")
    known = {word for e in entries for word in e.words}
    shown = name if len(name) <= 200 else f"{name[:200]}…"
    known |= {f"{e.name}:{a}" for e in entries for a in e.adapters}
    folded = {word.lower(): k for k in known for word in (k, k.rpartition("/")[2])}
    close = list(dict.fromkeys(folded[word] for word in get_close_matches(name[:200].lower(), folded, n=4, cutoff=0.5)))
    hint = f"did you mean {_few(close)}?" if close else f"here are {_few(sorted(known))}." if known else "none is here."
    raise NotFound(f"the model {shown!r} is not served here; {hint}")


def _plain(entries: Sequence[Entry], name: str) -> Entry | None:
    """The model of a name without an adapter. Raises NotFound where several could be meant."""
    for said in dict.fromkeys((name, name.removesuffix(LATEST))):
        if found := _named(entries, said):
            return found
        base, at, revision = said.partition("@")
        if at and (found := _named(entries, base)) and _has(found, revision):
            return found
    return None


def _named(entries: Sequence[Entry], name: str) -> Entry | None:
    for entry in entries:
        if name in entry.words or (entry.target and name == entry.target.name):
            return entry
    folded = name.lower()
    for short in (False, True):
        found = [e for e in entries if any(_fold(word, short) == folded for word in _spelt(e, short))]
        if len(found) == 1:
            return found[0]
        if found:
            raise NotFound(f"{name!r} could be {_few(e.name for e in found)}; say which.")
    return None


def _spelt(entry: Entry, short: bool) -> tuple[str, ...]:
    """What an entry is called; without its vendor too, where names may be short."""
    return (*entry.words, entry.target.model) if short and entry.target else entry.words


def _fold(name: str, short: bool) -> str:
    return name.lower().rpartition("/")[2] if short else name.lower()


def _has(entry: Entry, revision: str) -> bool:
    """Whether an entry's files are this revision: a commit or its beginning, or the name of a branch or a tag."""
    if len(revision) >= 7 and entry.revision.startswith(revision):
        return True
    if entry.revision in ("", "bundled", "url"):
        return revision == "main" and entry.revision == "bundled"
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)*", revision) or ".." in revision:
        return False
    cache = next((parent.parent for parent in entry.path.parents if parent.name == "snapshots"), None)
    named = cache / "refs" / revision if cache else None
    return named is not None and named.is_file() and named.read_text().strip() == entry.revision


def _few(names: Iterable[str], most: int = 6) -> str:
    listed = list(names)
    return ", ".join(listed[:most]) + (" …" if len(listed) > most else "")
