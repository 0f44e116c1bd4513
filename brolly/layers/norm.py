"""Norms that are born unfilled, as brolly.layers.linear's layers are."""

from __future__ import annotations

from torch import nn


class RMSNorm(nn.RMSNorm):
    """x / rms(x) * weight (Zhang and Sennrich 2019)."""

    def reset_parameters(self) -> None:
        """Leave the memory as it is."""


class LayerNorm(nn.LayerNorm):
    """(x - mean) / deviation * weight + bias (Ba et al. 2016)."""

    def reset_parameters(self) -> None:
        """Leave the memory as it is."""
