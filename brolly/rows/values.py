"""What a row of data is, once it has been read: one frozen dataclass a shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

Messages: TypeAlias = tuple[Mapping[str, Any], ...]  # {"role", "content", …} as OpenAI's chat has them
Said: TypeAlias = str | Messages


@dataclass(frozen=True)
class Text:
    """A text to learn or measure as a whole."""

    text: str


@dataclass(frozen=True)
class Completion:
    """A prompt and what should follow it."""

    prompt: str
    completion: str


@dataclass(frozen=True)
class Conversation:
    """Messages by role; an assistant's message with "weight" 0 is read and not learnt. `tools` are OpenAI's."""

    messages: Messages
    tools: tuple[Any, ...] = ()

    @property
    def bare(self) -> list[dict[str, Any]]:
        """The messages without their weights, which templates do not know."""
        return [{key: value for key, value in message.items() if key != "weight"} for message in self.messages]


@dataclass(frozen=True)
class Preference:
    """Two answers to a prompt, of which `chosen` is the better; all three texts, or all three messages."""

    prompt: Said
    chosen: Said
    rejected: Said


@dataclass(frozen=True)
class Judged:
    """An answer to a prompt, and whether it is a good one (KTO)."""

    prompt: Said
    completion: Said
    good: bool


@dataclass(frozen=True)
class Prompted:
    """A prompt alone, whose answers a reward judges (GRPO); all other columns are in the row's fields."""

    prompt: Said


@dataclass(frozen=True)
class Pair:
    """A query, a text that answers it, texts that do not, and `also`: more that answer it."""

    query: str
    positive: str
    negatives: tuple[str, ...] = ()
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Captioned:
    """A picture (a file's path, or its bytes) and what it shows."""

    image: Path | bytes
    text: str


@dataclass(frozen=True)
class Labelled:
    """A text (str) or a picture (a file's path, or its bytes), and its class."""

    input: str | Path | bytes
    label: str


@dataclass(frozen=True)
class Spoken:
    """A sound (a file's path, or its bytes), what is said in it, and in which language, where that is told."""

    audio: Path | bytes
    text: str
    language: str | None = None


Value: TypeAlias = (
    Text | Completion | Conversation | Preference | Judged | Prompted | Pair | Captioned | Labelled | Spoken
)


def input_of(value: Value) -> str | bytes:
    """What a model is given of a row, as one text or as a picture's or sound's bytes."""
    match value:
        case Text(text):
            return text
        case Conversation(messages):
            first = next((i for i, m in enumerate(messages) if m["role"] == "assistant"), len(messages))
            return said(messages[:first])
        case Completion(prompt=prompt) | Preference(prompt=prompt) | Judged(prompt=prompt) | Prompted(prompt=prompt):
            return said(prompt)
        case Pair(query=query):
            return query
        case Captioned(image=given) | Labelled(input=given) | Spoken(audio=given):
            return given if isinstance(given, (str, bytes)) else str(given)


def text_of(value: Value) -> str:
    """All words of a row, a line a part: what it has in common with others is looked for in these."""
    match value:
        case Text(text) | Captioned(text=text) | Spoken(text=text):
            return text
        case Conversation(messages):
            return said(messages)
        case Completion(prompt, completion):
            return f"{prompt}\n{completion}"
        case Judged(prompt, completion):
            return f"{said(prompt)}\n{said(completion)}"
        case Preference(prompt, chosen, rejected):
            return f"{said(prompt)}\n{said(chosen)}\n{said(rejected)}"
        case Prompted(prompt):
            return said(prompt)
        case Pair(query, positive):
            return f"{query}\n{positive}"
        case Labelled(given, label):
            return given if isinstance(given, str) else label


def said(text: Said) -> str:
    """A text as it is; of messages their contents, a line each."""
    if isinstance(text, str):
        return text
    return "\n".join(m["content"] for m in text if isinstance(m.get("content"), str))
