"""Stored responses on this disk. What `put` has returned from survives the process's and the machine's sudden end.

SQLite with a write-ahead log that is synced at every commit; bounded in bytes and days, the longest unused go first.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

from brolly.errors import OptionError

DAY = 86400.0
LOOK = 600.0  # seconds between two looks for what has grown old
LONGEST = 32 << 20  # bytes of JSON in a conversation: packed they are few, and whoever continues it reads them all
UNFINISHED = ("queued", "in_progress")
TABLES = """
create table if not exists responses (
  id text primary key, owner text not null, run text not null, status text not null, previous text,
  created real not null, used real not null, bytes integer not null,
  response blob not null, input blob not null, events blob not null) without rowid;
create index if not exists by_use on responses (used);
create table if not exists conversations (
  id text primary key, owner text not null, created real not null, used real not null, bytes integer not null,
  metadata text not null, items blob not null) without rowid;
create table if not exists items (id text primary key, response text not null) without rowid;
create index if not exists by_response on items (response);
"""


@dataclass
class Stored:
    """A response as its client saw it, what it answered, and the events in which it was told."""

    response: dict[str, Any]
    input: list[dict[str, Any]]
    owner: str = ""
    events: Sequence[bytes] = ()
    size: int = 0  # bytes of the JSON that was read

    @property
    def id(self) -> str:
        return str(self.response["id"])


@dataclass
class Conversation:
    """Items in a row that responses read and lengthen."""

    id: str
    created: int  # seconds since 1970
    metadata: dict[str, str]
    items: list[dict[str, Any]]
    owner: str = ""


def state_folder() -> Path:
    """The user's own folder for what programs keep."""
    base = os.environ.get("XDG_STATE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".local" / "state") / "brolly" / "responses"


class Store:
    """Responses by id. Every method may be called from any thread and may wait for the disk."""

    def __init__(self, folder: Path, most_bytes: int = 1 << 30, days: float = 30.0) -> None:
        self.folder, self.most_bytes, self.days = folder, most_bytes, days
        self._lock, self._turn = threading.Lock(), threading.Lock()  # of a statement; of reading, changing and writing
        self._looked = 0.0
        self._run = uuid4().hex
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._mark = self._marked(self._run).open("wb")
            _hold(self._mark)
            self._db = sqlite3.connect(folder / "responses.sqlite3", timeout=30, check_same_thread=False)
            (folder / "responses.sqlite3").chmod(0o600)
            self._db.execute("pragma auto_vacuum = incremental")
            self._db.execute("pragma journal_mode = wal")
            self._db.execute("pragma synchronous = full")
            self._db.executescript(TABLES)
            self._bury()
            both = "select bytes from responses union all select bytes from conversations"
            self._bytes = int(self._db.execute(f"select coalesce(sum(bytes), 0) from ({both})").fetchone()[0])
        except (OSError, sqlite3.Error) as error:
            raise OptionError(f"{folder}: responses cannot be stored here ({error}); set another store.") from error

    def put(self, stored: Stored) -> None:
        """Keep a response, in place of an earlier state of it. On return it is on the disk."""
        said = [zlib.compress(json.dumps(part).encode(), 1) for part in (stored.response, stored.input)]
        events = zlib.compress(b"".join(stored.events), 1) if stored.events else b""
        size, now, response = sum(map(len, said)) + len(events), time.time(), stored.response
        items = [(item["id"], stored.id) for item in (*response["output"], *stored.input) if item.get("id")]
        with self._lock, self._db:
            before = self._size("responses", stored.id)
            self._db.execute(
                "insert or replace into responses values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (stored.id, stored.owner, self._run, response["status"], response["previous_response_id"],
                 response["created_at"], now, size, *said, events),
            )  # fmt: skip
            self._db.executemany("insert or ignore into items values (?, ?)", items)
            self._bytes += size - before
            self._trim(now)

    def get(self, id: str, owner: str = "", *, events: bool = True) -> Stored | None:
        """A response of this owner's, or None; its events only if they are wanted."""
        last = "events" if events else "null"
        with self._lock:
            row = self._db.execute(
                f"select response, input, {last} from responses where id = ? and owner = ?", (id, owner)
            ).fetchone()
        if row is None:
            return None
        told = zlib.decompress(row[2]).split(b"\n\n")[:-1] if row[2] else []
        said = [zlib.decompress(part) for part in row[:2]]
        response, given = map(json.loads, said)
        return Stored(response, given, owner, [one + b"\n\n" for one in told], sum(map(len, said)))

    def chain(self, id: str, owner: str = "") -> list[Stored] | None:
        """A response and all those that it continues, the oldest first; None where one of them is gone.

        Raises OptionError where they are too long together.
        """
        found: list[Stored] = []
        seen: set[str] = set()
        at: str | None = id
        size = 0
        while at is not None:
            one = self.get(at, owner, events=False)
            if one is None or at in seen:
                return None
            found.append(one)
            seen.add(at)
            size += one.size
            check_length(size)
            at = one.response["previous_response_id"]
        with self._lock, self._db:
            self._db.executemany("update responses set used = ? where id = ?", [(time.time(), one.id) for one in found])
        return found[::-1]

    def item(self, id: str, owner: str = "") -> dict[str, Any] | None:
        """An item of a stored response of this owner's, by its own id, or None."""
        with self._lock:
            row = self._db.execute("select response from items where id = ?", (id,)).fetchone()
        stored = self.get(row[0], owner) if row else None
        every = (*stored.response["output"], *stored.input) if stored else ()
        return next((item for item in every if item.get("id") == id), None)

    def delete(self, id: str, owner: str = "") -> bool:
        """Forget a response; whether there was one."""
        with self._lock, self._db:
            row = self._db.execute("select bytes from responses where id = ? and owner = ?", (id, owner)).fetchone()
            if row is not None:
                self._forget(id, row[0])
        return row is not None

    def conversation(self, id: str, owner: str = "") -> Conversation | None:
        """A conversation of this owner's, or None."""
        with self._lock, self._db:
            self._db.execute("update conversations set used = ? where id = ? and owner = ?", (time.time(), id, owner))
            row = self._db.execute(
                "select created, metadata, items from conversations where id = ? and owner = ?", (id, owner)
            ).fetchone()
        if row is None:
            return None
        return Conversation(id, int(row[0]), json.loads(row[1]), json.loads(zlib.decompress(row[2])), owner)

    def put_conversation(self, one: Conversation) -> None:
        """Keep a conversation, in place of an earlier state of it. On return it is on the disk. Raises OptionError."""
        written = json.dumps(one.items).encode()
        check_length(len(written))
        said, now = zlib.compress(written, 1), time.time()
        with self._lock, self._db:
            self._bytes += len(said) - self._size("conversations", one.id)
            self._db.execute(
                "insert or replace into conversations values (?, ?, ?, ?, ?, ?, ?)",
                (one.id, one.owner, one.created, now, len(said), json.dumps(one.metadata), said),
            )
            self._trim(now)

    def change(self, id: str, change: Callable[[Conversation], object], owner: str = "") -> Conversation | None:
        """Read a conversation, change and keep it, where it is still there; beside others who do so, one by one."""
        with self._turn:
            one = self.conversation(id, owner)
            if one is not None:
                change(one)
                self.put_conversation(one)
        return one

    def lengthen(self, id: str, items: list[dict[str, Any]], owner: str = "") -> Conversation | None:
        """Add items to the end of a conversation, where it is still there."""
        return self.change(id, lambda one: one.items.extend(items), owner)

    def drop_conversation(self, id: str, owner: str = "") -> bool:
        """Forget a conversation; whether there was one. What answered in it stays."""
        with self._turn, self._lock, self._db:  # or who is about to lengthen it would bring it back
            size = self._size("conversations", id)
            gone = self._db.execute("delete from conversations where id = ? and owner = ?", (id, owner)).rowcount > 0
            self._bytes -= size if gone else 0
        return gone

    def close(self) -> None:
        with self._lock:
            self._db.close()
            self._mark.close()
            self._marked(self._run).unlink(missing_ok=True)

    def _forget(self, id: str, size: int) -> None:
        for table in ("responses", "conversations"):
            self._db.execute(f"delete from {table} where id = ?", (id,))
        self._db.execute("delete from items where response = ?", (id,))
        self._bytes -= size

    def _size(self, table: str, id: str) -> int:
        row = self._db.execute(f"select bytes from {table} where id = ?", (id,)).fetchone()
        return int(row[0]) if row else 0

    def _trim(self, now: float) -> None:
        """Down to the bounds, and some more so as not to look each time; what is still being written stays."""
        if self._bytes <= self.most_bytes and now < self._looked + LOOK:
            return
        self._looked, most = now, self.most_bytes if self._bytes <= self.most_bytes else int(self.most_bytes * 0.9)
        rows = self._db.execute(
            "select id, bytes, used, status from responses union all "
            "select id, bytes, used, 'completed' from conversations order by used"
        )
        doomed, left = [], self._bytes
        for id, size, used, status in rows:
            if left <= most and now - used <= self.days * DAY:
                break
            if status not in UNFINISHED:
                doomed.append((id, size))
                left -= size
        rows.close()
        for id, size in doomed:
            self._forget(id, size)
        if doomed:
            self._db.execute("pragma incremental_vacuum").fetchall()

    def _bury(self) -> None:
        """Responses that a process which is no more was writing have failed."""
        held = self._db.execute("select id, run, response from responses where status in (?, ?)", UNFINISHED).fetchall()
        dead = {run for run in {run for _, run, _ in held} if not self._lives(run)}
        with self._db:
            for id, run, said in held:
                if run not in dead:
                    continue
                response = json.loads(zlib.decompress(said))
                response["status"] = "failed"
                response["error"] = {"code": "server_error", "message": "The server stopped while it wrote this."}
                self._db.execute(
                    "update responses set status = 'failed', response = ? where id = ?",
                    (zlib.compress(json.dumps(response).encode(), 1), id),
                )
        for run in dead:
            self._marked(run).unlink(missing_ok=True)

    def _marked(self, run: str) -> Path:
        """The file that a store holds as long as its process lives, whatever becomes of its number."""
        return self.folder / f"{run}.run"

    def _lives(self, run: str) -> bool:
        """Whether another store, of this or another process, holds its mark."""
        try:
            with self._marked(run).open("r+b") as file:
                return not _hold(file)
        except FileNotFoundError:
            return False


def check_length(size: int) -> None:
    """Whether a conversation may have so many bytes. Raises OptionError."""
    if size > LONGEST:
        raise OptionError(
            f"the conversation has grown to more than the {LONGEST >> 20} MiB that may be kept; begin another."
        )


def _hold(file: IO[bytes]) -> bool:
    """Lock a file until it is closed, by its process's end at the latest; False where another has."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
