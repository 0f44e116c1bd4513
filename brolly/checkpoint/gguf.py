"""GGUF versions 1 to 3, both byte orders, split files: typed key-values, tensor descriptions; blocks are not decoded.

Long arrays (a vocabulary, its merges) are walked and left where they lie: they become sequences that decode on demand.
"""

from __future__ import annotations

import mmap
import re
import struct
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain
from math import prod
from typing import Any, BinaryIO

from brolly.card import TensorInfo
from brolly.checkpoint.bounded import MAX_TENSORS, note, opened, shape_of, shown
from brolly.errors import CheckpointError
from brolly.place import Place, Where

# type id: (name, elements a block, bytes a block); ggml.h and ggml-common.h of llama.cpp, September 2026
TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 40), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292), 16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2),
    26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8), 29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2),
    31: ("Q4_0_4_4", 32, 18), 32: ("Q4_0_4_8", 32, 18), 33: ("Q4_0_8_8", 32, 18), 34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66), 36: ("IQ4_NL_4_4", 32, 18), 37: ("IQ4_NL_4_8", 32, 18), 38: ("IQ4_NL_8_8", 32, 18),
    39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18), 42: ("Q2_0", 64, 18),
}  # fmt: skip
REMOVED = {4: "Q4_2", 5: "Q4_3"}  # given up before GGUF began
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
MAX_PARSED = 80 * 2**20  # bytes of Python objects; a vocabulary of 200,000 and its merges take 50 MB
MAX_TEXT = 2**22  # bytes
MAX_WORD = 2**16  # bytes of a text in a long array
MAX_WORDS = 4_000_000  # of all long arrays; the largest vocabularies and their merges have under a million
MAX_WALKED = 128 * 2**20  # bytes of all long arrays of texts
MAX_KEYS = 65_536
MAX_PARTS = 4096
FEW = 256  # elements of an array that is simply a list
PART = 128  # elements that a long array decodes at a time
FIRST = 2**18  # bytes fetched of a file that cannot be mapped, and at least added until the header is whole
MAX_FETCHED = 64 * 2**20
SPLIT = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")
# PART texts of up to 63 bytes behind little-endian lengths of eight bytes; twice as fast as unpacking each length.
# The commonest lengths come first, as alternatives are tried in turn; possessive, so that nothing is tried twice.
_ONE = rb"|".join(rb"\x%02x\0{7}+.{%d}+" % (n, n) for n in sorted(range(64), key=lambda n: abs(n - 7.2)))


def read_gguf(path: Where, faults: list[CheckpointError] | None = None) -> tuple[dict[str, TensorInfo], dict[str, Any]]:
    """Tensors (shapes row-major) and key-values of one file. Raises CheckpointError.

    A file cut short, or a big-endian one, whose numbers would be taken for others, is refused; with `faults`, that is
    told there.
    """
    with opened(path) as (file, size):
        if size < 16:
            raise CheckpointError(f"{path} has {size} bytes; a GGUF header has at least 16.")
        raw = _mapped(path, file) or _fetched(file, FIRST, size)
        while True:
            cursor = _Cursor(raw, path, size)
            try:
                tensors, metadata = _read(cursor)
                break
            except (struct.error, OverflowError, MemoryError, _Short) as error:
                more = b""
                if isinstance(error, (struct.error, _Short)) and len(raw) < min(size, MAX_FETCHED):
                    wanted = max(getattr(error, "needed", 0) - len(raw), len(raw) // 4) + FIRST
                    more = _fetched(file, wanted, size - len(raw))
                if not more:
                    told = f"{path} ends in the middle of its GGUF header; download it again."
                    raise CheckpointError(told) from None
                raw = raw[:] + more
    found = [_cut_short(tensors, path, size)]
    if cursor.order == ">":  # nothing is wrong with it; only loading would take its numbers for others
        found.append(CheckpointError(f"{path} is big-endian; convert the model for little-endian machines.", ""))
    for fault in filter(None, found):
        note(faults, fault)
    return tensors, metadata


def _cut_short(tensors: dict[str, TensorInfo], path: Where, size: int) -> CheckpointError | None:
    """What is wrong where the data ends before its tensors do."""
    for info in tensors.values():
        if info.nbytes and info.offset + info.nbytes > size:
            what = f"tensor {shown(info.name)} ends at {info.offset + info.nbytes:,}: incomplete."
            return CheckpointError(f"{path} has {size:,} bytes; {what}", "broken-file", path.name)
    return None


def read_gguf_split(
    first: Where, faults: list[CheckpointError] | None = None
) -> tuple[dict[str, TensorInfo], dict[str, Any], tuple[Where, ...]]:
    """All parts of a model split into name-00001-of-0000N.gguf: tensors, the first part's key-values, the files.

    Raises CheckpointError; with `faults`, what is missing or broken is told there, and the rest is still read.
    """

    def fault(message: str, finding: str, file: str) -> None:
        error = CheckpointError(message, finding, file)
        note(faults, error)

    matched = SPLIT.fullmatch(first.name)
    if not matched or not 0 < int(matched[3]) <= MAX_PARTS:
        raise CheckpointError(f"{first} is not part of a split model; expected a name like x-00001-of-00003.gguf.")
    stem, count = matched[1], int(matched[3])
    places = [first.parent / f"{stem}-{i:05d}-of-{count:05d}.gguf" for i in range(1, count + 1)]
    files = [p for p in places if p.is_file()]
    if missing := [p.name for p in places if p not in files]:
        named = f"{first.parent / stem} lacks {len(missing)} of its {count} parts ({missing[0]} …); pull it again."
        fault(named, "missing-shards", missing[0])
    tensors: dict[str, TensorInfo] = {}
    metadata: dict[str, Any] = {}
    whole = not missing
    for file in files:
        try:
            found, said = read_gguf(file, faults)
        except CheckpointError as error:
            error.file = error.file or file.name
            note(faults, error)
            whole = False
            continue
        if said.get("split.count", count) != count:
            told = f"{file} says that it is one of {shown(said['split.count'])} parts, and its name one of {count}."
            fault(told, "index-mismatch", file.name)
        if twice := found.keys() & tensors.keys():
            fault(f"{file} holds {shown(min(twice))}, as another part does.", "duplicate-tensors", file.name)
        tensors |= {name: info for name, info in found.items() if name not in tensors}
        metadata = {**said, **metadata}
    promised = metadata.get("split.tensors.count", len(tensors))
    if whole and promised != len(tensors):
        told = (
            f"{first} promises {shown(promised)} tensors, and its {count} parts hold {len(tensors):,}; pull it again."
        )
        fault(told, "index-mismatch", first.name)
    if not files or not (tensors or metadata):
        raise CheckpointError(f"{first}: none of its {count} parts can be read; pull it again.", "missing-shards")
    return tensors, metadata, tuple(files)


class _Short(Exception):
    """The bytes at hand end before the header does; `needed` of them may be enough."""

    def __init__(self, needed: int) -> None:
        self.needed = needed


def _mapped(path: Where, file: BinaryIO) -> mmap.mmap | None:
    """The whole file without reading it, where the system can."""
    if not isinstance(path, Place):
        with suppress(OSError, ValueError):
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return None


def _fetched(file: BinaryIO, n_bytes: int, left: int) -> bytes:
    """The next bytes of a file that cannot be mapped, no more than its size says."""
    found, wanted = [], min(n_bytes, left, MAX_FETCHED)
    while wanted > 0 and (more := file.read(wanted)):
        found.append(more)
        wanted -= len(more)
    return b"".join(found)


class Lazy(Sequence[Any]):
    """A long array of a header, decoded a part at a time when it is looked at; equal to the list that it stands for."""

    def __init__(self, raw: mmap.mmap | bytes, n: int, source: str) -> None:
        self.raw, self.n, self.source = raw, n, source
        self.last: tuple[int, Sequence[Any]] = (-1, ())

    def __len__(self) -> int:
        return self.n

    def part(self, i: int) -> Sequence[Any]:
        """Elements from PART · i on, up to PART of them."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[Any]:
        return chain.from_iterable(map(self.part, range(-(-self.n // PART))))

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(self.n))]
        i += self.n if i < 0 else 0
        if not 0 <= i < self.n:
            raise IndexError(i)
        if self.last[0] != i // PART:
            self.last = (i // PART, self.part(i // PART))
        return self.last[1][i % PART]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (list, tuple)):
            return NotImplemented
        return self.n == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{self.n:,} values of {self.source}>"


class Numbers(Lazy):
    """An array of numbers or truths."""

    def __init__(self, raw: mmap.mmap | bytes, at: int, n: int, layout: str, source: str) -> None:
        super().__init__(raw, n, source)
        self.at, self.layout, self.each = at, layout, struct.calcsize(layout)

    def part(self, i: int) -> Sequence[Any]:
        few = min(PART, self.n - i * PART)
        return struct.unpack_from(f"{self.layout[0]}{few}{self.layout[1]}", self.raw, self.at + i * PART * self.each)


class Texts(Lazy):
    """An array of texts; `marks` are the offsets of every PART-th, and of the end."""

    def __init__(self, raw: mmap.mmap | bytes, marks: list[int], n: int, length: struct.Struct, source: str) -> None:
        super().__init__(raw, n, source)
        self.marks, self.length = marks, length

    def part(self, i: int) -> list[str]:
        begin, width, unpack = self.marks[i], self.length.size, self.length.unpack_from
        raw, at, found = self.raw[begin : self.marks[i + 1]], 0, []
        for _ in range(min(PART, self.n - i * PART)):
            end = at + width + unpack(raw, at)[0]
            found.append(raw[at + width : end].decode("utf-8", "replace"))
            at = end
        return found

    def __iter__(self) -> Iterator[str]:
        return chain.from_iterable(self._charged())

    def _charged(self) -> Iterator[list[str]]:
        left = MAX_PARSED
        for i in range(len(self.marks) - 1):
            found = self.part(i)
            left -= sum(map(sys.getsizeof, found)) + 10 * len(found)
            if left < 0:
                raise CheckpointError(
                    f"{self.source}: its texts would take over {MAX_PARSED:,} bytes; no real file's do."
                )
            yield found


class _Cursor:
    """Walks the header; every length is held against the file and the memory left, before it is believed."""

    def __init__(self, raw: mmap.mmap | bytes, path: Where, size: int) -> None:
        self.raw, self.path, self.size = raw, path, size
        self.at, self.left, self.words, self.walk = 0, MAX_PARSED, MAX_WORDS, MAX_WALKED
        self.order, self.wide = "<", "Q"  # of numbers; of lengths and counts
        self.length = struct.Struct("<Q")

    def begin(self, order: str, version: int) -> None:
        self.order, self.wide = order, "I" if version == 1 else "Q"
        self.length = struct.Struct(order + self.wide)

    def numbers(self, codes: str) -> tuple[Any, ...]:
        found = struct.unpack_from(self.order + codes, self.raw, self.at)
        self.at += struct.calcsize(self.order + codes)
        return found

    def spend(self, n_bytes: int) -> None:
        self.left -= n_bytes
        if self.left < 0:
            raise CheckpointError(
                f"{self.path}: its key-values would take over {MAX_PARSED:,} bytes; no real header does."
            )

    def text(self, most: int = MAX_TEXT) -> str:
        at = self._past(self.at, 1, most)
        text = self.raw[self.at + self.length.size : at].decode("utf-8", "replace")
        self.spend(sys.getsizeof(text) + 10)
        self.at = at
        return text

    def _past(self, at: int, count: int, most: int) -> int:
        """Where `count` texts end that begin at `at`."""
        raw, size, width, unpack = self.raw, len(self.raw), self.length.size, self.length.unpack_from
        for _ in range(count):
            n = unpack(raw, at)[0]
            at += width + n
            if n > most or at > size:
                if n > most or at > self.size:
                    raise CheckpointError(f"{self.path}: a text claims {n:,} bytes, more than a header can hold.")
                raise _Short(at)
        return at

    def texts(self, count: int, key: str) -> Sequence[str]:
        """`count` texts, each behind its length."""
        self.fits(count, self.length.size)
        if count <= FEW:
            return [self.text() for _ in range(count)]
        self.words -= count
        if self.words < 0:
            raise CheckpointError(f"{self.path}: its arrays claim over {MAX_WORDS:,} texts; no real header does.")
        at, marks = self.at, [self.at]
        run = re.compile(rb"(?:%s){%d}+" % (_ONE, PART), re.DOTALL).match if self.length.format == "<Q" else None
        for left in range(count, 0, -PART):
            found = run(self.raw, at) if run and left >= PART else None
            try:
                at = found.end() if found else self._past(at, min(PART, left), MAX_WORD)
            except (_Short, struct.error):  # as long again as the texts so far, each
                raise _Short(self.at + count * (at - self.at) // (count - left or 1)) from None
            marks.append(at)
            if at - self.at > self.walk:
                raise CheckpointError(f"{self.path}: its arrays claim over {MAX_WALKED:,} bytes of text.")
        self.walk -= at - self.at
        self.at = at
        return Texts(self.raw, marks, count, self.length, f"{self.path}: {shown(key)}")

    def value(self, kind: int, key: str, depth: int = 0) -> Any:
        if kind in SCALARS:
            return self.numbers(SCALARS[kind])[0]
        if kind == STRING:
            return self.text()
        if kind != ARRAY or depth > 2:
            raise CheckpointError(f"{self.path}: a value of GGUF type {kind}, nested {depth} deep, is not known.")
        inner, count = self.numbers("I" + self.wide)
        if inner == STRING:
            return self.texts(count, key)
        if inner not in SCALARS:
            self.fits(count, 4 + self.length.size)
            self.spend(512 * count)  # no real file nests arrays, and they are slow to read
            return [self.value(inner, key, depth + 1) for _ in range(count)]
        layout = self.order + SCALARS[inner]
        each = struct.calcsize(layout)
        self.fits(count, each)
        if count <= FEW:
            self.spend((56 if each == 8 else 40) * count)
            return list(self.numbers(f"{count}{layout[1]}"))
        self.at += count * each
        if self.at > len(self.raw):
            raise _Short(self.at)
        return Numbers(self.raw, self.at - count * each, count, layout, f"{self.path}: {shown(key)}")

    def fits(self, count: int, each: int) -> None:
        if count * each > self.size - self.at:
            raise CheckpointError(f"{self.path}: an array claims {count:,} elements, more than the file holds.")


def _read(cursor: _Cursor) -> tuple[dict[str, TensorInfo], dict[str, Any]]:
    path = cursor.path
    magic, version = cursor.raw[:4], int.from_bytes(cursor.raw[4:8], "little")
    order = "<"
    if version in (1 << 24, 2 << 24, 3 << 24):
        order, version = ">", version >> 24
    if magic != b"GGUF" or version not in (1, 2, 3):
        found = f"version {version} of GGUF" if magic == b"GGUF" else f"not a GGUF file: it begins with {shown(magic)}"
        raise CheckpointError(f"{path} is {found}; expected version 1, 2 or 3. Download or convert it again.")
    cursor.at = 8
    cursor.begin(order, version)
    n_tensors, n_pairs = cursor.numbers(2 * cursor.wide)
    if n_tensors > MAX_TENSORS or n_pairs > MAX_KEYS:
        raise CheckpointError(f"{path} claims {n_tensors:,} tensors and {n_pairs:,} key-values; no real file does.")
    if not n_tensors and not n_pairs:
        raise CheckpointError(f"{path} holds neither tensors nor key-values; expected a model. Download it again.")
    metadata: dict[str, Any] = {}
    for _ in range(n_pairs):
        key = cursor.text()
        if key in metadata:
            raise CheckpointError(f"{path} has the key {shown(key)} twice; the file is damaged or made up.")
        cursor.spend(100)  # the key's place, its value
        metadata[key] = cursor.value(cursor.numbers("I")[0], key)
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or not 0 < alignment <= 2**20 or alignment & (alignment - 1):
        raise CheckpointError(f"{path}: general.alignment is {shown(alignment)}; expected a power of two.")
    rows = [_row(cursor) for _ in range(n_tensors)]
    start = -(-cursor.at // alignment) * alignment
    tensors: dict[str, TensorInfo] = {}
    end = 0
    for name, shape, kind, at in sorted(rows, key=lambda row: row[3]):
        info = _tensor(name, shape, kind, start + at, path)
        if name in tensors or at % alignment or (info.nbytes and info.offset < end):
            fault = "occurs twice" if name in tensors else "is not aligned" if at % alignment else "overlaps another"
            raise CheckpointError(f"{path}: tensor {shown(name)} {fault}; the file is damaged or made up.")
        tensors[name] = info
        end = info.offset + info.nbytes
    return {name: tensors[name] for name, *_ in rows}, metadata


def _row(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    """One description: name, row-major shape, type, offset within the data."""
    name, n_dims = cursor.text(), cursor.numbers("I")[0]
    if n_dims > 16:
        raise CheckpointError(f"{cursor.path}: tensor {shown(name)} claims {n_dims} dimensions; GGUF has at most 4.")
    cursor.spend(400 + 50 * n_dims)  # the row, the shape, the description made of them
    *dims, kind, at = cursor.numbers(f"{n_dims}{cursor.wide}IQ")
    return name, tuple(dims[::-1]), kind, at


def _tensor(name: str, shape: tuple[int, ...], kind: int, offset: int, path: Where) -> TensorInfo:
    if kind not in TYPES:
        named = f" ({REMOVED[kind]}, given up in 2023)" if kind in REMOVED else ""
        raise CheckpointError(f"{path}: tensor {shown(name)} has GGUF type {kind}{named}, which is not known here.")
    dtype, block, block_bytes = TYPES[kind]
    if max(shape, default=0) >= 2**48:
        shape_of(shape, f"{path}: tensor {shown(name)}")
    count = prod(shape)
    if count and (shape[-1] if shape else 1) % block:
        raise CheckpointError(
            f"{path}: tensor {shown(name)} {shown(shape)} does not divide into {dtype} blocks of {block}."
        )
    return TensorInfo(name, dtype, shape, path, offset, count // block * block_bytes)
