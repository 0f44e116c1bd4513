"""Where attention finds its past: `Causal` keeps nothing (training, scoring), `DenseCache` one stretch a sequence, and
`PagedCache` blocks that any number of sequences share out.

B batch, H heads, KV key-value heads, T new tokens, S tokens so far, D head_dim. Masks are True where a query may look.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 32  # tokens of a block of PagedCache


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


class Row(NamedTuple):
    """Where `length` next tokens of one sequence stand: from position `start`, in its `blocks`, in order."""

    start: int
    length: int
    blocks: Sequence[int]


class Past(NamedTuple):
    """What T tokens of R sequences look at in the layers of one window: `blocks` (R, n) through `mask` (R, 1, T, S)."""

    blocks: Tensor
    mask: Tensor


class PagedCache:
    """Keys and values in blocks of BLOCK tokens; sequences say which are theirs. A block may serve several.

    Call `begin(rows)` before each forward pass, whose tokens are all rows' one behind the other: (1, N). Blocks behind
    every window may be given as -1. Values are kept finite, an endless number as 0, for masked they still touch a sum;
    an endless key tells. So a broken sequence stays broken, and leaves nothing behind that could touch another.
    """

    def __init__(self, config: Shape, keys: Tensor, values: Tensor) -> None:
        """keys: (L, KV, blocks, BLOCK, D), values: (L, KV, blocks, D, BLOCK), finite."""
        self.windows, self.keys, self.values = config.windows, keys, values
        self._rows: list[tuple[slice, Row]] = []
        self._block = self._place = self._single = keys.new_empty(0, dtype=torch.long)
        self._pasts: dict[tuple[int, int | None], Past] = {}

    def begin(self, rows: Sequence[Row]) -> None:
        at, block, place, single = 0, [], [], []
        self._rows, self._pasts = [], {}
        for row in rows:
            if row.length == 1:
                single.append(at)
            self._rows.append((slice(at, at + row.length), row))
            for position in range(row.start, row.start + row.length):
                block.append(row.blocks[position // BLOCK])
                place.append(position % BLOCK)
            at += row.length
        assert min(block, default=0) >= 0, "a token has no block"
        self._block, self._place, self._single = (
            torch.tensor(numbers, dtype=torch.long, device=self.keys.device) for numbers in (block, place, single)
        )

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        keys, values, window = self.keys[layer], self.values[layer], self.windows[layer]
        keys[:, self._block, self._place] = k[0]
        # Indices apart from each other come first: (N, KV, D).
        values[:, self._block, :, self._place] = v[0].nan_to_num(0, 0, 0).transpose(0, 1)
        out = torch.empty_like(q)
        if len(self._single):
            past = self._past(-1, [row for _, row in self._rows if row.length == 1], window)
            found = self._look_one(layer, q[0, :, self._single].transpose(0, 1), past)
            out[0, :, self._single] = found.transpose(0, 1)
        for i, (where, row) in enumerate(self._rows):
            if row.length == 1:
                continue
            if row.start == 0 and (window is None or window >= row.length):
                q1, k1, v1 = q[:, :, where], k[:, :, where], v[:, :, where]
                gqa = q.shape[1] != k.shape[1]
                out[:, :, where] = F.scaled_dot_product_attention(q1, k1, v1, is_causal=True, enable_gqa=gqa)
            else:
                out[:, :, where] = self._look(layer, q[:, :, where], self._past(i, [row], window))
        return out

    def _past(self, key: int, rows: Sequence[Row], window: int | None) -> Past:
        """The blocks of rows of one length T, each padded to the longest; the same for all layers of a window."""
        if (key, window) not in self._pasts:
            device, length = self.keys.device, rows[0].length
            firsts = [0 if window is None else max(0, row.start + 1 - window) // BLOCK for row in rows]
            seen = [row.blocks[a : (row.start + length - 1) // BLOCK + 1] for row, a in zip(rows, firsts, strict=True)]
            longest = max(map(len, seen))
            table = torch.tensor([[*blocks, *[0] * (longest - len(blocks))] for blocks in seen], device=device)
            assert int(table.min()) >= 0, "a block in sight was freed"
            at = torch.tensor([[row.start - a * BLOCK] for row, a in zip(rows, firsts, strict=True)], device=device)
            queries = at + torch.arange(length, device=device)  # counted from each row's first block in sight
            keys = longest * BLOCK if length == 1 else int(queries.max()) + 1
            self._pasts[key, window] = Past(table, visible(queries, keys, window))
        return self._pasts[key, window]

    def _gather(self, layer: int, past: Past) -> tuple[Tensor, Tensor]:
        """Keys and values of each row, (R, KV, S, D)."""
        keys = self.keys[layer][:, past.blocks].transpose(0, 1).flatten(2, 3)
        return keys, self.values[layer][:, past.blocks].permute(1, 0, 2, 4, 3).flatten(2, 3)

    def _look_one(self, layer: int, q: Tensor, past: Past) -> Tensor:
        """q (R, H, D), a token of each row, over its blocks; behind its end lies what others left there."""
        keys, values = self._gather(layer, past)
        heads = q.unflatten(1, (keys.shape[1], -1)) * q.shape[-1] ** -0.5  # (R, KV, H / KV, D)
        scores = (heads @ keys.transpose(-1, -2)).masked_fill(~past.mask, -torch.inf)
        return (scores.softmax(-1) @ values).flatten(1, 2)

    def _look(self, layer: int, q: Tensor, past: Past) -> Tensor:
        """q (1, H, T, D), one row's tokens, over its blocks up to the last of them."""
        end = past.mask.shape[-1]
        keys, values = (t[:, :, :end] for t in self._gather(layer, past))
        gqa = q.shape[1] != keys.shape[1]
        return F.scaled_dot_product_attention(q, keys, values, attn_mask=past.mask, enable_gqa=gqa)
