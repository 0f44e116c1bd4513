"""Perceiving: vectors, labels, order, and what is said in a sound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from brolly.errors import OptionError
from brolly.verbs.options import check_ranges, option
from brolly.verbs.writing import Usage


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
    """One word, its times in seconds and its probability; None: not told by a model that runs elsewhere."""

    start: float
    end: float
    word: str
    probability: float | None


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
    usage: Usage | None = None  # of a model that counts tokens

    @property
    def words(self) -> tuple[Word, ...]:
        return tuple(w for s in self.segments for w in s.words or ())

    def __str__(self) -> str:
        return self.text


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
