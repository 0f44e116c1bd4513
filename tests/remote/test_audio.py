"""Sound by a model that runs elsewhere: heard, translated, spoken."""

from __future__ import annotations

import io
import json
import wave
from pathlib import Path
from typing import Any

import pytest

from brolly.cli import main
from brolly.errors import BadAnswer, MediaError, OptionError
from brolly.remote import Remote
from brolly.remote.dialects.openai import audio
from brolly.remote.target import parse
from brolly.verbs import SpeakOptions, TranscribeOptions
from tests.remote import more
from tests.remote.fakes.openai import FakeOpenAI
from tests.remote.fakes.server import Reply
from tests.remote.more import alike, ours, theirs

fake = more.fake  # a fixture

TEXT = "The quick brown fox. It jumps."


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    path = tmp_path / "talk.wav"
    path.write_bytes(sound())
    return path


def sound() -> bytes:
    made = io.BytesIO()
    with wave.open(made, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(b"\x00\x01" * 1600)
    return made.getvalue()


HEARD: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("whisper-1", {}, {"response_format": "verbose_json"}),
    ("whisper-1", {"language": "English", "prompt": "Foxes.", "temperature": 0.2},
     {"response_format": "verbose_json", "language": "en", "prompt": "Foxes.", "temperature": 0.2}),
    ("whisper-1", {"words": True},
     {"response_format": "verbose_json", "timestamp_granularities": ["segment", "word"]}),
    ("gpt-4o-transcribe", {"prompt": "Foxes."}, {"response_format": "json", "prompt": "Foxes."}),
    ("gpt-transcribe", {"hotwords": "fox, kite"}, {"response_format": "json", "keywords": ["fox", "kite"]}),
]  # fmt: skip


@pytest.mark.parametrize(("model", "options", "said"), HEARD)
def test_we_send_what_the_package_sends_and_hear_the_same(
    fake: FakeOpenAI, talk: Path, model: str, options: dict[str, Any], said: dict[str, Any]
) -> None:
    told = theirs(fake).audio.transcriptions.create(model=model, file=talk, **said)
    found = ours(model).transcribe(talk, **options)
    alike(fake.requests[-2], fake.requests[-1], named=True)
    assert found.text == told.text == TEXT
    if model == "whisper-1":
        assert found.language == "en" and found.duration == told.duration == 3.0
        if not options.get("words"):
            assert [(s.start, s.end, s.text) for s in found.segments] == [
                (s.start, s.end, s.text) for s in told.segments
            ]
            assert found.segments[0].tokens == (50364, 440) and found.segments[0].avg_logprob == -0.25
    else:
        assert found.segments == () and found.usage is not None and found.usage.completion_tokens == 8
        assert found.language == ("en" if model == "gpt-transcribe" else "")


def test_words_are_put_into_their_segments(fake: FakeOpenAI, talk: Path) -> None:
    found = ours("whisper-1").transcribe(talk, words=True)
    assert [[w.word for w in s.words or ()] for s in found.segments] == [
        [" The", " quick", " brown", " fox"], [" It", " jumps"],
    ]  # fmt: skip
    assert found.words[0].probability is None and found.words[-1].end == 3.0


def test_a_translation_goes_where_the_package_sends_it(fake: FakeOpenAI, talk: Path) -> None:
    with pytest.deprecated_call():
        told = theirs(fake).audio.translations.create(model="whisper-1", file=talk, response_format="verbose_json")
    found = ours("whisper-1").transcribe(talk, translate=True)
    alike(fake.requests[-2], fake.requests[-1], named=True)
    assert found.text == told.text and fake.requests[-1].path.endswith("/audio/translations")


def test_bytes_get_a_name_that_tells_what_they_are(fake: FakeOpenAI) -> None:
    for data, name in ((sound(), "audio.wav"), (b"fLaC", "audio.flac"), (b"\0\0\0\x20ftypM4A ", "audio.mp4")):
        ours("whisper-1").transcribe(data)
        (part,) = (part for part in fake.requests[-1].parts if part.name == "file")
        assert part.filename == name and part.data == data


@pytest.mark.parametrize(
    ("model", "options", "why"),
    [
        ("whisper-1", {"beam_size": 3}, "has no beam_size"),
        ("whisper-1", {"best_of": 3, "vad": True}, "has no vad, best_of|has no best_of, vad"),
        ("whisper-1", {"hotwords": "fox"}, "has no hotwords"),
        ("whisper-1", {"temperature": (0.0, 0.5)}, "takes one, from 0 to 1"),
        ("whisper-1", {"temperature": 1.5}, "takes one, from 0 to 1"),
        ("whisper-1", {"translate": True, "language": "de"}, "without language"),
        ("whisper-1", {"language": "Klingon"}, "Klingon"),
        ("gpt-4o-transcribe", {"words": True}, "has no words"),
        ("gpt-4o-transcribe", {"translate": True}, "has no translate"),
        ("gpt-4o-transcribe-diarize", {"prompt": "a"}, "has no prompt"),
        ("whisper-1", {"no_speech_threshold": None}, "has no no_speech_threshold"),
    ],
)
def test_what_the_vendor_has_no_word_for_is_refused(
    fake: FakeOpenAI, model: str, options: dict[str, Any], why: str
) -> None:
    with pytest.raises(OptionError, match=why):
        ours(model).transcribe(sound(), **options)
    assert not fake.requests


def test_a_seed_changes_no_meaning(fake: FakeOpenAI) -> None:
    with pytest.warns(UserWarning, match="has no seed"):
        assert ours("whisper-1").transcribe(sound(), seed=1).text == TEXT


@pytest.mark.parametrize(
    "body",
    [
        None, [], {}, {"text": 7}, {"text": "a", "segments": {}}, {"text": "a", "segments": [{}]},
        {"text": "a", "segments": [{"start": 0, "end": float("nan"), "text": "a"}]},
        {"text": "a", "segments": [{"start": -1, "end": 1, "text": "a"}]},
        {"text": "a", "segments": [{"start": 0, "end": 1, "text": None}]},
        {"text": "a", "words": [{"start": 0, "end": True, "word": "a"}]}, {"text": "a", "words": ["a"]},
    ],
)  # fmt: skip
def test_what_is_no_transcript_is_a_bad_answer(body: Any) -> None:
    with pytest.raises(BadAnswer):
        audio.heard(body)


def test_odd_numbers_and_languages_do_no_harm() -> None:
    body = {"text": " a ", "language": ["x"], "duration": "long", "usage": [1], "languages": "en", "segments": None}
    found = audio.heard(body)
    assert (found.text, found.language, found.duration, found.segments, found.usage) == ("a", "", 0.0, (), None)
    words = [{"start": 0, "end": 1, "word": "ja"}, {"start": 1, "end": 2, "word": "nein"}]
    found = audio.heard({"text": "ja nein", "language": "german", "words": words})
    assert found.language == "de" and found.segments[0].text == " ja nein" and len(found.words) == 2


SPOKEN: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"voice": "alloy", "response_format": "mp3"}),
    ({"voice": "coral", "format": "wav", "speed": 1.5, "instructions": "warmly"},
     {"voice": "coral", "response_format": "wav", "speed": 1.5, "instructions": "warmly"}),
]  # fmt: skip


@pytest.mark.parametrize(("options", "said"), SPOKEN)
def test_a_text_is_spoken_as_the_package_has_it(
    fake: FakeOpenAI, options: dict[str, Any], said: dict[str, Any]
) -> None:
    told = theirs(fake).audio.speech.create(model="gpt-4o-mini-tts", input="Good morning.", **said)
    found = ours("gpt-4o-mini-tts").speak("Good morning.", **options)
    alike(fake.requests[-2], fake.requests[-1])
    assert found.data == told.content and found.format == said["response_format"]


def test_what_is_no_sound_is_told(fake: FakeOpenAI) -> None:
    for reply in (
        Reply(200, {"content-type": "text/html"}, b"<html>"),
        Reply(200, {"content-type": "audio/mpeg"}, b""),
    ):
        fake.faults.append(lambda _, reply=reply: reply)
        with pytest.raises(BadAnswer, match="sound"):
            ours("gpt-4o-mini-tts").speak("a")
    with pytest.raises(OptionError, match="has no instructions"):
        ours("tts-1").speak("a", instructions="warmly")
    with pytest.raises(OptionError, match="nothing to speak"):
        audio.speak(" ", SpeakOptions(), parse("openai:tts-1"))
    with pytest.raises(OptionError, match="4096"):
        ours("tts-1").speak("a" * 5000)


def test_a_compatible_address_hears_with_times() -> None:
    call = audio.transcribe(sound(), "a.wav", TranscribeOptions(), parse("http://127.0.0.1:1/v1#whisper"))
    assert call.form["response_format"] == "verbose_json" and call.path == "/audio/transcriptions"


def test_brolly_transcribe_and_speak(
    fake: FakeOpenAI, talk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["transcribe", "openai:whisper-1", str(talk), "--format", "srt"]) == 0
    assert "00:00:01,500 --> 00:00:03,000" in capsys.readouterr().out
    out = tmp_path / "morning.wav"
    assert main(["speak", "openai:gpt-4o-mini-tts", "Good morning.", "-o", str(out), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["format"] == "wav" and out.read_bytes()[:4] == b"RIFF"
    assert main(["speak", "openai:gpt-4o-mini-tts", "a", "-o", str(out), "--format", "mp3"]) == 2
    assert "would hold mp3" in capsys.readouterr().err
    assert main(["speak", "openai:gpt-4o-mini-tts", "a", "-o", str(tmp_path / "a.txt")]) == 2


@pytest.mark.parametrize("data", [b"", b"Dear Ann,\nthe pump\tis here.\n", b"%PDF-1.7 ...", b"\x89PNG\r\n\x1a\n..."])
def test_what_is_no_sound_is_not_sent(data: bytes) -> None:
    with pytest.raises(MediaError, match="expected a sound"):
        Remote("openai:whisper-1").transcribe(data)


def test_nothing_is_not_drawn() -> None:
    with pytest.raises(OptionError, match="nothing to draw"):
        Remote("openai:gpt-image-2").draw(" ")
