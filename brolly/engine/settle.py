"""Moves weights, while the first tokens are made, from the checkpoint's mapped pages to huge pages.

Mapped pages give the first token soonest. Huge ones (2 MiB instead of 4 KiB) are read up to twice as fast, for the
processor looks up far fewer addresses. Each tensor's mapped pages are given back as soon as it has moved.
"""

from __future__ import annotations

import mmap
import threading
from collections.abc import Callable

import torch
from torch import Tensor, nn

from brolly.kernels.pages import available

LEAST = 32 * 2**20  # bytes: smaller networks stay in the processor's own memory
CHUNK = 2**26  # bytes copied before looking whether the program ends
HUGE = getattr(mmap, "MADV_HUGEPAGE", None)


class Settler(threading.Thread):
    """One pass over a network's parameters; ends early, and harmlessly, with the program."""

    def __init__(self, network: nn.Module, moved: Callable[[str, Tensor, Tensor], None]) -> None:
        super().__init__(name="brolly-settle")
        self.network, self.moved = network, moved

    def run(self) -> None:
        parameters = list(self.network.named_parameters())
        memory, at = huge(sum(room(p) for _, p in parameters)), 0
        for name, parameter in parameters:
            old = parameter.data
            new = memory[at : at + old.nbytes].view(old.dtype).view(old.shape)
            at += room(old)
            source, target = old.view(-1).view(torch.uint8), new.view(-1).view(torch.uint8)
            for start in range(0, len(source), CHUNK):
                if not threading.main_thread().is_alive():
                    return
                target[start : start + CHUNK] = source[start : start + CHUNK]
            parameter.data = new
            self.moved(name, old, new)


def pays(network: nn.Module) -> bool:
    """Whether moving makes steps faster, and memory holds it beside all else."""
    sizes = [p.nbytes for p in network.parameters()]
    whole = all(p.is_contiguous() for p in network.parameters())
    return HUGE is not None and whole and sum(sizes) > LEAST and available() > 1.1 * sum(sizes) + 2**29


def room(tensor: Tensor) -> int:
    """Bytes that a tensor takes where each begins on a cache line."""
    return (tensor.nbytes + 63) // 64 * 64


def huge(n_bytes: int) -> Tensor:
    """Untouched bytes in one stretch, on huge pages where the system grants them."""
    assert HUGE is not None
    memory = mmap.mmap(-1, max(n_bytes, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(HUGE)
    return torch.frombuffer(memory, dtype=torch.uint8)
