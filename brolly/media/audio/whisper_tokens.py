"""What Whisper writes (Radford et al. 2022): words, languages, tasks, and times in steps of 0.02 s."""

from __future__ import annotations

import base64
import lzma
import re
import string
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from brolly.card import Header
from brolly.errors import OptionError, TokenizerError
from brolly.media.audio.languages import LANGUAGES, UNSPACED, language_code
from brolly.media.text import load_tokenizer
from brolly.media.text.files import read_bytes
from brolly.media.text.patterns import GPT2

SHIPPED = Path(__file__).parent / "vocabularies"
STEP = 0.02  # seconds between two timestamps
N_TIMES = 1501
MAX_LANGUAGES = 1024
ENGLISH_ONLY = 51864  # tokens of the published models that hear no language but English
# what is no speech, alone or behind a space, where it is one token; of notes the first token whatever follows
SYMBOLS = r"""( ) [ ] { } < > (( )) [[ ]] {{ }} << >> ((( ))) <<< >>> 「 」 『 』 -( -[ (' (" -- --- ♪♪ ♪♪♪
    " # * + / \ : ; = @ ^ _ ` | ~"""
LOST = "\ufffd".encode()
NOTES = "♩♪♫♬♭♮♯"


class Vocabulary(Protocol):
    """What is asked of a tokenizer."""

    def encode(self, text: str, *, special: bool = True, parse_special: bool = True) -> list[int]: ...
    def token_bytes(self, token_id: int) -> bytes: ...
    def token_id(self, text: str | None) -> int | None: ...


class WhisperTokens:
    """A vocabulary of `n_vocab` tokens and what Whisper means by them; `said` is generation_config.json, which wins."""

    def __init__(self, vocabulary: Vocabulary, n_vocab: int, said: Mapping[str, Any] | None = None) -> None:
        self.vocabulary, self.n_vocab, self.said = vocabulary, n_vocab, said or {}
        self.eot = self._one("<|endoftext|>")
        self.sot = self._one("<|startoftranscript|>")
        self.translate, self.transcribe = self._one("<|translate|>"), self._one("<|transcribe|>")
        self.sot_lm, self.sot_prev = self._one("<|startoflm|>"), self._one("<|startofprev|>")
        self.no_speech = self._one("<|nospeech|>", "<|nocaptions|>")
        self.no_timestamps = self._one("<|notimestamps|>")
        self.timestamp_begin = self.no_timestamps + 1
        self.languages = self._languages()
        multilingual = self.said.get("is_multilingual", n_vocab != ENGLISH_ONLY)
        self.multilingual = multilingual is True and bool(self.languages)

    def _one(self, *spellings: str) -> int:
        found = (self.vocabulary.token_id(text) for text in spellings)
        first = next((i for i in found if i is not None and i < self.n_vocab), None)
        if first is None:
            raise TokenizerError(
                f"The vocabulary of this Whisper has no {spellings[0]} among its {self.n_vocab:,} tokens; "
                "put the tokenizer.json of the same model beside the weights."
            )
        return first

    def _languages(self) -> dict[str, int]:
        """Code to token, in the order of the tokens."""
        listed = self.said.get("lang_to_id")
        rows = listed if isinstance(listed, Mapping) else {c: self.vocabulary.token_id(f"<|{c}|>") for c in LANGUAGES}
        known = {str(text).strip("<|>"): i for text, i in rows.items() if type(i) is int and 0 <= i < self.n_vocab}
        codes = ((code, i) for code, i in known.items() if re.fullmatch(r"[a-z]{2,3}(-[A-Za-z]{2,8})?", code))
        return dict(sorted(codes, key=lambda row: row[1])[:MAX_LANGUAGES])

    def language_token(self, language: str) -> int:
        """The token of a language, by its code or its name. Raises OptionError."""
        code = language if language in self.languages else language_code(language)
        if code not in self.languages:
            raise OptionError(f"This model does not know {LANGUAGES[code]}; it knows {', '.join(self.languages)}.")
        return self.languages[code]

    def sot_sequence(self, language: str | None = None, *, translate: bool = False) -> tuple[int, ...]:
        """What begins a transcript; an English-only model is told neither language nor task."""
        if not self.multilingual:
            return (self.sot,)
        task = self.translate if translate else self.transcribe
        return self.sot, self.language_token(language or "en"), task

    @cached_property
    def suppressed(self) -> tuple[int, ...]:
        """Tokens that no transcript holds: what is no speech, and the control tokens of tasks."""
        control = self.transcribe, self.translate, self.sot, self.sot_prev, self.sot_lm, self.no_speech
        listed = self._listed("suppress_tokens")
        return tuple(sorted({*(self.non_speech if listed is None else listed), *control}))

    @cached_property
    def suppressed_first(self) -> tuple[int, ...]:
        """Tokens that begin no transcript: a blank, and the end."""
        listed = self._listed("begin_suppress_tokens")
        return (*self.encode(" "), self.eot) if listed is None else tuple(listed)

    @cached_property
    def non_speech(self) -> tuple[int, ...]:
        """Tokens of speakers' tags and of what is heard besides speech: brackets, notes; hyphens that begin a word."""
        found = {self.encode(" -")[0], self.encode(" '")[0]}
        for symbol in (*SYMBOLS.split(), *NOTES):
            for ids in (self.encode(symbol), self.encode(f" {symbol}")):
                if len(ids) == 1 or symbol in NOTES:
                    found.add(ids[0])
        return tuple(sorted(found))

    def _listed(self, key: str) -> list[int] | None:
        value = self.said.get(key)
        return [i for i in value if type(i) is int and 0 <= i < self.n_vocab] if isinstance(value, list) else None

    def encode(self, text: str) -> list[int]:
        """Words to tokens; control tokens spelled out in them are words."""
        return self.vocabulary.encode(text, special=False, parse_special=False)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of tokens, without times."""
        return self._joined(i for i in ids if i < self.timestamp_begin)

    def decode_with_timestamps(self, ids: Iterable[int]) -> str:
        """The text of tokens, with times as <|1.08|>."""
        return self._joined(ids)

    def _joined(self, ids: Iterable[int]) -> str:
        return b"".join(map(self._bytes, ids)).decode(errors="replace")

    def _bytes(self, i: int) -> bytes:
        if i >= self.timestamp_begin:
            return f"<|{(i - self.timestamp_begin) * STEP:.2f}|>".encode()
        return self.vocabulary.token_bytes(i)

    def words(self, ids: Sequence[int], language: str | None) -> list[tuple[str, list[int]]]:
        """Tokens as words, each with its own: cut at spaces and before punctuation, or at each character."""
        characters = self.characters(ids)
        if language in UNSPACED:
            return characters
        words: list[tuple[str, list[int]]] = []
        for text, its in characters:
            apart = its[0] >= self.eot or text.startswith(" ") or text.strip() in string.punctuation
            if apart or not words:
                words.append((text, its))
            else:
                words[-1] = words[-1][0] + text, words[-1][1] + its
        return words

    def characters(self, ids: Sequence[int]) -> list[tuple[str, list[int]]]:
        """Tokens in the smallest groups that are whole characters."""
        whole = self.decode_with_timestamps(ids)
        found: list[tuple[str, list[int]]] = []
        held: list[int] = []
        start = 0
        for i in ids:
            held.append(i)
            text = self.decode_with_timestamps(held)
            broken = text.find("\ufffd")
            if broken < 0 or whole[start + broken : start + broken + 1] == "\ufffd":
                found.append((text, held))
                start, held = start + len(text), []
        return found


class Ranked:
    """A vocabulary as tiktoken keeps it, words by rank, with Whisper's control tokens behind them."""

    def __init__(self, words: Sequence[bytes], n_vocab: int, source: str) -> None:
        n_languages = n_vocab - len(words) - len(CONTROL) - 2 - N_TIMES
        if not 0 <= n_languages <= len(LANGUAGES):
            raise TokenizerError(
                f"{source} has {len(words):,} words and the model {n_vocab:,} tokens; the rest are not Whisper's "
                "control tokens. Put the model's own tokenizer.json beside it."
            )
        self._words = list(words)
        self._ranks = {word: i for i, word in enumerate(words) if word}
        names = ["<|endoftext|>", "<|startoftranscript|>", *(f"<|{code}|>" for code in [*LANGUAGES][:n_languages])]
        self._names = [*names, *CONTROL, *(f"<|{i * STEP:.2f}|>" for i in range(N_TIMES))]
        self._ids = {name: len(words) + i for i, name in enumerate(self._names)}
        if any(bytes([b]) not in self._ranks for b in range(256)):
            raise TokenizerError(f"{source} lacks words of one byte; a whole vocabulary has all 256.")

    def token_id(self, text: str | None) -> int | None:
        """The id of a control token."""
        return self._ids.get(text) if text else None

    def token_bytes(self, token_id: int) -> bytes:
        n = len(self._words)
        return self._words[token_id] if token_id < n else self._names[token_id - n].encode()

    def encode(self, text: str, *, special: bool = True, parse_special: bool = True) -> list[int]:
        """Words to tokens; control tokens spelled out are words too."""
        from tokenizers import Regex, pre_tokenizers

        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise TokenizerError(f"The text holds a lone surrogate at character {error.start}; give UTF-8.") from None
        cut = pre_tokenizers.Split(Regex(GPT2), behavior="isolated")
        return [i for piece, _ in cut.pre_tokenize_str(text) for i in self._merged(piece.encode())]

    def _merged(self, piece: bytes) -> list[int]:
        """The pair of the lowest rank is joined first (Sennrich et al. 2016)."""
        parts = [piece[i : i + 1] for i in range(len(piece))]
        while len(parts) > 1:
            ranks = [self._ranks.get(a + b, len(self._words)) for a, b in zip(parts, parts[1:], strict=False)]
            lowest = min(range(len(ranks)), key=ranks.__getitem__)
            if ranks[lowest] == len(self._words):
                break
            parts[lowest : lowest + 2] = [parts[lowest] + parts[lowest + 1]]
        return [self._ranks[part] for part in parts]


CONTROL = ("<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>")


def load_whisper_tokens(header: Header, n_vocab: int, said: Mapping[str, Any] | None = None) -> WhisperTokens:
    """The vocabulary of a checkpoint: beside it, within it (ggml), or the one that all of OpenAI's models have."""
    return WhisperTokens(_vocabulary(header, n_vocab), n_vocab, said)


def _vocabulary(header: Header, n_vocab: int) -> Vocabulary:
    published = "multilingual" if n_vocab > ENGLISH_ONLY else "english"
    if header.format == "ggml":
        from brolly.checkpoint.ggml import read_words

        words, whole = read_words(header.files[0]), shipped(published)
        # the published files were written with U+FFFD for each half of a character, and some with the end as a word
        if all(word == right or LOST in word for word, right in zip(words, whole, strict=False)):
            words = whole
        return Ranked(words, n_vocab, str(header.files[0]))
    folder = header.folder
    if (folder / "tokenizer.json").is_file() or (folder / "vocab.json").is_file():
        return load_tokenizer(header)
    path = folder / {"multilingual": "multilingual.tiktoken", "english": "gpt2.tiktoken"}[published]
    if path.is_file():
        return Ranked(read_tiktoken(path), n_vocab, str(path))
    return Ranked(shipped(published), n_vocab, "Whisper's vocabulary")


def read_tiktoken(path: Path) -> list[bytes]:
    """The words of a .tiktoken file by rank; the multilingual one ends with an empty word, which others refuse."""
    rows = [line.split() for line in read_bytes(path).splitlines() if line]
    try:
        words = [base64.b64decode(word) for word, _ in rows]
        if [int(rank) for _, rank in rows] != list(range(len(rows))):
            raise ValueError("its ranks are not in their order")
    except ValueError as error:
        raise TokenizerError(f"{path} is no list of words in base64 and their ranks: {error}.") from None
    return words


def shipped(name: str) -> list[bytes]:
    """The words of "multilingual" or "english" in the order of their ranks."""
    raw, at, words = lzma.decompress((SHIPPED / f"{name}.xz").read_bytes()), 0, []
    while at < len(raw):
        end = at + 1 + raw[at]
        words.append(raw[at + 1 : end])
        at = end
    return words
