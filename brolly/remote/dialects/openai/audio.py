"""OpenAI's /audio: what is said in a sound, and texts as sound."""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from brolly.errors import BadAnswer, OptionError
from brolly.media.audio.languages import LANGUAGES, UNSPACED, language_code
from brolly.remote.content import media_type
from brolly.remote.dialect import Call
from brolly.remote.dialects.openai.envelope import tokens
from brolly.remote.dialects.openai.envelope import told as told
from brolly.remote.target import Target
from brolly.remote.traits import traits_of
from brolly.verbs import Segment, SpeakOptions, TranscribeOptions, Transcript, Word

TRANSCRIBE = frozenset({"language", "translate", "words", "prompt", "temperature"})
SPEAK = frozenset({"voice", "format", "speed", "instructions"})
VOICE = "alloy"  # where none is named: the field is required
THOUGHT = ("temperature", "avg_logprob", "compression_ratio", "no_speech_prob")  # of a segment, in Segment's order
MOST = 1e15  # that a number may be; no sound is so long
PLAIN = TranscribeOptions()


def transcribe(data: bytes, name: str, options: TranscribeOptions, target: Target) -> Call:
    """A form with the sound. Times are asked for wherever the model tells them. Raises OptionError."""
    form: dict[str, Any] = {"model": target.model}
    timed = "segments" not in {*target.vendor.lacks, *traits_of(target).lacks}
    if options.translate:
        for other in ("language", "words"):
            if getattr(options, other):
                raise OptionError(f"{target} translates into English without {other}; leave it out.")
    if options.language is not None:
        form["language"] = language_code(options.language)
    if options.prompt is not None:
        form["prompt"] = options.prompt
    if options.hotwords is not None:
        form["keywords[]"] = [word.strip() for word in options.hotwords.split(",") if word.strip()]
    if options.temperature != PLAIN.temperature:
        if len(options.temperature) > 1 or options.temperature[0] > 1:
            said = ", ".join(map(str, options.temperature))
            raise OptionError(f"temperature is {said}; {target} takes one, from 0 to 1, and raises 0 by itself.")
        form["temperature"] = options.temperature[0]
    form["response_format"] = "verbose_json" if timed else "json"
    if options.words:
        form["timestamp_granularities[]"] = ["segment", "word"]
    path = "/audio/translations" if options.translate else "/audio/transcriptions"
    return Call(path, files=(("file", _file(data, name)),), form=form)


def heard(body: Any) -> Transcript:
    """What was said: of models that tell no times, the text alone. Raises BadAnswer."""
    text = body.get("text") if isinstance(body, Mapping) else None
    if not isinstance(text, str):
        raise BadAnswer("no transcript came; expected a text under text.")
    usage, named = body.get("usage"), body.get("languages")
    seconds = body.get("duration", usage.get("seconds") if isinstance(usage, Mapping) else None)
    language = body.get("language")
    if language is None and isinstance(named, list) and named and isinstance(named[0], Mapping):
        language = named[0].get("code")
    code = _code(language)
    segments = [_segment(row, at) for at, row in enumerate(_rows(body, "segments"))]
    words = [_word(row, at, "" if code in UNSPACED else " ") for at, row in enumerate(_rows(body, "words"))]
    return Transcript(text.strip(), code, _with_words(segments, words), max(_number(seconds) or 0.0, 0.0), tokens(body))


def speak(text: str, options: SpeakOptions, target: Target) -> Call:
    """The answer's body is the sound itself. Raises OptionError."""
    if not text.strip():
        raise OptionError("there is nothing to speak; give a text.")
    body: dict[str, Any] = {"model": target.model, "input": text, "voice": options.voice or VOICE}
    body["response_format"] = options.format
    if options.speed is not None:
        body["speed"] = options.speed
    if options.instructions is not None:
        body["instructions"] = options.instructions
    return Call("/audio/speech", body)


def _file(data: bytes, name: str) -> tuple[str, bytes, str]:
    """Its name, bytes and type: vendors tell a sound's format by the ending of its name."""
    kind = media_type(data) or _container(data) or mimetypes.guess_type(name)[0] or "application/octet-stream"
    if "." not in name.strip("."):
        name = f"{name or 'audio'}.{kind.partition('/')[2]}" if kind.startswith(("audio/", "video/")) else name
    return name, data, kind


def _container(data: bytes) -> str:
    if data[4:8] == b"ftyp":
        return "audio/mp4"
    return "audio/webm" if data.startswith(b"\x1a\x45\xdf\xa3") else ""


def _rows(body: Mapping[str, Any], name: str) -> Sequence[Any]:
    rows = body.get(name)
    if rows is not None and not isinstance(rows, list):
        raise BadAnswer(f"{name} of the transcript is {rows!r:.40}; expected a list.")
    return rows or ()


def _segment(row: Any, at: int) -> Segment:
    told = row if isinstance(row, Mapping) else {}
    ids = told.get("tokens")
    warm, likely, packed, silent = (_number(told.get(name)) or 0.0 for name in THOUGHT)
    return Segment(
        _seconds(row, "start", at), _seconds(row, "end", at), _text(row, "text", at),
        tuple(id for id in ids if type(id) is int) if isinstance(ids, list) else (), warm, likely, packed, silent,
    )  # fmt: skip


def _word(row: Any, at: int, space: str) -> Word:
    """A word as Whisper's tokens have it, with the blank before it that OpenAI leaves out."""
    text = _text(row, "word", at)
    return Word(_seconds(row, "start", at), _seconds(row, "end", at), text if text[:1] == " " else space + text, None)


def _with_words(segments: list[Segment], words: list[Word]) -> tuple[Segment, ...]:
    """Segments with the words whose middle lies before their end; what is behind the last joins it."""
    if words and not segments:
        segments = [Segment(words[0].start, words[-1].end, "".join(word.word for word in words))]
    found, at = [], 0
    for place, segment in enumerate(segments):
        first, last = at, place == len(segments) - 1
        while at < len(words) and (last or (words[at].start + words[at].end) / 2 <= segment.end):
            at += 1
        found.append(replace(segment, words=tuple(words[first:at])) if words else segment)
    return tuple(found)


def _code(language: Any) -> str:
    """A language's code: whisper-1 tells its name, gpt-transcribe the code."""
    if not isinstance(language, str):
        return ""
    said = language.strip().lower()[:40]
    return said if said in LANGUAGES else next((code for code, name in LANGUAGES.items() if name == said), said)


def _number(value: Any) -> float | None:
    """A number of JSON's that a float holds."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < MOST:
        return None
    return float(value)


def _seconds(row: Any, name: str, at: int) -> float:
    value = _number(row.get(name)) if isinstance(row, Mapping) else None
    if value is None or value < 0:
        raise BadAnswer(f"row {at} of the transcript has no time under {name}; expected seconds.")
    return value


def _text(row: Any, name: str, at: int) -> str:
    text = row.get(name) if isinstance(row, Mapping) else None
    if not isinstance(text, str):
        raise BadAnswer(f"row {at} of the transcript has no text under {name}.")
    return text
