"""Cross-entropy a token, a stretch of tokens at a time: never all logits at once. N tokens, C dim, V vocabulary."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

IGNORED = -100  # a target that is not trained on
STRETCH = 512  # tokens whose logits are in memory together


def token_losses(hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
    """-log p(target) of hidden states (N, C) under a head (V, C): (N,) float32, 0 where the target is IGNORED."""
    out = hidden.new_zeros(len(targets), dtype=torch.float32)
    where = (targets != IGNORED).nonzero()[:, 0]
    parts = [_losses(hidden[part], head, targets[part]) for part in where.split(STRETCH)]
    return out.index_copy(0, where, torch.cat(parts)) if parts else out + 0 * hidden.sum()


def _losses(hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
    def compute(hidden: Tensor, head: Tensor) -> Tensor:
        return F.cross_entropy(F.linear(hidden, head).float(), targets, reduction="none")

    return checkpoint(compute, hidden, head, use_reentrant=False) if torch.is_grad_enabled() else compute(hidden, head)
