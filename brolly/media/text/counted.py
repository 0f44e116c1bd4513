"""What templates may call, asking the Budget of the thread before and telling it after. Knows no Jinja."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from types import GeneratorType
from typing import Any

from brolly.media.text.budget import Budget, Forbidden, Refusal, Spent, spending


class Hook:
    """A function that the rewritten tree calls; told apart from what a template calls."""

    def __init__(self, run: Callable[..., Any]) -> None:
        self.run = run


class Dict:
    """dict(): only the call, and none of the type's attributes."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


def finalize(value: Any) -> Any:
    budget = spending()
    if not isinstance(value, str):
        budget.spend(6 * budget.weigh(value))
        value = str(value)
    budget.made(value)
    return value


def counted(value: Any) -> Any:
    spending().tick()
    return value


def concat(*values: Any) -> str:
    budget = spending()
    budget.tick()
    budget.spend(sum(v.__len__() if isinstance(v, str) else 6 * budget.weigh(v) for v in values))
    return "".join([str(v) for v in values])


def refuse(message: Any) -> None:
    raise Refusal(str(message))


def strftime_now(form: str) -> str:
    if len(form) > 200:
        raise Spent("it formats a date to more than 200 characters")
    return datetime.now().strftime(form)


def tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    budget = spending()
    budget.width(indent)
    step = len(indent) if isinstance(indent, str) else int(indent or 0)
    marks = sum(map(len, separators)) if separators else 4
    budget.spend(budget.weigh(value) * (6 + max(0, step) + marks))
    text = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    return budget.made(text)


_WIDE = frozenset(("center", "indent", "wordwrap", "truncate", "batch", "slice", "round", "urlize"))
_LIGHT = frozenset(("length", "count", "first", "last", "default", "d", "int", "float", "abs"))
_SLOW = frozenset(("wordwrap", "urlize", "striptags", "pprint", "title", "wordcount"))


def asked(name: str, run: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that asks the budget before and tells it after; an iterator is counted as it goes."""
    first = 1 if getattr(run, "jinja_pass_arg", None) is not None else 0

    @functools.wraps(run)
    def ask(*args: Any, **kwargs: Any) -> Any:
        budget = spending()
        budget.tick()
        lead, (value, *rest) = args[:first], args[first:]
        if name == "join" and not isinstance(value, (str, list, tuple, dict)):
            value = list(budget.steps(value)) if hasattr(value, "__iter__") else value
        check_filter(budget, name, value, rest, kwargs)
        result = run(*lead, value, *rest, **kwargs)
        return budget.steps(result) if isinstance(result, (GeneratorType, Iterator)) else budget.made(result)

    return ask


def check_filter(budget: Budget, name: str, value: Any, rest: list[Any], options: Mapping[str, Any]) -> None:
    given = [*rest, *options.values()]
    if name in _LIGHT:
        return
    if name in _WIDE:
        budget.width(*given)
    weight = budget.weigh(value)
    if name in _SLOW and weight > 100_000:
        raise Spent(f"it gives {name} a text of {weight:,} characters")
    if name == "list" and isinstance(value, str):
        budget.spend(64 * len(value))
    elif name == "join":
        parts = [g for g in given if isinstance(g, str)]
        budget.spend(weight + max(map(len, parts), default=0) * (len(value) if hasattr(value, "__len__") else 0))
    elif name == "replace":
        budget.replaced(str(value), *[*rest, options.get("old", ""), options.get("new", "")][:2])
    elif name in ("indent", "wordwrap"):
        width = max((len(g) if isinstance(g, str) else int(g) for g in given), default=4)
        budget.spend(weight + (str(value).count("\n") + 1 if name == "indent" else weight) * max(width, 0))
    elif name == "format":
        budget.percent(str(value), tuple(given))
    elif name == "sum" and not all(isinstance(g, (int, float, str, type(None))) for g in given):
        raise Forbidden("sum adds numbers only")
    elif name in ("string", "pprint", "urlencode", "xmlattr", "e", "escape", "forceescape", "urlize", "tojson"):
        budget.spend(9 * weight)


def check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise Forbidden(f"a namespace takes no name that begins with an underscore: {name!r}")
