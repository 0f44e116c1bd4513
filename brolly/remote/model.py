"""Remote: a model that runs elsewhere, with the verbs of one that runs here."""

from __future__ import annotations

import asyncio
import sys
import warnings
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import fields, replace
from functools import cached_property, partial
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Unpack

from brolly.errors import BadAnswer, BrollyError, OptionError, UnsupportedTask
from brolly.remote import loop
from brolly.remote.ask import Ask
from brolly.remote.client import Client
from brolly.remote.content import bytes_of, check_sound, messages_of, tools_of
from brolly.remote.dialect import dialects
from brolly.remote.faults import printable
from brolly.remote.hearing import Heard
from brolly.remote.kept import Kept, size_of
from brolly.remote.prices import Budget, Price, Tab, price_of
from brolly.remote.shapes import Filter
from brolly.remote.target import Target, parse
from brolly.remote.traits import Traits, traits_of
from brolly.remote.weight import DRAWN, PICTURE, heard, kept_long, packed, repriced, utf8, weighed
from brolly.remote.wording import Wording
from brolly.verbs import (
    Chat,
    Draw,
    Drawing,
    DrawOptions,
    Embed,
    Embedding,
    Embeddings,
    EmbedOptions,
    GenerateOptions,
    Generation,
    Piece,
    Remotely,
    RemoteOptions,
    Speak,
    SpeakOptions,
    Speech,
    Transcribe,
    TranscribeOptions,
    Transcript,
    Usage,
    gather,
    read_options,
)

if TYPE_CHECKING:
    from brolly.identity import Card

Deliver = Callable[[Piece | BaseException], None]
TOGETHER = 8  # requests of one list of inputs that are open at a time


class Ticket:
    """A request that was begun; `cancel` closes its connection. From any thread."""

    def __init__(self, task: asyncio.Task[None], own: asyncio.AbstractEventLoop) -> None:
        self._task, self._loop = task, own

    def cancel(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._task.cancel)


class Remote:
    """A model behind HTTP. `card` is what is known of it, `target` where it is, `budget` what was spent.

    Options are RemoteOptions'. Nothing is sent before a verb is called. Raises OptionError.
    """

    def __init__(self, reference: str | Target, *, budget: Budget | None = None, **options: Unpack[Remotely]) -> None:
        self.target = parse(reference) if isinstance(reference, str) else reference
        self.manners: RemoteOptions = read_options(RemoteOptions, options)
        self.budget = budget or Budget(self.manners.max_cost)
        self.client = Client(self.target, self.manners)
        self._kept = Kept()
        self.wording = Wording(self.target, self.manners.strict, self._warn)
        self._told: set[str] = set()

    def __repr__(self) -> str:
        return f"<{self.target} at {self.target.host}>"

    @cached_property
    def card(self) -> Card:
        from brolly.remote.card import card_of

        return card_of(self.target)

    @cached_property
    def traits(self) -> Traits:
        return traits_of(self.target)

    @cached_property
    def price(self) -> Price | None:
        return price_of(self.target, self.manners.price)

    @property
    def usual(self) -> dict[str, Any]:
        """Options of one who says nothing else: the likeliest answer, and room to think where it does."""
        greedy = {"temperature": 0.0} if self.takes("temperature") else {}
        most = 512 if self.traits.thinking in ("", "none") else 16384
        paid = self.budget.pays(self.price)  # several answers are open at a time
        most = most if paid is None else min(most, max(512, paid // 8))
        return {**greedy, "max_tokens": min(most, self.traits.max_output or most)}

    def takes(self, option: str, verb: str = "chat") -> bool:
        """Whether its vendor has a word for an option of a verb. Raises UnsupportedTask."""
        return self.wording.takes(option, verb)

    def check(self, ask: Ask) -> None:
        """What no dialect of its vendor says is told before anything is sent. Raises OptionError."""
        self.wording.said(ask)

    def describe(self) -> str:
        """Where it runs, in a few words."""
        return f"{self.target.vendor.title} at {self.target.host}"

    # Writing ---------------------------------------------------------------------------------------------------------

    def chat(self, messages: Sequence[Mapping[str, Any]], **given: Unpack[Chat]) -> Generation:
        """Answer a conversation of {"role", "content"} messages; a content may be a list of texts, paths and bytes.

        Raises OptionError where the vendor has no word for an option, and RemoteError's kinds.
        """
        ask = _single(self.prepare_chat(messages, **given))
        return gather(self._pieces(ask), given.get("logprobs") is not None)

    def stream_chat(self, messages: Sequence[Mapping[str, Any]], **given: Unpack[Chat]) -> Iterator[Piece]:
        """The same answer, piece by piece."""
        return self._pieces(self.prepare_chat(messages, **given))

    def generate(self, prompt: str | list[str], **given: Unpack[Chat]) -> Any:
        """An answer to a prompt, as the only message of a conversation; a list of them for a list."""
        if isinstance(prompt, list):
            works = [self._whole(_single(self.prepare(one, **given))) for one in prompt]
            found = loop.wait(loop.together(works, TOGETHER))
            return [gather(pieces, given.get("logprobs") is not None) for pieces in found]
        ask = _single(self.prepare(prompt, **given))
        return gather(self._pieces(ask), given.get("logprobs") is not None)

    def stream(self, prompt: str, **given: Unpack[Chat]) -> Iterator[Piece]:
        """The same answer, piece by piece."""
        return self._pieces(self.prepare(prompt, **given))

    def prepare(self, prompt: str, **given: Any) -> Ask:
        """An answer to a prompt, for `submit`."""
        if not isinstance(prompt, str):
            raise OptionError(f"the prompt is a {type(prompt).__name__}; {self.target} reads text, not tokens.")
        return self.prepare_chat([{"role": "user", "content": prompt}], **given)

    def prepare_chat(
        self, messages: Sequence[Mapping[str, Any]], *, tools: Sequence[Mapping[str, Any]] = (),
        tool_choice: str | Mapping[str, Any] = "auto", parallel_tool_calls: bool = True,
        template: Mapping[str, Any] | None = None, n: int = 1, adapter: str | Path | None = None, priority: int = 0,
        user: str = "", extra: Mapping[str, Any] | None = None, **options: Any,
    ) -> Ask:  # fmt: skip
        """An answer to a conversation, for `submit`. `extra` are fields of the vendor's own. Raises OptionError."""
        if "chat" not in (self.traits.verbs or ("chat",)):
            raise UnsupportedTask(f"{self.target} can {', '.join(self.traits.verbs)}; it cannot chat.")
        if adapter is not None:
            raise OptionError(f"{self.target} runs elsewhere and takes no adapter; name a tuned model of its vendor's.")
        return Ask(
            messages=tuple(self._kept.given(message, user) for message in messages_of(messages)),
            options=read_options(GenerateOptions, options),
            tools=tools_of(tools, tool_choice), choice=tool_choice,
            parallel=parallel_tool_calls, n=n, user=user, priority=priority,
            strict=self.manners.strict, extra=extra or {}, template=template or {},
        )  # fmt: skip

    def submit(self, job: Ask, deliver: Deliver) -> Ticket:
        """Have an ask answered; `deliver` gets its pieces in another thread, an error as the last."""
        return loop.wait(self.begin(job, deliver))

    async def begin(self, job: Ask, deliver: Deliver) -> Ticket:
        """The same on the running event loop, in which `deliver` is called."""
        dialect, fitting, undo = self.wording.said(job)

        async def follow() -> None:
            try:
                async with aclosing(self._answered(dialect, job, fitting, undo)) as batches:
                    async for batch in batches:
                        for piece in batch:
                            deliver(piece)
            except asyncio.CancelledError:
                raise
            except BaseException as error:
                deliver(error)

        return Ticket(asyncio.ensure_future(follow()), asyncio.get_running_loop())

    def count(self, messages: Sequence[Mapping[str, Any]], **given: Any) -> int:
        """Tokens of a conversation, as its vendor counts them. Raises UnsupportedTask."""
        return loop.wait(self.acount(self.prepare_chat(messages, **given)))

    async def acount(self, ask: Ask) -> int:
        (dialect, *_) = dialects(self.target, "count")
        found: int = dialect.counted(await self.client.json(dialect.count(ask, self.target), dialect.told))
        return found

    # Other verbs -----------------------------------------------------------------------------------------------------

    def embed(self, inputs: Any, **options: Unpack[Embed]) -> Embeddings:
        """A vector for each text of a list, or for one."""
        several = list(inputs) if isinstance(inputs, (list, tuple, Iterator)) else [inputs]
        return loop.wait(self.aembed(several, **options))

    def stream_embed(self, inputs: Sequence[Any], **options: Unpack[Embed]) -> Iterator[Embedding]:
        """The same vectors one by one."""
        found = self.embed(list(inputs), **options)
        each = found.n_tokens // max(len(found), 1)
        for index, vector in enumerate(found.vectors):
            n_tokens = each if index else found.n_tokens - each * (len(found) - 1)
            yield Embedding(index, "text", vector, n_tokens)

    async def aembed(self, inputs: Sequence[Any], **options: Any) -> Embeddings:
        import numpy as np

        (dialect, *_) = dialects(self.target, "embed")
        asked = self.wording.fit(read_options(EmbedOptions, options), getattr(dialect, "EMBED", None))
        if not inputs:
            raise OptionError("there is nothing to embed; give at least one text.")
        parts = list(packed(inputs, dialect.most, getattr(dialect, "most_bytes", sys.maxsize)))
        calls = [dialect.embed(part, asked, self.target) for part in parts]
        made = [partial(dialect.vectors, n=len(part)) for part in parts]
        found: list[Embeddings] = await loop.together(
            (
                self._priced(call, dialect.told, Usage(utf8(part), 0), make)
                for call, part, make in zip(calls, parts, made, strict=True)
            ),
            TOGETHER,
        )
        vectors = np.concatenate([one.vectors for one in found])
        return Embeddings(vectors, ("text",) * len(vectors), sum(one.n_tokens for one in found))

    def similarity(self, a: Any, b: Any, **options: Unpack[Embed]) -> Any:
        """The cosine of each of a's inputs (or Embeddings) with each of b's: a float32 array (len a, len b)."""
        rows, columns = (
            one.vectors / (one.vectors**2).sum(1, keepdims=True) ** 0.5
            for one in (x if isinstance(x, Embeddings) else self.embed(x, **options) for x in (a, b))
        )
        return rows @ columns.T

    def draw(self, prompt: str, images: Sequence[Any] = (), **options: Unpack[Draw]) -> Drawing:
        """Pictures of what a text says, or `images` (paths, bytes, Pillow's) changed as it says."""
        return loop.wait(self.adraw(prompt, images, **options))

    async def adraw(self, prompt: str, images: Sequence[Any] = (), **options: Any) -> Drawing:
        (dialect, *_) = dialects(self.target, "draw")
        if not prompt.strip():
            raise OptionError("there is nothing to draw; say what the picture shows.")
        own, given = getattr(dialect, "DRAW", None), [bytes_of(one) for one in images]
        asked, times = read_options(DrawOptions, options), 1
        if own is not None and "n" not in self.wording.has(own):  # one picture a request
            if asked.n > 1 and asked.seed is not None:
                raise OptionError(
                    f"{self.target} draws one picture a request, the same of one seed; leave n or seed out."
                )
            asked, times = replace(asked, n=1), asked.n
        call = replace(dialect.draw(prompt, given, self.wording.fit(asked, own), self.target), safe=False)
        most = Usage(utf8([prompt]) + PICTURE * len(given), DRAWN * asked.n)
        found: list[Drawing] = await loop.together(
            (self._priced(call, dialect.told, most, dialect.drawn) for _ in range(times)), TOGETHER
        )
        usages = [one.usage for one in found if one.usage]
        sums = [sum(getattr(usage, f.name) for usage in usages) for f in fields(Usage)]
        return Drawing(tuple(p for one in found for p in one.pictures), Usage(*sums) if usages else None)

    def speak(self, text: str, **options: Unpack[Speak]) -> Speech:
        """A text as sound."""
        return loop.wait(self.aspeak(text, **options))

    async def aspeak(self, text: str, **options: Any) -> Speech:
        (dialect, *_) = dialects(self.target, "speak")
        asked = self.wording.fit(read_options(SpeakOptions, options), getattr(dialect, "SPEAK", None))
        self.budget.settle(self.budget.hold(None, str(self.target)), None)
        data, kind = await self.client.bytes(dialect.speak(text, asked, self.target), dialect.told)
        if not data or kind.startswith(("text/", "application/json")):
            raise BadAnswer(
                f"{self.target.host} answered with {len(data):,} bytes of {kind or 'nothing'}, not with sound."
            )
        return Speech(data, asked.format)

    def transcribe(self, audio: Any, **options: Unpack[Transcribe]) -> Transcript:
        """What is said in a sound: a path or bytes of a file."""
        return loop.wait(self.atranscribe(audio, **options))

    async def atranscribe(self, audio: Any, *, name: str = "", **options: Any) -> Transcript:
        (dialect, *_) = dialects(self.target, "transcribe")
        asked = self.wording.fit(read_options(TranscribeOptions, options), getattr(dialect, "TRANSCRIBE", None))
        title = name or (Path(audio).name if isinstance(audio, (str, Path)) else "audio")
        data = bytes_of(Path(audio) if isinstance(audio, str) else audio)
        check_sound(data, title)
        call = dialect.transcribe(data, title, asked, self.target)
        most = Usage(heard(len(data)) + utf8([asked.prompt, asked.hotwords]), heard(len(data)))
        found: Transcript = await self._priced(call, dialect.told, most, dialect.heard)
        return found

    def stream_transcript(self, audio: Any, *, timed: bool = False, **options: Unpack[Transcribe]) -> Heard:
        """The same by segments, as of a model on this disk; `timed`: UnsupportedTask where no times are told."""
        return Heard(lambda: self.transcribe(audio, **options), str(self.target), timed)

    def score(self, *_: Any, **__: Any) -> Any:
        """No vendor tells the likelihood of a text that is given: UnsupportedTask."""
        raise UnsupportedTask(f"{self.target} tells no likelihood of a given text; a model on this disk can `score`.")

    def classify(self, *_: Any, **__: Any) -> Any:
        raise UnsupportedTask(f"{self.target} has no classifier; ask it by `chat` with `choice`, or load a CLIP.")

    stream_classify = classify

    def rerank(self, *_: Any, **__: Any) -> Any:
        raise UnsupportedTask(f"{self.target} does not rerank; load a cross-encoder or an embedder.")

    def add_adapter(self, *_: Any) -> Any:
        raise OptionError(f"{self.target} runs elsewhere and takes no adapter; name a tuned model of its vendor's.")

    with_adapter = add_adapter

    def close(self) -> None:
        """Close its connections; it may be used again."""
        loop.wait(self.client.aclose())

    # inside

    def _warn(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            warnings.warn(f"{text}; it is asked all the same (strict refuses).", stacklevel=2)

    async def _answered(
        self, dialect: Any, ask: Ask, fitting: Ask, undo: Callable[[], Filter] | None
    ) -> AsyncGenerator[list[Piece], None]:
        """Pieces, as many as come at a time."""
        tab = Tab(self.budget, self._most(fitting), str(self.target))
        await tab.open()
        usages: dict[int, Usage] = {}
        filters = [undo() for _ in range(ask.n)] if undo else []
        calls: list[str] = []
        opaque: list[Mapping[str, Any]] = []
        size = 0
        with self._ends(tab):
            async with aclosing(self._raw(dialect, fitting, tab)) as batches:
                async for batch in batches:
                    if filters:
                        batch = [filters[piece.index].push(piece) for piece in batch]
                    for piece in batch:
                        calls += [call.id for call in piece.calls if call.id]
                        if piece.opaque:
                            opaque += piece.opaque
                            size += size_of(piece.opaque)
                        if piece.usage is not None:
                            usages[piece.index] = piece.usage
                    if opaque and calls:
                        self._kept.keep(ask.user, calls, opaque, size)
                    if len(usages) == ask.n:  # before the last piece is seen, and its reader leaves
                        tab.close(self._cost(usages, fitting))
                    if any(one.over for one in filters):
                        at = next(i for i, piece in enumerate(batch) if piece.finish_reason)
                        usage = next((piece.usage for piece in batch[at:] if piece.usage), Usage(0, 0))
                        yield [*batch[:at], replace(batch[at], usage=usage)]
                        return
                    yield batch

    async def _raw(self, dialect: Any, ask: Ask, tab: Tab) -> AsyncGenerator[list[Piece], None]:
        call = replace(dialect.call(ask, self.target), tab=tab)
        if not ask.stream:
            body = await self.client.json(call, dialect.told)
            found, failed = _read(dialect.whole(one, ask, self.target) for one in (body,))
            if failed is not None:
                raise failed
            yield _ended(found, ask)
            return
        reader, open_ = dialect.reader(ask, self.target), set(range(ask.n))
        try:
            async with aclosing(self.client.events(call, dialect.told)) as events:
                async for batch in events:
                    found, failed = _read(reader.push(name, data) for name, data in batch)
                    open_ -= {piece.index for piece in found if piece.finish_reason}
                    if found:
                        yield found
                    if failed is not None:
                        raise failed
            rest = reader.end()
            open_ -= {piece.index for piece in rest if piece.finish_reason}
            if rest:
                yield rest
        except BrollyError:
            if open_:
                raise
            return  # an answer that is whole stays so, whatever comes behind it
        if open_:
            raise BadAnswer(f"{self.target.host} ended its stream before the answer was whole; ask again.")

    async def _whole(self, ask: Ask) -> list[Piece]:
        dialect, fitting, undo = self.wording.said(ask)
        return [piece async for batch in self._answered(dialect, ask, fitting, undo) for piece in batch]

    def _pieces(self, ask: Ask) -> Iterator[Piece]:
        """Pieces in the caller's thread; whoever stops taking them ends the request."""
        if not ask.stream:
            yield from loop.wait(self._whole(ask))
            return
        came: SimpleQueue[Piece | BaseException] = SimpleQueue()
        left = ask.n
        ticket = self.submit(ask, came.put)
        try:
            while left:
                piece = came.get()
                if isinstance(piece, BaseException):
                    raise piece
                left -= piece.finish_reason is not None
                yield piece
        finally:
            if left:  # one that is whole gives its connection back by itself
                ticket.cancel()

    def _most(self, ask: Ask) -> float | None:
        """What an answer can cost at most. None: unknown, or nobody asks."""
        if self.budget.most is None or self.price is None or self._repriced(ask):
            return None
        written = ask.options.max_tokens or self.traits.max_output
        if written is None:
            raise OptionError(f"how much {self.target} writes is not known; with max_cost, say max_tokens.")
        read = min(weighed(ask), self.traits.context or sys.maxsize)  # of more, the vendor reads nothing
        return self.price.at_most(Usage(read, written * ask.n), kept_long(ask))

    def _cost(self, usages: Mapping[int, Usage], ask: Ask | None = None) -> float | None:
        """None where nobody tells how many tokens were read, which of them as sound, or which are kept for long."""
        read = max(usages.values(), key=lambda usage: usage.prompt_tokens, default=Usage(0, 0))
        if self.price is None or not read.prompt_tokens or (ask and self._repriced(ask)):
            return None
        if ask and (self.price.heard is not None and ask.uses("input_audio") or read.written_tokens and kept_long(ask)):
            return None
        return self.price.of(replace(read, completion_tokens=sum(u.completion_tokens for u in usages.values())))

    def _repriced(self, ask: Ask) -> bool:
        """Whether the table's price is not that of this; a stated one is."""
        return self.manners.price is None and repriced(ask)

    @contextmanager
    def _ends(self, tab: Tab) -> Iterator[None]:
        """Whoever leaves early never learns what it cost; and an error has no key and no signs for a terminal in it."""
        try:
            yield
        except BrollyError as error:
            error.args = (printable(self.client.unkeyed(str(error))),)
            raise
        finally:
            tab.close()

    async def _priced(self, call: Any, told: Any, most: Usage, made: Callable[[Any], Any]) -> Any:
        """What `made` makes of the body of a call that reads and writes `most` at most."""
        tab = Tab(self.budget, self.price.at_most(most) if self.price else None, str(self.target))
        await tab.open()
        with self._ends(tab):
            found = made(await self.client.json(replace(call, tab=tab), told))
            usage = Usage(found.n_tokens, 0) if isinstance(found, Embeddings) else found.usage
            tab.close(self._cost({0: usage} if usage else {}))
            return found


def _single(ask: Ask) -> Ask:
    """The same, to be answered whole. Raises OptionError where several are asked for, of which one would be told."""
    if ask.n != 1:
        raise OptionError(f"n is {ask.n}; one answer is told here: ask n times, or stream them and go by Piece.index.")
    return replace(ask, stream=False)


def _read(parts: Iterable[list[Piece]]) -> tuple[list[Piece], BrollyError | None]:
    """Pieces, and the error that came behind them."""
    found: list[Piece] = []
    try:
        for several in parts:
            found += several
    except RecursionError:
        return found, BadAnswer("the vendor's answer is nested too deeply; ask again.")
    except BrollyError as error:
        return found, error
    return found, None


def _ended(pieces: list[Piece], ask: Ask) -> list[Piece]:
    """The same, if every answer has an end. Raises BadAnswer."""
    if len({piece.index for piece in pieces if piece.finish_reason}) < ask.n:
        raise BadAnswer(f"the vendor gave fewer answers than the {ask.n} that were asked for.")
    return pieces
