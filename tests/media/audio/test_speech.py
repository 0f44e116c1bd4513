"""Speech is found where it is, and silence, noise and hum are not taken for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from brolly.media.audio import RATE, open_audio
from brolly.media.audio.speech import speech
from tests.media.audio.sounds import JFK


def around_silence() -> Any:
    return np.concatenate([np.zeros(5 * RATE), open_audio(JFK).samples(), np.zeros(6 * RATE)]).astype(np.float32)


@pytest.mark.parametrize("noise", [0.0, 0.003, 0.03])
def test_a_sentence_between_silences_is_found(noise: float) -> None:
    sound = around_silence() + noise * np.random.default_rng(0).standard_normal(len(around_silence())).astype(
        np.float32
    )
    found = list(speech([sound]))
    assert 4.7 < found[0][0] < 5.6 and 9 < found[-1][1] < 10
    assert sum(end - start for start, end in found) > 2.5
    assert all(a[1] < b[0] for a, b in zip(found, found[1:], strict=False))


@pytest.mark.parametrize("kind", ["silence", "hiss", "hum", "clicks", "nothing", "one sample"])
def test_what_is_no_speech_is_not_found(kind: str) -> None:
    t, draw = np.arange(10 * RATE) / RATE, np.random.default_rng(1)
    sound = {
        "silence": 0 * t,
        "hiss": 0.1 * draw.standard_normal(len(t)),
        "hum": 0.3 * np.sin(2 * np.pi * 100 * t),
        "clicks": 0.9 * (draw.random(len(t)) < 1e-4),
        "nothing": t[:0],
        "one sample": t[:1],
    }[kind]
    assert list(speech([sound.astype(np.float32)])) == []


def test_pieces_of_any_length_give_the_same() -> None:
    sound = around_silence()
    whole = list(speech([sound]))
    for size in (700, 16_000, 100_000):
        assert list(speech(sound[at : at + size] for at in range(0, len(sound), size))) == whole


def test_a_stretch_is_told_soon_after_its_end() -> None:
    told: list[float] = []

    def pieces() -> Any:
        sound = around_silence()
        for at in range(0, len(sound), 1600):
            told.append(at / RATE)
            yield sound[at : at + 1600]

    *_, (_, end) = [(told[-1], end) for _, end in speech(pieces()) if told[-1] < 15] or [(0, 99)]
    assert end < 10
