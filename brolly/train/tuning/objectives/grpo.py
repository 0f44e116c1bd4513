"""Answers that a reward judges (GRPO, Shao et al. 2024): several are written to each prompt, and the better are learnt.

An answer's advantage is its reward less its group's mean, over the group's deviation. By `objective`, of Σ over tokens:
"grpo" takes the mean of each answer and then of answers, as the paper; "dapo", the default, the mean of all tokens of a
step (Yu et al. 2025); "dr-grpo" divides by the most tokens and not by the deviation (Liu et al. 2025).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, NamedTuple

import torch
from torch import Tensor

from brolly.engine.job import Job
from brolly.errors import BrollyError, OptionError
from brolly.rows import Completion, Prompted, Row, RowFault
from brolly.train.tuning.examples import Tokens
from brolly.train.tuning.lora import LoraLinear, switched_off
from brolly.train.tuning.objectives.answers import Answers, at_rest, cut
from brolly.train.tuning.objectives.rewards import judged, reward_of
from brolly.train.tuning.objectives.sampling import Written, written
from brolly.verbs import GenerateOptions, TuneOptions


def advantages(rewards: Tensor, scaled: bool = True) -> Tensor:
    """Of rewards (prompts, samples): how much better than its group, over the group's deviation where `scaled`."""
    above = rewards - rewards.mean(1, keepdim=True)
    return above / (rewards.std(1, keepdim=True) + 1e-4) if scaled else above


def surrogate(log_p: Tensor, old: Tensor, advantage: Tensor, reach: float) -> Tensor:
    """Each token's clipped loss (Schulman et al. 2017, equation 7): all (M,)."""
    ratio = torch.exp(log_p - old)
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - reach, 1 + reach) * advantage)


def divergence(log_p: Tensor, reference: Tensor) -> Tensor:
    """Each token's unbiased estimate of KL(π ‖ π_ref), never negative (Shao et al. 2024, equation 4): (M,)."""
    return torch.exp(reference - log_p) - (reference - log_p) - 1


class Asked(NamedTuple):
    """A prompt: its tokens, itself, the row's columns, and where it stands."""

    ids: Sequence[int]
    prompt: Any
    columns: Mapping[str, Any]
    number: int
    where: str


class Answered(NamedTuple):
    """An answer with its prompt, and log p by token when it was written and by the reference, where they count."""

    tokens: Tokens
    advantage: float
    old: Tensor | None = None
    reference: Tensor | None = None


class Rewarded:
    """Learns from rows of prompts, by a reward."""

    together = False

    def __init__(self, model: Any, options: TuneOptions) -> None:
        self.name = options.objective or "dapo"
        self.model, self.options, self.reward = model, options, reward_of(options.reward)
        self.answers = Answers(model, options)
        self.context = self.answers.text.context
        self.beta = options.beta or 0.0
        self.noted: dict[str, float] = {}
        self.kept: tuple[int, list[Answered]] = (-1, [])
        if self.beta and not any(isinstance(module, LoraLinear) for module in model.network.modules()):
            raise OptionError(
                f"beta is {self.beta}, and full tuning keeps no second network as a reference; leave beta out, or tune "
                "a LoRA, whose reference is the base."
            )

    def example(self, row: Row) -> Asked:
        value = row.value
        if not isinstance(value, (Prompted, Completion)):
            raise RowFault(row.where, f"it is a {type(value).__name__}; expected a prompt")
        try:
            if isinstance(value.prompt, str):
                ids = self.model.prepare(value.prompt).prompt
            else:
                ids = self.model.prepare_chat(value.prompt).prompt
        except BrollyError as error:
            raise RowFault(row.where, str(error)) from None
        if len(ids) >= self.context:
            raise RowFault(row.where, f"its prompt fills the context of {self.context} tokens")
        return Asked(ids, value.prompt, row.fields, row.number, row.where)

    def size(self, example: Asked | Answered) -> int:
        return len(example.ids if isinstance(example, Asked) else example.tokens.ids)

    def weight(self, example: Asked | Answered) -> float:
        return length(example) if self.name == "dapo" and isinstance(example, Answered) else 1.0

    def cost(self, size: float) -> float:
        answer, n = self.options.max_tokens, self.options.samples
        return n * (size + 1.5 * answer)  # to write a token takes half of what it takes to learn it

    def sample(self, batch: Sequence[Asked], step: int) -> list[Answered]:
        """What is written to a step's prompts now, judged; or the last, as long as `updates` says."""
        turn = step // self.options.updates
        if self.kept[0] == turn:
            return self.kept[1]
        rank, world = place_in_world()
        mine, self.noted = self._sampled(batch[rank::world], str(turn)) if batch[rank::world] else ([], {})
        if world > 1:  # each process writes for its prompts, and all learn from all
            every: list[Any] = [None] * world
            torch.distributed.all_gather_object(every, (mine, self.noted))
            mine = [one for answers, _ in every for one in answers]
            told = [noted for _, noted in every if noted]
            self.noted = {name: sum(noted[name] for noted in told) / len(told) for name in told[0]}
        self.kept = turn, mine
        return mine

    def _sampled(self, batch: Sequence[Asked], turn: str) -> tuple[list[Answered], dict[str, float]]:
        """Answers to some prompts, judged, and what is to be noted of them."""
        groups = self.write(batch, self.options.samples, turn)
        rewards = torch.tensor([self.judge(one, group) for one, group in zip(batch, groups, strict=True)])
        gains = advantages(rewards.double(), self.name != "dr-grpo")
        found = [
            Answered(Tokens([*one.ids, *answer.tokens], [False] * len(one.ids) + [True] * len(answer.tokens)), gain)
            for one, group, row in zip(batch, groups, gains.tolist(), strict=True)
            for answer, gain in zip(group, row, strict=True)
        ]
        if self.options.updates > 1:
            found = [one._replace(old=log_p) for one, log_p in zip(found, self.said(found), strict=True)]
        if self.beta:
            with switched_off(self.model.network):
                found = [one._replace(reference=log_p) for one, log_p in zip(found, self.said(found), strict=True)]
        answers = [answer for group in groups for answer in group]
        return found, {
            "reward": float(rewards.mean()),
            "deviation": float(rewards.std(1).mean()),
            "length": sum(len(answer.tokens) for answer in answers) / len(answers),
            "ended": sum(answer.ended for answer in answers) / len(answers),
        }

    def judge(self, one: Asked, group: Sequence[Written]) -> list[float]:
        return judged(self.reward, one.where, one.prompt, [answer.text for answer in group], one.columns)

    def write(self, batch: Sequence[Asked], n: int, turn: str) -> list[list[Written]]:
        """`n` answers to each prompt by the network as it is now, from its own distribution, in our engine."""
        jobs = []
        for one in batch:
            seed = Random(f"{self.options.seed}/{turn}/{one.number}").getrandbits(62)
            options = GenerateOptions(
                temperature=self.options.temperature, top_p=1.0, top_k=0, min_p=0.0, repetition_penalty=1.0,
                max_tokens=self.options.max_tokens, seed=seed, logprobs=0,
            )  # fmt: skip
            jobs.append(Job(one.ids, options, after=one.ids, n=n))
        with at_rest(self.model.network):
            return written(self.model, jobs, self.context)

    @torch.no_grad()
    def said(self, answers: Sequence[Answered]) -> list[Tensor]:
        """Each answer's log p by token, without dropout."""
        with at_rest(self.model.network):
            return [
                one
                for part in cut(answers, self.size)
                for one in self.log_probs(part).split([length(answer) for answer in part])
            ]

    def log_probs(self, part: Sequence[Answered]) -> Tensor:
        """Log p of every token of some answers: (M,), at the temperature at which they were written."""
        losses = self.answers.text.losses([one.tokens for one in part], self.options.temperature)
        on = torch.tensor([learnt for one in part for learnt in (*one.tokens.learnt[1:], False)], device=losses.device)
        return -losses[on]

    def losses(self, part: Sequence[Answered]) -> Tensor:
        """Each answer's loss, so that their sum over the sum of their weights is the step's: (P,)."""
        lengths = [length(one) for one in part]
        log_p = self.log_probs(part)
        gains = torch.tensor([one.advantage for one in part], dtype=log_p.dtype, device=log_p.device)
        before = [one.old for one in part if one.old is not None]
        old = torch.cat(before) if before else log_p.detach()
        gain = gains.repeat_interleave(torch.tensor(lengths, device=log_p.device))
        found = surrogate(log_p, old, gain, self.options.reach)
        if self.beta:
            reference = torch.cat([one.reference for one in part if one.reference is not None])
            # by the ratio, so that its gradient is the divergence's own (DeepSeek-V3.2, 2025)
            found = found + self.beta * divergence(log_p, reference) * torch.exp(log_p - old)
        sums = torch.stack([tokens.sum() for tokens in found.split(lengths)])
        match self.name:
            case "grpo":
                return sums / torch.tensor(lengths, device=sums.device)
            case "dr-grpo":
                return sums / self.options.max_tokens
        return sums

    def backward(self, parts: Sequence[Sequence[Answered]], total: float) -> Tensor:
        found = torch.zeros((), device=self.model.device)
        for part in parts:
            # a group of equal rewards teaches nothing, and without a reference pulls nowhere
            if some := [one for one in part if one.advantage or self.beta]:
                loss = self.losses(some).sum() / total
                loss.backward()
                found += loss.detach()
        return found

    def measure(self, part: Sequence[Asked]) -> dict[str, tuple[float, float]]:
        """The mean reward of one answer to each prompt, with the same draws every time; the loss is its negative."""
        groups = self.write(part, 1, "held out")
        total = sum(self.judge(one, group)[0] for one, group in zip(part, groups, strict=True))
        return {"loss": (-total, float(len(part))), "reward": (total, float(len(part)))}


def place_in_world() -> tuple[int, int]:
    """Which of how many processes this is."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def length(answer: Answered) -> int:
    """Tokens of an answer, without its prompt's."""
    return sum(answer.tokens.learnt)
