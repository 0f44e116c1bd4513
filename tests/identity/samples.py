"""A small clean model of every format, written by the field's own libraries: no findings; where fuzz begins."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from brolly.checkpoint import write_safetensors
from tests.identity.hollow import gguf_header

ROWS = [("model.embed_tokens.weight", "F32", (8, 4), bytes(128)), ("model.norm.weight", "F32", (4,), bytes(16))]


def state() -> dict[str, torch.Tensor]:
    return {"encoder.weight": torch.ones(4, 3), "encoder.bias": torch.zeros(4)}


def safetensors(path: Path) -> None:
    write_safetensors(path, ROWS, {"format": "pt"})


def gguf(path: Path) -> None:
    tensors = {
        "token_embd.weight": ((40, 32), 0),
        "output_norm.weight": ((32,), 0),
        "blk.0.ffn_up.weight": ((64, 32), 8),
    }
    pairs = {
        "general.architecture": "llama", "general.name": "tiny", "llama.block_count": 1, "llama.context_length": 64,
        "llama.embedding_length": 32, "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": [f"t{i}" for i in range(40)], "tokenizer.ggml.merges": ["a b", "b c"],
        "tokenizer.chat_template": "{{ messages[0]['content'] }}",
    }  # fmt: skip
    head, size = gguf_header(
        pairs, tensors, {"token_embd.weight": 5120, "output_norm.weight": 128, "blk.0.ffn_up.weight": 2176}
    )
    path.write_bytes(head + bytes(size - len(head)))


def torch_zip(path: Path) -> None:
    torch.save(state(), path)


def torch_legacy(path: Path) -> None:
    torch.save(state(), path, _use_new_zipfile_serialization=False)


def torch_script(path: Path) -> None:
    class Twice(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * x * self.weight

    torch.jit.trace(Twice(), torch.ones(3)).save(str(path))


def lightning(path: Path) -> None:
    from collections import OrderedDict

    saved = {
        "epoch": 3, "global_step": 100, "pytorch-lightning_version": "2.4.0", "state_dict": OrderedDict(state()),
        "loops": {"fit_loop": {"state_dict": {}}}, "callbacks": {}, "lr_schedulers": [],
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(4, 3)}}, "param_groups": [{"lr": 1e-3}]}],
        "hyper_parameters": {"dim": 4, "name": "small"},
    }  # fmt: skip
    torch.save(saved, path)


def npy(path: Path) -> None:
    np.save(path, np.ones((3, 4), dtype=np.float32))


def npz(path: Path) -> None:
    np.savez(path, **{"alphafold/alphafold_iteration/evoformer//weights": np.ones((3, 4)), "b": np.zeros(2)})


def onnx(path: Path) -> None:
    library = pytest.importorskip("onnx")
    h = library.helper
    weight = h.make_tensor("w", library.TensorProto.FLOAT, [2, 2], np.ones(4, dtype=np.float32).tobytes(), raw=True)
    ends = [h.make_tensor_value_info(n, library.TensorProto.FLOAT, [2, 2]) for n in ("x", "y")]
    graph = h.make_graph([h.make_node("MatMul", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [weight])
    path.write_bytes(h.make_model(graph).SerializeToString())


def keras_h5(path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        layers = [{"class_name": "Dense", "config": {"name": "dense", "units": 2}}]
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": {"layers": layers}})
        file.attrs["keras_version"] = "2.15.0"
        group = file.create_group("model_weights/dense/dense")
        group.create_dataset("kernel:0", data=np.ones((3, 2), dtype=np.float32))


def keras_v3(path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    inside = io.BytesIO()
    with h5py.File(inside, "w") as file:
        file.create_dataset("layers/dense/vars/0", data=np.ones((3, 2), dtype=np.float32))
    layers = [{"module": "keras.layers", "class_name": "Dense", "config": {"units": 2}, "registered_name": None}]
    config = {"module": "keras", "class_name": "Sequential", "config": {"name": "s", "layers": layers}}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.5.0", "date_saved": "2025-01-01@00:00:00"}))
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", inside.getvalue())


def flax(path: Path) -> None:
    msgpack = pytest.importorskip("msgpack")
    array = msgpack.ExtType(1, msgpack.packb(((2, 2), "float32", bytes(16)), use_bin_type=True))
    path.write_bytes(msgpack.packb({"params": {"dense": {"kernel": array}}}, use_bin_type=True))


def nemo(path: Path) -> None:
    weights = io.BytesIO()
    torch.save(state(), weights)
    with tarfile.open(path, "w") as archive:
        for name, data in (("model_config.yaml", b"target: nemo.ASR\n"), ("model_weights.ckpt", weights.getvalue())):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def zipped(path: Path) -> None:
    folder = path.parent / "zipped"
    folder.mkdir()
    safetensors(folder / "model.safetensors")
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(folder / "model.safetensors", "model.safetensors")
        archive.writestr("config.json", json.dumps({"model_type": "llama", "hidden_size": 4}))


def tarred(path: Path) -> None:
    folder = path.parent / "tarred"
    folder.mkdir()
    safetensors(folder / "model.safetensors")
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder / "model.safetensors", "model/model.safetensors")


FILES: dict[str, Callable[[Path], Any]] = {
    "model.safetensors": safetensors, "model.gguf": gguf, "model.pt": torch_zip, "model.bin": torch_legacy,
    "script.pt": torch_script, "last.ckpt": lightning, "array.npy": npy, "params.npz": npz, "model.onnx": onnx,
    "model.h5": keras_h5, "model.keras": keras_v3, "flax_model.msgpack": flax, "asr.nemo": nemo, "model.zip": zipped,
    "model.tar.gz": tarred,
}  # fmt: skip


def write_all(folder: Path) -> list[Path]:
    """Every sample in a folder of its own."""
    found = []
    for name, make in FILES.items():
        path = folder / name.replace(".", "-") / name
        path.parent.mkdir(parents=True)
        make(path)
        found.append(path)
    return found
