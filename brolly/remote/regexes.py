"""Whether a text matches a regular expression of a stranger's, in a time that has a bound."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from brolly.errors import OptionError

STEPS = 10**7  # that Python's re may take
MANY = 2  # a repeat of so many or more is one


def matcher(regex: str) -> Callable[[str], bool]:
    """Of a whole text: by llguidance, whose time grows with its length, else by Python, where that does not run away.

    Raises OptionError at what cannot be read, or may take for ever.
    """
    try:
        pattern = re.compile(regex)
    except (re.error, RecursionError, OverflowError) as error:
        raise OptionError(f"regex {regex!r:.60} cannot be read ({error}).") from None
    return _linear(regex) or _bounded(regex, pattern)


def _linear(regex: str) -> Callable[[str], bool] | None:
    try:
        from llguidance import LLMatcher, LLTokenizer, grammar_from
    except ModuleNotFoundError:
        return None
    tokenizer: Any = LLTokenizer("byte")
    try:
        grammar = grammar_from("regex", regex)
        broken = LLMatcher(tokenizer, grammar).is_error()
    except ValueError:
        broken = True
    if broken:
        return None  # it looks around, or back

    def matches(text: str) -> bool:
        data = list(text.encode(errors="replace"))
        reader = LLMatcher(tokenizer, grammar)
        return reader.try_consume_tokens(data) == len(data) and bool(reader.is_accepting())

    return matches


def _bounded(regex: str, pattern: re.Pattern[str]) -> Callable[[str], bool]:
    from re import _parser  # type: ignore[attr-defined]

    repeats = list(_repeats(_parser.parse(regex), False))
    if any(repeats) or "(?P=" in regex or re.search(r"\\[1-9]", regex):
        raise OptionError(
            f"regex {regex!r:.60} repeats what repeats or branches, which can take for ever to check; write it "
            "otherwise, or install brolly[guided]."
        )

    def matches(text: str) -> bool:
        return (len(text) + 1) ** max(len(repeats), 1) <= STEPS and bool(pattern.fullmatch(text))

    return matches


def _repeats(tree: Any, inside: bool) -> Iterator[bool]:
    """Each repeat, and whether it or a branch is within another."""
    for name, value in tree:
        word = str(name)
        if word in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            several = value[1] >= MANY
            if several:
                yield inside
            yield from _repeats(value[2], inside or several)
        elif word == "BRANCH":
            if inside:
                yield True
            for branch in value[1]:
                yield from _repeats(branch, inside)
        elif word == "SUBPATTERN":
            yield from _repeats(value[3], inside)
        elif word in ("ASSERT", "ASSERT_NOT"):
            yield from _repeats(value[1], inside)
        elif word == "ATOMIC_GROUP":
            yield from _repeats(value, inside)
        elif word == "GROUPREF_EXISTS":
            yield True
