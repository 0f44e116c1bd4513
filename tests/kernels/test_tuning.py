"""What lies between a tuning step's products: the kernel against the same in torch, and both against autograd."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from brolly.kernels import tuning
from brolly.kernels.tuning import Stretches

LIBRARY = tuning.library()
compiled = pytest.mark.skipif(isinstance(LIBRARY, str), reason=f"no kernel: {LIBRARY}")
attends = pytest.mark.skipif(
    isinstance(LIBRARY, str) or not LIBRARY.brolly_tune_attends(), reason="this processor multiplies no bfloat16"
)
BOTH = pytest.mark.parametrize("by", ["the kernel", "torch"])
N, C = 37, 96


@pytest.fixture
def by_torch(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def choose(by: str) -> None:
        if by == "torch":
            monkeypatch.setattr(tuning, "library", lambda: "none here")
        elif isinstance(LIBRARY, str):
            pytest.skip(f"no kernel: {LIBRARY}")

    return choose


def drawn(*shapes: Sequence[int], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    draw = torch.Generator().manual_seed(8)
    return [torch.randn(*shape, generator=draw).to(dtype).requires_grad_() for shape in shapes]


def near(found: Tensor, exact: Tensor, bound: float = 1e-6) -> None:
    assert (found.double() - exact.double()).norm() <= bound * exact.double().norm()


@BOTH
def test_a_norm_and_its_gradient_are_autograds(by: str, by_torch: Any) -> None:
    by_torch(by)
    x, w, dy, skip = drawn((N, C), (C,), (N, C), (N, C))
    y = F.rms_norm(x, (C,), w, 1e-5)
    (dx,) = torch.autograd.grad(y, x, dy)
    given = [t.detach() for t in (dy, x, w)]
    near(tuning.norm(given[1], given[2], 1e-5), y)
    found, again = tuning.norm_back(*given, 1e-5, skip.detach(), True)
    near(found, skip + dx), near(again, y)
    near(tuning.norm_back(*given, 1e-5, None, False)[0], dx)


@BOTH
def test_a_gate_and_its_gradient_are_autograds(by: str, by_torch: Any) -> None:
    by_torch(by)
    g, up, dy = drawn((N, C), (N, C), (N, C))
    y = F.silu(g * 20) * up  # both ends of the sigmoid
    dg, du = torch.autograd.grad(y, (g, up), dy)
    wide, high, slope = (g * 20).detach(), up.detach(), dy.detach().clone()
    near(tuning.gate(wide, high), y)
    found = tuning.gate_back(slope, wide, high)
    near(found[0] * 20, dg), near(found[1], du), near(found[2], y)
    assert found[2] is slope


@BOTH
def test_a_turn_keeps_lengths_and_is_undone_by_turning_back(by: str, by_torch: Any) -> None:
    by_torch(by)
    x, angles = (t.detach() for t in drawn((N, 3, 64), (N, 32)))
    a, b = x.chunk(2, dim=-1)
    c, s = angles.cos(), angles.sin()
    turned = tuning.turn(x.clone(), c, s)
    near(turned, torch.cat((a * c[:, None] - b * s[:, None], b * c[:, None] + a * s[:, None]), dim=-1))
    near(turned.norm(dim=-1), x.norm(dim=-1)), near(tuning.turn(turned, c, s, back=True), x, 3e-7)


@BOTH
@pytest.mark.parametrize("vocabulary", [64, 101])
def test_a_loss_and_its_gradient_are_autograds(vocabulary: int, by: str, by_torch: Any) -> None:
    by_torch(by)
    (logits,) = drawn((N, vocabulary))
    targets = torch.arange(N) % vocabulary
    losses = F.cross_entropy(logits * 30, targets, reduction="none")
    (slope,) = torch.autograd.grad(losses.sum(), logits)
    wide = (logits * 30).detach()
    near(tuning.entropy(wide.clone(), targets, gradient=False), losses)
    near(tuning.entropy(wide, targets, gradient=True), losses), near(wide * 30, slope)


@compiled
@pytest.mark.parametrize("function", ["norm", "norm_back", "gate", "gate_back", "turn", "entropy"])
def test_in_bfloat16_each_number_is_rounded_once(function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So it is within half a step of the exact one, or torch's, which rounds once too, is as far."""
    x, y, z, w = (t.detach() for t in drawn((N, C), (N, C), (N, C), (C,), dtype=torch.bfloat16))
    angle = torch.linspace(0, 3, N)[:, None].expand(N, 48).contiguous()
    cosine, sine, targets = angle.cos().bfloat16(), angle.sin().bfloat16(), torch.arange(N)
    calls: dict[str, Callable[[], Any]] = {
        "norm": lambda: tuning.norm(x, w, 1e-5),
        "norm_back": lambda: tuning.norm_back(y, x, w, 1e-5, z, True),
        "gate": lambda: tuning.gate(x, y),
        "gate_back": lambda: tuning.gate_back(z.clone(), x, y),
        "turn": lambda: tuning.turn(x.view(N, 1, C).clone(), cosine, sine),
        "entropy": lambda: (logits := x.clone(), tuning.entropy(logits, targets, True)),
    }
    found = calls[function]()
    monkeypatch.setattr(tuning, "library", lambda: "none here")
    expected = calls[function]()
    for a, b in zip(*((t,) if isinstance(t, Tensor) else t for t in (found, expected)), strict=True):
        torch.testing.assert_close(a, b, rtol=2**-7, atol=1e-5)
        assert (a == b).float().mean() > 0.97 or a.dtype == torch.float32


@compiled
def test_what_is_no_number_stays_none() -> None:
    x, w = torch.ones(2, C, dtype=torch.bfloat16), torch.ones(C, dtype=torch.bfloat16)
    x[0, 5] = float("nan")
    assert tuning.norm(x, w, 1e-5)[0].isnan().all() and not tuning.norm(x, w, 1e-5)[1].isnan().any()
    losses = tuning.entropy(x, torch.zeros(2, dtype=torch.int64), gradient=True)
    assert losses.isnan().tolist() == [True, False] and x[0].isnan().any() and not x[1].isnan().any()


@compiled
def test_a_target_that_is_no_token_is_refused() -> None:
    for target in (-1, C):
        with pytest.raises(AssertionError, match="no token"):
            tuning.entropy(torch.ones(1, C), torch.tensor([target]), gradient=True)


def exact(q: Tensor, k: Tensor, v: Tensor, where: Stretches) -> Tensor:
    """Attention by its definition."""
    parts = []
    for one in zip(*(t.split(list(where.lengths)) for t in (q, k, v)), strict=True):
        a, b, c = (t.transpose(0, 1) for t in one)
        b, c = (t.repeat_interleave(len(a) // len(t), 0) for t in (b, c))
        back = torch.arange(a.shape[1])[:, None] - torch.arange(a.shape[1])
        hidden = (back < 0) | (back >= (where.window or len(back)))
        scores = (a @ b.transpose(1, 2) / a.shape[-1] ** 0.5).masked_fill(hidden, -torch.inf)
        parts.append((scores.softmax(-1) @ c).transpose(0, 1))
    return torch.cat(parts)


SHAPES = [  # heads, key heads, head_dim, lengths, window
    (9, 3, 64, (5, 1, 100, 300, 37), None), (4, 1, 128, (300,), None), (2, 2, 80, (77, 130), None),
    (4, 2, 16, (200, 0, 3), None), (4, 2, 64, (200, 300, 16), 50), (2, 1, 256, (90,), None),
    (2, 2, 32, (48, 47, 49, 64, 31, 32, 33), 7), (2, 2, 64, (1,), None), (2, 1, 96, (600,), 130),
]  # fmt: skip


@attends
@pytest.mark.parametrize(("heads", "kv_heads", "dim", "lengths", "window"), SHAPES)
def test_attention_and_its_gradients(heads: int, kv_heads: int, dim: int, lengths: Any, window: int | None) -> None:
    n, where = sum(lengths), Stretches(lengths, window)
    q, k, v, d_out = drawn(*((n, h, dim) for h in (heads, kv_heads, kv_heads, heads)), dtype=torch.bfloat16)
    wide = [t.detach().double().requires_grad_() for t in (q, k, v)]
    expected = exact(*wide, where)
    slopes = torch.autograd.grad(expected, wide, d_out.double())
    given = [t.detach() for t in (q, k, v)]
    assert tuning.attends(given[0])
    out, sums = tuning.attend(*given, where)
    found = [out, *tuning.attend_back(d_out.detach(), *given, out, sums, where)]
    for a, b in zip(found, [expected, *slopes], strict=True):
        near(a, b, 0.004)


@attends
@pytest.mark.skipif(not shutil.which("gcc"), reason="no gcc")
def test_attention_by_tiles_is_right_wherever_tiles_are(tmp_path: Path) -> None:
    """The kernel compiled as for AMX, with its tiles modelled in C."""
    here = Path(__file__)
    compiler = tmp_path / "cc"
    compiler.write_text(f'#!/bin/sh\nexec gcc -include {here.with_name("tiles_by_hand.h")} "$@"\n')
    compiler.chmod(0o755)
    code = (
        "from tests.kernels.test_tuning import LIBRARY, SHAPES, test_attention_and_its_gradients as check\n"
        "assert LIBRARY.brolly_tune_attends() == 32\n"
        "for shape in SHAPES[2:5]:\n"
        "    check(*shape)\n"
    )
    around = os.environ | {"XDG_CACHE_HOME": str(tmp_path), "CC": str(compiler)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=here.parents[2], env=around, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


@attends
def test_large_scores_overflow_nothing() -> None:
    q, k, v, d_out = (t.detach() for t in drawn(*[(70, 2, 32)] * 4, dtype=torch.bfloat16))
    where = Stretches((70,), None)
    out, sums = tuning.attend(q * 100, k * 100, v, where)
    near(out, exact(q.double() * 100, k.double() * 100, v.double(), where), 0.004)
    assert all(t.isfinite().all() for t in tuning.attend_back(d_out, q * 100, k * 100, v, out, sums, where))


def test_what_the_kernel_does_not_take_is_left_to_torch() -> None:
    assert tuning.serves(torch.ones(2, 3), 3) is None and tuning.serves(torch.ones(2, C).double(), C) is None
    assert not tuning.attends(torch.ones(2, 1, 64)) and not tuning.attends(torch.ones(2, 1, 24).bfloat16())


@attends
@pytest.mark.parametrize("shape", [(32, 32), (96, 64), (64, 160), (288, 96)])
def test_a_matrix_is_laid_down_by_columns_where_many_rows_want_it(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "LARGE", 1)
    (weight,) = (t.detach() for t in drawn(shape, dtype=torch.bfloat16))
    found = tuning.by_columns(weight, 5000)
    assert torch.equal(found, weight)
    assert isinstance(LIBRARY, str) or found.t().is_contiguous() == (LIBRARY.brolly_tune_attends() == 2)
    assert tuning.by_columns(weight, 5) is weight and tuning.by_columns(weight.float(), 5000).dtype == torch.float32
    assert tuning.by_columns(weight[:, :31], 5000).shape == (shape[0], 31)
