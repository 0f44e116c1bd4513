"""Where someone speaks: small, by sums alone, in constant memory.

A frame counts as voiced if it is louder than what is always there (the lowest level of the seconds around it), and if
its wave repeats itself at the pitch of a voice. A stretch of voiced frames is widened by a quarter of a second, for the
consonants at its ends, and joined to the next where less than half a second is left between them. So silence, steady
hum, hiss and clicks are skipped; song, most music and tones that come and go are taken for speech; whispers are lost,
and so is part of what is said under a hum that is as loud. It is to spare a transcriber what is surely no speech, not
to judge: over steady noise at 5 dB and above, it found 19 in 20 of the frames that Silero's network calls speech.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from brolly.media.audio.mel import RATE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

HOP, FRAME = 160, 640  # samples
BINS = slice(5, 128)  # of a transform of 1024: 80 Hz to 2 kHz, where voices have their pitch and its overtones
LAGS = slice(40, 240)  # samples: pitches of 67 to 400 Hz
BEFORE, AFTER = 400, 100  # frames in which the level of what is always there is sought
MARGIN = 6.0  # dB above it
LEAST = -60.0  # dB of full scale: what is softer is silence
REPEATS = 0.5  # correlation of a frame with itself, one pitch later
JOIN, WIDEN, SHORTEST = 0.5, 0.25, 0.06  # seconds
LATE = JOIN + 2 * WIDEN + (AFTER * HOP + FRAME) / RATE  # seconds from the end of a stretch until it is told


def speech(pieces: Iterable[Floats], longest: float = float("inf")) -> Iterator[tuple[float, float]]:
    """(start, end) in seconds of each stretch of speech, as soon as it is certain: LATE behind the sound, or behind
    `longest`, where a stretch is cut."""
    start = end = n_voiced = told = 0.0
    n_samples = 0

    def counted() -> Iterator[Floats]:
        nonlocal n_samples
        for piece in pieces:
            n_samples += len(piece)
            yield piece

    for at, voiced in _voiced(counted()):
        if n_voiced and at - end > JOIN + 2 * WIDEN:
            if n_voiced >= SHORTEST:
                yield max(start - WIDEN, told), end + WIDEN
            n_voiced = 0.0
        if voiced:
            start, end = start if n_voiced else at, at + HOP / RATE
            n_voiced += HOP / RATE
            if end - start + WIDEN >= longest:
                yield max(start - WIDEN, told), end
                n_voiced, told = 0.0, end
    if n_voiced >= SHORTEST:
        yield max(start - WIDEN, told), min(end + WIDEN, n_samples / RATE)


def _voiced(pieces: Iterable[Floats]) -> Iterator[tuple[float, bool]]:
    """The time of each frame's middle, and whether it is voiced."""
    import numpy as np

    levels = np.empty(0)  # of the frames since BEFORE the first undecided one
    repeats = np.empty(0)  # of the undecided ones
    n_decided = 0
    for new_levels, new_repeats, last in _frames(pieces):
        levels, repeats = np.concatenate([levels, new_levels]), np.concatenate([repeats, new_repeats])
        n_ready = len(repeats) if last else max(len(repeats) - AFTER, 0)
        if not n_ready:
            continue
        n_past = len(levels) - len(repeats)
        around = np.pad(levels, (BEFORE - n_past, AFTER), constant_values=np.inf)
        windows = np.lib.stride_tricks.sliding_window_view(around, BEFORE + AFTER + 1)[:n_ready]
        floor = np.maximum(windows.min(axis=1), LEAST)
        found = (levels[n_past : n_past + n_ready] > floor + MARGIN) & (repeats[:n_ready] > REPEATS)
        for i, voiced in enumerate(found.tolist()):
            yield ((n_decided + i) * HOP + FRAME // 2 - HOP // 2) / RATE, voiced
        n_decided += n_ready
        repeats = repeats[n_ready:]
        levels = levels[max(len(levels) - len(repeats) - BEFORE, 0) :]


def _frames(pieces: Iterable[Floats]) -> Iterator[tuple[Any, Any, bool]]:
    """Level (dB) and self-likeness of the frames that each piece completes; True with the last ones."""
    import numpy as np

    window = np.hanning(FRAME).astype(np.float32)
    ideal = np.fft.irfft(np.abs(np.fft.rfft(window, 1024)) ** 2)  # the window's own likeness fades with the lag
    fade = (ideal[0] / ideal)[LAGS]
    rest = np.zeros(0, np.float32)

    def measured(samples: Floats) -> tuple[Any, Any]:
        n_frames = max((len(samples) - FRAME) // HOP + 1, 0)
        levels, repeats = np.empty(n_frames), np.empty(n_frames)
        for at in range(0, n_frames, 512):
            part = samples[at * HOP : (min(at + 512, n_frames) - 1) * HOP + FRAME]
            frames = np.lib.stride_tricks.sliding_window_view(part, FRAME)[::HOP] * window
            power = np.zeros((len(frames), 513))
            power[:, BINS] = np.abs(np.fft.rfft(frames, 1024)[:, BINS]) ** 2
            likeness = np.fft.irfft(power)
            levels[at : at + 512] = 10 * np.log10(likeness[:, 0] / ideal[0] + 1e-12)
            repeats[at : at + 512] = (likeness[:, LAGS] * fade).max(axis=1) / (likeness[:, 0] + 1e-12)
        return levels, repeats

    for piece in pieces:
        samples = np.concatenate([rest, piece])
        levels, repeats = measured(samples)
        rest = samples[len(levels) * HOP :]
        yield levels, repeats, False
    yield np.empty(0), np.empty(0), True
