"""A text's words as they are counted: folded, parted, without endings (Porter 1980), and which of them say little."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache


def listed(text: str) -> list[str]:
    """Words between blanks."""
    return text.split()


# English alone; words that are common in other languages weigh little because they are common.
STOP = frozenset(
    listed(
        "a about all also am an and any are as at be been being but by can could did do does doing done for "
        "from get gets had has have having he her hers him his how i if in into is it its just let many may "
        "me might much must my no nor not of off on or our ours out own please shall she should so some such "
        "tell than that the their them then there these they this those to too us very was we were what when "
        "where which who whom whose why will with would you your yours"
    )
)
NUMBERS = dict(
    zip(
        listed(
            "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
            "sixteen seventeen eighteen nineteen twenty"
        ),
        map(str, range(21)),
        strict=True,
    )
)
WORD = re.compile(r"\d{1,3}(?:,\d{3})+|[^\W_]+")
JOINT = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[A-Za-z]{2})(?=\d)")
# scripts that put no space between words: pairs of neighbours stand for them
UNSPACED = re.compile(r"[぀-ヿ㐀-鿿豈-﫿]+")
LONGEST = 64  # characters of a word that is kept


def stems(text: str) -> list[str]:
    """Every word of a text in order, as it is looked up; camelCase and snake_case give their parts beside the whole."""
    found: list[str] = []
    for match in WORD.finditer(unicodedata.normalize("NFKC", text)):
        word = match[0]
        if word.isascii():
            parts = JOINT.split(word) if not word.islower() and not word.isdigit() else ()
            found.append(stem(word.replace(",", "").lower()[:LONGEST]))
            if len(parts) > 1:
                found += (stem(part.lower()[:LONGEST]) for part in parts)
        elif UNSPACED.fullmatch(word):
            found += [word[i : i + 2] for i in range(max(len(word) - 1, 1))]
        else:
            found.append(stem(_bare(word.casefold())[:LONGEST]))
    return found


def telling(text: str) -> list[str]:
    """The stems of a question that say what it is about, each once; all of them where none does."""
    said = [s for w in WORD.findall(unicodedata.normalize("NFKC", text)) if w.lower() not in STOP for s in stems(w)]
    return list(dict.fromkeys(s for s in said if len(s) > 1 or s.isdigit())) or list(dict.fromkeys(stems(text)))


def _bare(word: str) -> str:
    """Without accents."""
    return "".join(c for c in unicodedata.normalize("NFD", word) if not unicodedata.combining(c))


# Endings (M. F. Porter, "An algorithm for suffix stripping", 1980) --------------------------------------------------

SECOND = [
    ("ational", "ate"), ("tional", "tion"), ("enci", "ence"), ("anci", "ance"), ("izer", "ize"), ("abli", "able"),
    ("alli", "al"), ("entli", "ent"), ("eli", "e"), ("ousli", "ous"), ("ization", "ize"), ("ation", "ate"),
    ("ator", "ate"), ("alism", "al"), ("iveness", "ive"), ("fulness", "ful"), ("ousness", "ous"), ("aliti", "al"),
    ("iviti", "ive"), ("biliti", "ble"),
]  # fmt: skip
THIRD = [("icate", "ic"), ("ative", ""), ("alize", "al"), ("iciti", "ic"), ("ical", "ic"), ("ful", ""), ("ness", "")]
FOURTH = (
    listed(
    "ement ance ence able ible ment ant ent ism ate iti ous ive ize ion al er ic ou"
)
)  # fmt: skip
MEASURE = re.compile(r"v+c+")


@lru_cache(maxsize=1 << 17)
def stem(word: str) -> str:
    """An English word without its endings; number words as digits."""
    if word in NUMBERS:
        return NUMBERS[word]
    if len(word) < 3 or not word.isascii() or not word.isalpha():
        return word
    word = _plural(word)
    if word.endswith("y") and _vowel(word[:-1]):
        word = word[:-1] + "i"
    for endings in (SECOND, THIRD):
        for ending, other in endings:
            if word.endswith(ending):
                if _measure(word[: -len(ending)]) > 0:
                    word = word[: -len(ending)] + other
                break
    for ending in FOURTH:
        if word.endswith(ending):
            rest = word[: -len(ending)]
            if _measure(rest) > 1 and (ending != "ion" or rest[-1:] in ("s", "t")):
                word = rest
            break
    if word.endswith("e"):
        rest = word[:-1]
        if _measure(rest) > 1 or (_measure(rest) == 1 and not _short(rest)):
            word = rest
    if word.endswith("ll") and _measure(word) > 1:
        word = word[:-1]
    return word


def _plural(word: str) -> str:
    """Without -s, -ed and -ing."""
    if word.endswith(("sses", "ies")):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith("ss"):
        word = word[:-1]
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    for ending in ("ed", "ing"):
        rest = word[: -len(ending)]
        if word.endswith(ending) and _vowel(rest):
            if rest.endswith(("at", "bl", "iz")):
                return rest + "e"
            if len(rest) > 1 and rest[-1] == rest[-2] and rest[-1] not in "lszaeiou":
                return rest[:-1]
            return rest + "e" if _measure(rest) == 1 and _short(rest) else rest
    return word


def _shape(word: str) -> str:
    """Vowels as v, consonants as c; a y behind a consonant is a vowel."""
    shape = ""
    for letter in word:
        shape += "v" if letter in "aeiou" or (letter == "y" and shape[-1:] == "c") else "c"
    return shape


def _measure(word: str) -> int:
    return len(MEASURE.findall(_shape(word)))


def _vowel(word: str) -> bool:
    return "v" in _shape(word)


def _short(word: str) -> bool:
    """Ends in consonant, vowel, consonant, the last none of w, x, y."""
    return _shape(word)[-3:] == "cvc" and word[-1] not in "wxy"
