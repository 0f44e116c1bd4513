"""The nouns of telling: roles (what a model does), what one signal told, and the words of files, bounded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from brolly.identity.tables import table

MAX_WORD = 200  # characters of any name that a file states
MAX_WORDS = 64  # of a list of them


class Role(NamedTuple):
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    flavours: tuple[str, ...]


class Told(NamedTuple):
    """What one signal says, and where: `role` is a key of the table of roles, `family` may be empty."""

    family: str
    role: str
    file: str
    key: str
    value: str
    rule: str


@cache
def role(name: str) -> Role:
    """A row of the table of roles: "lmm text,image>text"."""
    kind, flow, *flavours = table("architectures.json")["roles"][name].split(" ")
    inputs, outputs = (tuple(m for m in side.split(",") if m) for side in flow.split(">"))
    return Role(kind, inputs, outputs, tuple(f for f in flavours if f))


def word(config: Mapping[str, Any], key: str) -> str:
    """A text that a file states, of bounded length and on one line; empty where it states none."""
    value = config.get(key)
    return one_line(value) if isinstance(value, str) else ""


def one_line(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", text[:MAX_WORD]).strip()


def words(config: Mapping[str, Any], key: str) -> list[str]:
    """A list of texts, or one text as a list of one."""
    value = config.get(key)
    value = [value] if isinstance(value, str) else value
    return [one_line(v) for v in value[:MAX_WORDS] if isinstance(v, str)] if isinstance(value, list) else []


def part(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = config.get(key)
    return value if isinstance(value, Mapping) else {}


def whole(config: Mapping[str, Any], key: str) -> int | None:
    value = config.get(key)
    return value if type(value) is int else None
