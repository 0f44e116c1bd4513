"""How much a model was trained, in the prose of its card: read in sentences; what could mean something else is left."""

from __future__ import annotations

import re
from collections.abc import Iterator

from brolly.identity.subject import Subject

MOST = 200_000  # characters of a model card
PEAK = {"H100": 989e12, "H200": 989e12, "A100": 300e12}  # FLOP a second, dense 16 bit: as Annex A.3 assumes
WHOLE, LATER = ("pre", "plain"), ("later",)  # stages of training; see STAGE
ENDS = re.compile(r"\n\s*\n|(?<=[.!?])\s+(?=[A-Z*\[])|\n[|#*-]")  # of sentences, paragraphs, rows
SCALE = {"trillion": 1e12, "t": 1e12, "tn": 1e12, "billion": 1e9, "b": 1e9, "bn": 1e9, "million": 1e6, "m": 1e6}
RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")

TOKENS = re.compile(
    r"(?<![\w.,])(\d{1,4}(?:[.,]\d{1,3})?)\s?([Tt]rillion|[Bb]illion|[Mm]illion|T|B|M)\+?"
    r"[ \-](?:[a-z-]{1,20} ){0,5}?tokens?\b"
)
FLOP = re.compile(
    r"(?<![\w.])(?:(\d{1,4}(?:\.\d{1,4})?) ?[x×*·] ?10 ?\^ ?\{?\(?(\d{2})\)?\}?"
    r"|(\d{1,3}(?:\.\d{1,4})?)[eE]\+?(\d{2}))"
    r" ?(?:training |total )?(?:FLOPs?|FLOPS|flops?|floating[- ]point operations)\b(?! ?(?:/|per\b))"
)
STAGE = re.compile(  # what a sentence says was done with the tokens
    r"(?P<later>(?:continu\w*|further|additional\w*) (?:pre-?)?train\w*"
    r"|(?:fine-?|instruction-?|post-?)[ -]?(?:tun|train)\w*|mid-?train\w*"
    r"|anneal\w*|cool-?down|distill\w*|(?:SFT|RLHF|DPO)\b)"
    r"|(?P<pre>pre-?train\w*)|(?P<plain>\btrain(?:ed|ing)?\b)",
    re.IGNORECASE,
)
MILLIONS = re.compile(r"train\w* (?:on|with|for) (?:about |roughly |~)?$", re.IGNORECASE)  # as many as contexts have
NOT_TRAINING = re.compile(
    r"context|window|sequence length|max(?:imum)?[ _-]length|batch|per (?:second|step|day)|vocabular|throughput|[$€]",
    re.IGNORECASE,
)
THRESHOLD = re.compile(r"threshold|AI Act|below|under|less than|exceed|greater than|presum|limit", re.IGNORECASE)
HOURS = re.compile(r"(?:GPU )?hours used\W{0,12}(\d[\d,.]{0,12})", re.IGNORECASE)
HARDWARE = re.compile(r"hardware type\W{0,12}([^\n]{0,120})", re.IGNORECASE)
SIZES = re.compile(r"(?<![\w.])(\d{1,4}(?:\.\d{1,2})?) ?([BMT])\b(?!\+? ?(?:[a-z-]{1,20} ){0,5}tokens)")


def card_of(subject: Subject) -> str:
    """The model card's text, LaTeX and superscripts made plain."""
    text = subject.text("README.md", MOST)
    raised = re.sub(r"10([⁰¹²³⁴⁵⁶⁷⁸⁹]{2})", lambda m: "10^" + m[1].translate(RAISED), text)
    plain = re.sub(r"\$([^$\n]{1,60})\$", r"\1", raised)
    return plain.replace("\\times", "x").replace("**", "").replace("<sup>", "^").replace("</sup>", "")


def _sentence(text: str, start: int, end: int) -> tuple[str, str]:
    """The sentence around a match, before it and after it, at most some 200 characters of it."""
    before, after = text[max(0, start - 200) : start], text[end : end + 120]
    return ENDS.split(before)[-1], ENDS.split(after)[0]


def _stage(before: str, after: str) -> str | None:
    """What was done: "pre" (pre-training), "plain" (training), "later" (fine-tuning), by the verb before a number."""
    verbs = [m.lastgroup for m in STAGE.finditer(before)][-1:] + [m.lastgroup for m in STAGE.finditer(after)][:1]
    return verbs[0] if verbs else None


def tokens_in(text: str, size: int | None, stages: tuple[str, ...] = WHOLE) -> list[tuple[float, str]]:
    """Training tokens that a card states, with the words; empty where it names several and not whose they are."""
    found: list[tuple[float, str, str]] = []
    for match in _first_of(TOKENS, text):
        near = text[max(0, match.start() - 40) : match.end() + 25]
        if NOT_TRAINING.search(near) or _stage(*_sentence(text, match.start(), match.end())) not in stages:
            continue
        value = float(match[1].replace(",", ".") if len(match[1].split(",")[-1]) < 3 else match[1].replace(",", ""))
        value *= SCALE[match[2].lower()]
        if 1e9 <= value <= 1e15 or (value >= 1e6 and MILLIONS.search(text, max(0, match.start() - 30), match.start())):
            clause = re.split(r"[,;] | and ", text[max(0, match.start() - 80) : match.start()])[-1]
            found.append((value, " ".join(match[0].split()), clause))
    if len({value for value, _, _ in found}) > 1:
        found = [f for f in found if size and any(_is_size(m, size) for m in SIZES.finditer(f[2]))]
    return [(value, words) for value, words, _ in found] if len({f[0] for f in found}) == 1 else []


def _is_size(match: re.Match[str], size: int) -> bool:
    named = float(match[1]) * {"B": 1e9, "M": 1e6, "T": 1e12}[match[2]]
    return abs(named - size) <= 0.12 * size


def flop_in(text: str, stages: tuple[str, ...] = WHOLE) -> list[tuple[float, str]]:
    """Training compute that a card states, with the words; empty where it names several."""
    found = []
    for match in _first_of(FLOP, text):
        before, after = _sentence(text, match.start(), match.end())
        if THRESHOLD.search(before) or THRESHOLD.search(after) or _stage(before, after) not in stages:
            continue
        number, power = (match[1], match[2]) if match[1] else (match[3], match[4])
        value = float(f"{number}e{power}")
        if 1e15 <= value <= 1e29:
            found.append((value, " ".join(match[0].split())))
    return found if len({value for value, _ in found}) == 1 else []


def hours_in(text: str) -> tuple[float, str] | None:
    """GPU hours and the GPU of a card's section on carbon emissions, where both are plain."""
    hours, hardware = HOURS.findall(text), HARDWARE.findall(text)
    gpus = [gpu for gpu in PEAK if hardware and gpu in hardware[0]]
    if len(hours) != 1 or len(gpus) != 1:
        return None
    digits = hours[0].rstrip(".,").replace(",", "")
    return (float(digits), gpus[0]) if re.fullmatch(r"\d+(\.\d+)?", digits) and 0 < float(digits) < 1e10 else None


def _first_of(pattern: re.Pattern[str], text: str, most: int = 60) -> Iterator[re.Match[str]]:
    for i, match in enumerate(pattern.finditer(text)):
        if i >= most:
            return
        yield match
