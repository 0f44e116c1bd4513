"""Protocol buffers' wire format, walked by seeking: bytes that nobody asks for are never read. It knows no schema.

Source: protobuf.dev/programming-guides/encoding (read 2026-11).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from io import BytesIO
from typing import BinaryIO

from brolly.checkpoint.bounded import MAX_DEPTH
from brolly.errors import CheckpointError
from brolly.place import Where

MAX_FIELDS = 1_200_000  # of one file; about a second
MAX_TEXT = 32 * 2**20  # bytes of all texts of one file
MAX_NAME = 4096  # bytes
LEAST_AHEAD, MOST_AHEAD = 2**12, 2**18  # bytes read at once: after a jump, and while reading on
SLACK = 24  # bytes that the longest key and value before a payload take


def varint(number: int) -> int:
    """The key of a field that holds a whole number, an enum or a truth value."""
    return number << 3


def length(number: int) -> int:
    """The key of a field that holds a text, bytes, a message or packed numbers."""
    return number << 3 | 2


def signed(value: int) -> int:
    """A 64-bit pattern as a whole number that may be negative."""
    return value - 2**64 if value >= 2**63 else value


class Wire:
    """A file as messages. Positions count bytes from its beginning."""

    def __init__(self, file: BinaryIO, size: int, path: Where) -> None:
        self.file, self.size, self.path = file, size, path
        self.left, self.letters = MAX_FIELDS, MAX_TEXT
        self._raw, self._base, self._ahead = b"", 0, LEAST_AHEAD

    @classmethod
    def over(cls, raw: bytes, path: Where) -> Wire:
        """A message that is already read."""
        wire = cls(BytesIO(), len(raw), path)
        wire._raw = raw
        return wire

    def fields(self, begin: int, end: int) -> Iterable[tuple[int, int, int]]:
        """(key, value, -1) for numbers, (key, begin, end) of the payload otherwise. Raises CheckpointError."""
        if not 0 <= begin <= end <= self.size:
            raise self.broken(begin)
        if end - begin > LEAST_AHEAD:
            return self._walk(begin, end)
        i = begin - self._base
        if i < 0 or end - self._base > len(self._raw):
            self._window(begin)
        found: list[tuple[int, int, int]] = []
        self._parse(self._raw, self._base, begin, end, end, found)
        return found

    def _walk(self, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
        """The same of a long message: a field at a time, jumping over payloads."""
        at = begin
        while at < end:
            i = at - self._base
            if i < 0 or i + SLACK > len(self._raw):
                self._window(at)
            found: list[tuple[int, int, int]] = []
            at = self._parse(self._raw, self._base, at, end, at + 1, found)
            yield found[0]

    def _parse(self, raw: bytes, base: int, at: int, end: int, until: int, found: list[tuple[int, int, int]]) -> int:
        """Append the fields that begin before `until`, of a message that ends at `end`; where the last one ends."""
        try:
            while at < until:
                i = at - base
                key = raw[i]
                i += 1
                if key > 127:
                    key, i = _varint(raw, i - 1)
                kind = key & 7
                if kind == 2:
                    value = raw[i]
                    i += 1
                    if value > 127:
                        value, i = _varint(raw, i - 1)
                    i += base
                    at = i + value
                    found.append((key, i, at))
                elif kind == 0:
                    value = raw[i]
                    i += 1
                    if value > 127:
                        value, i = _varint(raw, i - 1)
                    at = i + base
                    found.append((key, value, -1))
                elif kind == 5 or kind == 1:
                    width = 4 if kind == 5 else 8
                    at = base + i + width
                    found.append((key, int.from_bytes(raw[i : i + width], "little"), -1))
                else:
                    raise self.broken(at)
                if at > end:
                    raise self.broken(base + i)
        except (IndexError, ValueError):
            raise self.broken(at) from None
        self.left -= len(found)
        if self.left < 0:
            raise CheckpointError(f"{self.path} has more than {MAX_FIELDS:,} fields, as no real model has.")
        return at

    def raw(self, begin: int, end: int, most: int = MAX_NAME) -> bytes:
        """A payload. Raises CheckpointError where it is longer than `most`."""
        if not 0 <= begin <= end <= self.size:
            raise self.broken(begin)
        if end - begin > most:
            raise CheckpointError(f"{self.path} holds {end - begin:,} bytes where at most {most:,} are expected.")
        i = begin - self._base
        if i < 0 or i + end - begin > len(self._raw):
            if end - begin > LEAST_AHEAD:
                self.file.seek(begin)
                raw = self.file.read(end - begin)
                if len(raw) != end - begin:
                    raise self.broken(begin)
                return raw
            self._window(begin)
            i = begin - self._base
            if i + end - begin > len(self._raw):
                raise self.broken(begin)
        return self._raw[i : i + end - begin]

    def text(self, begin: int, end: int) -> str:
        """A name."""
        return self._decoded(self.raw(begin, end))

    def excerpt(self, begin: int, end: int, most: int = 2**16) -> str:
        """The beginning of a text that may be long."""
        if end < begin:
            raise self.broken(begin)
        return self._decoded(self.raw(begin, min(end, begin + most), most))

    def _decoded(self, raw: bytes) -> str:
        self.letters -= len(raw)
        if self.letters < 0:
            raise CheckpointError(f"{self.path} has more than {MAX_TEXT:,} bytes of names, as no real model has.")
        return raw.decode("utf-8", "replace")

    def numbers(self, begin: int, end: int, most: int = 2**10) -> list[int]:
        """Packed whole numbers."""
        raw = self.raw(begin, end, most * 10)
        found, i = [], 0
        try:
            while i < len(raw):
                value, i = _varint(raw, i)
                found.append(value)
        except (IndexError, ValueError):
            raise self.broken(begin) from None
        if len(found) > most:
            raise self.broken(begin)
        return found

    def entry(self, begin: int, end: int) -> tuple[str, int, int]:
        """One pair of a map: its key, and its value as `fields` gives it (an empty payload where there is none)."""
        name, value, stop = "", begin, begin
        for key, a, b in self.fields(begin, end):
            if key == length(1):
                name = self.text(a, b)
            elif key >> 3 == 2:
                value, stop = a, b
        return name, value, stop

    def texts(self, begin: int, end: int) -> tuple[str, str]:
        """One pair of a map from text to text; a long value is cut."""
        name, a, b = self.entry(begin, end)
        return name, self.excerpt(a, b) if b >= 0 else ""

    def deeper(self, depth: int) -> int:
        """The next level of nesting. Raises CheckpointError where no real model goes."""
        if depth >= MAX_DEPTH // 2:
            raise CheckpointError(f"{self.path} is nested deeper than {MAX_DEPTH // 2} levels, as no real model is.")
        return depth + 1

    def broken(self, at: int) -> CheckpointError:
        return CheckpointError(f"{self.path} is damaged near byte {at:,}: its fields do not add up; download it again.")

    def _window(self, at: int) -> bytes:
        end = self._base + len(self._raw)
        if self._base <= at and end >= self.size:
            return self._raw
        on = self._base <= at <= end
        self._ahead = min(self._ahead * 2, MOST_AHEAD) if on else LEAST_AHEAD
        self.file.seek(at)
        self._raw, self._base = self.file.read(self._ahead), at
        return self._raw


def _varint(raw: bytes, i: int) -> tuple[int, int]:
    """The lower 64 bits of a number and where it ends. Raises IndexError, ValueError."""
    value, i = number_at(raw, i)
    return value & 0xFFFFFFFFFFFFFFFF, i


def number_at(raw: bytes, i: int) -> tuple[int, int]:
    """A number in up to ten groups of seven bits, the lowest first, and its end. Raises IndexError, ValueError."""
    value = shift = 0
    while True:
        byte = raw[i]
        i += 1
        value |= (byte & 0x7F) << shift
        if byte < 128:
            return value, i
        shift += 7
        if shift > 63:
            raise ValueError
