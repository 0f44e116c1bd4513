"""Sound → text, as OpenAI's Whisper is decoded (Radford et al. 2022, §4.5), and windows side by side for speed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from brolly.errors import OptionError
from brolly.media.audio import AudioStream
from brolly.media.audio.languages import language_code
from brolly.tasks.transcribe.attempts import Ear
from brolly.tasks.transcribe.batched import batched
from brolly.tasks.transcribe.context import Context
from brolly.tasks.transcribe.frames import Frames, frames_of
from brolly.tasks.transcribe.language import hear, languages, likeliest
from brolly.tasks.transcribe.sequential import sequential
from brolly.tasks.transcribe.voiced import Timeline, stretches
from brolly.tasks.transcribe.window import seconds
from brolly.verbs import Segment, TranscribeOptions, Transcript

__all__ = ["Ear", "LEAST_CONTEXT", "Transcribing", "detect_language"]
LEAST_CONTEXT = 16  # tokens: half of them a window's text, and beside it what begins and ends one


def detect_language(ear: Ear, sound: AudioStream) -> dict[str, float]:
    """Languages by falling probability, by a sound's first half minute."""
    return languages(ear, hear(ear, [frames_of(sound, ear.n_mels, exact=False).opening()]))[0]


class Transcribing(Iterator[Segment]):
    """The segments of a sound, each as soon as it is ready.

    `language` is known from the first one on, `heard` is how many seconds are done with. A sound of unknown length is
    heard utterance by utterance with `vad`, so that text comes at each pause.
    """

    def __init__(self, ear: Ear, sound: AudioStream, options: TranscribeOptions) -> None:
        self.language, self.heard = said_language(ear, options), 0.0
        self.duration = sound.duration  # seconds, None where nobody knows
        self._ear, self._sound, self._options = ear, sound, options
        self._generator: torch.Generator | None = None
        if options.seed is not None:
            self._generator = torch.Generator(ear.listener.device).manual_seed(options.seed % 2**63)
        live = options.vad and sound.duration is None
        self._segments = self._utterances() if live else self._run()

    def __next__(self) -> Segment:
        return next(self._segments)

    def _run(self) -> Iterator[Segment]:
        options, timeline = self._options, Timeline(self._sound) if self._options.vad else None
        if timeline:
            frames = Frames(timeline, self._ear.n_mels)
        else:
            frames = frames_of(self._sound, self._ear.n_mels, exact=options.exact)
        language = self._tell(frames)
        way = batched if options.batch_size > 1 else sequential
        for done in way(self._ear, frames, language, options, self._generator):
            end = seconds(min(done.frame, frames.length or done.frame))
            self.heard = timeline.end(end) if timeline else end
            yield from map(timeline.whole, done.segments) if timeline else done.segments

    def _utterances(self) -> Iterator[Segment]:
        context = None
        for start, samples in stretches(self._sound):
            frames = Frames([samples], self._ear.n_mels)
            language = self._tell(frames)
            context = context or Context(self._ear.tokens, language, self._options, self._ear.n_prompt)
            for done in sequential(self._ear, frames, language, self._options, self._generator, context):
                self.heard = start + seconds(min(done.frame, frames.length or done.frame))
                yield from (moved(segment, start) for segment in done.segments)

    def _tell(self, frames: Frames) -> str:
        """The language, heard where it is not said."""
        if self.language is None:
            self.language = likeliest(languages(self._ear, hear(self._ear, [frames.opening()]))[0])
        return self.language

    def gather(self) -> Transcript:
        """All that is said, to the end."""
        return self.transcript(list(self))

    def transcript(self, segments: Sequence[Segment]) -> Transcript:
        """Segments as one text."""
        text = self._ear.tokens.decode(i for segment in segments for i in segment.tokens)
        return Transcript(text, self.language or "", tuple(segments), self.heard)


def moved(segment: Segment, by: float) -> Segment:
    """A segment that lies so many seconds later."""
    words = segment.words and tuple(replace(w, start=w.start + by, end=w.end + by) for w in segment.words)
    return replace(segment, start=segment.start + by, end=segment.end + by, words=words)


def said_language(ear: Ear, options: TranscribeOptions) -> str | None:
    """The code of the language that was asked for; None is yet to be heard. Raises OptionError."""
    if not ear.tokens.multilingual:
        if options.translate or (options.language and language_code(options.language) != "en"):
            raise OptionError("this Whisper hears English alone; leave out language and translate.")
        return "en"
    if options.language is None:
        return None
    token = ear.tokens.language_token(options.language)
    return next(code for code, its in ear.tokens.languages.items() if its == token)
