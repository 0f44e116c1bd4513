"""Binds tuning.c: what a tuning step does between its matrix products, each beside the same in torch.

N tokens, C dim, H heads, KV key-value heads, D head_dim, V vocabulary. The kernel takes rows on the CPU, float32 or
bfloat16, whose last dimension fills whole vectors; torch does the rest, and computes in float32 as the kernel does.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import c_float, c_int64, c_void_p
from itertools import accumulate
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from brolly.kernels.build import library as build

MANY, LARGE = 1024, 2**22  # rows for which a matrix of so many numbers is worth turning
ARGUMENTS = {  # p: a pointer, f: a float, i: a number
    "norm": "pppiifi", "norm_back": "ppppppiifi", "turn": "pppiiifi", "gate": "ppppppiii", "entropy": "pppiiii",
    "attend": "pppppppppppiiiiiiip", "flip": "ppii",
}  # fmt: skip


def library() -> ctypes.CDLL | str:
    """The compiled kernel, or why there is none."""
    lib = build("tuning")
    if isinstance(lib, str):
        return lib
    if lib.brolly_tune_norm.argtypes is None:
        kinds = {"p": c_void_p, "f": c_float, "i": c_int64}
        for name, letters in ARGUMENTS.items():
            if function := getattr(lib, f"brolly_tune_{name}", None):
                function.argtypes, function.restype = [*(kinds[letter] for letter in letters), c_int64], None
        lib.brolly_tune_lanes.restype = lib.brolly_tune_attends.restype = c_int64
        if lib.brolly_tune_attends():
            lib.brolly_tune_room.argtypes, lib.brolly_tune_room.restype = [c_int64, c_int64], c_int64
        lib.brolly_tune_team.argtypes = [c_void_p]
        lib.brolly_tune_team(ctypes.cast(getattr(ctypes.CDLL(None), "GOMP_parallel", None), c_void_p))
    return lib


def serves(x: Tensor, width: int) -> ctypes.CDLL | None:
    """The kernel, where it takes rows like x's that are worked on in pieces of `width`."""
    if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.bfloat16) or isinstance(lib := library(), str):
        return None
    return lib if width % lib.brolly_tune_lanes() == 0 else None


def _ends(x: Tensor) -> tuple[int, int]:
    """What every function is told last: whether the rows are bfloat16, and how many threads work."""
    return int(x.dtype == torch.bfloat16), torch.get_num_threads()


def _at(x: Tensor | None) -> int | None:
    assert x is None or x.is_contiguous()
    return None if x is None else x.data_ptr()


def norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMSNorm (Zhang and Sennrich 2019) of rows (N, C)."""
    lib = serves(x, x.shape[-1])
    if lib is None:
        wide = x.float()
        return (wide * (wide.square().mean(-1, keepdim=True) + eps).rsqrt() * weight.float()).to(x.dtype)
    y = torch.empty_like(x)
    lib.brolly_tune_norm(_at(x), _at(weight), _at(y), x.numel() // x.shape[-1], x.shape[-1], eps, *_ends(x))
    return y


def norm_back(
    dy: Tensor, x: Tensor, weight: Tensor, eps: float, skip: Tensor | None, again: bool
) -> tuple[Tensor, Tensor]:
    """The gradient of x (N, C), added to `skip`, and y once more if it is asked for (else nothing of note)."""
    lib, n = serves(x, x.shape[-1]), x.shape[-1]
    if lib is None:
        wide, slope = x.float(), dy.float() * weight.float()
        r = (wide.square().mean(-1, keepdim=True) + eps).rsqrt()
        dx = slope * r - wide * r**3 * (slope * wide).mean(-1, keepdim=True)
        return (dx if skip is None else skip.float() + dx).to(x.dtype), (wide * r * weight.float()).to(x.dtype)
    dx, y = torch.empty_like(x), torch.empty_like(x) if again else None
    lib.brolly_tune_norm_back(
        _at(dy), _at(x), _at(weight), _at(skip), _at(dx), _at(y), x.numel() // n, n, eps, *_ends(x)
    )  # fmt: skip
    return dx, dx if y is None else y


def turn(x: Tensor, cosine: Tensor, sine: Tensor, back: bool = False) -> Tensor:
    """Rotates the heads of x (N, H, D), in place, by each token's angles (N, D / 2), or back; returns x."""
    n, heads, dim = x.shape
    if lib := serves(x, dim // 2):
        lib.brolly_tune_turn(_at(x), _at(cosine), _at(sine), n, heads, dim, -1.0 if back else 1.0, *_ends(x))
        return x
    a, b = x.float().chunk(2, dim=-1)
    c, s = cosine[:, None].float(), sine[:, None].float() * (-1 if back else 1)
    return x.copy_(torch.cat((a * c - b * s, b * c + a * s), dim=-1))


def gate(g: Tensor, up: Tensor) -> Tensor:
    """silu(g) · up of rows (N, F)."""
    lib = serves(g, g.shape[-1])
    if lib is None:
        return (F.silu(g.float()) * up.float()).to(g.dtype)
    y = torch.empty_like(g)
    lib.brolly_tune_gate(_at(g), _at(up), None, _at(y), None, None, *g.shape, *_ends(g))
    return y


def gate_back(dy: Tensor, g: Tensor, up: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of g and up, and silu(g) · up once more, which takes dy's place."""
    lib = serves(g, g.shape[-1])
    if lib is None:
        wide, high, slope = g.float(), up.float(), dy.float()
        s = wide.sigmoid()
        dg, du = slope * high * s * (1 + wide * (1 - s)), slope * wide * s
        return dg.to(g.dtype), du.to(g.dtype), dy.copy_(wide * s * high)
    dg, du = torch.empty_like(g), torch.empty_like(g)
    lib.brolly_tune_gate(_at(g), _at(up), _at(dy), _at(dy), _at(dg), _at(du), *g.shape, *_ends(g))
    return dg, du, dy


def entropy(logits: Tensor, targets: Tensor, gradient: bool) -> Tensor:
    """-log p(target) of rows of logits (N, V), as (N,) float32; with `gradient` the logits become its gradient."""
    if lib := serves(logits, 0):
        assert targets.dtype == torch.int64 and len(targets) == len(logits)
        assert not len(targets) or 0 <= int(targets.min()) <= int(targets.max()) < logits.shape[1], (
            "a target is no token"
        )
        losses = torch.empty(len(logits), dtype=torch.float32)
        lib.brolly_tune_entropy(_at(logits), _at(targets), _at(losses), *logits.shape, int(gradient), *_ends(logits))
        return losses
    shares = logits.float().log_softmax(-1)
    losses = -shares.gather(-1, targets[:, None])[:, 0]
    if gradient:
        shares.exp_()
        shares[torch.arange(len(targets), device=targets.device), targets] -= 1
        logits.copy_(shares)
    return losses


def by_columns(weight: Tensor, n_rows: int) -> Tensor:
    """The same matrix, laid down column by column where that makes `x @ weight` faster for so many rows.

    Large ones are read a tenth faster so by AVX-512's products, the turning counted. Tiles have not been measured.
    """
    lib = serves(weight, 0)
    fits = weight.dtype == torch.bfloat16 and weight.is_contiguous() and not any(n % 32 for n in weight.shape)
    if lib is None or not fits or n_rows < MANY or weight.numel() < LARGE or lib.brolly_tune_attends() != 2:
        return weight
    out = weight.new_empty(weight.shape[::-1])
    lib.brolly_tune_flip(_at(weight), _at(out), *weight.shape, torch.get_num_threads())
    return out.t()


class Stretches(NamedTuple):
    """How long each sequence of a row of tokens is, and how far a query looks back (None: to its start)."""

    lengths: Sequence[int]
    window: int | None


def attends(q: Tensor) -> bool:
    """Whether the kernel takes heads like these, (N, H, D)."""
    lib = serves(q, 0)
    fits = q.dtype == torch.bfloat16 and q.shape[-1] % 16 == 0 and q.shape[-1] <= 256
    return lib is not None and fits and bool(lib.brolly_tune_attends())


def attend(q: Tensor, k: Tensor, v: Tensor, where: Stretches) -> tuple[Tensor, Tensor]:
    """Causal attention of q (N, H, D) over k, v (N, KV, D): (N, H, D), and the sums that `attend_back` wants."""
    o, sums = torch.empty_like(q), torch.empty(q.shape[1], q.shape[0], dtype=torch.float32)
    _attend(q, k, v, where, o, sums, None, None, None, None)
    return o, sums


def attend_back(
    d_out: Tensor, q: Tensor, k: Tensor, v: Tensor, o: Tensor, sums: Tensor, where: Stretches
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of q, k and v."""
    dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    _attend(q, k, v, where, o, sums, d_out, dq, dk, dv)
    return dq, dk, dv


def _attend(q: Tensor, k: Tensor, v: Tensor, where: Stretches, o: Tensor, sums: Tensor, *back: Tensor | None) -> None:
    lib, lengths = build("tuning"), [n for n in where.lengths if n]
    assert isinstance(lib, ctypes.CDLL) and sum(lengths) == len(q) == len(k) == len(v)
    if not lengths:
        return
    starts = [0, *accumulate(lengths[:-1])]
    array, longest, n = c_int64 * len(lengths), max(lengths), torch.get_num_threads()
    space = torch.empty(lib.brolly_tune_room(longest, q.shape[2]) * n + 64, dtype=torch.uint8)
    lib.brolly_tune_attend(
        *map(_at, (q, k, v, o, sums, *back)), array(*starts), array(*lengths), len(lengths), len(q), longest,
        q.shape[1], k.shape[1], q.shape[2], where.window or 0, (space.data_ptr() + 63) // 64 * 64, n,
    )  # fmt: skip
