"""Where attention finds its past: `Causal` keeps nothing (training, scoring), `DenseCache` one stretch a sequence.

B batch, H heads, KV key-value heads, T new tokens, S tokens so far, D head_dim. Masks are True where a query may look.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Shape(Protocol):
    """What a cache needs of a config."""

    @property
    def n_layers(self) -> int: ...
    @property
    def n_kv_heads(self) -> int: ...
    @property
    def head_dim(self) -> int: ...
    @property
    def windows(self) -> tuple[int | None, ...]: ...


def visible(queries: Tensor, n_keys: int, window: int | None) -> Tensor:
    """Which of the keys 0 … n_keys each query position (B, T) may see: (B, 1, T, n_keys)."""
    keys = torch.arange(n_keys, device=queries.device)
    mask = keys <= queries[:, None, :, None]
    return mask if window is None else mask & (keys > queries[:, None, :, None] - window)


class Causal:
    """Attention over the tokens given in one call, with no memory of others."""

    def __init__(self, config: Shape) -> None:
        self.windows = config.windows

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        window, length, gqa = self.windows[layer], q.shape[2], q.shape[1] != k.shape[1]
        if window is None or window >= length:
            return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=gqa)
        mask = visible(torch.arange(length, device=q.device)[None], length, window)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=gqa)


class DenseCache:
    """Keys and values of B sequences side by side; a token's place is its position.

    Call `begin(positions)` before each forward pass. Rows may differ in length: pad them on the right, and what a pad
    token left behind is overwritten by the real token of that position before any query can see it.
    Memory doubles when it is full, so that a long answer copies each key a constant number of times.
    """

    def __init__(self, config: Shape, batch: int, capacity: int, dtype: torch.dtype, device: torch.device) -> None:
        self.windows = config.windows
        shape = (config.n_layers, batch, config.n_kv_heads, capacity, config.head_dim)
        # A row shorter than its neighbours has places that nobody wrote: masked, but 0 * NaN would still be NaN.
        make = torch.empty if batch == 1 else torch.zeros
        self.keys = make(shape, dtype=dtype, device=device)
        self.values = make(shape, dtype=dtype, device=device)
        self.length = 0
        self._positions: Tensor | None = None
        self._start: int | None = None
        self._masks: dict[int | None, Tensor | None] = {}

    @property
    def capacity(self) -> int:
        return self.keys.shape[3]

    def begin(self, positions: Tensor) -> None:
        """Say where the next tokens stand: (B, T), each row rising by one."""
        first = int(positions[:, 0].min())
        same = positions.shape[0] == 1 or bool((positions[:, 0] == first).all())
        self._positions, self._start = positions, first if same else None
        self.length = max(self.length, int(positions[:, -1].max()) + 1)
        self._masks = {}
        while self.capacity < self.length:
            self._grow()

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        assert self._positions is not None, "begin() comes first"
        keys, values, n_new = self.keys[layer], self.values[layer], k.shape[2]
        if self._start is not None:
            end = self._start + n_new
            keys[:, :, self._start : end] = k
            values[:, :, self._start : end] = v
        else:
            end = self.length
            rows = torch.arange(k.shape[0], device=k.device)[:, None]
            keys[rows, :, self._positions] = k.transpose(1, 2)
            values[rows, :, self._positions] = v.transpose(1, 2)
        gqa = q.shape[1] != k.shape[1]
        window = self.windows[layer]
        if self._start == 0 and (window is None or window >= n_new):
            return F.scaled_dot_product_attention(q, k, v, is_causal=n_new > 1, enable_gqa=gqa)
        mask = self._mask(window, n_new, end)
        return F.scaled_dot_product_attention(q, keys[:, :, :end], values[:, :, :end], attn_mask=mask, enable_gqa=gqa)

    def _mask(self, window: int | None, n_new: int, end: int) -> Tensor | None:
        if window not in self._masks:
            alone = n_new == 1 and self._start is not None and (window is None or window >= end)
            assert self._positions is not None
            self._masks[window] = None if alone else visible(self._positions, end, window)
        return self._masks[window]

    def _grow(self) -> None:
        for name in ("keys", "values"):
            old: Tensor = getattr(self, name)
            make = old.new_empty if old.shape[1] == 1 else old.new_zeros
            new = make((*old.shape[:3], 2 * old.shape[3], old.shape[4]))
            new[:, :, :, : old.shape[3]] = old
            setattr(self, name, new)
