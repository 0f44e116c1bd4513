"""Each verb, its options and its result: said once for Python, the command line, HTTP and remote models. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypedDict

from brolly.errors import OptionError

STOPS, STOP = 256, 1024  # stop texts, and their characters: each is looked for at every token


def option(
    default: Any, help: str, *, low: float | None = None, high: float | None = None, short: str = "",
    file: bool = False,
) -> Any:  # fmt: skip
    """A field that travels to every surface: its help, its range, its short flag, whether a file may hold its text."""
    factory = default if callable(default) else None
    meta = {"help": help, "low": low, "high": high, "short": short, "file": file}
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
    min_tokens: int = option(0, "write at least so many tokens before an end is allowed", low=0)
    ignore_eos: bool = option(False, "write on past the end, up to max_tokens")
    json_schema: str | None = option(None, "write JSON that this JSON Schema allows; {} allows any", file=True)
    regex: str | None = option(None, "write what this regular expression matches as a whole")
    choice: tuple[str, ...] = option(tuple, "write one of these texts (may be repeated)")
    grammar: str | None = option(None, "write what this grammar allows, in Lark's or GBNF notation", file=True)

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
        check_ranges(self)
        shapes = [name for name in ("json_schema", "regex", "choice", "grammar") if getattr(self, name)]
        if len(shapes) > 1:
            raise OptionError(f"{shapes[0]} and {shapes[1]} both say what may be written; leave one of them out.")
        if len(self.stop) > STOPS or any(len(stop) > STOP for stop in self.stop):
            raise OptionError(f"stop holds {len(self.stop)} texts; expected {STOPS} at most, of {STOP} characters.")
        if "" in self.stop:
            raise OptionError("stop holds an empty string, which would stop before the first token; leave it out.")


def check_ranges(options: Any) -> None:
    """Every number of an options dataclass is one, and within its range. Raises OptionError."""
    for f in fields(options):
        value, low, high = getattr(options, f.name), f.metadata["low"], f.metadata["high"]
        if value is None or (low is None and high is None):
            continue
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and value == value
        if not number or (low is not None and value < low) or (high is not None and value > high):
            span = f"at least {low}" if high is None else f"between {low} and {high}"
            raise OptionError(f"{f.name} is {value!r}; it must be a number {span}.")


def read_options(kind: type, given: Mapping[str, Any]) -> Any:
    """`kind` of keyword arguments; None where it means nothing is as good as not given. Raises OptionError."""
    known = {f.name: f for f in fields(kind)}
    if unknown := given.keys() - known:
        raise OptionError(f"{sorted(unknown)[0]!r} is no option; there are {', '.join(sorted(known))}.")
    given = {name: value for name, value in given.items() if value is not None or "None" in known[name].type}
    for name, value in given.items():
        if value is None:
            continue
        if known[name].type == "bool" and type(value) is not bool:
            raise OptionError(f"{name} is {value!r}; it must be true or false.")
        if "int" in known[name].type.split(" | ") and type(value) is not int:
            raise OptionError(f"{name} is {value!r}; it must be a whole number.")
    return kind(**given)


@dataclass(frozen=True)
class Usage:
    """Tokens read and written."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0  # of the prompt, that were not computed again
    reasoning_tokens: int = 0  # of the completion

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
    token that ended it, which is none of its tokens.
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

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Generation:
    """What was written: the continuation alone, its tokens, and why it ended ("stop", "length" or "tool_calls")."""

    text: str
    tokens: list[int]
    finish_reason: str
    usage: Usage
    logprobs: list[TokenLogprob] | None = None
    reasoning: str | None = None  # what a thinking model thought before the answer
    tool_calls: tuple[ToolCall, ...] = ()

    def __str__(self) -> str:
        return self.text


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


@dataclass(frozen=True, kw_only=True)
class EmbedOptions:
    """How to embed."""

    role: str | None = option(None, "what a text is for: query, document, or a prompt's name in the model's own files")
    dimensions: int | None = option(None, "keep the first numbers of each vector, where it was trained for that", low=1)
    truncate: bool = option(True, "cut what is longer than the model reads, with a warning; otherwise that is an error")
    batch_size: int = option(32, "inputs computed together", low=1, high=65536)

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class Embedding:
    """The vector of the input at `index`, "text" or "image", or the error in its place."""

    index: int
    kind: str
    vector: Any = None
    n_tokens: int = 0
    error: Exception | None = None


@dataclass(frozen=True)
class Embeddings:
    """A vector an input, in the order given: `vectors` (n, dim) float32, `kinds` "text" or "image".

    Late-interaction models give a vector a token instead: `vectors` is then a list of (tokens, dim).
    """

    vectors: Any
    kinds: tuple[str, ...]
    n_tokens: int = 0

    def __len__(self) -> int:
        return len(self.kinds)


@dataclass(frozen=True, kw_only=True)
class ClassifyOptions:
    """How to classify; labels and templates are texts of their own."""

    top: int | None = option(None, "only the likeliest labels", low=1)
    batch_size: int = option(32, "images computed together", low=1, high=65536)

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class Classification:
    """Labels by falling probability, of one image; `logits` in the same order."""

    labels: tuple[str, ...]
    probabilities: tuple[float, ...]
    logits: tuple[float, ...]

    @property
    def label(self) -> str:
        return self.labels[0]


@dataclass(frozen=True, kw_only=True)
class RerankOptions:
    """How to put documents in order."""

    top: int | None = option(None, "only the best", low=1)
    instruction: str | None = option(None, "what counts as an answer, for a language model that judges")
    truncate: bool = option(True, "cut what is longer than the model reads, with a warning; otherwise that is an error")
    batch_size: int = option(32, "pairs computed together", low=1, high=65536)

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class Ranked:
    """A document's place among the documents given, and how well it answers the query."""

    index: int
    score: float
    document: str


@dataclass(frozen=True, kw_only=True)
class TranscribeOptions:
    """How to transcribe; the defaults are those of openai-whisper's command line."""

    language: str | None = option(None, "what is spoken: a code like en or a name (default: heard from the start)")
    translate: bool = option(False, "into English")
    words: bool = option(False, "a time for each word")
    prompt: str | None = option(None, "text to read before the first window: names, spelling, style")
    hotwords: str | None = option(None, "words to listen for, shown to the model before every window")
    carry_prompt: bool = option(False, "read the prompt before every window, not before the first alone")
    temperature: tuple[float, ...] = option(
        lambda: (0.0, 0.2, 0.4, 0.6, 0.8, 1.0), "tried in turn until a window reads well"
    )
    beam_size: int = option(5, "candidates kept at temperature 0; 1 is greedy", low=1, high=64)
    best_of: int = option(5, "samples taken above temperature 0", low=1, high=64)
    patience: float = option(1.0, "how long beams wait for better ones", low=0.01, high=100)
    length_penalty: float | None = option(None, "exponent of the length in ranking (default: none)", low=0, high=1)
    compression_ratio_threshold: float | None = option(2.4, "a text that packs better than this repeats itself")
    logprob_threshold: float | None = option(-1.0, "a text less likely than this on average has failed")
    no_speech_threshold: float | None = option(0.6, "a window more silent than this is skipped, if its text failed")
    condition_on_previous_text: bool = option(True, "read the last window's text before the next")
    hallucination_silence_threshold: float | None = option(None, "skip silences longer than this (seconds) near doubt")
    no_repeat: int = option(0, "never write so many tokens twice in a window; 0 allows it", low=0, high=224)
    vad: bool = option(False, "hear only where someone speaks")
    batch_size: int = option(1, "windows decoded together; above 1 without the text of earlier ones", low=1, high=1024)
    exact: bool = option(True, "hear a file twice, as its loudest moment sets what counts as silence; a stream cannot")
    seed: int | None = option(None, "the same seed gives the same text")

    def __post_init__(self) -> None:
        given = self.temperature
        several = tuple(given) if isinstance(given, (list, tuple)) else (given,)
        if not several or not all(type(t) in (int, float) and 0 <= t <= 100 for t in several):
            raise OptionError(f"temperature is {given!r:.80}; expected numbers from 0 to 100, at least one.")
        object.__setattr__(self, "temperature", several)
        check_ranges(self)
        if self.batch_size > 1 and self.hallucination_silence_threshold is not None:
            raise OptionError(
                "hallucination_silence_threshold moves on from where a window went wrong, and a batch_size above 1 has "
                "begun the next ones by then; leave one of them out."
            )


@dataclass(frozen=True)
class Word:
    """One word, its times in seconds and its probability."""

    start: float
    end: float
    word: str
    probability: float


@dataclass(frozen=True)
class Segment:
    """A stretch of speech: times in seconds, its text and tokens, and what decoding thought of it."""

    start: float
    end: float
    text: str
    tokens: tuple[int, ...] = ()
    temperature: float = 0.0
    avg_logprob: float = 0.0
    compression_ratio: float = 0.0
    no_speech_prob: float = 0.0
    words: tuple[Word, ...] | None = None


@dataclass(frozen=True)
class Transcript:
    """What was said."""

    text: str
    language: str
    segments: tuple[Segment, ...]
    duration: float = 0.0  # seconds heard

    @property
    def words(self) -> tuple[Word, ...]:
        return tuple(w for s in self.segments for w in s.words or ())

    def __str__(self) -> str:
        return self.text


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


class Write(Options, total=False):
    """The same, and by which adapter."""

    adapter: str | Path | None


class Chat(Write, total=False):
    """The same, and what else a conversation takes."""

    tools: Sequence[Mapping[str, Any]]
    tool_choice: str | Mapping[str, Any]
    parallel_tool_calls: bool
    template: Mapping[str, Any] | None


class Embed(TypedDict, total=False):
    """EmbedOptions as keyword arguments."""

    role: str | None
    dimensions: int | None
    truncate: bool
    batch_size: int


class Transcribe(TypedDict, total=False):
    """TranscribeOptions as keyword arguments; None turns a threshold off."""

    language: str | None
    translate: bool
    words: bool
    prompt: str | None
    hotwords: str | None
    carry_prompt: bool
    temperature: float | Sequence[float]
    beam_size: int
    best_of: int
    patience: float
    length_penalty: float | None
    compression_ratio_threshold: float | None
    logprob_threshold: float | None
    no_speech_threshold: float | None
    condition_on_previous_text: bool
    hallucination_silence_threshold: float | None
    no_repeat: int
    vad: bool
    batch_size: int
    exact: bool
    seed: int | None


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
        Task("embed", "feature-extraction", EmbedOptions, Embeddings),
        Task("classify", "zero-shot-image-classification", ClassifyOptions, Classification),
        Task("rerank", "text-ranking", RerankOptions, Ranked),
        Task("transcribe", "automatic-speech-recognition", TranscribeOptions, Transcript),
    )
}
