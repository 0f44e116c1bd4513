"""Runs a causal network: tokens in, logits of the last one out. Knows no text and no sampling."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from brolly.engine.cache import DenseCache
from brolly.layers.attention import Cache


class CausalLM(Protocol):
    """What language tasks need of a network (and its `config`, a cache's Shape plus `context` and `vocab_size`)."""

    def __call__(self, ids: Tensor, positions: Tensor, cache: Cache) -> Tensor: ...

    def logits(self, hidden: Tensor) -> Tensor: ...


class Runner:
    """One network and the fastest way to step it that this machine has."""

    def __init__(self, network: torch.nn.Module) -> None:
        self.network = network
        weight = next(network.parameters())
        self.device, self.dtype = weight.device, weight.dtype

    def new_cache(self, batch: int = 1, capacity: int = 256) -> DenseCache:
        return DenseCache(self.network.config, batch, capacity, self.dtype, self.device)

    @torch.inference_mode()
    def forward(self, ids: Tensor, positions: Tensor, cache: DenseCache) -> Tensor:
        """Logits (B, V) float32 after the last of ids (B, T), standing at positions (B, T)."""
        cache.begin(positions)
        hidden = self.network(ids, positions, cache)
        return self.network.logits(hidden[:, -1]).float()

    def describe(self) -> str:
        """Which path steps take here, in a few words."""
        return f"torch, {torch.get_num_threads()} threads, {str(self.dtype).removeprefix('torch.')} on {self.device}"
