"""Reading a text that comes by pieces: what is found never depends on where the pieces end.

Each reading step is a generator that yields when it wants more text, so that a parser is written as if the text were
whole. Nothing is scanned twice but what may be the beginning of a mark.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Sequence
from functools import lru_cache

Step = Generator[None, None, bool]
_SPACES = re.compile(r"\s*")
_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
_ATOM = re.compile(r"[-+.\w]*")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_WORDS = {"true": "true", "false": "false", "null": "null", "True": "true", "False": "false", "None": "null"}
DEPTH = 256  # levels of JSON
ATOM = 4096  # characters of a number


class Reader:
    """The text that has come and is not read; `raw` is what was read since `settle`, to be given back as it was."""

    def __init__(self) -> None:
        self.text, self.at, self.ended = "", 0, False
        self.raw: list[str] = []

    def add(self, text: str) -> None:
        self.text, self.at = self.text[self.at :] + text, 0

    def take(self, n: int) -> str:
        """The next n characters, read."""
        found = self.text[self.at : self.at + n]
        self.at += len(found)
        if found:
            self.raw.append(found)
        return found

    def settle(self) -> None:
        """What was read is accounted for."""
        self.raw.clear()

    def unsettled(self) -> str:
        """What was read and not accounted for, which now is."""
        text = "".join(self.raw)
        self.raw.clear()
        return text

    def peek(self, n: int = 1) -> Generator[None, None, str]:
        """The next n characters, fewer at the end."""
        while len(self.text) - self.at < n and not self.ended:
            yield
        return self.text[self.at : self.at + n]

    def run(self, pattern: re.Pattern[str], most: int) -> Generator[None, None, str]:
        """The longest stretch of a class of characters, at most so many of them."""
        found: list[str] = []
        while True:
            match = pattern.match(self.text, self.at, self.at + most)
            piece = self.take(match.end() - self.at if match else 0)
            found.append(piece)
            most -= len(piece)
            if self.at < len(self.text) or self.ended or not most:
                return "".join(found)
            yield

    def spaces(self) -> Generator[None, None, str]:
        return (yield from self.run(_SPACES, 1 << 62))

    def literal(self, text: str) -> Step:
        """Read exactly this; False, with nothing read, where something else stands."""
        while True:
            have = self.text[self.at : self.at + len(text)]
            if have == text:
                self.take(len(text))
                return True
            if self.ended or not text.startswith(have):
                return False
            yield

    def mark(self, text: str) -> Step:
        """Read this with any white space before and within it."""
        for part in text.split():
            yield from self.spaces()
            if not (yield from self.literal(part)):
                return False
        return True

    def upto(self, stops: Stops, emit: Callable[[str], None]) -> Generator[None, None, str]:
        """Read and emit what comes before the first stop; the stop, read, or "" at the end."""
        while True:
            found = stops.pattern.search(self.text, self.at)
            if found:
                emit(self.take(found.start() - self.at))
                return self.take(len(found.group()))
            keep = 0 if self.ended else stops.begun(self.text, self.at)
            if len(self.text) - self.at > keep:
                emit(self.take(len(self.text) - self.at - keep))
            if self.ended:
                return ""
            yield


@lru_cache(maxsize=256)
def stops(*texts: str) -> Stops:
    """Texts to stop at, made once."""
    return Stops(texts)


class Stops:
    """Texts to stop at; of several at one place the longest."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = sorted({t for t in texts if t}, key=lambda t: (-len(t), t))
        self.pattern = re.compile("|".join(map(re.escape, self.texts)) or r"(?!)")
        self._first = {t[0] for t in self.texts}
        self._longest = max(map(len, self.texts), default=1)

    def begun(self, text: str, at: int) -> int:
        """How many characters at the end may be the beginning of a stop."""
        for start in range(max(at, len(text) - self._longest + 1), len(text)):
            if text[start] in self._first:
                tail = text[start:]
                if any(stop.startswith(tail) for stop in self.texts):
                    return len(tail)
        return 0


def json_value(reader: Reader, emit: Callable[[str], None]) -> Step:
    """Read one JSON value and emit it by pieces that joined are JSON's beginning at any time; False where it is none.

    Line breaks and the like within strings, which models write and JSON forbids, are emitted escaped; Python's True,
    False and None as JSON's.
    """
    closing: list[str] = []
    due = "value"
    yield from reader.spaces()
    while True:
        if closing and (space := (yield from reader.spaces())):
            emit(space)
        char = yield from reader.peek()
        if due == "next" and char == ",":
            emit(reader.take(1))
            due = "key" if closing[-1] == "}" else "value"
            continue
        if closing and char == closing[-1] and due in ("next", "first key", "first value"):
            emit(reader.take(1))
            closing.pop()
        elif due == "next":
            return False
        elif due.endswith("key"):
            if not (yield from json_string(reader, emit)):
                return False
            yield from reader.spaces()
            if not (yield from reader.literal(":")):
                return False
            emit(":")
            if space := (yield from reader.spaces()):
                emit(space)
            due = "value"
            continue
        elif char in ("{", "["):
            if len(closing) == DEPTH:
                return False
            emit(reader.take(1))
            closing.append("}" if char == "{" else "]")
            due = "first key" if char == "{" else "first value"
            continue
        elif char == '"':
            if not (yield from json_string(reader, emit)):
                return False
        else:
            atom = yield from reader.run(_ATOM, ATOM)
            if atom not in _WORDS and not _NUMBER.fullmatch(atom):
                return False
            emit(_WORDS.get(atom, atom))
        if not closing:
            return True
        due = "next"


def json_string(reader: Reader, emit: Callable[[str], None]) -> Step:
    """Read a JSON string, its quotes included, as json_value does."""
    if not (yield from reader.literal('"')):
        return False
    emit('"')
    while True:
        while not (piece := _PLAIN.match(reader.text, reader.at)) or not piece.group():
            char = yield from reader.peek()
            if not char:
                return False
            if char == '"':
                emit(reader.take(1))
                return True
            if char == "\\":
                escape = yield from reader.peek(2)
                if escape[1:] == "u":
                    escape = yield from reader.peek(6)
                    if not re.fullmatch(r"\\u[0-9a-fA-F]{4}", escape):
                        return False
                elif len(escape) < 2 or escape[1] not in '"\\/bfnrt':
                    return False
                emit(reader.take(len(escape)))
            elif char < " ":
                emit(json.dumps(reader.take(1))[1:-1])
        emit(reader.take(len(piece.group())))
