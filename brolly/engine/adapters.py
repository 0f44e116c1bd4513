"""LoRA (Hu et al. 2021) from outside a finished network: y += B A x, for those rows of a pass whose sequence has one.

A network knows nothing of it: each linear layer that some adapter changes gets a hook, once, which looks up what is
applied in its own thread just now. B batch, T tokens, C channels, r rank.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brolly.engine.cache import DenseCache
from brolly.engine.runner import Runner

FEW = 16  # tokens of an adapter up to which calls cost more than numbers, so that several adapters share them


class LowRank(NamedTuple):
    """What one linear layer gives instead: gain · W x + B A x, plus its bias; B holds all scales."""

    a: Tensor  # (r, C in)
    b: Tensor  # (r, C out): B transposed, so that those of several adapters join row by row
    gain: Tensor | None = None  # (C out): DoRA's magnitude over the length of each row of W + B A


class Rows(NamedTuple):
    """What some tokens' rows of an embedding or a head are instead."""

    ids: Tensor  # (n)
    rows: Tensor  # (n, C)
    place: Tensor  # (V): where a token stands among them, -1 if it does not


class Adapter:
    """What one LoRA adds to a network, by its modules' names."""

    def __init__(
        self, network: nn.Module, updates: Mapping[str, LowRank], folder: Path | None = None,
        rows: Mapping[str, Rows] | None = None,
    ) -> None:  # fmt: skip
        self.updates, self.folder, self.rows = dict(updates), folder, dict(rows or {})
        for name in self.updates:
            module = network.get_submodule(name)
            if not any(isinstance(hook, Addition) for hook in module._forward_hooks.values()):
                module.register_forward_hook(Addition(name))
        for name in self.rows:
            module = network.get_submodule(name)
            hooked = any(isinstance(hook, Other) for hook in module._forward_hooks.values())
            if isinstance(module, nn.Embedding) and not hooked:
                module.register_forward_hook(Other(name))
        head = getattr(network, "output", None)
        self.head = next((rows for name, rows in self.rows.items() if network.get_submodule(name) is head), None)

    @property
    def n_bytes(self) -> int:
        parts = [*self.updates.values(), *self.rows.values()]
        return sum(t.nbytes for part in parts for t in part if t is not None)


Part = tuple[Adapter, slice]  # whose the tokens of a stretch of a pass are


class _Now(threading.local):
    """What is applied in this thread."""

    parts: Sequence[Part] = ()


_now = _Now()


@contextmanager
def applied(parts: Sequence[Part]) -> Iterator[None]:
    """In this thread, the tokens (B, T) of these slices of T pass through their adapters."""
    before, _now.parts = _now.parts, parts
    try:
        yield
    finally:
        _now.parts = before


class Addition:
    """A linear layer's hook."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, module: nn.Linear, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        small: list[tuple[LowRank, Tensor, Tensor]] = []
        for adapter, where in _now.parts:
            if (update := adapter.updates.get(self.name)) is not None:
                x, y = inputs[0][:, where], output[:, where]  # (B, T', C)
                if update.gain is not None:
                    y += (update.gain - 1) * (y if module.bias is None else y - module.bias)
                if x.shape[1] <= FEW:
                    small.append((update, x, y))
                else:
                    y += F.linear(x, update.a) @ update.b
        if small:
            add_all(*zip(*small, strict=True))


class Other:
    """An embedding's hook: some tokens' rows are an adapter's."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, module: nn.Embedding, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        for adapter, where in _now.parts:
            if (own := adapter.rows.get(self.name)) is not None:
                place = own.place[inputs[0][:, where]]  # (B, T')
                output[:, where] = torch.where((place >= 0)[..., None], own.rows[place.clamp(min=0)], output[:, where])


def logits_of(network: Any, hidden: Tensor, whose: Sequence[Adapter | None]) -> Tensor:
    """Logits (n, V) float32 of hidden states (n, C), each by its own adapter's head."""
    logits: Tensor = network.logits(hidden).float()
    for adapter in {id(a): a for a in whose if a is not None and a.head is not None}.values():
        own = adapter.head
        assert own is not None
        which = [i for i, a in enumerate(whose) if a is adapter]
        logits[torch.tensor(which)[:, None], own.ids] = F.linear(hidden[which], own.rows).float()
    return logits


def add_all(updates: Sequence[LowRank], xs: Sequence[Tensor], ys: Sequence[Tensor]) -> None:
    """y += B A x for several adapters by two products in all: each token by all A, and only its own's result kept."""
    sizes = tuple((x.shape[1], len(update.a)) for x, update in zip(xs, updates, strict=True))
    low = F.linear(torch.cat(tuple(xs), 1), torch.cat([update.a for update in updates]))  # (B, T, all r)
    if len(sizes) > 1:
        low = low.masked_fill(foreign(sizes, low.device), 0)
    sums = (low @ torch.cat([update.b for update in updates])).split([n for n, _ in sizes], 1)
    for y, more in zip(ys, sums, strict=True):
        y += more


@lru_cache(256)
def foreign(sizes: tuple[tuple[int, int], ...], device: torch.device) -> Tensor:
    """Of tokens and ranks, some of each for each adapter: (T, all r), True where a rank is another's than the token."""
    return ~torch.block_diag(*(torch.ones(n, r, dtype=torch.bool) for n, r in sizes)).to(device)


class Adapted:
    """A runner's steps with an adapter: by torch, as the kernels know none."""

    def __init__(self, runner: Runner, adapter: Adapter) -> None:
        self.runner, self.adapter = runner, adapter

    def new_cache(self, batch: int = 1, capacity: int = 256) -> DenseCache:
        return self.runner.new_cache(batch, capacity)

    @torch.inference_mode()
    def forward(self, ids: Tensor, positions: Tensor, cache: DenseCache) -> Tensor:
        """Logits (B, V) float32 after the last of ids (B, T), standing at positions (B, T)."""
        network: Any = self.runner.network
        cache.begin(positions)
        with applied([(self.adapter, slice(None))]):
            hidden = network(ids, positions, cache)
        return logits_of(network, hidden[:, -1], [self.adapter] * len(hidden))


class Heard:
    """A network whose passes and logits are an adapter's, for who knows of none."""

    def __init__(self, network: Any, adapter: Adapter) -> None:
        self.network, self.adapter = network, adapter

    def __call__(self, ids: Tensor, positions: Tensor, cache: Any) -> Tensor:
        with applied([(self.adapter, slice(None))]):
            found: Tensor = self.network(ids, positions, cache)
        return found

    def logits(self, hidden: Tensor) -> Tensor:
        """(n, C) → (n, V)."""
        return logits_of(self.network, hidden, [self.adapter] * len(hidden))
