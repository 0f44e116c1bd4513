"""safetensors: eight bytes of length, a JSON header, then the tensors, back to back. Read, and written atomically."""

from __future__ import annotations

import json
import os
import struct
import tempfile
from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import Any

from brolly.card import BITS, TensorInfo
from brolly.checkpoint.bounded import MAX_TENSORS, exactly, opened, parse_json, shape_of
from brolly.errors import CheckpointError, DiskFull

MAX_HEADER = 100_000_000  # bytes, the format's own bound


def read_safetensors(path: Path) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """Tensors by name, and the file's own metadata. Raises CheckpointError."""
    with opened(path) as (file, size):
        if size < 10:
            raise CheckpointError(f"{path} has {size} bytes; a safetensors file begins with its header's length.")
        length = struct.unpack("<Q", exactly(file, 8, path))[0]
        if not 2 <= length <= min(MAX_HEADER, size - 8):
            raise CheckpointError(f"{path}: the header claims {length} bytes of a file of {size}; download it again.")
        raw = exactly(file, length, path)
    header = parse_json(raw, f"{path}: the header") if raw[:1] == b"{" else None
    if not isinstance(header, dict):
        raise CheckpointError(f"{path} is not a safetensors file: its header is no JSON object.")
    metadata = header.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise CheckpointError(f"{path}: __metadata__ must map text to text.")
    if len(header) > MAX_TENSORS:
        raise CheckpointError(f"{path} lists {len(header)} tensors; at most {MAX_TENSORS} are read.")
    tensors = {name: _tensor(name, entry, path, 8 + length) for name, entry in header.items()}
    _check_layout(tensors, path, 8 + length, size)
    return tensors, metadata


def _tensor(name: str, entry: Any, path: Path, start: int) -> TensorInfo:
    where = f"{path}: tensor {name[:100]!r}"
    if not isinstance(entry, dict):
        raise CheckpointError(f"{where} is described by a {type(entry).__name__}; expected dtype, shape, data_offsets.")
    dtype, offsets = entry.get("dtype"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in BITS:
        raise CheckpointError(f"{where} has dtype {str(dtype)[:40]!r}; expected one of {', '.join(BITS)}.")
    shape = shape_of(entry.get("shape"), where)
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(n) is int and n >= 0 for n in offsets):
        raise CheckpointError(f"{where} has data_offsets {str(offsets)[:80]}; expected [begin, end].")
    begin, end = offsets
    if end - begin != prod(shape) * BITS[dtype] // 8:
        raise CheckpointError(f"{where} is {dtype} {list(shape)}, and its bytes are {begin} to {end}; they do not agree.")
    return TensorInfo(name, dtype, shape, path, start + begin, end - begin)


def _check_layout(tensors: dict[str, TensorInfo], path: Path, start: int, size: int) -> None:
    """No overlap, no gap, nothing past the end: the format allows none."""
    end = start
    for info in sorted(tensors.values(), key=lambda t: (t.offset, t.nbytes)):
        if info.offset != end:
            fault = "overlaps the one before it" if info.offset < end else "leaves a hole before it"
            raise CheckpointError(f"{path}: tensor {info.name[:100]!r} {fault}; the file is damaged or made up.")
        end = info.offset + info.nbytes
    if end > size:
        raise CheckpointError(f"{path} has {size} bytes, and its tensors need {end}: it is incomplete; download it again.")
    if end < size:
        raise CheckpointError(f"{path} has {size - end} bytes after its last tensor; the file is damaged or made up.")


def write_safetensors(
    path: Path,
    tensors: Iterable[tuple[str, str, tuple[int, ...], Any]],
    metadata: dict[str, str] | None = None,
) -> None:
    """Write (name, dtype, shape, bytes-like) rows; the file appears under its name only when it is whole and on disk."""
    rows = [(name, dtype, tuple(shape), memoryview(data).cast("B")) for name, dtype, shape, data in tensors]
    # Widest first keeps every tensor aligned to its own element.
    rows.sort(key=lambda row: (-BITS[row[1]], row[0]))
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    offset = 0
    for name, dtype, shape, data in rows:
        assert len(data) == prod(shape) * BITS[dtype] // 8, f"{name}: {len(data)} bytes for {dtype} {shape}"
        assert name not in header, f"{name} twice"
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, suffix=".part", delete=False) as file:
        try:
            file.write(struct.pack("<Q", len(raw)) + raw)
            for *_, data in rows:
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.chmod(file.name, 0o644)
            os.replace(file.name, path)
        except BaseException as error:
            os.unlink(file.name)
            if isinstance(error, OSError) and error.errno == 28:
                raise DiskFull(f"{path} needs {offset} bytes, and the disk is full; nothing was changed.") from None
            raise
