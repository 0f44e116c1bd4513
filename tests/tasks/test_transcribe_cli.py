"""`brolly transcribe` over a model that hears what it is told to."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from brolly.cli import main
from brolly.commands import transcribe as command
from brolly.errors import MediaError
from brolly.verbs import Segment, Transcript, Word

SAID = (
    Segment(0.0, 1.5, " Ask not", (1,), words=(Word(0.0, 0.5, " Ask", 0.9), Word(0.6, 1.5, " not", 0.8))),
    Segment(2.0, 3.25, " what --> your", (2,), words=(Word(2.0, 3.25, " what --> your", 0.7),)),
)


class Running:
    """Two segments, then what `end` raises."""

    def __init__(self, end: BaseException | None, words: bool) -> None:
        self.language, self.duration, self.heard, self._end, self._words = "en", 4.0, 0.0, end, words

    def __iter__(self) -> Iterator[Segment]:
        for segment in SAID:
            self.heard = segment.end
            yield segment if self._words else Segment(segment.start, segment.end, segment.text, segment.tokens)
        if self._end:
            raise self._end

    def transcript(self, segments: list[Segment]) -> Transcript:
        return Transcript("".join(s.text for s in segments), self.language, tuple(segments), self.heard)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the model was asked; a file named "stop" is interrupted, one named "bad" is broken."""
    given: dict[str, Any] = {}

    class Fake:
        def stream_transcript(self, source: str, **options: Any) -> Running:
            given[source] = options
            if Path(source).stem == "bad":
                raise MediaError(f"{source} is no sound.")
            return Running(KeyboardInterrupt() if Path(source).stem == "stop" else None, options.get("words", False))

    monkeypatch.setattr(command, "open_adapted", lambda args: Fake())
    return given


def test_text_comes_line_by_line_and_flags_become_options(asked: Any, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--language", "en", "--translate", "--prompt", "Names:", "--beam-size", "2", "--temperature", "0,0.4"]
    assert main(["transcribe", "model", *flags, "talk.mp3"]) == 0
    assert capsys.readouterr().out == "Ask not\nwhat --> your\n"
    assert asked["talk.mp3"] == {
        "language": "en", "translate": True, "prompt": "Names:", "beam_size": 2, "temperature": (0.0, 0.4)
    }  # fmt: skip


def test_json_is_text_language_and_segments(asked: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transcribe", "model", "talk.mp3", "--json", "--words"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["text"], found["language"]) == (" Ask not what --> your", "en")
    assert [sorted(s) for s in found["segments"]] == [["end", "start", "text", "words"]] * 2
    assert found["segments"][0]["words"][1] == {"word": " not", "start": 0.6, "end": 1.5, "probability": 0.8}


def test_an_interrupt_keeps_what_was_heard(asked: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["transcribe", "model", "stop.wav"]) == 130
    assert capsys.readouterr().out == "Ask not\nwhat --> your\n"
    assert main(["transcribe", "model", "stop.wav", "--json"]) == 130
    assert len(json.loads(capsys.readouterr().out)["segments"]) == 2
    assert main(["transcribe", "model", "stop.wav", "--out", str(tmp_path / "kept.srt")]) == 130
    assert (tmp_path / "kept.srt").read_text().count("-->") == 2


def test_of_a_folder_the_bad_file_is_listed_and_the_rest_is_done(
    asked: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder, out = tmp_path / "sounds", tmp_path / "texts"
    (folder / "more").mkdir(parents=True)
    for name in ("a.wav", "a.mp3", "bad.flac", "more/a.opus", "notes.txt"):
        (folder / name).touch()
    assert main(["transcribe", "model", str(folder), "--out", str(out), "--format", "vtt"]) == 1
    assert sorted(str(p.relative_to(out)) for p in out.rglob("*.vtt")) == ["a.vtt", "a.wav.vtt", "more/a.vtt"]
    told = capsys.readouterr().err
    assert "bad.flac is no sound." in told and "1 of 4 inputs failed" in told


def test_what_cannot_be_asked_is_told_before_a_model_is_loaded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    wrong = [
        (["a.wav", "b.wav", "--format", "srt"], "name a folder with --out"),
        (["a.wav", "--temperature", "x"], "numbers between commas"),
        (["a.wav", "--beam-size", "0"], "beam_size is 0"),
        ([str(tmp_path)], "holds no file"),
        ([], "nothing to hear"),
    ]
    for words, told in wrong:
        try:
            code = main(["transcribe", "no-such-model", *words])
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        assert code == 2 and told in capsys.readouterr().err
