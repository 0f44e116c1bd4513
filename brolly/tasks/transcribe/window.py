"""A window's tokens → drafts of segments, and where the next window begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from brolly.media.audio.mel import HOP, RATE
from brolly.media.audio.whisper_tokens import STEP, WhisperTokens
from brolly.verbs import Segment, TranscribeOptions, Word

FRAMES = 100  # a second
PER_STEP = 2  # frames of one step of a timestamp


class Written(NamedTuple):
    """What a window says, and what decoding thought of it."""

    tokens: list[int]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float

    def silent(self, options: TranscribeOptions) -> bool:
        """Nobody speaks: the model says so, and its text is none that it believes in."""
        if options.no_speech_threshold is None or self.no_speech_prob <= options.no_speech_threshold:
            return False
        return options.logprob_threshold is None or self.avg_logprob <= options.logprob_threshold

    def failed(self, options: TranscribeOptions) -> bool:
        """It repeats itself, or is unlikely where someone speaks."""
        most, least = options.compression_ratio_threshold, options.logprob_threshold
        unlikely = least is not None and self.avg_logprob < least
        if unlikely and options.no_speech_threshold is not None and self.no_speech_prob > options.no_speech_threshold:
            return False
        return unlikely or (most is not None and self.compression_ratio > most)


class Done(NamedTuple):
    """The segments of a window, and the frame up to which the sound is accounted for."""

    segments: list[Segment]
    frame: int


@dataclass
class Draft:
    """A segment that may still be changed: times in seconds of the whole recording."""

    start: float
    end: float
    tokens: list[int]
    words: list[Word] | None = None


class Cut(NamedTuple):
    """A window's drafts, how many frames they account for, and whether silence follows the last one."""

    drafts: list[Draft]
    n_frames: int
    closed: bool


def seconds(frames: int) -> float:
    return frames * HOP / RATE


def cut(ids: Sequence[int], start: int, n_frames: int, tokens: WhisperTokens, *, alone: bool = False) -> Cut:
    """Segments lie between pairs of times. What follows the last pair belongs to the next window, which begins there;
    if the window stands `alone`, it is a segment too."""
    offset, begin = seconds(start), tokens.timestamp_begin
    is_time = [i >= begin for i in ids]
    closed = is_time[-2:] == [False, True]
    ends = [i for i in range(1, len(ids)) if is_time[i - 1] and is_time[i]]
    if not ends:
        last = next((i for i in reversed(ids) if i >= begin), begin)
        length = seconds(n_frames) if last == begin else (last - begin) * STEP
        return Cut([Draft(offset, offset + length, list(ids))], n_frames, closed)
    if closed:
        ends.append(len(ids))
    drafts = []
    for first, end in zip([0, *ends[:-1]], ends, strict=True):
        started, ended = (offset + (ids[i] - begin) * STEP for i in (first, end - 1))
        drafts.append(Draft(started, ended, list(ids[first:end])))
    if closed:
        return Cut(drafts, n_frames, True)
    if alone and len(rest := list(ids[ends[-1] :])) > 1:
        drafts.append(Draft(offset + (rest[0] - begin) * STEP, offset + seconds(n_frames), rest))
        return Cut(drafts, n_frames, False)
    return Cut(drafts, (ids[ends[-1] - 1] - begin) * PER_STEP, False)


def last_end(drafts: Sequence[Draft]) -> float | None:
    """When the last word ends, or where there are none the last segment."""
    words = next((d.words for d in reversed(drafts) if d.words), None)
    return words[-1].end if words else drafts[-1].end if drafts else None


def spelled(tokens: WhisperTokens, drafts: Sequence[Draft], written: Written) -> list[Segment]:
    """Drafts as they are handed on, but those that say nothing or take no time."""
    found = []
    for draft in drafts:
        text = tokens.decode(i for i in draft.tokens if i < tokens.eot)
        if draft.start != draft.end and text.strip():
            words = None if draft.words is None else tuple(draft.words)
            found.append(Segment(draft.start, draft.end, text, tuple(draft.tokens), *written[1:], words))
    return found
