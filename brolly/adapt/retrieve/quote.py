"""The sentence of some sources that answers a question best, and how sure that is. No language model writes here.

A sentence is weighed by the question's words that it holds, by what it means, and by whether it tells what was asked
for: a time, a number, a name, a place. The last is known of English alone.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import exp
from typing import Any

from brolly.adapt.retrieve.chunks import sentences
from brolly.adapt.retrieve.document import plain
from brolly.adapt.retrieve.embedder import Embedder
from brolly.adapt.retrieve.store import Hit
from brolly.adapt.retrieve.words import STOP, WORD, stem, stems

MOST = 400  # characters of a sentence that is quoted
CANDIDATES = 120  # sentences weighed

TIME = (
    r"\b\d{1,2}[:.]\d{2}\b|\b1\d{3}\b|\b20\d{2}\b|\b(?:jan|febr)uary|\bmarch\b|\bapril\b|\bmay\b|\bjune\b|\bjuly\b|"
    r"\baugust\b|\b(?:sept|nov|dec)ember\b|\boctober\b|\b(?:mon|tues|wednes|thurs|fri|satur|sun)days?\b|\bnoon\b|"
    r"\bmidnight\b|\bdawn\b|\bdusk\b|\b(?:morning|afternoon|evening|night|spring|summer|autumn|winter)\b|"
    r"\b(?:second|minute|hour|day|week|month|year|centur(?:y|ie)|season)s?\b|\btwice\b|\bonce\b|\bo'clock\b|"
    r"\b(?:before|until|after|as soon as|since)\b"
)
SPAN = r"\b(?:second|minute|hour|day|week|month|year|centur(?:y|ie)|decade)s?\b|\btwice\b|\bdaily\b|\bweekly\b|\d"
NUMBER = (
    r"\d|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|"
    r"seventeen|eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|thousand|million|"
    r"billion|dozen|half|none)\b"
)
NAME = (
    r"(?-i:(?<=[a-z,;:] )[A-Z][a-z]+|\b(?:Mr|Mrs|Ms|Miss|Dr|Captain|Sir|Professor)\b|\b[A-Z][a-z]+ (?:& )?[A-Z][a-z]+)"
)
CLOCK = re.compile(
    r"\b\d{1,2}[:.]\d{2}\b|\b\w+ (?:second|minute|hour|day|week|month|year)s?\b|"
    r"\b\w+ in the (?:morning|afternoon|evening)\b",
    re.IGNORECASE,
)
PLACE = r"\b(?:in|at|on|near|under|behind|beside|below|above|from|to|outside|inside|between|by|opposite|across)\b"
COLOUR = (
    r"\b(?:red|green|blue|white|black|yellow|orange|violet|purple|amber|brown|grey|gray|pink|gold|silver|golden|scarlet|"
    r"crimson|turquoise)\b"
)
CAUSE = r"\b(?:because|since|so|for|therefore|to|due|as|reason)\b"
CODE = r"(?-i:\b[A-Z]+[-_]?\d+\b|\b[A-Z][a-z]+[A-Z]\w+\b|`)"
# what is asked → what tells it; the first that fits
EXPECTED = [
    (re.compile(question, re.IGNORECASE), re.compile(answer, re.IGNORECASE))
    for question, answer in [
        (r"\bcolou?rs?\b", COLOUR),
        (r"\bhow (?:long|often|early|late|soon|old)\b|\b(?:interval|duration|period|timeout|age of|length of time)\b",
         SPAN),
        (r"\bhow (?:many|much|tall|high|heavy|hot|large|big|wide|deep|far|fast|cold)\b", NUMBER),
        (r"\b(?:height|weight|capacity|temperature|price|cost|fine|number|sum|distance|size|amount|percentage|port|"
         r"pressure|speed|limit)\b", NUMBER),
        (r"^\W*when\b|\bsince when\b|\b(?:what|which)\s(?:time|year|day|date|"
         r"month|weekday|hour|season)\b|\bwhat is the date\b", TIME),
        (r"\bwho(?:se|m)?\b|\bwhich (?:person|company|firm|craftsman|author)\b|\bname of\b", NAME),
        (r"\bwhere\b|\bwhat place\b|\blast stop\b", PLACE),
        (r"\bwhy\b", CAUSE),
        (r"\b(?:code|exception|error|command|flag|option)\b", CODE),
    ]
]  # fmt: skip


@dataclass(frozen=True)
class Sentence:
    """A sentence of a hit, and what speaks for it."""

    hit: int  # its place among the hits
    text: str
    start: int  # characters of the document's text
    end: int
    features: tuple[float, ...]
    score: float = 0.0


def candidates(hits: Sequence[Hit]) -> list[Sentence]:
    """The sentences of some hits, those of the best first; each stretch of a document once."""
    found: list[Sentence] = []
    seen: set[tuple[str, int]] = set()
    for i, hit in enumerate(hits):
        spans = [span for line in _lines(hit.text) for span in sentences(hit.text, *line)]
        for a, b in spans:
            text = plain(hit.text[a:b]).lstrip("-*+|># ").strip()
            key = (hit.name, hit.start + a)
            if len(text) > 2 and key not in seen and len(found) < CANDIDATES:
                seen.add(key)
                found.append(Sentence(i, text[:MOST], hit.start + a, hit.start + b, ()))
    return found


def _lines(text: str) -> list[tuple[int, int]]:
    """Paragraphs; a list's items and a table's rows are some, too."""
    found, at = [], 0
    for part in re.split(r"(\n\s*\n|\n(?=\s*(?:[-*+|]|\d+[.)])\s?))", text):
        if part.strip():
            found.append((at, at + len(part)))
        at += len(part)
    return found


def weigh(
    question: str, hits: Sequence[Hit], weights: Mapping[str, float], vector: Any, embedder: Embedder
) -> list[Sentence]:
    """Every sentence with its features and its score, the best first."""
    import numpy as np

    found = candidates(hits)
    if not found:
        return []
    expected, known = expects(question), set(stems(question))
    asked_words = {stem(w.lower()): w for w in WORD.findall(question) if w.lower() not in STOP}
    counted = [set(stems(one.text)) for one in found]
    above = [set(stems(f"{hit.title} {hit.heading} {re.sub(r'[/_.-]', ' ', hit.name)}")) for hit in hits]
    likeness = _likeness(asked_words, [one.text for one in found], embedder)
    vectors = embedder.remembered([f"{hits[one.hit].title}\n{one.text}" for one in found] + [one.text for one in found])
    cosines = (vectors @ vector).reshape(2, len(found))
    names = named(question)
    whole = [set(stems(hit.text)) | above[i] for i, hit in enumerate(hits)]
    rows = []
    for i, one in enumerate(found):
        around, like = above[one.hit], likeness[i]
        before = counted[i - 1] if i and found[i - 1].hit == one.hit else set()
        own = {s: w for s, w in weights.items() if s not in around}  # what the title does not say already
        here = dict.fromkeys(counted[i], 1.0)
        named_here = {s: weights.get(s, 1.0) for s in names}
        rows.append(
            (
                share(own, here),
                share(own, most(here, like)),
                share(weights, most(here, dict.fromkeys(around, 1.0))),
                share(weights, most(here, dict.fromkeys(around, 1.0), dict.fromkeys(before, 0.5), like)),
                share(weights, dict.fromkeys(whole[one.hit], 1.0)),
                share(named_here, dict.fromkeys(whole[one.hit], 1.0)),
                float(cosines[0, i]),
                float(cosines[1, i]),
                0.0 if expected is None else 1.0 if tells(one.text, *expected, known | around) else -1.0,
                1 / (1 + one.hit),
            )
        )
    table = np.array(rows)
    full = table[:, NAMES] >= table[:, NAMES].max() - 1e-6
    scores = table @ np.array(CHOICE) - 3.0 * ~full  # a source that lacks one of the names is another thing's
    ordered = np.argsort(-scores, kind="stable")
    return [Sentence(f.hit, f.text, f.start, f.end, rows[i], float(scores[i])) for i in ordered if (f := found[i])]


# of the features in their order, fitted on tests/adapt/retrieve/rehearsal.py (softmax over a question's sentences)
CHOICE = (0.7, 2.0, 1.3, 1.9, 0.9, 1.7, 1.6, 0.8, 1.8, 1.7)
NAMES = 5  # the place of the share of names among the features
# of: words covered, names covered, the cosine over the usual one; and what is taken off. Fitted there, too.
SURE = (3.2, 1.4, 2.3, -2.85)


def named(question: str) -> set[str]:
    """The stems of a question's names: words with a capital or a digit behind the first one."""
    words = [w for w in WORD.findall(question)[1:] if w.lower() not in STOP]
    kept = [
        w for w in words if any(c.isdigit() for c in w) or (w[0].isupper() and not (w.isupper() and 1 < len(w) < 6))
    ]
    return {s for w in kept for s in stems(w)}


def expects(question: str) -> tuple[re.Pattern[str], bool] | None:
    """What tells what is asked for, and whether times are none of it."""
    for asked, answer in EXPECTED:
        if asked.search(question):
            return answer, answer.pattern == NUMBER
    return None


def tells(text: str, expected: re.Pattern[str], timeless: bool, known: Collection[str]) -> bool:
    """Whether a sentence holds such a thing, of which the question and the title say nothing yet."""
    if timeless:
        text = CLOCK.sub(" ", text)
    return any(
        not mark[0].strip() or not set(stems(mark[0])) <= set(known) or mark[0] == "`"
        for mark in expected.finditer(text)
    )


def share(weights: Mapping[str, float], there: Mapping[str, float]) -> float:
    """How much of the weight is there, 0 to 1; 1 of nothing."""
    total = sum(weights.values())
    return sum(weight * there.get(stem, 0.0) for stem, weight in weights.items()) / total if total else 1.0


def most(*shares: Mapping[str, float]) -> dict[str, float]:
    """For each stem the greatest of its shares."""
    found: dict[str, float] = {}
    for one in shares:
        for word, value in one.items():
            found[word] = max(found.get(word, 0.0), value)
    return found


def confidence(best: Sentence | None, sample: Any) -> float:
    """How likely it is that the sources hold an answer, 0 to 1, by the best sentence and how near anything lies."""
    if best is None:
        return 0.0
    usual, spread = (float(sample.mean()), max(float(sample.std()), 1e-3)) if len(sample) else (0.0, 1.0)
    above = min(max((best.features[6] - usual) / spread / 10, -1.0), 1.0)
    value = SURE[0] * best.features[3] + SURE[1] * best.features[5] + SURE[2] * above + SURE[3]
    return 1 / (1 + exp(-value))


def passage(ranked: Sequence[Sentence]) -> list[Sentence]:
    """The best sentence, and the next one of the same hit where it is nearly as good, in the document's order."""
    best = ranked[0]
    also = [
        one for one in ranked[1:4] if one.hit == best.hit and one.score > 0.6 * best.score and one.start != best.start
    ]
    return sorted([best, *also[:1]], key=lambda one: one.start)


def _likeness(asked: Mapping[str, str], texts: Sequence[str], embedder: Embedder) -> list[dict[str, float]]:
    """For each text: how like its likeliest word is to each word of the question, 0 to 1, by the embedder."""
    import numpy as np

    words = [[w.lower() for w in WORD.findall(text) if w.lower() not in STOP and len(w) > 2] for text in texts]
    every = sorted({w for row in words for w in row})
    if not every or not asked:
        return [{} for _ in texts]
    place = {w: i for i, w in enumerate(every)}
    vectors = embedder.remembered([*every, *(w.lower() for w in asked.values())])
    like = np.clip((vectors[: len(every)] @ vectors[len(every) :].T - 0.4) / 0.5, 0.0, 1.0)
    best = [like[[place[w] for w in row]].max(axis=0) if row else np.zeros(len(asked)) for row in words]
    return [dict(zip(asked, row.tolist(), strict=True)) for row in best]
