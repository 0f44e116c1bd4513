"""Moves weights, while the first tokens are made, from the checkpoint's mapped pages to huge pages.

Mapped pages give the first token soonest. Huge ones (2 MiB instead of 4 KiB) are read up to twice as fast, for the
processor looks up far fewer addresses. Each tensor's mapped pages are given back as soon as it has moved.
"""

from __future__ import annotations

import mmap
import threading
from collections.abc import Callable
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from brolly.kernels.pages import available

LEAST = 32 * 2**20  # bytes: smaller networks stay in the processor's own memory
CHUNK = 2**26  # bytes copied before looking whether the program ends
HUGE = getattr(mmap, "MADV_HUGEPAGE", None)


class Reader(Protocol):
    """What computes with weights where they lie."""

    def move(self, old: Tensor, new: Tensor) -> None:
        """Read `new`, of the same numbers, where `old` was read."""
        ...


R = TypeVar("R", bound=Reader)


class Settling:
    """A network's weights and all who read them in place: they move once, whoever steps first, and all are told.

    `release(name)` gives back what a parameter was read from; without it nothing moves.
    """

    def __init__(self, network: nn.Module, release: Callable[[str], None] | None = None) -> None:
        self.network = network
        self.settler: Settler | None = None
        self._release, self._begun, self._lock = release, False, threading.Lock()
        self._readers: list[Reader] = []

    def add(self, make: Callable[[nn.Module], R]) -> R:
        """A reader of the network, made while no weight moves."""
        with self._lock:
            reader = make(self.network)
            self._readers.append(reader)
            return reader

    def begin(self) -> None:
        """Move the weights to faster memory, in the background; with the first step, and once."""
        with self._lock:
            if self._begun or self._release is None:
                return
            self._begun = True
        if pays(self.network):
            self.settler = Settler(self.network, self._swap)
            self.settler.start()

    def _swap(self, name: str, parameter: nn.Parameter, new: Tensor) -> None:
        with self._lock:
            old, parameter.data = parameter.data, new
            for reader in self._readers:
                reader.move(old, new)
        if self._release:
            self._release(name)


class Settler(threading.Thread):
    """One pass over a network's parameters; ends early, and harmlessly, with the program or by `stop`."""

    def __init__(self, network: nn.Module, swap: Callable[[str, nn.Parameter, Tensor], None]) -> None:
        super().__init__(name="brolly-settle")
        self.network, self.swap, self.stop = network, swap, False

    def run(self) -> None:
        parameters = list(self.network.named_parameters())
        memory, at = huge(sum(room(p) for _, p in parameters)), 0
        for name, parameter in parameters:
            old = parameter.data
            new = memory[at : at + old.nbytes].view(old.dtype).view(old.shape)
            at += room(old)
            source, target = old.view(-1).view(torch.uint8), new.view(-1).view(torch.uint8)
            for start in range(0, len(source), CHUNK):
                if self.stop or not threading.main_thread().is_alive():
                    return
                target[start : start + CHUNK] = source[start : start + CHUNK]
            self.swap(name, parameter, new)


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
