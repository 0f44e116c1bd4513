"""OpenAI's /v1/audio: forms with a sound, what was said in it, and texts to be spoken."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import UploadFile
from pydantic import BeforeValidator, Field

from brolly.serve.wire.common import Answer, Open, Words

Format = Literal["json", "text", "srt", "verbose_json", "vtt"]
# some clients send a field that was left out as an empty one
Said = Annotated[str | None, BeforeValidator(lambda text: text or None)]


class TranslationForm(Open):
    """`file` or `url`, and what the model should know of it."""

    model: str
    file: UploadFile | None = Field(None, description="A sound, or a film's: WAV, FLAC, MP3, OGG, M4A, WebM, MP4 …")
    url: Said = Field(None, description="Instead of `file`: where the server may fetch it, or a data: URL.")
    prompt: Said = Field(None, description="Text to read before: names, spelling, style.")
    response_format: Format = "json"
    temperature: float = Field(0.0, ge=0, le=1, description="0 raises it by itself where a text reads badly.")
    stream: bool = False
    # brolly's own
    hotwords: Said = None
    vad: bool = Field(False, description="Hear only where someone speaks.")
    beam_size: int | None = Field(None, ge=1, le=64)
    seed: int | None = None


class TranscriptionForm(TranslationForm):
    language: Said = Field(None, description="What is spoken: a code like en; without it, it is heard.")
    timestamp_granularities: list[Literal["word", "segment"]] = Field(["segment"], alias="timestamp_granularities[]")
    chunking_strategy: Said = Field(None, description="auto or a server_vad object: hear only where someone speaks.")


class Duration(Answer):
    type: Literal["duration"] = "duration"
    seconds: float


class Tokens(Answer):
    type: Literal["tokens"] = "tokens"
    input_tokens: int
    output_tokens: int
    total_tokens: int


class TranscriptionBody(Answer):
    text: str
    usage: Duration | Tokens


class SegmentBody(Answer):
    """Times in seconds; `seek` is the start in hundredths of a second."""

    id: int
    seek: int
    start: float
    end: float
    text: str
    tokens: list[int]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float


class WordBody(Answer):
    word: str
    start: float
    end: float


class VerboseBody(Answer):
    """What was asked for by timestamp_granularities[] is there, the rest is not."""

    task: Literal["transcribe", "translate"]
    language: str
    duration: float
    text: str
    segments: list[SegmentBody] | None = None
    words: list[WordBody] | None = None
    usage: Duration | Tokens


class SpeechRequest(Open):
    model: str
    input: str
    voice: str | Words | None = None
    response_format: str = "mp3"
    speed: float | None = Field(None, ge=0.25, le=4)
    instructions: str | None = None
    stream_format: str | None = None
