"""Many sequences in one row of tokens, none of which sees another: a Cache for training.

H heads, KV key-value heads, N tokens of all sequences, D head_dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from brolly.engine.cache import Shape, visible
from brolly.kernels import tuning
from brolly.kernels.tuning import Stretches


class Packed:
    """Causal attention within each of some stretches of a row; `lengths` add up to its tokens."""

    def __init__(self, config: Shape, lengths: Sequence[int]) -> None:
        self.windows, self.lengths = config.windows, list(lengths)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q (1, H, N, D), k and v (1, KV, N, D) → (1, H, N, D)."""
        kind = q.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else q.dtype
        rows = (t[0].transpose(0, 1).to(dtype) for t in (q, k, v))
        return Attention.apply(*rows, Stretches(self.lengths, self.windows[layer])).transpose(0, 1)[None]


class Attention(torch.autograd.Function):
    """Causal attention of q (N, H, D) over k, v (N, KV, D) within stretches: (N, H, D)."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, where: Stretches) -> Tensor:
        q, k, v = (t.contiguous() for t in (q, k, v))
        out, sums = attend(q, k, v, where)
        ctx.where = where
        ctx.save_for_backward(q, k, v, out, sums)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, out, sums = ctx.saved_tensors
        return *attend_back(d_out.contiguous(), q, k, v, out, sums, ctx.where), None


def attend(q: Tensor, k: Tensor, v: Tensor, where: Stretches) -> tuple[Tensor, Tensor | None]:
    """Causal attention of q (N, H, D) over k, v (N, KV, D): (N, H, D), and the kernel's sums where it computed it."""
    if tuning.attends(q):
        return tuning.attend(q, k, v, where)
    return _by_torch(q, k, v, where), None


def attend_back(
    d_out: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, sums: Tensor | None, where: Stretches
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of q, k and v. Without the kernel attention is computed again: torch keeps more than it tells."""
    if sums is not None:
        return tuning.attend_back(d_out, q, k, v, out, sums, where)
    with torch.enable_grad():
        q, k, v = (t.detach().requires_grad_() for t in (q, k, v))
        dq, dk, dv = torch.autograd.grad(_by_torch(q, k, v, where), (q, k, v), d_out)
    return dq, dk, dv


def _by_torch(q: Tensor, k: Tensor, v: Tensor, where: Stretches) -> Tensor:
    parts, gqa = [], q.shape[1] != k.shape[1]
    for rows in zip(*(t.split(list(where.lengths)) for t in (q, k, v)), strict=True):
        (a, b, c), length = (t.transpose(0, 1)[None] for t in rows), len(rows[0])  # (1, H, T, D)
        if where.window is None or where.window >= length:
            found = F.scaled_dot_product_attention(a, b, c, is_causal=True, enable_gqa=gqa)
        else:
            mask = visible(torch.arange(length, device=q.device)[None], length, where.window)
            found = F.scaled_dot_product_attention(a, b, c, attn_mask=mask, enable_gqa=gqa)
        parts.append(found[0].transpose(0, 1))
    return torch.cat(parts).contiguous()


def positions(lengths: Sequence[int], device: torch.device | None = None) -> Tensor:
    """Each token's place in its own sequence: (1, N)."""
    return torch.cat([torch.arange(n, device=device) for n in lengths])[None]
