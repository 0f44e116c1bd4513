"""Writing: how, what comes back whole or by pieces, and how likely a text is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from brolly.errors import OptionError
from brolly.verbs.options import check_ranges, option

STOPS, STOP = 256, 1024  # stop texts, and their characters: each is looked for at every token


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
    min_tokens: int = option(0, "write at least so many tokens before an end is allowed", low=0)
    ignore_eos: bool = option(False, "write on past the end, up to max_tokens")
    json_schema: str | None = option(None, "write JSON that this JSON Schema allows; {} allows any", file=True)
    regex: str | None = option(None, "write what this regular expression matches as a whole")
    choice: tuple[str, ...] = option(tuple, "write one of these texts (may be repeated)")
    grammar: str | None = option(None, "write what this grammar allows, in Lark's or GBNF notation", file=True)
    effort: str | None = option(None, "how hard to think: none, minimal, low … max, or a number of tokens")
    thoughts: bool = option(False, "have a closed model tell its thoughts before the answer; others always do")

    def __post_init__(self) -> None:
        if isinstance(self.stop, str):
            object.__setattr__(self, "stop", (self.stop,))
        elif not isinstance(self.stop, tuple):
            object.__setattr__(self, "stop", tuple(self.stop or ()))
        if not isinstance(self.choice, tuple):
            object.__setattr__(self, "choice", (self.choice,) if isinstance(self.choice, str) else tuple(self.choice))
        if self.json_schema is not None and not isinstance(self.json_schema, str):
            try:
                object.__setattr__(self, "json_schema", json.dumps(self.json_schema))
            except (TypeError, ValueError, RecursionError) as error:
                raise OptionError(f"json_schema cannot be written as JSON ({error}).") from None
        if type(self.effort) is int and self.effort >= 0:
            object.__setattr__(self, "effort", str(self.effort))
        if self.effort is not None and not isinstance(self.effort, str):
            raise OptionError(f"effort is {self.effort!r:.40}; expected none, low, medium, high …, or tokens.")
        check_ranges(self)
        shapes = [name for name in ("json_schema", "regex", "choice", "grammar") if getattr(self, name)]
        if len(shapes) > 1:
            raise OptionError(f"{shapes[0]} and {shapes[1]} both say what may be written; leave one of them out.")
        if len(self.stop) > STOPS or any(len(stop) > STOP for stop in self.stop):
            raise OptionError(f"stop holds {len(self.stop)} texts; expected {STOPS} at most, of {STOP} characters.")
        if "" in self.stop:
            raise OptionError("stop holds an empty string, which would stop before the first token; leave it out.")


@dataclass(frozen=True)
class Usage:
    """Tokens read and written."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0  # of the prompt, that were not computed again
    reasoning_tokens: int = 0  # of the completion
    written_tokens: int = 0  # of the prompt, that a vendor put into its cache, which may have a price of its own

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class TokenLogprob:
    """One written token, its log-probability, and the likeliest others at that place (id to log-probability).

    One that runs elsewhere tells tokens by their bytes: `token` is then -1, `said` the bytes, `others` the likeliest.
    """

    token: int
    text: str
    logprob: float
    top: dict[int, float]
    said: bytes = b""
    others: tuple[tuple[bytes, float], ...] = ()


@dataclass(frozen=True)
class ToolCall:
    """A tool that the model wants called: `arguments` is JSON as it was written."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class ToolDelta:
    """A part of the tool call at `index`: its id and name come first and whole, its arguments by pieces."""

    index: int
    arguments: str = ""
    id: str | None = None
    name: str | None = None


@dataclass(frozen=True)
class Piece:
    """A stretch of text that became certain while streaming; the last one carries the finish reason and the usage.

    Of `n` answers to one prompt, `index` tells whose it is. Where log-probabilities are asked for, `end` is that of the
    token that ended it, which is none of its tokens. `stopped` is the stop text that ended it, where that is known.
    `opaque` are parts that a vendor wants back with the next turn and that mean nothing to others.
    """

    text: str
    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: str | None = None
    reasoning: str = ""
    calls: tuple[ToolDelta, ...] = ()
    index: int = 0
    usage: Usage | None = None
    end: TokenLogprob | None = None
    stopped: str | None = None
    opaque: tuple[Mapping[str, Any], ...] = ()

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Generation:
    """What was written: the continuation alone, its tokens, and why it ended.

    `finish_reason` is "stop", "length", "tool_calls" or "content_filter".
    """

    text: str
    tokens: list[int]
    finish_reason: str
    usage: Usage
    logprobs: list[TokenLogprob] | None = None
    reasoning: str | None = None  # what a thinking model thought before the answer
    tool_calls: tuple[ToolCall, ...] = ()
    opaque: tuple[Mapping[str, Any], ...] = ()  # see Piece

    def __str__(self) -> str:
        return self.text

    @property
    def message(self) -> dict[str, Any]:
        """The assistant's turn, to go on with: `messages.append(answer.message)`."""
        row: dict[str, Any] = {"role": "assistant", "content": self.text or None}
        if self.reasoning:
            row["reasoning_content"] = self.reasoning
        if self.tool_calls:
            row["tool_calls"] = [
                {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
                for c in self.tool_calls
            ]
        if self.opaque:
            row["opaque"] = list(self.opaque)
        return row


def gather(pieces: Iterable[Piece], with_logprobs: bool = False) -> Generation:
    """All pieces of one answer as one result."""
    text, reasoning, reason, usage = "", "", "length", Usage(0, 0)
    tokens: list[int] = []
    details: list[TokenLogprob] = []
    opaque: list[Mapping[str, Any]] = []
    calls: dict[int, ToolCall] = {}
    for piece in pieces:
        text += piece.text
        reasoning += piece.reasoning
        tokens += piece.tokens
        details += piece.logprobs
        opaque += piece.opaque
        for part in piece.calls:
            old = calls.get(part.index, ToolCall("", "", ""))
            calls[part.index] = ToolCall(
                old.id or part.id or "", old.name or part.name or "", old.arguments + part.arguments
            )
        reason, usage = piece.finish_reason or reason, piece.usage or usage
    several = tuple(calls[i] for i in sorted(calls))
    told = details if with_logprobs else None
    return Generation(text, tokens, reason, usage, told, reasoning or None, several, tuple(opaque))


@dataclass(frozen=True)
class Score:
    """Natural-log probability of each token given those before it; the first token has none.

    `top` holds the likeliest tokens at each place (id to log-probability), as many as were asked for.
    """

    tokens: list[int]
    texts: list[str]
    logprobs: list[float | None]
    top: list[dict[int, float]] = field(default_factory=list)

    @property
    def total(self) -> float:
        return sum(p for p in self.logprobs if p is not None)


class Options(TypedDict, total=False):
    """GenerateOptions as keyword arguments."""

    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    repetition_penalty: float | None
    presence_penalty: float
    frequency_penalty: float
    logit_bias: dict[int, float]
    seed: int | None
    stop: str | Sequence[str]
    logprobs: int | None
    min_tokens: int
    ignore_eos: bool
    json_schema: str | Mapping[str, Any] | None
    regex: str | None
    choice: Sequence[str]
    grammar: str | None
    effort: str | None
    thoughts: bool


class Write(Options, total=False):
    """The same, and by which adapter."""

    adapter: str | Path | None


class Chat(Write, total=False):
    """The same, and what else a conversation takes."""

    tools: Sequence[Mapping[str, Any]]
    tool_choice: str | Mapping[str, Any]
    parallel_tool_calls: bool
    template: Mapping[str, Any] | None
