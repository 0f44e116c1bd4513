"""A licence's text to its id: by the title of model licences, by fingerprints of SPDX texts. Knows no cards."""

from __future__ import annotations

import re
from typing import Any

from brolly.identity import tables

MAX_TEXT = 2**18  # bytes; the longest licence in the table has 35 kB
MAX_WORDS = 12_000
WIDTH = 6  # words of a shingle
KEPT = 48  # fingerprints of a text: its smallest hashes, a sample that does not depend on the text around it (MinHash)
LIKE = 0.9  # likeness (Jaccard) of a text and a licence: names and spellings differ, a further sentence does not pass
LIKE_LONG, LONG = 0.78, 600  # of a licence of more words: its appendix may be missing
TITLE = 400  # words in which a title must stand
STUB = 300  # words; a file shorter than this may name a licence instead of holding its text
OWNER = re.compile(r"^\W*(?:copyright|\(c\)|©)[^\n]*$", re.IGNORECASE | re.MULTILINE)
FILE = re.compile(
    r"(?P<model>license[-_]?model|model[-_]licen[cs]e)|(?P<plain>copying|licen[cs]es?(?:[-_][\w.-]*)?)"
    r"|(?P<notice>notice|use[-_]policy|terms[-_]of[-_]use|terms)",
    re.IGNORECASE,
)
OTHER = re.compile(r"code|third|3rd|data", re.IGNORECASE)


def texts() -> Any:
    """identity/data/licence_texts.json: titles and stubs in normalised words, fingerprints by licence."""
    return tables.table("licence_texts.json")


def words_of(text: str) -> list[str]:
    """A text in small letters without punctuation and without the lines that name an owner."""
    plain = OWNER.sub(" ", text.lower()).replace("licence", "license")
    return re.findall(r"[a-z0-9+]+", plain)[:MAX_WORDS]


def prints_of(words: list[str]) -> set[int]:
    """The hash of every run of WIDTH words."""
    from zlib import crc32

    return {crc32(" ".join(words[i : i + WIDTH]).encode()) for i in range(max(1, len(words) - WIDTH + 1))}


def sample(text: str) -> list[int]:
    """The fingerprints of a licence's text."""
    return sorted(prints_of(words_of(text)))[:KEPT]


def licence_in(text: str) -> tuple[str, str] | None:
    """The licence that a text is, or that a short one names, and how that was told."""
    words = words_of(text[:MAX_TEXT])
    if len(words) < 2:
        return None
    head = f" {' '.join(words[:TITLE])} "
    if found := _first(head, texts()["titles"]):
        return found[0], f"its title “{found[1]}”"
    if found := _first(f" {' '.join(words)} ", texts()["additions"]):
        return (found[0], f"“{found[1]}” in its text") if found[0] else None
    if len(words) > 60:
        mine = sorted(prints_of(words))[:KEPT]
        likeness, _, name = max((like(mine, row[1:]), row[0], name) for name, row in texts()["prints"].items())
        if likeness >= (LIKE if len(words) < LONG else LIKE_LONG):
            return name, f"its text (likeness {likeness:.2f})"
    if len(words) <= STUB and (found := _first(head, texts()["stubs"])):
        return found[0], f"“{found[1]}” in a short text"
    return None


def like(one: list[int], other: list[int]) -> float:
    """The share of fingerprints that two texts have in common, estimated from the smallest of both together."""
    smallest = set(sorted({*one, *other})[:KEPT])
    return len(smallest.intersection(one).intersection(other)) / len(smallest)


def _first(head: str, phrases: list[list[str]]) -> tuple[str, str] | None:
    """The phrase that stands first; where two begin together, the one that asks for more."""
    at = [
        (head.find(f" {first} "), -len(first) - sum(map(len, more)), name, first)
        for name, first, *more in phrases
        if f" {first} " in head and all(f" {word} " in head for word in more)
    ]
    return min(at)[2:] if at else None


def rank(name: str) -> int | None:
    """How much a file of this name tells of the model's licence, 0 most; None if it is no licence."""
    stem = re.sub(r"\.(txt|md|rst)$", "", name, flags=re.IGNORECASE)
    if "/" in name or OTHER.search(stem):
        return None
    if matched := FILE.fullmatch(stem):
        return 0 if matched["model"] else 1 if matched["plain"] else 2
    return 1 if re.search(r"[._-]licen[cs]e$", stem, re.IGNORECASE) else None
