"""What one rendering of a stranger's template may spend: processor time, and the size of all that it makes."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

SECONDS = 1.0  # of this thread's processor time; the longest published template takes some milliseconds
_BYTES = 32 << 20
_ITEMS = 200_000
_DIGITS = re.compile(r"\d{5,}|\*")
_SPEC = re.compile(r"%(?:\([^)]*\))?[^a-zA-Z%]*")
_CONTAINERS = (list, tuple, dict)
_THREAD = threading.local()


class Refusal(Exception):
    """raise_exception: the template's own words."""


class Spent(Exception):
    """A template used up what it may; it cannot catch this."""


class Forbidden(Exception):
    """A template reached for what it has no use for."""


class Budget:
    """Counts while a template runs, and stops it.

    The weight of a value is its characters and elements, through all levels: a list that holds another one twice counts
    it twice, so that nothing whose text would be huge is ever made.
    """

    __slots__ = ("_deadline", "_known", "_left", "_ticks", "limit", "marks")

    def __init__(self, given: int = 0) -> None:
        """`given` is the size of the messages and tools: a long conversation may make more."""
        self._deadline = time.thread_time() + SECONDS
        self._left = _BYTES + 32 * given
        self._ticks = 0
        self._known: dict[int, tuple[Any, int]] = {}
        self.limit = (2 << 20) + 4 * given
        self.marks = "", ""  # what is written before and behind the assistant's words

    def tick(self, size: int = 0) -> None:
        """One step of a loop, a call or a comparison, which writes `size` characters."""
        self._ticks += 1
        self._left -= size
        if self._left < 0:
            raise Spent("it makes more text than any conversation needs")
        if not self._ticks & 31:
            self.clock()

    def clock(self) -> None:
        if time.thread_time() > self._deadline:
            raise Spent(f"it runs for more than {SECONDS:g} s")

    def spend(self, size: int) -> None:
        """Something of `size` bytes is about to be made."""
        self._left -= size
        if size > self.limit or self._left < 0:
            raise Spent("it makes more text than any conversation needs")
        if size > 1 << 12:
            self.clock()

    def weigh(self, value: Any) -> int:
        """The weight of a value; too heavy a one is refused."""
        if isinstance(value, str):
            return len(value) + 1
        if not isinstance(value, _CONTAINERS):
            return 8
        found = self._known.get(id(value))
        if found is not None:
            return found[1]
        if len(value) > _ITEMS:
            raise Spent(f"it makes a list of {len(value):,} elements")
        self.spend(256 + 40 * len(value))
        inside = [*value, *value.values()] if isinstance(value, dict) else value
        total = 2
        for item in inside:
            total += self.weigh(item)
            if total > self.limit:
                raise Spent("it makes a list that would be too long to write")
        # kept alive, so that no other object takes its place in memory
        self._known[id(value)] = (value, total)
        return total

    def made(self, value: Any) -> Any:
        """Account for a new value."""
        if isinstance(value, str):
            self.spend(len(value) * (1 if value.isascii() else 4))
        elif isinstance(value, _CONTAINERS):
            self.weigh(value)
        return value

    def steps(self, values: Any) -> Iterator[Any]:
        """Count the steps of an iterator."""
        for value in values:
            self.tick()
            yield value

    # what would be huge before it can be weighed

    def times(self, left: Any, right: Any) -> None:
        """left * right"""
        if isinstance(left, int) and isinstance(right, int):
            self._number(left.bit_length() + right.bit_length())
            return
        for many, count in ((left, right), (right, left)):
            if isinstance(many, (str, list, tuple)) and isinstance(count, int):
                self.spend(len(many) * max(count, 0) * (1 if isinstance(many, str) else 8))

    def power(self, left: Any, right: Any) -> None:
        """left ** right"""
        if isinstance(left, int) and isinstance(right, int):
            self._number(left.bit_length() * max(right, 0))

    def plus(self, left: Any, right: Any) -> None:
        """left + right"""
        if hasattr(left, "__len__") and hasattr(right, "__len__"):
            self.spend((len(left) + len(right)) * (1 if isinstance(left, str) else 8))

    def percent(self, form: Any, values: Any) -> None:
        """form % values"""
        if isinstance(form, str):
            for found in _SPEC.finditer(form):
                self.spec(found[0])
            self.spend(len(form) + 6 * self.weigh(values))

    def spec(self, spec: str) -> None:
        """A format's width and precision."""
        if _DIGITS.search(spec):
            raise Spent(f"it formats to a width of {spec!r}")
        self.spend(sum(int(n) for n in re.findall(r"\d+", spec)))

    def width(self, *sizes: Any) -> None:
        """Numbers that say how wide, deep or many."""
        for size in sizes:
            if isinstance(size, (int, float)) and abs(size) > 10_000:
                raise Spent(f"it asks for a width of {size:g}")

    def replaced(self, text: str, old: Any, new: Any) -> None:
        """text.replace(old, new)"""
        if isinstance(old, str) and isinstance(new, str):
            self.spend(len(text) + text.count(old) * max(0, len(new) - len(old)))

    def _number(self, bits: int) -> None:
        if bits > 8192:
            raise Spent(f"it computes a number of {bits:,} bits")


def spending() -> Budget:
    """The budget of what this thread renders now."""
    return _THREAD.budget


@contextmanager
def spend_from(budget: Budget) -> Iterator[None]:
    """Make `budget` the one that counts in this thread."""
    before = getattr(_THREAD, "budget", None)
    _THREAD.budget = budget
    try:
        yield
    finally:
        _THREAD.budget = before


def _cut(budget: Budget, text: str, sep: Any = None, maxsplit: int = -1) -> None:
    count = text.count(sep) if isinstance(sep, str) and sep else len(text) // 2
    if count > _ITEMS and not 0 <= maxsplit <= _ITEMS:
        raise Spent(f"it cuts a text of {len(text):,} characters into a list")


def _pad(budget: Budget, text: str, width: int = 0, *_: Any) -> None:
    budget.width(width)


def _tabs(budget: Budget, text: str, tabsize: int = 8) -> None:
    budget.width(tabsize)
    budget.spend(len(text) + text.count("\t") * abs(tabsize))


def _join(budget: Budget, text: str, values: Any) -> None:
    if isinstance(values, _CONTAINERS):
        budget.spend(budget.weigh(values) + len(text) * len(values))
    elif isinstance(values, str):
        budget.spend(len(values) * (1 + len(text)))
    else:
        raise Forbidden("join takes a list; make one of it with |list")


def _translate(budget: Budget, text: str, table: Any) -> None:
    longest = max((len(v) for v in table.values() if isinstance(v, str)), default=1) if isinstance(table, dict) else 1
    budget.spend(len(text) * max(1, longest))


def _replace(budget: Budget, text: str, old: Any = "", new: Any = "", *_: Any) -> None:
    budget.replaced(text, old, new)


def _free(budget: Budget, *_: Any, **__: Any) -> None:
    """Makes nothing longer than what it is given."""


# the methods of plain values that a template may call, with what each must be asked first
_FREE = (
    "capitalize casefold count endswith find index isalnum isalpha isascii isdecimal isdigit isidentifier islower "
    "isnumeric isprintable isspace istitle isupper lower lstrip partition removeprefix removesuffix rfind rindex "
    "rpartition rstrip splitlines startswith strip swapcase title upper"
)
_TEXT: dict[str, Callable[..., None]] = {name: _free for name in _FREE.split()} | {
    "split": _cut, "rsplit": _cut, "center": _pad, "ljust": _pad, "rjust": _pad, "zfill": _pad, "expandtabs": _tabs,
    "join": _join, "translate": _translate, "replace": _replace,
}  # fmt: skip
_TEXT["splitlines"] = lambda budget, text, *_: _cut(budget, text, "\n")
_METHODS: Mapping[type, Mapping[str, Callable[..., None]]] = {
    str: _TEXT,
    list: dict.fromkeys(("count", "index", "copy"), _free),
    tuple: dict.fromkeys(("count", "index"), _free),
    dict: dict.fromkeys(("get", "items", "keys", "values", "copy"), _free),
    int: dict.fromkeys(("bit_length", "is_integer"), _free),
    float: dict.fromkeys(("is_integer",), _free),
}


def check_method(budget: Budget, method: Any, args: tuple[Any, ...], options: Mapping[str, Any]) -> None:
    """Refuse a method of a plain value that a template has no use for, or that would make something huge."""
    owner = getattr(method, "__self__", None)
    kind = next((k for k in _METHODS if isinstance(owner, k)), None)
    if isinstance(owner, (bytes, bytearray, complex, type)) or (kind and method.__name__ not in _METHODS[kind]):
        raise Forbidden(f"{method.__name__} of a {type(owner).__name__} is not for templates")
    if kind:
        _METHODS[kind][method.__name__](budget, owner, *args, **options)
