"""Tensors as a reader comes upon them: counted, named once each, their bytes reckoned; and the files they lie in."""

from __future__ import annotations

import os
from math import prod

from brolly.card import BITS, TensorInfo
from brolly.checkpoint.bounded import MAX_TENSORS, shape_of, shown
from brolly.errors import CheckpointError
from brolly.place import Place, Where

# what other formats have and safetensors lacks, in words after its fashion; F8_E4M3B11FNUZ is TensorFlow's
NARROW = {"I4": 4, "U4": 4, "NF4": 4, "I3": 3, "U3": 3, "U6": 6, "I2": 2, "U2": 2, "U1": 1, "F8_E4M3B11FNUZ": 8}
MAX_NAMES = 32 * 2**20  # bytes of all names of one file


def bits_of(dtype: str) -> int:
    return BITS.get(dtype) or NARROW[dtype]


def bytes_of(dtype: str, shape: tuple[int, ...]) -> int:
    """What the elements take, packed without gaps; the last byte may be part full."""
    return -(-prod(shape) * bits_of(dtype) // 8)


class Gathered:
    """The tensors of one model so far; `faults` are sentences about what is missing or too short, and not fatal."""

    def __init__(self, path: Where) -> None:
        self.path = path
        self.tensors: dict[str, TensorInfo] = {}
        self.faults: list[str] = []
        self._twice: dict[str, int] = {}
        self._letters = 0

    def add(
        self, name: str, dtype: str, dims: list[int] | tuple[int, ...], file: Where, offset: int, nbytes: int = -1
    ) -> str:
        """Keep one; the name it is kept under, numbered where it is taken. `nbytes` is reckoned unless it is told."""
        if len(self.tensors) >= MAX_TENSORS:
            raise CheckpointError(f"{self.path} has more than {MAX_TENSORS:,} tensors, as no real model has.")
        shape = shape_of(list(dims), f"{self.path}: tensor {shown(name)}")
        if name in self.tensors or not name:
            name = self._numbered(name or "unnamed")
        self._letters += len(name)
        if self._letters > MAX_NAMES:
            raise CheckpointError(f"{self.path} has longer names than any real model.")
        self.tensors[name] = TensorInfo(
            name,
            dtype,
            shape,
            file,
            offset,
            bytes_of(dtype, shape) if nbytes < 0 else nbytes,
        )
        return name

    def place(self, name: str, file: Where, offset: int, nbytes: int) -> None:
        """Say where a tensor lies that was kept without a place."""
        old = self.tensors[name]
        self.tensors[name] = TensorInfo(name, old.dtype, old.shape, file, offset, nbytes)

    def _numbered(self, name: str) -> str:
        while True:
            self._twice[name] = n = self._twice.get(name, 1) + 1
            if f"{name}#{n}" not in self.tensors:
                return f"{name}#{n}"


def beside(path: Where, location: str) -> Where | None:
    """The file of a relative name in the folder of `path` or below; None where the name leads out of it."""
    parts = [part for part in location.replace("\\", "/").split("/") if part not in ("", ".")]
    if not parts or location.startswith(("/", "\\")) or ".." in parts or ":" in parts[0] or "\0" in location:
        return None
    if len(location) > 1024 or not location.isprintable():
        return None
    found: Where = path.parent
    for part in parts:
        found = found / part
    return found


def names_in(folder: Where) -> list[str]:
    """The names of the files and folders directly in a folder, sorted; none where it cannot be read."""
    try:
        return sorted(p.name for p in folder.iterdir())
    except OSError:
        return []


def size_there(path: Where) -> int | None:
    """The size of a file in bytes; None where there is none."""
    try:
        if isinstance(path, Place):
            return path.n_bytes if path.is_file() else None
        return os.path.getsize(path) if os.path.isfile(path) else None
    except (OSError, ValueError):
        return None
