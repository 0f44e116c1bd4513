"""Small steps take one thread, and what was set before comes back."""

from __future__ import annotations

import torch
from torch import nn

from brolly.train.tuning.threads import threads_for


def test_small_products_take_one_thread_and_large_ones_all() -> None:
    network, before = nn.Sequential(nn.Linear(256, 256), nn.Linear(256, 256)), torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with threads_for(network, 64) as n:
            assert n == torch.get_num_threads() == 1
        assert torch.get_num_threads() == 3
        with threads_for(network, 4096) as n:
            assert n == torch.get_num_threads() == 3
        with threads_for(nn.Embedding(4, 4), 1) as n:
            assert n == 3
    finally:
        torch.set_num_threads(before)
