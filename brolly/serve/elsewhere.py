"""A model that runs elsewhere, as the routes use one: always there, asked on the server's own loop, and counted."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cached_property
from time import perf_counter
from typing import Any, ParamSpec, TypeVar, Unpack

from brolly.errors import BrollyError
from brolly.remote.ask import Ask
from brolly.remote.client import heard
from brolly.remote.keys import key_of
from brolly.remote.model import Remote, Ticket
from brolly.remote.prices import Budget
from brolly.remote.target import Target
from brolly.serve.ask import Reads, Thinking, speaks
from brolly.serve.errors import Refused
from brolly.serve.settings import Settings
from brolly.serve.threads import in_turn
from brolly.verbs import Embedding, Piece, Remotely

P = ParamSpec("P")
T = TypeVar("T")
log = logging.getLogger("brolly.serve")
VERBS = ("chat", "embed", "draw", "transcribe", "speak")  # that have routes, and need no tokens
KINDS = frozenset({"image", "audio", "pdf"})
WARNINGS = 256  # sentences about what was left out, each told once


class Purse(Budget):
    """One model's part in a budget that several share: what is spent counts for both."""

    def __init__(self, shared: Budget) -> None:
        super().__init__(shared.most)
        self.shared = shared

    def hold(self, at_most: float | None, name: str) -> float:
        return self.shared.hold(at_most, name)

    async def room(self, at_most: float | None, name: str) -> float:
        return await self.shared.room(at_most, name)

    def settle(self, held: float, cost: float | None) -> None:
        self.shared.settle(held, cost)
        super().settle(0.0, cost)


class Elsewhere(Remote):
    """A remote model of one server. `failed` counts its vendor's errors by their kind, `first` is told the seconds to
    each answer's first words."""

    tokenizer = None  # nobody here knows its tokens

    def __init__(self, target: Target, name: str, *, budget: Budget, **options: Unpack[Remotely]) -> None:
        # by the name that clients know, for that is what errors tell
        super().__init__(replace(target, name=name), budget=Purse(budget), **options)
        self.failed: Counter[str] = Counter()
        self.first: Callable[[float], Any] = lambda seconds: None

    @property
    def verbs(self) -> tuple[str, ...]:
        """What it can do here."""
        able = self.traits.verbs or self.target.vendor.dialects
        return tuple(verb for verb in VERBS if verb in able)

    @cached_property
    def reads(self) -> Reads:
        """Of a model of which nobody tells what it reads, its vendor will."""
        return Reads(lambda role: True, frozenset(self.traits.reads or KINDS) & KINDS, parts=True)

    @cached_property
    def family(self) -> str:
        """Whose words it speaks: openai, anthropic or gemini."""
        return next(iter(self.target.vendor.dialects.get("chat", ("",)))).partition(".")[0]

    @property
    def continues(self) -> bool:
        """Whether it goes on with an assistant's unfinished message, which Anthropic's words alone mean."""
        return self.family == "anthropic"

    def plain(self, verbosity: str | None) -> None:
        """How much to write: a hint that no dialect passes on. Raises Refused where hints are refused."""
        if verbosity in (None, "medium"):
            return
        text = f"{self.target} is told no verbosity"
        if self.manners.strict:
            raise Refused(f"{text}; say in the prompt how much to write.", param="verbosity")
        self._warn(text)

    async def begin(self, job: Ask, deliver: Callable[[Piece | BaseException], None]) -> Ticket:
        """As `Remote.begin`, but that its vendor has begun to answer on return. Raises what it refuses."""
        began, begun = perf_counter(), asyncio.get_running_loop().create_future()

        def answers() -> None:
            if not begun.done():
                begun.set_result(None)
                self.first(perf_counter() - began)

        def hear(piece: Piece | BaseException) -> None:
            if isinstance(piece, BaseException):
                self.failed[type(piece).__name__] += 1
                if not begun.done():
                    begun.set_exception(piece)
                    return
            deliver(piece)

        before = heard.set(answers)  # the task that asks has it, too
        try:
            ticket = await super().begin(job, hear)
        finally:
            heard.reset(before)
        try:
            await begun
        except BaseException:
            ticket.cancel()
            raise
        return ticket

    async def vectors(self, inputs: Sequence[Any], **options: Any) -> list[Embedding]:
        """What `stream_embed` gives of a model here."""
        async with self.counted():
            found = await self.aembed(inputs, **options)
        each = [found.n_tokens, *[0] * (len(found) - 1)]  # their sum is all that anybody knows
        rows = zip(found.kinds, found.vectors, each, strict=True)
        return [Embedding(at, kind, vector, n) for at, (kind, vector, n) in enumerate(rows)]

    @asynccontextmanager
    async def counted(self) -> AsyncIterator[None]:
        """Its vendor's errors within count."""
        try:
            yield
        except BrollyError as error:
            self.failed[type(error).__name__] += 1
            raise

    def _warn(self, text: str) -> None:
        if text not in self._told and len(self._told) < WARNINGS:
            self._told.add(text)
            log.warning("%s; it is asked all the same (--strict refuses)", text)


def manners_of(settings: Settings, price: str | None) -> Remotely:
    """How a server treats its vendors."""
    return {
        "strict": settings.strict, "price": price, "rate": settings.vendor_rate,
        "concurrency": settings.vendor_concurrency,
        # before the server's own patience ends, so that clients are told why
        "silence_seconds": min(300.0, max(0.9 * settings.request_seconds, 0.1)),
    }  # fmt: skip


def unkeyed(target: Target) -> str:
    """That a vendor's key is missing, before its first request tells."""
    vendor = target.vendor
    if vendor.local or not vendor.keys or key_of(target) is not None:
        return ""
    return f"there is no key for {vendor.title}; `brolly keys set {vendor.name}`, or set {vendor.keys[0]}."


def reads_of(model: Any) -> Reads:
    """What a model can be given."""
    return model.reads if isinstance(model, Elsewhere) else Reads(speaks(model.tokenizer))


def thought(model: Any, thinking: Thinking, template: Mapping[str, Any]) -> dict[str, Any]:
    """How to think as this model's `prepare_chat` takes it, and what the chat template is told beside it.

    A template knows words, and on and off; the engine's option of that name takes the words.
    """
    if isinstance(model, Elsewhere):
        effort = thinking.effort if thinking.wanted is not False else "none"
        return {"effort": effort, "thoughts": thinking.told, "template": template}
    if thinking.effort is not None and not thinking.effort.isdecimal():
        return {"effort": thinking.effort, "template": template}
    return {"template": {**thinking.words(), **template}}


async def prepared(work: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
    """What `work` makes of a request for a model, its first argument: in a thread in turn where a template is rendered
    and tokens are made, at once where both are done elsewhere."""
    return work(*args, **options) if isinstance(args[0], Elsewhere) else await in_turn(work, *args, **options)


async def counted(model: Any, job: Any) -> int:
    """The tokens of a prepared conversation. Raises what its vendor does."""
    if not isinstance(model, Elsewhere):
        return len(job.prompt)
    async with model.counted():
        return await model.acount(job)
