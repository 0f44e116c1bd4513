"""PyTorch files surveyed: tensors and what else is told, of every container, against what PyTorch itself loads."""

from __future__ import annotations

import argparse
import collections
import io
import pickle
import random
import struct
import tarfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from brolly.card import TensorInfo
from brolly.checkpoint.torchfile import read_torch, survey_torch
from brolly.errors import CheckpointError, UnsafeCheckpoint
from tests.checkpoint.files import DTYPES, raw_bytes
from tests.checkpoint.pickles import PROTO, STOP, data, in_legacy, in_zip, name, state, tensor

pytestmark = pytest.mark.filterwarnings("ignore")
LEGACY = [{}, {"_use_new_zipfile_serialization": False}]


class Head(torch.nn.Module):
    """A module that holds a buffer, a parameter of its own and another module twice."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.Linear(3, 2)
        self.again = self.inner
        self.scale = torch.nn.Parameter(torch.arange(4.0))
        self.register_buffer("steps", torch.tensor(7))
        self.notes = {"layers": [1, 2]}


def saved(path: Path, value: Any, **how: Any) -> Path:
    torch.save(value, path, **how)
    return path


def assert_lies(path: Path, info: TensorInfo, expected: torch.Tensor) -> None:
    """The description leads to the tensor's bytes."""
    assert (info.dtype, info.shape) == ({v: k for k, v in DTYPES.items()}[expected.dtype], tuple(expected.shape))
    raw = path.read_bytes()[info.offset : info.offset + info.nbytes]
    found = torch.frombuffer(bytearray(raw), dtype=expected.dtype)
    found = found.view(info.shape) if info.strides is None else found.as_strided(info.shape, info.strides)
    assert raw_bytes(found) == raw_bytes(expected)


@pytest.mark.parametrize("how", LEGACY)
def test_a_state_dict_is_read_as_strictly(tmp_path: Path, how: dict[str, bool]) -> None:
    value = {
        "a": torch.arange(6.0).view(2, 3).t(),
        "b": {"c": torch.zeros(3, dtype=torch.bfloat16)},
        "d": torch.ones(5)[2:4],
    }
    path = saved(tmp_path / "m.pt", value, **how)
    tensors, metadata = survey_torch(path)
    assert tensors == read_torch(path)
    assert metadata["container"] == ("legacy" if how else "zip") and metadata["top_level"] == ["a", "b", "d"]
    for key, expected in (("a", value["a"]), ("b.c", value["b"]["c"]), ("d", value["d"])):
        assert_lies(path, tensors[key], expected)


@pytest.mark.parametrize("how", LEGACY)
def test_a_whole_module_has_the_names_of_its_state_dict(tmp_path: Path, how: dict[str, bool]) -> None:
    module = torch.nn.Sequential(Head(), torch.nn.BatchNorm1d(3))
    path = saved(tmp_path / "m.pt", module, **how)
    with pytest.raises(UnsafeCheckpoint):
        read_torch(path)
    seen: list[str] = []
    tensors = read_torch(path, seen)
    wanted = {k: v for k, v in module.state_dict().items() if not k.startswith("0.again")}
    assert tensors.keys() == wanted.keys()
    for key, expected in wanted.items():
        assert_lies(path, tensors[key], expected)
    assert f"{__name__}.Head" in seen and "torch.nn.modules.linear.Linear" in seen
    assert survey_torch(path)[1]["object"] == "torch.nn.modules.container.Sequential"


@pytest.mark.parametrize("how", LEGACY)
def test_a_lightning_checkpoint_tells_what_it_holds(tmp_path: Path, how: dict[str, bool]) -> None:
    network = torch.nn.Linear(2, 3)
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.zeros(4, 2)).sum().backward()
    optimizer.step()
    value = {
        "epoch": 3, "global_step": 40, "pytorch-lightning_version": "2.1.0", "state_dict": network.state_dict(),
        "optimizer_states": [optimizer.state_dict()], "hyper_parameters": argparse.Namespace(lr=0.5, sizes=[1, 2],
        note="é" * 3000),
        "dims": {"n_mels": 80, "n_vocab": 51865}, "config": collections.OrderedDict(dtype=torch.float16, n=None),
        "big": 2**200,
    }  # fmt: skip
    path = saved(tmp_path / "last.ckpt", value, **how)
    tensors, metadata = survey_torch(path)
    assert tensors.keys() >= {"weight", "bias", "optimizer_states.0.state.0.exp_avg", "optimizer_states.0.state.1.step"}
    assert_lies(path, tensors["weight"], network.weight.detach())
    assert_lies(path, tensors["optimizer_states.0.state.0.exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])
    assert metadata["lightning"] == "2.1.0" and metadata["optimizer"] and metadata["top_level"] == list(value)
    values = metadata["values"]
    assert values["epoch"] == 3 and values["dims"] == {"n_mels": 80, "n_vocab": 51865} and "big" not in values
    assert values["hyper_parameters"]["lr"] == 0.5 and values["hyper_parameters"]["sizes"] == [1, 2]
    assert "note" not in values["hyper_parameters"] and values["config"] == {"dtype": "torch.float16"}
    assert "argparse.Namespace" in metadata["globals"]


@pytest.mark.parametrize("how", LEGACY)
def test_tensors_of_all_kinds_are_found(tmp_path: Path, how: dict[str, bool]) -> None:
    value = {
        "q": torch.quantize_per_tensor(torch.ones(4, 2), 0.1, 0, torch.qint8),
        "u": torch.quantize_per_channel(torch.ones(4, 2), torch.ones(4),
        torch.zeros(4), 0, torch.quint8), "coo": torch.eye(3).to_sparse(), "csr": torch.eye(3).to_sparse_csr(),
        "meta": torch.empty(3, 4, device="meta"), "p": torch.nn.Parameter(torch.ones(2)),
        "f8": torch.ones(3).to(torch.float8_e4m3fn), "0d": torch.tensor(1),
    }  # fmt: skip
    tensors, _ = survey_torch(saved(tmp_path / "m.pt", value, **how))
    told = {key: (t.dtype, t.shape, t.nbytes) for key, t in tensors.items()}
    assert told == {
        "q": ("I8", (4, 2), 8), "u": ("U8", (4, 2), 8), "coo.indices": ("I64", (2, 3), 48), "coo.values": ("F32",
        (3,), 12),
        "csr.compressed_indices": ("I64", (4,), 32), "csr.plain_indices": ("I64", (3,), 24), "csr.values": ("F32",
        (3,), 12),
        "meta": ("F32", (3, 4), 0), "p": ("F32", (2,), 8), "f8": ("F8_E4M3", (3,), 3), "0d": ("I64", (), 8),
    } | {k: v for k, v in told.items() if k.startswith("u.")}  # fmt: skip


class Wrapped(torch.Tensor):
    """A subclass, whose instances PyTorch saves by _rebuild_from_type_v2."""


def test_a_subclass_of_tensor_is_a_tensor(tmp_path: Path) -> None:
    value = torch.arange(3.0).as_subclass(Wrapped)
    value.note = "x"
    path = saved(tmp_path / "m.pt", {"w": value})
    assert_lies(path, survey_torch(path)[0]["w"], torch.arange(3.0))


def test_a_torchscript_program_is_surveyed(tmp_path: Path) -> None:
    torch.jit.script(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU())).save(str(tmp_path / "s.pt"))
    tensors, metadata = survey_torch(tmp_path / "s.pt")
    assert {k: t.shape for k, t in tensors.items()} == {"0.weight": (3, 2), "0.bias": (3,)}
    assert metadata["container"] == "torchscript"
    assert read_torch(tmp_path / "s.pt") == tensors


def test_a_pickle_of_arrays_is_surveyed(tmp_path: Path) -> None:
    value = {"model": {"conv.w": np.ones((2, 3), np.float32), "n": np.arange(3)}, "__author__": "Caffe2", "epoch": 4}
    for protocol in (2, 3, 4, 5):
        path = tmp_path / "m.pkl"
        path.write_bytes(pickle.dumps(value, protocol))
        tensors, metadata = survey_torch(path)
        assert {k: (t.dtype, t.shape) for k, t in tensors.items()} == {"conv.w": ("F32", (2, 3)), "n": ("I64", (3,))}
        if protocol > 2:
            assert_lies(path, tensors["conv.w"], torch.ones(2, 3))
        assert metadata["container"] == "pickle" and metadata["values"] == {"__author__": "Caffe2", "epoch": 4}


def old_tar(path: Path) -> Path:
    """What PyTorch before 0.1.10 wrote, by the reader that PyTorch still has."""

    def kind(leaf: str) -> bytes:
        return PROTO + b"(" + data(5) + data("cpu") + name("torch", leaf) + b"t" + STOP

    storages = pickle.dumps(1, 2) + kind("FloatStorage") + struct.pack("<q", 6) + np.arange(6, dtype="<f4").tobytes()
    storages += pickle.dumps([(9, 5, 2, 4)], 2)
    about = PROTO + b"(" + data(7) + data(5) + name("torch", "FloatTensor") + b"t" + STOP
    view = PROTO + b"(" + data(8) + data(9) + name("torch", "FloatTensor") + b"t" + STOP
    tensors = (
        pickle.dumps(2, 2)
        + about
        + struct.pack("<iiqqqqq", 2, 0, 2, 3, 3, 1, 0)
        + view
        + struct.pack("<iiqqq", 1, 0, 4, 1, 0)
    )
    body = PROTO + b"}(" + data("w") + b"P7\n" + data("v") + data("8") + b"Qu" + STOP
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for member, raw in {
            "sys_info": pickle.dumps({}, 2),
            "pickle": body,
            "tensors": tensors,
            "storages": storages,
        }.items():
            info = tarfile.TarInfo(member)
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))
    return path


def test_a_tar_of_the_first_pytorch_is_surveyed(tmp_path: Path) -> None:
    path = old_tar(tmp_path / "old.pt")
    tensors, metadata = survey_torch(path)
    loaded = torch.load(path, weights_only=False)
    assert tensors.keys() == loaded.keys() == {"w", "v"} and metadata["container"] == "tar"
    for key, expected in loaded.items():
        assert_lies(path, tensors[key], expected)


def test_nothing_is_executed_or_missed(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    evil = (
        PROTO
        + b"}"
        + data("w")
        + tensor()
        + b"s"
        + data("x")
        + name("os", "system")
        + data(f"touch {canary}")
        + b"\x85Rs"
        + STOP
    )
    for body in (in_zip(evil), in_legacy(evil)):
        (tmp_path / "m.pt").write_bytes(body)
        tensors, metadata = survey_torch(tmp_path / "m.pt")
        assert list(tensors) == ["w"] and "os.system" in metadata["globals"]
    assert not canary.exists()


def test_what_is_no_pytorch_file_is_said(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    for raw in (b"", b"PK\x03\x04", b"hello", b"\x80\x02", in_zip(state(tensor()))[:-30],
    in_zip(state(tensor(count=4)), {"0": b"abc"}),
                in_zip(state(tensor()), {"1": bytes(16)}), b"\x80\x02" + b"(" * 100 + b"t" * 200):  # fmt: skip
        path.write_bytes(raw)
        with pytest.raises(CheckpointError) as error:
            survey_torch(path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_structures_that_explode_or_bite_their_tail_end(tmp_path: Path) -> None:
    doubling = PROTO + b"]" + tensor() + b"a" + b"q\x01" + b"".join(b"](h\x01h\x01eq\x01" for _ in range(60)) + STOP
    circle = PROTO + b"}q\x01" + data("w") + tensor() + b"s" + data("me") + b"h\x01s" + STOP
    deep = PROTO + b"]" * 50_000 + b"a" * 49_999 + STOP
    many = PROTO + b"](" + tensor() + b"q\x01" + b"h\x01" * 200_000 + b"e" + STOP
    for body in (doubling, circle, deep, many):
        (tmp_path / "m.pt").write_bytes(in_zip(body))
        start = time.process_time()
        try:
            tensors, _ = survey_torch(tmp_path / "m.pt")
            assert len(tensors) < 70_000
        except CheckpointError:
            pass
        assert time.process_time() - start < 1.0


def test_damaged_files_are_errors_of_ours(tmp_path: Path) -> None:
    rng = random.Random(5)
    module, raw = io.BytesIO(), io.BytesIO()
    torch.save(Head(), module)
    torch.save({"a": torch.ones(3), "n": [1, 2.5]}, raw, _use_new_zipfile_serialization=False)
    seeds = [
        module.getvalue(),
        raw.getvalue(),
        old_tar(tmp_path / "t.pt").read_bytes(),
        in_zip(state(tensor())),
        pickle.dumps({"a": np.ones(3)}, 4),
    ]
    for _ in range(1500):
        spoilt = bytearray(rng.choice(seeds))
        for _ in range(rng.randrange(1, 5)):
            at = rng.randrange(len(spoilt))
            if rng.random() < 0.7:
                spoilt[at] = rng.choice([0, 1, 0x28, 0x2E, 0x52, 0x62, 0x7D, 0x94, 0xFF, rng.randrange(256)])
            elif rng.random() < 0.5:
                del spoilt[at:]
                spoilt = spoilt or bytearray(b"\x80")
            else:
                spoilt[at:at] = rng.choice([b"}", b")", b"R", b"b", b"Q", b"h\x00", b"\xff\xff\xff\xff"])
        (tmp_path / "m.pt").write_bytes(bytes(spoilt))
        start = time.process_time()
        with suppress(CheckpointError):
            survey_torch(tmp_path / "m.pt")
        assert time.process_time() - start < 1.0
