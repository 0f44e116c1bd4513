"""GGUF versions 2 and 3: typed key-values, tensor descriptions, aligned data. Quantised blocks are named, not decoded."""

from __future__ import annotations

import struct
from math import prod
from pathlib import Path
from typing import Any

from brolly.card import TensorInfo
from brolly.checkpoint.bounded import MAX_TENSORS, opened, shape_of
from brolly.errors import CheckpointError

# type id: (name, elements a block, bytes a block)
TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 40), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292), 16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2),
    26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8), 29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
}  # fmt: skip
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
MAX_HEADER = 512 * 2**20  # bytes; the largest vocabularies take 20 MB


class _Cursor:
    """Walks the header's bytes; every length is held against what is left before it is believed."""

    def __init__(self, raw: memoryview, path: Path) -> None:
        self.raw, self.path, self.at = raw, path, 0

    def take(self, n_bytes: int) -> memoryview:
        if n_bytes > len(self.raw) - self.at:
            raise CheckpointError(f"{self.path} ends in the middle of its header, or a length in it is a lie.")
        self.at += n_bytes
        return self.raw[self.at - n_bytes : self.at]

    def number(self, code: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]

    def text(self) -> str:
        return str(self.take(self.number("Q")), "utf-8", "replace")

    def value(self, kind: int, depth: int = 0) -> Any:
        if kind in SCALARS:
            return self.number(SCALARS[kind])
        if kind == STRING:
            return self.text()
        if kind != ARRAY or depth > 2:
            raise CheckpointError(f"{self.path}: a value of GGUF type {kind} (nested {depth} deep) is not known.")
        inner, count = self.number("I"), self.number("Q")
        if inner in SCALARS:
            code = SCALARS[inner]
            return list(struct.unpack(f"<{count}{code}", self.take(self._bounded(count, struct.calcsize("<" + code)))))
        self._bounded(count, 8)
        return [self.value(inner, depth + 1) for _ in range(count)]

    def _bounded(self, count: int, each: int) -> int:
        if count * each > len(self.raw) - self.at:
            raise CheckpointError(f"{self.path}: an array claims {count} elements, more than the file holds.")
        return count * each


def read_gguf(path: Path) -> tuple[dict[str, TensorInfo], dict[str, Any]]:
    """Tensors (shapes row-major) and key-values. Raises CheckpointError."""
    import mmap

    with opened(path) as (file, size):
        if size < 24:
            raise CheckpointError(f"{path} has {size} bytes; a GGUF header has at least 24.")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
            raw = memoryview(whole)[: min(size, MAX_HEADER)]
            cursor = _Cursor(raw, path)
            try:
                return _read(cursor, path, size)
            except (struct.error, OverflowError, MemoryError) as error:
                raise CheckpointError(f"{path}: the GGUF header cannot be read ({str(error)[:60]}).") from None
            finally:
                raw.release()
                cursor.raw = memoryview(b"")


def _read(cursor: _Cursor, path: Path, size: int) -> tuple[dict[str, TensorInfo], dict[str, Any]]:
    magic, version = bytes(cursor.take(4)), cursor.number("I")
    if magic != b"GGUF" or version not in (2, 3):
        raise CheckpointError(f"{path}: magic {magic!r}, version {version}; expected GGUF version 2 or 3, little-endian.")
    n_tensors, n_pairs = cursor.number("Q"), cursor.number("Q")
    if n_tensors > MAX_TENSORS or n_pairs > 100_000:
        raise CheckpointError(f"{path} claims {n_tensors} tensors and {n_pairs} key-values; no real file does.")
    metadata: dict[str, Any] = {}
    for _ in range(n_pairs):
        key = cursor.text()
        metadata[key] = cursor.value(cursor.number("I"))
    rows = []
    for _ in range(n_tensors):
        name = cursor.text()
        n_dims = cursor.number("I")
        dims = [cursor.number("Q") for _ in range(min(n_dims, 17))]
        rows.append((name, shape_of(dims[::-1], f"{path}: tensor {name[:80]!r}"), cursor.number("I"), cursor.number("Q")))
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or alignment <= 0 or alignment & (alignment - 1) or alignment > 2**20:
        raise CheckpointError(f"{path}: general.alignment is {str(alignment)[:40]}; expected a power of two.")
    start = -(-cursor.at // alignment) * alignment
    return {name: _tensor(name, shape, kind, start + at, path, size) for name, shape, kind, at in rows}, metadata


def _tensor(name: str, shape: tuple[int, ...], kind: int, offset: int, path: Path, size: int) -> TensorInfo:
    if kind not in TYPES:
        raise CheckpointError(f"{path}: tensor {name[:80]!r} has GGUF type {kind}, which is not known here.")
    dtype, block, block_bytes = TYPES[kind]
    count = prod(shape)
    if count and (shape[-1] if shape else 1) % block:
        raise CheckpointError(f"{path}: tensor {name[:80]!r} {list(shape)} does not divide into {dtype} blocks of {block}.")
    nbytes = count // block * block_bytes
    if offset + nbytes > size:
        raise CheckpointError(f"{path} has {size} bytes; tensor {name[:80]!r} ends at {offset + nbytes}: it is incomplete.")
    return TensorInfo(name, dtype, shape, path, offset, nbytes)
