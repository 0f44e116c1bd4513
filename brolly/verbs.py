"""Each verb, its options and its result: said once for Python, the command line, HTTP and remote models. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from brolly.errors import OptionError


def option(default: Any, help: str, *, low: float | None = None, high: float | None = None, short: str = "") -> Any:
    """A field that travels to every surface: its help, its range and its short flag."""
    factory = default if callable(default) else None
    meta = {"help": help, "low": low, "high": high, "short": short}
    return field(default_factory=factory, metadata=meta) if factory else field(default=default, metadata=meta)


@dataclass(frozen=True, kw_only=True)
class GenerateOptions:
    """How to write. None means: as the checkpoint's generation_config says, else OpenAI's default."""

    max_tokens: int | None = option(None, "most tokens to write (default: up to the context)", low=1)
    temperature: float | None = option(None, "0 takes the likeliest token each time", low=0, high=100)
    top_p: float | None = option(None, "keep the likeliest tokens that make up this share", low=0, high=1)
    top_k: int | None = option(None, "keep this many of the likeliest tokens; 0 keeps all", low=0)
    min_p: float | None = option(None, "drop tokens below this share of the likeliest one", low=0, high=1)
    repetition_penalty: float | None = option(None, "divide the logits of tokens seen so far; 1 is off", low=0.01)
    presence_penalty: float = option(0.0, "subtract from tokens written so far", low=-2, high=2)
    frequency_penalty: float = option(0.0, "subtract per time that a token was written", low=-2, high=2)
    logit_bias: dict[int, float] = option(dict, "token id to a number added to its logit")
    seed: int | None = option(None, "the same seed gives the same text")
    stop: tuple[str, ...] = option(tuple, "stop before this text (may be repeated)")
    logprobs: int | None = option(None, "log-probabilities of each token and this many alternatives", low=0, high=100)

    def __post_init__(self) -> None:
        if isinstance(self.stop, str):
            object.__setattr__(self, "stop", (self.stop,))
        elif not isinstance(self.stop, tuple):
            object.__setattr__(self, "stop", tuple(self.stop or ()))
        for f in fields(self):
            value, low, high = getattr(self, f.name), f.metadata["low"], f.metadata["high"]
            if value is None or (low is None and high is None):
                continue
            number = isinstance(value, (int, float)) and not isinstance(value, bool) and value == value
            if not number or (low is not None and value < low) or (high is not None and value > high):
                span = f"at least {low}" if high is None else f"between {low} and {high}"
                raise OptionError(f"{f.name} is {value!r}; it must be a number {span}.")
        if "" in self.stop:
            raise OptionError("stop holds an empty string, which would stop before the first token; leave it out.")


@dataclass(frozen=True)
class Usage:
    """Tokens read and written."""

    prompt_tokens: int
    completion_tokens: int

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class TokenLogprob:
    """One written token, its log-probability, and the likeliest others at that place (id to log-probability)."""

    token: int
    text: str
    logprob: float
    top: dict[int, float]


@dataclass(frozen=True)
class Piece:
    """A stretch of text that became certain while streaming; the last one carries the finish reason."""

    text: str
    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: str | None = None

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Generation:
    """What was written: the continuation alone, its tokens, and why it ended ("stop" or "length")."""

    text: str
    tokens: list[int]
    finish_reason: str
    usage: Usage
    logprobs: list[TokenLogprob] | None = None

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Score:
    """Natural-log probability of each token given those before it; the first token has none."""

    tokens: list[int]
    texts: list[str]
    logprobs: list[float | None]

    @property
    def total(self) -> float:
        return sum(p for p in self.logprobs if p is not None)


@dataclass(frozen=True)
class Task:
    """A verb: its name, the Hub's task tag, the kind of its options and of its result."""

    name: str
    tag: str
    options: type | None
    result: type


TASKS = {
    t.name: t
    for t in (
        Task("generate", "text-generation", GenerateOptions, Generation),
        Task("chat", "text-generation", GenerateOptions, Generation),
        Task("score", "text-generation", None, Score),
    )
}
