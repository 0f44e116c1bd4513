"""AdamW in 8 bits and AdamW elsewhere: close to, and equal to, AdamW; saved and gone on with, bit for bit."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from brolly.errors import DiskFull, OptionError
from brolly.kernels import adam8
from brolly.train.tuning import optimizers, tune
from brolly.train.tuning.optimizers import AdamW8bit, AdamWOffload, make, positive_levels
from brolly.train.tuning.state import restore, save
from brolly.verbs import TuneOptions
from tests.run.checkpoints import write_llama
from tests.train.tuning.bases import facts, write_rows

SHAPES = [(40, 300), (6, 1024), (70, 70), (5000,), (16,)]


def parameters(dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(shape).to(dtype) * 0.1) for shape in SHAPES]


def gradients(step: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(step)
    scales = [torch.rand(shape, generator=generator) ** 4 for shape in SHAPES]
    return [(torch.randn(s.shape, generator=generator) * s * 1e-2).to(dtype) for s in scales]


def walk(optimizer: torch.optim.Optimizer, learnt: list[nn.Parameter], steps: int, first: int = 0) -> None:
    for step in range(first, first + steps):
        for p, grad in zip(learnt, gradients(step, learnt[0].dtype), strict=True):
            p.grad = grad
        optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kernel_steps_as_torch(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    if isinstance(adam8.library("adam8"), str):
        pytest.skip("no compiler is here")
    by_kernel, by_torch = parameters(dtype), parameters(dtype)
    first, second = (AdamW8bit(learnt, 1e-2, 0.1) for learnt in (by_kernel, by_torch))
    walk(first, by_kernel, 3)
    monkeypatch.setattr(adam8, "step", lambda *_: False)
    walk(second, by_torch, 3)
    for p, q in zip(by_kernel, by_torch, strict=True):
        torch.testing.assert_close(p, q, rtol=2e-3, atol=4e-3 if dtype == torch.bfloat16 else 1e-4)
        for name in ("mean", "square"):
            a, b = first.state[p][name], second.state[q][name]
            if a.dtype == torch.uint8:
                assert int((a.int() - b.int()).abs().max()) <= 1 and float((a != b).float().mean()) < 0.01


def test_levels_are_bitsandbytes() -> None:
    functional: Any = pytest.importorskip("bitsandbytes.functional", reason="bitsandbytes is not installed")
    assert torch.equal(positive_levels(), functional.create_dynamic_map(signed=False))


def test_8_bits_move_as_adamw_does() -> None:
    """Random gradients of very different sizes: after 30 steps the ways differ by a few hundredths of their length."""
    few, whole = parameters(), parameters()
    began = [p.detach().clone() for p in few]
    walk(AdamW8bit(few, 1e-3, 0.01), few, 30)
    walk(torch.optim.AdamW(whole, lr=1e-3, weight_decay=0.01), whole, 30)
    for p, q, start in zip(few, whole, began, strict=True):
        apart = float((p - q).detach().norm() / (q - start).detach().norm())
        assert apart < 0.15 and (p.numel() >= optimizers.LEAST or apart < 1e-6), apart
        assert (p - start).abs().max().item() < 1.3 * (q - start).abs().max().item()


def test_8_bits_move_as_bitsandbytes_do() -> None:
    """Rows of whole blocks of 256, as it has them; AdamW in 32 bits is as far from either, or further."""
    bnb: Any = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    torch.manual_seed(1)
    start = torch.randn(24, 1024) * 0.1
    ours, theirs, whole = (nn.Parameter(start.clone()) for _ in range(3))
    kinds = [AdamW8bit([ours], 1e-3, 0.01), bnb.optim.AdamW8bit([theirs], lr=1e-3, weight_decay=0.01),
             torch.optim.AdamW([whole], lr=1e-3, weight_decay=0.01)]  # fmt: skip
    for _ in range(20):
        grad = torch.randn_like(start) * (torch.rand_like(start) + 0.05) * 1e-2
        for p in (ours, theirs, whole):
            p.grad = grad.clone()
        for optimizer in kinds:
            optimizer.step()
    moved = float((whole - start).norm())
    assert float((ours - theirs).norm()) < 0.02 * moved, float((ours - theirs).norm()) / moved
    assert float((ours - whole).norm()) < 0.08 * moved, float((ours - whole).norm()) / moved


def test_a_tiny_second_moment_takes_no_huge_step() -> None:
    """One gradient of a block is a million times the others': what bitsandbytes would round to 0 is not."""
    p = nn.Parameter(torch.zeros(32, 256))
    optimizer = AdamW8bit([p], 1e-3, 0.0)
    for _ in range(5):
        p.grad = torch.full_like(p, 1e-6)
        p.grad[:, 0] = 1.0
        optimizer.step()
    assert float(p.abs().max()) < 6e-3


@pytest.mark.parametrize("kind", ["adamw", "adamw8bit", "adamw-offload"])
def test_a_run_is_gone_on_with_bit_for_bit(kind: str, tmp_path: Path) -> None:
    asked = TuneOptions(optimizer=kind, weight_decay=0.1)
    straight = parameters()
    walk(make(straight, asked, 1e-3, tmp_path), straight, 5)
    broken = parameters()
    optimizer = make(broken, asked, 1e-3, tmp_path)
    walk(optimizer, broken, 3)
    save(tmp_path, 3, {str(i): p for i, p in enumerate(broken)}, optimizer, {})
    again = [nn.Parameter(torch.randn_like(p)) for p in broken]
    optimizer = make(again, asked, 1e-3, tmp_path)
    assert restore(tmp_path, {str(i): p for i, p in enumerate(again)}, optimizer, {}) == 3
    walk(optimizer, again, 2, first=3)
    assert all(torch.equal(a, b) for a, b in zip(straight, again, strict=True))


def test_moments_in_a_file_are_adamws_own(tmp_path: Path) -> None:
    here, there = parameters(), parameters()
    walk(torch.optim.AdamW(here, lr=1e-3, weight_decay=0.1, fused=True), here, 4)
    optimizer = AdamWOffload(there, 1e-3, 0.1, tmp_path)
    walk(optimizer, there, 4)
    assert all(torch.equal(a, b) for a, b in zip(here, there, strict=True))
    assert not list(tmp_path.iterdir()) and optimizer.memory is not None


def test_a_full_disk_is_told_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(optimizers.os, "posix_fallocate", none_left)
    with pytest.raises(DiskFull):
        AdamWOffload(parameters(), 1e-3, 0.0, tmp_path)


def test_an_unknown_optimizer_is_told(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="expected"):
        make(parameters(), TuneOptions(optimizer="sgd"), 1e-3, tmp_path)


def test_tuning_whole_takes_the_same_way_by_all_three(tmp_path: Path) -> None:
    """Loss curves of a model that learns facts by heart."""
    pytest.importorskip("transformers")
    write_llama(tmp_path / "base", tie_word_embeddings=True, initializer_range=0.05)
    data, curves = write_rows(tmp_path / "d.jsonl", facts(12)), {}
    for kind in ("adamw", "adamw8bit", "adamw-offload"):
        out = tmp_path / kind
        tune(tmp_path / "base", data, out=out, lora=None, optimizer=kind, steps=25, batch=4, lr=4e-3, held_out=0)
        log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
        curves[kind] = [row["loss"] for row in log if "loss" in row]
    assert curves["adamw-offload"] == curves["adamw"]
    whole, few = (torch.tensor(curves[kind]) for kind in ("adamw", "adamw8bit"))
    assert float(whole[-1]) < 0.3 * float(whole[0])
    assert float((few - whole).abs().mean()) < 0.05 * float(whole.mean())
