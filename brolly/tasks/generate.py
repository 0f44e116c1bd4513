"""Write on from a prompt: the loop for one answer alone. Knows runners and tokenizers by what they do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from brolly.engine.engine import room
from brolly.engine.job import Job
from brolly.engine.writing import Text, Writing
from brolly.verbs import Piece

CHUNK = 2048  # prompt tokens a pass: bounds the memory of attention and lets ^C through


class Steps(Protocol):
    """What the loop needs of a runner."""

    def new_cache(self, batch: int, capacity: int) -> Any: ...
    def forward(self, ids: Tensor, positions: Tensor, cache: Any) -> Tensor: ...


def stream(
    steps: Steps, text: Text, job: Job, *, context: int, stop_ids: Iterable[int], device: torch.device | None = None
) -> Iterator[Piece]:
    """Pieces of a job's text as they become certain; the last carries the finish reason and the usage.

    Raises ContextTooLong, OptionError.
    """
    prompt = job.prompt
    most = room(job, context, context + 1)
    writing = Writing(text, job, most=most, stop_ids=stop_ids)
    cache = steps.new_cache(1, min(len(prompt) + min(most, 256), context))
    logits = _prefill(steps, prompt, cache, device)
    while True:
        token = writing.choose(logits)
        piece = writing.take(token, logits)
        if piece is not None:
            yield piece
            if writing.over:
                return
        place = torch.tensor([[len(prompt) + writing.n - 1]], device=device)
        logits = steps.forward(torch.tensor([[token]], device=device), place, cache)[0]


def _prefill(steps: Steps, prompt: Sequence[int], cache: Any, device: torch.device | None) -> Tensor:
    ids = torch.tensor([list(prompt)], device=device)
    places = torch.arange(len(prompt), device=device)[None]
    for start in range(0, len(prompt), CHUNK):
        part = slice(start, start + CHUNK)
        logits = steps.forward(ids[:, part], places[:, part], cache)
    return logits[0]
