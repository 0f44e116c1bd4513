"""JSON schemas as Anthropic takes them: every object says that it holds nothing but what it names."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from brolly.errors import OptionError

DEEP = 64  # schemas within schemas
NAMED = ("properties", "$defs", "definitions", "patternProperties", "dependentSchemas")  # names → schemas
# what their reference of structured outputs names as not taken
BOUNDS = (
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "maxItems",
    "uniqueItems",
)  # fmt: skip
LITERAL = ("enum", "const", "default", "examples", "required")


def parsed(schema: str) -> Any:
    """Raises OptionError."""
    try:
        return json.loads(schema)
    except (ValueError, RecursionError):
        raise OptionError(f"json_schema is {schema!r:.60}, which is no JSON; expected a JSON schema.") from None


def unsaid(schema: Any) -> list[str]:
    """What of a schema has no word there, behind a model's name."""
    if not isinstance(schema, Mapping) or not schema:
        return ["writes JSON of a schema that says its shape, not any JSON"]
    for one in _all(schema):
        if _is_object(one) and one.get("additionalProperties", False) is not False:
            return ["writes objects of named properties alone; set additionalProperties to false"]
        if len([row for row in one.get("allOf") or () if isinstance(row, Mapping) and _is_object(row)]) > 1:
            return ["writes no allOf of several objects, as each of them must be closed"]
        beyond = [name for name in BOUNDS if name in one]
        if beyond or (type(one.get("minItems")) is int and one["minItems"] > 1):
            return [f"has no {beyond[0] if beyond else 'minItems above 1'} in a schema; say it in a description"]
    return []


def closed(schema: Any, depth: int = 0) -> Any:
    """The same with additionalProperties false in each object without a word on it: it allows nothing new.

    Raises OptionError where it is too deep.
    """
    if depth > DEEP:
        raise OptionError(f"a JSON schema is nested more than {DEEP} deep; expected a flatter one.")
    if isinstance(schema, list):
        return [closed(one, depth + 1) for one in schema]
    if not isinstance(schema, Mapping):
        return schema
    found: dict[str, Any] = {}
    for name, inner in schema.items():
        if name in NAMED and isinstance(inner, Mapping):
            found[name] = {key: closed(one, depth + 1) for key, one in inner.items()}
        else:
            found[name] = inner if name in LITERAL else closed(inner, depth + 1)
    if _is_object(schema):
        found.setdefault("additionalProperties", False)
    return found


def _all(schema: Any, depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """It and every schema within it."""
    if depth > DEEP:
        raise OptionError(f"a JSON schema is nested more than {DEEP} deep; expected a flatter one.")
    if isinstance(schema, list):
        for one in schema:
            yield from _all(one, depth + 1)
    elif isinstance(schema, Mapping):
        yield schema
        for name, inner in schema.items():
            if name in NAMED and isinstance(inner, Mapping):
                for one in inner.values():
                    yield from _all(one, depth + 1)
            elif name not in LITERAL:
                yield from _all(inner, depth + 1)


def _is_object(schema: Mapping[str, Any]) -> bool:
    kind = schema.get("type")
    return "properties" in schema if kind is None else "object" in (kind if isinstance(kind, list) else (kind,))
