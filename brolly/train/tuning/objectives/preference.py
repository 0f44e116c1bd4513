"""Preferences: of two answers the better one (DPO, IPO, hinge, ORPO), or of one answer whether it is good (KTO).

A reward is beta · log π(answer) / π_ref(answer). The reference is the network before its first step, and what it
says is computed once, so that a step costs one pass and its gradient. The losses are functions of P pairs or answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from hashlib import blake2b
from math import nan
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from brolly.errors import OptionError
from brolly.rows import Judged, Preference, Row, RowFault, Rows
from brolly.train.tuning.examples import Tokens
from brolly.train.tuning.objectives import by_parts
from brolly.train.tuning.objectives.answers import Answers, cut, shared_mean, summed
from brolly.verbs import TuneOptions

T = TypeVar("T")
BETA = 0.1
CHUNK = 256  # rows whose reference is computed together


def dpo(gain: Tensor, beta: float, smoothing: float = 0.0) -> Tensor:
    """Rafailov et al. 2023, equation 7; `gain` is log π/π_ref of the chosen less that of the rejected: (P,).

    With `smoothing`, a share of the pairs is taken to be the wrong way round (Mitchell 2023).
    """
    return -(1 - smoothing) * F.logsigmoid(beta * gain) - smoothing * F.logsigmoid(-beta * gain)


def hinge(gain: Tensor, beta: float) -> Tensor:
    """Liu et al. 2023 (RSO), equation 10: (P,)."""
    return F.relu(1 - beta * gain)


def ipo(gain: Tensor, beta: float) -> Tensor:
    """Azar et al. 2023, equation 17; `gain` is the difference of means a token, as its authors compute it: (P,)."""
    return (gain - 1 / (2 * beta)) ** 2


def orpo(chosen: Tensor, rejected: Tensor, nll: Tensor, beta: float) -> Tensor:
    """Hong et al. 2024, equation 6, of mean log p a token and the chosen text's mean loss: (P,). No reference."""
    log_odds = (chosen - rejected) - (log1mexp(chosen) - log1mexp(rejected))
    return nll - beta * F.logsigmoid(log_odds)


def log1mexp(x: Tensor) -> Tensor:
    """log(1 - eˣ) of x < 0, exact at both ends (Mächler 2012)."""
    x = x.clamp(max=-1e-7)
    near = x > -0.6931472
    return torch.where(near, torch.log(-torch.expm1(x)), torch.log1p(-torch.exp(torch.where(near, -1.0, x))))


def kto(ratio: Tensor, good: Tensor, drift: Tensor | float, beta: float) -> Tensor:
    """Ethayarajh et al. 2024, equation 7, with both weights 1; `drift` estimates KL(π ‖ π_ref), no gradient: (P,)."""
    return 1 - torch.sigmoid(beta * torch.where(good, ratio - drift, drift - ratio))


class Pair(NamedTuple):
    """Both answers to a prompt, and the reference's Σ log p of each."""

    chosen: Tokens
    rejected: Tokens
    reference: tuple[float, float] = (nan, nan)


class Pairs:
    """Learns from rows of two answers."""

    together = False

    def __init__(self, model: Any, options: TuneOptions) -> None:
        self.name = options.objective or "dpo"
        if options.smoothing and self.name != "dpo":
            raise OptionError(f"smoothing is {options.smoothing}; {self.name} has none. Leave it out, or take dpo.")
        self.answers = Answers(model, options)
        self.beta = BETA if options.beta is None else options.beta
        if self.name == "ipo" and not self.beta:
            raise OptionError("beta is 0; ipo divides by it. Give one above 0, such as 0.1.")
        self.smoothing, self.all_of_it = options.smoothing, options.train_on == "all"
        self.reference: dict[int, tuple[float, float]] = {}  # by `key` of a pair

    def prepare(self, rows: Rows, numbers: Sequence[int]) -> None:
        """What the untouched network says of each row's answers."""
        if self.name == "orpo":
            return
        for chunk in cut(numbers, lambda _: 1, CHUNK):
            pairs = [pair for _, pair in made(self._pair, rows, chunk)]
            found = self.answers.said([side for pair in pairs for side in pair[:2]])
            for pair, both in zip(pairs, zip(found[::2], found[1::2], strict=True), strict=True):
                self.reference[key(*pair[:2])] = both

    def example(self, row: Row) -> Pair:
        pair = self._pair(row)
        both = self.reference.get(key(*pair[:2]))
        return pair._replace(reference=both) if both else pair

    def _pair(self, row: Row) -> Pair:
        value = row.value
        if not isinstance(value, Preference):
            raise RowFault(
                row.where, f"it is a {type(value).__name__}; expected a prompt, a chosen and a rejected answer"
            )
        chosen, rejected = (self.answers.tokens(row, value.prompt, one) for one in (value.chosen, value.rejected))
        if list(chosen.ids) == list(rejected.ids):
            raise RowFault(row.where, "its two answers are the same within the context, so that neither is preferred")
        return Pair(chosen, rejected)

    def size(self, example: Pair) -> int:
        return len(example.chosen.ids) + len(example.rejected.ids)

    def weight(self, example: Pair) -> float:
        return 1.0

    def losses(self, part: Sequence[Pair]) -> tuple[Tensor, Tensor]:
        """Losses (P,), and rewards (P, 2) of chosen and rejected, without gradients."""
        sides = [side for pair in part for side in pair[:2]]
        if self.name == "orpo":
            return self._orpo(sides)
        log_p = self.answers.log_probs(sides).view(-1, 2)
        reference = torch.tensor([pair.reference for pair in part], device=log_p.device, dtype=log_p.dtype)
        ratio = log_p - reference
        rewards = self.beta * ratio.detach()
        match self.name:
            case "dpo":
                return dpo(ratio[:, 0] - ratio[:, 1], self.beta, self.smoothing), rewards
            case "hinge":
                return hinge(ratio[:, 0] - ratio[:, 1], self.beta), rewards
        means = ratio / counted(sides, ratio)
        return ipo(means[:, 0] - means[:, 1], self.beta), rewards

    def _orpo(self, sides: Sequence[Tokens]) -> tuple[Tensor, Tensor]:
        read = [whole(side) if self.all_of_it else side for side in sides]
        losses = self.answers.text.losses(read)
        on = torch.from_numpy(np.concatenate([np.append(side.learnt[1:], False) for side in sides])).to(losses.device)
        means = -summed(losses * on, sides).view(-1, 2) / counted(sides, losses)
        nll = summed(losses, read).view(-1, 2)[:, 0] / counted(read, losses)[:, 0]
        return orpo(means[:, 0], means[:, 1], nll, self.beta), self.beta * means.detach()

    def backward(self, parts: Sequence[Sequence[Pair]], total: float) -> Tensor:
        return by_parts(lambda part: self.losses(part)[0].sum(), parts, total)

    @torch.no_grad()
    def measure(self, part: Sequence[Pair]) -> dict[str, tuple[float, float]]:
        """The loss, the share of pairs whose chosen answer has the larger reward, and by how much on average."""
        losses, rewards = self.losses(part)
        margin, n = rewards[:, 0] - rewards[:, 1], float(len(part))
        found = {"loss": losses, "accuracy": (margin > 0).float(), "margin": margin}
        found |= {"chosen": rewards[:, 0], "rejected": rewards[:, 1]}
        return {name: (float(values.sum()), n) for name, values in found.items()}


def counted(sides: Sequence[Tokens], like: Tensor) -> Tensor:
    """Tokens learnt of each side: (P, 2)."""
    counts = [int(np.count_nonzero(side.learnt)) for side in sides]
    return torch.tensor(counts, device=like.device, dtype=like.dtype).view(-1, 2)


def whole(tokens: Tokens) -> Tokens:
    return tokens._replace(learnt=[False] + [True] * (len(tokens.ids) - 1))


def key(*answers: Tokens) -> int:
    """A name of these tokens, which an example has whatever row it came from."""
    parts = (np.asarray(one.ids, np.uint32).tobytes() for one in answers)
    return int.from_bytes(blake2b(b"".join(blake2b(part).digest() for part in parts), digest_size=8).digest())


def made(make: Callable[[Row], T], rows: Rows, numbers: Iterable[int]) -> Iterator[tuple[int, T]]:
    """What rows become, by number, without those that are bad: the loop meets them too, and tells."""
    for row in rows.only(numbers):
        with suppress(RowFault):
            yield row.number, make(row)


class Judgement(NamedTuple):
    """An answer, the answer to another prompt in its place, and the reference's Σ log p of both."""

    answer: Tokens
    good: bool
    stray: Tokens | None = None
    reference: tuple[float, float] = (nan, nan)


class Judgements:
    """Learns from rows of one answer, good or bad (KTO).

    KL(π ‖ π_ref) is estimated over a step by prompts with answers to others: with the answer of the row before it,
    which stays the same throughout, so that the reference needs to read it once.
    """

    name, together = "kto", False

    def __init__(self, model: Any, options: TuneOptions) -> None:
        self.answers = Answers(model, options)
        self.beta = BETA if options.beta is None else options.beta
        self.reference: dict[int, tuple[float, float]] = {}  # by `key` of an answer, and so
        self.before: dict[int, tuple[Rows, int]] = {}  # the row whose answer strays to it

    def prepare(self, rows: Rows, numbers: Sequence[int]) -> None:
        """What the untouched network says of each row's answer, and of the one that strays to it."""
        good = [(i, key(example.answer)) for i, example in made(self.example, rows, numbers)]
        for (before, _), (_, name) in zip([*good[-1:], *good], good, strict=False):
            self.before[name] = rows, before
        for chunk in cut(good, lambda _: 1, CHUNK):
            examples = [self.example(rows[i]) for i, _ in chunk]
            found = self.answers.said([one for e in examples for one in (e.answer, e.stray or e.answer)])
            for (_, name), both in zip(chunk, zip(found[::2], found[1::2], strict=True), strict=True):
                self.reference[name] = both

    def example(self, row: Row) -> Judgement:
        value = row.value
        if not isinstance(value, Judged):
            raise RowFault(row.where, f"it is a {type(value).__name__}; expected an answer, and whether it is good")
        found = Judgement(self.answers.tokens(row, value.prompt, value.completion), value.good)
        name = key(found.answer)
        if name not in self.before:
            return found
        rows, before = self.before[name]
        other = rows[before].value
        assert isinstance(other, Judged)
        return found._replace(stray=self._stray(row, value, other), reference=self.reference.get(name, found.reference))

    def _stray(self, row: Row, value: Judged, other: Judged) -> Tokens | None:
        try:
            return self.answers.tokens(row, value.prompt, other.completion)
        except RowFault:  # one is of texts and the other of messages
            return None

    def size(self, example: Judgement) -> int:
        return 2 * len(example.answer.ids)

    def weight(self, example: Judgement) -> float:
        return 1.0

    @torch.no_grad()
    def drift(self, parts: Sequence[Sequence[Judgement]]) -> float:
        """How far the network is from its reference: the mean of log π/π_ref over strayed answers, 0 at least."""
        total, n = 0.0, 0
        for part in parts:
            strays = [(one.stray, one.reference[1]) for one in part if one.stray]
            if strays:
                total += float(self.answers.log_probs([one for one, _ in strays]).sum()) - sum(r for _, r in strays)
                n += len(strays)
        return max(shared_mean(total, n, self.answers.text.model.device), 0.0)

    def losses(self, part: Sequence[Judgement], drift: float) -> tuple[Tensor, Tensor]:
        """Losses (P,), and rewards (P,) without gradients."""
        log_p = self.answers.log_probs([one.answer for one in part])
        reference = torch.tensor([one.reference[0] for one in part], device=log_p.device, dtype=log_p.dtype)
        good = torch.tensor([one.good for one in part], device=log_p.device)
        ratio = log_p - reference
        return kto(ratio, good, drift, self.beta), self.beta * ratio.detach()

    def backward(self, parts: Sequence[Sequence[Judgement]], total: float) -> Tensor:
        drift = self.drift(parts)
        return by_parts(lambda part: self.losses(part, drift)[0].sum(), parts, total)

    @torch.no_grad()
    def measure(self, part: Sequence[Judgement]) -> dict[str, tuple[float, float]]:
        """The loss (with the drift of this part), the mean rewards of good and bad answers, and by their signs the
        share that was told apart."""
        losses, rewards = self.losses(part, self.drift([part]))
        good = torch.tensor([one.good for one in part], device=rewards.device)
        right = ((rewards > 0) == good).float()
        found = {"loss": losses, "accuracy": right, "good": rewards[good], "bad": rewards[~good]}
        return {name: (float(values.sum()), float(len(values))) for name, values in found.items() if len(values)}
