"""A JSON Schema as it is compiled for a guided answer: read within limits, blanks bounded, objects closed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from copy import copy
from typing import Any

from brolly.errors import OptionError

TEXT = 200_000  # characters of a schema, an expression or a grammar
DEPTH = 64  # how deep a schema may nest; llguidance itself ends at 128 braces
# one blank, or a line's end and its indentation: what json.dumps writes, and a bound on what a weak model does
WHITESPACE = r" |\n[ \t]{0,20}"
# JSON Schema's own formats; llguidance refuses those that it cannot enforce, and any other is a remark
ENFORCED = {"date-time", "date", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"}
FORMATS = ENFORCED | {"idn-email", "idn-hostname", "uri-reference", "iri", "iri-reference", "uri-template"}
FORMATS |= {"json-pointer", "relative-json-pointer", "regex"}

# where schemas stand within a schema
NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")  # a schema a name
LISTED = ("allOf", "anyOf", "oneOf", "prefixItems", "items")  # a list of them
SINGLE = ("items", "additionalProperties", "additionalItems", "not", "if", "then", "else", "contains", "propertyNames",
          "unevaluatedProperties", "unevaluatedItems")  # fmt: skip
JOINING = ("allOf", "anyOf", "oneOf", "$ref", "$dynamicRef", "if", "dependentSchemas")


def compiled(schema: Mapping[str, Any] | bool | str) -> dict[str, Any]:
    """The schema that llguidance gets for this one. Raises OptionError."""
    return _strict(_read(schema))


def measured(text: str, option: str) -> None:
    """A text is not too long, and is one. Raises OptionError."""
    if len(text) > TEXT:
        raise OptionError(f"{option} has {len(text):,} characters; at most {TEXT:,} are read.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise OptionError(f"{option} holds a lone surrogate at character {error.start}; it must be Unicode.") from None


def _read(schema: Mapping[str, Any] | bool | str) -> Any:
    """A schema as Python's values. Raises OptionError."""
    try:
        text = schema if isinstance(schema, str) else json.dumps(schema)
        measured(text, "json_schema")
        found = json.loads(text, parse_constant=_no_number)
    except RecursionError:
        raise OptionError(f"json_schema nests too deep; at most {DEPTH} levels are read.") from None
    except (ValueError, TypeError) as error:
        raise OptionError(f"json_schema is no JSON ({error}).") from None
    if not isinstance(found, (dict, bool)):
        raise OptionError(f"json_schema is {text[:60]}; expected an object, such as {{}} for any JSON.")
    return found


def _strict(schema: Any) -> Any:
    """The schema that is compiled: whitespace is bounded, and an object with `properties` has no others unasked.

    Others would be allowed by the standard, and never end. Texts that pass this schema pass the given one.
    """
    if schema is True:
        schema = {}
    if schema is False:
        raise OptionError("json_schema is false, which no text satisfies.")
    made = dict(_walked(schema, not _joins(schema)))
    made["x-guidance"] = {
        "whitespace_pattern": WHITESPACE, "whitespace_flexible": True, "item_separator": ",", "key_separator": ":",
        "coerce_one_of": False, "lenient": False,
    }  # fmt: skip
    return made


def _parts(schema: Any) -> Iterator[tuple[str, Any, Any]]:
    """The schemas right within one: the keyword, the name or place under it (None: its value itself), the schema."""
    for word, value in schema.items() if isinstance(schema, dict) else ():
        if word in NAMED and isinstance(value, dict):
            yield from ((word, name, one) for name, one in value.items())
        elif word in LISTED and isinstance(value, list):
            yield from ((word, i, one) for i, one in enumerate(value))
        elif word in SINGLE:
            yield word, None, value


def _joins(schema: Any, depth: int = 0) -> bool:
    """Whether one value must obey two objects' schemas: closed apart, those would have nothing in common."""
    if depth > DEPTH:
        raise OptionError(f"json_schema nests too deep; at most {DEPTH} levels are read.")
    if not isinstance(schema, dict):
        return False
    every = schema.get("allOf")
    joined = sum(len(every) if word == "allOf" and isinstance(every, list) else 1 for word in JOINING if word in schema)
    own = any(word in schema for word in ("properties", "required", "additionalProperties", "patternProperties"))
    return joined + own > 1 or any(_joins(one, depth + 1) for _, _, one in _parts(schema))


def _walked(schema: Any, close: bool) -> Any:
    """A copy without what is a mere remark; objects that name their properties are closed where `close` says so."""
    if not isinstance(schema, dict):
        return schema
    made = dict(schema)
    for word, at, one in _parts(schema):
        inner = _walked(one, close)
        if at is None:
            made[word] = inner
        else:
            if made[word] is schema[word]:
                made[word] = copy(schema[word])
            made[word][at] = inner
    if made.get("uniqueItems") is False:
        del made["uniqueItems"]
    if isinstance(said := made.get("format"), str) and said not in FORMATS:
        del made["format"]
    if close and "properties" in made and not {"additionalProperties", "patternProperties"} & made.keys():
        made["additionalProperties"] = False
    return made


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no JSON number")
