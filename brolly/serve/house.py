"""The models of one server: found by name, loaded when asked for, kept within the memory, given back when idle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from brolly import hub
from brolly.errors import NotFound, UnsupportedTask
from brolly.identity import Card, examine
from brolly.serve.settings import Settings


@dataclass
class Entry:
    """One model that is served."""

    name: str
    path: Path
    aliases: list[str] = field(default_factory=list)
    model: Any = None  # brolly.model.Model once loaded
    card: Card | None = None
    created: int = 0  # seconds since 1970
    loading: asyncio.Task[Any] | None = None


@dataclass(frozen=True)
class Use:
    """A model in use: it is not unloaded before the use ends."""

    name: str  # as the request said it
    entry: Entry
    model: Any
    adapter: str | None = None  # of "base:adapter"


class House:
    """SKELETON: loads on demand and never unloads. Its methods are called on the event loop and never block it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.entries: dict[str, Entry] = {}
        for reference in settings.models or hub.minis():
            self.entries[reference] = Entry(reference, hub.resolve(reference))

    async def start(self) -> None:
        """Find what is served and load what is pinned."""

    async def close(self) -> None:
        """Unload everything."""

    def find(self, name: str) -> tuple[Entry, str | None]:
        """The entry of a name, an alias or "base:adapter", and the adapter. Raises NotFound."""
        name = self.settings.alias.get(name, name)
        if name not in self.entries:
            raise NotFound(f"the model {name!r:.200} is not served here; GET /v1/models lists those that are.")
        return self.entries[name], None

    def card(self, entry: Entry) -> Card:
        """What identify tells of it, without loading it."""
        if entry.card is None:
            entry.card = examine(entry.path)
        return entry.card

    @asynccontextmanager
    async def use(self, name: str, verb: str, priority: int = 0) -> AsyncIterator[Use]:
        """The model of a name, loaded, and kept while in use. Raises NotFound, UnsupportedTask, Busy, load's errors."""
        entry, adapter = self.find(name)
        if entry.loading is None:
            entry.loading = asyncio.ensure_future(asyncio.to_thread(self._load, entry))
        model = await asyncio.shield(entry.loading)
        if verb not in model.card.verbs:
            raise UnsupportedTask(f"{entry.name} can {', '.join(model.card.verbs)}; it cannot {verb}.")
        yield Use(name, entry, model, adapter)

    def _load(self, entry: Entry) -> Any:
        from brolly.loader import load

        entry.model = load(entry.path, device=self.settings.device, dtype=self.settings.dtype)
        entry.card = entry.model.card
        return entry.model
