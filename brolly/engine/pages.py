"""SKELETON (owner: pages). Keys and values in blocks, and one pass of a causal network over stretches of many sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

BLOCK = 32  # tokens a block


class Stretch(NamedTuple):
    """Some next tokens of one sequence: one of a running answer, many of a prompt."""

    tokens: Sequence[int]
    start: int  # the first one's position
    blocks: Sequence[int]  # the sequence's blocks, in order; enough for the last of `tokens`
    logits: bool = True  # whether what follows the last one is wanted
    adapter: Any = None  # engine.adapters.Adapter, or None for the network alone


class Pages:
    """A network's key-value memory of `n_blocks` blocks, and the fastest way to pass a batch through it here."""

    def __init__(self, network: nn.Module, n_blocks: int) -> None:
        raise NotImplementedError

    @staticmethod
    def block_bytes(network: nn.Module) -> int:
        """Bytes that one block takes, of all layers."""
        raise NotImplementedError

    def forward(self, stretches: Sequence[Stretch]) -> Tensor:
        """Logits (n, V) float32, a row for each stretch that wants some, in order."""
        raise NotImplementedError

    def copy(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy whole blocks, (from, to): before one that several share is written to."""
        raise NotImplementedError
