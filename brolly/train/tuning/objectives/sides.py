"""Vectors that are judged together, with gradients in little memory (GradCache, Gao et al. 2021). E their length."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from brolly.configs import StackConfig

MEMORY = 2**31  # bytes of what a pass may keep for the way back
KEPT = 80  # bytes that a layer keeps of each number of a token's: about twenty tensors of its width in float32


class Side(NamedTuple):
    """What one tower reads in a step: each thing once, how much there is of each, and who makes vectors of some."""

    items: Sequence[Any]
    sizes: Sequence[int]  # tokens or patches
    encode: Callable[[Sequence[Any]], Tensor]  # n items → (n, E)

    def cut(self, most: int) -> list[Sequence[Any]]:
        """Its items in parts of at most so many tokens, one item at least."""
        parts: list[list[Any]] = []
        filled = most
        for item, size in zip(self.items, self.sizes, strict=True):
            if filled + size > most:
                parts.append([])
                filled = 0
            parts[-1].append(item)
            filled += size
        return list(parts)


def distinct(found: Sequence[Hashable]) -> tuple[list[Any], list[int]]:
    """Each thing once, and which of them stands at each place."""
    places = {one: i for i, one in enumerate(dict.fromkeys(found))}
    return list(places), [places[one] for one in found]


def at_once(stack: StackConfig) -> int:
    """Tokens whose way back through a stack's layers fits into MEMORY."""
    return max(MEMORY // (stack.dim * max(stack.n_layers, 1) * KEPT), 256)


def backward(sides: Sequence[Side], loss: Callable[[list[Tensor]], Tensor], most: int) -> Tensor:
    """Add the gradients of a loss of all sides' vectors, of which it gets a tensor a side; returns it, detached.

    Where there are more than `most` tokens, all vectors are computed without a graph, then the loss's gradients by
    them, then part by part with one: the same numbers, one part's activations in memory at a time.
    """
    if sum(sum(side.sizes) for side in sides) <= most:
        found = loss([side.encode(side.items) for side in sides])
        found.backward()
        return found.detach().float()
    parts = [(at, part) for at, side in enumerate(sides) for part in side.cut(most)]
    device = torch.cuda.current_device() if torch.cuda.is_available() else None
    states, vectors = [], []
    with torch.no_grad():
        for at, part in parts:
            states.append(random_state(device))
            vectors.append(sides[at].encode(part))
    leaves = [v.detach().requires_grad_() for v in vectors]
    found = loss(
        [torch.cat([v for v, (s, _) in zip(leaves, parts, strict=True) if s == at]) for at in range(len(sides))]
    )
    found.backward()
    for (at, part), leaf, state in zip(parts, leaves, states, strict=True):
        with torch.random.fork_rng([] if device is None else [device]):  # what was dropped then is dropped now
            torch.set_rng_state(state[0])
            if device is not None:
                torch.cuda.set_rng_state(state[1], device)
            vector = sides[at].encode(part)
        if vector.requires_grad:  # a frozen tower has none
            vector.backward(leaf.grad)
    return found.detach().float()


def random_state(device: int | None) -> list[Tensor]:
    return [torch.get_rng_state()] + ([] if device is None else [torch.cuda.get_rng_state(device)])
