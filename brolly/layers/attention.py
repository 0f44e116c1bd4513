"""What a network asks of a key-value cache, and the two heads-first reshapes around it."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Cache(Protocol):
    """Remembers keys and values; the network knows neither blocks nor requests."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Store k, v (B, KV, T, D) for `layer` and return causal attention of q (B, H, T, D) over all so far."""
        ...


def split_heads(x: Tensor, n_heads: int) -> Tensor:
    """(B, T, H * D) to (B, H, T, D)."""
    return x.unflatten(-1, (n_heads, -1)).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """(B, H, T, D) to (B, T, H * D)."""
    return x.transpose(1, 2).flatten(2)
