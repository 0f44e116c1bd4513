"""Loading: which device and dtype, what a path may be, and what a file may hold; families test the numbers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from brolly.checkpoint import read_header
from brolly.errors import CheckpointError, NotFound, OptionError
from brolly.fill import choose_device, choose_dtype, native_bf16
from brolly.loader import load
from tests.run.checkpoints import write_reciter
from tests.run.terminal import LIMIT

CPU = torch.device("cpu")
GPU = torch.device("cuda", 0)  # choosing a dtype for it needs none


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_reciter(tmp_path, "abc")
    return tmp_path


def stored_as(folder: Path, dtype: torch.dtype) -> Path:
    path = folder / "model.safetensors"
    save_file({name: tensor.to(dtype) for name, tensor in load_file(path).items()}, path)
    return folder


def test_a_reference_may_be_a_path_a_text_or_the_weights_file(folder: Path) -> None:
    texts = {
        load(where, device="cpu").generate("x", max_tokens=9, temperature=0).text
        for where in (folder, str(folder), folder / "model.safetensors")
    }
    assert len(texts) == 1


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
def test_the_dtype_asked_for_is_the_one_computed_in(folder: Path, name: str, stored: torch.dtype) -> None:
    model = load(stored_as(folder, stored), device="cpu", dtype=name)
    assert model.dtype == getattr(torch, name)
    assert {p.dtype for p in model.network.parameters()} == {model.dtype}
    text = model.generate("x", max_tokens=9, temperature=0).text
    assert text == load(folder, device="cpu", dtype="float32").generate("x", max_tokens=9, temperature=0).text


@pytest.mark.parametrize("stored", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_dtype_by_default(folder: Path, stored: torch.dtype) -> None:
    """The checkpoint's own on a GPU; on a CPU nothing that it would emulate; never float64."""
    header = read_header(stored_as(folder, stored))
    half = stored.itemsize == 2
    assert choose_dtype(None, header, GPU) == (stored if half else torch.float32)
    assert choose_dtype(None, header, CPU) == (torch.bfloat16 if half and native_bf16() else torch.float32)


def test_most_bytes_decide_the_dtype(folder: Path) -> None:
    """Norms are often kept in float32 beside half-precision matrices."""
    path = folder / "model.safetensors"
    save_file({k: t.to(torch.bfloat16) if t.dim() == 2 else t for k, t in load_file(path).items()}, path)
    assert choose_dtype(None, read_header(folder), GPU) == torch.bfloat16


def test_a_torch_dtype_is_taken_as_it_is(folder: Path) -> None:
    assert load(folder, device="cpu", dtype=torch.float64).dtype == torch.float64


@pytest.mark.parametrize("name", ["float64", "fp16", "", "int8"])
def test_a_dtype_that_is_none(folder: Path, name: str) -> None:
    with pytest.raises(OptionError, match="expected float32, bfloat16, float16"):
        load(folder, device="cpu", dtype=name)


@pytest.mark.parametrize("name", ["warp", "cuda:99", "xla", "", "cpu:x"])
def test_a_device_that_is_not_here(name: str) -> None:
    with pytest.raises(OptionError, match=f"device '{name}' is not available here"):
        choose_device(name)


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="does not exist"):
        load(tmp_path / "nothing")


def test_parameters_need_no_gradient_and_dropout_is_off(folder: Path) -> None:
    network = load(folder, device="cpu").network
    assert not network.training
    assert not any(p.requires_grad or p.is_meta for p in network.parameters())


def test_a_dtype_that_cannot_be_run_names_the_tensor(folder: Path) -> None:
    path = folder / "model.safetensors"
    state = load_file(path)
    state["lm_head.weight"] = state["lm_head.weight"].to(torch.float8_e4m3fn)
    save_file(state, path)
    with pytest.raises(CheckpointError, match="lm_head.weight is stored as F8_E4M3, which cannot be run yet"):
        load(folder, device="cpu")


def test_two_tensors_for_one_parameter(folder: Path) -> None:
    path = folder / "model.safetensors"
    state = load_file(path)
    save_file(state | {"transformer.wpe.weight": state["wpe.weight"].clone()}, path)
    with pytest.raises(CheckpointError, match="are both 'wpe.weight'"):
        load(folder, device="cpu")


def test_a_loaded_file_may_be_replaced(folder: Path, tmp_path: Path) -> None:
    """What was loaded keeps its numbers when a new file takes the old one's place."""
    model: Any = load(folder, device="cpu", dtype="float32")
    before = model.generate("x", max_tokens=9, temperature=0)
    zeros = {name: torch.zeros_like(tensor) for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(zeros, tmp_path / "other.safetensors")
    (tmp_path / "other.safetensors").replace(folder / "model.safetensors")
    assert model.generate("x", max_tokens=9, temperature=0) == before


@pytest.mark.parametrize("first", ["brolly", "brolly.loader"])
def test_the_public_load_is_a_function_whatever_was_imported_first(first: str) -> None:
    code = (
        f"import {first}\nimport brolly\nassert callable(brolly.load)\nfrom brolly import load\nassert callable(load)"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=LIMIT, check=True)
