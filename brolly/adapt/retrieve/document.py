"""A document as it is indexed: its text, the blocks that it is made of, and what it says about itself. No libraries."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

MOST = 64 << 20  # characters of a document's text


class Block(NamedTuple):
    """A stretch of a document's text that belongs together: a paragraph, a row, an item, a piece of code."""

    start: int
    end: int
    kind: str = "text"  # or "code", "row"
    heading: str = ""  # the headings above it: "Guide > Repairs"
    page: int | None = None  # from 1


@dataclass(frozen=True)
class Document:
    """What was read of a file. Offsets count characters of `text`: the file's own, or what was drawn out of a PDF, DOCX
    or HTML."""

    text: str
    blocks: tuple[Block, ...]
    title: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)  # front matter, or the file's own properties


class Headings:
    """The headings above a place, by their depth."""

    def __init__(self) -> None:
        self._open: list[tuple[int, str]] = []

    def enter(self, depth: int, text: str) -> None:
        self._open = [(d, t) for d, t in self._open if d < depth] + [(depth, " ".join(text.split())[:200])]

    def __str__(self) -> str:
        return " > ".join(text for _, text in self._open if text)


class Paper:
    """A text that grows by blocks, for what is drawn out of other formats."""

    def __init__(self, most: int = MOST) -> None:
        self.headings = Headings()
        self.blocks: list[Block] = []
        self.title = ""
        self._parts: list[str] = []
        self._at, self._most = 0, most

    def add(self, text: str, kind: str = "text", page: int | None = None) -> None:
        """One more block; blank ones are none. Raises OverflowError where the document is too long."""
        text = text.strip("\n") if kind == "code" else " ".join(text.split())
        if not text.strip():
            return
        if self._at + len(text) > self._most:
            raise OverflowError(f"it holds more than {self._most:,} characters of text")
        self.blocks.append(Block(self._at, self._at + len(text), kind, str(self.headings), page))
        self._parts.append(text)
        self._at += len(text) + 2

    def head(self, depth: int, text: str) -> None:
        """A heading, which stands in the text too."""
        self.headings.enter(depth, text)
        self.title = self.title or " ".join(text.split())[:200]
        text = " ".join(text.split())
        if text:
            self._parts.append(text)
            self._at += len(text) + 2

    def done(self, title: str = "", fields: Mapping[str, str] | None = None) -> Document:
        return Document("\n\n".join(self._parts), tuple(self.blocks), title or self.title, dict(fields or {}))


# Texts as they lie ----------------------------------------------------------------------------------------------------

FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$")
UNDERLINE = re.compile(r" {0,3}(=+|-{2,})[ \t]*$")
ITEM = re.compile(r"[ \t]*(?:[-*+]|\d{1,9}[.)])[ \t]+")
FIELD = re.compile(r"([A-Za-z][\w .-]{0,63}):[ \t]*(.*)$")
# what begins a part of a program, in the languages that people write most
BEGINS = re.compile(
    r"(?P<indent>[ \t]*)(?:(?:export|default|public|private|protected|static|final|abstract|async|pub(?:\([^)]*\))?|"
    r"unsafe|virtual|inline|override)[ \t]+)*(?P<what>class|def|func|function|fn|struct|enum|trait|interface|impl|type|"
    r"module|namespace|sub|CREATE[ \t]+TABLE)[ \t]+(?P<name>[\w.:<>~$]+)"
)


def read_markdown(text: str) -> Document:
    """Markdown by its lines: headings, fenced code, rows of tables, items, paragraphs, front matter."""
    fields, at = front_matter(text)
    headings, blocks, title = Headings(), [], fields.get("title", "")
    begun: int | None = None  # of the paragraph that is open
    end = at
    fence = ""

    def close(kind: str = "text") -> None:
        nonlocal begun
        if begun is not None and text[begun:end].strip():
            blocks.append(Block(begun, end, kind, str(headings)))
        begun = None

    for start, line in lines_of(text, at):
        if fence:
            if (mark := FENCE.match(line)) and mark[1].startswith(fence) and not line[mark.end() :].strip():
                fence = ""
                close("code")
            else:
                end = start + len(line)
                begun = start if begun is None else begun
            continue
        if mark := FENCE.match(line):
            close()
            fence = mark[1]
        elif not line.strip():
            close()
        elif head := ATX.match(line):
            close()
            headings.enter(len(head[1]), plain(head[2] or ""))
            title = title or plain(head[2] or "")
        elif begun is not None and UNDERLINE.match(line) and "\n" not in text[begun:end]:
            words = plain(text[begun:end])
            headings.enter(1 if "=" in line else 2, words)
            title, begun = title or words, None
        elif line.lstrip().startswith("|"):
            close()
            begun, end = start, start + len(line)
            close("row")
        else:
            if begun is not None and ITEM.match(line):
                close()
            begun, end = start if begun is None else begun, start + len(line)
    close("code" if fence else "text")
    return Document(text, tuple(blocks), title, fields)


def read_plain(text: str) -> Document:
    """Paragraphs between blank lines."""
    blocks, begun, end = [], None, 0
    for start, line in lines_of(text, 0):
        if line.strip():
            begun, end = start if begun is None else begun, start + len(line)
        elif begun is not None:
            blocks.append(Block(begun, end))
            begun = None
    if begun is not None:
        blocks.append(Block(begun, end))
    first = next((line.strip() for _, line in lines_of(text[:2000], 0) if line.strip()), "")
    return Document(text, tuple(blocks), first if len(first) <= 80 and len(blocks) > 1 else "")


def read_code(text: str) -> Document:
    """A program: its parts between blank lines, under the names of the class and the function that they stand in."""
    headings, blocks, begun, end, above = Headings(), [], None, 0, ""
    for start, line in lines_of(text, 0):
        head = BEGINS.match(line) if len(line) < 1000 else None
        if begun is not None and (not line.strip() or head):
            blocks.append(Block(begun, end, "code", above))
            begun = None
        if head:
            depth = len(head["indent"].expandtabs(4)) // 2 + 1
            headings.enter(depth, f"{head['what']} {head['name'].rstrip(':.')}")
        if line.strip():
            if begun is None:
                begun, above = start, str(headings)
            end = start + len(line)
    if begun is not None:
        blocks.append(Block(begun, end, "code", above))
    return Document(text, tuple(blocks))


def lines_of(text: str, at: int) -> list[tuple[int, str]]:
    """Each line behind a place with where it begins, without its end."""
    found = []
    for line in text[at:].splitlines(keepends=True):
        found.append((at, line.rstrip("\r\n")))
        at += len(line)
    return found


def front_matter(text: str) -> tuple[dict[str, str], int]:
    """The `key: value` lines between two lines of --- at a text's start, and where the text goes on."""
    if not text.startswith(("---\n", "---\r\n")):
        return {}, 0
    fields: dict[str, str] = {}
    listed = ""
    for start, line in lines_of(text[:65536], 0)[1:]:
        if line.strip() in ("---", "..."):
            return fields, min(start + len(line) + 1, len(text))
        if found := FIELD.match(line):
            listed = found[1].strip().lower()
            fields[listed] = found[2].strip().strip("[]\"'").strip()
        elif listed and line.strip().startswith("- "):
            fields[listed] = ", ".join(filter(None, (fields[listed], line.strip()[2:].strip().strip("\"'"))))
        elif line.strip() and not line.startswith((" ", "\t", "#")):
            return {}, 0  # a text that begins with a rule
    return {}, 0


LINK = re.compile(r"!?\[([^\]\n]{0,500})\]\((?:[^()\n]|\([^()\n]*\)){0,1000}\)")
MARKS = re.compile(r"(?<![\w*])[*_]{1,3}(?=\S)|(?<=\S)[*_]{1,3}(?![\w*])|`")


def plain(text: str) -> str:
    """A stretch of Markdown as it is read out: without the marks of links, emphasis and code; on one line."""
    return " ".join(MARKS.sub("", LINK.sub(r"\1", text)).split())
