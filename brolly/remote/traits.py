"""What is known of single closed models, each fact with its source: a row of data/traits.json a lineage."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache

from brolly.remote.target import Target
from brolly.remote.vendors import DATA


@dataclass(frozen=True)
class Traits:
    """Facts about one model, as far as its vendor tells them; what is not known is sent as it was asked."""

    context: int | None = None  # tokens
    max_output: int | None = None  # tokens of one answer
    thinking: str = ""  # how it is asked for: "budget" of tokens, "adaptive", "effort" or "level"; "none": it does not
    efforts: tuple[str, ...] = ()  # the words that it knows; none: unknown
    lacks: tuple[str, ...] = ()  # options that it refuses though its dialect knows them (temperature, stop …)
    reads: tuple[str, ...] = ()  # beside text: image, audio, pdf; none: unknown
    verbs: tuple[str, ...] = ()  # none: those of its vendor
    source: str = ""
    seen: str = ""


@cache
def rows() -> tuple[tuple[re.Pattern[str], Traits], ...]:
    """Patterns of "vendor:model", the first that matches wins."""
    found = []
    for row in json.loads((DATA / "traits.json").read_text())["traits"]:
        pattern = re.compile(row.pop("match"))
        row |= {name: tuple(row.get(name, ())) for name in ("efforts", "lacks", "reads", "verbs")}
        found.append((pattern, Traits(**row)))
    return tuple(found)


def traits_of(target: Target) -> Traits:
    """What is known of a model; nothing of one that is not in the table."""
    name = f"{target.vendor.name}:{target.model}"
    return next((traits for pattern, traits in rows() if pattern.fullmatch(name)), Traits())
