"""How right answers are: measures of one answer, their mean on rows, and what a difference of means allows to say."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brolly.adapt.prompt.shapes import plain_of
from brolly.errors import OptionError
from brolly.measure.intervals import Difference, Measured, Ratio, differences, measured

if TYPE_CHECKING:
    from brolly.adapt.prompt.prompt import Prompt, Result

Measure = Callable[[Any, Any], float]
FEW = 10  # rows below which a resampled interval is too narrow to say anything by


def interval(scores: Sequence[float], seed: int = 0) -> Measured:
    """The mean of scores and its 95 % interval."""
    if not scores:
        return Measured("score", 0.0, 0.0, 0.0, 0)
    return measured([Ratio("score", "score")], [{"score": float(one)} for one in scores], seed)[0]


def difference(after: Sequence[float], before: Sequence[float], seed: int = 0) -> Difference:
    """Of the means, row by row: what makes a row hard for both does not count."""
    a, b = ([{"score": float(one)} for one in some] for some in (before, after))
    return differences([Ratio("score", "score")], a, b, seed)[0]


def told(found: Measured) -> str:
    """A mean and its interval in a line."""
    return f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f}, {found.n} rows)"


def verdict(found: Difference) -> str:
    """What a difference allows one to say: better or worse only where the interval leaves zero out."""
    if found.n < FEW:
        return "too few rows to tell"
    return {"b": "better", "a": "worse"}.get(found.better, "no difference shown")


def exact(expected: Any, got: Any) -> float:
    """1 where the answer is the expected one; of texts, runs of blanks count as one."""
    return float(_normal(expected) == _normal(got))


def fields(expected: Any, got: Any) -> float:
    """The share of the expected answer's values, at any depth, that the answer has in the same place."""
    wanted, there = dict(_leaves(expected)), dict(_leaves(got))
    return sum(path in there and there[path] == value for path, value in wanted.items()) / len(wanted)


def _normal(value: Any) -> Any:
    value = plain_of(value)
    return " ".join(value.split()) if isinstance(value, str) else value


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    value = plain_of(value)
    if isinstance(value, (dict, list)) and value:
        for name, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(one, (*path, name))
    else:
        yield path, repr(_normal(value))


MEASURES: dict[str, Measure] = {"exact": exact, "fields": fields}


def measure_of(given: str | Measure | None, prompt: Prompt) -> tuple[str, Measure]:
    """A measure and its name: a function of (expected, got), "exact", "fields", or "file.py:function".

    Without one, JSON is measured by its fields and all else by being the same. Raises OptionError.
    """
    if callable(given):
        return getattr(given, "__name__", "a function"), given
    name = given or ("fields" if prompt.answer.schema is not None else "exact")
    if name in MEASURES:
        return name, MEASURES[name]
    file, _, function = name.rpartition(":")
    path = Path(file).expanduser()
    if not file.endswith(".py") or not path.is_file():
        raise OptionError(f"the measure is {name!r:.80}; expected {', '.join(MEASURES)} or file.py:function.")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        found = getattr(module, function)
    except Exception as error:
        raise OptionError(f"the measure {name!r:.80} cannot be had: {type(error).__name__}: {error}") from None
    return function, found


def scored(measure: Measure, expected: Any, result: Result) -> float:
    """A result's score; an error has none of it. Raises OptionError where the measure itself fails."""
    if result.error is not None:
        return 0.0
    try:
        found = float(measure(expected, result.value))
    except Exception as error:
        raise OptionError(f"the measure failed at {result.value!r:.80}: {type(error).__name__}: {error}") from error
    if not -1e9 < found < 1e9:
        raise OptionError(f"the measure says {found} of {result.value!r:.80}; expected a finite number.")
    return found


@dataclass(frozen=True)
class Case:
    """A row whose answer is known."""

    values: Mapping[str, Any]
    expected: Any


def cases_of(prompt: Prompt, rows: Iterable[Any]) -> list[Case]:
    """Labelled rows: the prompt's variables, and the answer under its name. Raises the first row's error."""
    found = []
    for number, row in enumerate(rows, 1):
        if isinstance(row, Exception):
            raise row
        if isinstance(row, Case):
            found.append(row)
            continue
        if prompt.answer.name not in row:
            raise OptionError(
                f"row {number} has {', '.join(map(str, row))[:120]}; expected {prompt.answer.name!r} among them, the "
                "right answer."
            )
        try:
            found.append(Case(prompt.values(row), _expected(prompt, row[prompt.answer.name])))
        except OptionError as error:
            raise OptionError(f"row {number}: {error}") from None
    return found


def _expected(prompt: Prompt, value: Any) -> Any:
    """The right answer, of the kind that answers are: a CSV has texts alone."""
    answer = prompt.answer
    if answer.schema is None and isinstance(value, str):
        return answer.read(value)
    if answer.schema is not None and isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        return plain_of(answer.read(value))
    return plain_of(value)
