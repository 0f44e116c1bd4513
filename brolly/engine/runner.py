"""Runs a causal network: tokens in, logits of the last one out. Knows no text and no sampling."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from brolly.engine.cache import DenseCache
from brolly.engine.fuse import fuse
from brolly.engine.settle import Settler, Settling
from brolly.kernels.decoder import Decoder
from brolly.layers.attention import Cache

BLOCK = 512  # tokens of a prompt that pass through the fused kernel together


class CausalLM(Protocol):
    """What language tasks need of a network (and its `config`, a cache's Shape plus `context` and `vocab_size`)."""

    def __call__(self, ids: Tensor, positions: Tensor, cache: Cache) -> Tensor: ...

    def logits(self, hidden: Tensor) -> Tensor: ...


class Runner:
    """One network and the fastest way to step it that this machine has."""

    def __init__(self, network: torch.nn.Module, release: Callable[[str], None] | None = None) -> None:
        """`release(name)` gives back what a parameter was read from, once it stands elsewhere."""
        self.network: Any = network
        weight = next(network.parameters())
        self.device, self.dtype = weight.device, weight.dtype
        self.settling = Settling(network, release)

    @property
    def settler(self) -> Settler | None:
        """What moves the weights, once it has begun."""
        return self.settling.settler

    @cached_property
    def fused(self) -> Decoder | str:
        """The kernel for this network, or why there is none; made when first needed."""
        try:
            return self.settling.add(fuse)
        except ValueError as error:
            return str(error)

    def new_cache(self, batch: int = 1, capacity: int = 256) -> DenseCache:
        capacity = (capacity + 31) // 32 * 32
        return DenseCache(self.network.config, batch, capacity, self.dtype, self.device)

    @torch.inference_mode()
    def forward(self, ids: Tensor, positions: Tensor, cache: DenseCache) -> Tensor:
        """Logits (B, V) float32 after the last of ids (B, T), standing at positions (B, T)."""
        cache.begin(positions)
        fused = self.fused
        if isinstance(fused, Decoder) and len(ids) == 1 and (ids.shape[1] == 1 or fused.takes_blocks):
            return self._step(fused, ids[0], int(positions[0, 0]), cache)[None]
        hidden = self.network(ids, positions, cache)
        return self.network.logits(hidden[:, -1]).float()

    def _step(self, fused: Decoder, ids: Tensor, position: int, cache: DenseCache) -> Tensor:
        if len(ids) == 1:
            self.settling.begin()  # with the first step
            return fused.step(int(ids[0]), position, cache.keys, cache.values)
        for start in range(0, len(ids), BLOCK):
            logits = fused.block(ids[start : start + BLOCK], position + start, cache.keys, cache.values)
        return logits

    def describe(self) -> str:
        """Which path steps take here, in a few words."""
        fused = self.fused
        if isinstance(fused, str):
            path = f"torch ({fused})"
        else:
            path = "fused C for prompts and steps" if fused.takes_blocks else "fused C for steps, torch for prompts"
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{path}, {torch.get_num_threads()} threads, {dtype} on {self.device}"
