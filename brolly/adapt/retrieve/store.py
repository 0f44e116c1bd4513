"""What an index keeps, and the Protocol that keeps it: one for a folder of this disk, one for a team's server."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from brolly.adapt.retrieve.chunks import Chunk

TEXTS, PICTURES = 0, 1  # the two spaces of vectors


class Stamp(NamedTuple):
    """A file as it was when it was read."""

    size: int
    mtime: int  # nanoseconds
    sha256: str


class Known(NamedTuple):
    """A document of the index without its chunks."""

    id: int
    name: str  # its path below the index's root, with /
    stamp: Stamp
    space: int
    title: str
    fields: Mapping[str, str]
    n_chunks: int


class Entry(NamedTuple):
    """A document to be kept: its chunks, their stems for counting, and their vectors (n, dim) float16, of length 1."""

    name: str
    stamp: Stamp
    space: int
    title: str
    fields: Mapping[str, str]
    chunks: Sequence[Chunk]
    stems: Sequence[str]
    vectors: Any


class Match(NamedTuple):
    """A chunk that was found one way, and how well."""

    id: int
    score: float


class Kept(NamedTuple):
    """A chunk as it was kept."""

    id: int
    document: int
    name: str
    title: str
    space: int
    chunk: Chunk


class Reading(Protocol):
    """The index as it was at one moment."""

    def meta(self) -> dict[str, str]: ...
    def documents(self) -> list[Known]: ...
    def faults(self) -> dict[str, tuple[int, int, str]]: ...  # name: size, mtime, what was wrong
    def near(self, space: int, vector: Any, top: int, among: Collection[int] | None) -> tuple[list[Match], Any]:
        """The chunks of some documents (None: all) nearest to a vector by their cosine, and a sample of all cosines."""
        ...

    def worded(self, stems: Sequence[str], top: int, among: Collection[int] | None) -> list[Match]: ...
    def frequencies(self, stems: Sequence[str]) -> tuple[dict[str, int], int]:
        """In how many chunks each stem stands, and how many chunks there are."""
        ...

    def fetch(self, ids: Iterable[int]) -> dict[int, Kept]: ...


class Writing(Protocol):
    """Changes that nobody sees until `publish`. What was put is kept over a crash for the next try."""

    def put(self, entries: Sequence[Entry]) -> None: ...
    def waiting(self) -> dict[str, Stamp]:
        """Documents that were put, and not published, by a writer that did not come to its end."""
        ...

    def publish(
        self, changed: Collection[str], gone: Collection[str], touched: Mapping[str, Stamp],
        faults: Mapping[str, tuple[int, int, str]], meta: Mapping[str, str],
    ) -> None:  # fmt: skip
        """All at once: the documents put and named in `changed` take their old ones' place, those gone leave."""
        ...


class Store(Protocol):
    """Where an index lies. Many may read; one writes, and a second one raises Busy."""

    def reading(self) -> AbstractContextManager[Reading]: ...
    def writing(self) -> AbstractContextManager[Writing]: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Hit:
    """A chunk or a picture that was found. `score` orders hits of one search and means nothing beside another's;
    `cosine` is of the question's vector and the chunk's, where that was among the nearest."""

    name: str
    text: str
    score: float
    start: int = 0  # characters of the document's text
    end: int = 0
    line: int = 1
    page: int | None = None
    heading: str = ""
    title: str = ""
    kind: str = "text"  # or "image"
    cosine: float | None = None
    id: int = 0
    document: int = 0
    path: str = field(default="", compare=False)  # the file's, on this disk

    @property
    def place(self) -> str:
        """Where to look it up: guide.pdf, page 3."""
        if self.kind == "image":
            return self.name
        where = f", page {self.page}" if self.page else f", line {self.line}" if self.line > 1 else ""
        return self.name + where
