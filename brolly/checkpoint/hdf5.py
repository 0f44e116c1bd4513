"""HDF5's groups, datasets and attributes from their headers; no dataset's contents are read."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from math import prod
from typing import Any, BinaryIO

from brolly.card import BITS, Header, TensorInfo
from brolly.checkpoint.bounded import MAX_DEPTH, MAX_TENSORS, opened, shown
from brolly.checkpoint.hdf5file import (
    ATTRIBUTE,
    ATTRIBUTE_INFO,
    ENUM,
    EXTERNAL,
    INTEGER,
    LAYOUT,
    MAX_NAME,
    MAX_OBJECTS,
    SPACE,
    STRING,
    TYPE,
    File,
    Message,
    Raw,
    Type,
)  # fmt: skip
from brolly.errors import CheckpointError
from brolly.place import Where

MAX_VALUES = 100_000  # of one attribute; one of more is told as None


def read_hdf5(path: Where) -> Header:
    """Datasets by their path without the first slash. Raises CheckpointError.

    The metadata are the root's attributes; "/name" holds those of a group within the root, and "/" what this reader
    tells: "chunked" (datasets that do not lie in one piece), "unwritten", "external_links", "external_files",
    "soft_links", "big_endian", "other_types".
    """
    with opened(path) as (file, size):
        return read_open(file, size, path)


def read_open(file: BinaryIO, size: int, path: Where) -> Header:
    """The same of a file that is open."""
    try:
        walk = _Walk(File(file, size, path), path)
        walk.all()
    except (struct.error, IndexError, OverflowError, RecursionError, MemoryError):
        raise CheckpointError(f"{path} ends in the middle of an HDF5 header; download it again.") from None
    return Header(path, "hdf5", walk.tensors, {}, walk.attributes | {"/": walk.told}, (path,))


class _Walk:
    """From the root down: what was found."""

    def __init__(self, file: File, path: Where) -> None:
        self.file, self.path = file, path
        self.tensors: dict[str, TensorInfo] = {}
        self.attributes: dict[str, Any] = {}
        self.told: dict[str, Any] = {}
        self.heaps: dict[int, dict[int, tuple[int, int]]] = {}

    def tell(self, key: str, value: str) -> None:
        rows = self.told.setdefault(key, [])
        if len(rows) < 1000:
            rows.append(value[:300])

    def all(self) -> None:
        seen: set[int] = set()
        waiting = [("", self.file.root, 0)]
        while waiting:
            name, address, depth = waiting.pop()
            if address in seen:
                continue  # a second name of the same object
            seen.add(address)
            if len(seen) > MAX_OBJECTS or depth > MAX_DEPTH:
                raise CheckpointError(f"{self.path} has over {MAX_OBJECTS:,} objects or {MAX_DEPTH} levels of groups.")
            messages = self.file.messages(address)
            if any(m.kind == LAYOUT for m in messages):
                self.dataset(name, messages)
                continue
            if depth < 2:
                found = dict(self.attributes_of(messages))
                if depth:
                    self.attributes |= {f"/{name}": found} if found else {}
                else:
                    self.attributes = found
            inner = []
            for child, at, kind in self.file.children(messages):
                full = f"{name}/{child}" if name else child
                if kind:
                    self.tell(f"{kind}_links", full)
                else:
                    self.file.spend(len(full))
                    inner.append((full, at, depth + 1))
                if len(inner) > MAX_OBJECTS or len(full) > MAX_NAME:
                    raise CheckpointError(f"{self.path}: a group of more names than any real file has.")
            waiting += reversed(inner)

    def dataset(self, name: str, messages: list[Message]) -> None:
        where = f"{self.path}: dataset {shown(name)}"
        by_kind = {m.kind: m for m in reversed(messages)}
        if SPACE not in by_kind or TYPE not in by_kind or len(self.tensors) >= MAX_TENSORS or name in self.tensors:
            raise CheckpointError(f"{where} has no shape or type, occurs twice, or is one too many; download it again.")
        shape = self.file.shape(Raw(by_kind[SPACE].raw), where)
        kind = self.file.type_of(by_kind[TYPE])
        word = kind.word
        if (
            kind.size == 2
            and word in ("", "U16", "F16")
            and dict(self.attributes_of(messages)).get("dtype") == "bfloat16"
        ):
            word = "BF16"  # Keras marks what HDF5 has no type for
        if shape is None or not word:
            self.tell("other_types", name)
            return
        nbytes = prod(shape) * BITS[word] // 8
        start, stored = self.layout(Raw(by_kind[LAYOUT].raw))
        if EXTERNAL in by_kind:
            self.tell("external_files", name)
        elif start is None:
            self.tell("chunked", name)
        elif start == self.file.nowhere:
            self.tell("unwritten", name)
        elif stored != nbytes or self.file.base + start + nbytes > self.file.size:
            raise CheckpointError(f"{where} is {word} {shown(shape)} and has {stored:,} bytes: incomplete.")
        if kind.big and kind.size > 1:
            self.tell("big_endian", name)
        lies = start is not None and start != self.file.nowhere and EXTERNAL not in by_kind
        offset = self.file.base + start if lies and start is not None else 0
        self.tensors[name] = TensorInfo(name, word, shape, self.path, offset, nbytes)

    def layout(self, raw: Raw) -> tuple[int | None, int]:
        """Where a dataset lies if it does in one piece, and how many bytes."""
        version = raw.number(1)
        if version in (1, 2):
            rank, kind = raw.number(1), raw.number(1)
            raw.take(5)
            start = raw.number(self.file.wide) if kind else 0
            sizes = [raw.number(4) for _ in range(rank)]
            return (start, prod(sizes)) if kind == 1 else (None, 0)
        if version not in (3, 4, 5):
            raise CheckpointError(f"{self.path}: an HDF5 layout of version {version} is not known.")
        if raw.number(1) != 1:
            return None, 0
        return raw.number(self.file.wide), raw.number(self.file.long)

    def attributes_of(self, messages: list[Message]) -> Iterator[tuple[str, Any]]:
        for message in messages:
            if message.kind == ATTRIBUTE and not message.shared:
                yield self.attribute(Raw(message.raw))
            elif message.kind == ATTRIBUTE_INFO:
                raw = Raw(message.raw)
                flags = raw.take(2)[1]
                raw.take(2 if flags & 1 else 0)
                heap, index = raw.number(self.file.wide), raw.number(self.file.wide)
                if heap != self.file.nowhere:
                    for record in self.file.records(index):
                        yield self.attribute(Raw(self.file.held(heap, record[:8])))

    def attribute(self, raw: Raw) -> tuple[str, Any]:
        """Name and value: a text, a number, or a list of them; None for what is neither."""
        version, flags = raw.number(1), raw.number(1)
        n_name, n_type, n_space = (raw.number(2) for _ in range(3))
        raw.take(1 if version == 3 else 0)
        pad = 8 if version == 1 else 1

        def part(n: int) -> bytes:
            found = raw.take(n)
            raw.take(min(-n % pad, len(raw.raw) - raw.at))
            return found

        name = part(n_name).rstrip(b"\0").decode("utf-8", "replace")
        where = f"{self.path}: attribute {shown(name)}"
        if version not in (1, 2, 3):
            raise CheckpointError(f"{where} is of version {version}, which is not known.")
        kind = self.file.type_of(Message(TYPE, bool(flags & 1) and version > 1, part(n_type)))
        shape = self.file.shape(Raw(part(n_space)), where)
        if shape is None:
            return name, None
        count = prod(shape)
        if count * kind.size > len(raw.raw) - raw.at:
            raise CheckpointError(f"{where} claims {count:,} values of {kind.size} bytes, more than there are.")
        if count > MAX_VALUES:
            return name, None
        self.file.spend(64 * count)
        values = [self.value(raw.take(kind.size), kind) for _ in range(count)]
        return name, values if shape else values[0]

    def value(self, raw: bytes, kind: Type) -> Any:
        if kind.kind == STRING:
            return raw.rstrip(b"\0 ").decode("utf-8", "replace")
        if kind.text:
            inner = Raw(raw)
            length, heap, index = inner.number(4), inner.number(self.file.wide), inner.number(4)
            self.file.spend(3 * length)  # a letter may take four bytes
            return self.heaped(heap, index)[:length].decode("utf-8", "replace") if length else ""
        order = "big" if kind.big else "little"
        if kind.kind == INTEGER or (kind.kind == ENUM and kind.word != "BOOL"):
            return int.from_bytes(raw, order, signed=kind.signed)  # type: ignore[arg-type]
        if kind.word == "BOOL":
            return raw != b"\0"
        if kind.word in ("F16", "F32", "F64"):
            code = {"F16": "e", "F32": "f", "F64": "d"}[kind.word]
            return struct.unpack((">" if kind.big else "<") + code, raw)[0]
        return None

    def heaped(self, address: int, index: int) -> bytes:
        """An object of a global heap."""
        if address not in self.heaps:
            raw = self.file.raw(address, 8 + self.file.long, b"GCOL")
            raw.take(4)
            end = raw.number(self.file.long)
            at, objects = 8 + self.file.long, {}
            while at + 8 + self.file.long <= end:
                raw = self.file.raw(address + at, 8 + self.file.long)
                number, _, _, length = raw.number(2), raw.number(2), raw.number(4), raw.number(self.file.long)
                if not number:
                    break
                at += 8 + self.file.long
                objects[number] = (address + at, length)
                at += -(-length // 8) * 8
            self.heaps[address] = objects
        if index not in self.heaps[address]:
            raise CheckpointError(f"{self.path}: a text is not in its heap; the file is damaged.")
        return self.file.at(*self.heaps[address][index])
