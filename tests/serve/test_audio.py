"""/v1/audio by OpenAI's client: five formats, streams, and forms that are broken, too large or left half-way."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from brolly import load
from brolly.media.audio.subtitles import srt, vtt
from brolly.serve.turns import _TURNS
from brolly.verbs import Segment
from tests.serve.conftest import Running, Settings

pytest.importorskip("av")

SPEECH = Path(__file__).parents[1] / "fixtures" / "audio" / "fuzzy.flac"


@pytest.fixture(scope="module")
def said() -> Any:
    return load("mini-whisper").transcribe(SPEECH, words=True, language="en")


@pytest.fixture
def create(openai_client: Any) -> Any:
    return lambda **given: openai_client.audio.transcriptions.create(model="mini-whisper", file=SPEECH, **given)


def test_a_sound_becomes_the_text_that_the_model_hears(create: Any, said: Any) -> None:
    found = create()
    assert found.text == said.text.strip() and found.text.endswith("who was sad.")
    assert found.usage.type == "duration" and found.usage.seconds == pytest.approx(2.82, abs=0.05)


def test_each_format_is_what_the_command_line_writes(create: Any, said: Any) -> None:
    spoken = load("mini-whisper").transcribe(SPEECH, language="en").segments
    assert create(response_format="text", language="en") == f"{said.text.strip()}\n"
    assert create(response_format="srt", language="en") == "".join(srt(spoken))
    assert create(response_format="vtt", language="english") == "".join(vtt(spoken))


def test_verbose_json_has_the_times_that_were_asked_for(create: Any, said: Any) -> None:
    found = create(response_format="verbose_json", timestamp_granularities=["word", "segment"])
    assert (found.language, found.task, found.text) == ("english", "transcribe", said.text.strip())
    assert [(w.word, w.start, w.end) for w in found.words] == [(w.word.strip(), w.start, w.end) for w in said.words]
    assert [(s.id, s.text, tuple(s.tokens)) for s in found.segments] == [
        (i, s.text, s.tokens) for i, s in enumerate(said.segments)
    ]
    words = create(response_format="verbose_json", timestamp_granularities=["word"])
    assert words.segments is None and len(words.words) == len(said.words)
    assert create(response_format="verbose_json").words is None


def test_the_stream_says_what_the_whole_answer_says(create: Any) -> None:
    events = list(create(stream=True))
    assert [e.type for e in events[-2:]] == ["transcript.text.delta", "transcript.text.done"]
    assert "".join(e.delta for e in events[:-1]) == events[-1].text == create().text


def test_many_segments_are_told_one_by_one(create: Any, brolly: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    create()
    model = brolly.app.state.house.entries["mini-whisper"].model
    parts = [Segment(i, i + 1, text) for i, text in enumerate([" One", "", " two.", "\n Three "])]

    def spoken(sound: Any, **_: Any) -> Any:
        return Told(iter(parts))

    monkeypatch.setattr(model, "stream_transcript", spoken)
    events = list(create(stream=True))
    assert [e.delta for e in events[:-1]] == ["One", " two.", "\n Three "]
    assert events[-1].text == create().text == "One two.\n Three "


class Told:
    """What hears, where a test says what it heard."""

    language, heard = "en", 4.0

    def __init__(self, parts: Iterator[Segment]) -> None:
        self.parts = parts

    def __iter__(self) -> Iterator[Segment]:
        return self.parts


@pytest.mark.filterwarnings("ignore:deprecated")
def test_translations_are_in_english(openai_client: Any, brolly: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """mini-whisper hears English alone, and so must be asked in the right way."""
    model, given = brolly.app.state.house.entries["mini-whisper"].model, {}
    hear = model.stream_transcript
    monkeypatch.setattr(model, "stream_transcript", lambda sound, **o: (given.update(o), hear(sound, **o))[1])
    found = openai_client.audio.translations.create(model="mini-whisper", file=SPEECH, response_format="verbose_json")
    assert given["translate"] is True and found.model_extra["task"] == "translate" and found.text


def form(brolly: Running, path: str = "audio/transcriptions", **fields: Any) -> httpx.Response:
    files = {"file": ("a.flac", SPEECH.read_bytes())} if fields.pop("file", True) else None
    data = {"model": "mini-whisper", **fields}
    return httpx.post(f"{brolly.v1}/{path}", data=data, files=files or {"x": ("y", b"")}, timeout=60)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"model": "mini-llm"}, "cannot transcribe"),
        ({"response_format": "docx"}, "response_format"),
        ({"temperature": "2"}, "temperature"),
        ({"temperature": "warm"}, "temperature"),
        ({"timestamp_granularities[]": "word"}, "goes with verbose_json alone"),
        ({"timestamp_granularities[]": "letter"}, "timestamp_granularities"),
        ({"stream": "true", "response_format": "srt"}, "a stream tells text alone"),
        ({"language": "klingon"}, "klingon"),
        ({"file": False}, "expected a file"),
        ({"file": False, "url": "http://127.0.0.1/a.flac"}, "--fetch"),
        ({"url": "data:,abc"}, "expected a file"),
        ({"file": False, "url": "data:,abc"}, "the sound is no sound"),
    ],
)
def test_what_cannot_be_heard_is_told(brolly: Running, given: dict[str, Any], why: str) -> None:
    found = form(brolly, **given)
    assert found.status_code == 400, found.text
    assert why in found.json()["error"]["message"]


def test_a_broken_sound_has_its_own_status_in_a_stream_too(openai_client: Any) -> None:
    openai = pytest.importorskip("openai")
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match="bad.mp3 is no sound"):
            openai_client.audio.transcriptions.create(
                model="mini-whisper", file=("bad.mp3", b"not a sound"), stream=stream
            )


def test_a_sound_may_come_by_url_and_fields_in_any_order(brolly: Running) -> None:
    from base64 import b64encode

    url = f"data:audio/flac;base64,{b64encode(SPEECH.read_bytes()).decode()}"
    assert form(brolly, file=False, url=url, language="", prompt="").json() == form(brolly).json()


@pytest.mark.parametrize(
    "content", [b"", b"x", b"--b\r\n\r\n", b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--", b"--b--\r\n"]
)
def test_bodies_that_are_no_forms_are_400(brolly: Running, content: bytes) -> None:
    for kind, status in (("multipart/form-data; boundary=b", 400), ("multipart/form-data", 400), ("text/plain", 415)):
        found = httpx.post(f"{brolly.v1}/audio/transcriptions", content=content, headers={"content-type": kind})
        assert found.status_code == status, found.text


def deleted_files() -> int:
    """Files that this process still holds though they have no name any more."""
    count = 0
    for fd in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            count += os.readlink(f"/proc/self/fd/{fd}").endswith("(deleted)")
    return count


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts files by Linux's /proc")
def test_uploads_are_bounded_and_leave_nothing_behind(server: Any, tmp_path: Path) -> None:
    running = server(Settings(models=("mini-whisper",), port=0, upload_bytes=3 << 20))
    before, named = deleted_files(), set(tmp_path.parent.iterdir())
    large = b"x" * (2 << 20)  # beyond what is kept in memory
    post = {"url": f"{running.v1}/audio/transcriptions", "data": {"model": "mini-whisper"}, "timeout": 60}
    assert httpx.post(**post, files={"file": ("a", large)}).status_code == 400  # no sound
    assert httpx.post(**post, files={"file": ("a", large * 2)}).status_code == 413

    def chunks() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        yield from [large] * 2

    said = {"content-type": "multipart/form-data; boundary=b"}
    assert httpx.post(post["url"], content=chunks(), headers=said, timeout=60).status_code == 413
    found = httpx.post(**post, files={"file": ("a.flac", SPEECH.read_bytes() + large)})
    assert found.status_code == 200, found.text
    until = time.monotonic() + 10
    while deleted_files() > before and time.monotonic() < until:
        time.sleep(0.01)
    assert deleted_files() == before and set(tmp_path.parent.iterdir()) == named


def test_one_is_heard_at_a_time_and_too_many_are_told_to_come_again(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = server(Settings(models=("mini-whisper",), port=0, waiting=2))
    assert form(running).status_code == 200
    model = running.app.state.house.entries["mini-whisper"].model
    go_on, hear, lock = threading.Event(), model.stream_transcript, threading.Lock()
    at_once: list[int] = []

    def held(sound: Any, **options: Any) -> Any:
        assert go_on.wait(20) and lock.acquire(blocking=False), "two at a time"
        try:
            at_once.append(1)
            found = hear(sound, **options)
            return Told(iter(list(found)))
        finally:
            lock.release()

    monkeypatch.setattr(model, "stream_transcript", held)
    with ThreadPoolExecutor(3) as pool:
        first = [pool.submit(form, running) for _ in range(3)]
        until = time.monotonic() + 20
        while _TURNS[model].waiting < 3 and time.monotonic() < until:
            time.sleep(0.005)
        refused = form(running)
        assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
        go_on.set()
        assert [one.result().status_code for one in first] == [200] * 3
    assert len(at_once) == 3


def test_who_leaves_a_stream_stops_the_work(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    running = server(Settings(models=("mini-whisper",), port=0))
    assert form(running).status_code == 200
    model = running.app.state.house.entries["mini-whisper"].model
    made: list[int] = []

    def endless() -> Iterator[Segment]:
        one = Segment(0, 1, " again")
        while True:
            made.append(1)
            yield replace(one)
            time.sleep(0.01)

    monkeypatch.setattr(model, "stream_transcript", lambda sound, **_: Told(endless()))
    post = {"data": {"model": "mini-whisper", "stream": "true"}, "files": {"file": ("a.flac", SPEECH.read_bytes())}}
    with httpx.stream("POST", f"{running.v1}/audio/transcriptions", timeout=60, **post) as answer:
        assert "again" in next(answer.iter_lines())
    until = time.monotonic() + 20
    while _TURNS[model].waiting and time.monotonic() < until:
        time.sleep(0.01)
    monkeypatch.undo()
    assert _TURNS[model].waiting == 0 and form(running).status_code == 200  # the same thread is free again
    count = len(made)
    time.sleep(0.1)
    assert len(made) == count
