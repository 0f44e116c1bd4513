"""Which documents a search may see, by what is known of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from brolly.adapt.retrieve.files import KIND_OF
from brolly.adapt.retrieve.store import Known
from brolly.errors import OptionError

Filters = Mapping[str, Any]


def allowed(documents: Iterable[Known], filters: Filters) -> set[int]:
    """The ids of documents that all filters let through.

    `path` is a pattern (guide/*.md), `folder` one with all below it, `suffix` an ending, `kind` one of pdf, docx, html,
    markdown, code, text, image; `after` and `before` are days or times of the last change (2026-03-01); any other name
    is a key of the front matter or of the file's properties. Several values of one name: any of them.
    """
    tests = []
    for name, value in filters.items():
        values = [str(v) for v in value] if isinstance(value, (list, tuple, set, frozenset)) else [str(value)]
        if not values:
            raise OptionError(f"the filter {name!r} has no value.")
        times = [_time(name, v) for v in values] if name in ("after", "before") else []
        tests.append((name, values, times))
    return {known.id for known in documents if all(_passes(known, *test) for test in tests)}


def _passes(known: Known, name: str, values: list[str], times: list[int]) -> bool:
    if name == "path":
        return any(fnmatchcase(known.name, value) for value in values)
    if name == "folder":
        return any(known.name.startswith(value.strip("/") + "/") or value.strip("/") in ("", ".") for value in values)
    if name == "suffix":
        return any(known.name.lower().endswith("." + value.lower().lstrip(".")) for value in values)
    if name == "kind":
        suffix = "." + known.name.lower().rpartition(".")[2]
        return KIND_OF.get(suffix, "text") in values
    if name == "after":
        return any(known.stamp.mtime >= time for time in times)
    if name == "before":
        return any(known.stamp.mtime < time for time in times)
    said = known.fields.get(name.lower())
    if said is None:
        return False
    parts = {said.strip().lower(), *(part.strip().lower() for part in said.split(","))}
    return any(value.strip().lower() in parts for value in values)


def parse(words: Iterable[str]) -> dict[str, list[str]]:
    """k=v words of a command line; the same name again adds a value. Raises OptionError."""
    found: dict[str, list[str]] = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not sign or not name.strip() or not value.strip():
            raise OptionError(f"the filter {word!r:.80} is not name=value, such as path='guide/*' or author=Ada.")
        found.setdefault(name.strip(), []).append(value.strip())
    return found


def _time(name: str, value: str) -> int:
    """Nanoseconds since 1970 of a day or a time in ISO's form, here where no zone is said."""
    try:
        return int(datetime.fromisoformat(value).timestamp() * 1e9)
    except (ValueError, OverflowError, OSError):
        raise OptionError(f"the filter {name}={value!r:.40} is no day or time such as 2026-03-01.") from None
