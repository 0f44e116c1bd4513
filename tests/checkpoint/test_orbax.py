"""Orbax folders, written by hand after the published formats, and their damage."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from brolly.checkpoint.orbax import read_orbax
from brolly.errors import CheckpointError
from tests.checkpoint.spoilt import only_our_errors

LEAVES = {("params", "dense", "kernel"): "jax.Array", ("params", "dense", "bias"): "jax.Array", ("step",): "scalar"}


def tree(leaves: dict[tuple[str, ...], str] | None = None, **more: Any) -> str:
    rows = {}
    for keys, kind in (leaves or LEAVES).items():
        path = [{"key": k, "key_type": 2} for k in keys]
        rows[str(keys)] = {
            "key_metadata": path,
            "value_metadata": {"value_type": kind, "skip_deserialize": kind == "None"},
        }
    return json.dumps({"tree_metadata": rows, "use_zarr3": False, "custom_metadata": None} | more)


def zarr(folder: Path, name: str, dtype: str, shape: list[int], three: bool = False) -> None:
    inner = folder / name
    inner.mkdir(parents=True)
    if three:
        said: dict[str, Any] = {"zarr_format": 3, "node_type": "array", "shape": shape, "data_type": dtype}
    else:
        said = {"zarr_format": 2, "shape": shape, "chunks": shape, "dtype": dtype, "compressor": {"id": "zstd"}}
    (inner / ("zarr.json" if three else ".zarray")).write_text(json.dumps(said))
    (inner / "0.0").write_bytes(b"compressed")


def test_arrays_in_folders_of_their_own_are_told_in_full(tmp_path: Path) -> None:
    (tmp_path / "_METADATA").write_text(tree({**LEAVES, ("empty",): "None"}))
    zarr(tmp_path, "params.dense.kernel", "<f4", [3, 5])
    zarr(tmp_path, "params.dense.bias", "bfloat16", [5])
    header = read_orbax(tmp_path)
    assert header.format == "orbax"
    assert {k: (t.dtype, t.shape, t.nbytes, t.offset) for k, t in header.tensors.items()} == {
        "params.dense.bias": ("BF16", (5,), 10, -1), "params.dense.kernel": ("F32", (3, 5), 60, -1),
    }  # fmt: skip
    says = header.metadata
    assert says["names"] == ["params.dense.kernel", "params.dense.bias", "step"] and says["layout"] == "zarr"
    assert says["told"] and says["training_state"] == ["step"] and says["faults"] == []


def test_zarr_3_and_nested_folders_are_read(tmp_path: Path) -> None:
    zarr(tmp_path / "target", "decoder/kernel", "float16", [2, 2], three=True)
    zarr(tmp_path / "target", "decoder.bias", "int8", [2], three=True)
    (tmp_path / "target" / "_METADATA").write_text(tree({("decoder", "kernel"): "np.ndarray"}))
    header = read_orbax(tmp_path)
    assert {k: t.dtype for k, t in header.tensors.items()} == {"decoder.bias": "I8", "decoder.kernel": "F16"}
    assert header.metadata["layout"] == "zarr3" and header.metadata["items"] == ["target"]


def test_the_newest_step_is_read_with_its_items(tmp_path: Path) -> None:
    for step in (900, 1000):
        for item in ("params", "opt_state"):
            zarr(tmp_path / str(step) / item, "w", "<f4", [step])
            (tmp_path / str(step) / item / "_METADATA").write_text(tree({("w",): "jax.Array"}))
        (tmp_path / str(step) / "_CHECKPOINT_METADATA").write_text(json.dumps({"item_handlers": {"params": "H"}}))
    (tmp_path / "2000.orbax-checkpoint-tmp-1").mkdir()
    header = read_orbax(tmp_path)
    assert header.metadata["step"] == 1000 and header.metadata["items"] == ["opt_state", "params"]
    assert {k: t.shape for k, t in header.tensors.items()} == {"opt_state.w": (1000,), "params.w": (1000,)}
    assert header.metadata["training_state"] == ["opt_state.w"] and header.metadata["handlers"] == {"params": "H"}


def ocdbt(folder: Path, mesh: list[int] | None) -> Path:
    inner = folder / "default"
    (inner / "array_metadatas").mkdir(parents=True)
    (inner / "d").mkdir()
    (inner / "manifest.ocdbt").write_bytes(b"\x0c\xdb\x3a\x2a" + bytes(40))
    (inner / "_METADATA").write_text(tree(use_ocdbt=True))
    rows = [{"param_name": "params.dense.kernel", "write_shape": [3, 5], "chunk_shape": [3, 5], "ext_metadata": None}]
    said = {"array_metadatas": [{"array_metadata": row} for row in rows]}
    (inner / "array_metadatas" / "process_0").write_text(json.dumps(said))
    one = {"sharding_type": "SingleDeviceSharding", "device_str": "TPU_0"}
    many = {"sharding_type": "NamedSharding", "shape": mesh, "axis_names": ["x"], "partition_spec": ["x"]}
    name = base64.b64encode(b"params.dense.kernel").decode()
    (inner / "_sharding").write_text(json.dumps({name: json.dumps(one if mesh is None else many)}))
    return folder


@pytest.mark.parametrize(("mesh", "whole"), [(None, True), ([1], True), ([8], False)])
def test_an_ocdbt_tells_names_and_says_that_it_does_not_tell_more(
    tmp_path: Path, mesh: list[int] | None, whole: bool
) -> None:
    header = read_orbax(ocdbt(tmp_path, mesh))
    says = header.metadata
    assert dict(header.tensors) == {} and says["told"] is False and says["layout"] == "ocdbt"
    assert says["names"] == ["params.dense.kernel", "params.dense.bias", "step"]
    assert says["write_shapes"] == {"params.dense.kernel": [3, 5]}
    assert says["shapes"] == ({"params.dense.kernel": [3, 5]} if whole else {})  # a part's shape is not the array's


def test_a_missing_array_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "_METADATA").write_text(tree())
    zarr(tmp_path, "params.dense.kernel", "<f4", [3, 5])
    assert "lacks 1 of its 3 arrays ('params.dense.bias'" in read_orbax(tmp_path).metadata["faults"][0]


@pytest.mark.parametrize("text", ["{}", "[]", "{", '{"dtype": "<f4", "shape": [-1]}', '{"dtype": "|O", "shape": [1]}'])
def test_an_array_that_is_none_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / ".zarray").write_text(text)
    with pytest.raises(CheckpointError, match=".zarray"):
        read_orbax(tmp_path)


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="Orbax"):
        read_orbax(tmp_path)


def test_damage_is_met_with_our_errors_alone(tmp_path: Path) -> None:
    folder = ocdbt(tmp_path, None)
    zarr(tmp_path / "default", "w", "<f4", [2])
    (folder / "default" / "manifest.ocdbt").unlink()
    for name in ("_METADATA", "w/.zarray"):
        file = folder / "default" / name
        assert only_our_errors(read_orbax, file, file.read_bytes(), 300, folder) > 50
    ocdbt(tmp_path / "other", None)
    for name in ("_METADATA", "_sharding", "array_metadatas/process_0"):
        file = tmp_path / "other" / "default" / name
        assert only_our_errors(read_orbax, file, file.read_bytes(), 200, tmp_path / "other") > 30
