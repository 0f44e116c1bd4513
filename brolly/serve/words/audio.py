"""Sound → text, as OpenAI has it: whole in five formats, or segment by segment. One at a time a model, in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import PlainTextResponse, Response

from brolly.media.audio import open_audio
from brolly.media.audio.languages import LANGUAGES
from brolly.media.audio.subtitles import WRITERS
from brolly.remote.content import bytes_of
from brolly.remote.hearing import Heard
from brolly.serve.account import took
from brolly.serve.app import house
from brolly.serve.elsewhere import Elsewhere
from brolly.serve.errors import Refused
from brolly.serve.fetch import content
from brolly.serve.provenance import provenance
from brolly.serve.streams import Events, event, in_stream, unless_left
from brolly.serve.tell import media_usage, reply
from brolly.serve.turns import turns
from brolly.serve.uploads import described, form
from brolly.serve.wire.audio import SpeechRequest, TranscriptionBody, TranscriptionForm, TranslationForm, VerboseBody
from brolly.serve.wire.common import ERRORS
from brolly.serve.words.images import unable
from brolly.verbs import Segment, Usage

router = APIRouter(tags=["audio"])
TYPES = {
    "mp3": "audio/mpeg", "opus": "audio/ogg", "aac": "audio/aac", "flac": "audio/flac", "wav": "audio/wav",
    "pcm": "audio/pcm",
}  # fmt: skip
SOUNDS: dict[int | str, dict[str, Any]] = {
    200: {"content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in TYPES.values()}}, **ERRORS,
}  # fmt: skip
WAYS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": TranscriptionBody | VerboseBody,
        "content": {
            "text/plain": {"schema": {"type": "string", "description": "For text, srt and vtt."}},
            "text/event-stream": {"schema": {"type": "string", "description": "transcript.text.delta, then .done"}},
        },
    },
    **ERRORS,
}


@router.post(
    "/v1/audio/transcriptions", response_model=None, responses=WAYS, openapi_extra=described(TranscriptionForm)
)
async def transcriptions(
    request: Request, given: Annotated[TranscriptionForm, Depends(form(TranscriptionForm))]
) -> Response:
    """What is said in a sound."""
    words = "word" in given.timestamp_granularities
    if words and given.response_format != "verbose_json":
        raise Refused(
            f"timestamp_granularities[] has word, and response_format is {given.response_format}; it goes with "
            "verbose_json alone.", param="timestamp_granularities",
        )  # fmt: skip
    return await heard(Hearing(request, given, language=given.language, words=words))


@router.post("/v1/audio/translations", response_model=None, responses=WAYS, openapi_extra=described(TranslationForm))
async def translations(
    request: Request, given: Annotated[TranslationForm, Depends(form(TranslationForm))]
) -> Response:  # fmt: skip
    """What is said in a sound, in English."""
    return await heard(Hearing(request, given, translate=True))


@router.post("/v1/audio/speech", response_model=None, responses=SOUNDS)
async def speech(request: Request, body: SpeechRequest) -> Response:
    """A text as sound. No family of this version speaks: only models that run elsewhere can."""
    if not house(request).find(body.model)[0].target:
        raise await unable(request, body.model, "speak")
    if not isinstance(body.voice, str | None) or body.stream_format not in (None, "audio"):
        raise Refused("A voice is a name here, and a sound comes as it is; leave stream_format out.", param="voice")
    given = {"voice": body.voice, "format": body.response_format, "speed": body.speed}
    given |= {"instructions": body.instructions}

    async def answer() -> Response:
        async with house(request).use(body.model, "speak") as use, use.model.counted():
            made = await use.model.aspeak(body.input, **{k: v for k, v in given.items() if v is not None})
            return Response(made.data, media_type=TYPES[made.format], headers=provenance(use).headers)

    return await unless_left(request, answer())


async def heard(hearing: Hearing) -> Response:
    if hearing.given.stream:
        return Events(hearing.events(), in_stream, hearing.headers)
    return await unless_left(hearing.request, hearing.whole())


class Hearing:
    """One request to write down a sound."""

    def __init__(self, request: Request, given: TranslationForm, **options: Any) -> None:
        self.request, self.given = request, given
        self.task = "translate" if options.get("translate") else "transcribe"
        self.headers: dict[str, str] = {}
        own = {"prompt": given.prompt, "hotwords": given.hotwords, "seed": given.seed, "beam_size": given.beam_size}
        self.options = {name: value for name, value in (options | own).items() if value is not None}
        self.options["vad"] = given.vad or bool(getattr(given, "chunking_strategy", None))
        if given.temperature:
            self.options["temperature"] = given.temperature
        if given.stream and given.response_format not in ("json", "text"):
            raise Refused(
                f"response_format is {given.response_format}, and a stream tells text alone; ask for json, or leave "
                "stream out.", param="stream",
            )  # fmt: skip

    @asynccontextmanager
    async def begun(self) -> AsyncIterator[tuple[Any, AsyncIterator[Segment]]]:
        """What hears (`language`, `heard`) and the segments, as soon as the sound proved to be one."""
        async with house(self.request).use(self.given.model, "transcribe") as use:
            self.headers.update(provenance(use).headers)
            model, sound, name = use.model, await self.sound(), self.name
            if isinstance(model, Elsewhere):
                found = await self.heard_elsewhere(model, sound)
                yield found, given(found)
                return

            def work() -> Iterator[Any]:
                found = model.stream_transcript(open_audio(sound, name=name), **self.options)
                yield found
                yield from found

            async with aclosing(turns(self.request, model).each(work)) as came:
                yield await anext(came), came

    async def heard_elsewhere(self, model: Elsewhere, sound: Any) -> Heard:
        """The same at once, as far as its vendor tells it."""
        data = await asyncio.to_thread(bytes_of, sound)
        async with model.counted():
            made = await model.atranscribe(data, name=self.title, **self.options)
        if made.usage is not None:
            took(made.usage.prompt_tokens, made.usage.completion_tokens)
        return Heard(lambda: made, str(model.target), self.given.response_format in WRITERS)

    @property
    def title(self) -> str:
        """The file's name as the client has it."""
        return (self.given.file and self.given.file.filename) or ""

    @property
    def name(self) -> str:
        """What errors call the sound."""
        return "".join(c for c in self.title if c.isprintable())[:100] or "the sound"

    async def sound(self) -> Any:
        """An open file, or the bytes of a URL."""
        file, url = self.given.file, self.given.url
        if (file is None) == (url is None):
            raise Refused("expected a file, or else a url.", param="file")
        if file is not None:
            return file.file
        settings = self.request.app.state.settings
        return await content(url or "", settings, settings.upload_bytes)

    async def events(self) -> AsyncGenerator[bytes, None]:
        """A delta a segment, then all of it."""
        async with self.begun() as (found, segments):
            yield b""  # the head may go out
            text = ""
            async for segment in segments:
                if more := following(text, segment):
                    text += more
                    yield event({"type": "transcript.text.delta", "delta": more})
            yield event({"type": "transcript.text.done", "text": text, "usage": usage(found)})

    async def whole(self) -> Response:
        """Everything, in the format that was asked for."""
        async with self.begun() as (found, came):
            segments = [segment async for segment in came]
        text, format = "", self.given.response_format
        for segment in segments:
            text += following(text, segment)
        if format in WRITERS:
            return PlainTextResponse("".join(WRITERS[format](segments)), headers=self.headers)
        if format == "text":
            return PlainTextResponse(f"{text}\n", headers=self.headers)
        body: dict[str, Any] = {"text": text, "usage": usage(found)}
        if format == "verbose_json":
            body |= {"task": self.task, "duration": found.heard}
            body["language"] = LANGUAGES.get(found.language or "", found.language or "")
            wanted = getattr(self.given, "timestamp_granularities", ["segment"])
            if "segment" in wanted:
                body["segments"] = [segment_body(i, s) for i, s in enumerate(segments)]
            if "word" in wanted:
                words = [w for s in segments for w in s.words or ()]
                body["words"] = [{"word": w.word.strip(), "start": w.start, "end": w.end} for w in words]
        return reply(body, self.headers)


def following(text: str, segment: Segment) -> str:
    """What a segment adds to the text before it; a text begins with a word."""
    return segment.text if text else segment.text.lstrip()


async def given(segments: Iterator[Segment]) -> AsyncIterator[Segment]:
    for segment in segments:
        yield segment


def usage(found: Any) -> dict[str, Any]:
    """Seconds that were heard; of a model elsewhere that counts tokens, those."""
    made: Usage | None = found.transcript(()).usage if isinstance(found, Heard) else None
    if made is None:
        return {"type": "duration", "seconds": round(found.heard, 3)}
    return {"type": "tokens", **media_usage(made)}


def segment_body(i: int, s: Segment) -> dict[str, Any]:
    return {
        "id": i, "seek": round(100 * s.start), "start": s.start, "end": s.end, "text": s.text, "tokens": list(s.tokens),
        "temperature": s.temperature, "avg_logprob": s.avg_logprob, "compression_ratio": s.compression_ratio,
        "no_speech_prob": s.no_speech_prob,
    }  # fmt: skip
