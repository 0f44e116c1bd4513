"""Segments → what players and people read: txt, srt, vtt, tsv and json, a piece of text a segment, as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from typing import Any

from brolly.verbs import Segment, Transcript, Word


def clock(seconds: float, *, hours: bool = False, mark: str = ".") -> str:
    """1.5 → 00:01.500; the hours where there are any, or always."""
    rest, ms = divmod(round(seconds * 1000), 1000)
    h, rest = divmod(rest, 3600)
    return f"{f'{h:02d}:' if hours or h else ''}{rest // 60:02d}:{rest % 60:02d}{mark}{ms:03d}"


def txt(segments: Iterable[Segment]) -> Iterator[str]:
    """A line a segment."""
    return (f"{s.text.strip()}\n" for s in segments)


def tsv(segments: Iterable[Segment]) -> Iterator[str]:
    """Start and end in milliseconds, and the text."""
    yield "start\tend\ttext\n"
    for s in segments:
        text = s.text.strip().replace("\t", " ")
        yield f"{round(1000 * s.start)}\t{round(1000 * s.end)}\t{text}\n"


def vtt(segments: Iterable[Segment], *, highlight: bool = False) -> Iterator[str]:
    """WebVTT (W3C)."""
    yield "WEBVTT\n\n"
    for start, end, text in cues(segments, highlight):
        yield f"{clock(start)} --> {clock(end)}\n{text}\n\n"


def srt(segments: Iterable[Segment], *, highlight: bool = False) -> Iterator[str]:
    """SubRip: numbered cues, hours always, a comma before the milliseconds."""
    for i, (start, end, text) in zip(count(1), cues(segments, highlight), strict=False):
        yield f"{i}\n{clock(start, hours=True, mark=',')} --> {clock(end, hours=True, mark=',')}\n{text}\n\n"


def cues(segments: Iterable[Segment], highlight: bool = False) -> Iterator[tuple[float, float, str]]:
    """A cue a segment, as long as its words; or, to highlight each as it is spoken, one a word and one a pause."""
    for s in segments:
        if s.words is None:
            yield s.start, s.end, s.text.strip().replace("-->", "->")
        elif s.words and not highlight:
            yield s.words[0].start, s.words[-1].end, spelled(s.words)
        elif s.words:
            last = s.words[0].start
            for i, word in enumerate(s.words):
                if clock(last) != clock(word.start):
                    yield last, word.start, spelled(s.words)
                yield word.start, word.end, spelled(s.words, i)
                last = word.end


def spelled(words: Sequence[Word], marked: int | None = None) -> str:
    """Words as one text, the marked one underlined."""
    texts = [words[0].word.strip(), *(w.word for w in words[1:])]
    if marked is not None:
        text = texts[marked].lstrip()
        texts[marked] = f"{texts[marked].removesuffix(text)}<u>{text}</u>"
    return "".join(texts)


def as_json(found: Transcript, *, whole: bool = True) -> dict[str, Any]:
    """What openai-whisper writes; in short, only what was said when."""
    rows = []
    for i, s in enumerate(found.segments):
        words = [{"word": w.word, "start": w.start, "end": w.end, "probability": w.probability} for w in s.words or ()]
        row: dict[str, Any] = {"start": s.start, "end": s.end, "text": s.text}
        if whole:
            row = {
                "id": i, **row, "tokens": list(s.tokens), "temperature": s.temperature, "avg_logprob": s.avg_logprob,
                "compression_ratio": s.compression_ratio, "no_speech_prob": s.no_speech_prob,
            }  # fmt: skip
        rows.append(row if whole and s.words is None else {**row, "words": words})
    return {"text": found.text, "language": found.language, "segments": rows}


WRITERS: dict[str, Callable[..., Iterator[str]]] = {"txt": txt, "srt": srt, "vtt": vtt, "tsv": tsv}
