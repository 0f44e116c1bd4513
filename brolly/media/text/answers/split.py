"""An answer's text, as it comes, taken apart into words, thoughts and tool calls."""

from __future__ import annotations

import re
import secrets
import string
from collections.abc import Collection, Generator, Mapping
from typing import Any

from brolly.media.text.answers.calls import Calls, Channels, NamedCalls
from brolly.media.text.answers.reader import Reader, Step, json_value, stops
from brolly.verbs import Piece, ToolDelta

ID = 9  # letters and digits: what Mistral's templates ask of a call's id, and others take
HEAD = 512  # characters of a harmony message's head
_LETTERS = string.ascii_letters + string.digits
_ANY = re.compile(r"[^<]*")


class Split:
    """One answer being read; `push` and `finish` give what became certain, in pieces that joined never depend on where
    the text was cut.

    White space that touches a thought or a call is part of its marks. What began like a call and is none comes out as
    text. The last piece carries "tool_calls" as finish reason where calls were made; an earlier one where nothing may
    follow.
    """

    def __init__(
        self,
        calls: Calls | None,
        thoughts: tuple[str, str] | None,
        tools: Mapping[str, Mapping[str, Any]],
        *,
        control: Collection[str] = (),
        parallel: bool = True,
        begun: str = "",
    ) -> None:
        self.tools, self._parallel = tools, parallel
        asked = bool(tools) or (isinstance(calls, NamedCalls) and bool(calls.plain)) or isinstance(calls, Channels)
        self._calls, self._thoughts = calls if asked else None, thoughts
        self._reader = Reader()
        self._words: list[str] = []
        self._thought: list[str] = []
        self._deltas: list[ToolDelta] = []
        self._space: list[str] = []  # white space that a mark may follow
        self._lead = False  # whether white space is still a mark's
        self._n = self._closed = 0
        self._starts = starts_of(self._calls)
        marks = set(self._starts)
        opening = {thoughts[0]} if thoughts and thoughts[0] in control else set()
        self._control = set(control) - marks - opening
        self._drop = stops(*control).pattern
        self._stops = stops(*sorted(marks | opening | self._control))
        self._over = False
        harmony = isinstance(self._calls, Channels)
        self._run: Generator[None, None, object] | None = self._channels() if harmony else self._answer()
        self._go()
        if begun:
            self.push(begun)
            self._reader.settle()

    def push(self, text: str) -> Piece:
        """What became certain with this text."""
        if self._run and text:
            self._reader.add(text)
            self._go()
        return self._piece("tool_calls" if self._over else None)

    def finish(self) -> Piece:
        """What was held back."""
        self._reader.ended = True
        self._go()
        self._lead = False
        return self._piece("tool_calls" if self._closed else None)

    def _go(self) -> None:
        try:
            if self._run:
                next(self._run)
        except StopIteration:
            self._run = None
        except _Over:
            self._run, self._over = None, True

    def _piece(self, reason: str | None) -> Piece:
        joined: list[ToolDelta] = []
        for delta in self._deltas:
            if joined and joined[-1].index == delta.index and delta.id is None:
                last = joined[-1]
                joined[-1] = ToolDelta(last.index, last.arguments + delta.arguments, last.id, last.name)
            else:
                joined.append(delta)
        piece = Piece("".join(self._words), finish_reason=reason, reasoning="".join(self._thought), calls=tuple(joined))
        self._words, self._thought, self._deltas = [], [], []
        return piece

    # where calls go

    def open(self, name: str, id: str | None = None) -> None:
        """A call whose name is known."""
        self._space.clear()
        self._reader.settle()
        self._deltas.append(ToolDelta(self._n, "", id or "".join(secrets.choice(_LETTERS) for _ in range(ID)), name))
        self._n += 1

    def write(self, text: str) -> None:
        """More of the last call's arguments."""
        self._reader.settle()
        if text:
            self._deltas.append(ToolDelta(self._n - 1, text))

    def close(self) -> None:
        """The last call is whole."""
        self._marked()
        self._closed += 1
        if not self._parallel:
            raise _Over

    # where words and thoughts go

    def _say(self, text: str, into: list[str] | None = None) -> None:
        """Words (or thoughts), the white space at their end held back."""
        self._reader.settle()
        into = self._words if into is None else into
        if self._lead:
            text = text.lstrip()
        if not text:
            return
        self._lead = False
        body = text.rstrip()
        if body:
            into.extend(self._space)
            into.append(body)
            self._space.clear()
        if len(body) < len(text):
            self._space.append(text[len(body) :])

    def _marked(self) -> None:
        """A mark was read: the white space around it is its own."""
        self._space.clear()
        self._reader.settle()
        self._lead = True

    def _answer(self) -> Step:
        reader = self._reader
        fresh = True  # whether only thoughts and calls have come
        while True:
            if fresh:
                space = yield from reader.spaces()
                self._say(space)
                if self._thoughts and (yield from reader.literal(self._thoughts[0])):
                    yield from self._think()
                    continue
                if self._calls and self._calls.bare and (yield from reader.peek()) in ("{", "["):
                    fresh = yield from self._call([], bare=True)
                    continue
            if not (mark := (yield from reader.upto(self._stops, self._say))):
                break
            reader.settle()
            if mark in self._starts:
                reader.raw.append(mark)
                fresh = yield from self._call(self._starts[mark], bare=False)
            elif self._thoughts and mark == self._thoughts[0]:
                yield from self._think()
                fresh = True
            else:  # any other control token is left out
                fresh = False
        self._words += self._space
        return True

    def _think(self) -> Step:
        """Thoughts up to the mark that ends them, or to the end."""
        self._marked()
        opening, closing = self._thoughts or ("", "")
        mark = yield from self._reader.upto(stops(closing), self._ponder)
        self._marked()
        return bool(mark)

    def _call(self, rest: list[str], *, bare: bool) -> Step:
        """Read a call, whose first mark was read; where it is none, its text becomes words. Whether it was one."""
        assert self._calls is not None and not isinstance(self._calls, Channels)
        reader, found = self._reader, True
        for part in rest:
            yield from reader.spaces()
            found = found and (yield from reader.literal(part))
        found = found and (yield from self._calls.read(reader, self, bare=bare))
        if not found:
            self._say(self._drop.sub("", reader.unsettled()))
            return False
        self._marked()
        if self._calls.section[1]:
            yield from reader.mark(self._calls.section[1])
            reader.settle()
        return True

    def _channels(self) -> Step:
        """Harmony: <|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>final<|message|>…"""
        reader = self._reader
        ends = stops("<|end|>", "<|call|>", "<|return|>", "<|start|>")
        begins = stops("<|channel|>", "<|start|>", *sorted(self._control))
        mark = ""
        while (yield from reader.peek()):
            head, whole = mark, False
            while not whole and len(head) < HEAD and (yield from reader.peek()):
                if (yield from reader.literal("<|message|>")):
                    whole = True
                else:
                    head += reader.take(1) + (yield from reader.run(_ANY, HEAD))
            if not whole:  # words without a head
                self._say(self._drop.sub("", reader.unsettled()))
                mark = yield from reader.upto(begins, self._say)
                reader.settle()
                continue
            channel = re.search(r"<\|channel\|>\s*(\w*)", head)
            whom = re.search(r"to=([\w.-]+)", head)
            name = whom.group(1).removeprefix("functions.") if whom else ""
            self._marked()
            if name in self.tools:
                self.open(name)
                if (yield from json_value(reader, self.write)):
                    self.close()
                else:
                    self._say(reader.unsettled())
                yield from reader.spaces()
                mark = yield from reader.upto(ends, self._say)
            elif channel and channel.group(1) == "analysis":
                mark = yield from reader.upto(ends, self._ponder)
            else:
                mark = yield from reader.upto(ends, self._say)
            self._marked()
        self._words += self._space
        return True

    def _ponder(self, text: str) -> None:
        self._say(text, self._thought)


class _Over(Exception):
    """Nothing may follow."""


def starts_of(calls: Calls | None) -> dict[str, list[str]]:
    """Each text that may begin a call, and what must follow it."""
    if calls is None or isinstance(calls, Channels) or (calls.bare and not calls.also):
        return {}
    found: dict[str, list[str]] = {}
    for begin in (calls.begin, *calls.also):
        if calls.section[0]:
            first, *rest = [*calls.section[0].split(), *begin.split()]
            found.setdefault(first, rest)
        if begin:
            first, *rest = begin.split()
            found.setdefault(first, rest)
    return found
