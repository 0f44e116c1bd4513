"""The team's store: an index in PostgreSQL with pgvector, which many machines search and one at a time writes.

The address is postgresql://user:password@host/database, with ?index=NAME where a database holds several. The server
computes BM25 from postings that it keeps, and finds near vectors by an HNSW index.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import RLock
from typing import Any

from brolly.adapt.retrieve.chunks import Chunk
from brolly.adapt.retrieve.fuse import weights
from brolly.adapt.retrieve.store import Entry, Kept, Known, Match, Stamp
from brolly.errors import BrollyError, Busy, CheckpointError, MissingExtra, NotFound, OptionError

VERSION = "1"
K1, B = 1.2, 0.75  # BM25's constants, as FTS5 has them
SAMPLE = 1024
SCHEMA = """
CREATE EXTENSION IF NOT EXISTS vector;
CREATE SCHEMA IF NOT EXISTS {s};
CREATE TABLE {s}.meta (key text PRIMARY KEY, value text NOT NULL);
CREATE TABLE {s}.documents (
  id bigserial PRIMARY KEY, name text NOT NULL, live boolean NOT NULL, size bigint NOT NULL, mtime bigint NOT NULL,
  sha256 text NOT NULL, space int NOT NULL, title text NOT NULL, fields text NOT NULL, n_chunks int NOT NULL,
  UNIQUE (name, live));
CREATE TABLE {s}.chunks (
  id bigserial PRIMARY KEY, document bigint NOT NULL REFERENCES {s}.documents ON DELETE CASCADE, live boolean NOT NULL,
  space int NOT NULL, start int NOT NULL, "end" int NOT NULL, text text NOT NULL, heading text NOT NULL, page int,
  line int NOT NULL, length int NOT NULL, vector vector);
CREATE INDEX ON {s}.chunks (document);
CREATE TABLE {s}.postings (
  stem text NOT NULL, chunk bigint NOT NULL REFERENCES {s}.chunks ON DELETE CASCADE, n int NOT NULL,
  PRIMARY KEY (stem, chunk));
CREATE INDEX ON {s}.postings (chunk);
CREATE TABLE {s}.faults (name text PRIMARY KEY, size bigint, mtime bigint, message text NOT NULL);
INSERT INTO {s}.meta VALUES ('version', '1'), ('generation', '0');
"""


class PostgresStore:
    """An index in a schema of its own."""

    def __init__(self, address: str, *, create: bool = False) -> None:
        try:
            import psycopg
        except ImportError:
            raise MissingExtra("An index in PostgreSQL", "pgvector") from None
        self._psycopg = psycopg
        name = (re.findall(r"[?&]index=([^&]*)", address) or ["brolly"])[0]
        if not re.fullmatch("[a-z][a-z0-9_]{0,40}", name):
            raise OptionError(f"index={name!r:.60} is no name; expected small letters, digits and _.")
        self.address, self.schema = re.sub(r"([?&])index=[^&]*&?", r"\1", address).rstrip("?&"), name
        self.shown = re.sub(r"//[^@/]*@", "//", self.address)  # without a password
        self._lock = RLock()
        with self._told():
            self._db = psycopg.connect(self.address, autocommit=True)
            found = self._db.execute("SELECT to_regclass(%s)", (f"{name}.meta",)).fetchone()
            if found is None or found[0] is None:
                if not create:
                    raise NotFound(f"{self.shown} holds no index {name!r}; make one with: brolly index PATH -o ADDRESS")
                with self._writer_lock(), self._db.transaction():
                    for statement in filter(str.strip, SCHEMA.format(s=name).split(";\n")):
                        self._run(statement)
            version = dict(self._run("SELECT key, value FROM {s}.meta").fetchall()).get("version")
        if version != VERSION:
            raise CheckpointError(f"{self.shown} has an index of version {version!r:.20}; expected {VERSION}.")

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def reading(self) -> Iterator[PostgresSnapshot]:
        with self._lock, self._told(), self._db.transaction():
            self._db.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            yield PostgresSnapshot(self)

    @contextmanager
    def writing(self) -> Iterator[PostgresWriter]:
        with self._told(), self._writer_lock():
            yield PostgresWriter(self)

    @contextmanager
    def _writer_lock(self) -> Iterator[None]:
        """The server's advisory lock, which it takes back when the connection ends."""
        row = self._db.execute("SELECT pg_try_advisory_lock(hashtext(%s))", (f"brolly {self.schema}",)).fetchone()
        if not row or not row[0]:
            raise Busy(f"{self.shown} is being written by another process; try again when it is done.")
        try:
            yield
        finally:
            if not self._db.closed:
                self._db.execute("SELECT pg_advisory_unlock(hashtext(%s))", (f"brolly {self.schema}",))

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except BrollyError:
            raise
        except self._psycopg.Error as error:
            said = str(error).strip().split("\n")[0][:300]
            raise OptionError(f"{self.shown}: {said}.") from None

    def _run(self, statement: str, values: Sequence[Any] = ()) -> Any:
        """A statement of ours in the index's own schema."""
        text: Any = statement.replace("{s}", self.schema)
        return self._db.execute(text, values or None)


class PostgresSnapshot:
    """A `Reading` of PostgreSQL, within one transaction."""

    def __init__(self, store: PostgresStore) -> None:
        self._run = store._run

    def meta(self) -> dict[str, str]:
        return dict(self._run("SELECT key, value FROM {s}.meta").fetchall())

    def documents(self) -> list[Known]:
        return _known(self._run, True)

    def faults(self) -> dict[str, tuple[int, int, str]]:
        rows = self._run("SELECT name, size, mtime, message FROM {s}.faults").fetchall()
        return {name: (size, mtime, message) for name, size, mtime, message in rows}

    def near(self, space: int, vector: Any, top: int, among: Collection[int] | None) -> tuple[list[Match], Any]:
        import numpy as np

        asked, dim = _vector(vector), len(vector)
        where, values = "", []
        if among is not None:
            where, values = " AND document = ANY(%s)", [sorted(among)]
        self._run(f"SET LOCAL hnsw.ef_search = {max(40, min(2 * top, 1000))}")
        rows = self._run(
            f"SELECT id, 1 - (vector::vector({dim}) <=> %s::vector) FROM {{s}}.chunks "
            f"WHERE live AND space = {space:d} AND vector_dims(vector) = {dim}{where} "
            f"ORDER BY vector::vector({dim}) <=> %s::vector LIMIT %s",
            [asked, *values, asked, top],
        ).fetchall()
        sample = self._run(
            f"SELECT 1 - (vector <=> %s::vector) FROM {{s}}.chunks WHERE live AND space = {space:d} LIMIT {SAMPLE}",
            [asked],
        ).fetchall()
        return [Match(i, float(score)) for i, score in rows], np.array([row[0] for row in sample], np.float32)

    def worded(self, stems: Sequence[str], top: int, among: Collection[int] | None) -> list[Match]:
        found, total = self.frequencies(stems)
        told = weights(found, total)
        row = self._run("SELECT avg(length) FROM {s}.chunks WHERE live AND space IN (0, 1)").fetchone()
        mean = float(row[0] or 1)
        where, values = "", []
        if among is not None:
            where, values = " AND c.document = ANY(%s)", [sorted(among)]
        rows = self._run(
            "SELECT c.id, sum(w.weight * p.n * %s / (p.n + %s * (%s + %s * c.length / %s))) AS score "
            "FROM {s}.postings p JOIN unnest(%s::text[], %s::float8[]) AS w (stem, weight) ON w.stem = p.stem "
            f"JOIN {{s}}.chunks c ON c.id = p.chunk WHERE c.live{where} "
            "GROUP BY c.id ORDER BY score DESC, c.id LIMIT %s",
            [K1 + 1, K1, 1 - B, B, mean, list(stems), [told[s] for s in stems], *values, top],
        ).fetchall()
        return [Match(i, float(score)) for i, score in rows]

    def frequencies(self, stems: Sequence[str]) -> tuple[dict[str, int], int]:
        rows = self._run(
            "SELECT p.stem, count(*) FROM {s}.postings p JOIN {s}.chunks c ON c.id = p.chunk "
            "WHERE c.live AND p.stem = ANY(%s) GROUP BY p.stem",
            [list(stems)],
        ).fetchall()
        counted = dict(rows)
        total = self._run("SELECT coalesce(sum(n_chunks), 0) FROM {s}.documents WHERE live").fetchone()[0]
        return {stem: int(counted.get(stem, 0)) for stem in stems}, int(total)

    def fetch(self, ids: Iterable[int]) -> dict[int, Kept]:
        rows = self._run(
            'SELECT c.id, d.id, d.name, d.title, d.space, c.start, c."end", c.text, c.heading, c.page, c.line '
            "FROM {s}.chunks c JOIN {s}.documents d ON d.id = c.document WHERE d.live AND c.id = ANY(%s)",
            [list(ids)],
        ).fetchall()
        return {row[0]: Kept(row[0], row[1], row[2], row[3], row[4], Chunk(*row[5:])) for row in rows}


class PostgresWriter:
    """A `Writing` of PostgreSQL."""

    def __init__(self, store: PostgresStore) -> None:
        self._store, self._run = store, store._run

    def put(self, entries: Sequence[Entry]) -> None:
        store = self._store
        with store._lock, store._told(), store._db.transaction():
            for entry in entries:
                self._run("DELETE FROM {s}.documents WHERE name = %s AND NOT live", [entry.name])
                i = self._run(
                    "INSERT INTO {s}.documents (name, live, size, mtime, sha256, space, title, fields, n_chunks) "
                    "VALUES (%s, false, %s, %s, %s, %s, %s, %s, %s) RETURNING id",
                    [
                        entry.name, *entry.stamp, entry.space, _clean(entry.title), json.dumps(dict(entry.fields)),
                        len(entry.chunks),
                    ],
                ).fetchone()[0]  # fmt: skip
                for chunk, stems, vector in zip(entry.chunks, entry.stems, entry.vectors, strict=True):
                    counted = Counter(stems.split())
                    c = self._run(
                        'INSERT INTO {s}.chunks (document, live, space, start, "end", text, heading, page, line, '
                        "length, vector) VALUES (%s, false, %s, %s, %s, %s, %s, %s, %s, %s, %s::vector) RETURNING id",
                        [
                            i, entry.space, chunk.start, chunk.end, _clean(chunk.text), _clean(chunk.heading),
                            chunk.page, chunk.line, counted.total(), _vector(vector),
                        ],
                    ).fetchone()[0]  # fmt: skip
                    self._run(
                        "INSERT INTO {s}.postings SELECT s, %s, n FROM unnest(%s::text[], %s::int[]) AS t (s, n)",
                        [c, list(counted), list(counted.values())],
                    )

    def waiting(self) -> dict[str, Stamp]:
        return {known.name: known.stamp for known in _known(self._run, False)}

    def publish(
        self, changed: Collection[str], gone: Collection[str], touched: Mapping[str, Stamp],
        faults: Mapping[str, tuple[int, int, str]], meta: Mapping[str, str],
    ) -> None:  # fmt: skip
        store = self._store
        with store._lock, store._told(), store._db.transaction():
            before = dict(self._run("SELECT key, value FROM {s}.meta").fetchall())
            for space, what in enumerate(("texts", "images")):
                if before.get(f"{what}.dimensions") != meta.get(f"{what}.dimensions"):
                    self._run(f"DROP INDEX IF EXISTS {{s}}.near_{space}")
            self._run("DELETE FROM {s}.documents WHERE live AND name = ANY(%s)", [[*changed, *gone]])
            self._run("UPDATE {s}.documents SET live = true WHERE name = ANY(%s)", [list(changed)])
            self._run("DELETE FROM {s}.documents WHERE NOT live")
            self._run(
                "UPDATE {s}.chunks c SET live = true FROM {s}.documents d "
                "WHERE d.id = c.document AND NOT c.live AND d.live"
            )
            for name, stamp in touched.items():
                sql = "UPDATE {s}.documents SET size = %s, mtime = %s, sha256 = %s WHERE name = %s"
                self._run(sql, [*stamp, name])
            self._run("DELETE FROM {s}.faults")
            for name, said in faults.items():
                self._run("INSERT INTO {s}.faults VALUES (%s, %s, %s, %s)", [name, *said])
            for key, value in meta.items():
                sql = "INSERT INTO {s}.meta VALUES (%s, %s) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
                self._run(sql, [key, value])
            for space, what in enumerate(("texts", "images")):
                if (dim := meta.get(f"{what}.dimensions", "")).isdigit() and int(dim) <= 2000:  # pgvector's limit
                    self._run(
                        f"CREATE INDEX IF NOT EXISTS near_{space} ON {{s}}.chunks "
                        f"USING hnsw ((vector::vector({int(dim)})) vector_cosine_ops) "
                        f"WHERE live AND space = {space} AND vector_dims(vector) = {int(dim)}"
                    )
            self._run("UPDATE {s}.meta SET value = (value::bigint + 1)::text WHERE key = 'generation'")


def _known(run: Any, live: bool) -> list[Known]:
    rows = run(
        "SELECT id, name, size, mtime, sha256, space, title, fields, n_chunks FROM {s}.documents WHERE live = %s "
        "ORDER BY name",
        [live],
    ).fetchall()
    return [
        Known(i, name, Stamp(a, b, c), space, title, json.loads(f), n) for i, name, a, b, c, space, title, f, n in rows
    ]


def _vector(vector: Any) -> str:
    return "[" + ",".join(f"{x:.5g}" for x in vector.tolist()) + "]"


def _clean(text: str) -> str:
    """PostgreSQL's texts hold no zero byte."""
    return text.replace("\0", " ")
