"""Tuning: how, and what is left behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from brolly.errors import OptionError
from brolly.verbs.options import check_ranges, option


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Low-rank matrices beside the large ones (Hu et al. 2021): y = W x + alpha / rank · B A x."""

    rank: int = option(16, "width of the low-rank matrices", low=1, high=2048)
    alpha: float | None = option(None, "what they are scaled by, over the rank (default: twice the rank)", low=1e-6)
    dropout: float = option(0.0, "share of their inputs left out in a step", low=0, high=0.99)
    targets: tuple[str, ...] = option(tuple, "layers to adapt, by the ends of their names (default: all within blocks)")
    rslora: bool = option(False, "scale by alpha / √rank (Kalajdzievski 2023)")
    dora: bool = option(False, "learn each row's length apart (Liu et al. 2024)")
    bits: int | None = option(None, "keep the base in 4 bits (QLoRA's NF4, Dettmers et al. 2023)", low=4, high=4)

    def __post_init__(self) -> None:
        if not isinstance(self.targets, tuple):
            given = (self.targets,) if isinstance(self.targets, str) else tuple(self.targets)
            object.__setattr__(self, "targets", given)
        check_ranges(self)

    @property
    def scale(self) -> float:
        alpha = 2 * self.rank if self.alpha is None else self.alpha
        return alpha / self.rank**0.5 if self.rslora else alpha / self.rank


@dataclass(frozen=True, kw_only=True)
class TuneOptions:
    """How to fine-tune. None means: chosen by the model's size and the data's."""

    objective: str | None = option(None, "what is learnt, where the data's shape leaves a choice: see docs/tune.md")
    epochs: float | None = option(
        None, "times that each example is seen (default: 3, more of few examples: docs/tune.md)", low=1e-6, high=1e6
    )
    steps: int | None = option(None, "updates, in place of epochs", low=1, high=10**8)
    batch: int | None = option(None, "examples a step, over all processes", low=1, high=65536)
    part: int | None = option(None, "most tokens computed together: a step is made of such parts", low=1)
    lr: float | None = option(None, "learning rate at its highest", low=0, high=10)
    schedule: str = option("cosine", "how it falls after warm-up: cosine, linear or constant")
    warmup: float = option(0.05, "share of the steps in which it rises", low=0, high=1)
    weight_decay: float = option(0.0, "AdamW's", low=0, high=10)
    clip: float = option(1.0, "longest gradient; longer ones are shortened", low=1e-9)
    optimizer: str = option("adamw", "adamw, adamw8bit, or adamw-offload")
    context: int | None = option(None, "most tokens of an example; longer ones are cut (default: the model's)", low=2)
    train_on: str = option("answers", "answers: the completions or the assistant's turns alone; all: every token")
    packing: bool = option(True, "examples in a row without padding")
    checkpointing: bool = option(False, "keep less and compute twice: slower, in less memory")
    shard: bool = option(False, "processes share the network, for what does not fit into one (done by itself then)")
    held_out: float = option(0.05, "share kept for evaluation, never trained on; 0 keeps none", low=0, high=0.9)
    eval_every: int | None = option(None, "steps between evaluations (default: ten in a run)", low=1)
    save_every: int | None = option(None, "steps between checkpoints (default: by time)", low=1)
    seed: int = option(0, "order, dropout and first numbers", low=0, high=2**31)
    beta: float | None = option(None, "pull of the reference (default: 0.1; GRPO, none); ORPO: of the odds", low=0)
    smoothing: float = option(0.0, "share of the pairs taken to be the wrong way round (DPO)", low=0, high=0.49)
    reward: str | Any = option(None, "what judges answers (GRPO): file.py:function, or in Python the function")
    samples: int = option(8, "answers written to a prompt (GRPO)", low=2, high=128)
    max_tokens: int = option(256, "most tokens of an answer (GRPO)", low=1)
    temperature: float = option(1.0, "of the answers (GRPO)", low=0.01, high=100)
    reach: float = option(0.2, "how far a token's probability may move with gain between samplings (GRPO)", low=0.001)
    updates: int = option(1, "steps taken on the answers of one sampling (GRPO)", low=1, high=64)

    def __post_init__(self) -> None:
        check_ranges(self)
        allowed = {
            "schedule": ("cosine", "linear", "constant"), "train_on": ("answers", "all"),
            "optimizer": ("adamw", "adamw8bit", "adamw-offload"),
        }  # fmt: skip
        for name, words in allowed.items():
            if getattr(self, name) not in words:
                raise OptionError(f"{name} is {getattr(self, name)!r}; expected {', '.join(words)}.")


@dataclass(frozen=True)
class Adapter:
    """What a tuning left behind: a folder in PEFT's layout ("lora", "prompt"), or a whole model ("full")."""

    path: Any  # pathlib.Path
    base: str
    kind: str
    steps: int
    measures: Mapping[str, float]  # the last evaluation's: loss, and what else the objective tells

    def __fspath__(self) -> str:
        return str(self.path)
