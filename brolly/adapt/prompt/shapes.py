"""Python's classes as JSON Schemas, and answers as their instances; pydantic does its own."""

from __future__ import annotations

import enum
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, fields, is_dataclass
from typing import Any

from brolly.errors import OptionError

SIMPLE = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
DEPTH = 16


def schema_of(kind: Any, depth: int = 0) -> dict[str, Any]:
    """The JSON Schema of a type: a dataclass, a pydantic model, str, int, Literal, Enum, X | Y, list, dict …

    Raises OptionError.
    """
    if depth > DEPTH:
        raise OptionError(f"the answer's type nests deeper than {DEPTH}; a dataclass may not hold itself.")
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if hasattr(kind, "model_json_schema"):
        return dict(kind.model_json_schema())
    if kind is Any:
        return {}
    if kind in SIMPLE:
        return {"type": SIMPLE[kind]}
    if origin is typing.Literal:
        return _enum(args)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return _enum([one.value for one in kind])
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [schema_of(one, depth + 1) for one in args]}
    if origin in (list, tuple) and len([one for one in args if one is not ...]) == 1:
        return {"type": "array", "items": schema_of(args[0], depth + 1)}
    if origin is dict and args[0] is str:
        return {"type": "object", "additionalProperties": schema_of(args[1], depth + 1)}
    if is_dataclass(kind) and isinstance(kind, type):
        hints = typing.get_type_hints(kind)
        made = {f.name: schema_of(hints[f.name], depth + 1) for f in fields(kind) if f.init}
        needed = [f.name for f in fields(kind) if f.init and f.default is MISSING and f.default_factory is MISSING]
        return {"type": "object", "properties": made, "required": needed, "additionalProperties": False}
    raise OptionError(
        f"the answer's type is {kind!r:.80}; expected texts to choose from, a JSON Schema, a pydantic model, a "
        "dataclass, or a type made of str, int, float, bool, Literal, Enum, list and dict."
    )


def _enum(values: Sequence[Any]) -> dict[str, Any]:
    """With their type, where they have one: some vendors want it of every part."""
    kinds = {SIMPLE.get(type(value)) for value in values}
    (kind, *others) = kinds
    return {"enum": list(values)} if kind is None or others else {"type": kind, "enum": list(values)}


def instance_of(kind: Any, value: Any) -> Any:
    """JSON's value as an instance of the type that its schema was made of. Raises OptionError."""
    if hasattr(kind, "model_validate"):
        try:
            return kind.model_validate(value)
        except ValueError as error:  # pydantic's own is one
            raise OptionError(f"{value!r:.120} is no {kind.__name__} ({' '.join(str(error).split())[:200]}).") from None
    try:
        return _built(kind, value)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise OptionError(f"{value!r:.120} is no {getattr(kind, '__name__', kind)} ({error}).") from None


def _built(kind: Any, value: Any) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return kind(value)
    if origin in (typing.Union, types.UnionType):
        for one in args:
            try:
                return _built(one, value)
            except (TypeError, ValueError, KeyError, AttributeError):
                continue
        raise ValueError("none of its kinds fits")
    if origin is list:
        return [_built(args[0], one) for one in value]
    if origin is tuple:
        return tuple(_built(args[0], one) for one in value)
    if origin is dict:
        return {name: _built(args[1], one) for name, one in value.items()}
    if is_dataclass(kind) and isinstance(kind, type):
        hints = typing.get_type_hints(kind)
        return kind(**{name: _built(hints[name], one) for name, one in value.items()})
    if hasattr(kind, "model_validate"):
        return kind.model_validate(value)
    if origin is typing.Literal and value not in args:
        raise ValueError(f"{value!r:.40} is none of its texts")
    if kind is float and type(value) is int:
        return float(value)
    if kind in SIMPLE and type(value) is not kind:
        raise ValueError(f"{value!r:.40} is no {kind.__name__}")
    return value


def plain_of(value: Any) -> Any:
    """An answer as JSON's values: an instance as what it holds."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if is_dataclass(value) and not isinstance(value, type):
        return {name: plain_of(one) for name, one in asdict(value).items()}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {name: plain_of(one) for name, one in value.items()}
    return [plain_of(one) for one in value] if isinstance(value, (list, tuple)) else value
