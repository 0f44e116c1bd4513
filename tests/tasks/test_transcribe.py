"""Whole transcripts: the same as openai-whisper's, token for token and word for word, on the same weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import islice
from typing import Any

import numpy as np
import pytest

pytest.importorskip("whisper", reason="openai-whisper, the reference, is not installed")
pytest.importorskip("av", reason="the audio extra is not installed")

import whisper.timing  # noqa: E402

from brolly.errors import OptionError, UnsupportedTask  # noqa: E402
from brolly.media.audio import AudioStream, open_audio  # noqa: E402
from tests.media.audio.sounds import JFK  # noqa: E402
from tests.tasks.whisper_reference import ENGLISH, V3, assert_same, ours, reference, sound, transcribed  # noqa: E402

CERTAIN = {"logprob_threshold": None, "no_speech_threshold": None, "temperature": (0.0,), "beam_size": 1}
EN = CERTAIN | {"language": "en"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(reference, ours) of a seed and a size, made once."""

    @cache
    def of(seed: int, **size: Any) -> tuple[Any, Any]:
        network = reference(seed, **size)
        return network, ours(network, tmp_path_factory.mktemp("whisper"))

    return of


@pytest.fixture(autouse=True)
def plain_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference's warping as it is written: to compile it takes longer than all that is warped here."""
    for name in ("dtw_cpu", "backtrace"):
        monkeypatch.setattr(whisper.timing, name, getattr(whisper.timing, name).py_func)


@pytest.mark.parametrize(
    ("seed", "seconds", "options"),
    [
        (11, 24, CERTAIN),
        (5, 12, EN | {"beam_size": 3, "patience": 2.0, "length_penalty": 0.6, "language": "de", "translate": True}),
        (7, 20, EN | {"beam_size": 5}),
        (7, 36, EN | {"words": True}),
        (6, 12, EN | {"language": "ja", "words": True}),
        (7, 36, EN | {"words": True, "hallucination_silence_threshold": 2.0}),
        (3, 14, EN | {"words": True, "hallucination_silence_threshold": 0.5}),
        (11, 62, EN | {"prompt": " My names: Ivo, Ada", "carry_prompt": True}),
        (11, 62, EN | {"condition_on_previous_text": False}),
        (11, 62, EN | {"no_speech_threshold": 1e-12}),
    ],
)
def test_a_transcript_is_openais(made: Any, seed: int, seconds: float, options: dict[str, Any]) -> None:
    network, model = made(seed)
    samples = sound(seconds)
    assert_same(model.transcribe(samples, **options), transcribed(network, samples, options))


@pytest.mark.parametrize("n_vocab", [ENGLISH, V3])
def test_other_vocabularies_are_read_as_openais(made: Any, n_vocab: int) -> None:
    network, model = made(7, n_vocab=n_vocab)
    options = CERTAIN | {"words": True}
    samples = sound(6)
    assert_same(model.transcribe(samples, **options), transcribed(network, samples, options))


def test_a_window_that_fails_is_tried_at_the_next_temperature_as_openais(made: Any) -> None:
    network, model = made(7)
    options = EN | {"beam_size": 2, "best_of": 2, "temperature": (0.0, 0.6), "logprob_threshold": -0.01, "seed": 7}
    samples = sound(5)
    found = model.transcribe(samples, **options)
    assert_same(found, transcribed(network, samples, options))
    assert {s.temperature for s in found.segments} == {0.6}


def test_languages_are_told_apart_as_openais(made: Any) -> None:
    network, model = made(11)
    mel = whisper.pad_or_trim(whisper.log_mel_spectrogram(sound(8), padding=480_000), 3000)
    _, expected = network.detect_language(mel)
    found = model.detect_language(sound(8))
    assert next(iter(found)) == max(expected, key=expected.get)
    assert found == pytest.approx(expected, abs=1e-6)
    _, english = made(0, n_vocab=ENGLISH)
    with pytest.raises(UnsupportedTask, match="English alone"):
        english.detect_language(sound(8))


def test_a_path_bytes_a_stream_and_samples_are_one_sound(made: Any) -> None:
    _, model = made(7)
    expected = model.transcribe(open_audio(JFK).samples(), **EN)
    with JFK.open("rb") as file:
        for source in (JFK, str(JFK), JFK.read_bytes(), file, open_audio(JFK)):
            assert model.transcribe(source, **EN) == expected


def test_segments_come_before_the_sound_ends_and_a_stream_is_heard_once(made: Any) -> None:
    _, model = made(7)
    n_read = 0

    def endless() -> Iterator[Any]:
        nonlocal n_read
        while True:
            for piece in np.split(sound(40), 40):
                n_read += 1
                yield piece

    running = model.stream_transcript(AudioStream("a stream", endless(), None, None), **EN)
    assert running.language == "en"
    assert len(list(islice(running, 2))) == 2
    assert n_read <= 92  # seconds: three windows at most


def test_windows_side_by_side_are_what_each_is_alone(made: Any) -> None:
    _, model = made(11)
    options = EN | {"words": True, "condition_on_previous_text": False}
    together = model.transcribe(sound(62), **options, batch_size=3)
    again = model.transcribe(sound(62), **options, batch_size=2)
    assert [replace(s, avg_logprob=0, words=None) for s in together.segments] == [
        replace(s, avg_logprob=0, words=None) for s in again.segments
    ]
    assert len(together.segments) > 2
    assert together.duration == len(sound(62)) / 16_000


def test_speech_alone_is_heard_and_keeps_its_times(made: Any) -> None:
    _, model = made(7)
    speech, silence = open_audio(JFK).samples(), np.zeros(16_000 * 40, np.float32)
    samples = np.concatenate([silence, speech, silence])
    for options in (EN | {"words": True}, EN | {"batch_size": 2}):
        found = model.transcribe(samples, vad=True, **options)
        assert 39 < found.segments[0].start < 45
    assert model.transcribe(silence, vad=True, **EN).segments == ()


def test_utterances_of_an_unending_stream_are_written_at_each_pause(made: Any) -> None:
    _, model = made(7)
    speech, n_read = open_audio(JFK).samples(), 0

    def microphone() -> Iterator[Any]:
        nonlocal n_read
        while True:
            for piece in np.array_split(np.concatenate([speech, np.zeros(64_000, np.float32)]), 20):
                n_read += len(piece)
                yield piece

    running = model.stream_transcript(AudioStream("a stream", microphone(), None, None), vad=True, **EN)
    first = next(running)
    assert n_read < len(speech) + 64_000
    assert first.start < 3
    assert next(s for s in running if s.start > 8).start < 12  # what is said again, after the pause


def test_what_a_model_cannot_do_is_told(made: Any) -> None:
    _, english = made(0, n_vocab=ENGLISH)
    _, model = made(7)
    for wrong in ({"language": "de"}, {"translate": True}):
        with pytest.raises(OptionError, match="English alone"):
            english.transcribe(JFK, **wrong)
    for options in ({"language": "klingon"}, {"language": "yue"}, {"temperature": ()}, {"temperature": "hot"}):
        with pytest.raises(OptionError):
            model.transcribe(JFK, **options)
