"""Tokens to the vectors of their texts, and the linear layers behind them, as sentence-transformers lays them out.

N tokens of all texts one behind the other, B texts, C the encoder's dim, E the vectors'.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from brolly.configs import PoolConfig
from brolly.layers.linear import Linear
from brolly.layers.transformer import ACTS, Spans


def _weighted(x: Tensor) -> Tensor:
    """Later tokens weigh more, by their place (Muennighoff 2022)."""
    places = torch.arange(1, x.shape[1] + 1, device=x.device, dtype=x.dtype)
    return (x * (places / places.sum())[:, None]).sum(1)


MODES: dict[str, Callable[[Tensor], Tensor]] = {
    "cls": lambda x: x[:, 0],
    "max": lambda x: x.amax(1),
    "mean": lambda x: x.mean(1),
    "mean_sqrt_len_tokens": lambda x: x.sum(1) / x.shape[1] ** 0.5,
    "weightedmean": _weighted,
    "lasttoken": lambda x: x[:, -1],
}  # (B, n, C) → (B, C)
DENSE_ACTS = {**ACTS, "identity": lambda x: x, "tanh": torch.tanh, "sigmoid": torch.sigmoid}


def pooled(x: Tensor, spans: Spans, modes: tuple[str, ...]) -> Tensor:
    """One vector a text: (N, C) → (B, C), or several of them side by side."""
    parts = []
    for first, count, n in spans.runs:
        batch = x[first : first + count * n].unflatten(0, (count, n)).float()
        parts.append(torch.cat([MODES[mode](batch) for mode in modes], dim=-1))
    return torch.cat(parts).to(x.dtype)


class Pool(nn.Module):
    """(N, C) → (B, E); without a mode every token keeps its own vector: B pieces of (n, E)."""

    def __init__(self, config: PoolConfig) -> None:
        super().__init__()
        self.config = config
        self.dense = nn.ModuleList(Linear(d.in_dim, d.out_dim, bias=d.bias) for d in config.dense)

    def forward(self, x: Tensor, spans: Spans) -> Tensor | tuple[Tensor, ...]:
        if self.config.modes:
            x = pooled(x, spans, self.config.modes)
        for layer, dense in zip(self.dense, self.config.dense, strict=True):
            x = DENSE_ACTS[dense.act](layer(x))
        return x if self.config.modes else x.split(spans.lengths)
