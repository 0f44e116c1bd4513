"""Texts compared: how they are made alike first, edits between them, and words in common. No torch."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

NORMALISERS = ("none", "unicode", "english")


def normaliser(name: str) -> Callable[[str], str]:
    """A function that makes texts alike, by its name."""
    return {"none": plain, "unicode": unicode, "english": english}[name]


def plain(text: str) -> str:
    """As it is, runs of blanks as one."""
    return " ".join(text.split())


def unicode(text: str) -> str:
    """Small letters in their compatible form (NFKC); marks, symbols and punctuation are blanks, but within words no
    apostrophe parts them."""
    text = unicodedata.normalize("NFKC", text).casefold()
    text = re.sub(r"(?<=\w)['’](?=\w)", "", text)
    kept = "".join(c if unicodedata.category(c)[0] in "LNM" else " " for c in text)
    return " ".join(kept.split())


TITLES = {
    "mr": "mister", "mrs": "missus", "dr": "doctor", "prof": "professor", "st": "saint", "jr": "junior", "sr": "senior",
    "capt": "captain", "lt": "lieutenant", "col": "colonel", "gen": "general", "gov": "governor", "sen": "senator",
    "rep": "representative", "pres": "president", "rev": "reverend", "hon": "honorable", "esq": "esquire",
    "asst": "assistant", "assoc": "associate", "ma'am": "madam",
}  # fmt: skip
SPOKEN = {
    "won't": "will not", "can't": "can not", "let's": "let us", "y'all": "you all", "wanna": "want to",
    "gonna": "going to", "gotta": "got to", "woulda": "would have", "coulda": "could have", "shoulda": "should have",
}  # fmt: skip
ENDINGS = {"n't": "not", "'re": "are", "'ll": "will", "'ve": "have", "'m": "am", "'t": "not"}
DONE = r"(?= (?:been|gone|done|got|had|become)\b)"  # behind which 's and 'd stand for has and had
CONTRACTIONS = (
    *((re.compile(rf"\b{short}\b"), whole) for short, whole in SPOKEN.items()),
    *((re.compile(rf"\b{short}\b\.?"), whole) for short, whole in TITLES.items()),
    (re.compile(f"'d{DONE}"), " had"), (re.compile(f"'s{DONE}"), " has"),
    *((re.compile(rf"{short}\b"), f" {whole}") for short, whole in ENDINGS.items()),
    (re.compile(r"'s\b"), " is"), (re.compile(r"'d\b"), " would"),
)  # fmt: skip
FILLERS = re.compile(r"\b(hmm|mm|mhm|mmm|uh|um)\b")
# where British and American spelling part by a rule; both become the American one
SPELLINGS = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        (r"\b(col|fav|flav|harb|hon|hum|lab|neighb|rum|vap|vig|behavi|endeav|savi|parl|arm)our", r"\1or"),
        (r"\b(cent|theat|met|lit|fib|lust|somb|spect|calib|meag)re(s?)\b", r"\1er\2"),
        (
            r"\b(organ|real|recogn|apolog|critic|summar|emphas|memor|special|civil|modern|real|author|general|util|minim"
            r"|maxim|normal|central|final|capital|local|natural|stabil|sympath|symbol)is(e|es|ed|ing|er|ers|ation|ations)\b",
            r"\1iz\2",
        ),
        (r"\b(analy|paraly|cataly)s(e|ed|er|ing)\b", r"\1z\2"),
        (r"\b(travel|cancel|label|model|signal|counsel|fuel|level|quarrel|marvel|jewel)l(ed|ing|er|ers)\b", r"\1\2"),
        (r"\b(catalog|dialog|analog)ue(s?)\b", r"\1\2"), (r"\b(def|off|pret)ence(s?)\b", r"\1ense\2"),
        (r"\bgrey(s|er|est)?\b", r"gray\1"), (r"\bcheque(s?)\b", r"check\1"), (r"\bprogramme(s?)\b", r"program\1"),
        (r"\bmould", "mold"), (r"\bplough", "plow"), (r"\btyre(s?)\b", r"tire\1"), (r"\bpyjamas\b", "pajamas"),
        (r"\bsceptic", "skeptic"), (r"\bjewellery\b", "jewelry"), (r"\baluminium\b", "aluminum"),
    )
)  # fmt: skip
UNITS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
SMALL = {word: i for i, word in enumerate(UNITS)} | {word: 20 + 10 * i for i, word in enumerate(TENS)}
SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}


def english(text: str) -> str:
    """Whisper's English rules (Radford et al. 2022, appendix C) in a short form of our own: what stands in brackets and
    fillers are left out, contractions and titles are spelled out, British spelling and written numbers are made one."""
    text = unicodedata.normalize("NFKC", text).lower().replace("’", "'")
    text = re.sub(r"<[^<>]*>|\[[^\[\]]*\]|\([^()]*\)", "", text)
    text = FILLERS.sub("", text)
    text = re.sub(r"\s+'", "'", text)
    for pattern, words in CONTRACTIONS:
        text = pattern.sub(words, text)
    text = re.sub(r"(?<=\d),(?=\d)", "", text)
    text = re.sub(r"\.(?=\D|$)", " ", text)
    text = "".join(_plain_letter(c) for c in unicodedata.normalize("NFKD", text))
    text = re.sub(r"[$£€](\d+(?:\.\d+)?)", _money, text)
    text = text.replace("%", " percent ")
    text = re.sub(r"[$£€]", " ", re.sub(r"(?<!\d)\.|\.(?!\d)", " ", text))
    for pattern, words in SPELLINGS:
        text = pattern.sub(words, text)
    return " ".join(_numbers(text.split()))


def _plain_letter(c: str) -> str:
    kind = unicodedata.category(c)
    if kind == "Mn":
        return ""
    return " " if kind[0] in "MSP" and c not in ".%$£€" else c


def _money(found: re.Match[str]) -> str:
    names = {"$": "dollars", "£": "pounds", "€": "euros"}
    return f"{found[1]} {names[found[0][0]]} "


def _numbers(words: Sequence[str]) -> list[str]:
    """Numbers in words as figures: "two hundred and five" → "205", "nineteen ninety" → "1990", "oh" as it is."""
    out: list[str] = []
    i = 0
    while i < len(words):
        value, used = _number(words, i)
        if used:
            out.append(value)
            i += used
        else:
            out.append(words[i])
            i += 1
    return out


def _number(words: Sequence[str], start: int) -> tuple[str, int]:
    """The number that begins at a word, and how many words it takes; 0 where there is none."""
    total = group = 0
    i, before = start, ""
    while i < len(words):
        word = words[i]
        if word in SMALL:
            small = SMALL[word]
            if before == "unit" or (before == "ten" and not 0 < small < 10) or (before == "hundred" and small == 0):
                break
            group += small
            before = "ten" if small >= 20 else "unit"
        elif word == "hundred" and before in ("unit", "ten") and 0 < group < 100:
            group, before = group * 100, "hundred"
        elif word in SCALES and before in ("unit", "ten", "hundred") and group:
            if total and SCALES[word] >= _least_scale(total):
                break
            total, group, before = total + group * SCALES[word], 0, "scale"
        elif word == "and" and before in ("hundred", "scale") and i + 1 < len(words) and words[i + 1] in SMALL:
            pass
        else:
            break
        i += 1
    if i == start:
        return "", 0
    value = total + group
    if before in ("unit", "ten") and 10 <= value < 100 and i - start <= 2 and i < len(words):
        year, used = _number_below_hundred(words, i)
        if used and year >= 10:  # nineteen ninety nine
            return str(value * 100 + year), i - start + used
    return str(value), i - start


def _least_scale(total: int) -> int:
    return max(scale for scale in SCALES.values() if total % scale == 0)


def _number_below_hundred(words: Sequence[str], i: int) -> tuple[int, int]:
    first = SMALL.get(words[i], 0)
    if first >= 20 and i + 1 < len(words) and 0 < SMALL.get(words[i + 1], 0) < 10:
        return first + SMALL[words[i + 1]], 2
    return first, 1 if first >= 10 else 0


def edits(a: Sequence[str], b: Sequence[str]) -> int:
    """Insertions, deletions and changes that make a of b (Levenshtein 1965), of words or of letters."""
    import numpy as np

    if len(a) > len(b):
        a, b = b, a
    names = {one: i for i, one in enumerate({*a, *b})}
    long = np.array([names[one] for one in b], np.int64)
    steps = np.arange(len(b) + 1)
    row = steps
    for i, one in enumerate(a, 1):
        best = np.minimum(row[1:] + 1, row[:-1] + (long != names[one]))
        # a step to the right costs one: the least of all that stand to the left, and the way from there
        row = np.minimum.accumulate(np.concatenate(([i], best)) - steps) + steps
    return int(row[-1])


def f1(expected: str, answer: str) -> float:
    """Of the words that two texts have in common, each as often as in both (Rajpurkar et al. 2016)."""
    a, b = expected.split(), answer.split()
    if not a or not b:
        return float(a == b)
    shared = sum((Counter(a) & Counter(b)).values())
    return 2 * shared / (len(a) + len(b))
