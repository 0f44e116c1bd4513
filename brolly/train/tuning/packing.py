"""Many sequences in one row of tokens, none of which sees another: a Cache for training.

H heads, KV key-value heads, N tokens of all sequences, D head_dim.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from brolly.engine.cache import Shape, visible


class Packed:
    """Causal attention within each of some stretches of a row; `lengths` add up to its tokens."""

    def __init__(self, config: Shape, lengths: Sequence[int]) -> None:
        self.windows, self.lengths = config.windows, list(lengths)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q (1, H, N, D), k and v (1, KV, N, D) → (1, H, N, D)."""
        window, gqa, parts = self.windows[layer], q.shape[1] != k.shape[1], []
        for one in zip(*(t.split(self.lengths, dim=2) for t in (q, k, v)), strict=True):
            length = one[0].shape[2]
            if window is None or window >= length:
                parts.append(F.scaled_dot_product_attention(*one, is_causal=True, enable_gqa=gqa))
            else:
                mask = visible(torch.arange(length, device=q.device)[None], length, window)
                parts.append(F.scaled_dot_product_attention(*one, attn_mask=mask, enable_gqa=gqa))
        return torch.cat(parts, dim=2)


def positions(lengths: Sequence[int], device: torch.device | None = None) -> Tensor:
    """Each token's place in its own sequence: (1, N)."""
    return torch.cat([torch.arange(n, device=device) for n in lengths])[None]
