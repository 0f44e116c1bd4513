"""OCDBT, the database in which TensorStore keeps many arrays: a manifest, a B+tree, and files of nodes and values.

Source: github.com/google/tensorstore, tensorstore/kvstore/ocdbt/index.rst (read 2026-11).
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import BinaryIO

from brolly.checkpoint.bounded import opened
from brolly.checkpoint.gathered import beside
from brolly.checkpoint.zstd import MAX_WORK, unzstd
from brolly.errors import CheckpointError, NotFound
from brolly.place import Where

MANIFEST, NODE = b"\x0c\xdb\x3a\x2a", b"\x0c\xdb\x20\xde"
MAX_NODE, MAX_TOTAL = 8 * 2**20, 32 * 2**20  # bytes of one node, of all nodes
MAX_NODES, MAX_FILES, MAX_HEIGHT = 10_000, 1000, 16
MAX_KEY, MAX_VALUE = 8192, 2**16  # bytes


class Damaged(Exception):
    """Something in the database does not add up."""


class Body:
    """A manifest or a node after its header, read from its beginning."""

    def __init__(self, raw: bytes) -> None:
        self.raw, self.at = raw, 0

    def byte(self) -> int:
        self.at += 1
        return self.raw[self.at - 1]

    def number(self) -> int:
        value = shift = 0
        while True:
            byte = self.raw[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise Damaged

    def numbers(self, n: int) -> list[int]:
        if n > len(self.raw) - self.at:
            raise Damaged
        return [self.number() for _ in range(n)]

    def some(self, n: int) -> bytes:
        if n > len(self.raw) - self.at:
            raise Damaged
        self.at += n
        return self.raw[self.at - n : self.at]

    def prefixed(self, n: int, extra: bool = False) -> tuple[list[bytes], list[int]]:
        """Keys or paths that each share a beginning with the one before; and the column that may stand between."""
        shared = [0, *self.numbers(n - 1)] if n else []
        own = self.numbers(n)
        column = self.numbers(n) if extra else []
        found, last = [], b""
        for keep, length in zip(shared, own, strict=True):
            if keep > len(last) or keep + length > MAX_KEY:
                raise Damaged
            last = last[:keep] + self.some(length)
            found.append(last)
        return found, column

    def files(self, base: bytes) -> list[tuple[bytes, bytes]]:
        """The table of data files: the path of each, and the part of it that its own references start from."""
        n = self.number()
        if n > MAX_FILES:
            raise Damaged
        paths, bases = self.prefixed(n, extra=True)
        return [(base + path, base + path[:length]) for path, length in zip(paths, bases, strict=True)]


class Ocdbt:
    """The newest version of a database in a folder. Use as a context; raises CheckpointError, NotFound."""

    def __init__(self, folder: Where) -> None:
        self.folder = folder
        self.left, self.nodes, self.work = MAX_TOTAL, 0, [MAX_WORK]
        self._closing = ExitStack()
        self._files: dict[bytes, tuple[BinaryIO, int]] = {}

    def __enter__(self) -> Ocdbt:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def values(self, endings: tuple[bytes, ...]) -> list[tuple[bytes, bytes]]:
        """Keys with one of these endings, and their values, in order."""
        try:
            found: list[tuple[bytes, bytes]] = []
            root = self._root()
            if root is not None:
                self._walk(*root, b"", endings, found)
            return found
        except (Damaged, IndexError, ValueError):
            raise CheckpointError(f"{self.folder} is damaged: its OCDBT does not add up; download it again.") from None

    def _root(self) -> tuple[tuple[bytes, bytes], int, int, int] | None:
        """Of the newest version: its file, offset, length and height."""
        with opened(self.folder / "manifest.ocdbt") as (file, size):
            body = self._body(file.read(min(size, MAX_NODE)), MANIFEST)
        body.some(16)
        if body.raw[body.at] < 2 and body.byte():  # the kind of manifest; written since 2023
            raise CheckpointError(f"{self.folder} has an OCDBT manifest in numbered files; expected it in one.")
        body.numbers(2)
        body.byte()
        if body.number():
            body.some(4)
        files = body.files(b"")
        n = body.number()
        if not n or n > 2**16:
            return None
        body.numbers(n)
        height = body.some(n)[-1]
        which, offset, length = (body.numbers(n)[-1] for _ in range(3))
        keys = body.numbers(n)[-1]
        return (files[which], offset, length, height) if keys else None

    def _body(self, raw: bytes, magic: bytes) -> Body:
        length = int.from_bytes(raw[4:12], "little")
        if raw[:4] != magic or not 18 <= length <= len(raw) or raw[12]:
            raise Damaged
        packed = raw[14 : length - 4]
        if raw[13] > 1:
            raise Damaged
        body = unzstd(packed, MAX_NODE, self.work) if raw[13] else packed
        self.left -= len(body)
        self.nodes += 1
        if self.left < 0 or self.nodes > MAX_NODES:
            raise CheckpointError(f"{self.folder}: its OCDBT has more nodes than any real checkpoint's.")
        return Body(body)

    def _read(self, path: bytes, offset: int, length: int) -> bytes:
        if path not in self._files:
            if len(self._files) >= MAX_FILES:
                raise Damaged
            where = beside(self.folder / "manifest.ocdbt", path.decode("utf-8", "replace"))
            if where is None:
                raise Damaged
            try:
                self._files[path] = self._closing.enter_context(opened(where))
            except NotFound:
                raise CheckpointError(f"{where} is missing, and holds a part of the index; pull it again.") from None
        file, size = self._files[path]
        if offset + length > size:
            raise Damaged
        file.seek(offset)
        return file.read(length)

    def _walk(
        self,
        file: tuple[bytes, bytes],
        offset: int,
        length: int,
        height: int,
        prefix: bytes,
        endings: tuple[bytes, ...],
        found: list[tuple[bytes, bytes]],
    ) -> None:
        if length > MAX_NODE or height > MAX_HEIGHT:
            raise Damaged
        body = self._body(self._read(file[0], offset, length), NODE)
        if body.byte() != height:
            raise Damaged
        files = body.files(file[1])
        n = body.number()
        if not height:
            self._leaf(body, n, files, prefix, endings, found)
            return
        keys, common = body.prefixed(n, extra=True)
        which, offsets, lengths = (body.numbers(n) for _ in range(3))
        for i, key in enumerate(keys):
            inner = prefix + key[: common[i]]
            cut = inner.rpartition(b"/")
            if len(inner) > MAX_KEY:
                raise Damaged
            # chunks of one array, of whose names only the beginning is common: nothing that we look for
            if not cut[1] or not cut[2] or any(e[1:].startswith(cut[2]) for e in endings):
                self._walk(files[which[i]], offsets[i], lengths[i], height - 1, inner, endings, found)

    def _leaf(
        self,
        body: Body,
        n: int,
        files: list[tuple[bytes, bytes]],
        prefix: bytes,
        endings: tuple[bytes, ...],
        found: list[tuple[bytes, bytes]],
    ) -> None:
        keys, _ = body.prefixed(n)
        lengths, kinds = body.numbers(n), body.numbers(n)
        away = sum(1 for kind in kinds if kind)
        which, offsets = iter(body.numbers(away)), iter(body.numbers(away))
        for key, length, kind in zip(keys, lengths, kinds, strict=True):
            wanted = (prefix + key).endswith(endings)
            if wanted and length > MAX_VALUE:
                raise Damaged
            if kind:
                number, offset = next(which), next(offsets)
                value = self._read(files[number][0], offset, length) if wanted else b""
            else:
                value = body.some(length)
            if wanted:
                found.append((prefix + key, value))
