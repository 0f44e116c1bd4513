"""Sequences in one row see nothing of each other, and a rerun gives the same bits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from brolly.configs import LlamaConfig, Rope
from brolly.engine.cache import Causal
from brolly.train.tuning.packing import Packed, positions

LENGTHS = [5, 1, 33, 70, 16, 48]


def config(window: int | None = None) -> LlamaConfig:
    return LlamaConfig(
        64, 64, 1, 4, 2, 32, 64, 1e-5, 128, Rope(), (window,), tied_head=True, qkv_bias=False, o_bias=False,
        mlp_bias=False, qk_norm=False,
    )  # fmt: skip


def heads(dtype: torch.dtype) -> list[Tensor]:
    """Queries, keys, values of all sequences, and a gradient."""
    draw, n = torch.Generator().manual_seed(3), sum(LENGTHS)
    return [torch.randn(1, h, n, 32, generator=draw).to(dtype) for h in (4, 2, 2, 4)]


def attended(cache: Packed | Causal, q: Tensor, k: Tensor, v: Tensor, d_out: Tensor) -> list[Tensor]:
    leaves = [t.detach().clone().requires_grad_() for t in (q, k, v)]
    out = cache.attend(0, *leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, d_out)]


def alone(given: list[Tensor], window: int | None) -> list[Tensor]:
    """Each sequence by itself, without packing; results side by side."""
    parts = [
        attended(Causal(config(window)), *one) for one in zip(*(t.split(LENGTHS, dim=2) for t in given), strict=True)
    ]
    return [torch.cat(found, dim=2) for found in zip(*parts, strict=True)]


@pytest.mark.parametrize("window", [None, 7, 40])
def test_packed_is_unpacked_in_float32(window: int | None) -> None:
    given = heads(torch.float32)
    for a, b in zip(attended(Packed(config(window), LENGTHS), *given), alone(given, window), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("window", [None, 7, 40])
def test_bfloat16_is_about_as_near_to_float32_as_torch_is(window: int | None) -> None:
    given = heads(torch.bfloat16)
    exact, plain = alone([t.float() for t in given], window), alone(given, window)
    for a, b, c in zip(attended(Packed(config(window), LENGTHS), *given), plain, exact, strict=True):
        assert (a.float() - c).norm() <= 2 * (b.float() - c).norm() and (a.float() - c).norm() < 0.005 * c.norm()


def test_another_sequence_cannot_be_felt_even_if_it_is_endless() -> None:
    given = heads(torch.bfloat16)
    before = attended(Packed(config(), LENGTHS), *given)
    for t in given[:3]:
        t[:, :, 6:39] = float("nan")
    after = attended(Packed(config(), LENGTHS), *given)
    for a, b in zip(before, after, strict=True):
        assert torch.equal(a[:, :, :6], b[:, :, :6]) and torch.equal(a[:, :, 39:], b[:, :, 39:])
        assert b[:, :, 6:39].isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_rerun_on_two_threads_gives_the_same_bits(dtype: torch.dtype) -> None:
    given, before = heads(dtype), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        first = attended(Packed(config(), LENGTHS), *given)
        assert all(map(torch.equal, attended(Packed(config(), LENGTHS), *given), first))
    finally:
        torch.set_num_threads(before)


def test_under_autocast_attention_is_bfloat16() -> None:
    given = heads(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        out = Packed(config(), LENGTHS).attend(0, *given[:3])
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), alone(given, None)[0], rtol=0.02, atol=0.02)


def test_positions_begin_anew_with_each_sequence() -> None:
    assert positions([2, 1, 3]).tolist() == [[0, 1, 0, 0, 1, 2]]
