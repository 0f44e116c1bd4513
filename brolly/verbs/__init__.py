"""Each verb, its options and its result: said once for Python, the command line, HTTP and remote models. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from brolly.verbs.making import Draw as Draw
from brolly.verbs.making import Drawing as Drawing
from brolly.verbs.making import DrawOptions as DrawOptions
from brolly.verbs.making import Picture as Picture
from brolly.verbs.making import Speak as Speak
from brolly.verbs.making import SpeakOptions as SpeakOptions
from brolly.verbs.making import Speech as Speech
from brolly.verbs.options import check_ranges as check_ranges
from brolly.verbs.options import option as option
from brolly.verbs.options import read_options as read_options
from brolly.verbs.perceiving import Classification as Classification
from brolly.verbs.perceiving import ClassifyOptions as ClassifyOptions
from brolly.verbs.perceiving import Embed as Embed
from brolly.verbs.perceiving import Embedding as Embedding
from brolly.verbs.perceiving import Embeddings as Embeddings
from brolly.verbs.perceiving import EmbedOptions as EmbedOptions
from brolly.verbs.perceiving import Ranked as Ranked
from brolly.verbs.perceiving import RerankOptions as RerankOptions
from brolly.verbs.perceiving import Segment as Segment
from brolly.verbs.perceiving import Transcribe as Transcribe
from brolly.verbs.perceiving import TranscribeOptions as TranscribeOptions
from brolly.verbs.perceiving import Transcript as Transcript
from brolly.verbs.perceiving import Word as Word
from brolly.verbs.remote import Remotely as Remotely
from brolly.verbs.remote import RemoteOptions as RemoteOptions
from brolly.verbs.tuning import Adapter as Adapter
from brolly.verbs.tuning import Lora as Lora
from brolly.verbs.tuning import TuneOptions as TuneOptions
from brolly.verbs.writing import STOP as STOP
from brolly.verbs.writing import STOPS as STOPS
from brolly.verbs.writing import Chat as Chat
from brolly.verbs.writing import GenerateOptions as GenerateOptions
from brolly.verbs.writing import Generation as Generation
from brolly.verbs.writing import Options as Options
from brolly.verbs.writing import Piece as Piece
from brolly.verbs.writing import Score as Score
from brolly.verbs.writing import TokenLogprob as TokenLogprob
from brolly.verbs.writing import ToolCall as ToolCall
from brolly.verbs.writing import ToolDelta as ToolDelta
from brolly.verbs.writing import Usage as Usage
from brolly.verbs.writing import Write as Write
from brolly.verbs.writing import gather as gather


@dataclass(frozen=True)
class Task:
    """A verb: its name, the Hub's task tag, the kind of its options and of its result."""

    name: str
    tag: str
    options: type | None
    result: type


TASKS = {
    t.name: t
    for t in (
        Task("generate", "text-generation", GenerateOptions, Generation),
        Task("chat", "text-generation", GenerateOptions, Generation),
        Task("score", "text-generation", None, Score),
        Task("embed", "feature-extraction", EmbedOptions, Embeddings),
        Task("classify", "zero-shot-image-classification", ClassifyOptions, Classification),
        Task("rerank", "text-ranking", RerankOptions, Ranked),
        Task("transcribe", "automatic-speech-recognition", TranscribeOptions, Transcript),
        Task("draw", "text-to-image", DrawOptions, Drawing),
        Task("speak", "text-to-speech", SpeakOptions, Speech),
    )
}
