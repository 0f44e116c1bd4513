"""FlatBuffers' tables, vectors and strings, read from a file a page at a time. It knows no schema.

Source: flatbuffers.dev/internals (read 2026-11).
"""

from __future__ import annotations

from typing import BinaryIO

from brolly.errors import CheckpointError
from brolly.place import Where

PAGE = 2**14  # bytes
MAX_PAGES = 512  # kept at once
MAX_READS = 2_000_000  # of one file; about a second
MAX_NAME = 4096  # bytes


class Buffer:
    """The part [start, start + size) of a file as one FlatBuffer. Positions count from `start`."""

    def __init__(self, file: BinaryIO, size: int, path: Where, start: int = 0) -> None:
        self.file, self.size, self.path, self.start = file, size, path, start
        self.left = MAX_READS
        self._pages: dict[int, bytes] = {}
        self._vtables: dict[int, tuple[int, ...]] = {}

    def root(self) -> int:
        """The position of the root table."""
        return self.target(0)

    def unsigned(self, at: int, width: int) -> int:
        """A little-endian number of `width` bytes."""
        return int.from_bytes(self.raw(at, width), "little")

    def raw(self, at: int, n_bytes: int) -> bytes:
        """Some bytes of the buffer, all of them. Raises CheckpointError."""
        self.left -= 1 + n_bytes // PAGE
        if at < 0 or at + n_bytes > self.size:
            raise self.broken(at)
        if self.left < 0:
            raise CheckpointError(f"{self.path} has more than {MAX_READS:,} parts, as no real model has.")
        number, i = divmod(at, PAGE)
        raw = self._page(number)[i : i + n_bytes]
        while len(raw) < n_bytes:
            number += 1
            raw += self._page(number)[: n_bytes - len(raw)]
        return raw

    def table(self, at: int) -> tuple[int, ...]:
        """The fields of the table at `at`: the position of each by number, nought where it is left out."""
        vtable = at - self.signed(at, 4)
        found = self._vtables.get(vtable)
        if found is None:
            n_bytes = self.unsigned(vtable, 2)
            if n_bytes < 4 or n_bytes % 2 or n_bytes > 256:
                raise self.broken(vtable)
            raw = self.raw(vtable, n_bytes)
            found = tuple(int.from_bytes(raw[i : i + 2], "little") for i in range(4, n_bytes, 2))
            if len(self._vtables) > 4096:
                self._vtables.clear()
            self._vtables[vtable] = found
        return tuple(at + offset if offset else 0 for offset in found)

    def signed(self, at: int, width: int) -> int:
        return int.from_bytes(self.raw(at, width), "little", signed=True)

    def target(self, at: int) -> int:
        """Where the offset at `at` points."""
        return at + self.unsigned(at, 4)

    def vector(self, at: int, width: int) -> tuple[int, int]:
        """The position of the first element and the count, of the vector that the offset at `at` points to."""
        begin = self.target(at)
        count = self.unsigned(begin, 4)
        if begin + 4 + count * width > self.size:
            raise self.broken(begin)
        return begin + 4, count

    def tables(self, at: int, most: int) -> list[int]:
        """The positions of the tables in a vector of them."""
        begin, count = self.vector(at, 4)
        if count > most:
            raise CheckpointError(f"{self.path} lists {count:,} parts where at most {most:,} are expected.")
        raw = self.raw(begin, count * 4)
        return [begin + i + int.from_bytes(raw[i : i + 4], "little") for i in range(0, count * 4, 4)]

    def whole(self, at: int, most: int) -> list[int]:
        """A vector of 32-bit whole numbers."""
        begin, count = self.vector(at, 4)
        if count > most:
            raise CheckpointError(f"{self.path} lists {count:,} numbers where at most {most:,} are expected.")
        raw = self.raw(begin, count * 4)
        return [int.from_bytes(raw[i : i + 4], "little", signed=True) for i in range(0, count * 4, 4)]

    def text(self, at: int, most: int = MAX_NAME) -> str:
        """The string that the offset at `at` points to; what is beyond `most` bytes is cut."""
        begin, count = self.vector(at, 1)
        return self.raw(begin, min(count, most)).decode("utf-8", "replace")

    def broken(self, at: int) -> CheckpointError:
        return CheckpointError(f"{self.path} is damaged: it points at byte {at:,} of {self.size:,}; download it again.")

    def _page(self, number: int) -> bytes:
        page = self._pages.get(number)
        if page is None:
            self.left -= 20
            begin = number * PAGE
            self.file.seek(self.start + begin)
            page = self.file.read(min(PAGE, self.size - begin)) if begin < self.size else b""
            if not page:
                raise self.broken(begin)
            if len(self._pages) >= MAX_PAGES:
                self._pages.clear()
            self._pages[number] = page
        return page


def field(table: tuple[int, ...], number: int) -> int:
    """The position of a field, nought where the table leaves it out."""
    return table[number] if number < len(table) else 0
