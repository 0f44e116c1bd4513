"""GGUF versions 2 and 3: typed key-values, tensor descriptions, aligned data; quantised blocks are not decoded."""

from __future__ import annotations

import mmap
import struct
import sys
from math import prod
from pathlib import Path
from typing import Any

from brolly.card import TensorInfo
from brolly.checkpoint.bounded import MAX_TENSORS, opened, shape_of, shown
from brolly.errors import CheckpointError

# type id: (name, elements a block, bytes a block)
TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 40), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292), 16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2),
    26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8), 29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18),
}  # fmt: skip
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
MAX_PARSED = 80 * 2**20  # bytes of Python objects; a vocabulary of 200,000 and its merges take 50 MB
MAX_TEXT = 2**22  # bytes
MAX_KEYS = 65_536
LENGTH = struct.Struct("<Q")


def read_gguf(path: Path) -> tuple[dict[str, TensorInfo], dict[str, Any]]:
    """Tensors (shapes row-major) and key-values of one file. Raises CheckpointError."""
    with opened(path) as (file, size):
        if size < 24:
            raise CheckpointError(f"{path} has {size} bytes; a GGUF header has at least 24.")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as raw:
            try:
                return _read(_Cursor(raw, path), size)
            except (struct.error, ValueError, OverflowError, MemoryError):
                raise CheckpointError(f"{path} ends in the middle of its GGUF header; download it again.") from None


class _Cursor:
    """Walks the header; every length is held against the file and the memory left, before it is believed."""

    def __init__(self, raw: mmap.mmap, path: Path) -> None:
        self.raw, self.path, self.at, self.left = raw, path, 0, MAX_PARSED

    def number(self, code: str) -> Any:
        layout = struct.Struct("<" + code)
        self.at += layout.size
        return layout.unpack_from(self.raw, self.at - layout.size)[0]

    def spend(self, n_bytes: int) -> None:
        self.left -= n_bytes
        if self.left < 0:
            raise CheckpointError(
                f"{self.path}: its key-values would take over {MAX_PARSED:,} bytes; no real header does."
            )

    def texts(self, count: int) -> list[str]:
        """`count` strings, each behind its length."""
        self.fits(count, LENGTH.size)
        raw, at, size, unpack, left = self.raw, self.at, len(self.raw), LENGTH.unpack_from, self.left
        found = []
        for _ in range(count):
            end = at + 8 + unpack(raw, at)[0]
            if end > size or end - at > MAX_TEXT:
                raise CheckpointError(
                    f"{self.path}: a text claims {end - at - 8:,} bytes, more than a header can hold."
                )
            text = raw[at + 8 : end].decode("utf-8", "replace")
            left -= sys.getsizeof(text) + 10
            if left < 0:
                break
            found.append(text)
            at = end
        self.spend(self.left - left)
        self.at = at
        return found

    def value(self, kind: int, depth: int = 0) -> Any:
        if kind in SCALARS:
            return self.number(SCALARS[kind])
        if kind == STRING:
            return self.texts(1)[0]
        if kind != ARRAY or depth > 2:
            raise CheckpointError(f"{self.path}: a value of GGUF type {kind}, nested {depth} deep, is not known.")
        inner, count = self.number("I"), self.number("Q")
        if inner == STRING:
            return self.texts(count)
        if inner not in SCALARS:
            self.fits(count, 12)
            self.spend(512 * count)  # no real file nests arrays, and they are slow to read
            return [self.value(inner, depth + 1) for _ in range(count)]
        each = struct.calcsize("<" + SCALARS[inner])
        self.fits(count, each)
        self.spend((56 if each == 8 else 40) * count)
        self.at += count * each
        with memoryview(self.raw)[self.at - count * each : self.at] as part:
            # Little-endian, as every machine that brolly runs on.
            return part.cast(SCALARS[inner]).tolist()  # type: ignore[call-overload]

    def fits(self, count: int, each: int) -> None:
        if count * each > len(self.raw) - self.at:
            raise CheckpointError(f"{self.path}: an array claims {count:,} elements, more than the file holds.")


def _read(cursor: _Cursor, size: int) -> tuple[dict[str, TensorInfo], dict[str, Any]]:
    path = cursor.path
    magic, version = cursor.raw[:4], struct.unpack_from("<I", cursor.raw, 4)[0]
    cursor.at = 8
    if magic != b"GGUF" or version not in (2, 3):
        known = "big-endian" if version in (2 << 24, 3 << 24) else f"version {version}"
        raise CheckpointError(
            f"{path} is {known}; expected GGUF version 2 or 3, little-endian. Convert the model again."
        )
    n_tensors, n_pairs = cursor.number("Q"), cursor.number("Q")
    if n_tensors > MAX_TENSORS or n_pairs > MAX_KEYS:
        raise CheckpointError(f"{path} claims {n_tensors:,} tensors and {n_pairs:,} key-values; no real file does.")
    metadata: dict[str, Any] = {}
    for _ in range(n_pairs):
        key = cursor.texts(1)[0]
        if key in metadata:
            raise CheckpointError(f"{path} has the key {shown(key)} twice; the file is damaged or made up.")
        cursor.spend(100)  # the key's place, its value
        metadata[key] = cursor.value(cursor.number("I"))
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or not 0 < alignment <= 2**20 or alignment & (alignment - 1):
        raise CheckpointError(f"{path}: general.alignment is {shown(alignment)}; expected a power of two.")
    rows = [_row(cursor) for _ in range(n_tensors)]
    start = -(-cursor.at // alignment) * alignment
    tensors: dict[str, TensorInfo] = {}
    end = 0
    for name, shape, kind, at in sorted(rows, key=lambda row: row[3]):
        info = _tensor(name, shape, kind, start + at, path, size)
        if name in tensors or at % alignment or (info.nbytes and info.offset < end):
            fault = "occurs twice" if name in tensors else "is not aligned" if at % alignment else "overlaps another"
            raise CheckpointError(f"{path}: tensor {shown(name)} {fault}; the file is damaged or made up.")
        tensors[name] = info
        end = info.offset + info.nbytes
    return {name: tensors[name] for name, *_ in rows}, metadata


def _row(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    """One description: name, row-major shape, type, offset within the data."""
    name, n_dims = cursor.texts(1)[0], cursor.number("I")
    where = f"{cursor.path}: tensor {shown(name)}"
    if n_dims > 16:
        raise CheckpointError(f"{where} claims {n_dims} dimensions; GGUF has at most 4.")
    cursor.spend(400 + 50 * n_dims)  # the row, the shape, the description made of them
    dims = [cursor.number("Q") for _ in range(n_dims)]
    return name, shape_of(dims[::-1], where), cursor.number("I"), cursor.number("Q")


def _tensor(name: str, shape: tuple[int, ...], kind: int, offset: int, path: Path, size: int) -> TensorInfo:
    if kind not in TYPES:
        raise CheckpointError(f"{path}: tensor {shown(name)} has GGUF type {kind}, which is not known here.")
    dtype, block, block_bytes = TYPES[kind]
    count = prod(shape)
    if count and (shape[-1] if shape else 1) % block:
        raise CheckpointError(
            f"{path}: tensor {shown(name)} {shown(shape)} does not divide into {dtype} blocks of {block}."
        )
    nbytes = count // block * block_bytes
    if nbytes and offset + nbytes > size:
        raise CheckpointError(
            f"{path} has {size:,} bytes; tensor {shown(name)} ends at {offset + nbytes:,}: incomplete."
        )
    return TensorInfo(name, dtype, shape, path, offset, nbytes)
