"""ONNX: one protobuf message, a graph of nodes and initializers. Weights may lie in files beside it. No onnx package.

Field numbers: github.com/onnx/onnx, onnx/onnx.proto (1.23).
"""

from __future__ import annotations

from typing import Any

from brolly.card import Header
from brolly.checkpoint.bounded import opened, shown
from brolly.checkpoint.gathered import Gathered, beside, size_there
from brolly.checkpoint.protobuf import Wire, length, signed, varint
from brolly.errors import CheckpointError
from brolly.place import Where

TYPES = {
    1: "F32", 2: "U8", 3: "I8", 4: "U16", 5: "I16", 6: "I32", 7: "I64", 9: "BOOL", 10: "F16", 11: "F64", 12: "U32",
    13: "U64", 14: "C64", 15: "C128", 16: "BF16", 17: "F8_E4M3", 18: "F8_E4M3FNUZ", 19: "F8_E5M2", 20: "F8_E5M2FNUZ",
    21: "U4", 22: "I4", 23: "F4", 24: "F8_E8M0", 25: "U2", 26: "I2", 27: "F6_E2M3", 28: "F6_E3M2",
}  # fmt: skip
STRING = 8
AS_THEY_LIE = {4: ("F32", "C64"), 10: ("F64", "C128")}  # typed fields whose bytes are the tensor's
TYPED = frozenset((4, 5, 6, 7, 10, 11))
STANDARD = ("", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training")
# which inputs are scales and zero points; the rest of the initializers are weights
SCALES = {
    "DequantizeLinear": (1, 2), "QuantizeLinear": (1, 2), "QLinearConv": (1, 2, 4, 5, 6, 7), "MatMulNBits": (2, 3),
    "QLinearMatMul": (1, 2, 4, 5, 6, 7), "MatMulInteger": (2, 3), "ConvInteger": (2, 3),
    "DynamicQuantizeMatMul": (2, 3),
    "MatMulIntegerToFloat": (2, 3, 4, 5), "QGemm": (1, 2, 4, 5, 7, 8), "GatherBlockQuantized": (2, 3),
    "QMoE": (3, 6, 9, 11, 12, 13), "MatMulBnb4": (2,),
}  # fmt: skip
# which inputs are whole numbers that stand for weights or biases
INTEGERS = {
    "DequantizeLinear": (0,), "QLinearConv": (3, 8), "QLinearMatMul": (0, 3), "MatMulInteger": (0, 1),
    "ConvInteger": (1,), "DynamicQuantizeMatMul": (1,), "MatMulIntegerToFloat": (0, 1), "QGemm": (3, 6),
}  # fmt: skip
PACKED = {"MatMulNBits": (1,), "MatMulBnb4": (1,), "GatherBlockQuantized": (0,), "QMoE": (2, 5, 8)}
GRAPHS = ("If", "Loop", "Scan", "SequenceMap")
LEAST, LEAST_ELSEWHERE = 16, 64  # bytes of an attribute that may hold a graph, in the operators above and in others
NODE = length(1)  # of a graph
INPUT, OUTPUT, NAME, OPERATOR, ATTRIBUTE, DOMAIN = (length(n) for n in (1, 2, 3, 4, 5, 7))  # of a node
MAX_NOTES = 1000  # of a kind
MAX_OPS = 10_000  # kinds of operator


def read_onnx(path: Where) -> Header:
    """Initializers and constants, and what the graph says of itself. Raises NotFound, CheckpointError.

    Offsets are true where a tensor lies as it is, in this file or one beside it; -1 where its numbers are packed as
    varints or its file is missing. metadata: producer_name, producer_version, ir_version, model_version, domain, doc,
    graph, opset {domain: version}, ops {operator: times}, inputs, outputs [{name, dtype, shape}], metadata_props,
    external [(tensor, location)], domains (not ONNX's own), functions, constants (tensors that are Constant nodes),
    scales (initializers that are scales or zero points), integers (those that are weights in whole numbers), packed
    {tensor: {op, bits, K, N, …}}, sparse {tensor: shape}, strings {tensor: shape}, faults (sentences on missing data).
    """
    with opened(path) as (file, size):
        wire = Wire(file, size, path)
        if wire.raw(0, min(size, 8))[4:] == b"ORTM":
            raise CheckpointError(f"{path} is an ONNX Runtime (.ort) file; expected .onnx, from which it was made.")
        return _Reading(wire).header()


class _Reading:
    """One file's tensors and tallies."""

    def __init__(self, wire: Wire) -> None:
        self.wire, self.path = wire, wire.path
        self.found = Gathered(wire.path)
        self.ops: dict[str, int] = {}
        self.says: dict[str, Any] = {}
        self.external: list[tuple[str, str]] = []
        self.constants: list[str] = []
        self.scales: dict[str, None] = {}
        self.integers: dict[str, None] = {}
        self.packed: dict[str, dict[str, Any]] = {}
        self.sparse: dict[str, tuple[int, ...]] = {}
        self.strings: dict[str, tuple[int, ...]] = {}
        self.functions: list[str] = []
        self.files: dict[str, tuple[Where | None, int | None]] = {}
        self.bare = 0

    def header(self) -> Header:
        wire, says = self.wire, self.says
        opset: dict[str, int] = {}
        props: dict[str, str] = {}
        graph = False
        for key, a, b in wire.fields(0, wire.size):
            if key == length(7):
                self.graph(a, b, 0, "")
                graph = True
            elif key == varint(1):
                says["ir_version"] = signed(a)
            elif key == varint(5):
                says["model_version"] = signed(a)
            elif key in (length(2), length(3), length(4)):
                says[("producer_name", "producer_version", "domain")[(key >> 3) - 2]] = wire.text(a, b)
            elif key == length(6):
                says["doc"] = wire.excerpt(a, b)
            elif key == length(8) and len(opset) < MAX_NOTES:
                domain, version = self.opset(a, b)
                opset[domain or "ai.onnx"] = version
            elif key == length(14) and len(props) < MAX_NOTES:
                name, value = wire.texts(a, b)
                props[name] = value
            elif key == length(20):
                for part, c, d in wire.fields(a, b):
                    if part in (length(1), length(2)):
                        self.graph(c, d, 1, "training")
            elif key == length(25):
                self.function(a, b)
        if not graph or not (self.ops or self.found.tensors) or not (opset or "ir_version" in says):
            raise CheckpointError(f"{self.path} is not an ONNX model: it has no graph, or no version of its operators.")
        return self.told(opset, props)

    def told(self, opset: dict[str, int], props: dict[str, str]) -> Header:
        says, tensors = self.says, self.found.tensors
        if self.bare:
            self.found.faults.append(f"{self.path.name} names {self.bare} tensors and does not hold their numbers.")
        for kind in ("inputs", "outputs"):
            says[kind] = [v for v in says.get(kind, []) if v["name"] not in tensors]
        metadata = says | {
            "opset": opset, "ops": dict(sorted(self.ops.items(), key=lambda kv: -kv[1])), "metadata_props": props,
            "external": self.external, "functions": self.functions, "constants": self.constants,
            "domains": sorted({op.partition("::")[0] for op in self.ops if "::" in op}),
            "scales": [name for name in self.scales if name in tensors],
            "integers": [name for name in self.integers if name in tensors],
            "packed": {name: how for name, how in self.packed.items() if name in tensors},
            "sparse": self.sparse, "strings": self.strings, "faults": self.found.faults,
        }  # fmt: skip
        beside_it = [where for where, size in self.files.values() if where is not None and size is not None]
        return Header(self.path, "onnx", tensors, {}, metadata, (self.path, *beside_it))

    def opset(self, begin: int, end: int) -> tuple[str, int]:
        domain, version = "", 0
        for key, a, b in self.wire.fields(begin, end):
            if key == length(1):
                domain = self.wire.text(a, b)
            elif key == varint(2):
                version = signed(a)
        return domain, version

    def graph(self, begin: int, end: int, depth: int, scope: str) -> None:
        """A graph within `scope`, the name of the node or function that holds it ("" for the model's own)."""
        depth = self.wire.deeper(depth)
        for key, a, b in self.wire.fields(begin, end):
            if key == NODE:
                self.node(a, b, depth, scope)
            elif key == length(5):
                self.tensor(a, b, "", scope)
            elif key == length(15):
                self.sparse_tensor(a, b, "", scope)
            elif not scope and key == length(2):
                self.says["graph"] = self.wire.text(a, b)
            elif not scope and key in (length(11), length(12)):
                kind = "inputs" if key == length(11) else "outputs"
                values = self.says.setdefault(kind, [])
                if len(values) < 2**16:
                    values.append(self.value(a, b))

    def function(self, begin: int, end: int) -> None:
        name = domain = ""
        nodes = []
        for key, a, b in self.wire.fields(begin, end):
            if key == length(1):
                name = self.wire.text(a, b)
            elif key == length(10):
                domain = self.wire.text(a, b)
            elif key == length(7):
                nodes.append((a, b))
        title = f"{domain}::{name}"
        if len(self.functions) < MAX_OPS:
            self.functions.append(title)
        for a, b in nodes:
            self.node(a, b, 1, title)

    def node(self, begin: int, end: int, depth: int, scope: str) -> None:
        wire = self.wire
        op, domain, name, result = "", "", (0, 0), (0, 0)
        inputs, attributes = [], []
        for key, a, b in wire.fields(begin, end):
            if key == INPUT:
                inputs.append((a, b))
            elif key == OUTPUT:
                result = result if result[1] else (a, b)
            elif key == ATTRIBUTE:
                attributes.append((a, b))
            elif key == OPERATOR:
                op = wire.text(a, b)
            elif key == NAME:
                name = (a, b)
            elif key == DOMAIN:
                domain = wire.text(a, b)
        full = op if domain in STANDARD else f"{domain}::{op}"
        self.ops[full] = self.ops.get(full, 0) + 1
        if len(self.ops) > MAX_OPS:
            raise CheckpointError(f"{self.path} has more than {MAX_OPS:,} kinds of operators, as no real model has.")
        if op in SCALES:
            for i in SCALES[op]:
                if i < len(inputs):
                    self.scales[wire.text(*inputs[i])] = None
        if op in INTEGERS:
            for i in INTEGERS[op]:
                if i < len(inputs):
                    self.integers[wire.text(*inputs[i])] = None
        if op in PACKED:
            self.pack(op, [wire.text(*inputs[i]) for i in PACKED[op] if i < len(inputs)], attributes)
        least = 0 if op == "Constant" else LEAST if op in GRAPHS else LEAST_ELSEWHERE
        for a, b in attributes:
            if b - a >= least:
                self.attribute(a, b, depth, op, scope, name, result)

    def pack(self, op: str, names: list[str], attributes: list[tuple[int, int]]) -> None:
        """What the node says of weights that hold several numbers in a byte."""
        how: dict[str, Any] = {"op": op}
        for begin, end in attributes[:MAX_NOTES]:
            name, value = "", None
            for key, a, b in self.wire.fields(begin, end):
                if key == length(1):
                    name = self.wire.text(a, b)
                elif key == varint(3):
                    value = signed(a)
            if value is not None:
                how[name] = value
        for name in names:
            self.packed[name] = how

    def attribute(
        self, begin: int, end: int, depth: int, op: str, scope: str, name: tuple[int, int], result: tuple[int, int]
    ) -> None:
        wire, floats, ints = self.wire, 0, 0
        constant = op == "Constant"
        for key, a, b in wire.fields(begin, end):
            if key in (length(6), length(11)):  # graphs: the branches of If, the body of Loop
                self.graph(a, b, depth, f"{scope}/{wire.text(*name)}" if name[1] else f"{scope}/{op}")
            elif key in (length(5), length(10)) and op != "ConstantOfShape":
                self.tensor(a, b, wire.text(*result), scope, constant)
            elif key in (length(22), length(23)):
                self.sparse_tensor(a, b, wire.text(*result), scope, constant)
            elif key == 2 << 3 | 5 or key == 7 << 3 | 5:
                floats += 1
            elif key == length(7):
                floats += (b - a) // 4
            elif key == varint(3) or key == varint(8):
                ints += 1
            elif key == length(8):
                ints += len(wire.numbers(a, b, 2**16))
        if constant and (floats or ints):
            kept = self.found.add(
                self.scoped(wire.text(*result), scope), "F32" if floats else "I64", [floats or ints], self.path, -1
            )
            self.constants.append(kept)

    def scoped(self, name: str, scope: str) -> str:
        return f"{scope.lstrip('/')}/{name}" if scope else name

    def tensor(self, begin: int, end: int, name: str, scope: str, constant: bool = False) -> tuple[str, str]:
        """Keep a TensorProto; its own name, and the one it is kept under."""
        wire = self.wire
        dims: list[int] = []
        data: tuple[int, int, int] | None = None
        outside: dict[str, str] = {}
        kind, away, typed = 0, False, False
        own = ""
        for key, a, b in wire.fields(begin, end):
            number = key >> 3
            if key == varint(1):
                dims.append(signed(a))
            elif key == length(1):
                dims += [signed(n) for n in wire.numbers(a, b)]
            elif key == varint(2):
                kind = a
            elif key == length(8):
                own = wire.text(a, b)
            elif key == length(9) or (number in AS_THEY_LIE and b >= 0):
                data = (number, a, b)
            elif number in TYPED:
                typed = True
            elif key == length(13) and len(outside) < 16:
                entry, value = wire.texts(a, b)
                outside[entry] = value
            elif key == varint(14):
                away = a == 1
        name = self.scoped(own or name, scope)
        where = f"{self.path}: tensor {shown(name)}"
        if kind in (0, STRING):
            if len(dims) > 16 or len(self.strings) >= MAX_NOTES:
                raise CheckpointError(f"{where} is one text too many, or in too many dimensions.")
            self.strings[name] = tuple(dims)
            return own, ""
        if kind not in TYPES:
            raise CheckpointError(f"{where} is of type {shown(kind)}; expected one of ONNX's, 1 to {max(TYPES)}.")
        dtype = TYPES[kind]
        kept = self.found.add(name, dtype, dims, self.path, -1)
        info = self.found.tensors[kept]
        if constant:
            self.constants.append(kept)
        if away:
            self.elsewhere(kept, outside)
        elif data is not None and (data[0] == 9 or dtype in AS_THEY_LIE[data[0]]):
            number, a, b = data
            if b - a != info.nbytes and (number == 9 or b > a):
                raise CheckpointError(f"{where} is {dtype} {shown(dims)} and has {b - a:,} bytes; they do not agree.")
            self.found.place(kept, self.path, a if b > a or not info.nbytes else -1, info.nbytes)
        elif info.nbytes and not typed:
            self.bare += 1
        return own, kept

    def elsewhere(self, name: str, outside: dict[str, str]) -> None:
        """A tensor in another file: where, if that file is a neighbour and long enough."""
        location = outside.get("location", "")
        self.external.append((name, location))
        if location not in self.files:
            if len(self.files) >= MAX_NOTES * 10:
                raise CheckpointError(f"{self.path} points at more than {MAX_NOTES * 10:,} files.")
            where = beside(self.path, location)
            self.files[location] = where, None if where is None else size_there(where)
            if where is None:
                self.found.faults.append(
                    f"{self.path.name} points at {shown(location)}, which is not a file beside it."
                )
            elif self.files[location][1] is None:
                self.found.faults.append(f"{self.path.name} needs {shown(location)}, which is missing; pull it again.")
        where, size = self.files[location]
        if where is None or size is None:
            return
        numbers = [outside.get("offset", "0"), outside.get("length", "")]
        if not all(n.isdecimal() and len(n) < 20 for n in numbers if n):
            raise CheckpointError(f"{self.path}: tensor {shown(name)} lies at {shown(numbers)}; expected numbers.")
        offset, nbytes = int(numbers[0] or 0), self.found.tensors[name].nbytes
        if numbers[1] and int(numbers[1]) != nbytes:
            raise CheckpointError(
                f"{self.path}: tensor {shown(name)} takes {nbytes:,} bytes and is said to have {shown(numbers[1])}."
            )
        if offset + nbytes > size:
            if len(self.found.faults) < MAX_NOTES:
                self.found.faults.append(
                    f"{location} ends at {size:,} bytes, before {shown(name)} does; pull it again."
                )
            return
        self.found.place(name, where, offset, nbytes)

    def sparse_tensor(self, begin: int, end: int, name: str, scope: str, constant: bool = False) -> None:
        """The numbers that are kept, under the tensor's name; its full shape goes into `sparse`."""
        dims: list[int] = []
        kept = ""
        for key, a, b in self.wire.fields(begin, end):
            if key == length(1):
                kept = self.tensor(a, b, name, scope, constant)[1]
            elif key == varint(3):
                dims.append(signed(a))
            elif key == length(3):
                dims += [signed(n) for n in self.wire.numbers(a, b)]
        if kept and len(dims) <= 16:
            self.sparse[kept] = tuple(dims)

    def value(self, begin: int, end: int) -> dict[str, Any]:
        """A graph's input or output: name, dtype, shape (numbers, names of open dimensions, None)."""
        said: dict[str, Any] = {"name": "", "dtype": None, "shape": None}
        for key, a, b in self.wire.fields(begin, end):
            if key == length(1):
                said["name"] = self.wire.text(a, b)
            elif key == length(2):
                for part, c, d in self.wire.fields(a, b):
                    if part in (length(1), length(8)):
                        said["dtype"], said["shape"] = self.tensor_type(c, d)
                    elif part in (length(4), length(5), length(7), length(9)):
                        said["dtype"] = {4: "sequence", 5: "map", 7: "opaque", 9: "optional"}[part >> 3]
        return said

    def tensor_type(self, begin: int, end: int) -> tuple[str | None, list[int | str | None] | None]:
        dtype: str | None = None
        shape: list[int | str | None] | None = None
        for key, a, b in self.wire.fields(begin, end):
            if key == varint(1):
                dtype = "STRING" if a == STRING else TYPES.get(a)
            elif key == length(2):
                shape = []
                for part, c, d in self.wire.fields(a, b):
                    if part == length(1) and len(shape) < 64:
                        shape.append(self.dimension(c, d))
        return dtype, shape

    def dimension(self, begin: int, end: int) -> int | str | None:
        for key, a, b in self.wire.fields(begin, end):
            if key == varint(1):
                return signed(a)
            if key == length(2):
                return self.wire.text(a, b)
        return None
