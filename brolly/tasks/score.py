"""How likely a text is: the log-probability of each token given those before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from brolly.errors import ContextTooLong
from brolly.verbs import Score

CHUNK = 512  # positions whose logits exist at one time


class Network(Protocol):
    """Hidden states, and logits of any part of them."""

    def __call__(self, ids: Tensor, positions: Tensor, cache: Any) -> Tensor: ...
    def logits(self, hidden: Tensor) -> Tensor: ...


@torch.inference_mode()
def score(
    network: Network, cache: Any, tokens: Sequence[int], texts: list[str], context: int, device: torch.device,
    top: int = 0,
) -> Score:  # fmt: skip
    """Natural-log probabilities, and the `top` likeliest tokens at each place; the first token has none. `cache` is one
    that keeps nothing. Raises ContextTooLong."""
    if len(tokens) > context:
        raise ContextTooLong(f"the text has {len(tokens)} tokens; this model holds {context}. Score it in parts.")
    if len(tokens) < 2:
        return Score(list(tokens), texts, [None] * len(tokens), [{} for _ in tokens])
    ids = torch.tensor([list(tokens)], device=device)
    hidden = network(ids, torch.arange(len(tokens), device=device)[None], cache)[0]  # (T, C)
    out: list[float | None] = [None]
    others: list[dict[int, float]] = [{}]
    for start in range(0, len(tokens) - 1, CHUNK):
        part = slice(start, min(start + CHUNK, len(tokens) - 1))
        shares = network.logits(hidden[part]).float().log_softmax(-1)
        out += shares.gather(-1, ids[0, part.start + 1 : part.stop + 1, None])[:, 0].tolist()
        values, likeliest = shares.topk(min(top, shares.shape[-1]))  # (T', top)
        rows = zip(likeliest.tolist(), values.tolist(), strict=True)
        others += [dict(zip(i, p, strict=True)) for i, p in rows]
    return Score(list(tokens), texts, out, others)
