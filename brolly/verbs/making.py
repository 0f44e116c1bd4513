"""Making pictures and speech from words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypedDict

from brolly.errors import OptionError
from brolly.verbs.options import check_ranges, option
from brolly.verbs.writing import Usage


@dataclass(frozen=True, kw_only=True)
class DrawOptions:
    """How to draw. None means: as the model does by itself."""

    n: int = option(1, "pictures", low=1, high=10)
    size: str | None = option(None, "WIDTHxHEIGHT in pixels, or a ratio like 16:9, as the model knows them")
    quality: str | None = option(None, "the vendor's word: low, medium, high …")
    background: str | None = option(None, "transparent, opaque or auto")
    format: str | None = option(None, "png, jpeg or webp")
    compression: int | None = option(None, "of jpeg and webp, in percent", low=0, high=100)
    seed: int | None = option(None, "the same seed gives the same picture")

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.format not in (None, "png", "jpeg", "webp"):
            raise OptionError(f"format is {self.format!r:.40}; expected png, jpeg or webp.")


@dataclass(frozen=True)
class Picture:
    """A picture's file, and the words that it was drawn from where the model changed them."""

    data: bytes = field(repr=False)
    format: str  # png, jpeg or webp, as its first bytes say
    prompt: str | None = None

    def _repr_mimebundle_(self, **_: object) -> dict[str, bytes]:
        """A notebook shows it."""
        return {f"image/{self.format}": self.data}


@dataclass(frozen=True)
class Drawing:
    """What was drawn."""

    pictures: tuple[Picture, ...]
    usage: Usage | None = None


@dataclass(frozen=True, kw_only=True)
class SpeakOptions:
    """How to speak."""

    voice: str | None = option(None, "the vendor's name of a voice")
    format: str = option("mp3", "mp3, opus, aac, flac, wav or pcm")
    speed: float | None = option(None, "1 is the voice's own", low=0.25, high=4)
    instructions: str | None = option(None, "tone, accent, mood")

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.format not in ("mp3", "opus", "aac", "flac", "wav", "pcm"):
            raise OptionError(f"format is {self.format!r:.40}; expected mp3, opus, aac, flac, wav or pcm.")


@dataclass(frozen=True)
class Speech:
    """A sound's file."""

    data: bytes = field(repr=False)
    format: str


class Draw(TypedDict, total=False):
    """DrawOptions as keyword arguments."""

    n: int
    size: str | None
    quality: str | None
    background: str | None
    format: str | None
    compression: int | None
    seed: int | None


class Speak(TypedDict, total=False):
    """SpeakOptions as keyword arguments."""

    voice: str | None
    format: str
    speed: float | None
    instructions: str | None
