"""Cross-entropy a token, a stretch of tokens at a time: never all logits at once. N tokens, C dim, V vocabulary."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from brolly.kernels.tuning import entropy

IGNORED = -100  # a target that is not trained on
N_LOGITS, MOST = 2**24, 256  # of a stretch, and its tokens: few beside a network, enough for a product's full speed


def token_losses(hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
    """-log p(target) of hidden states (N, C) under a head (V, C): (N,) float32, 0 where the target is IGNORED.

    Ignored rows are not computed. A row's gradient is found with its loss, while its logits are there; only the
    head's own, where it trains, computes them again.
    """
    kind = hidden.device.type
    if torch.is_autocast_enabled(kind):
        hidden, head = (t.to(torch.get_autocast_dtype(kind)) for t in (hidden, head))
    return _Losses.apply(hidden, head, targets)


class _Losses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
        where = (targets != IGNORED).nonzero()[:, 0]
        losses = hidden.new_zeros(len(targets), dtype=torch.float32)
        slopes = hidden.new_empty(len(where) if ctx.needs_input_grad[0] else 0, hidden.shape[1])
        at = 0
        for rows in where.split(_size(head)):
            logits = F.linear(hidden[rows], head)
            losses[rows] = entropy(logits, targets[rows], gradient=ctx.needs_input_grad[0])
            if ctx.needs_input_grad[0]:
                torch.mm(logits, head, out=slopes[at : at + len(rows)])
            at += len(rows)
        ctx.save_for_backward(slopes, where, targets, *((hidden, head) if ctx.needs_input_grad[1] else ()))
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weights: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """weights: (N,), how much each loss counts."""
        slopes, where, targets, *trained = ctx.saved_tensors
        d_hidden = d_head = None
        if ctx.needs_input_grad[0]:
            d_hidden = slopes.new_zeros(len(targets), slopes.shape[1])
            d_hidden[where] = (slopes * weights[where, None]).to(slopes.dtype)
        if ctx.needs_input_grad[1]:
            hidden, head = trained
            total = torch.zeros_like(head, dtype=torch.float32)
            for rows in where.split(_size(head)):
                logits = F.linear(hidden[rows], head)
                entropy(logits, targets[rows], gradient=True)
                total += logits.t() @ (hidden[rows] * weights[rows, None]).to(head.dtype)
            d_head = total.to(head.dtype)
        return d_hidden, d_head, None


def _size(head: Tensor) -> int:
    """Tokens whose logits are in memory together."""
    return min(max(N_LOGITS // len(head), 16), MOST)
