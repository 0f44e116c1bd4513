"""Index: a folder's documents, followed as they change, and searched by words and by meaning at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from brolly.adapt.retrieve.child import Reader
from brolly.adapt.retrieve.chunks import Chunk, chunks
from brolly.adapt.retrieve.document import Document
from brolly.adapt.retrieve.embedder import Embedder, check, embedder_of
from brolly.adapt.retrieve.files import FOLDER, Found, digest, look, read
from brolly.adapt.retrieve.filters import Filters, allowed
from brolly.adapt.retrieve.fuse import fuse, weights
from brolly.adapt.retrieve.sqlite import NAME, SqliteStore
from brolly.adapt.retrieve.store import PICTURES, TEXTS, Entry, Hit, Kept, Known, Reading, Stamp, Store
from brolly.adapt.retrieve.words import stems, telling
from brolly.errors import BrollyError, CheckpointError, MissingExtra, NotFound, OptionError

DEFAULT = "mini-embed"
SIZE = 200  # tokens of a chunk, where the embedder reads as many
POOL = 100  # chunks taken from each way of searching
WINDOW = 1024  # chunks embedded at once: they are sorted by length within it
COMMON = 0.5  # share of chunks above which a word is not looked up
Progress = Callable[[int, int, str], None]  # files done, files to do, the file


@dataclass(frozen=True)
class Changes:
    """What an update did, by names; `faults` tells why a file could not be read, `left` what is not read at all."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    kept: int = 0
    faults: Mapping[str, str] = field(default_factory=dict)
    left: tuple[str, ...] = ()
    n_chunks: int = 0  # that were embedded

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)


@dataclass(frozen=True)
class Findings:
    """What a search found, and what it was found by: the question's stems with their weights, and how near anything
    lies to it (a sample of cosines)."""

    hits: tuple[Hit, ...]
    weights: Mapping[str, float]
    known: Mapping[str, int]  # in how many chunks each stem stands
    sample: Any
    vector: Any


class Index:
    """An index that is there: `path` is its folder or that of its documents, or a server's address (postgresql://…/name).

    `embed` and `images` stand for the models that it was made with, where those lie elsewhere now; `remote` are
    RemoteOptions (and a "budget") for an embedder behind HTTP. Raises NotFound, CheckpointError; OptionError for
    another embedder than its own.
    """

    def __init__(
        self, path: str | Path, *, embed: Any = None, images: Any = None, rerank: Any = None,
        remote: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.place, self._store = _open(path)
        with self._store.reading() as now:
            self.meta = now.meta()
        if "texts.fingerprint" not in self.meta:
            raise NotFound(f"{path} is an index that was never filled; run: brolly index {path}")
        self._given = {"texts": embed, "images": images}
        self._embedders: dict[str, Embedder] = {}
        self._rerank, self._remote = rerank, remote

    @classmethod
    def build(
        cls, paths: str | Path | Sequence[str | Path], *, embed: Any = None, images: Any = None,
        out: str | Path | None = None, size: int | None = None, anew: bool = False, progress: Progress | None = None,
        remote: Mapping[str, Any] | None = None,
    ) -> Index:  # fmt: skip
        """The index of documents, made or brought up to date; it lies beside them unless `out` says otherwise.

        `embed` is a text embedder (default: the index's own, else mini-embed); `images` a CLIP, by which pictures are
        found too. `size` is a chunk's most tokens. `anew` forgets an index that is there. `remote` are RemoteOptions
        for an embedder that runs elsewhere. Raises NotFound, OptionError, Busy, DiskFull.
        """
        roots = [Path(os.path.expanduser(p)).absolute() for p in ([paths] if isinstance(paths, (str, Path)) else paths)]
        if not roots:
            raise OptionError("there is nothing to index; name a folder or a file.")
        if missing := next((root for root in roots if not root.exists()), None):
            raise NotFound(f"{missing} does not exist; expected a folder or a file to index.")
        if size is not None and not 16 <= size <= 8192:
            raise OptionError(f"size is {size}; expected 16 to 8,192 tokens.")
        base = Path(os.path.commonpath([root if root.is_dir() else root.parent for root in roots]))
        if out is None and len(roots) > 1:
            raise OptionError("several paths have no one place beside them; say where the index goes with -o.")
        place = str(out) if out is not None and "://" in str(out) else Path(out).expanduser() if out else base / FOLDER
        store = _store(place, create=True)
        try:
            with store.reading() as now:
                meta = {} if anew else now.meta()
            index = cls.__new__(cls)
            index.place, index._store, index.meta = place, store, meta
            index._given = {"texts": embed, "images": images}
            index._embedders, index._rerank, index._remote = {}, None, remote
            if "texts.fingerprint" not in meta and embed is None:
                index._given["texts"] = DEFAULT
            at = place if isinstance(place, Path) else base
            meta["base"] = _relative(base, at) if isinstance(place, Path) else str(base)
            meta["roots"] = "\n".join(_relative(root, at) if isinstance(place, Path) else str(root) for root in roots)
            if size is not None and meta.get("size") not in (None, str(size)):
                raise OptionError(f"{place} has chunks of {meta['size']} tokens; make it anew for another size.")
            meta["size"] = str(size) if size is not None else meta.get("size", "")
            index.changes = index._update(anew, progress)
        except BaseException:
            store.close()
            raise
        return index

    changes: Changes = Changes()

    def update(
        self, *, progress: Progress | None = None, fields: Mapping[str, Mapping[str, str]] | None = None
    ) -> Changes:
        """Read what was added or has changed, forget what is gone; all of it becomes visible at once.

        `fields` adds to what documents say about themselves, by their names. Raises Busy, DiskFull.
        """
        with self._store.reading() as now:
            self.meta = now.meta()
        self.changes = self._update(False, progress, fields or {})
        return self.changes

    def search(
        self, question: str, *, top: int = 5, filters: Filters | None = None, rerank: Any = None, images: bool = True
    ) -> list[Hit]:
        """The chunks (and pictures) that are likeliest to answer, the best first. Raises OptionError."""
        return list(self.find(question, top=top, filters=filters, rerank=rerank, images=images).hits)

    def find(
        self, question: str, *, top: int = 5, filters: Filters | None = None, rerank: Any = None, images: bool = True
    ) -> Findings:
        """The same with what it was found by."""
        if not isinstance(question, str) or not question.strip():
            raise OptionError("the question is empty; ask something.")
        if type(top) is not int or not 1 <= top <= 1000:
            raise OptionError(f"top is {top!r}; expected 1 to 1,000.")
        question = question[:8192].encode("utf-8", "replace").decode()
        vector = self.embedder("texts").query(question)
        picture = self.embedder("images").query(question) if images and self.meta.get("images.fingerprint") else None
        asked = telling(question)[:64]
        with self._store.reading() as now:
            among = allowed(now.documents(), filters) if filters else None
            known, total = now.frequencies(asked)
            lookups = [stem for stem in asked if 0 < known[stem] <= max(COMMON * total, 3)] or asked
            worded = now.worded(lookups, POOL, among)
            near, sample = now.near(TEXTS, vector, POOL, among)
            seen = now.near(PICTURES, picture, POOL, among)[0] if picture is not None else []
            orders = [([m.id for m in worded], 1.0), ([m.id for m in near], 1.0), ([m.id for m in seen], 1.0)]
            fused = fuse(orders)
            judge = rerank if rerank is not None else self._rerank
            wanted = fused[: max(top, 50) if judge is not None else top]
            kept = now.fetch([i for i, _ in wanted])
        cosines = {m.id: m.score for m in (*near, *seen)}
        hits = [self._hit(kept[i], score, cosines.get(i)) for i, score in wanted if i in kept]
        if judge is not None:
            hits = _reranked(judge, question, hits)
        return Findings(tuple(hits[:top]), weights(known, total), known, sample, vector)

    def embedder(self, what: str = "texts") -> Embedder:
        """The model that makes its vectors, loaded when it is first asked for; another one is refused."""
        if what not in self._embedders:
            given = self._given[what]
            reference = given if given is not None else self.meta.get(f"{what}.reference")
            if reference is None:
                raise OptionError(f"{self.place} has no embedder of {what}.")
            try:
                pictures = what == "images"
                found = given
                if not isinstance(given, Embedder):
                    found = embedder_of(reference, pictures=pictures, remote=self._remote)
            except NotFound as error:
                say = f"{self.place} was made by {reference}, which is not here ({error}); say where it is now: embed=…"
                raise NotFound(say) from None
            check(self.meta, found, what, Path(str(self.place)))
            self._embedders[what] = found
        return self._embedders[what]

    def documents(self) -> list[Known]:
        """What it holds, by name."""
        with self._store.reading() as now:
            return now.documents()

    def faults(self) -> dict[str, str]:
        """Files that could not be read, and why."""
        with self._store.reading() as now:
            return {name: said[2] for name, said in now.faults().items()}

    @property
    def base(self) -> Path:
        """The folder that documents' names are below; it moves with the index."""
        said = self.meta["base"]
        return Path(os.path.normpath(self.place / said)) if isinstance(self.place, Path) else Path(said)

    @contextmanager
    def reading(self) -> Iterator[Reading]:
        """One moment of what is kept."""
        with self._store.reading() as now:
            yield now

    def close(self) -> None:
        """Let go of its file and its models."""
        self._store.close()
        for what, embedder in self._embedders.items():
            if isinstance(self._given[what], (str, type(None))):  # of its own
                embedder.close()
        self._embedders.clear()

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Index {self.place}: {len(self.documents()):,} documents, by {self.meta.get('texts.reference')}>"

    def _hit(self, kept: Kept, score: float, cosine: float | None) -> Hit:
        chunk = kept.chunk
        return Hit(
            kept.name, chunk.text, score, chunk.start, chunk.end, chunk.line, chunk.page, chunk.heading, kept.title,
            "image" if kept.space == PICTURES else "text", cosine, kept.id, kept.document, str(self.base / kept.name),
        )  # fmt: skip

    # Following the files ----------------------------------------------------------------------------------------------

    def _update(
        self, anew: bool, progress: Progress | None, fields: Mapping[str, Mapping[str, str]] | None = None
    ) -> Changes:
        fields = fields or {}
        texts = self.embedder("texts")
        pictures = self.embedder("images") if self._given["images"] or "images.fingerprint" in self.meta else None
        with self._store.writing() as writer:
            with self._store.reading() as now:
                old = {known.name: known for known in now.documents()}
                broken = {} if anew else now.faults()
            waiting = {} if anew else writer.waiting()
            plan = _Plan(old, broken, waiting, anew)
            at = self.place if isinstance(self.place, Path) else Path("/")
            roots = [Path(os.path.normpath(at / root)) for root in self.meta["roots"].split("\n")]
            if missing := next((root for root in roots if not root.exists()), None):
                raise NotFound(f"{missing}, which the index follows, is gone; bring it back, or make the index anew.")
            todo = list(plan.sort(look(roots, self.base), pictures is not None, fields))
            work = _Work(self, writer, texts, pictures, plan, fields, len(todo), progress)
            with Reader() as reader:
                for found in todo:
                    work.take(found, reader)
                work.flush()
            gone = [name for name in old if name not in plan.there]
            meta = dict(self.meta)
            for what, made in (("texts", texts), ("images", pictures)):
                if made is not None:
                    meta[f"{what}.reference"] = meta.get(f"{what}.reference") or made.reference
                    meta[f"{what}.dimensions"], meta[f"{what}.fingerprint"] = str(made.dimensions), made.fingerprint
            changed = [*plan.done]
            faults_moved = plan.faults != broken
            if changed or gone or plan.touched or faults_moved or meta != self.meta or anew:
                writer.publish(changed, gone, plan.touched, plan.faults, meta)
            self.meta = meta
        faults = {name: said[2] for name, said in plan.faults.items()} | plan.passing
        return Changes(
            tuple(name for name in changed if name not in old), tuple(name for name in changed if name in old),
            tuple(gone), len(plan.there) - len(changed), faults, tuple(plan.left), work.n_chunks,
        )  # fmt: skip


class _Plan:
    """What there was, what there is, and what follows."""

    def __init__(
        self,
        old: Mapping[str, Known],
        broken: Mapping[str, tuple[int, int, str]],
        waiting: Mapping[str, Stamp],
        anew: bool,
    ) -> None:
        self.old, self.broken, self.waiting, self.anew = old, broken, waiting, anew
        self.there: set[str] = set()  # names that stay or come
        self.done: list[str] = []  # put, or waiting from last time
        self.touched: dict[str, Stamp] = {}  # the same content with another time
        self.faults: dict[str, tuple[int, int, str]] = {}
        self.passing: dict[str, str] = {}  # faults that are not the file's
        self.left: list[str] = []
        self.stamps: dict[str, Stamp] = {}

    def sort(
        self, seen: Iterable[Found | tuple[str, str]], pictures: bool, fields: Mapping[str, Mapping[str, str]]
    ) -> Iterator[Found]:
        """The files that must be read."""
        for found in seen:
            if not isinstance(found, Found):
                self.faults[found[0]] = (0, 0, found[1])
                continue
            if found.kind == "image" and not pictures:
                self.left.append(found.name)
                continue
            known, fault = self.old.get(found.name), self.broken.get(found.name)
            if fault and fault[:2] == (found.size, found.mtime):
                self.faults[found.name] = fault
                continue
            same = known is not None and not self.anew and found.name not in fields
            if known and same and (known.stamp.size, known.stamp.mtime) == (found.size, found.mtime):
                self.there.add(found.name)
                continue
            try:
                stamp = Stamp(found.size, found.mtime, digest(found.path))
            except BrollyError as error:
                self.passing[found.name] = str(error)
                continue
            if known and same and known.stamp.sha256 == stamp.sha256:
                self.touched[found.name] = stamp
                self.there.add(found.name)
            elif self.waiting.get(found.name) == stamp and found.name not in fields:
                self.done.append(found.name)
                self.there.add(found.name)
            else:
                self.stamps[found.name] = stamp
                yield found


class _Work:
    """Documents on their way into the index: read one by one, embedded and put by the window."""

    def __init__(
        self, index: Index, writer: Any, texts: Embedder, pictures: Embedder | None, plan: _Plan,
        fields: Mapping[str, Mapping[str, str]], n_files: int, progress: Progress | None,
    ) -> None:  # fmt: skip
        self.writer, self.texts, self.pictures, self.plan, self.fields = writer, texts, pictures, plan, fields
        self.size = min(int(index.meta.get("size") or SIZE), texts.reads)
        self.n_files, self.progress, self.n_done, self.n_chunks = n_files, progress, 0, 0
        self._waiting: list[tuple[Found, Document | None, list[Chunk]]] = []
        self._n = 0

    def take(self, found: Found, reader: Reader) -> None:
        try:
            if found.kind == "image":
                self._waiting.append(
                    (found, None, [Chunk(0, 0, Path(found.name).stem.replace("_", " ").replace("-", " "))])
                )
                self._n += 1
            else:
                self._read(found, reader)
        except MissingExtra as error:
            self.plan.passing[found.name] = str(error)  # not the file's fault: tried again next time
        except BrollyError as error:
            self.plan.faults[found.name] = (found.size, found.mtime, str(error).replace(str(found.path), found.name))
        self.n_done += 1
        if self.progress:
            self.progress(self.n_done, self.n_files, found.name)
        if self._n >= WINDOW:
            self.flush()

    def _read(self, found: Found, reader: Reader) -> None:
        document = read(found, reader)
        if document is None:
            self.plan.left.append(found.name)
            return
        parts = chunks(document, self.texts.count, self.size)
        if not document.title:
            document = Document(document.text, document.blocks, Path(found.name).stem, document.fields)
        self._waiting.append((found, document, parts))
        self._n += len(parts)

    def flush(self) -> None:
        """Embed what waits and put it; a picture that cannot be read becomes a fault."""
        import numpy as np

        whole = [(document, chunk) for _, document, parts in self._waiting if document for chunk in parts]
        some = []
        for start in range(0, len(whole), WINDOW):
            part = [
                headed(document.title, chunk.heading, chunk.text) for document, chunk in whole[start : start + WINDOW]
            ]
            some.append(self.texts.documents(part).astype(np.float16))
        vectors = np.concatenate(some) if some else np.zeros((0, self.texts.dimensions), np.float16)
        entries, at = [], 0
        seen = self._see([found for found, document, _ in self._waiting if document is None])
        for found, document, parts in self._waiting:
            said = dict(self.fields.get(found.name, {}))
            if document is None:
                if (one := seen.get(found.name)) is None:
                    continue
                rows, title, space = one, parts[0].text, PICTURES
            else:
                rows, title, space = vectors[at : at + len(parts)], document.title, TEXTS
                at += len(parts)
                said = {**document.fields, **said}
            counted = [" ".join(stems(headed(f"{title} {_words(found.name)}", c.heading, c.text))) for c in parts]
            entries.append(Entry(found.name, self.plan.stamps[found.name], space, title, said, parts, counted, rows))
        self.writer.put(entries)
        for entry in entries:
            self.plan.done.append(entry.name)
            self.plan.there.add(entry.name)
            self.n_chunks += len(entry.chunks)
        self._waiting, self._n = [], 0

    def _see(self, pictures: list[Found]) -> dict[str, Any]:
        """A vector for each picture that can be read, (1, dim) float16."""
        import numpy as np

        from brolly.adapt.retrieve.embedder import unit

        seen: dict[str, Any] = {}
        if not pictures:
            return seen
        assert self.pictures
        for one in self.pictures.model.stream_embed([found.path for found in pictures]):
            found = pictures[one.index]
            if one.error:
                if not isinstance(one.error, BrollyError) or isinstance(one.error, CheckpointError):
                    raise one.error
                self.plan.faults[found.name] = (found.size, found.mtime, str(one.error))
            else:
                seen[found.name] = unit(one.vector[None]).astype(np.float16)
        return seen


def headed(title: str, heading: str, text: str) -> str:
    """A chunk under its document's title and its headings, as it is embedded and counted."""
    above = heading if heading.startswith(title) else " > ".join(filter(None, (title, heading)))
    return f"{above}\n{text}" if above else text


def _words(name: str) -> str:
    """A path's words."""
    return name.rpartition(".")[0].replace("/", " ").replace("_", " ").replace("-", " ")


def _reranked(judge: Any, question: str, hits: list[Hit]) -> list[Hit]:
    """Texts in the order of a model that reads them beside the question; pictures stay behind them."""
    from dataclasses import replace

    texts = [hit for hit in hits if hit.kind == "text"]
    ranked = judge.rerank(question, [headed(hit.title, hit.heading, hit.text) for hit in texts])
    return [replace(texts[one.index], score=one.score) for one in ranked] + [hit for hit in hits if hit.kind != "text"]


def _relative(path: Path, place: Path) -> str:
    """A path as seen from the index, so that both may move together."""
    try:
        return Path(os.path.relpath(path, place.absolute())).as_posix()
    except ValueError:  # another drive
        return path.as_posix()


def _open(path: str | Path) -> tuple[str | Path, Store]:
    """The index at an address, in a folder, or beside a folder's documents."""
    if "://" in str(path):
        return str(path), _store(str(path), create=False)
    folder = Path(path).expanduser()
    if folder.name == NAME and folder.is_file():
        folder = folder.parent
    elif folder.is_file():
        folder = folder.parent / FOLDER
    elif not (folder / NAME).is_file() and (folder / FOLDER / NAME).is_file():
        folder = folder / FOLDER
    elif not (folder / NAME).is_file():
        raise NotFound(f"{folder} holds no index; make one with: brolly index {folder}")
    folder = folder.absolute()
    return folder, _store(folder, create=False)


def _store(place: str | Path, *, create: bool) -> Store:
    if isinstance(place, Path):
        return SqliteStore(place, create=create)
    if place.startswith(("postgresql://", "postgres://")):
        from brolly.adapt.retrieve.postgres import PostgresStore

        return PostgresStore(place, create=create)
    raise OptionError(f"{place!r:.80} is no place for an index; expected a folder or postgresql://user@host/database.")
