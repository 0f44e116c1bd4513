"""How many threads compute a step. Small products are over before a second thread has woken, and on busy machines
threads that wait for each other burn far more time than they save (measured: docs/tune.md)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

SMALL = 2**24  # multiply-adds of a product


def worth_one(network: nn.Module, n_tokens: float) -> bool:
    """Whether so many tokens' products with the network's layers are small, on average."""
    sizes = [m.in_features * m.out_features for m in network.modules() if isinstance(m, nn.Linear)]
    return bool(sizes) and n_tokens * sum(sizes) / len(sizes) < SMALL


@contextmanager
def threads_for(network: nn.Module, n_tokens: float) -> Iterator[int]:
    """As many threads as parts of so many tokens are worth: one, or those that were."""
    before = torch.get_num_threads()
    if worth_one(network, n_tokens):
        torch.set_num_threads(1)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
