"""Hits → numbered sources within a budget of tokens: neighbours joined, nothing twice, nothing in them that can act."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from brolly.adapt.prompt.quote import CUT, MARKS, Quoter
from brolly.adapt.retrieve.store import Hit
from brolly.errors import OptionError

BLANK = r"[\s\u00ad\u200b-\u200f\u2060\ufeff]*"
# our own marks of a source, however they are spelt
SOURCE = re.compile(rf"[<＜‹﹤](?={BLANK}[/／]?{BLANK}source\b)", re.IGNORECASE)
BRACKETED = re.compile(r"\[(\d{1,3}(?:\s*[,–-]\s*\d{1,3})*)\]")


@dataclass(frozen=True)
class Source:
    """A stretch of a document that a model is shown, under its number."""

    number: int  # from 1
    hit: Hit  # the best of those that were joined
    text: str
    start: int
    end: int


def joined(hits: Sequence[Hit]) -> list[Source]:
    """Hits that touch or overlap become one, which stands where the best of them stood."""
    groups: list[list[Hit]] = []
    for hit in hits:
        near = [
            group
            for group in groups
            if group[0].name == hit.name and group[0].kind == hit.kind == "text"
            and any(abs(other.id - hit.id) <= 1 and other.id != hit.id for other in group)
        ]  # fmt: skip
        if near:
            near[0].append(hit)
            for other in near[1:]:  # the hit stands between two groups
                near[0] += other
                groups.remove(other)
        else:
            groups.append([hit])
    sources = []
    for number, group in enumerate(groups, 1):
        rows = sorted(group, key=lambda hit: hit.start)
        text, end = rows[0].text, rows[0].end
        for row in rows[1:]:
            text += row.text[end - row.start :] if row.start < end else ("\n\n" + row.text)
            end = max(end, row.end)
        sources.append(Source(number, group[0], text, rows[0].start, end))
    return sources


def within(sources: Sequence[Source], count: Callable[[str], int], budget: int) -> list[Source]:
    """The first sources that fit a budget of tokens; the first is cut where it alone is too long."""
    kept: list[Source] = []
    for source in sources:
        n_tokens = count(source.text)
        if n_tokens > budget:
            if kept:
                break
            text = source.text
            while text and (n := count(text)) > budget:
                text = text[: min(len(text) - 1, len(text) * budget // n)]
            return [Source(source.number, source.hit, text, source.start, source.start + len(text))] if text else []
        kept.append(source)
        budget -= n_tokens
    return kept


def harmless(text: str, control: Collection[str] = (), quoter: Quoter | None = None) -> str:
    """A document's words without what a template or our own layout would read as a mark: control tokens are parted
    behind their first character, numbers in brackets get round ones. `quoter` looks with the model's own tokenizer,
    whatever that makes equal, and for turns that its template marks by plain words."""
    text = SOURCE.sub("(", BRACKETED.sub(r"(\1)", text))
    marks = sorted(
        (mark for mark in control if len(mark) > 1 and not mark.isalnum() and mark.strip()), key=len, reverse=True
    )
    known = re.compile("|".join(map(re.escape, marks))) if marks else None
    for _ in range(8):  # parting one may make another
        before = text
        text = MARKS.sub(_parted, text)
        text = known.sub(_parted, text) if known else text
        text = _quoted(text, quoter) if quoter else text
        if text == before:
            return text
    return "".join(c if c.isalnum() or c in " \n.,;:!?'\"()-" else " " for c in text)


def _quoted(text: str, quoter: Quoter) -> str:
    try:
        return quoter.quote(text)[0].replace(CUT, " ")
    except OptionError:  # a token that cannot be parted
        return "".join(c if c.isalnum() or c in " \n.,;:!?'\"()-" else " " for c in text)


def _parted(mark: re.Match[str]) -> str:
    return mark[0][0] + " " + mark[0][1:]
