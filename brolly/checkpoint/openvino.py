"""OpenVINO IR: an XML of layers, with the constants' bytes in the .bin beside it. No entities are ever expanded.

Source: docs.openvino.ai, "OpenVINO IR format" and "Operation sets" (from memory, 2026-11).
"""

from __future__ import annotations

from typing import Any

from brolly.card import Header
from brolly.checkpoint.bounded import MAX_DEPTH, opened, shown
from brolly.checkpoint.gathered import Gathered, bytes_of, size_there
from brolly.errors import CheckpointError, UnsafeCheckpoint
from brolly.place import Where

TYPES = {
    "f64": "F64", "f32": "F32", "f16": "F16", "bf16": "BF16", "i64": "I64", "i32": "I32", "i16": "I16", "i8": "I8",
    "u64": "U64", "u32": "U32", "u16": "U16", "u8": "U8", "boolean": "BOOL", "i4": "I4", "u4": "U4", "nf4": "NF4",
    "u1": "U1", "u2": "U2", "u3": "U3", "u6": "U6", "f8e4m3": "F8_E4M3", "f8e5m2": "F8_E5M2", "f8e8m0": "F8_E8M0",
    "f4e2m1": "F4",
}  # fmt: skip
# of IR 7 and earlier, and of ports
OLD_TYPES = {
    "FP32": "F32",
    "FP16": "F16",
    "I64": "I64",
    "I32": "I32",
    "I8": "I8",
    "U8": "U8",
    "BIN": "U1",
}  # before 2020
ASIDE = ("/zero_point", "/scale")  # NNCF's names
MAX_XML = 32 * 2**20  # bytes
MAX_ELEMENTS = 600_000
MAX_NOTES = 1000  # of a kind
MAX_OPS = 10_000
PIECE, MAX_TAG = 2**18, 2**20  # bytes parsed at once, and of one tag: a parser starts again at an unfinished one


def read_openvino(path: Where) -> Header:
    """The constants of an IR, by the names of their layers, and what the XML says. `path` is the .xml, or its .bin.

    Offsets are true in the .bin; -1 where it is missing. metadata: ir_version, name, inputs, outputs [{name, dtype,
    shape}], ops {type: times}, opsets, rt_info {path: value}, texts (constants that hold no numbers), scales (constants
    that are scales, zero points or the ranges of a FakeQuantize), faults.
    Raises NotFound, CheckpointError.
    """
    if path.suffix == ".bin":
        path = path.parent / (path.stem + ".xml")
    reading = _Reading(path)
    with opened(path) as (file, size):
        if size > MAX_XML:
            raise CheckpointError(f"{path} has {size:,} bytes; an OpenVINO model's XML has at most {MAX_XML:,}.")
        reading.parse(file.read)
    return reading.header()


class _Reading:
    """What the parser has met so far."""

    def __init__(self, path: Where) -> None:
        self.path = path
        self.found = Gathered(path)
        self.weights = path.parent / (path.stem + ".bin")
        self.size = size_there(self.weights)
        self.says: dict[str, Any] = {"ir_version": None, "name": None}
        self.ops: dict[str, int] = {}
        self.opsets: dict[str, None] = {}
        self.ends: dict[str, list[dict[str, Any]]] = {"inputs": [], "outputs": []}
        self.notes: dict[str, str] = {}
        self.texts: list[str] = []
        self.scales: dict[str, None] = {}
        self.numbered: dict[str, str] = {}  # of the outermost layers: id → the name of a constant
        self.ranges: set[str] = set()  # ids of FakeQuantize, whose inputs after the first are ranges
        self.stack: list[str] = []
        self.layers: list[dict[str, Any]] = []  # those that are open, innermost last
        self.elements = self.n_constants = 0
        self.dims: list[str] | None = None

    def parse(self, read: Any) -> None:
        from xml.parsers import expat

        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler, parser.EndElementHandler = self.start, self.end
        parser.CharacterDataHandler = self.text
        parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = self.refuse
        try:
            fed = 0
            while piece := read(PIECE):
                parser.Parse(piece, False)
                fed += len(piece)
                if fed - max(parser.CurrentByteIndex, 0) > MAX_TAG:
                    raise CheckpointError(f"{self.path} has a tag of over {MAX_TAG:,} bytes, as no real model has.")
            parser.Parse(b"", True)
        except (expat.ExpatError, ValueError) as error:
            raise CheckpointError(f"{self.path} is not valid XML ({str(error)[:60]}); download it again.") from None

    def refuse(self, *_: Any) -> None:
        raise UnsafeCheckpoint(f"{self.path} declares a document type or entities, as no OpenVINO model does.")

    def start(self, tag: str, at: dict[str, str]) -> None:
        self.elements += 1
        if self.elements > MAX_ELEMENTS:
            raise CheckpointError(f"{self.path} has more than {MAX_ELEMENTS:,} elements, as no real model has.")
        stack = self.stack
        if len(stack) >= MAX_DEPTH:
            raise CheckpointError(f"{self.path} is nested deeper than {MAX_DEPTH} levels, as no real model is.")
        if not stack and tag != "net":
            raise CheckpointError(f"{self.path} begins with <{tag[:40]}>; expected <net>, an OpenVINO model.")
        stack.append(tag)
        if tag == "layer":
            self.layer(at)
        elif tag == "data" and self.layers and stack[-2] == "layer":
            self.layers[-1]["data"] = at
        elif tag in ("weights", "biases", "custom") and len(stack) > 2 and stack[-2] == "blobs" and self.layers:
            self.old_blob(tag, at)
        elif tag == "port" and self.layers:
            self.dims = []
            self.layers[-1].setdefault("precision", at.get("precision"))
        elif tag == "edge" and at.get("to-layer") in self.ranges and at.get("to-port") != "0" and len(stack) == 3:
            if name := self.numbered.get(at.get("from-layer", "")):
                self.scales[name] = None
        elif tag == "net":
            self.says |= {"ir_version": at.get("version"), "name": at.get("name")}
        elif stack[1:2] in (["rt_info"], ["meta_data"]) and len(self.notes) < MAX_NOTES:
            key = "/".join(stack[2:])
            for name, value in at.items():
                self.notes[(key if name == "value" else f"{key}/{name}")[:256]] = value[:4096]

    def text(self, text: str) -> None:
        if self.dims is not None and self.stack[-1] == "dim" and len(self.dims) < 64:
            self.dims.append(text.strip()[:20])

    def end(self, tag: str) -> None:
        self.stack.pop()
        if tag == "layer" and self.layers:
            self.close(self.layers.pop())
        elif tag == "port" and self.layers:
            self.layers[-1].setdefault("dims", self.dims)
            self.dims = None

    def layer(self, at: dict[str, str]) -> None:
        kind = at.get("type", "")[:256]
        self.ops[kind] = self.ops.get(kind, 0) + 1
        if len(self.ops) > MAX_OPS:
            raise CheckpointError(f"{self.path} has more than {MAX_OPS:,} types of layers, as no real model has.")
        opset = at.get("version", "")[:64]
        if opset and len(self.opsets) < MAX_NOTES:
            self.opsets[opset] = None
        if kind == "FakeQuantize" and not self.layers:
            self.ranges.add(at.get("id", "")[:20])
        known = {"name": at.get("name", "")[:4096], "type": kind, "depth": len(self.layers), "id": at.get("id", "")}
        self.layers.append(known)

    def close(self, layer: dict[str, Any]) -> None:
        data: dict[str, str] = layer.get("data", {})
        kind = layer["type"]
        if kind == "Const":
            kept = self.constant(layer["name"], data)
            if kept and not layer["depth"]:
                self.numbered[layer["id"][:20]] = kept
            if kept and layer["name"].endswith(ASIDE):
                self.scales[kept] = None
        elif kind in ("Parameter", "Input", "Result") and not layer["depth"]:
            ends = self.ends["outputs" if kind == "Result" else "inputs"]
            if len(ends) < MAX_NOTES:
                ends.append(self.value(layer, data))

    def value(self, layer: dict[str, Any], data: dict[str, str]) -> dict[str, Any]:
        dims = data["shape"].split(",") if "shape" in data else layer.get("dims") or []
        sizes = [int(d) if d.strip().isdecimal() and len(d) < 20 else None for d in dims[:64] if d.strip()]
        precision = str(layer.get("precision") or "")
        dtype = TYPES.get(data.get("element_type", "")) or OLD_TYPES.get(precision) or TYPES.get(precision.lower())
        return {"name": layer["name"], "dtype": dtype, "shape": sizes}

    def constant(self, name: str, data: dict[str, str]) -> str:
        """Keep a constant; the name it is kept under, or nothing where it holds no numbers."""
        kind = data.get("element_type", "")
        if kind in ("string", "dynamic", "undefined"):
            if len(self.texts) < MAX_NOTES:
                self.texts.append(name)
            return ""
        if not data and not kind:
            return ""  # of IR 7 and earlier: its blob was kept already
        where = f"{self.path}: constant {shown(name)}"
        if kind not in TYPES:
            raise CheckpointError(f"{where} has element_type {shown(kind)}; expected one of OpenVINO's.")
        shape = [self.number(where, part) for part in data.get("shape", "").split(",") if part.strip()]
        offset, size = self.number(where, data.get("offset", "")), self.number(where, data.get("size", ""))
        dtype = TYPES[kind]
        if len(shape) <= 16 and size != bytes_of(dtype, tuple(shape)):
            raise CheckpointError(f"{where} is {dtype} {shown(shape)} and has {size:,} bytes; they do not agree.")
        return self.keep(name, dtype, shape, offset, size)

    def old_blob(self, tag: str, at: dict[str, str]) -> None:
        """A blob of IR 7 and earlier: its place, size and, since IR 6, its precision; its shape is not told."""
        layer = self.layers[-1]
        where = f"{self.path}: {shown(layer['name'])}/{tag}"
        dtype = OLD_TYPES.get(at.get("precision") or layer.get("precision") or "", "")
        if not dtype:
            raise CheckpointError(f"{where} has no known precision; convert the model to a newer IR.")
        offset, size = self.number(where, at.get("offset", "")), self.number(where, at.get("size", ""))
        self.keep(f"{layer['name']}/{tag}", dtype, [size * 8 // (8 * bytes_of(dtype, (1,)))], offset, size)

    def number(self, where: str, text: str) -> int:
        text = text.strip()
        if not text.isdecimal() or len(text) > 18:
            raise CheckpointError(f"{where} has {shown(text)} where a whole number is expected.")
        return int(text)

    def keep(self, name: str, dtype: str, shape: list[int], offset: int, size: int) -> str:
        self.n_constants += 1
        known = self.size is not None and offset + size <= self.size
        if self.size is not None and not known and not self.found.faults:
            said = f"{self.weights.name} ends at {self.size:,} bytes, before {shown(name)} does; pull it again."
            self.found.faults.append(said)
        return self.found.add(name, dtype, shape, self.weights if known else self.path, offset if known else -1, size)

    def header(self) -> Header:
        if not self.ops:
            raise CheckpointError(f"{self.path} is a <net> without layers; expected an OpenVINO model.")
        if self.size is None and self.n_constants:
            self.found.faults.append(f"{self.path.name} needs {self.weights.name}, which is missing; pull it again.")
        metadata = self.says | self.ends | {
            "ops": dict(sorted(self.ops.items(), key=lambda kv: -kv[1])), "opsets": list(self.opsets),
            "rt_info": self.notes, "texts": self.texts, "scales": list(self.scales), "faults": self.found.faults,
        }  # fmt: skip
        files = (self.path,) if self.size is None else (self.path, self.weights)
        return Header(self.path, "openvino", self.found.tensors, {}, metadata, files)
