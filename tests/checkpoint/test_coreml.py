"""Core ML models, written with coremltools' own protobuf classes and its blob writer, and their damage."""

from __future__ import annotations

import importlib
import importlib.util
import json
import struct
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brolly.checkpoint.coreml import BLOB_TYPES, KINDS, LAYERS, TYPES, read_coreml
from brolly.errors import CheckpointError, UnsafeCheckpoint
from tests.checkpoint.spoilt import only_our_errors

spec = importlib.util.find_spec("coremltools")
if spec is None:
    pytest.skip("coremltools has the classes that write the files that are read here", allow_module_level=True)
# the package itself imports torch, and says much; its messages need only protobuf
package = types.ModuleType("coremltools")
package.__path__, package.__spec__ = list(spec.submodule_search_locations or []), spec
real = sys.modules.get("coremltools")
sys.modules["coremltools"] = package
Model = importlib.import_module("coremltools.proto.Model_pb2").Model
NeuralNetwork = importlib.import_module("coremltools.proto.NeuralNetwork_pb2")
MIL = importlib.import_module("coremltools.proto.MIL_pb2")
del sys.modules["coremltools"]
if real is not None:
    sys.modules["coremltools"] = real
F16, F32 = 10, 11


def network() -> Any:
    model = Model(specificationVersion=4)
    model.description.metadata.author, model.description.metadata.license = "Me", "MIT"
    model.description.metadata.userDefined["task"] = "classify"
    image = model.description.input.add(name="image").type.imageType
    image.width, image.height = 224, 200
    array = model.description.output.add(name="scores").type.multiArrayType
    array.shape.extend([10])
    array.dataType = 65568
    layers = model.neuralNetworkClassifier.layers
    conv = layers.add(name="conv").convolution
    conv.outputChannels, conv.kernelChannels, conv.hasBias = 4, 3, True
    conv.kernelSize.extend([2, 2])
    conv.weights.floatValue.extend(range(48))
    conv.bias.float16Value = bytes(8)
    dense = layers.add(name="dense").innerProduct
    dense.inputChannels, dense.outputChannels = 16, 10
    dense.weights.rawValue, dense.weights.quantization.numberOfBits = bytes(80), 4
    lstm = layers.add(name="lstm").uniDirectionalLSTM
    lstm.weightParams.inputGateWeightMatrix.floatValue.extend([1.0] * 6)
    loop = layers.add(name="loop").loop
    loop.bodyNetwork.layers.add(name="inner").bias.bias.floatValue.extend([1.0, 2.0])
    layers.add(name="mine").custom.className = "MyLayer"
    return model


def test_a_neural_networks_layers_tell_their_weights(tmp_path: Path) -> None:
    path = tmp_path / "m.mlmodel"
    path.write_bytes(network().SerializeToString())
    header = read_coreml(path)
    assert header.format == "coreml"
    assert {k: (t.dtype, t.shape) for k, t in header.tensors.items()} == {
        "conv/weights": ("F32", (4, 3, 2, 2)), "conv/bias": ("F16", (4,)), "dense/weights": ("U4", (10, 16)),
        "lstm/inputGateWeightMatrix": ("F32", (6,)), "loop/inner/bias": ("F32", (2,)),
    }  # fmt: skip
    info = header.tensors["conv/weights"]
    raw = path.read_bytes()[info.offset : info.offset + info.nbytes]
    assert raw == struct.pack("<48f", *range(48))
    assert header.metadata["packed"] == {"dense/weights": {"op": "weights", "bits": 4}}


def test_the_model_tells_of_itself(tmp_path: Path) -> None:
    path = tmp_path / "m.mlmodel"
    path.write_bytes(network().SerializeToString())
    says = read_coreml(path).metadata
    assert says["spec_version"] == 4 and says["type"] == "neuralNetworkClassifier"
    assert says["description"] == {"author": "Me", "license": "MIT", "task": "classify"}
    assert says["inputs"] == [{"name": "image", "dtype": "image", "shape": [224, 200]}]
    assert says["outputs"] == [{"name": "scores", "dtype": "F32", "shape": [10]}]
    assert says["ops"]["convolution"] == 1 and says["ops"]["custom"] == 1 and says["custom"] == ["MyLayer"]


def test_a_pipelines_models_are_told_each_under_its_number(tmp_path: Path) -> None:
    model = Model(specificationVersion=4)
    for _ in range(2):
        model.pipelineClassifier.pipeline.models.add().CopyFrom(network())
    path = tmp_path / "m.mlmodel"
    path.write_bytes(model.SerializeToString())
    header = read_coreml(path)
    assert header.metadata["type"] == "pipelineClassifier" and len(header.tensors) == 10
    assert {name.split("/")[0] for name in header.tensors} == {"0", "1"}


def test_kinds_layers_and_types_are_those_of_coremltools() -> None:
    assert {f.number: f.name for f in Model.DESCRIPTOR.fields if f.number >= 200} == KINDS
    layers = {f.number: (f.name, weights(f.message_type)) for f in NeuralNetwork.NeuralNetworkLayer.DESCRIPTOR.fields}
    assert {n: found for n, found in layers.items() if found[1]} == LAYERS
    for name, code in MIL.DataType.items():
        if code in TYPES:
            assert bits(name) == bits(TYPES[code]), name


def bits(name: str) -> str:
    return "".join(c for c in name.replace("FN", "") if c.isdigit()) if name != "BOOL" else "8"


def weights(message: Any) -> dict[int, Any]:
    """Where a message holds WeightParams: the structure of LAYERS, by reflection."""
    found: dict[int, Any] = {}
    for f in message.fields if message is not None else []:
        kind = f.message_type
        if kind is not None and kind.name == "WeightParams":
            found[f.number] = f.name
        elif kind is not None and kind.name == "NeuralNetwork":
            found[f.number] = None
        elif kind is not None and kind.name != "NeuralNetworkLayer" and (inner := weights(kind)):
            found[f.number] = inner
    return found


def tensor_type(value_type: Any, dtype: int, *shape: int) -> None:
    value_type.tensorType.dataType, value_type.tensorType.rank = dtype, len(shape)
    for n in shape:
        value_type.tensorType.dimensions.add().constant.size = n


def constant(block: Any, name: str, dtype: int, shape: tuple[int, ...], place: int | None) -> None:
    """A const operation, with its numbers in the blob file at `place`, or in the program."""
    op = block.operations.add(type="const")
    tensor_type(op.outputs.add(name=name).type, dtype, *shape)
    value = op.attributes["val"]
    tensor_type(value.type, dtype, *shape)
    if place is None:
        value.immediateValue.tensor.floats.values.extend([0.0] * int(np.prod(shape)))
    else:
        value.blobFileValue.fileName, value.blobFileValue.offset = "@model_path/weights/weight.bin", place


def blobs(path: Path) -> dict[str, int]:
    """A weight.bin by Apple's own writer; where each header stands."""
    library = Path(next(iter(package.__path__))) / "libmilstoragepython.so"
    if not library.exists():
        pytest.skip("this build of coremltools has no blob writer")
    spec = importlib.util.spec_from_file_location("libmilstoragepython", library)
    assert spec and spec.loader
    storage = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(storage)
    writer = storage._BlobStorageWriter(str(path))
    places = {
        "w": writer.write_float_data(np.arange(24, dtype=np.float32)),
        "h": writer.write_fp16_data(np.arange(7, dtype=np.float16).view(np.uint16)),
        "q": writer.write_uint8_data(np.arange(5, dtype=np.uint8)),
        "n": writer.write_uint4_data(np.arange(15, dtype=np.uint8)),
    }
    del writer
    return places


def program(folder: Path, manifest: str = "com.apple.CoreML/model.mlmodel") -> tuple[Path, dict[str, int]]:
    inner = folder / "Data" / "com.apple.CoreML"
    (inner / "weights").mkdir(parents=True)
    places = blobs(inner / "weights" / "weight.bin")
    model = Model(specificationVersion=8)
    for function in ("main", "other"):
        block = model.mlProgram.functions[function].block_specializations["CoreML8"]
        constant(block, "w", F32, (2, 3, 4), places["w"])
    constant(block, "h", F16, (7,), places["h"])
    constant(block, "small", F32, (3,), None)
    constant(block, "eps", F32, (), None)
    op = block.operations.add(type="constexpr_lut_to_dense")
    tensor_type(op.outputs.add(name="table").type, F16, 3, 5)
    for name, dtype, shape, place in (("indices", 35, (15,), "n"), ("lut", 31, (5,), "q")):
        value = op.attributes[name]
        tensor_type(value.type, dtype, *shape)
        value.blobFileValue.fileName, value.blobFileValue.offset = "@model_path/weights/weight.bin", places[place]
    block.operations.add(type="conv")
    (inner / "model.mlmodel").write_bytes(model.SerializeToString())
    entries = {"A": {"path": manifest, "name": "model.mlmodel"}, "B": {"path": "com.apple.CoreML/weights"}}
    said = {"fileFormatVersion": "1.0.0", "itemInfoEntries": entries, "rootModelIdentifier": "A"}
    (folder / "Manifest.json").write_text(json.dumps(said))
    return folder, places


def test_a_package_is_told_with_the_true_place_of_its_bytes(tmp_path: Path) -> None:
    folder, _ = program(tmp_path / "m.mlpackage")
    header = read_coreml(folder)
    assert {k: (t.dtype, t.shape) for k, t in header.tensors.items()} == {
        "w": ("F32", (2, 3, 4)), "h": ("F16", (7,)), "small": ("F32", (3,)),
        "table/indices": ("U4", (15,)), "table/lut": ("U8", (5,)),
    }  # fmt: skip
    raw = (folder / "Data/com.apple.CoreML/weights/weight.bin").read_bytes()
    for name, data in (("w", np.arange(24, dtype="<f4").tobytes()), ("table/lut", bytes(range(5)))):
        info = header.tensors[name]
        assert raw[info.offset : info.offset + info.nbytes] == data
    says = header.metadata
    assert says["type"] == "mlProgram" and says["constants"] == ["small"] and says["shared"] == 1
    assert says["ops"] == {"const": 5, "constexpr_lut_to_dense": 1, "conv": 1}
    packed = says["packed"]["table"]
    assert packed["shape"] == [3, 5] and sorted(packed["parts"]) == ["table/indices", "table/lut"]


def test_a_package_without_its_weights_still_tells_shapes(tmp_path: Path) -> None:
    folder, _ = program(tmp_path / "m.mlpackage")
    (folder / "Data/com.apple.CoreML/weights/weight.bin").unlink()
    header = read_coreml(folder)
    assert header.tensors["w"].shape == (2, 3, 4) and header.tensors["w"].offset == -1
    assert "missing" in header.metadata["faults"][0]


def test_a_compiled_model_tells_its_blobs(tmp_path: Path) -> None:
    folder = tmp_path / "m.mlmodelc"
    (folder / "weights").mkdir(parents=True)
    blobs(folder / "weights" / "weight.bin")
    (folder / "coremldata.bin").write_bytes(b"compiled")
    (folder / "metadata.json").write_text('[{"storagePrecision": "Float16", "generatedClassName": "M"}]')
    header = read_coreml(folder)
    assert [(t.dtype, t.shape) for t in header.tensors.values()] == [
        ("F32", (24,)), ("F16", (7,)), ("U8", (5,)), ("U4", (15,)),
    ]  # fmt: skip
    assert header.metadata["description"]["generatedClassName"] == "M" and len(BLOB_TYPES) == 17


@pytest.mark.parametrize("inner", ["../../elsewhere.mlmodel", "/etc/passwd"])
def test_a_manifest_that_points_out_of_its_package_is_refused(tmp_path: Path, inner: str) -> None:
    folder, _ = program(tmp_path / "m.mlpackage", inner)
    with pytest.raises(UnsafeCheckpoint):
        read_coreml(folder)


@pytest.mark.parametrize("raw", [b"", b"\0" * 40, b"\x08\x04", b"\xff" * 40])
def test_what_is_no_model_is_an_error(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "m.mlmodel").write_bytes(raw)
    with pytest.raises(CheckpointError, match="m.mlmodel"):
        read_coreml(tmp_path / "m.mlmodel")


def test_damage_is_met_with_our_errors_alone(tmp_path: Path) -> None:
    path = tmp_path / "m.mlmodel"
    path.write_bytes(network().SerializeToString())
    assert only_our_errors(read_coreml, path, path.read_bytes(), 1000) > 200
    folder, _ = program(tmp_path / "m.mlpackage")
    for name in ("Manifest.json", "Data/com.apple.CoreML/model.mlmodel", "Data/com.apple.CoreML/weights/weight.bin"):
        file = folder / name
        assert only_our_errors(read_coreml, file, file.read_bytes(), 500, folder) > 50
