"""safetensors: eight bytes of length, a JSON header, then the tensors, back to back. Read, and written atomically."""

from __future__ import annotations

import errno
import json
import os
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Any

from brolly.card import BITS, TensorInfo
from brolly.checkpoint.bounded import MAX_JSON, exactly, note, opened, parse_json, shape_of, shown
from brolly.errors import CheckpointError, DiskFull
from brolly.place import Where


def read_safetensors(
    path: Where, faults: list[CheckpointError] | None = None
) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """Tensors by name, and the file's own metadata. Raises CheckpointError.

    With `faults`, it is told there that a header does not fit its file: cut short, bytes to spare, holes.
    """
    with opened(path) as (file, size):
        if size < 10:
            raise CheckpointError(f"{path} has {size} bytes; a safetensors file begins with its header's length.")
        length = struct.unpack("<Q", exactly(file, 8, path))[0]
        if length < 2 or length > size - 8:
            raise CheckpointError(
                f"{path}: the header claims {length:,} bytes of a file of {size:,}; download it again."
            )
        if length > MAX_JSON:
            raise CheckpointError(f"{path}: the header claims {length:,} bytes; at most {MAX_JSON:,} are read.")
        raw = exactly(file, length, path)
    if raw[:1] != b"{":
        raise CheckpointError(f"{path} is not a safetensors file: its header is no JSON object.")
    header = parse_json(raw, f"{path}: the header", unique=True)
    metadata = header.pop("__metadata__", None)
    metadata = {} if metadata is None else metadata
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise CheckpointError(f"{path}: __metadata__ must map text to text.")
    start = 8 + length
    tensors = {name: _tensor(name, entry, path, start) for name, entry in header.items()}
    try:
        _check_layout(tensors, path, start, size)
    except CheckpointError as error:
        error.file = path.name
        note(faults, error)
    return tensors, metadata


def _tensor(name: str, entry: Any, path: Where, start: int) -> TensorInfo:
    where = f"{path}: tensor {shown(name)}"
    if not isinstance(entry, dict):
        raise CheckpointError(f"{where} is described by {shown(entry)}; expected dtype, shape and data_offsets.")
    dtype, offsets = entry.get("dtype"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in BITS:
        raise CheckpointError(f"{where} has dtype {shown(dtype)}; expected one of {', '.join(BITS)}.")
    shape = shape_of(entry.get("shape"), where)
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(n) is int and n >= 0 for n in offsets):
        raise CheckpointError(f"{where} has data_offsets {shown(offsets)}; expected [begin, end].")
    begin, end = offsets
    if (end - begin) * 8 != prod(shape) * BITS[dtype]:
        raise CheckpointError(
            f"{where} is {dtype} {shown(shape)}, and its bytes are {shown(offsets)}; they do not agree."
        )
    return TensorInfo(name, dtype, shape, path, start + begin, end - begin)


def _check_layout(tensors: dict[str, TensorInfo], path: Where, start: int, size: int) -> None:
    """No overlap, no gap, nothing past the end: the format allows none."""
    end = start
    for info in sorted(tensors.values(), key=lambda t: (t.offset, t.nbytes)):
        if info.offset != end:
            fault = "overlaps the one before it" if info.offset < end else "leaves a hole before it"
            raise CheckpointError(f"{path}: tensor {shown(info.name)} {fault}; the file is damaged or made up.")
        end = info.offset + info.nbytes
    if end > size:
        raise CheckpointError(f"{path} has {size:,} bytes, and its tensors need {end:,}: download it again.")
    if end < size:
        raise CheckpointError(f"{path} has {size - end:,} bytes after its last tensor; the file is damaged or made up.")


def write_safetensors(
    path: Path,
    tensors: Iterable[tuple[str, str, tuple[int, ...], Any]],
    metadata: dict[str, str] | None = None,
) -> None:
    """Write (name, dtype, shape, data) rows; the file appears under its name only when it is whole and on disk.

    `data` is bytes-like, or a function that returns it when its turn comes, so that no two tensors need be in memory
    at once. Raises DiskFull, CheckpointError; whatever goes wrong, a file that was there stays as it was.
    """
    path = Path(path)
    # Widest first keeps every tensor aligned to its own element.
    rows = sorted(tensors, key=lambda row: (-BITS[row[1]], row[0]))
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for name, dtype, shape, _ in rows:
        assert name not in header, f"{name} twice"
        nbytes, rest = divmod(prod(shape) * BITS[dtype], 8)
        assert not rest, f"{name}: {dtype} {shape} does not end on a byte"
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + nbytes]}
        end += nbytes
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)

    def chunks() -> Iterable[bytes | memoryview]:
        yield struct.pack("<Q", len(raw)) + raw
        for name, dtype, shape, data in rows:
            chunk = memoryview(data() if callable(data) else data)
            chunk = chunk.cast("B") if chunk.nbytes else chunk[:0]
            assert chunk.nbytes * 8 == prod(shape) * BITS[dtype], f"{name}: {chunk.nbytes} bytes for {dtype} {shape}"
            yield chunk

    write_whole(path, chunks, end)


def write_whole(path: Path, chunks: Callable[[], Iterable[bytes | memoryview]], n_bytes: int) -> None:
    """Write beside the target, bring it to the disk, then rename: a reader sees the old file or the new one."""
    import tempfile

    part = ""
    try:
        descriptor, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        with open(descriptor, "wb") as file:
            for chunk in chunks():
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp keeps others out; a checkpoint has the rights of any new file.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(part, 0o666 & ~mask)
        os.replace(part, path)
        part = ""
        _sync_folder(path.parent)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"{path} needs {n_bytes:,} bytes, and the disk is full; nothing was changed.") from None
        raise CheckpointError(f"{path} cannot be written ({error.strerror or error}).") from None
    finally:
        if part:
            with suppress(OSError):
                os.unlink(part)


def _sync_folder(folder: Path) -> None:
    """The rename itself survives a power cut; systems without folder handles go without."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
