"""Log-mel frames: against openai-whisper and transformers, and in pieces as in one."""

from __future__ import annotations

import numpy as np
import pytest

from brolly.media.audio.mel import HOP, N_FFT, N_FRAMES, WINDOW, Mel, filters, floored, log_mel, loudest

RNG = np.random.default_rng(0)
SOUNDS = {
    "noise": RNG.standard_normal(100_007),
    "a tone that dies away": np.sin(np.arange(90_000) * 0.3) * np.exp(-np.arange(90_000) / 9000),
    "silence": np.zeros(5000),
    "clicks": RNG.random(48_000) > 0.999,
    "shorter than a window of the transform": RNG.standard_normal(201),
}


@pytest.mark.parametrize("n_mels", [80, 128])
def test_filters_are_those_of_librosa_and_transformers(n_mels: int) -> None:
    whisper = pytest.importorskip("whisper")
    transformers = pytest.importorskip("transformers")
    assert np.abs(filters(n_mels) - whisper.audio.mel_filters("cpu", n_mels).numpy()).max() < 1e-8
    theirs = transformers.WhisperFeatureExtractor(feature_size=n_mels).mel_filters.T
    assert np.abs(filters(n_mels) - theirs).max() < 1e-8


@pytest.mark.parametrize("n_mels", [80, 128])
@pytest.mark.parametrize("sound", SOUNDS)
def test_frames_equal_openai_s_and_transformers(sound: str, n_mels: int) -> None:
    whisper = pytest.importorskip("whisper")
    transformers = pytest.importorskip("transformers")
    samples = SOUNDS[sound].astype(np.float32)
    for padding in (0, WINDOW):
        ours, theirs = log_mel(samples, n_mels, padding), whisper.log_mel_spectrogram(samples, n_mels, padding)
        assert ours.shape == theirs.shape and ours.dtype == np.float32
        assert np.abs(ours - theirs.numpy()).max() < 1e-6
    filled = np.pad(samples, (0, WINDOW - len(samples)))
    extract = transformers.WhisperFeatureExtractor(feature_size=n_mels)
    theirs = extract(samples, sampling_rate=16000, return_tensors="np").input_features[0]
    assert log_mel(filled, n_mels).shape == (n_mels, N_FRAMES)
    assert np.abs(log_mel(filled, n_mels) - theirs).max() < 1e-6


@pytest.mark.parametrize("sound", SOUNDS)
def test_pieces_of_any_length_make_the_frames_of_the_whole(sound: str) -> None:
    samples = SOUNDS[sound].astype(np.float32)
    for longest in (3, 170, 9000):
        cuts = np.cumsum(RNG.integers(0, longest + 1, size=min(2 * len(samples) // longest, 4000) + 1))
        pieces = np.split(samples, cuts[cuts < len(samples)])
        mel = Mel()
        frames = np.concatenate([*map(mel.push, pieces), mel.finish(WINDOW)], axis=1)
        whole = log_mel(samples, padding=WINDOW)
        assert np.abs(floored(frames, mel.loudest) - whole).max() < 1e-6
        assert loudest(pieces) == pytest.approx(mel.loudest)


def test_a_frame_comes_as_soon_as_its_samples_are_there() -> None:
    mel = Mel()
    assert [mel.push(np.ones(100, np.float32)).shape[1] for _ in range(2)] == [0, 0]
    assert mel.push(np.ones(1, np.float32)).shape == (80, 1)
    assert mel.push(np.ones(HOP, np.float32)).shape == (80, 1)


def test_the_shortest_sounds_have_frames_or_none() -> None:
    assert log_mel(np.zeros(0, np.float32)).shape == (80, 0)
    assert log_mel(np.ones(1, np.float32)).shape == (80, 0)
    one = log_mel(np.ones(1, np.float32), padding=WINDOW)
    assert one.shape == (80, N_FRAMES) and np.isfinite(one).all()
    assert log_mel(np.ones(N_FFT, np.float32)).shape == (80, N_FFT // HOP)
