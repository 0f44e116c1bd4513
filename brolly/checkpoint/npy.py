"""NumPy's `.npy` and `.npz`: arrays by name, from their headers alone; arrays of objects are told, never unpickled."""

from __future__ import annotations

import re
import struct
from math import prod
from typing import Any, BinaryIO, NamedTuple

from brolly.card import BITS, Header, TensorInfo
from brolly.checkpoint.bounded import MAX_DIMS, exactly, opened, shape_of, shown
from brolly.errors import CheckpointError
from brolly.place import Place, Where

MAGIC = b"\x93NUMPY"
MAX_HEADER = 2**16  # bytes
MAX_ARRAYS = 20_000  # of one file; each is looked at where it lies
MAX_NAMES = 1000  # of arrays that are told in the metadata
# NumPy's letter and size → our word. Two bytes of void are what ml_dtypes' bfloat16 is written as.
DTYPES = {
    "f2": "F16", "f4": "F32", "f8": "F64", "c8": "C64", "c16": "C128", "b1": "BOOL", "i1": "I8", "i2": "I16",
    "i4": "I32", "i8": "I64", "u1": "U8", "u2": "U16", "u4": "U32", "u8": "U64", "V2": "BF16", "V1": "U8",
}  # fmt: skip
_VALUE = r"'[^']{0,64}'|\"[^\"]{0,64}\"|True|False|\([\d ,L]{0,400}\)|\[.*\]"
_ENTRY = rf"\s*['\"](descr|fortran_order|shape)['\"]\s*:\s*({_VALUE})\s*"
DICTIONARY = re.compile(rf"\s*\{{{_ENTRY},{_ENTRY},{_ENTRY},?\s*\}}\s*\0*", re.DOTALL)


class Array(NamedTuple):
    """What an NPY header says: `dtype` is our word, or nothing where we have none for `descr`."""

    descr: str
    dtype: str
    shape: tuple[int, ...]
    fortran: bool
    start: int  # bytes of the header


def read_npy(path: Where) -> Header:
    """One array, called "array". Raises CheckpointError."""
    with opened(path) as (file, size):
        array = _array(file, str(path), path)
        found = _Found()
        found.take("array", array, path, array.start, size - array.start, str(path))
    return Header(path, "npy", found.tensors, {}, found.metadata, (path,))


def read_npz(path: Where) -> Header:
    """The arrays of a zip of `.npy` files, by their names without the ending. Raises CheckpointError."""
    from brolly.checkpoint.archives import STORED, ZipStore, data_start, member_file

    store = ZipStore(path)
    found = _Found()
    if len(store.members) > MAX_ARRAYS:
        raise CheckpointError(f"{path} holds {len(store.members):,} files; at most {MAX_ARRAYS:,} are read.")
    with opened(path) as (file, size):
        for name, member in sorted(store.members.items(), key=lambda item: item[1].start):
            if not name.endswith(".npy"):
                found.note("other_files", name)
                continue
            where = f"{path}: array {shown(name[:-4])}"
            if member.method == STORED:
                start = data_start(file, member, size, str(path))
                file.seek(start)
                array, place, first = _array(file, where, path), path, start
            else:
                array, place, first = _array(member_file(file, member, size, str(path)), where, path), path, 0
                place = Place(store, name)
            found.take(name[:-4], array, place, first + array.start, member.size - array.start, where)
    if not found.tensors and not found.metadata:
        raise CheckpointError(f"{path} holds no arrays; expected a zip of .npy files.")
    return Header(path, "npz", found.tensors, {}, found.metadata, (path,))


class _Found:
    """The arrays so far: tensors, and by kind the names of those that hold no numbers that we know."""

    def __init__(self) -> None:
        self.tensors: dict[str, TensorInfo] = {}
        self.metadata: dict[str, Any] = {}

    def note(self, kind: str, name: str) -> None:
        names = self.metadata.setdefault(kind, [])
        if len(names) < MAX_NAMES:
            names.append(name[:200])

    def take(self, name: str, array: Array, place: Where, offset: int, left: int, where: str) -> None:
        """`left` are the bytes that follow the header."""
        letter = array.descr.lstrip("<>=|")[:1]
        if array.descr.startswith("["):
            self.note("structured_arrays", name)
        elif letter == "O":
            self.note("object_arrays", name)
        elif not array.dtype:
            self.note("text_arrays" if letter in "SUa" else "other_arrays", name)
        else:
            nbytes = prod(array.shape) * BITS[array.dtype] // 8
            if nbytes > left:
                raise CheckpointError(
                    f"{where} needs {nbytes:,} bytes and has {left:,}: incomplete, download it again."
                )
            if array.descr[0] == ">" and array.descr[-1] != "1":
                self.note("big_endian_arrays", name)
            strides = tuple(prod(array.shape[:i]) for i in range(len(array.shape))) if array.fortran else None
            self.tensors[name] = TensorInfo(name, array.dtype, array.shape, place, offset, nbytes, strides)


def _array(file: BinaryIO, where: str, path: Where) -> Array:
    head = exactly(file, 10, path)
    if head[:6] != MAGIC or head[6] not in (1, 2, 3):
        raise CheckpointError(f"{where} begins with {shown(head[:8])}; expected an NPY header of version 1, 2 or 3.")
    length, start = struct.unpack("<H", head[8:])[0], 10
    if head[6] > 1:
        length, start = struct.unpack("<I", head[8:] + exactly(file, 2, path))[0], 12
    if length > MAX_HEADER:
        raise CheckpointError(f"{where} has a header of {length:,} bytes; no real one exceeds {MAX_HEADER:,}.")
    raw = exactly(file, length, path).decode("latin-1" if head[6] < 3 else "utf-8", "replace")
    matched = DICTIONARY.fullmatch(raw)
    said = dict(zip(matched.groups()[::2], matched.groups()[1::2], strict=True)) if matched else {}
    shape, order, descr = said.get("shape", ""), said.get("fortran_order"), said.get("descr", "")
    if shape[:1] != "(" or order not in ("True", "False") or descr[:1] not in ("'", '"', "["):
        raise CheckpointError(f"{where} has the header {shown(raw)}; expected descr, fortran_order and shape.")
    numbers = [n.strip(" L") for n in shape[1:-1].split(",") if n.strip(" L")]
    if not all(n.isdecimal() and len(n) < 20 for n in numbers) or len(numbers) > MAX_DIMS:
        raise CheckpointError(f"{where} has the shape {shown(shape)}; expected up to {MAX_DIMS} whole numbers.")
    if descr[0] != "[":
        descr = descr[1:-1]
    if not descr:
        raise CheckpointError(f"{where} says no dtype; expected one like '<f4'.")
    dtype = DTYPES.get(descr.lstrip("<>=|"), "")
    return Array(descr, dtype, shape_of([int(n) for n in numbers], where), order == "True", start + length)
