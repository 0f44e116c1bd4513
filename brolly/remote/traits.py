"""What is known of single closed models, each fact with its source: a row of data/traits.json a lineage."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache

from brolly.remote.target import Target
from brolly.remote.vendors import DATA

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")  # how hard to think, rising


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
    dialects: tuple[str, ...] = ()  # of its vendor's, those that it answers to, the preferred one first; none: all
    prompts: Mapping[str, str] = field(default_factory=dict)  # of an embedder: a role → what goes before such a text
    source: str = ""
    seen: str = ""


@cache
def rows() -> tuple[tuple[str, Traits], ...]:
    """Patterns of "vendor:model", the first that matches wins."""
    found = []
    for row in json.loads((DATA / "traits.json").read_text())["traits"]:
        match = row.pop("match")
        row |= {name: tuple(row.get(name, ())) for name in ("efforts", "lacks", "reads", "verbs", "dialects")}
        found.append((match, Traits(**row)))
    return tuple(found)


def traits_of(target: Target) -> Traits:
    """What is known of a model; nothing of one that is not in the table."""
    return _of(target.vendor.name, target.model)


@lru_cache(1024)
def _of(vendor: str, model: str) -> Traits:
    rest = (traits for match, traits in rows() if concerns(match, vendor) and re.fullmatch(match, f"{vendor}:{model}"))
    return next(rest, Traits())


def nearest(effort: str, known: Sequence[str]) -> str:
    """The word of effort among those that a model knows: the same, else the nearest with which it thinks."""
    if effort in known:
        return effort
    return min((word for word in known if word != "none"), key=lambda w: abs(EFFORTS.index(w) - EFFORTS.index(effort)))


def concerns(match: str, vendor: str) -> bool:
    """Whether a pattern can be of a vendor: it begins with a vendor's name, so that few need to be compiled."""
    return vendor.startswith(re.split(r"[^a-z]", match, maxsplit=1)[0])
