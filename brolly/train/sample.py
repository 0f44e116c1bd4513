"""Writing on from a prompt while training: the shortest loop that shows what the network has learned."""

from __future__ import annotations

from typing import Any

import torch

from brolly.engine.cache import DenseCache


@torch.no_grad()
def write_on(
    network: Any, ids: list[int], max_tokens: int, end: int, *, temperature: float = 0.8, top_p: float = 0.95, seed: int = 0
) -> list[int]:
    """Up to `max_tokens` tokens after `ids`, drawn with top-p; stops before the token `end`."""
    weight = next(network.parameters())
    cache = DenseCache(network.config, 1, len(ids) + max_tokens, weight.dtype, weight.device)
    generator = torch.Generator().manual_seed(seed)
    new, written, at = ids, [], 0
    for _ in range(max_tokens):
        positions = torch.arange(at, at + len(new), device=weight.device)[None]
        cache.begin(positions)
        hidden = network(torch.tensor([new], device=weight.device), positions, cache)
        chances = (network.logits(hidden[0, -1]).float().cpu() / temperature).softmax(-1)
        ordered, order = chances.sort(descending=True)
        ordered[ordered.cumsum(-1) - ordered > top_p] = 0
        token = int(order[torch.multinomial(ordered, 1, generator=generator)])
        if token == end:
            break
        written.append(token)
        at, new = at + len(new), [token]
    return written
