"""LevelDB's table format, in which TensorFlow keeps its checkpoints' index: sorted keys in blocks, maybe Snappy's.

Sources: google/leveldb, doc/table_format.md; google/snappy, format_description.txt (from memory of both, 2026-11).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from brolly.checkpoint.bounded import MAX_TENSORS
from brolly.checkpoint.protobuf import number_at
from brolly.errors import CheckpointError
from brolly.place import Where

MAGIC = 0xDB4775248B80FB57.to_bytes(8, "little")
FOOTER, TRAILER = 48, 5  # bytes: two block handles and the magic number; compression and a checksum
MAX_BLOCK, MAX_TOTAL = 16 * 2**20, 64 * 2**20  # bytes, after decompression
MAX_KEY, MAX_KEYS = 8192, 32 * 2**20  # bytes of one key, of all


class Table:
    """An open table. Raises CheckpointError where a file is none, or is damaged."""

    def __init__(self, file: BinaryIO, size: int, path: Where) -> None:
        self.file, self.size, self.path = file, size, path
        self.left, self.letters = MAX_TOTAL, MAX_KEYS
        footer = self._at(max(size - FOOTER, 0), min(size, FOOTER))
        if len(footer) < FOOTER or footer[-8:] != MAGIC:
            raise CheckpointError(f"{path} does not end as a TensorFlow checkpoint's index does; download it again.")
        try:
            i = number_at(footer, number_at(footer, 0)[1])[1]
            begin, i = number_at(footer, i)
            n_bytes = number_at(footer, i)[0]
        except (IndexError, ValueError):
            raise self.broken() from None
        self.blocks: list[tuple[int, int]] = []
        for _, handle in self._entries(self._block(begin, n_bytes)):
            try:
                begin, i = number_at(handle, 0)
                self.blocks.append((begin, number_at(handle, i)[0]))
            except (IndexError, ValueError):
                raise self.broken() from None
            if len(self.blocks) > MAX_TENSORS:
                raise self.broken()

    def first(self) -> tuple[bytes, bytes]:
        """The first key and its value; the rest of the table is not read."""
        for block in self.blocks[:1]:
            for entry in self._entries(self._block(*block)):
                return entry
        raise CheckpointError(f"{self.path} is an empty table; expected the index of a TensorFlow checkpoint.")

    def entries(self) -> Iterator[tuple[bytes, bytes]]:
        """All keys and values, in order."""
        last, count = None, 0
        for block in self.blocks:
            for key, value in self._entries(self._block(*block)):
                count += 1
                if count > MAX_TENSORS or (last is not None and key <= last):
                    raise self.broken()
                last = key
                yield key, value

    def broken(self) -> CheckpointError:
        return CheckpointError(f"{self.path} is damaged: its tables do not add up; download it again.")

    def _at(self, begin: int, n_bytes: int) -> bytes:
        if begin + n_bytes > self.size:
            raise self.broken()
        self.file.seek(begin)
        raw = self.file.read(n_bytes)
        if len(raw) != n_bytes:
            raise self.broken()
        return raw

    def _block(self, begin: int, n_bytes: int) -> bytes:
        if n_bytes > MAX_BLOCK:
            raise CheckpointError(f"{self.path}: a block of its index has {n_bytes:,} bytes, as no real index's has.")
        raw = self._at(begin, n_bytes + TRAILER)
        compression, raw = raw[n_bytes], raw[:n_bytes]
        if compression not in (0, 1):
            raise CheckpointError(f"{self.path}: a block is compressed by method {compression}; expected 0 or 1.")
        try:
            block = unsnap(raw, min(MAX_BLOCK, self.left)) if compression else raw
        except (IndexError, ValueError):
            raise self.broken() from None
        self.left -= len(block) + 1024 + (16 * n_bytes if compression else 0)  # as long as it takes
        if self.left < 0:
            raise CheckpointError(f"{self.path}: its index is longer than {MAX_TOTAL:,} bytes, as no real one is.")
        return block

    def _entries(self, block: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values of a block; each key shares a beginning with the one before it."""
        end = len(block) - 4
        end -= 4 * int.from_bytes(block[end:], "little") if end >= 0 else 0
        if end < 0:
            raise self.broken()
        i, key = 0, b""
        while i < end:
            try:
                shared, i = number_at(block, i)
                own, i = number_at(block, i)
                n_value, i = number_at(block, i)
            except (IndexError, ValueError):
                raise self.broken() from None
            if shared > len(key) or i + own + n_value > end or shared + own > MAX_KEY:
                raise self.broken()
            key = key[:shared] + block[i : i + own]
            self.letters -= len(key) + 64
            if self.letters < 0:
                raise self.broken()
            i += own
            yield key, block[i : i + n_value]
            i += n_value


def unsnap(raw: bytes, most: int) -> bytes:
    """Snappy's raw format, decompressed. Raises IndexError or ValueError where it is damaged or longer than `most`."""
    n_bytes, i = number_at(raw, 0)
    if n_bytes > most or n_bytes > 64 * len(raw):
        raise ValueError
    found = bytearray()
    while i < len(raw):
        tag = raw[i]
        i += 1
        kind = tag & 3
        if kind == 0:
            count = tag >> 2
            if count >= 60:
                width = count - 59
                count = int.from_bytes(raw[i : i + width], "little")
                i += width
            count += 1
            if i + count > len(raw):
                raise ValueError
            found += raw[i : i + count]
            i += count
        else:
            if kind == 1:
                count, back = (tag >> 2 & 7) + 4, (tag >> 5) << 8 | raw[i]
                i += 1
            else:
                width = 2 if kind == 2 else 4
                count, back = (tag >> 2) + 1, int.from_bytes(raw[i : i + width], "little")
                i += width
            begin = len(found) - back
            if back == 0 or begin < 0:
                raise ValueError
            # a copy may reach into what it is copying: the stretch repeats
            found += found[begin : begin + count] if back >= count else (found[begin:] * (count // back + 1))[:count]
        if len(found) > n_bytes:
            raise ValueError
    if len(found) != n_bytes:
        raise ValueError
    return bytes(found)
