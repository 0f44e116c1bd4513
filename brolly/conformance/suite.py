"""The checks in their order, and what came of each."""

from __future__ import annotations

import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from brolly.errors import BrollyError

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"


class Skipped(Exception):
    """What a check needs is not there; the reason is its text."""


class Wrong(Exception):
    """The model did something else than it should: what, in a sentence."""


@dataclass
class Subject:
    """A model under examination. `model` has the verbs; the rest tells what may be asked of it.

    `elsewhere` makes the same model under another name, or with another key, for errors; None where there is no such.
    """

    model: Any
    name: str
    repeats: bool  # whether the same question at temperature 0 gets the same words
    free: bool  # whether a question costs nothing
    reads: tuple[str, ...]  # modalities; none: unknown
    verbs: tuple[str, ...]
    context: int | None = None
    thinks: bool = False  # without being asked to
    random: bool = False  # writes anything: a schema must bound it
    cool: bool = True  # whether it takes a temperature
    elsewhere: Callable[[str], Any] | None = None
    wrong_key: Callable[[], Any] | None = None
    answers: dict[str, Any] = field(default_factory=dict)  # of checks that others build on

    @property
    def options(self) -> dict[str, Any]:
        """What makes it repeat itself, where it may be said."""
        return {"temperature": 0.0} if self.repeats and self.cool else {}

    @property
    def room(self) -> int:
        """Tokens for a short answer: one who thinks needs them for that, too."""
        return 2048 if self.thinks else 128


@dataclass(frozen=True)
class Check:
    """One question. Its name is a sentence's end: "the model …"."""

    group: str
    name: str
    run: Callable[[Subject], None]


@dataclass(frozen=True)
class Outcome:
    """What came of a check."""

    check: str
    group: str
    state: str  # passed, failed, skipped
    why: str = ""
    seconds: float = 0.0


CHECKS: list[Check] = []


def check(group: str, name: str) -> Callable[[Callable[[Subject], None]], Callable[[Subject], None]]:
    """Enter a function into the suite."""

    def enter(run: Callable[[Subject], None]) -> Callable[[Subject], None]:
        CHECKS.append(Check(group, name, run))
        return run

    return enter


def wants(told: object, what: str) -> None:
    """Raise Wrong unless something holds."""
    if not told:
        raise Wrong(what)


def examine(subject: Subject, only: str = "") -> Iterator[Outcome]:
    """Each check's outcome as it is known; `only` keeps those whose group or name holds a text."""
    import_module("brolly.conformance.checks")
    for one in CHECKS:
        if only not in one.group and only not in one.name:
            continue
        began = time.perf_counter()
        state, why = PASSED, ""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                one.run(subject)
        except Skipped as reason:
            state, why = SKIPPED, str(reason)
        except Wrong as wrong:
            state, why = FAILED, str(wrong)
        except BrollyError as error:
            state, why = FAILED, f"{type(error).__name__}: {error}"
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            state, why = FAILED, f"{type(error).__name__} at {where.name}:{where.lineno}: {error}"
        yield Outcome(one.name, one.group, state, " ".join(why.split())[:300], time.perf_counter() - began)
