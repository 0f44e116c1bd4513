"""JSON schemas as Anthropic takes them: every object says that it holds nothing but what it names, and bounds of
numbers, lengths and counts stand in descriptions, which the model reads and is not held to.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from brolly.errors import OptionError

DEEP = 64  # schemas within schemas
NAMED = ("properties", "$defs", "definitions", "patternProperties", "dependentSchemas")  # names → schemas
# what is not taken by their reference of structured outputs, and minItems above 1
BOUNDS = (
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "maxItems",
    "uniqueItems",
)  # fmt: skip
# says which properties an object has; one without such a word may have any, and closed it could have none
SHAPED = frozenset(("properties", "$ref", "anyOf", "oneOf", "allOf"))
LITERAL = ("enum", "const", "default", "examples", "required")


def unsaid(schema: Any) -> list[str]:
    """What of a schema has no word there, behind a model's name."""
    if not isinstance(schema, Mapping) or not schema:
        return ["writes JSON of a schema that says its shape, not any JSON"]
    for one in _all(schema):
        if _is_object(one) and one.get("additionalProperties", not one.keys() & SHAPED) is not False:
            return ["writes objects of named properties alone; set additionalProperties to false"]
        if len([row for row in one.get("allOf") or () if isinstance(row, Mapping) and _is_object(row)]) > 1:
            return ["writes no allOf of several objects, as each of them must be closed"]
    return []


def loose(schema: Any) -> list[str]:
    """The bounds that the model is not held to."""
    return sorted({name for one in _all(schema) for name in _bounds(one)})


def taken(schema: Any, depth: int = 0) -> Any:
    """The same with additionalProperties false in each object without a word on it, which allows nothing new, and with
    bounds in descriptions. Raises OptionError where it is too deep."""
    if depth > DEEP:
        raise OptionError(f"a JSON schema is nested more than {DEEP} deep; expected a flatter one.")
    if isinstance(schema, list):
        return [taken(one, depth + 1) for one in schema]
    if not isinstance(schema, Mapping):
        return schema
    found: dict[str, Any] = {}
    bounds = _bounds(schema)
    for name, inner in schema.items():
        if name in NAMED and isinstance(inner, Mapping):
            found[name] = {key: taken(one, depth + 1) for key, one in inner.items()}
        elif name not in bounds:
            found[name] = inner if name in LITERAL else taken(inner, depth + 1)
    if _is_object(schema):
        found.setdefault("additionalProperties", False)
    if bounds:
        told = ", ".join(f"{name}: {json.dumps(schema[name])}" for name in bounds)
        before = found.get("description")
        found["description"] = f"{before} ({told})" if isinstance(before, str) and before else told
    return found


def _bounds(schema: Mapping[str, Any]) -> list[str]:
    least = schema.get("minItems")
    return [name for name in BOUNDS if name in schema] + ["minItems"] * (type(least) is int and least > 1)


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
