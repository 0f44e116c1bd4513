"""Vector stores: folders of uploaded files with an index each, made by `brolly index` in a process of its own.

A shelf is a folder: about.json as clients see it, its documents (documents/FILE-ID/name), and their index.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from fastapi import FastAPI

from brolly.errors import BrollyError, DiskFull, MediaError, OptionError
from brolly.serve.child import ended, started
from brolly.serve.errors import Refused
from brolly.serve.files import Files, linked
from brolly.serve.turns import Turns, turns_of

log = logging.getLogger("brolly.serve")

ABOUT, DOCUMENTS, INDEX = "about.json", "documents", "index"
MOST_FILES, MOST_BATCHES = 10_000, 1000  # of a store
INDEXED, READ = 2, 2  # stores that are indexed at once, and files whose text is read at once: each a process
QUESTION = 8192  # characters of a question that are looked up
NAME = 120  # bytes of a file's name that are kept
DAY = 86400


@dataclass
class Shelf:
    """One vector store. `files` are its files as clients see them, by id; `names` what each is called."""

    folder: Path
    told: dict[str, Any]
    owner: str
    embedder: str
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    batches: dict[str, list[str]] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)  # of what lies on the disk
    task: asyncio.Task[None] | None = None
    wanted: int = 0  # how often its files changed,
    done: int = 0  # and what of it is indexed

    @property
    def id(self) -> str:
        return str(self.told["id"])

    def counts(self, ids: Sequence[str] | None = None) -> dict[str, int]:
        found = dict.fromkeys(("in_progress", "completed", "failed", "cancelled", "total"), 0)
        for id in self.files if ids is None else ids:
            if id in self.files:
                found[self.files[id]["status"]] += 1
                found["total"] += 1
        return found

    def body(self) -> dict[str, Any]:
        """As clients see it."""
        counts, expires = self.counts(), self.told["expires_after"]
        at = self.told["last_active_at"] + expires["days"] * DAY if expires else None
        status = "expired" if at and at < time.time() else "in_progress" if counts["in_progress"] else "completed"
        used = sum(one["usage_bytes"] for one in self.files.values())
        return self.told | {"file_counts": counts, "status": status, "usage_bytes": used, "expires_at": at}

    @property
    def expired(self) -> bool:
        return bool(self.body()["status"] == "expired")

    async def keep(self) -> None:
        """Onto the disk, whole or as it was: as it is now, whatever changes while it is written."""
        async with self.lock:
            about: dict[str, Any] = {"told": dict(self.told), "owner": self.owner, "embedder": self.embedder}
            about |= {"files": {id: dict(one) for id, one in self.files.items()}}
            about |= {"names": dict(self.names), "batches": dict(self.batches)}
            await asyncio.to_thread(self._write, about)

    def _write(self, about: Mapping[str, Any]) -> None:
        part = self.folder / f".{uuid4().hex}.part"  # its own: one who leaves does not stop who writes for them
        try:
            part.write_text(json.dumps(about), "utf-8")
            os.replace(part, self.folder / ABOUT)
        except FileNotFoundError:  # the store was deleted meanwhile
            raise Refused(f"Vector store with id '{self.id}' not found.", 404, param="vector_store_id") from None
        except OSError as error:
            raise DiskFull(f"the vector store could not be kept ({error.strerror}).") from None
        finally:
            part.unlink(missing_ok=True)


@dataclass(frozen=True)
class Passage:
    """A stretch of a file that was found."""

    file_id: str
    filename: str
    text: str
    score: float  # the cosine of its vector and the question's, 0 to 1
    attributes: dict[str, Any]
    hit: Any


class Shelves:
    """The vector stores of one server. Its methods are called on the event loop."""

    def __init__(self, folder: Path, app: FastAPI) -> None:
        self.folder, self.app = folder, app
        self.shelves: dict[str, Shelf] = {}
        self._indexing, self._reading = asyncio.Semaphore(INDEXED), asyncio.Semaphore(READ)

    def open(self) -> None:
        """Find the stores of earlier runs; what was not indexed yet goes on."""
        for left in self.folder.glob(".vs_*"):  # of a deletion that was cut off
            shutil.rmtree(left, ignore_errors=True)
        for path in self.folder.glob(f"vs_*/{ABOUT}"):
            with suppress(OSError, ValueError, TypeError, KeyError):
                shelf = Shelf(path.parent, **json.loads(path.read_text("utf-8")))
                self.shelves[shelf.id] = shelf
                if shelf.counts()["in_progress"]:
                    self._follow(shelf)

    async def close(self) -> None:
        """Stop what is being indexed; an index stays whole, and goes on with the next start."""
        tasks = [shelf.task for shelf in self.shelves.values() if shelf.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def create(self, told: dict[str, Any], owner: str, embedder: str | None) -> Shelf:
        """An empty store. Raises Refused where nothing here embeds texts."""
        id, now = f"vs_{uuid4().hex}", int(time.time())
        head = {"id": id, "object": "vector_store", "created_at": now, "last_active_at": now}
        if embedder is None:
            embedder = await asyncio.to_thread(self._embedder)
        shelf = Shelf(self.folder / id, head | told, owner, embedder)
        try:
            (shelf.folder / DOCUMENTS).mkdir(parents=True, mode=0o700)
        except OSError as error:
            raise DiskFull(f"the vector store could not be made ({error.strerror}).") from None
        await shelf.keep()
        self.shelves[id] = shelf
        return shelf

    def find(self, id: str, owner: str) -> Shelf:
        """A store of this owner's. Raises Refused."""
        shelf = self.shelves.get(id)
        if shelf is None or shelf.owner != owner:
            raise Refused(f"Vector store with id '{id:.80}' not found.", 404, param="vector_store_id")
        return shelf

    async def drop(self, shelf: Shelf) -> None:
        """Forget a store and its documents; the files that were uploaded stay."""
        self.shelves.pop(shelf.id, None)
        gone = self.folder / f".{shelf.id}"
        with suppress(OSError):
            os.rename(shelf.folder, gone)  # at once, whatever happens to whom it is told
        if shelf.task:
            shelf.task.cancel()
            await asyncio.gather(shelf.task, return_exceptions=True)
        await asyncio.to_thread(shutil.rmtree, gone, True)

    async def add(self, shelf: Shelf, files: Files, ids: Sequence[str], attributes: Mapping[str, Any]) -> None:
        """Put files onto a shelf; they can be found when they are indexed. Raises Refused."""
        if len(shelf.files) + len(ids) > MOST_FILES:
            raise Refused(f"A vector store holds {MOST_FILES:,} files at most.", param="file_ids")
        found = [await asyncio.to_thread(files.get, id, shelf.owner) for id in ids]
        used = sum(one["usage_bytes"] for other in self.shelves.values() for one in other.files.values())
        if used + sum(about["bytes"] for about in found if about["id"] not in shelf.files) > files.most_bytes:
            text = f"The vector stores here would hold more than {files.most_bytes:,} bytes; delete some."
            raise Refused(text, 413, param="file_ids")
        for about in found:
            id = about["id"]
            name = name_of(about["filename"])
            place = shelf.folder / DOCUMENTS / id
            await asyncio.to_thread(_put, files.path(id, shelf.owner), place, name)
            shelf.names[id] = name
            shelf.files[id] = {
                "id": id, "object": "vector_store.file", "created_at": int(time.time()), "last_error": None,
                "status": "in_progress", "usage_bytes": about["bytes"], "vector_store_id": shelf.id,
                "attributes": dict(attributes), "chunking_strategy": {"type": "other"},
            }  # fmt: skip
        await shelf.keep()
        self._follow(shelf)

    async def remove(self, shelf: Shelf, id: str) -> None:
        """Take a file off a shelf. Raises Refused."""
        self.file(shelf, id)
        shelf.files.pop(id)
        shelf.names.pop(id, None)
        await asyncio.to_thread(shutil.rmtree, shelf.folder / DOCUMENTS / id, True)
        await shelf.keep()
        self._follow(shelf)

    def file(self, shelf: Shelf, id: str) -> dict[str, Any]:
        """A file of a shelf. Raises Refused."""
        if id not in shelf.files:
            raise Refused(f"No file found with id '{id:.80}' in vector store '{shelf.id}'.", 404, param="file_id")
        return shelf.files[id]

    async def search(
        self, shelves: Sequence[Shelf], question: str, most: int, allows: Any = None, least: float = 0.0
    ) -> list[Passage]:
        """The likeliest passages of some stores, the best first; `allows` says of a file's attributes whether it may be
        seen. Raises Refused, NotFound, OptionError."""
        found: list[Passage] = []
        question = question[:QUESTION]
        for shelf in shelves:
            if shelf.expired:
                raise Refused(f"Vector store with id '{shelf.id}' has expired.", param="vector_store_id")
            shelf.told["last_active_at"] = int(time.time())
            seen = [id for id, one in shelf.files.items() if allows is None or allows(one["attributes"])]
            if not seen or not (shelf.folder / INDEX).is_dir():
                continue
            async with self.app.state.house.use(shelf.embedder, "embed") as use:
                work = partial(_search, shelf, use.model, question, most, seen)
                hits = await self._turns(use.model).run(work)
            for hit in hits:
                id = hit.name.partition("/")[0]
                if id in seen and id in shelf.files:  # not one that was taken off meanwhile
                    score = min(max(hit.cosine or 0.0, 0.0), 1.0)
                    attributes = shelf.files[id]["attributes"]
                    found.append(Passage(id, shelf.names[id], hit.text, score, attributes, hit))
        if len(shelves) > 1:
            found.sort(key=lambda one: -one.score)
        return [one for one in found if one.score >= least][:most]

    async def text(self, shelf: Shelf, id: str) -> str:
        """What a file says, as it is indexed. Raises Refused."""
        self.file(shelf, id)
        async with self._reading:
            return await asyncio.to_thread(self._text, shelf, id)

    def _text(self, shelf: Shelf, id: str) -> str:
        from brolly.adapt.retrieve.child import Reader
        from brolly.adapt.retrieve.files import KIND_OF, Found, read

        name = shelf.names[id]
        path = shelf.folder / DOCUMENTS / id / name
        try:
            with Reader() as reader:
                found = Found(name, path, KIND_OF.get(path.suffix.lower(), "text"), path.stat().st_size, 0)
                document = read(found, reader)
        except (MediaError, OSError) as error:
            why = str(error).replace(str(path), name) if isinstance(error, MediaError) else f"{name} cannot be read."
            raise Refused(why, param="file_id", code="invalid_file") from None
        return document.text if document else ""

    def _turns(self, model: Any) -> Turns:
        return turns_of(model, self.app.state.settings.waiting)

    def _embedder(self) -> str:
        """Which of the models here embeds texts. Raises Refused."""
        house = self.app.state.house
        names = sorted(house.entries, key=lambda name: name != "mini-embed")
        for name in names:
            with suppress(Exception):
                card = house.card(house.entries[name])
                away = house.entries[name].target  # which costs, so it is named or not used
                if "embed" in card.verbs and "classify" not in card.verbs and away is None:
                    return str(name)
        raise Refused("No model here embeds texts; serve one, such as mini-embed.", param="embedding_model")

    def _follow(self, shelf: Shelf) -> None:
        """Index what a shelf holds now, behind what is being indexed; changes that come meanwhile, all at once."""
        shelf.wanted += 1
        if shelf.task is None or shelf.task.done():
            shelf.task = asyncio.create_task(self._work(shelf))

    async def _work(self, shelf: Shelf) -> None:
        async with self._indexing:
            while shelf.done < shelf.wanted:
                shelf.done = shelf.wanted
                await self._index(shelf)

    async def _index(self, shelf: Shelf) -> None:
        waiting = [id for id, one in shelf.files.items() if one["status"] == "in_progress"]
        faults: dict[str, str] = {}
        error = ""
        try:
            error = await self._indexed(shelf)
            if not error:
                faults = await asyncio.to_thread(_faults, shelf)
        except Exception as fault:  # whatever it is, nobody waits for ever
            error = str(fault) or type(fault).__name__
        if self.shelves.get(shelf.id) is not shelf:
            return
        if error:
            log.error("%s could not be indexed: %s", shelf.id, error)
        for id in waiting:
            if (one := shelf.files.get(id)) is None:
                continue
            why = "it could not be indexed" if error else faults.get(f"{id}/{shelf.names[id]}")
            code = "server_error" if error else "invalid_file"
            one["status"] = "failed" if why else "completed"
            one["last_error"] = {"code": code, "message": str(why).replace(str(shelf.folder), "")} if why else None
        with suppress(BrollyError):  # a full disk: it is indexed again with the next start
            await shelf.keep()

    async def _indexed(self, shelf: Shelf) -> str:
        """Have a shelf's documents indexed; why it failed, or nothing. Raises NotFound, OSError."""
        entry, _ = self.app.state.house.find(shelf.embedder)
        if entry.target and self.app.state.settings.max_cost is not None:
            return f"{entry.name} runs elsewhere, and what its vectors cost cannot be held within --max-cost."
        words = (str(shelf.folder / DOCUMENTS), "--embed", entry.place, "--out", str(shelf.folder / INDEX))
        quiet, pipe = asyncio.subprocess.DEVNULL, asyncio.subprocess.PIPE
        process = await started("index", *words, "--json", stdout=quiet, stderr=pipe)
        try:
            _, said = await process.communicate()
        finally:
            if process.returncode is None:
                ended(process)  # its transactions leave the index whole
                await process.wait()
        # 1: some files could not be read; 2: none, which their faults tell
        if process.returncode in (0, 1) or (process.returncode == 2 and (shelf.folder / INDEX).is_dir()):
            return ""
        return said.decode(errors="replace").strip().rpartition("\n")[2] or f"exit {process.returncode}"


def name_of(given: str) -> str:
    """What a file is called in a store: its own name's letters, as many as every disk takes, never a hidden one."""
    name = re.sub(r"[^\w. -]", "_", given)
    return name.encode()[-NAME:].decode(errors="ignore").lstrip(". ") or "file"


def _put(path: Path, place: Path, name: str) -> None:
    place.mkdir(parents=True, exist_ok=True)
    linked(path, place / name)


_OPENED = threading.Lock()


def _search(shelf: Shelf, model: Any, question: str, most: int, ids: Sequence[str]) -> list[Any]:
    """In the model's thread."""
    from brolly.adapt.retrieve import Index
    from brolly.adapt.retrieve.embedder import embedder_of

    with _OPENED:
        embedder = model.__dict__.setdefault("as_embedder", None) or embedder_of(model)
        model.__dict__["as_embedder"] = embedder
    with Index(shelf.folder / INDEX, embed=embedder) as index:
        among = None if len(ids) == len(shelf.files) else {"folder": list(ids)}
        try:
            return index.search(question, top=most, filters=among)
        except OptionError as error:
            raise Refused(str(error), param="query") from None


def _faults(shelf: Shelf) -> dict[str, str]:
    """Why files could not be indexed, by names: those with a fault, and those that hold no text."""
    from brolly.adapt.retrieve.sqlite import SqliteStore

    store = SqliteStore(shelf.folder / INDEX, create=False)
    try:
        with store.reading() as now:
            there = {known.name for known in now.documents()}
            found = {name: said[2] for name, said in now.faults().items()}
    finally:
        store.close()
    names = {f"{id}/{name}" for id, name in shelf.names.items()}
    return {name: "it holds no text that could be read" for name in names - there} | found
