"""Windows side by side: each stands alone, so that many are heard and written about at once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from brolly.media.audio.mel import N_FRAMES
from brolly.tasks.transcribe.attempts import Ear, attempt
from brolly.tasks.transcribe.context import Context
from brolly.tasks.transcribe.frames import Floats, Frames
from brolly.tasks.transcribe.language import hear
from brolly.tasks.transcribe.window import Done, cut, seconds, spelled
from brolly.tasks.transcribe.words import add_words
from brolly.verbs import TranscribeOptions

SOUGHT = 500  # frames at the end of a window among which the quietest moment is sought
SMOOTH = 21  # frames that a moment has


def batched(
    ear: Ear, frames: Frames, language: str, options: TranscribeOptions, generator: torch.Generator | None
) -> Iterator[Done]:
    """The segments of each window in order, `batch_size` windows at a time."""
    prompt = Context(ear.tokens, language, options, ear.n_prompt).prompt()
    windows = quiet_windows(frames)
    while batch := [window for _, window in zip(range(options.batch_size), windows, strict=False)]:
        mels, starts, lengths = zip(*batch, strict=True)
        heard = hear(ear, list(mels))
        written = attempt(ear, heard, prompt, options, generator)
        drafts = [
            [] if one.silent(options) else cut(one.tokens, start, length, ear.tokens, alone=True).drafts
            for one, start, length in zip(written, starts, lengths, strict=True)
        ]
        if options.words:
            before = [seconds(start) for start in starts]
            add_words(ear, heard, drafts, starts, lengths, language, before, translate=options.translate)
        for its, one, start, length in zip(drafts, written, starts, lengths, strict=True):
            yield Done(spelled(ear.tokens, its, one), start + length)


def quiet_windows(frames: Frames) -> Iterator[tuple[Floats, int, int]]:
    """(frames, start, length) of windows that are cut where it is quiet, so that few words are."""
    start = 0
    while True:
        mel, length = frames.window(start)
        if not length:
            return
        if length == N_FRAMES and not frames.ends_within(seconds(start + N_FRAMES), 0.01):
            level = np.convolve(mel[:, -SOUGHT:].mean(0), np.ones(SMOOTH), "valid")
            length = N_FRAMES - SOUGHT + SMOOTH // 2 + int(level.argmin())
            mel[:, length:] = 0
        yield mel, start, length
        start += length
