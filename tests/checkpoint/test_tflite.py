"""TensorFlow Lite files, written with the flatbuffers package and the schema's own builders, and their damage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brolly.checkpoint.tflite import OPERATORS, TYPES, read_tflite
from brolly.errors import CheckpointError
from tests.checkpoint.spoilt import only_our_errors

flatbuffers = pytest.importorskip("flatbuffers", reason="flatbuffers writes the files that are read here")
schema = pytest.importorskip("tflite", reason="the tflite package has the schema's builders")

Tensor = tuple[str, int, list[int], int]  # name, type, shape, buffer
DENSE: list[Tensor] = [
    ("serving_default_x:0", schema.TensorType.FLOAT32, [1, 4], 0),
    ("dense/kernel", schema.TensorType.FLOAT32, [2, 4], 1),
    ("dense/bias", schema.TensorType.INT8, [2], 2),
    ("y", schema.TensorType.FLOAT32, [1, 2], 0),
]
KERNEL, BIAS = np.arange(8, dtype=np.float32).tobytes(), b"\x01\xff"


class Writer:
    """A model, from lists of tables."""

    def __init__(self) -> None:
        self.b = flatbuffers.Builder(0)

    def vector(self, start: Any, offsets: list[int]) -> int:
        start(self.b, len(offsets))
        for offset in reversed(offsets):
            self.b.PrependUOffsetTRelative(offset)
        return self.b.EndVector()

    def whole(self, start: Any, numbers: list[int]) -> int:
        start(self.b, len(numbers))
        for n in reversed(numbers):
            self.b.PrependInt32(n)
        return self.b.EndVector()

    def tensor(self, name: str, kind: int, shape: list[int], buffer: int) -> int:
        text, sizes = self.b.CreateString(name), self.whole(schema.TensorStartShapeVector, shape)
        schema.TensorStart(self.b)
        schema.TensorAddName(self.b, text)
        schema.TensorAddType(self.b, kind)
        schema.TensorAddShape(self.b, sizes)
        schema.TensorAddBuffer(self.b, buffer)
        return int(schema.TensorEnd(self.b))

    def subgraph(self, tensors: list[Tensor], ops: list[int]) -> int:
        rows = self.vector(schema.SubGraphStartTensorsVector, [self.tensor(*t) for t in tensors])
        operators = []
        for code in ops:
            schema.OperatorStart(self.b)
            schema.OperatorAddOpcodeIndex(self.b, code)
            operators.append(schema.OperatorEnd(self.b))
        steps = self.vector(schema.SubGraphStartOperatorsVector, operators)
        inputs = self.whole(schema.SubGraphStartInputsVector, [0])
        outputs = self.whole(schema.SubGraphStartOutputsVector, [len(tensors) - 1])
        schema.SubGraphStart(self.b)
        schema.SubGraphAddTensors(self.b, rows)
        schema.SubGraphAddOperators(self.b, steps)
        schema.SubGraphAddInputs(self.b, inputs)
        schema.SubGraphAddOutputs(self.b, outputs)
        return int(schema.SubGraphEnd(self.b))

    def code(self, builtin: int, custom: str = "") -> int:
        text = self.b.CreateString(custom) if custom else 0
        schema.OperatorCodeStart(self.b)
        schema.OperatorCodeAddDeprecatedBuiltinCode(self.b, min(builtin, 127))
        schema.OperatorCodeAddBuiltinCode(self.b, builtin)
        if text:
            schema.OperatorCodeAddCustomCode(self.b, text)
        return int(schema.OperatorCodeEnd(self.b))

    def model(
        self,
        buffers: list[bytes],
        graphs: list[tuple[list[Tensor], list[int]]],
        codes: list[tuple[int, str]],
        notes: list[tuple[str, int]] | None = None,
    ) -> bytes:
        b = self.b
        parts = []
        for data in buffers:
            raw = b.CreateByteVector(data) if data else 0
            schema.BufferStart(b)
            if raw:
                schema.BufferAddData(b, raw)
            parts.append(schema.BufferEnd(b))
        rows = []
        for name, buffer in notes or []:
            text = b.CreateString(name)
            schema.MetadataStart(b)
            schema.MetadataAddName(b, text)
            schema.MetadataAddBuffer(b, buffer)
            rows.append(schema.MetadataEnd(b))
        parts_of = [self.subgraph(*g) for g in graphs], [self.code(*c) for c in codes]
        fields = [
            (schema.ModelAddBuffers, self.vector(schema.ModelStartBuffersVector, parts)),
            (schema.ModelAddSubgraphs, self.vector(schema.ModelStartSubgraphsVector, parts_of[0])),
            (schema.ModelAddOperatorCodes, self.vector(schema.ModelStartOperatorCodesVector, parts_of[1])),
            (schema.ModelAddMetadata, self.vector(schema.ModelStartMetadataVector, rows)),
            (schema.ModelAddDescription, b.CreateString("made for a test")),
        ]
        schema.ModelStart(b)
        schema.ModelAddVersion(b, 3)
        for add, value in fields:
            add(b, value)
        b.Finish(schema.ModelEnd(b), file_identifier=b"TFL3")
        return bytes(b.Output())


FULLY_CONNECTED, CUSTOM = 9, 32


def dense(path: Path, **more: Any) -> Path:
    codes = [(FULLY_CONNECTED, ""), (CUSTOM, "MyDetector")]
    path.write_bytes(Writer().model([b"", KERNEL, BIAS], [(DENSE, [0, 0, 1])], codes, **more))
    return path


def test_weights_are_told_with_the_true_place_of_their_bytes(tmp_path: Path) -> None:
    path = dense(tmp_path / "m.tflite")
    header = read_tflite(path)
    assert header.format == "tflite"
    assert {k: (t.dtype, t.shape) for k, t in header.tensors.items()} == {
        "dense/kernel": ("F32", (2, 4)), "dense/bias": ("I8", (2,)),
    }  # fmt: skip
    raw = path.read_bytes()
    for name, data in (("dense/kernel", KERNEL), ("dense/bias", BIAS)):
        info = header.tensors[name]
        assert raw[info.offset : info.offset + info.nbytes] == data


def test_the_model_tells_of_itself(tmp_path: Path) -> None:
    says = read_tflite(dense(tmp_path / "m.tflite")).metadata
    assert says["version"] == 3 and says["description"] == "made for a test" and says["subgraphs"] == 1
    assert says["ops"] == {"FULLY_CONNECTED": 2, "MyDetector": 1} and says["custom_ops"] == ["MyDetector"]
    assert says["inputs"] == [{"name": "serving_default_x:0", "dtype": "F32", "shape": [1, 4]}]
    assert says["outputs"] == [{"name": "y", "dtype": "F32", "shape": [1, 2]}]


def test_operators_and_types_are_named_as_the_schema_names_them() -> None:
    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
    known = OPERATORS.split()
    assert [known[i] for i in range(len(names))] == [names[i] for i in range(len(names))]
    words = {"FLOAT": "F", "INT": "I", "UINT": "U", "COMPLEX": "C", "BFLOAT": "BF"}
    for name, code in vars(schema.TensorType).items():
        stem = name.rstrip("0123456789")
        if isinstance(code, int) and stem in words:
            assert TYPES[code] == words[stem] + name[len(stem) :]


def test_a_buffer_that_several_subgraphs_share_counts_once(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    graphs = [(DENSE, [0]), (DENSE, [0])]
    path.write_bytes(Writer().model([b"", KERNEL, BIAS], graphs, [(FULLY_CONNECTED, "")]))
    header = read_tflite(path)
    assert header.n_params == 10 and header.metadata["shared"] == 2


def test_equal_names_in_two_subgraphs_are_both_kept(tmp_path: Path) -> None:
    other: list[Tensor] = [*DENSE[:1], ("dense/kernel", 0, [4, 2], 3), *DENSE[3:]]
    path = tmp_path / "m.tflite"
    path.write_bytes(Writer().model([b"", KERNEL, BIAS, KERNEL], [(DENSE, []), (other, [])], []))
    assert set(read_tflite(path).tensors) == {"dense/kernel", "dense/bias", "1/dense/kernel"}


def test_metadata_tells_author_and_licence(tmp_path: Path) -> None:
    b = flatbuffers.Builder(0)
    texts = {0: "Detector", 1: "finds things", 2: "v1", 4: "Me", 5: "Apache-2.0"}
    offsets = {slot: b.CreateString(text) for slot, text in texts.items()}
    b.StartObject(8)
    for slot, offset in offsets.items():
        b.PrependUOffsetTRelativeSlot(slot, offset, 0)
    b.Finish(b.EndObject(), file_identifier=b"M001")
    path = tmp_path / "m.tflite"
    notes = [("min_runtime_version", 2), ("TFLITE_METADATA", 3)]
    path.write_bytes(Writer().model([b"", KERNEL, BIAS, bytes(b.Output())], [(DENSE, [])], [], notes))
    says = read_tflite(path).metadata
    assert says["metadata_names"] == ["min_runtime_version", "TFLITE_METADATA"]
    assert says["model"] == {
        "name": "Detector", "description": "finds things", "version": "v1", "author": "Me", "license": "Apache-2.0",
    }  # fmt: skip


@pytest.mark.parametrize("tensor", [("w", 0, [3, 4], 1), ("w", 99, [2, 4], 1), ("w", 0, [-2, -4], 1), ("w", 0, [8], 7)])
def test_a_tensor_that_contradicts_itself_is_an_error(tmp_path: Path, tensor: Tensor) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(Writer().model([b"", KERNEL], [([tensor], [])], []))
    with pytest.raises(CheckpointError, match="m.tflite"):
        read_tflite(path)


@pytest.mark.parametrize("raw", [b"", b"\0\0\0\0TFL3", b"\xff\xff\xff\xffTFL3", b"\x1c\0\0\0TFL2" + bytes(64)])
def test_what_is_no_model_is_an_error(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "m.tflite").write_bytes(raw)
    with pytest.raises(CheckpointError, match="m.tflite"):
        read_tflite(tmp_path / "m.tflite")


def test_damage_is_met_with_our_errors_alone(tmp_path: Path) -> None:
    path = dense(tmp_path / "m.tflite", notes=[("TFLITE_METADATA", 1)])
    assert "TFLITE_METADATA" in read_tflite(path).metadata["faults"][0]
    assert only_our_errors(read_tflite, path, path.read_bytes(), 2000) > 400
