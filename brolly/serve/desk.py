"""The desk of one server: its store of responses and conversations, and the responses that nobody waits for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from fastapi import Request

from brolly.errors import OptionError
from brolly.serve.account import current
from brolly.serve.errors import Refused
from brolly.serve.files import Files
from brolly.serve.settings import Settings
from brolly.serve.store import Conversation, Store, Stored, state_folder

log = logging.getLogger("brolly.serve")


class Writing(Protocol):
    """A response that is written in the background."""

    owner: str
    task: asyncio.Task[None] | None

    @property
    def stored(self) -> Stored: ...


class Desk:
    """Where responses are kept: the store, opened when first needed, and those that are written in the background."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.running: dict[str, Writing] = {}
        self._store: Store | None = None
        self._files: Files | None = None
        self._opening = asyncio.Lock()

    @property
    def folder(self) -> Path:
        """Where all that is kept lies."""
        return self.settings.store or state_folder()

    async def files(self) -> Files:
        """What clients uploaded. Raises Refused where nothing can be kept."""
        async with self._opening:
            if self._files is None:
                try:
                    self._files = await asyncio.to_thread(Files, self.folder / "files", self.settings.files_bytes)
                except OSError as error:
                    log.error("%s", error)
                    raise Refused("This server cannot keep files now.", 503, "server_error") from error
        return self._files

    async def store(self) -> Store:
        """The store. Raises Refused where there can be none."""
        async with self._opening:
            if self._store is None:
                limits = self.settings.store_bytes, self.settings.store_days
                try:
                    self._store = await asyncio.to_thread(Store, self.folder, *limits)
                except OptionError as error:
                    log.error("%s", error)
                    text = "This server cannot store responses now; set store to false."
                    raise Refused(text, 503, "server_error", param="store") from error
        return self._store

    async def find(self, id: str, owner: str) -> Stored:
        """A response that is being written or was stored. Raises Refused."""
        if (writing := self.running.get(id)) is not None and writing.owner == owner:
            return writing.stored
        found = await asyncio.to_thread((await self.store()).get, id, owner)
        if found is None:
            raise Refused(f"Response with id '{id:.80}' not found.", 404, param="id")
        return found

    async def conversation(self, id: str, owner: str) -> Conversation:
        """A conversation. Raises Refused."""
        found = await asyncio.to_thread((await self.store()).conversation, id, owner)
        if found is None:
            raise Refused(f"Conversation with id '{id:.80}' not found.", 404, param="conversation")
        return found

    async def close(self) -> None:
        """Let what is being written end, as long as the server may take; then tell the rest that it was stopped."""
        writing = [one.task for one in self.running.values() if one.task]
        if writing:
            _, late = await asyncio.wait(writing, timeout=self.settings.shutdown_seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        if self._store is not None:
            await asyncio.to_thread(self._store.close)


def desk(request: Request) -> Desk:
    found: Desk = request.app.state.desk
    return found


def owner_of(request: Request) -> str:
    """Whose responses a request may see: its key's, where there are keys."""
    account = current.get()
    return account.owner if account is not None else ""


def page_of(items: Sequence[dict[str, Any]], after: str | None, limit: int, order: str) -> dict[str, Any]:
    """So many of the items that come after one of them. Raises Refused."""
    items = items if order == "asc" else items[::-1]
    if after is not None:
        places = [at for at, item in enumerate(items) if item["id"] == after]
        if not places:
            raise Refused(f"There is no item {after!r:.80} to begin after.", param="after")
        items = items[places[0] + 1 :]
    page = items[:limit]
    ends = {"first_id": page[0]["id"] if page else None, "last_id": page[-1]["id"] if page else None}
    return {"object": "list", "data": page, **ends, "has_more": len(items) > limit}
