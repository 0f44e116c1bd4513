"""Keys and values in blocks, and one pass of a causal network over stretches of many sequences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from brolly.engine.adapters import Adapter, applied, logits_of
from brolly.engine.cache import BLOCK, PagedCache, Row
from brolly.engine.fuse import batched
from brolly.engine.settle import HUGE, Settling, huge
from brolly.kernels.batch import Batch

__all__ = ["BLOCK", "Pages", "Stretch"]


class Stretch(NamedTuple):
    """Some next tokens of one sequence: one of a running answer, many of a prompt.

    `blocks` are the sequence's, in order, enough for the last of `tokens`; -1 was freed behind every window.
    An array("i") is read where it lies.
    """

    tokens: Sequence[int]
    start: int  # the first one's position
    blocks: Sequence[int]
    logits: bool = True  # whether what follows the last one is wanted
    adapter: Adapter | None = None  # None: the network alone


class Pages:
    """A network's key-value memory of `n_blocks` blocks, and the fastest way to pass a batch through it here.

    `likeliest` holds, for each row of the last logits, the first token of the largest: greedy rows need no more.
    By the kernel (`describe` tells) a token's logits are the same bits alone and in any batch, however its prompt was
    cut; by torch they are about equal.
    """

    def __init__(self, network: nn.Module, n_blocks: int, settling: Settling | None = None) -> None:
        """`settling` is a Runner's of the same network, so that the weights move once for both."""
        self.network: Any = network
        config: Any = self.network.config
        weight = next(network.parameters())
        self.device, self.dtype, self.n_blocks = weight.device, weight.dtype, n_blocks
        shape = (config.n_layers, config.n_kv_heads, n_blocks)
        self.keys = zeros((*shape, BLOCK, config.head_dim), self.dtype, self.device)
        self.values = zeros((*shape, config.head_dim, BLOCK), self.dtype, self.device)
        self.cache = PagedCache(config, self.keys, self.values)
        self.likeliest: list[int] = []
        self._settling = settling or Settling(network)
        self.fused: Batch | str
        try:
            self.fused = self._settling.add(batched)
        except ValueError as error:
            self.fused = str(error)
        # Such a network looks at the length of what it is given, so each sequence passes alone.
        self._alone = getattr(getattr(config, "rope", None), "kind", "") == "dynamic"

    @staticmethod
    def block_bytes(network: nn.Module) -> int:
        """Bytes that one block takes, of all layers."""
        config: Any = network.config
        weight = next(network.parameters())
        return 2 * config.n_layers * config.n_kv_heads * config.head_dim * BLOCK * weight.element_size()

    @torch.inference_mode()
    def forward(self, stretches: Sequence[Stretch]) -> Tensor:
        """Logits (n, V) float32, a row for each stretch that wants some, in order."""
        if isinstance(self.fused, Batch):
            if all(s.adapter is None for s in stretches):
                return self._by_kernel(self.fused, stretches)
            if any(s.adapter is None for s in stretches):
                return self._apart(stretches)
        groups = [[stretch] for stretch in stretches] if self._alone else [stretches]
        logits = torch.cat([self._by_torch(group) for group in groups])
        self.likeliest = logits.argmax(-1).tolist()
        return logits

    def copy(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy whole blocks, (from, to): before one that several share is written to."""
        if pairs:
            old, new = torch.tensor(pairs, device=self.device).T
            for memory in (self.keys, self.values):
                memory[:, :, new] = memory[:, :, old]

    def describe(self) -> str:
        """Which path batches take here, in a few words."""
        path = f"torch ({self.fused})" if isinstance(self.fused, str) else "fused C for batches (adapters: torch)"
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{path}, {torch.get_num_threads()} threads, {dtype} on {self.device}"

    def _by_kernel(self, fused: Batch, stretches: Sequence[Stretch]) -> Tensor:
        if any(len(s.tokens) == 1 for s in stretches):
            self._settling.begin()
        logits, self.likeliest = fused(stretches, self.keys, self.values)
        return logits

    def _apart(self, stretches: Sequence[Stretch]) -> Tensor:
        """Those with an adapter by torch, the others by the kernel, whose numbers owe nothing to their neighbours."""
        wanted = [s for s in stretches if s.logits]
        found: list[Tensor | None] = [None] * len(wanted)
        likeliest = [0] * len(wanted)
        for plain in (True, False):
            logits = self.forward([s for s in stretches if (s.adapter is None) is plain])
            places = [i for i, s in enumerate(wanted) if (s.adapter is None) is plain]
            for i, row, token in zip(places, logits, self.likeliest, strict=True):
                found[i], likeliest[i] = row, token
        self.likeliest = likeliest
        return torch.stack([row for row in found if row is not None]) if found else logits

    def _by_torch(self, given: Sequence[Stretch]) -> Tensor:
        order = sorted(range(len(given)), key=lambda i: id(given[i].adapter))  # an adapter's tokens in one stretch
        stretches = [given[i] for i in order]
        self.cache.begin([Row(s.start, len(s.tokens), s.blocks) for s in stretches])
        ids = torch.tensor([[token for s in stretches for token in s.tokens]], device=self.device)
        places = [place for s in stretches for place in range(s.start, s.start + len(s.tokens))]
        parts, ends, end = [], {}, 0
        for adapter, group in groupby(zip(order, stretches, strict=True), key=lambda pair: pair[1].adapter):
            start = end
            for i, s in group:
                end += len(s.tokens)
                ends[i] = end - 1
            if adapter is not None:
                parts.append((adapter, slice(start, end)))
        with applied(parts):
            hidden = self.network(ids, torch.tensor([places], device=self.device), self.cache)[0]
        wanted = [i for i, s in enumerate(given) if s.logits]
        return logits_of(self.network, hidden[[ends[i] for i in wanted]], [given[i].adapter for i in wanted])


def zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros that take memory only where they are written to, on a CPU where the system does so."""
    n_bytes = math.prod(shape) * dtype.itemsize
    if device.type == "cpu" and HUGE is not None and n_bytes:
        return huge(n_bytes).view(dtype).view(shape)
    return torch.zeros(shape, dtype=dtype, device=device)
