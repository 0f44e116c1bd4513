"""What may be learnt: one file an objective. The loop knows none of them; it has rows, steps and gradients.

An objective turns rows into examples once, says how much each weighs in a step's mean, and adds gradients. The loss of
a step is Σ losses / Σ weights over all its examples, however they are cut into parts and shared by processes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from brolly.errors import RecipeError
from brolly.rows import Row, Rows

Example = Any  # an objective's own; the loop asks `size` and `weight` of it through the objective


class Objective(Protocol):
    """A kind of tuning."""

    name: str
    together: bool  # whether a step's examples are each other's contrast, so that parts must not be judged apart

    def example(self, row: Row) -> Example:
        """A row as the network is given it. Raises RowFault where it cannot be."""
        ...

    def size(self, example: Example) -> int:
        """Tokens (or frames, or patches) that the network computes for it: parts are cut by them."""
        ...

    def weight(self, example: Example) -> float:
        """How much it counts in a step's mean: tokens trained on, or 1. 0 has nothing to teach."""
        ...

    def backward(self, parts: Sequence[Sequence[Example]], total: float) -> Tensor:
        """Add the gradient of Σ losses / total of some parts' examples; returns that number, detached."""
        ...

    def measure(self, part: Sequence[Example]) -> dict[str, tuple[float, float]]:
        """Without gradients: sums and weights by name, of which "loss" is one."""
        ...


class Usual(NamedTuple):
    """What an objective is best done with where nothing is asked for."""

    batch: int
    epochs: float
    lr: float


@runtime_checkable
class Advises(Protocol):
    """An objective that knows what does it good."""

    def usual(self, n_examples: int, full: bool) -> Usual:
        """For so many examples, learnt by a LoRA or by the `full` network."""
        ...


@runtime_checkable
class Looks(Protocol):
    """An objective that looks at all rows before examples are made of them: at labels, or to decode in threads."""

    def look(self, rows: Rows, numbers: Sequence[int]) -> None:
        """Look at the rows of these numbers: first at those that are trained on, then at those held out."""
        ...


@runtime_checkable
class Prepares(Protocol):
    """An objective that asks the untouched network about all rows: once, before the loop restores and trains."""

    def prepare(self, rows: Rows, numbers: Sequence[int]) -> None:
        """Look at the rows of these numbers, trained on and held out; examples made before may lack what it finds."""
        ...


@runtime_checkable
class Samples(Protocol):
    """An objective that learns from what the network writes now."""

    noted: dict[str, float]  # of the last sampling: means for the log

    def cost(self, size: float) -> float:
        """Tokens of training that an example of so many tokens takes at most, writing counted in."""
        ...

    def sample(self, batch: Sequence[Example], step: int) -> list[Example]:
        """What is learnt at a step in place of the examples drawn for it."""
        ...


class Idle(list[Example]):
    """A part that counts nothing: it keeps processes in step that have fewer parts than others."""


def by_parts(loss: Callable[[Sequence[Example]], Tensor], parts: Sequence[Sequence[Example]], total: float) -> Tensor:
    """`backward` of an objective whose examples do not see each other: part by part."""
    found = [torch.zeros(())]
    for part in parts:
        one = loss(part) / (math.inf if isinstance(part, Idle) else total)
        one.backward()
        found.append(one.detach().float())
    return sum(found[2:], found[1]) if parts else found[0]


def choose(model: Any, shape: str, options: Any) -> Objective:
    """The objective for a model's kind and the rows' shape. Raises RecipeError where there is none."""
    kind = type(model.network.config).__name__
    asked = options.objective
    if kind in ("LlamaConfig", "GPT2Config") and (judging := by_judgement(model, shape, options)):
        return judging
    if kind in ("LlamaConfig", "GPT2Config") and asked in (None, "next-token") and shape in (
        "text", "completion", "chat",
    ):  # fmt: skip
        from brolly.train.tuning.objectives.next_token import NextToken

        return NextToken(model, options)
    if asked in (None, "contrastive", "speech", "labels"):
        from brolly.train.tuning.objectives.kinds import of_kind

        if found := of_kind(model, shape, options):
            return found
    verbs = ", ".join(model.card.recognised.tasks)
    how = f" by the objective {asked!r}" if asked else ""
    raise RecipeError(f"{model.card.header.path} ({verbs}) cannot be tuned on rows of the shape {shape!r}{how}.")


def by_judgement(model: Any, shape: str, options: Any) -> Objective | None:
    """What learns from preferences, judgements and rewards; None where rows of this shape hold none."""
    asked = options.objective
    if shape == "preference" and asked in (None, "dpo", "ipo", "hinge", "orpo"):
        from brolly.train.tuning.objectives.preference import Pairs

        return Pairs(model, options)
    if shape == "judged" and asked in (None, "kto"):
        from brolly.train.tuning.objectives.preference import Judgements

        return Judgements(model, options)
    named = asked in ("grpo", "dapo", "dr-grpo")
    if (named or asked is None) and (shape == "prompted" or (shape == "completion" and (named or options.reward))):
        from brolly.train.tuning.objectives.grpo import Rewarded

        return Rewarded(model, options)
    return None
