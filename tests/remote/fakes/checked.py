"""A vendor's own parameter types as strict models: what they do not know is refused, as the vendor does."""

from __future__ import annotations

import collections.abc
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

import typing_extensions
from openai._types import SequenceNotStr
from pydantic import ConfigDict, ValidationError, create_model

LISTS = (SequenceNotStr, collections.abc.Iterable, collections.abc.Sequence)


class Wrong(NamedTuple):
    """What is wrong with a request: the parameter, why, and whether it is one that nobody knows."""

    param: str
    why: str
    unknown: bool = False


def wrong(kind: Any, given: Mapping[str, Any], *, strict: bool = True) -> Wrong | None:
    """What of these parameters the type (a TypedDict, or a union of such) refuses; None: nothing.

    Not `strict`: texts are numbers where they say one, as in a form.
    """
    found = None
    for one in get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,):
        try:
            model_of(one).model_validate(dict(given), strict=strict)
            return None
        except ValidationError as error:
            first = error.errors()[0]
            unknown = first["type"] == "extra_forbidden"
            found = Wrong(".".join(map(str, first["loc"])), first["msg"], unknown)
    return found


@cache
def model_of(kind: Any) -> Any:
    """A pydantic model of a TypedDict: its fields and no others."""
    hints = typing_extensions.get_type_hints(kind, include_extras=True)
    fields: dict[str, Any] = {}
    for name, hint in hints.items():
        required = get_origin(hint) in (typing.Required, typing_extensions.Required)
        inner = get_args(hint)[0] if required else hint
        fields[name] = (_plain(inner), ... if required else None)
    return create_model(kind.__name__, __config__=ConfigDict(extra="forbid"), **fields)


def _plain(hint: Any) -> Any:
    """A hint in words that pydantic reads: sequences as lists, TypedDicts as models, files as anything."""
    origin, args = get_origin(hint), get_args(hint)
    if typing_extensions.is_typeddict(hint):
        return model_of(hint)
    if origin is Literal or not args:
        return hint
    if origin in (Union, types.UnionType):
        if any(one is bytes for one in args):  # FileTypes
            return Any
        return Union[tuple(_plain(one) for one in args)]  # noqa: UP007
    if origin in LISTS:
        return list[_plain(args[0])]  # type: ignore[misc]
    if origin in (typing.Annotated, typing_extensions.Annotated):
        return _plain(args[0])
    return origin[tuple(_plain(one) if one is not ... else ... for one in args)]
