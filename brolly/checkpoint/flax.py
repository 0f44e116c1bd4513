"""Flax's `.msgpack`: nested maps of arrays (msgpack's extension 1); what holds numbers is passed over, never read."""

from __future__ import annotations

import struct
from math import prod
from typing import Any, BinaryIO

from brolly.card import BITS, Header, TensorInfo
from brolly.checkpoint.bounded import MAX_DEPTH, MAX_TENSORS, opened, shape_of, shown
from brolly.errors import CheckpointError
from brolly.place import Where

DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL",
    "complex64": "C64", "complex128": "C128", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
    "float8_e4m3fnuz": "F8_E4M3FNUZ", "float8_e5m2fnuz": "F8_E5M2FNUZ", "float8_e8m0fnu": "F8_E8M0",
}  # fmt: skip
ARRAY, COMPLEX, SCALAR = 1, 2, 3  # flax.serialization's extensions
CHUNKED = "__msgpack_chunked_array__"
MAX_NODES = 400_000  # a real file has three a tensor
MAX_NAMES = 32 * 2**20  # bytes, of all names together
MAX_TEXT = 2**16  # bytes
MAX_VALUES = 1000  # kept of what is no array
WINDOW = 4096  # bytes read at a time
# first byte: (how its length or number is written, what it is)
SIZED = {
    0xC4: (">B", "bin"), 0xC5: (">H", "bin"), 0xC6: (">I", "bin"), 0xC7: (">B", "ext"), 0xC8: (">H", "ext"),
    0xC9: (">I", "ext"), 0xCA: (">f", ""), 0xCB: (">d", ""), 0xCC: (">B", ""), 0xCD: (">H", ""), 0xCE: (">I", ""),
    0xCF: (">Q", ""), 0xD0: (">b", ""), 0xD1: (">h", ""), 0xD2: (">i", ""), 0xD3: (">q", ""), 0xD9: (">B", "str"),
    0xDA: (">H", "str"), 0xDB: (">I", "str"), 0xDC: (">H", "array"), 0xDD: (">I", "array"), 0xDE: (">H", "map"),
    0xDF: (">I", "map"),
}  # fmt: skip


def read_flax(path: Where) -> Header:
    """Arrays by name, levels joined by "/"; what else the maps hold is metadata["values"]. Raises CheckpointError."""
    with opened(path) as (file, size):
        walk = _Walk(file, size, path)
        kind, count = walk.begin()
        if kind != "map":
            raise CheckpointError(f"{path} begins with {kind or 'a number'}; expected a Flax file: a map of arrays.")
        walk.map(count, "", 0)
    if walk.at != size:
        raise CheckpointError(f"{path} has {size - walk.at:,} bytes after its map; it is damaged or no Flax file.")
    if not walk.tensors:
        raise CheckpointError(f"{path} is msgpack without arrays; expected a Flax file.", "no-model")
    return Header(path, "flax", walk.tensors, {}, walk.metadata, (path,))


class _Walk:
    """Where we are in the file, and what was found; every length is held against the file before it is believed."""

    def __init__(self, file: BinaryIO, size: int, path: Where) -> None:
        self.file, self.size, self.path = file, size, path
        self.at, self.n_nodes, self.n_named = 0, 0, 0
        self.window, self.start = b"", 0
        self.tensors: dict[str, TensorInfo] = {}
        self.metadata: dict[str, Any] = {}

    def wrong(self, message: str) -> CheckpointError:
        return CheckpointError(f"{self.path}: {message}")

    def take(self, n: int) -> bytes:
        """The next `n` bytes, a few."""
        end = self.at + n
        if end > self.size:
            raise self.wrong(f"it ends after {self.size:,} bytes, in the middle of a value; download it again.")
        if self.at < self.start or end > self.start + len(self.window):
            self.file.seek(self.at)
            self.window, self.start = self.file.read(max(n, WINDOW)), self.at
            if len(self.window) < n:
                raise self.wrong(f"it ends after {self.at + len(self.window):,} bytes; download it again.")
        found = self.window[self.at - self.start : end - self.start]
        self.at = end
        return found

    def skip(self, n: int) -> None:
        if self.at + n > self.size:
            raise self.wrong(f"a value of {n:,} bytes exceeds the file; download it again.")
        self.at += n

    def begin(self) -> tuple[str, Any]:
        """The next value's kind, and its length or (of kind "") itself."""
        self.n_nodes += 1
        if self.n_nodes > MAX_NODES:
            raise self.wrong(f"it holds more than {MAX_NODES:,} values; no real file does.")
        first = self.take(1)[0]
        if first < 0x80 or first >= 0xE0:
            return "", first if first < 0x80 else first - 256
        if first < 0xC0:
            return (
                ("map", first & 15) if first < 0x90 else ("array", first & 15) if first < 0xA0 else ("str", first & 31)
            )
        if first in (0xC0, 0xC2, 0xC3):
            return "", None if first == 0xC0 else first == 0xC3
        if 0xD4 <= first <= 0xD8:
            return "ext", 1 << (first - 0xD4)
        if first not in SIZED:
            raise self.wrong(f"a value begins with {first:#x}, which msgpack does not use.")
        layout, kind = SIZED[first]
        return kind, struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def text(self, length: int) -> str:
        if length > MAX_TEXT:
            raise self.wrong(f"a name of {length:,} bytes is none of a real file's.")
        return self.take(length).decode("utf-8", "replace")

    def key(self) -> str:
        kind, value = self.begin()
        if kind == "str" or kind == "bin":
            return self.text(value)
        if kind or type(value) is not int:
            raise self.wrong(f"a map has {kind or shown(value)} for a key; expected a text.")
        return str(value)

    def map(self, count: int, prefix: str, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise self.wrong(f"its maps are nested deeper than {MAX_DEPTH} levels, as no real file's are.")
        for _ in range(count):
            key = self.key()
            if key == CHUNKED and prefix:
                self.value(prefix + key, depth)
                return self.chunks(count - 1, prefix[:-1], depth)
            self.value(prefix + key, depth)
        return None

    def value(self, name: str, depth: int) -> None:
        self.n_named += len(name)
        if self.n_named > MAX_NAMES:
            raise self.wrong(f"its names take over {MAX_NAMES:,} bytes; no real file's do.")
        kind, value = self.begin()
        if kind == "map":
            self.map(value, name + "/", depth + 1)
        elif kind == "array":
            if depth > MAX_DEPTH:
                raise self.wrong(f"its arrays are nested deeper than {MAX_DEPTH} levels, as no real file's are.")
            for i in range(value):
                self.value(f"{name}/{i}", depth + 1)
        elif kind == "ext":
            self.extension(name, value)
        elif kind == "str" and value <= MAX_TEXT:
            self.keep(name, self.text(value))
        elif kind:
            self.skip(value)
            self.keep(name, None)
        else:
            self.keep(name, value)

    def keep(self, name: str, value: Any) -> None:
        values = self.metadata.setdefault("values", {})
        if len(values) < MAX_VALUES and not name.endswith(CHUNKED):
            values[name[:200]] = value

    def extension(self, name: str, length: int) -> None:
        code = self.take(1)[0]
        end = self.at + length
        if end > self.size:
            raise self.wrong(f"{shown(name)} claims {length:,} bytes, more than the file holds.")
        if code in (ARRAY, SCALAR):
            self.array(name, end, code)
        self.at = end

    def array(self, name: str, end: int, code: int) -> None:
        where = f"{self.path}: array {shown(name)}"
        if self.begin() != ("array", 3):
            raise CheckpointError(f"{where} is not written as shape, dtype and bytes; expected a Flax file.")
        kind, rank = self.begin()
        if kind != "array" or rank > 32:
            raise CheckpointError(f"{where} has no shape; expected up to 32 whole numbers.")
        shape = shape_of([self.number(where) for _ in range(rank)], where)
        kind, length = self.begin()
        named = self.text(length) if kind in ("str", "bin") else ""
        kind, nbytes = self.begin()
        if kind != "bin" or self.at + nbytes != end:
            raise CheckpointError(f"{where} does not end with its bytes; the file is damaged.")
        if code == SCALAR:
            return self.keep(name, None)
        if named not in DTYPES:
            self.metadata.setdefault("other_arrays", {})[name[:200]] = named[:40]
            return None
        dtype = DTYPES[named]
        if prod(shape) * BITS[dtype] != 8 * nbytes:
            raise CheckpointError(f"{where} is {dtype} {shown(shape)} and has {nbytes:,} bytes; they do not agree.")
        return self.add(TensorInfo(name, dtype, shape, self.path, self.at, nbytes))

    def number(self, where: str) -> int:
        kind, value = self.begin()
        if kind or type(value) is not int:
            raise CheckpointError(f"{where} has {kind or shown(value)} in its shape; expected whole numbers.")
        return int(value)

    def add(self, info: TensorInfo) -> None:
        if info.name in self.tensors or len(self.tensors) >= MAX_TENSORS:
            fault = f"the array {shown(info.name)} twice" if info.name in self.tensors else "more arrays than any model"
            raise self.wrong(f"it holds {fault}; the file is damaged or made up.")
        self.tensors[info.name] = info

    def chunks(self, count: int, name: str, depth: int) -> None:
        """An array too long for msgpack: its shape as a map, and its pieces one after the other, flattened."""
        before = len(self.tensors)
        values = self.metadata.setdefault("values", {})
        for _ in range(count):
            self.value(f"{name}/{self.key()}", depth + 1)
        shape = [values.pop(key) for key in [k for k in values if k.startswith(f"{name}/shape/")]]
        found = [self.tensors.popitem()[1] for _ in range(len(self.tensors) - before)][::-1]
        where = f"{self.path}: array {shown(name)}"
        if not found or len({t.dtype for t in found}) > 1:
            raise CheckpointError(f"{where} is in {len(found)} chunks of no single dtype; the file is damaged.")
        whole = TensorInfo(
            name, found[0].dtype, shape_of(shape, where), self.path, found[0].offset, sum(t.nbytes for t in found)
        )
        if whole.n_elements != sum(t.n_elements for t in found):
            raise CheckpointError(f"{where} is {shown(shape)}, and its {len(found)} chunks hold another number.")
        self.add(whole)
        self.metadata.setdefault("chunked", []).append(name)
