"""A sound's log-mel frames, window by window, in constant memory."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from brolly.errors import MediaError
from brolly.media.audio import AudioStream
from brolly.media.audio.mel import HOP, N_FRAMES, RATE, WINDOW, Mel, floored
from brolly.media.audio.mel import loudest as loudest_of

Floats = NDArray[np.float32]


class Frames:
    """Frames of a sound that comes in pieces, from a place that only moves on.

    `loudest` is what they are held against: that of the whole sound where it is known, else the loudest so far.
    """

    def __init__(self, pieces: Iterable[Floats], n_mels: int, loudest: float | None = None) -> None:
        self._pieces, self._mel, self.loudest = iter(pieces), Mel(n_mels), loudest
        self._held, self._first = np.empty((n_mels, 0), np.float32), 0  # frames, and which the first of them is
        self._n_samples = 0
        self.length: int | None = None  # of the whole sound in frames, once it is known

    def window(self, start: int, most: int = N_FRAMES) -> tuple[Floats, int]:
        """Up to `most` frames from `start` on, with zeros up to a whole window, and how many are sound."""
        self._read(start, start + most)
        frames = self._held[:, : max(self._known(start + most) - start, 0)]
        out = np.zeros((len(frames), N_FRAMES), np.float32)
        out[:, : frames.shape[1]] = self._floored(frames)
        return out, frames.shape[1]

    def opening(self) -> Floats:
        """The first window, with silence behind a sound that is shorter: what a language is told by."""
        self._read(0, N_FRAMES)
        return self._floored(self._held[:, :N_FRAMES])

    def ends_within(self, time: float, seconds: float) -> bool:
        """The whole sound ends less than so long after a time."""
        self._read(self._first, int((time + seconds) * RATE / HOP) + 2)
        return self.length is not None and self.length * HOP / RATE - time < seconds

    def _known(self, frame: int) -> int:
        return frame if self.length is None else min(frame, self.length)

    def _floored(self, frames: Floats) -> Floats:
        return floored(frames, self._mel.loudest if self.loudest is None else self.loudest)

    def _read(self, start: int, end: int) -> None:
        """Hold the frames from `start` up to `end`, as far as there is sound; those before are forgotten."""
        new = [self._held]
        n_held = self._first + self._held.shape[1]
        while n_held < end and self.length is None:
            piece = next(self._pieces, None)
            if piece is None:
                new.append(self._mel.finish(padding=WINDOW))
                self.length = self._n_samples // HOP
            else:
                new.append(self._mel.push(piece))
                self._n_samples += len(piece)
            n_held += new[-1].shape[1]
            if n_held <= start:  # far behind what is wanted
                new, self._first = [self._held[:, :0]], n_held
        held = np.concatenate(new, axis=1) if len(new) > 1 else self._held
        skipped = min(max(start - self._first, 0), held.shape[1])
        self._held, self._first = held[:, skipped:], self._first + skipped


def frames_of(sound: AudioStream, n_mels: int, *, exact: bool) -> Frames:
    """A sound's frames. `exact` holds them against its loudest moment, as OpenAI's does: what is longer than a window
    is heard once before, where that can be done; a stream is held against the loudest so far."""
    frames = Frames(sound, n_mels)
    frames.opening()
    if frames.length is None and exact:
        try:
            again = sound.again()
        except MediaError:
            return frames
        frames.loudest = loudest_of(again, n_mels)
    return frames
