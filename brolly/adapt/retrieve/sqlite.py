"""The embedded store: one SQLite file (WAL, FTS5 for BM25) that holds the vectors too, which are searched exactly.

A SIGKILL or a power cut leaves what was committed. Readers see one moment; a writer puts documents aside and publishes
them in one transaction. One writer at a time, by a lock that the system takes back when the writer dies.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import Any

from brolly.adapt.retrieve.chunks import Chunk
from brolly.adapt.retrieve.store import Entry, Kept, Known, Match, Stamp
from brolly.errors import Busy, CheckpointError, DiskFull, NotFound, OptionError

VERSION = "1"
NAME = "index.sqlite"
SAMPLE = 4096  # cosines that tell how alike anything is to a question
SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE documents (
  id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, live INTEGER NOT NULL, size INTEGER NOT NULL,
  mtime INTEGER NOT NULL, sha256 TEXT NOT NULL, space INTEGER NOT NULL, title TEXT NOT NULL, fields TEXT NOT NULL,
  first INTEGER NOT NULL, n_chunks INTEGER NOT NULL, vectors BLOB NOT NULL, UNIQUE (name, live));
CREATE TABLE chunks (
  id INTEGER PRIMARY KEY, document INTEGER NOT NULL, start INTEGER NOT NULL, "end" INTEGER NOT NULL,
  text TEXT NOT NULL, heading TEXT NOT NULL, page INTEGER, line INTEGER NOT NULL, stems TEXT NOT NULL);
CREATE TABLE faults (name TEXT PRIMARY KEY, size INTEGER, mtime INTEGER, message TEXT NOT NULL) WITHOUT ROWID;
CREATE VIRTUAL TABLE words USING fts5(stems, content='chunks', content_rowid='id',
  tokenize="unicode61 remove_diacritics 0");
CREATE VIRTUAL TABLE terms USING fts5vocab('words', 'row');
"""


class SqliteStore:
    """An index in a folder."""

    def __init__(self, folder: Path, *, create: bool = False) -> None:
        self.folder, self.path = folder, folder / NAME
        self._lock = RLock()
        self._matrices: dict[int, _Matrix] = {}
        self._seen = ""
        if not create and not self.path.is_file():
            raise NotFound(f"{folder} holds no index; make one with: brolly index {folder}")
        with self._told():
            folder.mkdir(parents=True, exist_ok=True)
            self._db = self._opened()
            if self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
                with self._writer_lock(), self._transaction():
                    if self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
                        for statement in filter(str.strip, SCHEMA.split(";\n")):
                            self._db.execute(statement)
                        self._db.execute("INSERT INTO meta VALUES ('version', ?), ('generation', '0')", (VERSION,))
            found = dict(self._db.execute("SELECT key, value FROM meta"))
        if found.get("version") != VERSION:
            said = found.get("version", "unknown")
            raise CheckpointError(f"{self.path} is an index of version {said!r:.20}; expected {VERSION}. Make it anew.")

    def _opened(self) -> sqlite3.Connection:
        try:
            db = sqlite3.connect(self.path, timeout=10, isolation_level=None, check_same_thread=False)
            db.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:  # a folder that may not be written, where nobody else writes either
            db = sqlite3.connect(
                f"{self.path.absolute().as_uri()}?mode=ro&immutable=1", uri=True, isolation_level=None,
                check_same_thread=False,
            )  # fmt: skip
            db.execute("SELECT 1 FROM sqlite_master")
        for pragma in ("synchronous = NORMAL", "trusted_schema = OFF", "cell_size_check = ON", "cache_size = -65536"):
            db.execute(f"PRAGMA {pragma}")
        return db

    def close(self) -> None:
        with self._lock:
            self._matrices.clear()
            self._db.close()

    @contextmanager
    def reading(self) -> Iterator[Snapshot]:
        """One moment of the index."""
        with self._lock, self._told(), self._transaction("DEFERRED"):
            generation = self._db.execute("SELECT value FROM meta WHERE key = 'generation'").fetchone()[0]
            if generation != self._seen:
                self._matrices.clear()
                self._seen = generation
            yield Snapshot(self._db, self._matrices, self.path)

    @contextmanager
    def writing(self) -> Iterator[Writer]:
        """The one writer. Raises Busy while there is another."""
        with self._told(), self._writer_lock():
            yield Writer(self)
            with self._lock:
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    @contextmanager
    def _writer_lock(self) -> Iterator[None]:
        """SQLite's lock of a second, empty file: every system has it, and lets go of it when its holder dies."""
        lock = sqlite3.connect(self.folder / "writer.lock", timeout=0, isolation_level=None, check_same_thread=False)
        try:
            try:
                lock.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError as error:
                if "locked" not in str(error):
                    raise
                raise Busy(f"{self.folder} is being written by another process; try again when it is done.") from None
            yield
        finally:
            lock.close()

    @contextmanager
    def _transaction(self, kind: str = "IMMEDIATE") -> Iterator[None]:
        self._db.execute(f"BEGIN {kind}")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    @contextmanager
    def _told(self) -> Iterator[None]:
        """SQLite's errors in our words."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            said = str(error)
            if "full" in said or getattr(error, "errno", None) == 28:
                raise DiskFull(
                    f"{self.folder}: the disk is full. The index is as it was; make room and go on."
                ) from None
            if isinstance(error, OSError) or "readonly" in said or "unable to open" in said:
                raise OptionError(f"{self.folder} cannot be written ({said}); give another place with -o.") from None
            if "locked" in said or "busy" in said:
                raise Busy(f"{self.path} is busy ({said}); try again.") from None
            raise CheckpointError(
                f"{self.path} is a broken index ({said}); delete {self.folder} and make it anew."
            ) from None


class _Matrix:
    """All vectors of a space in memory, in float16: a row a chunk."""

    def __init__(self, db: sqlite3.Connection, space: int, dim: int, path: Path) -> None:
        import numpy as np
        import torch

        rows = db.execute(
            "SELECT id, first, n_chunks, vectors FROM documents WHERE live = 1 AND space = ? ORDER BY first", (space,)
        ).fetchall()
        for i, first, n, vectors in rows:
            if len(vectors) != n * dim * 2 or first < 0:
                raise CheckpointError(
                    f"{path} is broken: document {i} has {len(vectors)} bytes of vectors for {n} chunks."
                )
        self.ids = np.concatenate([np.arange(a, a + n) for _, a, n, _ in rows] or [np.zeros(0, np.int64)])
        self.documents = np.concatenate([np.full(n, i) for i, _, n, _ in rows] or [np.zeros(0, np.int64)])
        joined = bytearray().join(row[3] for row in rows)
        flat = torch.frombuffer(joined, dtype=torch.float16) if joined else torch.zeros(0, dtype=torch.float16)
        self.vectors = flat.view(-1, dim)

    def near(self, vector: Any, top: int, among: Collection[int] | None) -> tuple[list[Match], Any]:
        import numpy as np
        import torch

        if not len(self.ids):
            return [], np.zeros(0, np.float32)
        query = torch.from_numpy(np.ascontiguousarray(vector, np.float32)).half()
        with torch.inference_mode():
            scores = torch.nn.functional.linear(query[None], self.vectors)[0].float()
            scores = scores.nan_to_num(-2.0)
            sample = scores[:: max(1, len(scores) // SAMPLE)].numpy()
            if among is not None:
                allowed = torch.from_numpy(np.isin(self.documents, np.fromiter(among, np.int64, len(among))))
                scores = torch.where(allowed, scores, -2.0)
            best = torch.topk(scores, min(top, len(scores)))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [Match(int(self.ids[i]), score) for i, score in pairs if score > -1.5], sample


class Snapshot:
    """A `Reading` of SQLite, within one transaction."""

    def __init__(self, db: sqlite3.Connection, matrices: dict[int, _Matrix], path: Path) -> None:
        self._db, self._matrices, self._path = db, matrices, path

    def meta(self) -> dict[str, str]:
        return dict(self._db.execute("SELECT key, value FROM meta"))

    def documents(self) -> list[Known]:
        return _known(self._db, 1)

    def faults(self) -> dict[str, tuple[int, int, str]]:
        return {row[0]: row[1:] for row in self._db.execute("SELECT name, size, mtime, message FROM faults")}

    def near(self, space: int, vector: Any, top: int, among: Collection[int] | None) -> tuple[list[Match], Any]:
        if space not in self._matrices:
            self._matrices[space] = _Matrix(self._db, space, len(vector), self._path)
        return self._matrices[space].near(vector, top, among)

    def worded(self, stems: Sequence[str], top: int, among: Collection[int] | None) -> list[Match]:
        if not stems:
            return []
        asked = " OR ".join(f'"{stem}"' for stem in stems)
        rows = self._db.execute(
            "SELECT rowid, rank FROM words WHERE words MATCH ? ORDER BY rank LIMIT ?",
            (asked, top if among is None else -1),
        )
        if among is None:
            return [Match(i, -rank) for i, rank in rows]
        found: list[Match] = []
        for i, rank in rows:
            if self._db.execute("SELECT document FROM chunks WHERE id = ?", (i,)).fetchone()[0] in among:
                found.append(Match(i, -rank))
            if len(found) == top:
                break
        return found

    def frequencies(self, stems: Sequence[str]) -> tuple[dict[str, int], int]:
        total = self._db.execute("SELECT sum(n_chunks) FROM documents WHERE live = 1").fetchone()[0] or 0
        found = {}
        for stem in stems:
            row = self._db.execute("SELECT doc FROM terms WHERE term = ?", (stem,)).fetchone()
            found[stem] = row[0] if row else 0
        return found, total

    def fetch(self, ids: Iterable[int]) -> dict[int, Kept]:
        found = {}
        for i in ids:
            row = self._db.execute(
                'SELECT d.id, d.name, d.title, d.space, c.start, c."end", c.text, c.heading, c.page, c.line '
                "FROM chunks c JOIN documents d ON d.id = c.document WHERE c.id = ? AND d.live = 1",
                (i,),
            ).fetchone()
            if row:
                found[i] = Kept(i, row[0], row[1], row[2], row[3], Chunk(*row[4:]))
        return found


class Writer:
    """A `Writing` of SQLite."""

    def __init__(self, store: SqliteStore) -> None:
        self._store, self._db = store, store._db

    def put(self, entries: Sequence[Entry]) -> None:
        db = self._db
        with self._store._lock, self._store._told(), self._store._transaction():
            for entry in entries:
                self._drop("name = ? AND live = 0", (entry.name,))
                first = (db.execute("SELECT max(id) FROM chunks").fetchone()[0] or 0) + 1
                i = db.execute(
                    "INSERT INTO documents VALUES (NULL, ?, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        entry.name, *entry.stamp, entry.space, entry.title, json.dumps(dict(entry.fields)), first,
                        len(entry.chunks), entry.vectors.tobytes(),
                    ),
                ).lastrowid  # fmt: skip
                db.executemany(
                    "INSERT INTO chunks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    ((first + n, i, *c, s) for n, (c, s) in enumerate(zip(entry.chunks, entry.stems, strict=True))),
                )

    def waiting(self) -> dict[str, Stamp]:
        return {known.name: known.stamp for known in _known(self._db, 0)}

    def publish(
        self, changed: Collection[str], gone: Collection[str], touched: Mapping[str, Stamp],
        faults: Mapping[str, tuple[int, int, str]], meta: Mapping[str, str],
    ) -> None:  # fmt: skip
        db = self._db
        with self._store._lock, self._store._told(), self._store._transaction():
            for name in (*changed, *gone):
                db.execute(
                    "INSERT INTO words (words, rowid, stems) SELECT 'delete', c.id, c.stems FROM chunks c "
                    "JOIN documents d ON c.id BETWEEN d.first AND d.first + d.n_chunks - 1 "
                    "WHERE d.name = ? AND d.live = 1",
                    (name,),
                )
                self._drop("name = ? AND live = 1", (name,))
            for name in changed:
                db.execute(
                    "INSERT INTO words (rowid, stems) SELECT c.id, c.stems FROM chunks c "
                    "JOIN documents d ON c.id BETWEEN d.first AND d.first + d.n_chunks - 1 "
                    "WHERE d.name = ? AND d.live = 0",
                    (name,),
                )
                db.execute("UPDATE documents SET live = 1 WHERE name = ? AND live = 0", (name,))
            self._drop("live = 0", ())
            for name, stamp in touched.items():
                sql = "UPDATE documents SET size = ?, mtime = ?, sha256 = ? WHERE name = ? AND live = 1"
                db.execute(sql, (*stamp, name))
            db.execute("DELETE FROM faults")
            db.executemany("INSERT INTO faults VALUES (?, ?, ?, ?)", [(name, *said) for name, said in faults.items()])
            db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(meta.items()))
            db.execute("UPDATE meta SET value = value + 1 WHERE key = 'generation'")

    def _drop(self, where: str, values: tuple[Any, ...]) -> None:
        """Documents with their chunks; `where` is our own text."""
        for first, n in self._db.execute(f"SELECT first, n_chunks FROM documents WHERE {where}", values).fetchall():
            self._db.execute("DELETE FROM chunks WHERE id BETWEEN ? AND ?", (first, first + n - 1))
        self._db.execute(f"DELETE FROM documents WHERE {where}", values)


def _known(db: sqlite3.Connection, live: int) -> list[Known]:
    rows = db.execute(
        "SELECT id, name, size, mtime, sha256, space, title, fields, n_chunks FROM documents WHERE live = ? "
        "ORDER BY name",
        (live,),
    )
    return [
        Known(i, name, Stamp(a, b, c), space, title, json.loads(f), n) for i, name, a, b, c, space, title, f, n in rows
    ]
