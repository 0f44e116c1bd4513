"""Keras models of both versions, laid out by h5py and zipfile as Keras writes them, and damaged ones."""

from __future__ import annotations

import io
import json
import random
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from brolly.checkpoint.keras import read_keras
from brolly.errors import BrollyError, CheckpointError
from tests.checkpoint.test_fuzz import mutated
from tests.checkpoint.test_hdf5 import spoilt

h5py, np = pytest.importorskip("h5py"), pytest.importorskip("numpy")


def layer(kind: str, name: str, **more: Any) -> dict[str, Any]:
    return {"class_name": kind, "config": {"name": name, **more}, "module": "keras.layers"}


GLOROT = {"class_name": "GlorotUniform", "config": {"seed": None}, "module": "keras.initializers"}
CONFIG = {
    "class_name": "Functional",
    "module": "keras",
    "config": {
        "name": "tiny",
        "layers": [
            layer("InputLayer", "input"),
            layer("Dense", "dense", units=3, kernel_initializer=GLOROT),
            layer("Dense", "dense_1", activation={"class_name": "function", "config": "relu", "module": "builtins"}),
            layer("Bidirectional", "both", layer=layer("LSTM", "inner")),
            layer("Lambda", "twice", function={"class_name": "__lambda__", "config": {"value": "4wEA"}}),
            {**layer("Mine", "mine"), "registered_name": "package>Mine", "module": "my.module"},
            layer("Dense", "hidden", activation={"class_name": "__lambda__", "config": {"value": "4wEA"}}),
        ],
    },
}


def weights(name: Any, **options: Any) -> None:
    """Version 3's model.weights.h5."""
    with h5py.File(name, "w", **options) as file:
        for i, shape in enumerate([(4, 3), (3,)]):
            file[f"layers/dense/vars/{i}"] = np.full(shape, i + 1, "f4")
        file["optimizer/vars/0"] = np.int64(7)


def version_2(path: Path, config: Any = CONFIG) -> None:
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"], file.attrs["backend"] = b"2.15.0", b"tensorflow"
        if config is not None:
            file.attrs["model_config"] = json.dumps(config).encode()
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [b"dense"]
        group["dense/dense/kernel:0"] = np.ones((4, 3), "f4")
        group["dense/dense/bias:0"] = np.ones(3, "f4")


def version_3(path: Path, packing: int = zipfile.ZIP_STORED, config: Any = CONFIG) -> None:
    made = io.BytesIO()
    weights(made)
    with zipfile.ZipFile(path, "w", packing) as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.9.0", "date_saved": "2025-01-01@00:00:00"}))
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", made.getvalue())


TOLD = {
    "layers": {"Dense": 3, "InputLayer": 1, "Bidirectional": 1, "LSTM": 1, "Lambda": 1, "Mine": 1},
    "lambda_layers": ["twice", "hidden"],
    "registered": ["package>Mine"],
    "modules": ["keras", "keras.layers", "keras.initializers", "builtins", "my.module"],
}


def test_version_2_comes_back(tmp_path: Path) -> None:
    version_2(tmp_path / "m.h5")
    header = read_keras(tmp_path / "m.h5")
    assert (header.format, header.config) == ("keras-h5", CONFIG)
    assert {n: t.shape for n, t in header.tensors.items()} == {
        "model_weights/dense/dense/kernel:0": (4, 3),
        "model_weights/dense/dense/bias:0": (3,),
    }
    assert {k: header.metadata[k] for k in TOLD} == TOLD
    assert header.metadata["keras_version"] == "2.15.0" and header.metadata["optimizer"] is False


@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_version_3_comes_back(tmp_path: Path, packing: int) -> None:
    version_3(tmp_path / "m.keras", packing)
    header = read_keras(tmp_path / "m.keras")
    assert (header.format, header.config) == ("keras", CONFIG)
    assert {n: t.shape for n, t in header.tensors.items()} == {
        "layers/dense/vars/0": (4, 3), "layers/dense/vars/1": (3,), "optimizer/vars/0": (),
    }  # fmt: skip
    assert {k: header.metadata[k] for k in TOLD} == TOLD
    assert header.metadata["keras_version"] == "3.9.0" and header.metadata["optimizer"] is True
    if packing == zipfile.ZIP_STORED:
        info = header.tensors["layers/dense/vars/1"]
        raw = (tmp_path / "m.keras").read_bytes()
        assert np.array_equal(np.frombuffer(raw[info.offset : info.offset + info.nbytes], "f4"), [2, 2, 2])


def test_packed_weights_too_large_to_unpack_leave_the_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import brolly.checkpoint.keras as module

    monkeypatch.setattr(module, "MAX_UNPACKED", 100)
    version_3(tmp_path / "m.keras", zipfile.ZIP_DEFLATED)
    header = read_keras(tmp_path / "m.keras")
    assert header.config == CONFIG and not header.tensors and header.metadata["optimizer"] is None


def test_weights_alone_are_keras_and_other_hdf5_is_not(tmp_path: Path) -> None:
    weights(tmp_path / "m.weights.h5")
    version_2(tmp_path / "old.h5", config=None)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.ones(3)
    assert read_keras(tmp_path / "m.weights.h5").format == "keras-h5"
    assert read_keras(tmp_path / "old.h5").format == "keras-h5"
    assert read_keras(tmp_path / "other.h5").format == "hdf5"


@pytest.mark.parametrize("config", [[], "text", None, 5])
def test_a_config_that_is_no_object_is_refused(tmp_path: Path, config: Any) -> None:
    version_3(tmp_path / "m.keras", config=config)
    with pytest.raises(CheckpointError, match="m.keras: config.json"):
        read_keras(tmp_path / "m.keras")


def test_odd_configs_are_taken_as_they_are(tmp_path: Path) -> None:
    odd = {
        "class_name": ["x"],
        "layers": [1, None, {"class_name": 5}, {"class_name": "A"}, {"class_name": "B", "config": 1}],
    }
    version_3(tmp_path / "m.keras", config=odd)
    assert read_keras(tmp_path / "m.keras").metadata["layers"] == {"A": 1, "B": 1}


def test_a_zip_without_config_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.writestr("metadata.json", "{}")
    with pytest.raises(CheckpointError, match="no config.json"):
        read_keras(tmp_path / "m.keras")


@pytest.mark.parametrize("kind", ["m.h5", "m.keras", "packed.keras"])
def test_damaged_files(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    if kind == "m.h5":
        version_2(path)
    else:
        version_3(path, zipfile.ZIP_DEFLATED if kind[0] == "p" else zipfile.ZIP_STORED)
    raw = path.read_bytes()
    refused = 0
    for seed in range(200):
        path.write_bytes(spoilt(raw, seed) if kind != "packed.keras" else mutated(raw, random.Random(seed)))
        start = time.process_time()
        try:
            read_keras(path)
        except BrollyError as error:
            refused += 1
            assert path.name in str(error) and str(error).isprintable()
        assert time.process_time() - start < 1, f"seed {seed}"
    assert refused > 20
