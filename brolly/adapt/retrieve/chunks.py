"""Documents → chunks of so many tokens: whole paragraphs where they fit, else sentences; never across a heading."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from brolly.adapt.retrieve.document import Block, Document

# A sentence ends at its mark and what closes behind it, before a blank; not behind an initial or a common short form.
END = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+(?=[\"'“‘(\[*]*[^\sa-z])|(?<=[。！？])")
SHORT = re.compile(r"(?:\b(?:[A-Za-z]|Mr|Mrs|Ms|Dr|Prof|St|No|vs|etc|e\.g|i\.e|cf|Fig|approx|Jr|Sr))\.[\"')\]]*$")
Count = Callable[[Sequence[str]], list[int]]


class Chunk(NamedTuple):
    """A stretch of a document, with where it stands in it."""

    start: int
    end: int
    text: str
    heading: str = ""
    page: int | None = None
    line: int = 1  # of the document's text, from 1


class Unit(NamedTuple):
    """What is not cut any further: a block that fits, a sentence, a line, a few words."""

    start: int
    end: int
    n_tokens: int
    block: int


def chunks(document: Document, count: Count, size: int) -> list[Chunk]:
    """The chunks of a document in order, of up to `size` tokens by `count`; the sentence at which a paragraph was cut
    stands in both parts, where it is short."""
    blocks = document.blocks
    units = list(_units(document.text, blocks, count, size))
    found, begun = [], 0
    lines = _Lines(document.text)
    while begun < len(units):
        place = blocks[units[begun].block]
        end, total = begun, 0
        while end < len(units):
            unit, block = units[end], blocks[units[end].block]
            if (block.heading, block.page) != (place.heading, place.page):
                break
            if end > begun and total + unit.n_tokens > size:
                break
            total, end = total + unit.n_tokens, end + 1
        first, last = units[begun], units[end - 1]
        text = document.text[first.start : last.end]
        found.append(Chunk(first.start, last.end, text, place.heading, place.page, lines.at(first.start)))
        cut = end < len(units) and units[end].block == last.block  # within a paragraph
        again = cut and end - begun > 1 and last.n_tokens <= size // 4 and last.n_tokens + units[end].n_tokens <= size
        begun = end - 1 if again else end
    return found


def _units(text: str, blocks: Sequence[Block], count: Count, size: int) -> Iterator[Unit]:
    lengths = count([text[b.start : b.end] for b in blocks])
    for i, (block, n_tokens) in enumerate(zip(blocks, lengths, strict=True)):
        if n_tokens <= size:
            yield Unit(block.start, block.end, n_tokens, i)
        else:
            for start, end, n in _cut(text, block.start, block.end, n_tokens, block.kind == "code", count, size):
                yield Unit(start, end, n, i)


def _cut(
    text: str, start: int, end: int, n_tokens: int, code: bool, count: Count, size: int
) -> Iterator[tuple[int, int, int]]:
    """Parts of a stretch that is too long: its lines or sentences, then its words, then whatever fits."""
    spans = _lines(text, start, end) if code else sentences(text, start, end)
    for a, b in spans:
        n = count([text[a:b]])[0] if len(spans) > 1 else n_tokens
        if n <= size:
            yield a, b, n
            continue
        step = max(1, (b - a) * size // (n + 1) * 9 // 10)  # characters that are likely to fit
        while a < b:
            c = min(a + step, b)
            if c < b and (blank := max(text.rfind(" ", a + 1, c), text.rfind("\n", a + 1, c))) > a + step // 2:
                c = blank
            while (n := count([text[a:c]])[0]) > size and c - a > 1:
                c = a + (c - a) // 2
            yield a, c, n
            a = c
            while a < b and text[a].isspace():
                a += 1


def sentences(text: str, start: int = 0, end: int | None = None) -> list[tuple[int, int]]:
    """Where each sentence of a stretch begins and ends."""
    end = len(text) if end is None else end
    found, at = [], start
    for mark in END.finditer(text, start, end):
        stop = mark.start() + len(mark[0].rstrip())
        if SHORT.search(text, max(at, stop - 12), stop):
            continue
        if text[at:stop].strip():
            found.append((at, stop))
        at = mark.end()
    if text[at:end].strip():
        found.append((at, end))
    return found


def _lines(text: str, start: int, end: int) -> list[tuple[int, int]]:
    found = []
    for line in text[start:end].splitlines(keepends=True):
        if line.strip():
            found.append((start, start + len(line.rstrip())))
        start += len(line)
    return found


class _Lines:
    """The number of the line at places that only go on."""

    def __init__(self, text: str) -> None:
        self._text, self._at, self._line = text, 0, 1

    def at(self, place: int) -> int:
        if place > self._at:
            self._line += self._text.count("\n", self._at, place)
            self._at = place
        return self._line
