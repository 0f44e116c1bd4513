"""What a dialect has no word for and JSON can carry: a choice, a regex; and stop texts that are looked for here."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace

from brolly.errors import BadAnswer, OptionError
from brolly.media.text.stops import Held
from brolly.remote.ask import Ask
from brolly.verbs import Piece

KEY = "answer"


class Filter:
    """Changes one answer's pieces as they pass; `over` once nothing that follows is wanted."""

    over = False

    def push(self, piece: Piece) -> Piece:
        return piece


class Unwrapped(Filter):
    """The text within {"answer": …}, checked, at the end of the answer."""

    def __init__(self, check: Callable[[str], bool], wanted: str) -> None:
        self.check, self.wanted, self.text = check, wanted, ""

    def push(self, piece: Piece) -> Piece:
        self.text += piece.text
        if piece.finish_reason is None:
            return replace(piece, text="")
        if piece.finish_reason != "stop":
            return replace(piece, text="")  # cut, or kept from us: there is no answer
        try:
            found = json.loads(self.text)[KEY]
        except (ValueError, KeyError, TypeError, RecursionError):
            found = None
        if not isinstance(found, str) or not self.check(found):
            raise BadAnswer(f"the model wrote {self.text!r:.80}; expected {self.wanted}.")
        return replace(piece, text=found)


class Cut(Filter):
    """The text before the first stop text."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self.held = Held(stops)

    def push(self, piece: Piece) -> Piece:
        text, stopped = self.held.push(piece.text)
        if stopped:
            self.over = True
            return replace(piece, text=text, finish_reason="stop", stopped=self.held.met)
        if piece.finish_reason is not None:
            text += self.held.text
        return replace(piece, text=text)


def fitted(ask: Ask, has: frozenset[str]) -> tuple[Ask, Callable[[], Filter] | None]:
    """The ask in words that a dialect has, and what undoes that in each answer. Raises OptionError at a bad regex."""
    options = ask.options
    if options.choice and "choice" not in has and "json_schema" in has:
        allowed = options.choice
        ask = replace(ask, options=replace(options, choice=(), json_schema=_schema({"enum": list(allowed)})))
        return ask, lambda: Unwrapped(lambda text: text in allowed, f"one of {', '.join(allowed)[:200]}")
    if options.regex is not None and "regex" not in has and "json_schema" in has:
        try:
            pattern = re.compile(options.regex)
        except re.error as error:
            raise OptionError(f"regex {options.regex!r:.60} cannot be read ({error}).") from None
        schema = _schema({"type": "string", "pattern": f"^(?:{options.regex})$"})
        ask = replace(ask, options=replace(options, regex=None, json_schema=schema))
        return ask, lambda: Unwrapped(lambda text: bool(pattern.fullmatch(text)), f"what {options.regex!r:.80} matches")
    if options.stop and "stop" not in has:
        stops = options.stop
        return replace(ask, options=replace(options, stop=())), lambda: Cut(stops)
    return ask, None


def _schema(inner: dict[str, object]) -> str:
    inner = {"type": "string", **inner}
    return json.dumps(
        {"type": "object", "properties": {KEY: inner}, "required": [KEY], "additionalProperties": False}
    )  # fmt: skip
