"""Vectors that are judged together, with gradients in little memory (GradCache, Gao et al. 2021). E their length."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from brolly.configs import StackConfig

MEMORY = 2**31  # bytes of what a pass may keep for the way back
KEPT = 80  # bytes that a layer keeps of each number of a token's: about twenty tensors of its width in float32


class Side(NamedTuple):
    """What one tower reads in a step: each thing once, how much there is of each, and who makes vectors of some."""

    items: Sequence[Any]
    sizes: Sequence[int]  # tokens or patches
    encode: Callable[[Sequence[Any]], Tensor]  # n items → (n, E)

    def share(self, rank: int, world: int) -> Side:
        """The items of one of several processes."""
        return Side(self.items[rank::world], self.sizes[rank::world], self.encode)

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
    them, then part by part with one: the same numbers, one part's activations in memory at a time. Of several
    processes, which all have the same sides, each computes some of the vectors; gradients and loss are to be summed.
    """
    world, rank = (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)
    if world == 1 and sum(sum(side.sizes) for side in sides) <= most:
        found = loss([side.encode(side.items) for side in sides])
        found.backward()
        return found.detach().float()
    parts = [(at, part) for at, side in enumerate(sides) for part in side.share(rank, world).cut(most)]
    states, vectors = [], []
    with torch.no_grad():
        for at, part in parts:
            states.append(random_state())
            vectors.append(sides[at].encode(part))
    whole = [gathered([v for v, (its, _) in zip(vectors, parts, strict=True) if its == at], world)
             for at in range(len(sides))]  # fmt: skip
    leaves = [v.detach().requires_grad_() for v in whole]
    found = loss(leaves)
    if rank == 0:
        found.backward()
    else:  # what the loss learns itself is learnt once
        for leaf, grad in zip(leaves, torch.autograd.grad(found, leaves), strict=True):
            leaf.grad = grad
    grads = [leaf.grad[rank::world] for leaf in leaves if leaf.grad is not None]
    done = [0] * len(sides)
    for (at, part), state in zip(parts, states, strict=True):
        with torch.random.fork_rng([] if len(state) == 1 else [torch.cuda.current_device()]):
            torch.set_rng_state(state[0])  # what was dropped then is dropped now
            if len(state) > 1:
                torch.cuda.set_rng_state(state[1])
            vector = sides[at].encode(part)
        if vector.requires_grad:  # a frozen tower has none
            vector.backward(grads[at][done[at] : done[at] + len(part)])
        done[at] += len(part)
    return found.detach().float() if rank == 0 else torch.zeros_like(found.detach(), dtype=torch.float32)


def gathered(vectors: Sequence[Tensor], world: int) -> Tensor:
    """All processes' vectors of a side, in the order of its items: (n, E)."""
    if world == 1:
        return torch.cat(list(vectors))
    own = torch.cat(list(vectors)) if vectors else None
    every: list[Any] = [None] * world
    dist.all_gather_object(every, None if own is None else own.cpu())
    some = next(one for one in every if one is not None)
    out = torch.empty(sum(len(one) for one in every if one is not None), some.shape[1])
    for rank, one in enumerate(every):
        if one is not None:
            out[rank::world] = one
    return out.to(own.device if own is not None else torch.device("cpu"))


def random_state() -> list[Tensor]:
    return [torch.get_rng_state()] + ([torch.cuda.get_rng_state()] if torch.cuda.is_initialized() else [])
