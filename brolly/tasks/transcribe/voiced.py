"""A sound without its silences, and where in it each moment lay."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from brolly.media.audio import RATE
from brolly.media.audio.speech import LATE, speech
from brolly.tasks.transcribe.frames import Floats
from brolly.verbs import Segment

LONGEST = 25.0  # seconds of speech that are handed on at once


def stretches(pieces: Iterable[Floats]) -> Iterator[tuple[float, Floats]]:
    """Each stretch of speech: when it begins, in seconds, and its samples. Long ones come in parts."""
    held, first, n_heard = np.empty(0, np.float32), 0, 0  # samples, and which the first of them is
    waiting: list[Floats] = []

    def listened() -> Iterator[Floats]:
        nonlocal n_heard
        for piece in pieces:
            waiting.append(piece)
            n_heard += len(piece)
            if sum(map(len, waiting)) > LONGEST * RATE:
                forget(n_heard - round((LONGEST + LATE + 1) * RATE))
            yield piece

    def forget(before: int) -> None:
        nonlocal held, first
        held = np.concatenate([held, *waiting])
        waiting.clear()
        skipped = min(max(before - first, 0), len(held))
        held, first = held[skipped:].copy(), first + skipped

    for start, end in speech(listened(), LONGEST):
        begin = round(start * RATE)
        forget(begin)
        yield first / RATE, held[: round(end * RATE) - first].copy()


class Timeline:
    """Stretches of a sound, joined: moments of what is left → moments of the whole."""

    def __init__(self, pieces: Iterable[Floats]) -> None:
        self._stretches = stretches(pieces)
        self._starts: list[float] = []  # of each stretch in what is left, in seconds
        self._shifts: list[float] = []  # what was left out before it

    def __iter__(self) -> Iterator[Floats]:
        n_samples = 0
        for start, samples in self._stretches:
            self._starts.append(n_samples / RATE)
            self._shifts.append(start - n_samples / RATE)
            n_samples += len(samples)
            yield samples

    def start(self, time: float) -> float:
        return self._when(time, bisect_right(self._starts, time))

    def end(self, time: float) -> float:
        """As `start`, but what lies between two stretches belongs to the first of them."""
        return self._when(time, bisect_left(self._starts, time))

    def _when(self, time: float, place: int) -> float:
        return round(time + self._shifts[max(place - 1, 0)], 3) if self._shifts else time

    def whole(self, segment: Segment) -> Segment:
        """A segment of what is left, with its times in the whole."""
        words = segment.words and tuple(
            replace(w, start=self.start(w.start), end=self.end(w.end)) for w in segment.words
        )
        return replace(segment, start=self.start(segment.start), end=self.end(segment.end), words=words)
