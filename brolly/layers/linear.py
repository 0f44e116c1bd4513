"""Linear, convolution and embedding layers that are born unfilled: a checkpoint fills them, or `train` draws them.

torch's own draw their weights at once, which on the meta device imports 1.5 s of Python for numbers nobody reads.
"""

from __future__ import annotations

from torch import nn


class Linear(nn.Linear):
    """x Wᵀ + b."""

    def reset_parameters(self) -> None:
        """Leave the memory as it is."""


class Conv1d(nn.Conv1d):
    """A row of products along the last dimension."""

    def reset_parameters(self) -> None:
        """Leave the memory as it is."""


class Embedding(nn.Embedding):
    """A row per id."""

    def reset_parameters(self) -> None:
        """Leave the memory as it is."""
