"""What a tuning will do, said before it does it: data, steps, memory, time, compute, licence and rules."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

from torch import nn

from brolly.identity import Card
from brolly.identity.compute import spoken
from brolly.identity.rules import DISCLAIMER, Facts, eu_modifier, table
from brolly.train.tuning.lora import LoraLinear
from brolly.train.tuning.words import LearntRows

RULE = "eu-modifier"


@dataclass(frozen=True)
class Plan:
    """A tuning beforehand. Bytes, seconds and FLOP are estimates; `preview` shows the rows."""

    model: str
    kind: str
    objective: str
    preview: str
    examples: int
    held: int
    tokens: int  # of all examples, once
    learnt: float
    cut: int
    bad: int
    longest: int
    context: int | None
    epochs: float
    steps: int
    batch: int
    lr: float
    trained: int  # parameters
    total: int
    memory: int
    memory_parts: dict[str, int]
    seconds: float
    flop: float
    base_flop: float | None
    licence: str
    rule: str
    path: str
    notes: tuple[str, ...]

    def event(self) -> dict[str, Any]:
        return {"event": "plan", **asdict(self)}

    def __str__(self) -> str:
        """One screen."""
        share = f"{self.trained / self.total:.2%}"
        # where answers are compared or judged, an example counts once
        learnt = f", {self.learnt:,.0f} of them learnt" if self.learnt > self.examples else ""
        known = isfinite(self.seconds)
        time = f"about {duration(self.seconds)}, by one timed step" if known else "as long as what is written"
        lines = [
            f"model      {self.model}: {self.total:,} parameters; learnt: {self.trained:,} ({share}), {self.kind}",
            f"objective  {self.objective}",
            f"examples   {self.examples:,} to learn, {self.held:,} held out for evaluation",
            f"tokens     {self.tokens:,} read an epoch{learnt}; the longest example has "
            f"{self.longest:,}" + (f", the context {self.context:,}" if self.context else ""),
            f"steps      {self.steps:,} of {self.batch:,} examples ({self.epochs:g} epochs), learning rate {self.lr:g}",
            f"memory     about {size(self.memory)}: "
            + ", ".join(f"{name} {size(n)}" for name, n in self.memory_parts.items() if n >= self.memory / 200),
            f"time       {time}",
            f"compute    {spoken(self.flop)} FLOP ({self.path})",
            f"licence    {self.licence}",
            f"EU AI Act  {self.rule}",
            *(f"note       {note}" for note in self.notes),
        ]
        return self.preview.rstrip() + "\n\n" + "\n".join(lines) + "\n"


def size(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def flop_of(network: nn.Module, n_tokens: float, checkpointing: bool) -> float:
    """FLOP of training on tokens: 2 a parameter forwards, 2 for the gradient of its input, 2 for its own.

    A frozen layer has no gradient of its own; an embedding is looked up; a head that is the embedding is multiplied by.
    """
    total = 0.0
    for module in network.modules():
        if isinstance(module, LoraLinear):
            total += 6 * (module.lora_A.numel() + module.lora_B.numel())
        elif isinstance(module, nn.Linear):
            n, learnt = module.in_features * module.out_features, "weight" in vars(module)["_parameters"]
            total += (6 if learnt and module.weight.requires_grad else 4) * n + 2 * n * checkpointing
    head = getattr(network, "output", None)
    head = head.base if isinstance(head, LearntRows) else head
    if isinstance(head, nn.Embedding):
        total += (6 if head.weight.requires_grad else 4) * head.weight.numel()
    return total * n_tokens


def licence_of(card: Card) -> str:
    """What the base's licence says of a model made from it."""
    found = card.licence
    if not found.id and not found.name:
        return "the base's files tell none: whether you may share what you make from it, they do not say"
    said = [str(found.id or found.name)]
    if found.commercial and found.commercial != "yes":
        said.append(f"commercial use: {found.commercial}")
    if found.redistribution and found.redistribution != "yes":
        said.append(f"redistribution: {found.redistribution}")
    return "; ".join([*said, *found.conditions[:2]]) + " (the base's; it holds for the adapter with it)"


def rule_of(card: Card, flop: float, kind: str) -> tuple[str, float | None]:
    """The one-third rule on a modification of so much compute; and the base's own compute, where it is known."""
    training = card.training
    base = training.flop
    changed = card.kind._replace(relation="finetune" if kind == "full" else "adapter", base_model=())
    facts = Facts(card.subject, changed, card.parameters, training._replace(base=base, modification=flop), card.licence)
    row = next(row for row in table()["rules"] if row["id"] == RULE)
    verdict = eu_modifier(facts, row["thresholds"])
    words = {"meets": "you would become a provider", "does-not-meet": "no new provider by the one-third rule"}
    said = words.get(verdict.outcome, "the one-third rule cannot be told")
    return f"{said}: {verdict.because} {DISCLAIMER}", base
