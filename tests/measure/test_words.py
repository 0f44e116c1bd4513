"""Texts made alike as Whisper's rules do, and edits as jiwer counts them."""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path
from typing import Any

import pytest

from brolly.measure.words import edits, english, f1, plain, unicode

SPOKEN = [
    "I won't go, can't go, and she's gone; they'd been here.", "Mr. Smith met Dr. Jones [laughter] in the (old) house.",
    "Um, the colour of the centre -- my favourite neighbour's -- is grey.", "He realised it, organised the travelling.",
    "Twenty-three people paid one hundred and five pigs.", "In nineteen ninety nine, all of three thousand or 1,234.",
    "Café naïve über", "It's   the same\nthing.", "We're sure you'll say they've done what I'm doing.",
    "three hundred thousand four hundred and twelve", "seven", "A man and a woman and five hundred horses",
    "version 2.5 is out.", "let's see: ma'am, wanna come?", "don't analyse the programme", "twelve million",
    'He said: "No!" and left -- at once.', "forty two thousand", "eighty eight", "the U.S. army",
]  # fmt: skip


@pytest.fixture(scope="module")
def whispers() -> Any:
    """openai-whisper's own normaliser, without importing what else it has."""
    found = importlib.util.find_spec("whisper")
    if found is None or found.origin is None:
        pytest.skip("openai-whisper is not installed")
    path = Path(found.origin).parent / "normalizers" / "__init__.py"
    spec = importlib.util.spec_from_file_location("whispers_normalizers", path)
    assert spec and spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.EnglishTextNormalizer()


@pytest.mark.parametrize("text", SPOKEN)
def test_english_is_made_alike_as_by_whisper(text: str, whispers: Any) -> None:
    assert english(text) == whispers(text)


def test_what_differs_from_whispers_rules_is_known() -> None:
    assert english("one two three") == "1 2 3"  # there: 123
    assert english("the same…") == "the same"  # there: two dots stay
    assert english("$5.50 and 20%") == "5.50 dollars and 20 percent"  # there: the signs stay
    assert english("") == "" and english("[music]") == ""


def test_letters_and_digits_remain_of_any_language() -> None:
    assert unicode("Straße, 3 ½ Äpfel!") == "strasse 3 1 2 äpfel"
    assert unicode("l’amour d'été") == "lamour dété"
    assert unicode("你好，世界。") == "你好 世界" and unicode("नमस्ते!") == "नमस्ते"
    assert plain("  a \n b ") == "a b"


def test_edits_are_those_of_jiwer() -> None:
    jiwer = pytest.importorskip("jiwer")
    draw = random.Random(1)
    for _ in range(100):
        a, b = (" ".join(draw.choices("abcd", k=draw.randrange(1, 12))) for _ in range(2))
        assert edits(a.split(), b.split()) / len(a.split()) == pytest.approx(jiwer.wer(a, b))
        assert edits(a, b) / len(a) == pytest.approx(jiwer.cer(a, b))
    assert (edits("", "abc"), edits("abc", ""), edits("", ""), edits("kitten", "sitting")) == (3, 3, 0, 3)


@pytest.mark.parametrize(
    ("expected", "answer", "value"),
    [
        ("a b c", "a b c", 1),
        ("a b", "c", 0),
        ("a a b", "a b b", 2 / 3),
        ("", "", 1),
        ("", "a", 0),
        ("a b c d", "b", 0.4),
    ],
)
def test_f1_is_of_words_in_common(expected: str, answer: str, value: float) -> None:
    assert f1(expected, answer) == pytest.approx(value)
