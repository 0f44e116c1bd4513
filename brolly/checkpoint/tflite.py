"""TensorFlow Lite (LiteRT): one FlatBuffer of subgraphs, tensors and buffers. No tflite package.

Field numbers: github.com/tensorflow/tensorflow, tensorflow/compiler/mlir/lite/schema/schema.fbs; of the metadata:
github.com/tensorflow/tflite-support, metadata_schema.fbs (read 2026-11).
"""

from __future__ import annotations

from typing import Any

from brolly.card import Header
from brolly.checkpoint.bounded import MAX_TENSORS, exactly, opened, shown
from brolly.checkpoint.flatbuffers import Buffer, field
from brolly.checkpoint.gathered import Gathered, bytes_of
from brolly.errors import CheckpointError
from brolly.place import Where

TYPES = {
    0: "F32", 1: "F16", 2: "I32", 3: "U8", 4: "I64", 6: "BOOL", 7: "I16", 8: "C64", 9: "I8", 10: "F64", 11: "C128",
    12: "U64", 15: "U32", 16: "U16", 17: "I4", 18: "BF16", 19: "I2", 20: "U4", 21: "F8_E4M3", 22: "F8_E5M2",
}  # fmt: skip
NO_NUMBERS = {5: "STRING", 13: "RESOURCE", 14: "VARIANT"}
CUSTOM, BLOCKWISE = 32, 2
MAX_LISTED = 2**18  # tensors of all subgraphs, activations included; operators; buffers
MAX_NOTES = 1000
# the names of the built-in operators, in the order of their codes
OPERATORS = """
ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE EMBEDDING_LOOKUP FLOOR
FULLY_CONNECTED HASHTABLE_LOOKUP L2_NORMALIZATION L2_POOL_2D LOCAL_RESPONSE_NORMALIZATION LOGISTIC LSH_PROJECTION
LSTM MAX_POOL_2D MUL RELU RELU_N1_TO_1 RELU6 RESHAPE RESIZE_BILINEAR RNN SOFTMAX SPACE_TO_DEPTH SVDF TANH
CONCAT_EMBEDDINGS SKIP_GRAM CALL CUSTOM EMBEDDING_LOOKUP_SPARSE PAD UNIDIRECTIONAL_SEQUENCE_RNN GATHER
BATCH_TO_SPACE_ND SPACE_TO_BATCH_ND TRANSPOSE MEAN SUB DIV SQUEEZE UNIDIRECTIONAL_SEQUENCE_LSTM STRIDED_SLICE
BIDIRECTIONAL_SEQUENCE_RNN EXP TOPK_V2 SPLIT LOG_SOFTMAX DELEGATE BIDIRECTIONAL_SEQUENCE_LSTM CAST PRELU MAXIMUM
ARG_MAX MINIMUM LESS NEG PADV2 GREATER GREATER_EQUAL LESS_EQUAL SELECT SLICE SIN TRANSPOSE_CONV SPARSE_TO_DENSE
TILE EXPAND_DIMS EQUAL NOT_EQUAL LOG SUM SQRT RSQRT SHAPE POW ARG_MIN FAKE_QUANT REDUCE_PROD REDUCE_MAX PACK
LOGICAL_OR ONE_HOT LOGICAL_AND LOGICAL_NOT UNPACK REDUCE_MIN FLOOR_DIV REDUCE_ANY SQUARE ZEROS_LIKE FILL FLOOR_MOD
RANGE RESIZE_NEAREST_NEIGHBOR LEAKY_RELU SQUARED_DIFFERENCE MIRROR_PAD ABS SPLIT_V UNIQUE CEIL REVERSE_V2 ADD_N
GATHER_ND COS WHERE RANK ELU REVERSE_SEQUENCE MATRIX_DIAG QUANTIZE MATRIX_SET_DIAG ROUND HARD_SWISH IF WHILE
NON_MAX_SUPPRESSION_V4 NON_MAX_SUPPRESSION_V5 SCATTER_ND SELECT_V2 DENSIFY SEGMENT_SUM BATCH_MATMUL
PLACEHOLDER_FOR_GREATER_OP_CODES CUMSUM CALL_ONCE BROADCAST_TO RFFT2D CONV_3D IMAG REAL COMPLEX_ABS HASHTABLE
HASHTABLE_FIND HASHTABLE_IMPORT HASHTABLE_SIZE REDUCE_ALL CONV_3D_TRANSPOSE VAR_HANDLE READ_VARIABLE
ASSIGN_VARIABLE BROADCAST_ARGS RANDOM_STANDARD_NORMAL BUCKETIZE RANDOM_UNIFORM MULTINOMIAL GELU
DYNAMIC_UPDATE_SLICE RELU_0_TO_1 UNSORTED_SEGMENT_PROD UNSORTED_SEGMENT_MAX UNSORTED_SEGMENT_SUM ATAN2
UNSORTED_SEGMENT_MIN SIGN BITCAST BITWISE_XOR RIGHT_SHIFT STABLEHLO_LOGISTIC STABLEHLO_ADD STABLEHLO_DIVIDE
STABLEHLO_MULTIPLY STABLEHLO_MAXIMUM STABLEHLO_RESHAPE STABLEHLO_CLAMP STABLEHLO_CONCATENATE
STABLEHLO_BROADCAST_IN_DIM STABLEHLO_CONVOLUTION STABLEHLO_SLICE STABLEHLO_CUSTOM_CALL STABLEHLO_REDUCE
STABLEHLO_ABS STABLEHLO_AND STABLEHLO_COSINE STABLEHLO_EXPONENTIAL STABLEHLO_FLOOR STABLEHLO_LOG STABLEHLO_MINIMUM
STABLEHLO_NEGATE STABLEHLO_OR STABLEHLO_POWER STABLEHLO_REMAINDER STABLEHLO_RSQRT STABLEHLO_SELECT
STABLEHLO_SUBTRACT STABLEHLO_TANH STABLEHLO_SCATTER STABLEHLO_COMPARE STABLEHLO_CONVERT STABLEHLO_DYNAMIC_SLICE
STABLEHLO_DYNAMIC_UPDATE_SLICE STABLEHLO_PAD STABLEHLO_IOTA STABLEHLO_DOT_GENERAL STABLEHLO_REDUCE_WINDOW
STABLEHLO_SORT STABLEHLO_WHILE STABLEHLO_GATHER STABLEHLO_TRANSPOSE DILATE STABLEHLO_RNG_BIT_GENERATOR
REDUCE_WINDOW STABLEHLO_COMPOSITE STABLEHLO_SHIFT_LEFT STABLEHLO_CBRT STABLEHLO_CASE"""


def read_tflite(path: Where) -> Header:
    """Tensors whose numbers are in the file, each buffer once, and what the model says of itself.

    metadata: version, description, subgraphs, inputs and outputs of the first subgraph [{name, dtype, shape}],
    signatures {key: {inputs, outputs}}, ops {operator: times}, custom_ops, metadata_names, model {name, description,
    version, author, license} where the file has TFLITE_METADATA, shared (uses of a buffer beyond its first), scales
    (tensors that are another's scales or zero points), integers (weights and biases in whole numbers), external
    [(tensor, group)], strings, faults. A tensor in an external buffer has offset -1. Raises NotFound, CheckpointError.
    """
    with opened(path) as (file, size):
        head = exactly(file, min(size, 8), path)
        if head[4:] != b"TFL3":
            raise CheckpointError(
                f"{path} is not a TensorFlow Lite model: bytes 4 to 8 are {shown(head[4:])}, not TFL3."
            )
        return _Reading(Buffer(file, size, path)).header()


class _Reading:
    """One file's tensors and tallies."""

    def __init__(self, buffer: Buffer) -> None:
        self.buffer, self.path = buffer, buffer.path
        self.found = Gathered(buffer.path)
        self.spans: dict[int, tuple[int, int]] = {}
        self.kept: dict[int, str] = {}  # buffer → the tensor it is kept under
        self.listed = self.shared = 0
        self.ops: dict[str, int] = {}
        self.scales: dict[str, None] = {}
        self.integers: list[str] = []
        self.strings: list[str] = []
        self.external: list[tuple[str, str]] = []

    def header(self) -> Header:
        buffer = self.buffer
        model = buffer.table(buffer.root())
        self.buffers = buffer.tables(field(model, 4), MAX_LISTED) if field(model, 4) else []
        codes = self.codes(field(model, 1))
        self.groups = self.external_groups(model)
        subgraphs = buffer.tables(field(model, 2), MAX_NOTES) if field(model, 2) else []
        says: dict[str, Any] = {"version": self.number(field(model, 0), 4), "subgraphs": len(subgraphs)}
        if field(model, 3):
            says["description"] = buffer.text(field(model, 3), 2**16)
        for i, at in enumerate(subgraphs):
            inputs, outputs = self.subgraph(at, i, codes)
            if i == 0:
                says |= {"inputs": inputs, "outputs": outputs}
        if not subgraphs:
            raise CheckpointError(f"{self.path} has no subgraph; expected a TensorFlow Lite model with at least one.")
        names = self.notes(field(model, 6), says)
        metadata = says | {
            "signatures": self.signatures(field(model, 7)), "ops": dict(sorted(self.ops.items(), key=lambda o: -o[1])),
            "custom_ops": sorted({op for op, builtin in codes if not builtin}), "metadata_names": names,
            "shared": self.shared, "scales": list(self.scales), "integers": self.integers, "external": self.external,
            "strings": self.strings, "faults": self.found.faults,
        }  # fmt: skip
        return Header(self.path, "tflite", self.found.tensors, {}, metadata, (self.path,))

    def number(self, at: int, width: int) -> int:
        """An unsigned field; nought where it is left out."""
        return self.buffer.unsigned(at, width) if at else 0

    def name(self, at: int) -> str:
        return self.buffer.text(at) if at else ""

    def codes(self, at: int) -> list[tuple[str, bool]]:
        """The operators that the model uses, and whether each is built in."""
        found, titles = [], OPERATORS.split()
        for table in self.buffer.tables(at, MAX_LISTED) if at else []:
            entry = self.buffer.table(table)
            code = max(self.number(field(entry, 0), 1), self.number(field(entry, 3), 4))
            builtin = code != CUSTOM
            title = (titles[code] if code < len(titles) else f"builtin {code}") if builtin else ""
            found.append((title or self.name(field(entry, 1)) or "custom", builtin))
        return found

    def external_groups(self, model: tuple[int, ...]) -> dict[int, str]:
        """External buffers: identifier → the name of the group that holds it."""
        if not field(model, 10):
            return {}
        groups = self.buffer.tables(field(model, 9), MAX_NOTES) if field(model, 9) else []
        titles = [self.name(field(self.buffer.table(at), 0)) for at in groups]
        found = {}
        for at in self.buffer.tables(field(model, 10), MAX_TENSORS):
            entry = self.buffer.table(at)
            group = self.number(field(entry, 1), 4)
            found[self.number(field(entry, 0), 4)] = titles[group] if group < len(titles) else ""
        return found

    def subgraph(self, at: int, index: int, codes: list[tuple[str, bool]]) -> tuple[list[Any], list[Any]]:
        """Keep a subgraph's weights and count its operators; its inputs and outputs."""
        buffer = self.buffer
        graph = buffer.table(at)
        tensors = buffer.tables(field(graph, 0), MAX_LISTED) if field(graph, 0) else []
        operators = buffer.tables(field(graph, 3), MAX_LISTED) if field(graph, 3) else []
        self.listed += len(tensors) + len(operators)
        if self.listed > 2 * MAX_LISTED:
            raise CheckpointError(f"{self.path} lists more than {2 * MAX_LISTED:,} tensors, as no real model does.")
        for tensor in tensors:
            self.tensor(tensor, index, tensors)
        for operator in operators:
            code = self.number(field(buffer.table(operator), 0), 4)
            if code >= len(codes):
                raise buffer.broken(operator)
            self.ops[codes[code][0]] = self.ops.get(codes[code][0], 0) + 1
        ends = []
        for number in (1, 2):
            chosen = buffer.whole(field(graph, number), MAX_NOTES * 10) if field(graph, number) else []
            ends.append([self.value(tensors[i]) for i in chosen if 0 <= i < len(tensors)] if index == 0 else [])
        return ends[0], ends[1]

    def tensor(self, at: int, subgraph: int, siblings: list[int]) -> None:
        entry = self.buffer.table(at)
        number = self.number(field(entry, 2), 4)
        outside = self.number(field(entry, 10), 4)
        offset, length = self.span(number) if number else (0, 0)
        if not length and not outside:
            return
        kind = self.number(field(entry, 1), 1)
        if kind in NO_NUMBERS:
            if len(self.strings) < MAX_NOTES:
                self.strings.append(self.name(field(entry, 3)))
            return
        key = -outside if outside else number
        if key in self.kept:
            self.shared += 1
            return
        name = self.name(field(entry, 3)) or f"{subgraph}/unnamed"
        where = f"{self.path}: tensor {shown(name)}"
        if kind not in TYPES:
            raise CheckpointError(f"{where} is of type {kind}; expected one of TensorFlow Lite's, 0 to {max(TYPES)}.")
        if name in self.found.tensors:
            name = f"{subgraph}/{name}"
        dtype, shape = TYPES[kind], self.buffer.whole(field(entry, 0), 16) if field(entry, 0) else []
        if any(n < 0 for n in shape):
            raise CheckpointError(f"{where} has shape {shown(shape)}; expected sizes that are not negative.")
        if not outside and not field(entry, 6) and length != bytes_of(dtype, tuple(shape)):
            raise CheckpointError(f"{where} is {dtype} {shown(shape)} and has {length:,} bytes; they do not agree.")
        if outside:
            name = self.found.add(name, dtype, shape, self.path, -1)
            self.external.append((name, self.groups.get(outside, "")))
        else:
            name = self.found.add(name, dtype, shape, self.path, offset, length)
        self.kept[key] = name
        if field(entry, 4):
            self.quantised(name, field(entry, 4), siblings)

    def quantised(self, name: str, at: int, siblings: list[int]) -> None:
        """Note a tensor that has scales of its own, or the tensors that hold them where it is quantised in blocks."""
        quantization = self.buffer.table(self.buffer.target(at))
        if self.found.tensors[name].dtype[0] in "IU" and (
            field(quantization, 5) or field(quantization, 2) and self.buffer.vector(field(quantization, 2), 4)[1]
        ):
            self.integers.append(name)
        if self.number(field(quantization, 4), 1) != BLOCKWISE or not field(quantization, 5):
            return
        details = self.buffer.table(self.buffer.target(field(quantization, 5)))
        for number in (0, 1):
            i = self.number(field(details, number), 4)
            if 0 < i < len(siblings):
                self.scales[self.name(field(self.buffer.table(siblings[i]), 3))] = None

    def span(self, number: int) -> tuple[int, int]:
        """Where a buffer's bytes lie in the file."""
        if number not in self.spans:
            if number >= len(self.buffers):
                raise self.buffer.broken(number)
            entry = self.buffer.table(self.buffers[number])
            begin, length = self.buffer.vector(field(entry, 0), 1) if field(entry, 0) else (0, 0)
            if not length and self.number(field(entry, 1), 8) > 1:
                begin, length = self.number(field(entry, 1), 8), self.number(field(entry, 2), 8)
                if begin + length > self.buffer.size:
                    raise self.buffer.broken(begin + length)
            self.spans[number] = begin, length
        return self.spans[number]

    def value(self, at: int) -> dict[str, Any]:
        entry = self.buffer.table(at)
        kind = self.number(field(entry, 1), 1)
        shape = field(entry, 7) or field(entry, 0)  # the signature has -1 where a size is open
        return {
            "name": self.name(field(entry, 3)),
            "dtype": TYPES.get(kind) or NO_NUMBERS.get(kind),
            "shape": [None if n < 0 else n for n in self.buffer.whole(shape, 16)] if shape else [],
        }

    def signatures(self, at: int) -> dict[str, dict[str, list[str]]]:
        found: dict[str, dict[str, list[str]]] = {}
        for table in self.buffer.tables(at, MAX_NOTES) if at else []:
            entry = self.buffer.table(table)
            names = []
            for number in (0, 1):
                maps = self.buffer.tables(field(entry, number), MAX_NOTES) if field(entry, number) else []
                names.append([self.name(field(self.buffer.table(m), 0)) for m in maps])
            found[self.name(field(entry, 2))] = {"inputs": names[0], "outputs": names[1]}
        return found

    def notes(self, at: int, says: dict[str, Any]) -> list[str]:
        """The names of the metadata; of TFLITE_METADATA, which is a FlatBuffer of its own, the texts too."""
        names = []
        for table in self.buffer.tables(at, MAX_NOTES) if at else []:
            entry = self.buffer.table(table)
            names.append(self.name(field(entry, 0)))
            if names[-1] == "TFLITE_METADATA" and "model" not in says:
                try:
                    says["model"] = self.model(*self.span(self.number(field(entry, 1), 4)))
                except CheckpointError:
                    self.found.faults.append(f"{self.path.name} has TFLITE_METADATA that cannot be read.")
        return names

    def model(self, begin: int, length: int) -> dict[str, str]:
        """The texts of a ModelMetadata, a FlatBuffer of its own."""
        inner = Buffer(self.buffer.file, length, self.path, begin)
        table = inner.table(inner.root())
        keys = {"name": 0, "description": 1, "version": 2, "author": 4, "license": 5}
        return {key: inner.text(field(table, n), 2**16) for key, n in keys.items() if field(table, n)}
