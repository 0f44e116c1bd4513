"""Words that are heard in silence: what Whisper makes up is short, long or unlikely, with silence around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from brolly.tasks.transcribe.window import FRAMES, Draft, last_end, seconds
from brolly.tasks.transcribe.words import CLOSING, OPENING
from brolly.verbs import Word

LOOKED_AT = 8  # words of a segment
BRIEF, LONG = 0.133, 2.0  # seconds: a word outside is odd
NEAR = 2.0  # seconds from a window's edge


class Span(NamedTuple):
    """A window's place in frames: its first, how many are sound, and how many a whole window has."""

    start: int
    n_frames: int
    whole: int


def oddness(word: Word) -> float:
    length = word.end - word.start
    unlikely = word.probability is not None and word.probability < 0.15
    return unlikely + 15 * max(BRIEF - length, 0) + max(length - LONG, 0)


def odd(draft: Draft | None) -> bool:
    """Its words are no speech, as far as one can tell."""
    if draft is None or not draft.words:
        return False
    words = [w for w in draft.words if w.word not in OPENING + CLOSING][:LOOKED_AT]
    score = sum(map(oddness, words))
    return score >= 3 or score + 0.01 >= len(words)


def spoken_in(drafts: Sequence[Draft]) -> Draft | None:
    return next((d for d in drafts if d.words), None)


def leap(drafts: list[Draft], span: Span, threshold: float) -> int | None:
    """The frame to go on from where a window begins with silence and then something odd; none of it is kept."""
    first = spoken_in(drafts)
    if first is None or not odd(first):
        return None
    gap = first.start - seconds(span.start)
    return span.start + round(gap * FRAMES) if gap > threshold else None


def behind(drafts: Sequence[Draft], span: Span, threshold: float) -> int | None:
    """The frame to go on from behind the last word: the next window, unless much is left of this one."""
    end = last_end(drafts)
    if end is None or end <= seconds(span.start):
        return None
    silence = seconds(span.start + span.whole) - end > threshold
    return round(end * FRAMES) if silence else span.start + span.n_frames


def lone(drafts: Sequence[Draft], span: Span, threshold: float, until: float) -> int | None:
    """The index of the first odd draft with silence, or more of its kind, on both sides."""
    begin, end = seconds(span.start), seconds(span.start + span.n_frames)
    for i, draft in enumerate(drafts):
        if not draft.words:
            continue
        if odd(draft):
            following = spoken_in(drafts[i + 1 :])
            next_start = following.words[0].start if following and following.words else end
            before = draft.start - until > threshold or draft.start < threshold or draft.start - begin < NEAR
            after = (
                next_start - draft.end > threshold
                or odd(following)
                or seconds(span.start + span.whole) - draft.end < NEAR
            )
            if before and after:
                return i
        until = draft.end
    return None
