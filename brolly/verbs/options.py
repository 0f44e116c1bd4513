"""How an option is said once for every surface: a dataclass field with its help, its range and its short flag."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, fields
from typing import Any

from brolly.errors import OptionError


def option(
    default: Any, help: str, *, low: float | None = None, high: float | None = None, short: str = "",
    file: bool = False,
) -> Any:  # fmt: skip
    """A field that travels to every surface: its help, its range, its short flag, whether a file may hold its text."""
    factory = default if callable(default) else None
    meta = {"help": help, "low": low, "high": high, "short": short, "file": file}
    return field(default_factory=factory, metadata=meta) if factory else field(default=default, metadata=meta)


def check_ranges(options: Any) -> None:
    """Every number of an options dataclass is one, and within its range. Raises OptionError."""
    for f in fields(options):
        value, low, high = getattr(options, f.name), f.metadata["low"], f.metadata["high"]
        if value is None or (low is None and high is None):
            continue
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and value == value
        if not number or (low is not None and value < low) or (high is not None and value > high):
            span = f"at least {low}" if high is None else f"between {low} and {high}"
            raise OptionError(f"{f.name} is {value!r}; it must be a number {span}.")


def read_options(kind: type, given: Mapping[str, Any]) -> Any:
    """`kind` of keyword arguments; None where it means nothing is as good as not given. Raises OptionError."""
    known = {f.name: f for f in fields(kind)}
    if unknown := given.keys() - known:
        raise OptionError(f"{sorted(unknown)[0]!r} is no option; there are {', '.join(sorted(known))}.")
    given = {name: value for name, value in given.items() if value is not None or "None" in known[name].type}
    for name, value in given.items():
        if value is None:
            continue
        if known[name].type == "bool" and type(value) is not bool:
            raise OptionError(f"{name} is {value!r}; it must be true or false.")
        if "int" in known[name].type.split(" | ") and type(value) is not int:
            raise OptionError(f"{name} is {value!r}; it must be a whole number.")
    return kind(**given)
