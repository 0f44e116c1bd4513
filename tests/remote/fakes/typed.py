"""A request held against a vendor's own TypedDicts, by the blocks' `type`: the first thing that is wrong, and where."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin

import typing_extensions

REQUIRED = (typing.Required, typing_extensions.Required)
ANNOTATED = (typing.Annotated,)


def complaint(kind: Any, value: Any, path: str = "") -> str:
    """What is wrong, as `messages.0.content.1.text: Field required`; "" where nothing is."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in ANNOTATED:
        return complaint(args[0], value, path)
    if origin in (Union, types.UnionType):
        return _one_of([one for one in args if _travels(one)], value, path)
    if typing_extensions.is_typeddict(kind):
        return _fields(kind, value, path)
    if origin is Literal:
        good = any(type(value) is type(one) and value == one for one in args)
        return "" if good else f"{path}: Input should be {' or '.join(map(repr, args))}"
    if origin in (dict, Mapping):
        return "" if isinstance(value, dict) else f"{path}: Input should be a valid dictionary"
    if origin is not None and args:  # lists of any name
        if not isinstance(value, list):
            return f"{path}: Input should be a valid list"
        return next((why for i, one in enumerate(value) if (why := complaint(args[0], one, _at(path, i)))), "")
    if kind is type(None):
        return "" if value is None else f"{path}: Input should be null"
    if kind in (Any, object):
        return ""
    wanted = (int, float) if kind is float else kind
    good = isinstance(value, wanted) and (kind is bool or not isinstance(value, bool))
    return "" if good else f"{path}: Input should be a valid {kind.__name__}"


def _travels(kind: Any) -> bool:
    """Whether a kind is what JSON holds: not an open file, a path, or an answer's model, which become such."""
    if get_origin(kind) in ANNOTATED:
        return _travels(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return any(_travels(one) for one in get_args(kind))
    plain = get_origin(kind) is not None or typing_extensions.is_typeddict(kind)
    return (plain and "IO" not in str(kind) and "PathLike" not in str(kind)) or kind in (
        str, int, float, bool, object, Any, type(None),
    )  # fmt: skip


def _one_of(kinds: list[Any], value: Any, path: str) -> str:
    """Of several TypedDicts the one whose `type` or `role` is the value's decides."""
    flat = [
        one for kind in kinds for one in (get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,))
    ]
    first, tags = "", []
    for kind in flat:
        why = complaint(kind, value, path)
        if not why:
            return ""
        if typing_extensions.is_typeddict(kind) and isinstance(value, dict):
            tag, known = _tag(kind)
            tags += [one for one in known if one is not None]
            if tag and value.get(tag) in known:
                return why
        elif isinstance(value, list) and get_origin(kind) is not None:
            return why
        first = first or why
    if tags and isinstance(value, dict):
        name = next((one for one in ("type", "role") if one in value), "type")
        return f"{path}: Input tag {value.get(name)!r} found using {name!r} does not match any of {tags[:8]}"
    return first


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing_extensions.get_type_hints(kind, include_extras=True)


def _tag(kind: Any) -> tuple[str, tuple[Any, ...]]:
    for name in ("type", "role"):
        hint = _hints(kind).get(name)
        if hint is not None:
            required = get_origin(hint) in REQUIRED
            inner = get_args(hint)[0] if required else hint
            several = get_args(inner) if get_origin(inner) in (Union, types.UnionType) else (inner,)
            known = [one for kind in several if get_origin(kind) is Literal for one in get_args(kind)]
            if known:
                return name, (*known, *(() if required else (None,)))
    return "", ()


def _fields(kind: Any, value: Any, path: str) -> str:
    if not isinstance(value, dict):
        return f"{path}: Input should be a valid dictionary"
    hints = _hints(kind)
    for name, hint in hints.items():
        required = get_origin(hint) in REQUIRED
        if name not in value:
            if required:
                return f"{_at(path, name)}: Field required"
        elif why := complaint(get_args(hint)[0] if required else hint, value[name], _at(path, name)):
            return why
    loose = getattr(kind, "__pydantic_config__", {}).get("extra") == "allow"
    strange = None if loose else next((name for name in value if name not in hints), None)
    return f"{_at(path, strange)}: Extra inputs are not permitted" if strange else ""


def _at(path: str, step: Any) -> str:
    return f"{path}.{step}" if path else str(step)
