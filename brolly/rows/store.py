"""Where rows lie: a store knows how many there are and reads any one of them, and holds none but places in memory."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from brolly.errors import MissingExtra, NotFound, RecipeError
from brolly.rows.fault import RowFault

MAX_LINE = 64 * 2**20  # bytes of a row of text
CHUNK = 2**20
KEPT_FREE = 2**29  # bytes of the disk that unpacking leaves alone
PACKED = (".gz", ".xz", ".zst")


class Store(Protocol):
    """Raw rows, by number from 0."""

    base: Path  # the folder that paths in rows are relative to
    notes: list[str]  # what was left out, in words

    def __len__(self) -> int: ...
    def where(self, i: int) -> str: ...
    def fields(self, i: int) -> Mapping[str, Any]: ...  # raises RowFault
    def stream(self) -> Iterator[Mapping[str, Any] | RowFault]: ...  # every row in order
    def digest(self) -> str: ...


class Bytes:
    """A file's bytes anywhere in it; a packed file is unpacked once, into a temporary file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file: BinaryIO = unpacked(path) if path.suffix in PACKED else opened(path)
        self.size = os.fstat(self.file.fileno()).st_size

    def at(self, start: int, end: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self.file.fileno(), end - start, start)
        self.file.seek(start)
        return self.file.read(end - start)

    def chunks(self, size: int = CHUNK) -> Iterator[bytes]:
        for start in range(0, self.size, size):
            yield self.at(start, min(start + size, self.size))

    def __del__(self) -> None:
        if file := self.__dict__.get("file"):
            file.close()


def opened(path: Path) -> BinaryIO:
    """A regular file to read. Raises NotFound, RecipeError."""
    try:
        if not path.is_file():
            if path.exists():
                raise RecipeError(f"{path} is no regular file; expected one that holds rows.")
            raise NotFound(f"{path} does not exist; expected a file or a folder of data.")
        return path.open("rb")
    except OSError as error:
        raise RecipeError(f"{path} cannot be read ({error.strerror}).") from None


def unpacked(path: Path) -> BinaryIO:
    """A packed file's content in a temporary file without a name. Raises RecipeError, MissingExtra."""
    import lzma
    import zlib

    out: Any = tempfile.TemporaryFile()  # noqa: SIM115
    try:
        with opener(path) as file:
            while part := file.read(16 * CHUNK):
                if shutil.disk_usage(tempfile.gettempdir()).free < KEPT_FREE + len(part):
                    raise RecipeError(
                        f"{path} does not fit unpacked into {tempfile.gettempdir()}; unpack it where there is room, or "
                        "set TMPDIR to a folder with more."
                    )
                out.write(part)
        out.flush()
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise RecipeError(f"{path} cannot be unpacked ({str(error)[:100]}).") from None
    return out


def opener(path: Path) -> Any:
    """A packed file opened for its content."""
    import gzip
    import lzma

    opened(path).close()
    if path.suffix == ".gz":
        return gzip.open(path)
    if path.suffix == ".xz":
        return lzma.open(path)
    try:
        from compression import zstd  # Python 3.14

        return zstd.open(path)
    except ImportError:
        pass
    try:
        import pyarrow

        return pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), "zstd")
    except ImportError:
        raise MissingExtra(f"unpacking {path.name}", "parquet") from None


def object_of(raw: bytes, where: str) -> Mapping[str, Any]:
    """A JSON object. Raises RowFault."""
    if len(raw) > MAX_LINE:
        raise RowFault(where, f"has {len(raw):,} bytes, and a row has {MAX_LINE:,} at most")
    try:
        found = json.loads(raw)
    except UnicodeDecodeError:
        raise RowFault(where, "is not text in UTF-8") from None
    except RecursionError:
        raise RowFault(where, "is nested too deep") from None
    except json.JSONDecodeError as error:
        raise RowFault(where, f"is not JSON ({error.msg.removesuffix(' at')} at character {error.pos + 1:,})") from None
    except ValueError as error:  # a number of too many digits
        raise RowFault(where, f"is not JSON ({str(error)[:80]})") from None
    if not isinstance(found, dict):
        raise RowFault(where, f"holds {article(found)}, not an object of columns")
    return found


def article(value: Any) -> str:
    """What kind of value this is, in words."""
    words = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "nothing"}
    return words.get(type(value), "a number" if isinstance(value, (int, float)) else f"a {type(value).__name__}")


class Lines:
    """JSONL: a row a line, by the byte at which each begins."""

    def __init__(self, path: Path) -> None:
        self.bytes, self.base, self.path = Bytes(path), path.parent, path
        self.notes: list[str] = []
        self.starts, self.blanks = lines_of(self.bytes)

    def __len__(self) -> int:
        return len(self.starts)

    def where(self, i: int) -> str:
        return f"{self.path.name}, line {i + 1 + bisect_right(self.blanks, i)}"

    def fields(self, i: int) -> Mapping[str, Any]:
        start = self.starts[i]
        end = self.starts[i + 1] if i + 1 < len(self.starts) else self.bytes.size
        if end - start > MAX_LINE:
            raise RowFault(self.where(i), f"has {end - start:,} bytes, and a row has {MAX_LINE:,} at most")
        raw = self.bytes.at(start, end)
        if raw[:3] == b"\xef\xbb\xbf":
            raw = raw[3:]
        return object_of(raw, self.where(i))

    def stream(self) -> Iterator[Mapping[str, Any] | RowFault]:
        return in_order(self)

    def digest(self) -> str:
        return hash_of(self.path)


def lines_of(file: Bytes) -> tuple[array[int], array[int]]:
    """The byte at which each line begins that is not blank, and for each blank one the number of rows before it."""
    import numpy as np

    starts, blanks = array("q"), array("q")
    begin, inked = 0, False  # of the line that the last chunk left open
    at = 0
    for chunk in file.chunks():
        data = np.frombuffer(chunk, np.uint8)
        breaks = np.flatnonzero(data == 10)
        if len(breaks):
            firsts, last = np.concatenate(([0], breaks[:-1] + 1)), int(breaks[-1]) + 1
            ink = np.logical_or.reduceat(data[:last] > 32, firsts)
            ink[0] |= inked
            places = at + firsts
            places[0] = begin
            before = len(starts) + np.cumsum(ink) - ink
            blanks.frombytes(before[~ink].astype(np.int64).tobytes())
            starts.frombytes(places[ink].astype(np.int64).tobytes())
            begin, inked, data = at + last, False, data[last:]
        inked = inked or bool((data > 32).any())
        at += len(chunk)
    if inked:
        starts.append(begin)
    return starts, blanks


class Array:
    """JSON: a list of objects in one file, by the bytes at which each begins and ends."""

    def __init__(self, path: Path) -> None:
        self.bytes, self.base, self.path = Bytes(path), path.parent, path
        self.notes: list[str] = []
        self.starts, self.ends = items_of(self.bytes, path)

    def __len__(self) -> int:
        return len(self.starts)

    def where(self, i: int) -> str:
        return f"{self.path.name}, item {i + 1}"

    def fields(self, i: int) -> Mapping[str, Any]:
        start, end = self.starts[i], self.ends[i]
        if end - start > MAX_LINE:
            raise RowFault(self.where(i), f"has {end - start:,} bytes, and a row has {MAX_LINE:,} at most")
        return object_of(self.bytes.at(start, end), self.where(i))

    def stream(self) -> Iterator[Mapping[str, Any] | RowFault]:
        return in_order(self)

    def digest(self) -> str:
        return hash_of(self.path)


def items_of(file: Bytes, path: Path) -> tuple[array[int], array[int]]:
    """Where each item of a JSON list begins and ends. Raises RecipeError where the list itself is broken."""
    import re

    token = re.compile(rb'[\[\]{},"]')
    end_of_text = re.compile(rb'["\\]')
    starts, ends = array("q"), array("q")
    depth, text, skip, at, begin = 0, False, False, 0, 0
    for chunk in file.chunks():
        i = 1 if skip else 0
        skip = False
        while True:
            found = (end_of_text if text else token).search(chunk, i)
            if not found:
                break
            i, c = found.end(), found.group()
            if text:
                text = c == b"\\"
                if text:
                    i, skip = i + 1, i == len(chunk)
                continue
            if c == b'"':
                text = True
            elif c in b"[{":
                depth += 1
                if depth == 1:
                    begin = at + i
            elif c in b"]}":
                depth -= 1
            if (depth == 1 and c == b",") or (depth == 0 and c == b"]"):
                end = at + i - 1
                if depth == 1 or starts or file.at(begin, min(end, begin + CHUNK)).strip():
                    starts.append(begin)
                    ends.append(end)
                begin = at + i
            if depth == 0 and c in b"]}":
                return starts, ends
        at += len(chunk)
    raise RecipeError(f"{path} ends within its list; it was cut short, or is not JSON.")


class Given:
    """Rows that are in memory already."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.rows, self.base = rows, Path()
        self.notes: list[str] = []

    def __len__(self) -> int:
        return len(self.rows)

    def where(self, i: int) -> str:
        return f"row {i + 1}"

    def fields(self, i: int) -> Mapping[str, Any]:
        found = self.rows[i]
        if not isinstance(found, Mapping):
            raise RowFault(self.where(i), f"is {article(found)}, not a dict of columns")
        return found

    def stream(self) -> Iterator[Mapping[str, Any] | RowFault]:
        return in_order(self)

    def digest(self) -> str:
        return hash_of_rows(self)


class Joined:
    """Several files, one after another."""

    def __init__(self, stores: Sequence[Store], base: Path) -> None:
        self.stores, self.base = list(stores), base
        self.notes = [note for store in stores for note in store.notes]
        self.starts = [0]
        for store in stores:
            self.starts.append(self.starts[-1] + len(store))

    def __len__(self) -> int:
        return self.starts[-1]

    def _at(self, i: int) -> tuple[Store, int]:
        which = bisect_right(self.starts, i) - 1
        return self.stores[which], i - self.starts[which]

    def where(self, i: int) -> str:
        store, i = self._at(i)
        return store.where(i)

    def fields(self, i: int) -> Mapping[str, Any]:
        store, i = self._at(i)
        return store.fields(i)

    def stream(self) -> Iterator[Mapping[str, Any] | RowFault]:
        for store in self.stores:
            yield from store.stream()

    def digest(self) -> str:
        return hashlib.sha256("".join(store.digest() for store in self.stores).encode()).hexdigest()


def in_order(store: Store) -> Iterator[Mapping[str, Any] | RowFault]:
    """Every row of a store that reads any of them equally well."""
    for i in range(len(store)):
        try:
            found: Mapping[str, Any] | RowFault = store.fields(i)
        except RowFault as fault:
            found = fault
        yield found


def hash_of(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    file: Any
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_of_rows(store: Store) -> str:
    """SHA-256 of all rows, for those that are no file."""
    seal = hashlib.sha256()
    for row in store.stream():
        text = str(row) if isinstance(row, RowFault) else json.dumps(row, sort_keys=True, default=_plain)
        seal.update(text.encode("utf-8", "surrogatepass") + b"\n")
    return seal.hexdigest()


def _plain(value: Any) -> str:
    return hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else str(value)
