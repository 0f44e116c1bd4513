"""ONNX files against the onnx package, and against its own damage."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brolly.checkpoint.onnx import TYPES, read_onnx
from brolly.errors import CheckpointError
from tests.checkpoint.spoilt import only_our_errors

onnx = pytest.importorskip("onnx", reason="the onnx package writes the files that are read here")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

RNG = np.random.default_rng(0)
F32 = TensorProto.FLOAT


def save(path: Path, initializers: list[Any], nodes: list[Any] | None = None, **more: Any) -> Path:
    nodes = nodes or [helper.make_node("Add", ["x", "x"], ["y"])]
    x = helper.make_tensor_value_info("x", F32, ["batch", 4])
    y = helper.make_tensor_value_info("y", F32, None)
    graph = helper.make_graph(nodes, "net", [x], [y], initializers)
    path.write_bytes(helper.make_model(graph, producer_name="me", producer_version="1.2", **more).SerializeToString())
    return path


def array(name: str, *shape: int, dtype: Any = np.float32) -> Any:
    return numpy_helper.from_array(RNG.normal(size=shape).astype(dtype), name)


def test_what_the_onnx_package_writes_is_told_with_the_true_place_of_its_bytes(tmp_path: Path) -> None:
    weights = {
        "a": RNG.normal(size=(3, 5)).astype(np.float32),
        "b": RNG.integers(-9, 9, (2, 2, 2)).astype(np.int8),
        "scalar": np.float64(1.5).reshape(()),
        "none": np.zeros((0, 4), np.float16),
    }
    path = save(tmp_path / "m.onnx", [numpy_helper.from_array(v, k) for k, v in weights.items()])
    header = read_onnx(path)
    assert header.format == "onnx" and header.files == (path,)
    assert {k: (t.dtype, t.shape) for k, t in header.tensors.items()} == {
        "a": ("F32", (3, 5)), "b": ("I8", (2, 2, 2)), "scalar": ("F64", ()), "none": ("F16", (0, 4)),
    }  # fmt: skip
    raw = path.read_bytes()
    for name, value in weights.items():
        info = header.tensors[name]
        assert raw[info.offset : info.offset + info.nbytes] == value.tobytes()


def test_the_graph_tells_of_itself(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Relu", ["r"], ["s"]),
        helper.make_node("Secret", ["s"], ["y"], domain="com.example"),
    ]
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.example", 3)]
    path = save(tmp_path / "m.onnx", [array("w", 4, 4)], nodes, opset_imports=opsets, ir_version=9)
    model = onnx.load(path)
    model.metadata_props.add(key="task", value="detect")
    path.write_bytes(model.SerializeToString())
    says = read_onnx(path).metadata
    assert (says["producer_name"], says["producer_version"], says["ir_version"], says["graph"]) == (
        "me",
        "1.2",
        9,
        "net",
    )
    assert says["opset"] == {"ai.onnx": 21, "com.example": 3}
    assert says["ops"] == {"Relu": 2, "MatMul": 1, "com.example::Secret": 1} and says["domains"] == ["com.example"]
    assert says["inputs"] == [{"name": "x", "dtype": "F32", "shape": ["batch", 4]}]
    assert says["outputs"] == [{"name": "y", "dtype": "F32", "shape": None}]
    assert says["metadata_props"] == {"task": "detect"} and says["faults"] == []


@pytest.mark.parametrize("kind", [k for k in TYPES if k not in (27, 28)])
def test_every_type_of_number_is_known_by_the_onnx_packages_own_codes(tmp_path: Path, kind: int) -> None:
    np_type = helper.tensor_dtype_to_np_dtype(kind)
    tensor = helper.make_tensor("t", kind, [6], np.ones(6).astype(np_type))
    raw = helper.make_tensor("r", kind, [6], numpy_helper.to_array(tensor).tobytes()[: _bytes(kind, 6)], raw=True)
    found = read_onnx(save(tmp_path / "m.onnx", [tensor, raw])).tensors
    assert found["t"].dtype == found["r"].dtype == TYPES[kind]
    assert found["t"].nbytes == found["r"].nbytes == _bytes(kind, 6)
    assert found["r"].offset > 0
    assert (found["t"].offset > 0) == (TYPES[kind] in ("F32", "F64", "C64", "C128"))  # the others are varints


def _bytes(kind: int, n: int) -> int:
    name = TensorProto.DataType.Name(kind)
    bits = {"UINT4": 4, "INT4": 4, "FLOAT4E2M1": 4, "UINT2": 2, "INT2": 2}.get(name)
    return -(-n * bits // 8) if bits else n * np.dtype(helper.tensor_dtype_to_np_dtype(kind)).itemsize


def test_weights_beside_the_file_are_found_and_missing_ones_are_a_fault(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [array("w", 64, 64), array("v", 2048)])
    want = {t.name: numpy_helper.to_array(t).tobytes() for t in onnx.load(path).graph.initializer}
    onnx.save_model(onnx.load(path), path, save_as_external_data=True, location="m.onnx_data", size_threshold=0)
    header = read_onnx(path)
    assert header.files == (path, tmp_path / "m.onnx_data")
    raw = (tmp_path / "m.onnx_data").read_bytes()
    for name, data in want.items():
        info = header.tensors[name]
        assert info.file.name == "m.onnx_data" and raw[info.offset : info.offset + info.nbytes] == data
    assert header.metadata["external"] == [("w", "m.onnx_data"), ("v", "m.onnx_data")]
    (tmp_path / "m.onnx_data").write_bytes(raw[:100])
    assert "pull it again" in read_onnx(path).metadata["faults"][0]
    (tmp_path / "m.onnx_data").unlink()
    header = read_onnx(path)
    assert [t.offset for t in header.tensors.values()] == [-1, -1] and "missing" in header.metadata["faults"][0]


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "a/../../b", "C:\\x", "..\\x", ""])
def test_a_location_out_of_the_folder_is_told_and_never_opened(tmp_path: Path, location: str) -> None:
    tensor = TensorProto(name="w", data_type=F32, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    (tmp_path / "in").mkdir()
    (tmp_path / "secret").write_bytes(bytes(16))
    header = read_onnx(save(tmp_path / "in" / "m.onnx", [tensor]))
    assert header.metadata["external"] == [("w", location)] and header.tensors["w"].offset == -1
    assert "not a file beside it" in header.metadata["faults"][0]


def test_constants_branches_and_functions_are_counted(tmp_path: Path) -> None:
    inner = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["o"])], "then", [],
        [helper.make_tensor_value_info("o", F32, None)], [array("w", 7)],
    )  # fmt: skip
    nodes = [
        helper.make_node("Constant", [], ["c"], value=array("", 5)),
        helper.make_node("Constant", [], ["f"], value_floats=[1.0, 2.0, 3.0]),
        helper.make_node("If", ["x"], ["y"], name="choose", then_branch=inner, else_branch=inner),
    ]
    path = save(tmp_path / "m.onnx", [array("w", 4, 4)], nodes)
    model = onnx.load(path)
    body = [helper.make_node("Constant", [], ["k"], value=array("", 11)), helper.make_node("Neg", ["k"], ["r"])]
    model.functions.append(helper.make_function("my", "Fn", [], ["r"], body, [helper.make_opsetid("", 21)]))
    path.write_bytes(model.SerializeToString())
    header = read_onnx(path)
    assert {name: t.shape for name, t in header.tensors.items()} == {
        "w": (4, 4), "c": (5,), "f": (3,), "choose/w": (7,), "choose/w#2": (7,), "my::Fn/k": (11,),
    }  # fmt: skip
    assert header.metadata["constants"] == ["c", "f", "my::Fn/k"] and header.metadata["functions"] == ["my::Fn"]
    assert header.metadata["ops"] == {"Constant": 3, "Add": 2, "If": 1, "Neg": 1}


def test_packed_weights_and_their_scales_are_named(tmp_path: Path) -> None:
    node = helper.make_node(
        "MatMulNBits", ["x", "w_q4", "w_scales"], ["y"], domain="com.microsoft", K=64, N=8, bits=4, block_size=32
    )
    packed = numpy_helper.from_array(np.zeros((8, 2, 16), np.uint8), "w_q4")
    header = read_onnx(save(tmp_path / "m.onnx", [packed, array("w_scales", 8, 2)], [node]))
    assert header.metadata["packed"] == {"w_q4": {"op": "MatMulNBits", "K": 64, "N": 8, "bits": 4, "block_size": 32}}
    assert header.metadata["scales"] == ["w_scales"]


def test_sparse_and_text_tensors_are_told_apart(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [helper.make_tensor("words", TensorProto.STRING, [2], [b"a", b"b"])])
    model = onnx.load(path)
    indices = numpy_helper.from_array(np.array([1, 5, 9]), "")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(array("s", 3), indices, [100, 10]))
    path.write_bytes(model.SerializeToString())
    header = read_onnx(path)
    assert list(header.tensors) == ["s"] and header.tensors["s"].shape == (3,)
    assert header.metadata["sparse"] == {"s": (100, 10)} and header.metadata["strings"] == {"words": (2,)}


@pytest.mark.parametrize(
    "tensor",
    [
        TensorProto(name="w", data_type=F32, dims=[4], raw_data=bytes(15)),
        TensorProto(name="w", data_type=F32, dims=[-4], raw_data=bytes(16)),
        TensorProto(name="w", data_type=99, dims=[4], raw_data=bytes(16)),
        TensorProto(name="w", data_type=F32, dims=[1] * 17, raw_data=bytes(4)),
    ],
)
def test_a_tensor_that_contradicts_itself_is_an_error(tmp_path: Path, tensor: Any) -> None:
    with pytest.raises(CheckpointError, match="'w'"):
        read_onnx(save(tmp_path / "m.onnx", [tensor]))


@pytest.mark.parametrize("raw", [b"", b"\0" * 64, b"\x08\x07", b"\x08\0\0\0ORTMxxxxxxxx", b"\xff" * 40, b"hello world"])
def test_what_is_no_onnx_model_is_an_error(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(raw)
    with pytest.raises(CheckpointError, match="m.onnx"):
        read_onnx(tmp_path / "m.onnx")


def test_graphs_within_graphs_end_somewhere(tmp_path: Path) -> None:
    graph = b""
    for _ in range(200):
        attribute = b"\x0a\x01t" + _field(6, graph)
        graph = _field(1, b"\x22\x02If" + _field(5, attribute))
    (tmp_path / "m.onnx").write_bytes(b"\x08\x07" + _field(7, graph))
    with pytest.raises(CheckpointError, match="nested"):
        read_onnx(tmp_path / "m.onnx")


def test_a_file_of_nothing_but_tiny_fields_ends_soon(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"\x08\x07" + _field(7, b"\x0a\x00" * 4_000_000))
    start = time.process_time()
    with pytest.raises(CheckpointError, match="more than"):
        read_onnx(tmp_path / "m.onnx")
    assert time.process_time() - start < 5


def _field(number: int, payload: bytes) -> bytes:
    size, raw = len(payload), b""
    while size > 127:
        raw, size = raw + bytes([size & 127 | 128]), size >> 7
    return bytes([number << 3 | 2]) + raw + bytes([size]) + payload


def test_no_tensors_bytes_are_read(tmp_path: Path) -> None:
    """A file of 4 GB, most of it a hole, is read as fast as a small one."""
    n, path = 2**32, tmp_path / "m.onnx"
    tensor = b"\x08" + _five(n // 4) + b"\x10\x01\x42\x01w\x4a" + _five(n)
    graph = b"\x0a\x05\x22\x03Add\x2a" + _five(len(tensor) + n) + tensor
    head = b"\x08\x07\x3a" + _five(len(graph) + n) + graph
    with open(path, "wb") as file:
        file.write(head)
        file.seek(n, 1)
        file.write(_field(8, b"\x0a\0\x10\x15"))  # opset_import
    start = time.process_time()
    info = read_onnx(path).tensors["w"]
    assert (info.offset, info.nbytes, info.shape) == (len(head), n, (n // 4,))
    assert time.process_time() - start < 0.2


def _five(n: int) -> bytes:
    """A number of up to 35 bits as a varint of five bytes."""
    return bytes((n >> 7 * i & 127) | (128 if i < 4 else 0) for i in range(5))


def test_damage_is_met_with_our_errors_alone(tmp_path: Path) -> None:
    body = helper.make_graph([helper.make_node("Add", ["x"], ["y"])], "b", [], [])
    nodes = [
        helper.make_node("Constant", [], ["c"], value=array("", 5)),
        helper.make_node("Loop", ["c"], ["y"], body=body),
    ]
    numbers = helper.make_tensor("i", TensorProto.INT32, [3], [1, 2, 300])
    path = save(tmp_path / "m.onnx", [array("w", 3, 5), numbers], nodes)
    assert only_our_errors(read_onnx, path, path.read_bytes(), 1500) > 300
