"""Which language is spoken, by the token that would follow the start of a transcript."""

from __future__ import annotations

import numpy as np
import torch

from brolly.engine.listen import Heard
from brolly.errors import UnsupportedTask
from brolly.tasks.transcribe.attempts import Ear
from brolly.tasks.transcribe.frames import Floats


def hear(ear: Ear, windows: list[Floats]) -> Heard:
    """Windows of frames, heard together."""
    return ear.listener.hear(torch.from_numpy(np.stack(windows)))


def languages(ear: Ear, heard: Heard) -> list[dict[str, float]]:
    """Each window's probabilities, the likeliest first. Raises UnsupportedTask at an English-only model."""
    if not ear.tokens.multilingual:
        raise UnsupportedTask("this Whisper hears English alone; it cannot tell languages apart.")
    codes, ids = list(ear.tokens.languages), list(ear.tokens.languages.values())
    shares = ear.listener.begin(heard, [ear.tokens.sot]).prompt_logits()[:, ids].softmax(-1)
    found = (dict(zip(codes, row, strict=True)) for row in shares.tolist())
    return [dict(sorted(row.items(), key=lambda one: -one[1])) for row in found]


def likeliest(shares: dict[str, float]) -> str:
    return next(iter(shares))
