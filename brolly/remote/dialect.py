"""What a dialect is: modules below `dialects`, of functions that know a vendor's words and nothing of connections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, NamedTuple, Protocol, cast

from brolly.errors import UnsupportedTask
from brolly.remote.ask import Ask
from brolly.remote.prices import Tab
from brolly.remote.target import Target
from brolly.remote.traits import traits_of
from brolly.remote.vendors import vendors
from brolly.verbs import (
    Drawing,
    DrawOptions,
    Embeddings,
    EmbedOptions,
    Piece,
    SpeakOptions,
    TranscribeOptions,
    Transcript,
)

DONE = "[DONE]"
ONE_OF = ("chat", "embed", "draw", "transcribe", "speak")  # what a model is for: few can more than one


@dataclass(frozen=True)
class Call:
    """One HTTP request: `path` goes behind the target's base. `body` is sent as JSON; `files`, where there are some, as
    multipart beside `form`. `safe`: whether sending it twice does no harm beyond its price. `tab`: what that may be."""

    path: str
    body: Mapping[str, Any] | None = None
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    files: Sequence[tuple[str, tuple[str, bytes, str]]] = ()  # field, (name, bytes, media type); it may recur
    form: Mapping[str, Any] = field(default_factory=dict)
    safe: bool = True
    tab: Tab | None = field(default=None, compare=False, repr=False)


class Told(NamedTuple):
    """What a vendor's error says in its own envelope: its kind or code, its message, the parameter that it names, and
    in how many seconds to come again, where the body tells that and no header does."""

    kind: str = ""
    message: str = ""
    param: str = ""
    after: float | None = None


class Reader(Protocol):
    """Makes pieces of one stream's events."""

    def push(self, event: str, data: Any) -> list[Piece]:
        """What became certain with an event: its name ("" if it has none) and its parsed JSON. Raises RemoteError."""
        ...

    def end(self) -> list[Piece]:
        """The connection ended. Raises BadAnswer where the answer did not."""
        ...


class Tells(Protocol):
    """What every dialect has."""

    def told(self, body: Any) -> Told:
        """An error's parsed body, of any JSON type."""
        ...


class Chat(Tells, Protocol):
    """A dialect of conversations. OPTIONS are the GenerateOptions that it has words for, shapes and stop among them;
    STOPS, where a module has it, how many stop texts it takes, and BLANK_STOPS whether one may be white space alone:
    others are looked for here. NAMES: whether a message may name who speaks."""

    OPTIONS: frozenset[str]

    def lacks(self, ask: Ask, target: Target) -> list[str]:
        """What of this it has no word for, a sentence each; none: it says it all."""
        ...

    def hints(self, ask: Ask, target: Target) -> list[str]:
        """What it leaves out that changes no meaning (a seed), a sentence each: warned of once, refused if strict."""
        ...

    def call(self, ask: Ask, target: Target) -> Call: ...
    def reader(self, ask: Ask, target: Target) -> Reader: ...

    def whole(self, body: Any, ask: Ask, target: Target) -> list[Piece]:
        """The pieces of an answer that was not streamed; each index's last one says why. Raises BadAnswer."""
        ...


class Count(Tells, Protocol):
    def count(self, ask: Ask, target: Target) -> Call: ...
    def counted(self, body: Any) -> int: ...


# Each of the next four may say which options it has words for: EMBED, DRAW, TRANSCRIBE, SPEAK, frozensets of names.
# Remote then refuses the others by itself.


class Embed(Tells, Protocol):
    most: int  # inputs a request; and, where there is such a bound, `most_bytes` of their text

    def embed(self, inputs: Sequence[Any], options: EmbedOptions, target: Target) -> Call:
        """Inputs are texts; another kind is an UnsupportedTask. Raises OptionError."""
        ...

    def vectors(self, body: Any, n: int) -> Embeddings:
        """As many as inputs, in their order. Raises BadAnswer."""
        ...


class Draw(Tells, Protocol):
    def draw(self, prompt: str, images: Sequence[bytes], options: DrawOptions, target: Target) -> Call: ...
    def drawn(self, body: Any) -> Drawing: ...


class Transcribe(Tells, Protocol):
    def transcribe(self, data: bytes, name: str, options: TranscribeOptions, target: Target) -> Call: ...
    def heard(self, body: Any) -> Transcript: ...


class Speak(Tells, Protocol):
    def speak(self, text: str, options: SpeakOptions, target: Target) -> Call:
        """The answer's body is the sound itself."""
        ...


class Listed(NamedTuple):
    """One model of a vendor's list. None: it does not tell."""

    id: str
    title: str = ""
    created: int | None = None  # seconds since 1970
    context: int | None = None
    verbs: tuple[str, ...] = ()


class List(Tells, Protocol):
    def models(self, target: Target, after: str) -> Call:
        """A page; `after` is "" at first, then what `listed` said."""
        ...

    def listed(self, body: Any) -> tuple[list[Listed], str]:
        """The page's models, and where the next one begins; "" where there is none."""
        ...


class Job(NamedTuple):
    """A hosted tuning: `state` is queued, running, paused, done, failed or cancelled; `model` is what came of it."""

    id: str
    state: str
    model: str = ""
    message: str = ""


class Tune(Tells, Protocol):
    """A dialect of hosted tuning. TUNE are the options that it has words for."""

    TUNE: frozenset[str]

    def upload(self, data: bytes, name: str, target: Target) -> Call: ...
    def uploaded(self, body: Any) -> str: ...
    def tune(self, file: str, held_out: str, options: Mapping[str, Any], target: Target) -> Call: ...
    def job(self, id: str, target: Target) -> Call: ...
    def read(self, body: Any) -> Job: ...
    def events(self, id: str, after: str, target: Target) -> Call: ...

    def event_rows(self, body: Any) -> list[tuple[str, str, Mapping[str, Any]]]:
        """Id, message and numbers (step, steps, loss, held) of each event, the newest first."""
        ...

    def cancel(self, id: str, target: Target) -> Call: ...


def dialects(target: Target, verb: str) -> list[Any]:
    """The modules that say a verb to this vendor, the preferred one first. Raises UnsupportedTask."""
    names = target.vendor.dialects.get(verb, ())
    if not names:
        others = [f"{v.name}:{v.examples[verb]}" for v in vendors().values() if verb in v.examples]
        able = f"; {' and '.join(others)} can" if others else ""
        raise UnsupportedTask(f"{target.vendor.title} has nothing that can {verb}{able}.")
    traits = traits_of(target)
    if verb in ONE_OF and traits.verbs and verb not in traits.verbs:
        raise UnsupportedTask(f"{target} can {', '.join(traits.verbs)}; it cannot {verb}.")
    names = tuple(name for name in traits.dialects if name in names) or names
    return [cast(Any, import_module(f"brolly.remote.dialects.{name}")) for name in names]
