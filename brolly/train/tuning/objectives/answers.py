"""Answers to prompts as whole sequences: their tokens, and what a network says of them. P answers in a row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from brolly.rows import Completion, Conversation, Row, RowFault
from brolly.train.tuning.examples import Tokens
from brolly.train.tuning.objectives.next_token import NextToken
from brolly.verbs import TuneOptions

T = TypeVar("T")
PART = 2048  # tokens computed together, where no gradients are


class Answers:
    """Reads rows' answers as `tune` reads completions and conversations, of which the last answer alone counts."""

    def __init__(self, model: Any, options: TuneOptions) -> None:
        self.network = model.network
        self.text = NextToken(model, replace(options, train_on="answers"))

    def tokens(self, row: Row, prompt: Any, answer: Any) -> Tokens:
        """A prompt and an answer, both texts or both messages. Raises RowFault."""
        if isinstance(prompt, str) and isinstance(answer, str):
            return self.text.example(replace(row, value=Completion(prompt, answer)))
        if isinstance(prompt, str) or isinstance(answer, str):
            raise RowFault(row.where, "its prompt and its answer are not both texts or both messages")
        return self.text.example(replace(row, value=Conversation((*map(unlearnt, prompt), *answer))))

    def log_probs(self, part: Sequence[Tokens]) -> Tensor:
        """Σ log p of each answer's tokens: (P,) float32, with gradients where they are on."""
        return -summed(self.text.losses(part), part)

    @torch.no_grad()
    def said(self, answers: Sequence[Tokens]) -> list[float]:
        """The same of any number of answers, without gradients and dropout."""
        with at_rest(self.network):
            return [float(x) for part in cut(answers, lambda one: len(one.ids)) for x in self.log_probs(part)]


def unlearnt(message: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**message, "weight": 0} if message.get("role") == "assistant" else message


def summed(losses: Tensor, part: Sequence[Tokens]) -> Tensor:
    """Token losses (N,) summed by answer: (P,)."""
    return torch.stack([one.sum() for one in losses.split([len(one.ids) for one in part])])


def cut(examples: Sequence[T], size: Callable[[T], int], most: int = PART) -> Iterator[list[T]]:
    """Examples in order, in parts of at most so many tokens, one example at least."""
    part: list[T] = []
    filled = 0
    for one in examples:
        if part and filled + size(one) > most:
            yield part
            part, filled = [], 0
        part.append(one)
        filled += size(one)
    if part:
        yield part


def shared_mean(total: float, n: int, device: torch.device) -> float:
    """A mean over all processes, of each one's sum and count."""
    both = torch.tensor([total, n], dtype=torch.float64 if device.type == "cpu" else torch.float32, device=device)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(both)
    return float(both[0]) / max(float(both[1]), 1.0)


@contextmanager
def at_rest(network: nn.Module) -> Iterator[None]:
    """Without dropout."""
    was = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was)
