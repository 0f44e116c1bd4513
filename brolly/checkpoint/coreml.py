"""Core ML: a protobuf model (.mlmodel), a package of it with its weights beside (.mlpackage), or compiled (.mlmodelc).

Field numbers: github.com/apple/coremltools, mlmodel/format (9.0); of weight.bin: mlmodel/src/MILBlob (read 2026-11).
"""

from __future__ import annotations

from typing import Any, BinaryIO

from brolly.card import Header
from brolly.checkpoint.bounded import exactly, json_object, opened, parse_json, shown
from brolly.checkpoint.gathered import Gathered, beside, bits_of, bytes_of, size_there
from brolly.checkpoint.protobuf import Wire, length, signed, varint
from brolly.errors import CheckpointError, UnsafeCheckpoint
from brolly.place import Where, is_folder

KINDS = {
    200: "pipelineClassifier", 201: "pipelineRegressor", 202: "pipeline", 300: "glmRegressor",
    301: "supportVectorRegressor", 302: "treeEnsembleRegressor", 303: "neuralNetworkRegressor",
    304: "bayesianProbitRegressor", 400: "glmClassifier", 401: "supportVectorClassifier", 402: "treeEnsembleClassifier",
    403: "neuralNetworkClassifier", 404: "kNearestNeighborsClassifier", 500: "neuralNetwork",
    501: "itemSimilarityRecommender", 502: "mlProgram", 555: "customModel", 556: "linkedModel",
    560: "classConfidenceThresholding", 600: "oneHotEncoder", 601: "imputer", 602: "featureVectorizer",
    603: "dictVectorizer", 604: "scaler", 606: "categoricalMapping", 607: "normalizer", 609: "arrayFeatureExtractor",
    610: "nonMaximumSuppression", 900: "identity", 2000: "textClassifier", 2001: "wordTagger",
    2002: "visionFeaturePrint", 2003: "soundAnalysisPreprocessing", 2004: "gazetteer", 2005: "wordEmbedding",
    2006: "audioFeaturePrint", 3000: "serializedModel",
}  # fmt: skip
NETWORKS, PROGRAM, PIPELINES = (303, 403, 500), 502, (200, 201, 202)
# of a layer's message: which fields are weights, by name; a dict is a message within, None a network within
ACTIVATION = {25: {1: "alpha"}, 71: {1: "alpha", 2: "beta"}}
LSTM = {
    1: "inputGateWeightMatrix", 2: "forgetGateWeightMatrix", 3: "blockInputWeightMatrix", 4: "outputGateWeightMatrix",
    20: "inputGateRecursionMatrix", 21: "forgetGateRecursionMatrix", 22: "blockInputRecursionMatrix",
    23: "outputGateRecursionMatrix", 40: "inputGateBiasVector", 41: "forgetGateBiasVector",
    42: "blockInputBiasVector", 43: "outputGateBiasVector", 60: "inputGatePeepholeVector",
    61: "forgetGatePeepholeVector", 62: "outputGatePeepholeVector",
}  # fmt: skip
LAYERS: dict[int, tuple[str, dict[int, Any]]] = {
    100: ("convolution", {90: "weights", 91: "bias"}),
    130: ("activation", ACTIVATION),
    140: ("innerProduct", {20: "weights", 21: "bias"}),
    150: ("embedding", {20: "weights", 21: "bias"}),
    160: ("batchnorm", {15: "gamma", 16: "beta", 17: "mean", 18: "variance"}),
    245: ("scale", {2: "scale", 5: "bias"}),
    250: ("bias", {2: "bias"}),
    290: ("loadConstant", {2: "data"}),
    400: ("simpleRecurrent", {10: ACTIVATION, 30: "weightMatrix", 31: "recursionMatrix", 32: "biasVector"}),
    410: ("gru", {
        10: ACTIVATION, 30: "updateGateWeightMatrix", 31: "resetGateWeightMatrix", 32: "outputGateWeightMatrix",
        50: "updateGateRecursionMatrix", 51: "resetGateRecursionMatrix", 52: "outputGateRecursionMatrix",
        70: "updateGateBiasVector", 71: "resetGateBiasVector", 72: "outputGateBiasVector",
    }),
    420: ("uniDirectionalLSTM", {10: ACTIVATION, 20: LSTM}),
    430: ("biDirectionalLSTM", {10: ACTIVATION, 11: ACTIVATION, 20: LSTM}),
    500: ("custom", {20: "weights"}),
    605: ("branch", {1: None, 2: None}),
    615: ("loop", {3: None, 4: None}),
    1040: ("embeddingND", {20: "weights", 21: "bias"}),
    1045: ("batchedMatmul", {8: "weights", 9: "bias"}),
    1070: ("loadConstantND", {2: "data"}),
    1350: ("layerNormalization", {3: "gamma", 4: "beta"}),
    1471: ("convolution3d", {60: "weights", 61: "bias"}),
}  # fmt: skip
# the fields whose numbers are the shape of a layer's "weights" or "data"
SHAPES = {
    100: (1, 2, 20), 140: (2, 1), 150: (2, 1), 290: (1,), 1040: (2, 1), 1045: (5, 6), 1070: (1,),
    1471: (1, 2, 20, 21, 22),
}  # fmt: skip
TYPES = {
    1: "BOOL", 10: "F16", 11: "F32", 12: "F64", 13: "BF16", 21: "I8", 22: "I16", 23: "I32", 24: "I64", 25: "I4",
    31: "U8", 32: "U16", 33: "U32", 34: "U64", 35: "U4", 36: "U2", 37: "U1", 38: "U6", 39: "U3", 40: "F8_E4M3",
    41: "F8_E5M2",
}  # fmt: skip
# the same of weight.bin, which numbers them otherwise
BLOB_TYPES = {
    1: "F16", 2: "F32", 3: "U8", 4: "I8", 5: "BF16", 6: "I16", 7: "U16", 8: "I4", 9: "U1", 10: "U2", 11: "U4",
    12: "U3", 13: "U6", 14: "I32", 15: "U32", 16: "F8_E4M3", 17: "F8_E5M2",
}  # fmt: skip
ARRAYS = {65568: "F32", 65600: "F64", 131104: "I32", 65552: "F16", 131080: "I8"}
FEATURES = {1: "int64", 2: "double", 3: "string", 4: "image", 5: "array", 6: "dictionary", 7: "sequence", 8: "state"}
SENTINEL = 0xDEADBEEF
ALIGNMENT = 64  # bytes, of weight.bin
MAX_NOTES = 1000
MAX_OPS = 10_000


def read_coreml(path: Where) -> Header:
    """A model's weights and what it says of itself, of a .mlmodel file, a .mlpackage or a .mlmodelc folder.

    Offsets are true, in weights/weight.bin where the weights lie there; -1 where that file is missing, and for numbers
    that stand within the program. A layer's weight of unknown shape has one dimension.
    metadata: spec_version, type, description {shortDescription, versionString, author, license, …}, inputs, outputs
    [{name, dtype, shape}], ops {layer or operation: times}, packed {tensor: {op, bits …}, or output: {op, shape, dtype,
    parts}}, constants (numbers within the program), shared (uses of a blob beyond its first), custom (names of custom
    layers and models), faults. Raises NotFound, CheckpointError.
    """
    if not is_folder(path):
        return _Reading(path, path).header()
    if size_there(path / "coremldata.bin") is not None or path.name.endswith(".mlmodelc"):
        return _compiled(path)
    manifest = json_object(path / "Manifest.json")
    entries = manifest.get("itemInfoEntries")
    named = manifest.get("rootModelIdentifier")
    root = entries.get(named) if isinstance(entries, dict) and isinstance(named, str) else None
    inner = root.get("path") if isinstance(root, dict) else None
    if not isinstance(inner, str):
        raise CheckpointError(f"{path}/Manifest.json names no root model; expected a Core ML package.")
    model = beside(path / "Data" / "model", inner)
    if model is None:
        raise UnsafeCheckpoint(f"{path} points at {shown(inner)}, out of itself.", "external-path", "Manifest.json")
    if is_folder(model):  # a compiled model in a package
        return _compiled(model)
    return _Reading(path, model).header()


class _Reading:
    """One model's tensors and tallies."""

    def __init__(self, path: Where, model: Where) -> None:
        self.path, self.model = path, model
        self.found = Gathered(path)
        self.ops: dict[str, int] = {}
        self.says: dict[str, Any] = {"spec_version": None, "type": None}
        self.packed: dict[str, dict[str, Any]] = {}
        self.constants: list[str] = []
        self.custom: list[str] = []
        self.blobs: dict[str, list[tuple[str, int]]] = {}  # file: tensors and where their headers stand
        self.seen: set[tuple[str, int]] = set()
        self.shared = 0

    def header(self) -> Header:
        with opened(self.model) as (file, size):
            self.wire = Wire(file, size, self.model)
            self.read(0, size, 0, "")
        if self.says["spec_version"] is None or self.says["type"] is None:
            raise CheckpointError(f"{self.model} is not a Core ML model: it has no version or no type.")
        files = [self.model]
        for name, wanted in self.blobs.items():
            where = beside(self.model, name.removeprefix("@model_path/"))
            if where is None:
                self.found.faults.append(f"{self.model.name} points at {shown(name)}, which is not a file beside it.")
            elif size_there(where) is None:
                self.found.faults.append(f"{self.model.name} needs {shown(name)}, which is missing; pull it again.")
            else:
                files.append(where)
                self.locate(where, wanted)
        metadata = self.says | {
            "ops": dict(sorted(self.ops.items(), key=lambda kv: -kv[1])), "packed": self.packed,
            "constants": self.constants, "shared": self.shared, "custom": self.custom, "faults": self.found.faults,
        }  # fmt: skip
        return Header(self.path, "coreml", self.found.tensors, {}, metadata, tuple(files))

    def read(self, begin: int, end: int, depth: int, prefix: str) -> None:
        """A Model; one within a pipeline has a prefix."""
        wire, depth = self.wire, self.wire.deeper(depth)
        for key, a, b in wire.fields(begin, end):
            number = key >> 3
            if key == varint(1) and not prefix:
                self.says["spec_version"] = signed(a)
            elif key == length(2) and not prefix:
                self.describe(a, b)
            elif number in KINDS and b >= 0:
                if not prefix:
                    self.says["type"] = KINDS[number]
                if number in NETWORKS:
                    self.network(a, b, depth, prefix)
                elif number == PROGRAM:
                    self.program(a, b, depth, prefix)
                elif number in PIPELINES:
                    self.pipeline(a, b, depth, prefix, number)
                elif number == 555:
                    self.note_custom(a, b, 1)

    def describe(self, begin: int, end: int) -> None:
        wire = self.wire
        inputs, outputs = self.says.setdefault("inputs", []), self.says.setdefault("outputs", [])
        for key, a, b in wire.fields(begin, end):
            if key in (length(1), length(10)):
                values = inputs if key == length(1) else outputs
                if len(values) < MAX_NOTES:
                    values.append(self.feature(a, b))
            elif key == length(100):
                said: dict[str, str] = {}
                names = {1: "shortDescription", 2: "versionString", 3: "author", 4: "license"}
                for part, c, d in wire.fields(a, b):
                    if part >> 3 in names and d >= 0:
                        said[names[part >> 3]] = wire.excerpt(c, d)
                    elif part == length(100) and len(said) < MAX_NOTES:
                        name, value = wire.texts(c, d)
                        said[name] = value
                self.says["description"] = said

    def feature(self, begin: int, end: int) -> dict[str, Any]:
        said: dict[str, Any] = {"name": "", "dtype": None, "shape": None}
        for key, a, b in self.wire.fields(begin, end):
            if key == length(1):
                said["name"] = self.wire.text(a, b)
            elif key == length(3):
                for kind, c, d in self.wire.fields(a, b):
                    if kind >> 3 in FEATURES and d >= 0:
                        said["dtype"] = FEATURES[kind >> 3]
                        if kind >> 3 in (4, 5):
                            said |= self.array(c, d, kind >> 3 == 4)
        return said

    def array(self, begin: int, end: int, image: bool) -> dict[str, Any]:
        sizes: list[int] = []
        dtype = "image" if image else None
        for key, a, b in self.wire.fields(begin, end):
            if image and key in (varint(1), varint(2)):
                sizes.append(signed(a))
            elif not image and key == length(1):
                sizes += [signed(n) for n in self.wire.numbers(a, b, 64)]
            elif not image and key == varint(2):
                dtype = ARRAYS.get(a)
        return {"dtype": dtype, "shape": sizes[:64]}

    def pipeline(self, begin: int, end: int, depth: int, prefix: str, number: int) -> None:
        if number != 202:  # a classifier or regressor holds a pipeline
            for key, a, b in self.wire.fields(begin, end):
                if key == length(1):
                    self.pipeline(a, b, depth, prefix, 202)
            return
        parts = 0
        for key, a, b in self.wire.fields(begin, end):
            if key == length(1):
                self.read(a, b, depth, f"{prefix}{parts}/")
                parts += 1

    def count(self, op: str) -> None:
        self.ops[op] = self.ops.get(op, 0) + 1
        if len(self.ops) > MAX_OPS:
            raise CheckpointError(f"{self.model} has more than {MAX_OPS:,} kinds of operations, as no real model has.")

    def note_custom(self, begin: int, end: int, number: int) -> None:
        for key, a, b in self.wire.fields(begin, end):
            if key == length(number) and len(self.custom) < MAX_NOTES:
                self.custom.append(self.wire.text(a, b))

    # neural networks

    def network(self, begin: int, end: int, depth: int, prefix: str) -> None:
        depth = self.wire.deeper(depth)
        for key, a, b in self.wire.fields(begin, end):
            if key == length(1):
                self.layer(a, b, depth, prefix)

    def layer(self, begin: int, end: int, depth: int, prefix: str) -> None:
        name, body = "", None
        for key, a, b in self.wire.fields(begin, end):
            if key == length(1):
                name = prefix + self.wire.text(a, b)
            elif key >> 3 >= 100 and b >= 0:
                body = (key >> 3, a, b)
        if body is None:
            return
        number, a, b = body
        kind, parts = LAYERS.get(number, (f"layer {number}", {}))
        self.count(kind)
        if number == 500:
            self.note_custom(a, b, 10)
        if parts:
            self.weights(a, b, parts, name, depth, SHAPES.get(number, ()))

    def weights(
        self, begin: int, end: int, parts: dict[int, Any], name: str, depth: int, sizes: tuple[int, ...]
    ) -> None:
        said: dict[int, list[int]] = {}
        kept: list[tuple[str, int, int]] = []
        for key, a, b in self.wire.fields(begin, end):
            number = key >> 3
            if number in parts and b >= 0:
                part = parts[number]
                if part is None:
                    self.network(a, b, depth, f"{name}/")
                elif isinstance(part, dict):
                    self.weights(a, b, part, name, depth, ())
                else:
                    kept.append((part, a, b))
            elif number in sizes:
                said.setdefault(number, []).extend([signed(a)] if b < 0 else map(signed, self.wire.numbers(a, b, 64)))
        shape = [n for number in sizes for n in said.get(number, [])]
        for part, a, b in kept:
            self.weight(f"{name}/{part}", a, b, shape if part in ("weights", "data") else [])

    def weight(self, name: str, begin: int, end: int, shape: list[int]) -> None:
        """A WeightParams: 32-bit, 16-bit, or packed with a table or scales."""
        data: tuple[int, int, int] | None = None
        bits = 8
        for key, a, b in self.wire.fields(begin, end):
            if key in (length(1), length(2), length(30), length(31)):
                data = (key >> 3, a, b) if b > a or data is None else data
            elif key == length(40):
                bits = next((c for part, c, _ in self.wire.fields(a, b) if part == varint(1)), 8)
        if data is None or data[1] == data[2]:
            return
        number, a, b = data
        dtype = {1: "F32", 2: "F16", 31: "I8"}.get(number) or f"U{bits}"
        if number == 30 and not 0 < bits <= 8:
            raise CheckpointError(f"{self.model}: {shown(name)} is quantised to {shown(bits)} bits; expected 1 to 8.")
        if dtype in ("U5", "U7"):
            dtype, shape = "U8", []  # no one else has a word for them; the bytes, and `packed` says the rest
        ok = shape and all(0 < n < 2**48 for n in shape) and len(shape) <= 16 and bytes_of(dtype, tuple(shape)) == b - a
        count = (b - a) * 8 // bits_of(dtype)
        kept = self.found.add(name, dtype, shape if ok else [count], self.model, a, b - a)
        if number in (30, 31):
            self.packed[kept] = {"op": "weights", "bits": bits}

    # programs

    def program(self, begin: int, end: int, depth: int, prefix: str) -> None:
        wire = self.wire
        for key, a, b in wire.fields(begin, end):
            if key != length(2):
                continue
            _, c, d = wire.entry(a, b)
            for part, e, f in wire.fields(c, d) if d >= 0 else ():
                if part == length(3):
                    _, g, h = wire.entry(e, f)
                    if h >= 0:
                        self.block(g, h, depth, prefix)

    def block(self, begin: int, end: int, depth: int, prefix: str) -> None:
        depth = self.wire.deeper(depth)
        for key, a, b in self.wire.fields(begin, end):
            if key == length(3):
                self.operation(a, b, depth, prefix)

    def operation(self, begin: int, end: int, depth: int, prefix: str) -> None:
        wire, op = self.wire, ""
        inputs, attributes, blocks = [], [], []
        result: tuple[int, int] | None = None
        for key, a, b in wire.fields(begin, end):
            if key == length(1):
                op = wire.text(a, b)
            elif key == length(2):
                inputs.append((a, b))
            elif key == length(3):
                result = result or (a, b)
            elif key == length(4):
                blocks.append((a, b))
            elif key == length(5):
                attributes.append((a, b))
        self.count(op)
        for a, b in blocks:
            self.block(a, b, depth, prefix)
        if op != "const" and not op.startswith("constexpr_"):
            return
        name, dtype, shape = self.named(*result) if result else ("", None, None)
        parts = []
        for a, b in attributes:
            entry, c, d = wire.entry(a, b)
            if entry != "name" and d >= 0:
                kept = self.value(c, d, prefix + (name if op == "const" else f"{name}/{entry}"))
                parts += [kept] if kept else []
        if op != "const":
            for a, b in inputs:
                parts += self.bound(a, b, prefix, name)
            if len(self.packed) < 2**16:
                self.packed[prefix + name] = {"op": op, "dtype": dtype, "shape": shape, "parts": parts}

    def bound(self, begin: int, end: int, prefix: str, name: str) -> list[str]:
        """What an operation's input is bound to: names of constants, or values of its own, which are kept."""
        entry, a, b = self.wire.entry(begin, end)
        found = []
        for key, c, d in self.wire.fields(a, b) if b >= 0 else ():
            if key != length(1):
                continue
            for part, e, f in self.wire.fields(c, d):
                if part == length(1):
                    found.append(prefix + self.wire.text(e, f))
                elif part == length(2):
                    kept = self.value(e, f, f"{prefix}{name}/{entry}")
                    found += [kept] if kept else []
        return found

    def named(self, begin: int, end: int) -> tuple[str, str | None, list[int] | None]:
        name, dtype, shape = "", None, None
        for key, a, b in self.wire.fields(begin, end):
            if key == length(1):
                name = self.wire.text(a, b)
            elif key == length(2):
                dtype, shape = self.type(a, b)
        return name, dtype, shape

    def type(self, begin: int, end: int) -> tuple[str | None, list[int] | None]:
        """A ValueType that is a tensor's: dtype, sizes (-1 where one is open)."""
        wire, dtype = self.wire, None
        shape: list[int] | None = None
        for key, a, b in wire.fields(begin, end):
            if key != length(1):
                continue
            shape = []
            for part, c, d in wire.fields(a, b):
                if part == varint(1):
                    dtype = TYPES.get(c)
                elif part == length(3):
                    size = -1
                    for kind, e, f in wire.fields(c, d):
                        if kind == length(1):
                            size = next((n for field, n, _ in wire.fields(e, f) if field == varint(1)), 0)
                    shape.append(size)
        return dtype, shape

    def value(self, begin: int, end: int, name: str) -> str:
        """Keep a Value that is a tensor of numbers in a blob file, or of floats in place; its name, or nothing."""
        wire, dtype, shape = self.wire, None, None
        blob, file, place = False, "", 0
        for key, a, b in wire.fields(begin, end):
            if key == length(2):
                dtype, shape = self.type(a, b)
            elif key == length(5):
                blob = True
                for part, c, d in wire.fields(a, b):
                    if part == length(1):
                        file = wire.text(c, d)
                    elif part == varint(2):
                        place = c
        if dtype is None or shape is None or any(n < 0 for n in shape):
            return ""
        if not blob:
            if not shape or not dtype.startswith(("F", "BF")):
                return ""
            self.constants.append(self.found.add(name, dtype, shape, self.model, -1))
            return self.constants[-1]
        if (file, place) in self.seen:
            self.shared += 1
            return ""
        self.seen.add((file, place))
        kept = self.found.add(name, dtype, shape, self.model, -1)
        self.blobs.setdefault(file, []).append((kept, place))
        if len(self.blobs) > MAX_NOTES:
            raise CheckpointError(f"{self.model} points at more than {MAX_NOTES:,} files, as no real model does.")
        return kept

    def locate(self, where: Where, wanted: list[tuple[str, int]]) -> None:
        """Find the bytes of tensors by their headers in a weight file."""
        with opened(where) as (file, size):
            for name, place in sorted(wanted, key=lambda w: w[1]):
                dtype, offset, n_bytes, _ = _blob(file, size, where, place)
                info = self.found.tensors[name]
                if n_bytes != info.nbytes or bits_of(dtype) != bits_of(info.dtype):
                    said = f"{info.dtype} {shown(info.shape)}, and has {n_bytes:,} bytes of {dtype}"
                    raise CheckpointError(f"{where}: {shown(name)} is {said}; they do not agree.")
                self.found.place(name, where, offset, n_bytes)


def _blob(file: BinaryIO, size: int, path: Where, place: int) -> tuple[str, int, int, int]:
    """A blob's dtype, offset, bytes and unused bits at its end, by the header at `place`."""
    if place < 0 or place + ALIGNMENT > size:
        raise CheckpointError(f"{path} has {size:,} bytes and should have a header at {place:,}; download it again.")
    file.seek(place)
    raw = exactly(file, 32, path)
    sentinel, kind = int.from_bytes(raw[:4], "little"), int.from_bytes(raw[4:8], "little")
    n_bytes, offset, unused = (int.from_bytes(raw[i : i + 8], "little") for i in (8, 16, 24))
    if sentinel != SENTINEL or kind not in BLOB_TYPES:
        raise CheckpointError(f"{path} has no tensor's header at byte {place:,}; the file is damaged.")
    if offset + n_bytes > size:
        raise CheckpointError(f"{path} has {size:,} bytes, and a tensor ends at {offset + n_bytes:,}: it is cut short.")
    return BLOB_TYPES[kind], offset, n_bytes, unused if unused < 8 else 0


def _compiled(path: Where) -> Header:
    """A .mlmodelc folder: its program is compiled, its weights lie one after the other, without names or shapes."""
    found = Gathered(path)
    says: dict[str, Any] = {"type": "compiled"}
    notes = path / "metadata.json"
    if size_there(notes) is not None:
        with opened(notes) as (file, size):
            said = parse_json(file.read(min(size, 2**22)), str(notes))
        says["description"] = said[0] if isinstance(said, list) and said and isinstance(said[0], dict) else {}
    files: list[Where] = [path / "coremldata.bin"]
    weights = path / "weights" / "weight.bin"
    if (size_now := size_there(weights)) is not None:
        files.append(weights)
        with opened(weights) as (file, size):
            count, version = (int.from_bytes(exactly(file, 4, weights), "little") for _ in range(2))
            if version != 2:
                raise CheckpointError(f"{weights} has version {version}; expected 2.")
            place = ALIGNMENT
            for i in range(count):
                dtype, offset, n_bytes, unused = _blob(file, size, weights, place)
                found.add(
                    f"weight.bin/{i}", dtype, [(n_bytes * 8 - unused) // bits_of(dtype)], weights, offset, n_bytes
                )
                place = -(-max(offset + n_bytes, place + ALIGNMENT) // ALIGNMENT) * ALIGNMENT
    if not found.tensors and "description" not in says and size_now is None:
        raise CheckpointError(f"{path} holds neither metadata.json nor weights; expected a compiled Core ML model.")
    return Header(path, "coreml", found.tensors, {}, says | {"faults": found.faults}, tuple(files))
