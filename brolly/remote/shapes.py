"""What a dialect has no word for and JSON can carry: a choice, a regex, a list; and stop texts, looked for here."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from brolly.errors import BadAnswer, OptionError
from brolly.media.text.stops import Held
from brolly.remote.ask import Ask
from brolly.remote.content import clean
from brolly.remote.regexes import matcher
from brolly.verbs import Piece

KEY = "answer"


class Filter:
    """Changes one answer's pieces as they pass; `over` once nothing that follows is wanted."""

    over = False

    def push(self, piece: Piece) -> Piece:
        return piece


class Unwrapped(Filter):
    """The text within {"answer": …}, checked, at the end of the answer."""

    def __init__(self, check: Callable[[Any], bool], wanted: str, of_json: bool = False) -> None:
        self.check, self.wanted, self.of_json, self.text = check, wanted, of_json, ""

    def push(self, piece: Piece) -> Piece:
        self.text += piece.text
        if piece.finish_reason != "stop":
            return replace(piece, text="")  # not at its end; or cut, or kept from us: there is no answer
        try:
            found = json.loads(self.text)[KEY]
            if self.of_json:
                found = json.dumps(found, ensure_ascii=False, allow_nan=False)
        except (ValueError, KeyError, TypeError, RecursionError):
            found = None
        if not isinstance(found, str) or not self.check(found):
            raise BadAnswer(f"the model wrote {self.text!r:.80}; expected {self.wanted}.")
        return replace(piece, text=clean(found))  # \u escapes may hold halves of characters


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
        schema = _under_key({"type": "string", "enum": list(allowed)})
        ask = replace(ask, options=replace(options, choice=(), json_schema=schema))
        return ask, lambda: Unwrapped(lambda text: text in allowed, f"one of {', '.join(allowed)[:200]}")
    if options.regex is not None and "regex" not in has and "json_schema" in has:
        matches = matcher(options.regex)
        schema = _under_key({"type": "string", "pattern": f"^(?:{options.regex})$"})
        ask = replace(ask, options=replace(options, regex=None, json_schema=schema))
        return ask, lambda: Unwrapped(matches, f"what {options.regex!r:.80} matches")
    if "json_schema" in has and (rooted := _rooted(options.json_schema)):
        ask = replace(ask, options=replace(options, json_schema=rooted))
        return ask, lambda: Unwrapped(lambda _: True, "JSON under that key", of_json=True)
    if options.stop and "stop" not in has:
        stops = options.stop
        return replace(ask, options=replace(options, stop=())), lambda: Cut(stops)
    return ask, None


def schema_of(text: str) -> dict[str, Any]:
    """A JSON Schema from its text. Raises OptionError."""
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise OptionError(f"json_schema cannot be read as JSON ({error}).") from None
    if schema is True:
        schema = {}
    if not isinstance(schema, dict):
        raise OptionError(f"json_schema is {text!r:.60}; expected an object, such as {{}}.")
    return schema


def _rooted(schema: str | None) -> str | None:
    """A schema of a list, a number or one of several kinds within that of an object, which is all that vendors take."""
    try:
        said = json.loads(schema) if schema else None
    except (ValueError, RecursionError):
        return None  # for the dialect to refuse
    if not isinstance(said, dict) or not said or said.get("type") == "object" or "properties" in said:
        return None
    inner = {name: value for name, value in said.items() if name not in ("$defs", "definitions", "$schema")}
    shared = {name: said[name] for name in ("$defs", "definitions") if name in said}
    return _under_key(inner, **shared)


def _under_key(inner: Mapping[str, Any], **shared: Any) -> str:
    """The schema of an object with one field; `shared` are definitions that the field's own goes by."""
    return json.dumps(
        {"type": "object", "properties": {KEY: inner}, "required": [KEY], "additionalProperties": False, **shared}
    )
