"""Subtitles: as openai-whisper's writers write them, byte for byte."""

from __future__ import annotations

import io
from dataclasses import asdict

import pytest

from brolly.media.audio.subtitles import WRITERS, as_json
from brolly.verbs import Segment, Transcript, Word

SAID = (
    Segment(0.0, 1.5, " Ask not", (1, 2), words=(Word(0.0, 0.5, " Ask", 0.9), Word(0.6, 1.5, " not", 0.8))),
    Segment(2.0, 3.25, " what --> your\tcountry", (3,), words=()),
    Segment(3599.9996, 3725.5, " 東京は", (4,), words=(Word(3599.9996, 3725.5, "東京は", 0.5),)),
)
BARE = tuple(Segment(s.start, s.end, s.text, s.tokens) for s in SAID)


def as_theirs(segments: tuple[Segment, ...]) -> dict[str, object]:
    rows = [asdict(s) for s in segments]
    return {"segments": [{k: v for k, v in row.items() if v is not None} for row in rows]}


@pytest.mark.parametrize("name", sorted(WRITERS))
@pytest.mark.parametrize("segments", [SAID, BARE, ()], ids=["words", "bare", "nothing"])
def test_a_file_is_openais(name: str, segments: tuple[Segment, ...]) -> None:
    utils = pytest.importorskip("whisper.utils", reason="openai-whisper, the reference, is not installed")
    out = io.StringIO()
    utils.get_writer(name, "").write_result(as_theirs(segments), file=out)
    assert "".join(WRITERS[name](segments)) == out.getvalue()


@pytest.mark.parametrize("name", ["srt", "vtt"])
def test_words_are_underlined_as_they_are_spoken(name: str) -> None:
    utils = pytest.importorskip("whisper.utils", reason="openai-whisper, the reference, is not installed")
    out = io.StringIO()
    utils.get_writer(name, "").write_result(as_theirs(SAID), file=out, highlight_words=True)
    assert "".join(WRITERS[name](SAID, highlight=True)) == out.getvalue()


def test_json_holds_every_number_or_only_what_was_said_when() -> None:
    found = Transcript(" Ask not", "en", SAID[:1], 2.0)
    assert as_json(found)["segments"][0]["tokens"] == [1, 2]
    assert list(as_json(found, whole=False)["segments"][0]) == ["start", "end", "text", "words"]
