"""TensorFlow without TensorFlow: SavedModel folders, checkpoints of both versions, and frozen graphs.

Field numbers: github.com/tensorflow/tensorflow, tensorflow/core/protobuf and core/framework (read 2026-11).
"""

from __future__ import annotations

import re
from typing import Any

from brolly.card import Header
from brolly.checkpoint.bounded import opened, shown
from brolly.checkpoint.gathered import NARROW, Gathered, beside, bytes_of, names_in, size_there
from brolly.checkpoint.protobuf import Wire, length, signed, varint
from brolly.checkpoint.sstable import Table
from brolly.errors import CheckpointError, NotFound
from brolly.place import Where, is_folder

TYPES = {
    1: "F32", 2: "F64", 3: "I32", 4: "U8", 5: "I16", 6: "I8", 8: "C64", 9: "I64", 10: "BOOL", 11: "I8", 12: "U8",
    13: "I32", 14: "BF16", 15: "I16", 16: "U16", 17: "U16", 18: "C128", 19: "F16", 22: "U32", 23: "U64",
    24: "F8_E5M2", 25: "F8_E4M3", 26: "F8_E4M3FNUZ", 27: "F8_E4M3B11FNUZ", 28: "F8_E5M2FNUZ", 29: "I4", 30: "U4",
    31: "I2", 32: "U2",
}  # fmt: skip
NO_NUMBERS = {7: "STRING", 20: "RESOURCE", 21: "VARIANT"}
REFERENCE = 100  # added to the type of a variable that is passed by reference
# what training leaves beside the weights: slots of optimizers, averages, counters, metrics
TRAINING = re.compile(
    r"\.OPTIMIZER_SLOT/|(?:^|/)_?optimizer\d*/|^keras_api/metrics/|^(?:global_step|save_counter|beta[12]_power)\b"
    r"|/(?:Adam|AdamW|Momentum|RMSProp|Adagrad|Adadelta|Ftrl)(?:_\d)?$|/(?:adam|lamb)_[mv]$|/ExponentialMovingAverage$"
    r"|_slot_(?:v|vr|vc|m)$"  # of Mesh TensorFlow, with which T5 was trained
)
VARIABLES = {"VarHandleOp", "VariableV2", "Variable"}
MAX_NOTES = 1000  # of a kind
MAX_OPS = 10_000  # kinds of operator
NODE_NAME, NODE_OP, NODE_ATTRIBUTE = (length(n) for n in (1, 2, 5))


def read_savedmodel(path: Where) -> Header:
    """A SavedModel: variables, constants and graph. `path` is its folder or the saved_model.pb in it.

    metadata: tags, tensorflow_version, ops {operator: times, of all functions}, functions (how many), signatures {key:
    {inputs, outputs: [{name, dtype, shape}]}}, assets, constants (tensors that are Const nodes, of a model without
    variables), training_state (names of what training left), faults. Raises NotFound, CheckpointError.
    """
    graph = path if path.name == "saved_model.pb" else path / "saved_model.pb"
    folder = graph.parent
    found = Gathered(path)
    with opened(graph) as (file, size):
        reading = _Graphs(Wire(file, size, graph), found)
        for key, a, b in reading.wire.fields(0, size):
            if key == length(2):
                reading.meta_graph(a, b)
        if not reading.says:
            raise CheckpointError(f"{graph} holds no graph; expected a TensorFlow SavedModel.")
    index = folder / "variables" / "variables.index"
    files: list[Where] = [graph]
    if reading.ops.keys() & VARIABLES or size_there(index) is not None:
        found.tensors.clear()  # every function repeats its constants; the weights are the variables
    constants = list(found.tensors)
    if size_there(index) is not None:
        files += _bundle(index, found)[0]
    elif not constants and reading.ops.keys() & VARIABLES:
        found.faults.append(f"{folder.name} lacks variables/variables.index, which names its weights; pull it again.")
    metadata = reading.told() | {"constants": constants, **_after(found)}
    return Header(path, "savedmodel", found.tensors, {}, metadata, tuple(files))


def read_tf_checkpoint(path: Where) -> Header:
    """A checkpoint: its .index, its prefix, a folder of some, or one file of the old version 1.

    Offsets are true in the .data files; -1 for partitioned variables, of version 1, and where the file is missing or
    too short. metadata: version (1 or 2), shards, endianness, latest (what the "checkpoint" file names), partitioned
    (names), texts (names of what holds no numbers), training_state, faults. Raises NotFound, CheckpointError.
    """
    index, latest = _index_of(path)
    found = Gathered(path)
    files, says = _bundle(index, found)
    metadata = says | {"latest": latest, **_after(found)}
    return Header(path, "tf-checkpoint", found.tensors, {}, metadata, tuple(files))


def read_graphdef(path: Where) -> Header:
    """A frozen graph (.pb): the weights are its Const nodes. metadata: ops, functions, constants, faults."""
    found = Gathered(path)
    with opened(path) as (file, size):
        reading = _Graphs(Wire(file, size, path), found)
        reading.graph(0, size)
    if not reading.ops or "" in reading.ops:
        raise CheckpointError(f"{path} is not a TensorFlow graph: it has no nodes, or nodes without an operator.")
    metadata = reading.told() | {"constants": list(found.tensors), **_after(found)}
    return Header(path, "graphdef", found.tensors, {}, metadata, (path,))


def _after(found: Gathered) -> dict[str, Any]:
    return {"training_state": [n for n in found.tensors if TRAINING.search(n)], "faults": found.faults}


def _index_of(path: Where) -> tuple[Where, str | None]:
    """The file to read of what the user named, and the newest checkpoint by the "checkpoint" file of the folder."""
    if path.name.endswith(".index"):
        return path, None
    if is_folder(path):
        latest = _latest(path / "checkpoint")
        there = sorted(n for n in names_in(path) if n.endswith(".index"))
        named = beside(path / "checkpoint", latest + ".index") if latest else None
        if named is not None and size_there(named) is not None:
            return named, latest
        if not there:
            raise CheckpointError(f"{path} holds no .index file; expected a TensorFlow checkpoint.")
        return path / max(there, key=lambda n: (len(n), n)), latest
    if path.name == "checkpoint" and (latest := _latest(path)):
        return _index_of(path.parent)
    index = path.parent / (path.name + ".index")
    return (index, None) if size_there(path) is None and size_there(index) is not None else (path, None)


def _latest(path: Where) -> str | None:
    """The name of the newest checkpoint, as the text file "checkpoint" has it, without the folders before it."""
    try:
        with opened(path) as (file, size):
            text = file.read(min(size, 2**16)).decode("utf-8", "replace")
    except (NotFound, CheckpointError):
        return None
    named = re.search(r'^model_checkpoint_path:\s*"([^"\n]{1,1000})"', text, re.MULTILINE)
    return re.split(r"[/\\]", named[1])[-1] if named else None


def _bundle(index: Where, found: Gathered) -> tuple[list[Where], dict[str, Any]]:
    """Keep what an index names; its files, and what it says of itself."""
    with opened(index) as (file, size):
        table = Table(file, size, index)
        key, value = table.first()
        head = Wire.over(value, index).fields(0, len(value))
        if key != b"":
            raise CheckpointError(
                f"{index} begins with {shown(key)}; expected a checkpoint's header under an empty key."
            )
        if any(k == length(1) for k, _, _ in head):
            return _version_one(index, value, found)
        says: dict[str, Any] = {"version": 2, "shards": 0, "endianness": "little", "partitioned": [], "texts": []}
        for k, a, _ in head:
            if k == varint(1):
                says["shards"] = a
            elif k == varint(2) and a == 1:
                says["endianness"] = "big"
        if says["shards"] > 2**17:
            raise CheckpointError(f"{index} claims {says['shards']:,} shards, as no real checkpoint has.")
        shards: dict[int, tuple[Where, int | None]] = {}
        for key, value in table.entries():
            if key and not key.startswith(b"\0"):  # such keys are slices of partitioned variables
                _entry(index, key.decode("utf-8", "replace"), value, found, says, shards)
    files = [index] + [where for _, (where, size_) in sorted(shards.items()) if size_ is not None]
    return files, says


def _entry(
    index: Where,
    name: str,
    value: bytes,
    found: Gathered,
    says: dict[str, Any],
    shards: dict[int, tuple[Where, int | None]],
) -> None:
    wire = Wire.over(value, index)
    kind = shard = offset = n_bytes = 0
    shape: list[int] | None = []
    sliced = False
    for key, a, b in wire.fields(0, len(value)):
        if key == varint(1):
            kind = a % REFERENCE
        elif key == length(2):
            shape = _shape(wire, a, b)
        elif key == varint(3):
            shard = a
        elif key == varint(4):
            offset = a
        elif key == varint(5):
            n_bytes = a
        elif key == length(7):
            sliced = True
    if kind in NO_NUMBERS:
        if len(says["texts"]) < MAX_NOTES:
            says["texts"].append(name)
        return
    where = f"{index}: tensor {shown(name)}"
    if kind not in TYPES or shape is None:
        raise CheckpointError(f"{where} is of type {shown(kind)}; expected one of TensorFlow's, with a shape.")
    dtype = TYPES[kind]
    if sliced:
        says["partitioned"].append(found.add(name, dtype, shape, index, -1))
        return
    kept = found.tensors[found.add(name, dtype, shape, index, -1)]
    if n_bytes != bytes_of(dtype, kept.shape) and dtype not in NARROW:
        raise CheckpointError(f"{where} is {dtype} {shown(shape)} and has {shown(n_bytes)} bytes; they do not agree.")
    if shard >= says["shards"]:
        raise CheckpointError(f"{where} lies in shard {shown(shard)} of {says['shards']}; the file is damaged.")
    if shard not in shards:
        file = index.parent / f"{index.name.removesuffix('.index')}.data-{shard:05d}-of-{says['shards']:05d}"
        shards[shard] = file, size_there(file)
        if shards[shard][1] is None and len(found.faults) < MAX_NOTES:
            found.faults.append(f"{index.name} needs {file.name}, which is missing; pull it again.")
    file, size = shards[shard]
    if size is not None and offset + n_bytes <= size:
        found.place(kept.name, file, offset, n_bytes)
    elif size is not None and not any(file.name in fault for fault in found.faults[:8]):
        found.faults.append(f"{file.name} ends at {size:,} bytes, before {shown(name)} does; pull it again.")


def _version_one(path: Where, value: bytes, found: Gathered) -> tuple[list[Where], dict[str, Any]]:
    """The table of contents of a version 1 checkpoint, which is the value of the empty key."""
    wire = Wire.over(value, path)
    texts: list[str] = []
    for key, a, b in wire.fields(0, len(value)):
        for part, c, d in wire.fields(a, b) if key == length(1) else ():
            if part != length(1):
                continue
            name, kind, shape = "", 0, None
            for field, e, f in wire.fields(c, d):
                if field == length(1):
                    name = wire.text(e, f)
                elif field == length(2):
                    shape = _shape(wire, e, f)
                elif field == varint(3):
                    kind = e % REFERENCE
            if kind in TYPES and shape is not None:
                found.add(name, TYPES[kind], shape, path, -1)
            elif len(texts) < MAX_NOTES:
                texts.append(name)
    if not found.tensors:
        raise CheckpointError(f"{path} is a table without tensors; expected a TensorFlow checkpoint.")
    return [path], {"version": 1, "shards": 1, "endianness": "little", "partitioned": [], "texts": texts}


def _shape(wire: Wire, begin: int, end: int) -> list[int] | None:
    """A TensorShapeProto: sizes, -1 where one is open; None where not even their number is known."""
    found: list[int] = []
    for key, a, b in wire.fields(begin, end):
        if key == length(2):
            size = 0
            for part, c, _ in wire.fields(a, b):
                if part == varint(1):
                    size = signed(c)
            found.append(size)
        elif key == varint(3) and a:
            return None
    return found


class _Graphs:
    """The graphs of one file: their operators, their constants, what they say of themselves."""

    def __init__(self, wire: Wire, found: Gathered) -> None:
        self.wire, self.found = wire, found
        self.ops: dict[str, int] = {}
        self.functions = 0
        self.says: dict[str, Any] = {}

    def told(self) -> dict[str, Any]:
        ops = dict(sorted(self.ops.items(), key=lambda kv: -kv[1]))
        return self.says | {"ops": ops, "functions": self.functions}

    def meta_graph(self, begin: int, end: int) -> None:
        wire = self.wire
        says = self.says = self.says or {"tags": [], "tensorflow_version": None, "signatures": {}, "assets": []}
        for key, a, b in wire.fields(begin, end):
            if key == length(1):
                for part, c, d in wire.fields(a, b):
                    if part == length(4) and len(says["tags"]) < MAX_NOTES:
                        says["tags"].append(wire.text(c, d))
                    elif part == length(5):
                        says["tensorflow_version"] = wire.text(c, d)
            elif key == length(2):
                self.graph(a, b)
            elif key == length(5) and len(says["signatures"]) < MAX_NOTES:
                name, c, d = wire.entry(a, b)
                says["signatures"][name] = self.signature(c, d)
            elif key == length(6) and len(says["assets"]) < MAX_NOTES:
                says["assets"] += [wire.text(c, d) for part, c, d in wire.fields(a, b) if part == length(2)]

    def graph(self, begin: int, end: int) -> None:
        for key, a, b in self.wire.fields(begin, end):
            if key == length(1):
                self.node(a, b, "")
            elif key == length(2):
                for part, c, d in self.wire.fields(a, b):
                    if part == length(1):
                        self.function(c, d)

    def function(self, begin: int, end: int) -> None:
        self.functions += 1
        name, nodes = "", []
        for key, a, b in self.wire.fields(begin, end):
            if key == length(1):
                name = next((self.wire.text(c, d) for part, c, d in self.wire.fields(a, b) if part == length(1)), "")
            elif key == length(3):
                nodes.append((a, b))
        for a, b in nodes:
            self.node(a, b, name)

    def node(self, begin: int, end: int, scope: str) -> None:
        op, name, attributes = "", (0, 0), []
        for key, a, b in self.wire.fields(begin, end):
            if key == NODE_OP:
                op = self.wire.text(a, b)
            elif key == NODE_ATTRIBUTE:
                attributes.append((a, b))
            elif key == NODE_NAME:
                name = (a, b)
        self.ops[op] = self.ops.get(op, 0) + 1
        if len(self.ops) > MAX_OPS:
            raise CheckpointError(f"{self.wire.path} has more than {MAX_OPS:,} kinds of operators.")
        if op != "Const":
            return
        for a, b in attributes:
            key_, c, d = self.wire.entry(a, b)
            if key_ == "value":
                for part, e, f in self.wire.fields(c, d):
                    if part == length(8):
                        self.constant(e, f, self.wire.text(*name), scope)

    def constant(self, begin: int, end: int, name: str, scope: str) -> None:
        """Keep a TensorProto whose numbers are stored in full, not as one value repeated, not as texts."""
        wire, kind = self.wire, 0
        data: tuple[int, int, int] | None = None
        sizes: list[int] | None = []
        for key, a, b in wire.fields(begin, end):
            if key == varint(1):
                kind = a % REFERENCE
            elif key == length(2):
                sizes = _shape(wire, a, b)
            elif key in (length(4), length(5), length(6)):
                data = (key >> 3, a, b)
        if data is None or kind not in TYPES or sizes is None:
            return
        number, a, b = data
        dtype = TYPES[kind]
        if number != 4 and dtype != ("F32" if number == 5 else "F64"):
            return
        if any(n < 0 for n in sizes) or len(sizes) > 16:
            raise wire.broken(begin)
        n_bytes = bytes_of(dtype, tuple(sizes))
        if b - a == n_bytes or (number == 4 and dtype in NARROW):
            self.found.add(f"{scope}/{name}" if scope else name, dtype, sizes, wire.path, a, b - a)
        elif number == 4:
            said = f"{dtype} {shown(sizes)} and has {b - a:,} bytes"
            raise CheckpointError(f"{wire.path}: constant {shown(name)} is {said}; they do not agree.")

    def signature(self, begin: int, end: int) -> dict[str, list[dict[str, Any]]]:
        said: dict[str, list[dict[str, Any]]] = {"inputs": [], "outputs": []}
        for key, a, b in self.wire.fields(begin, end) if end >= 0 else ():
            if key in (length(1), length(2)):
                values = said["inputs" if key == length(1) else "outputs"]
                if len(values) < MAX_NOTES:
                    values.append(self.value(a, b))
        return said

    def value(self, begin: int, end: int) -> dict[str, Any]:
        name, a, b = self.wire.entry(begin, end)
        said: dict[str, Any] = {"name": name, "dtype": None, "shape": None}
        for key, c, d in self.wire.fields(a, b) if b >= 0 else ():
            if key == varint(2):
                said["dtype"] = TYPES.get(c % REFERENCE) or NO_NUMBERS.get(c % REFERENCE)
            elif key == length(3):
                shape = _shape(self.wire, c, d)
                said["shape"] = None if shape is None else [None if n < 0 else n for n in shape[:64]]
        return said
