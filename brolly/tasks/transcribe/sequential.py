"""One window after the other, each begun where the last one's speech ended, and told what was said before it."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from brolly.media.audio.mel import N_FRAMES
from brolly.tasks.transcribe import guards
from brolly.tasks.transcribe.attempts import Ear, attempt
from brolly.tasks.transcribe.context import Context
from brolly.tasks.transcribe.frames import Frames
from brolly.tasks.transcribe.language import hear
from brolly.tasks.transcribe.window import FRAMES, Cut, Done, Draft, cut, last_end, seconds, spelled
from brolly.tasks.transcribe.words import add_words
from brolly.verbs import TranscribeOptions


def sequential(
    ear: Ear, frames: Frames, language: str, options: TranscribeOptions, generator: torch.Generator | None,
    context: Context | None = None,
) -> Iterator[Done]:  # fmt: skip
    """The segments of each window, as soon as it is done; none where nobody speaks."""
    context = context or Context(ear.tokens, language, options, ear.n_prompt)
    start, until = 0, 0.0  # where the window begins, in frames; when the last word ended, in seconds
    while True:
        mel, n_frames = frames.window(start)
        if not n_frames:
            return
        heard = hear(ear, [mel])
        written = attempt(ear, heard, context.prompt(), options, generator)[0]
        if written.silent(options):
            start += n_frames
            yield Done([], start)
            continue
        found = cut(written.tokens, start, n_frames, ear.tokens)
        following = start + found.n_frames
        if options.words:
            add_words(ear, heard, [found.drafts], [start], [n_frames], language, [until], translate=options.translate)
            drafts, following = _resumed(found, frames, guards.Span(start, n_frames, N_FRAMES), until, options)
            if drafts is None:  # silence, then something odd: from there again
                start = following
                yield Done([], start)
                continue
            found = found._replace(drafts=drafts)
            until = end if (end := last_end(drafts)) is not None else until
        said = spelled(ear.tokens, found.drafts, written)
        context.add([i for segment in said for i in segment.tokens], written.temperature)
        start = following if following > start else start + n_frames  # words may end where their window begins
        yield Done(said, start)


def _resumed(
    found: Cut, frames: Frames, span: guards.Span, until: float, options: TranscribeOptions
) -> tuple[list[Draft] | None, int]:
    """What is kept of a window whose words are known, and the frame to go on from."""
    drafts, following = found.drafts, span.start + found.n_frames
    end = last_end(drafts)
    if not found.closed and end is not None and end > seconds(span.start):
        following = round(end * FRAMES)
    threshold = options.hallucination_silence_threshold
    if threshold is None:
        return drafts, following
    if not found.closed:
        following = guards.behind(drafts, span, threshold) or following
    if leap := guards.leap(drafts, span, threshold):
        return None, leap
    i = guards.lone(drafts, span, threshold, until)
    if i is not None:
        odd, drafts = drafts[i], drafts[:i]
        following = round(max(seconds(span.start) + 1, odd.start) * FRAMES)
        if frames.ends_within(odd.end, threshold):
            following = span.start + span.n_frames
    return drafts, following
