"""JSON Schemas as people write them, for guided answers to be held against."""

from __future__ import annotations

from typing import Any


def closed(**properties: Any) -> dict[str, Any]:
    """An object of these properties, all required, and no others."""
    return {
        "type": "object", "properties": properties, "required": list(properties), "additionalProperties": False,
    }  # fmt: skip


TEXT: dict[str, Any] = {"type": "string", "maxLength": 12}
NUMBER: dict[str, Any] = {"type": "integer", "minimum": 0, "maximum": 999}

SCHEMAS: dict[str, dict[str, Any]] = {
    # scalars
    "boolean": {"type": "boolean"},
    "null": {"type": "null"},
    "short text": {"type": "string", "minLength": 2, "maxLength": 6},
    "text of no length": {"type": "string", "maxLength": 0},
    "const text": {"const": "a \"quoted\" \\ text\n"},
    "const object": {"const": {"a": [1, None, True]}},
    "const number": {"const": 3.25},
    "enum of kinds": {"enum": ["red", 7, None, False, [1, 2]]},
    "enum of words": {"type": "string", "enum": ["größer", "日本", "🦊", "a/b"]},
    "integer from 1 to 5": {"type": "integer", "minimum": 1, "maximum": 5},
    "integer below zero": {"type": "integer", "minimum": -250, "exclusiveMaximum": -17},
    "integer of 7s": {"type": "integer", "multipleOf": 7, "minimum": 10, "maximum": 500},
    "integer of 10,000s": {"type": "integer", "multipleOf": 10_000, "minimum": 0, "maximum": 900_000},
    "number between": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    "number of quarters": {"type": "number", "multipleOf": 0.25, "minimum": 0, "maximum": 20},
    "text or nothing": {"type": ["string", "null"], "maxLength": 5},
    "pattern": {"type": "string", "pattern": "^[A-Z]{3}-[0-9]{2,4}$"},
    "pattern within": {"type": "string", "pattern": "[0-9]", "maxLength": 8},
    "pattern of words": {"type": "string", "pattern": "^(foo|bar|baz){1,3}$"},
    # formats
    "date": {"type": "string", "format": "date"},
    "time": {"type": "string", "format": "time"},
    "moment": {"type": "string", "format": "date-time"},
    "uuid": {"type": "string", "format": "uuid"},
    "ipv4": {"type": "string", "format": "ipv4"},
    "format of OpenAPI": {"type": "string", "format": "password", "maxLength": 6},
    # arrays
    "numbers": {"type": "array", "items": NUMBER, "minItems": 2, "maxItems": 4},
    "no items": {"type": "array", "maxItems": 0},
    "pair": {"type": "array", "prefixItems": [TEXT, NUMBER], "items": False, "minItems": 2},
    "pair of draft 7": {
        "$schema": "http://json-schema.org/draft-07/schema#", "type": "array", "items": [{"type": "boolean"}, NUMBER],
        "additionalItems": False, "minItems": 2,
    },
    "matrix": {
        "type": "array", "minItems": 2, "maxItems": 2,
        "items": {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 3},
    },
    "items of two kinds": {"type": "array", "items": {"anyOf": [NUMBER, {"type": "boolean"}]}, "maxItems": 3},
    "repeats allowed": {"type": "array", "items": {"type": "boolean"}, "uniqueItems": False, "maxItems": 3},
    # objects
    "person": closed(name=TEXT, age={"type": "integer", "minimum": 0, "maximum": 150}),
    "no properties": closed(),
    "optional properties": {"type": "object", "properties": {"a": TEXT, "b": NUMBER, "c": {"type": "boolean"}}},
    "one of two required": {"type": "object", "properties": {"a": NUMBER, "b": NUMBER}, "required": ["b"]},
    "nested": closed(outer=closed(middle=closed(inner=closed(value={"type": "boolean"})))),
    "names with signs": closed(**{'a"b': NUMBER, "größe": NUMBER, "x y": NUMBER, "": NUMBER}),
    "property named type": closed(type={"const": "object"}, properties=NUMBER, required={"type": "boolean"}),
    "map": {"type": "object", "additionalProperties": NUMBER, "maxProperties": 1},
    "map by pattern": {
        "type": "object", "patternProperties": {"^[a-z]{1,3}$": NUMBER}, "additionalProperties": False,
        "minProperties": 1, "maxProperties": 1,
    },
    "named and others": {
        "type": "object", "properties": {"id": NUMBER}, "required": ["id"], "additionalProperties": {"type": "boolean"},
    },
    # joined
    "any of": {"anyOf": [closed(a=NUMBER), closed(b=TEXT), {"type": "null"}]},
    "one of, told apart": {"oneOf": [closed(kind={"const": "cat"}, n=NUMBER), closed(kind={"const": "dog"}, t=TEXT)]},
    "one of kinds": {"oneOf": [{"type": "boolean"}, {"type": "integer", "minimum": 0, "maximum": 9}]},
    "all of": {
        "allOf": [
            {"type": "object", "properties": {"a": NUMBER}, "required": ["a"]},
            {"type": "object", "properties": {"b": {"type": "boolean"}}, "required": ["b"]},
        ],
        "maxProperties": 2, "minProperties": 2,
    },
    "all of numbers": {"type": "integer", "allOf": [{"minimum": 3}, {"maximum": 8}]},
    "properties and any of": {
        "type": "object", "properties": {"a": NUMBER, "b": NUMBER}, "additionalProperties": False,
        "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
    },
    # references
    "reference": {"$defs": {"n": NUMBER}, "type": "array", "items": {"$ref": "#/$defs/n"}, "maxItems": 3},
    "definitions of draft 7": {
        "definitions": {"word": TEXT}, "type": "object", "properties": {"w": {"$ref": "#/definitions/word"}},
        "required": ["w"], "additionalProperties": False,
    },
    "reference with a title": {"$defs": {"P": closed(x=NUMBER)}, "$ref": "#/$defs/P", "description": "a point"},
    "tree": {
        "$defs": {"node": closed(v=NUMBER, kids={"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 1})},
        "$ref": "#/$defs/node",
    },
    "list of nodes": closed(head={"anyOf": [{"$ref": "#"}, {"type": "null"}]}),
    # as published
    "function call": closed(
        name={"const": "get_weather"},
        arguments=closed(city=TEXT, unit={"enum": ["celsius", "fahrenheit"]}, days={"type": ["integer", "null"],
                                                                                    "minimum": 1, "maximum": 14}),
    ),
    "maths steps": closed(
        steps={"type": "array", "items": closed(explanation=TEXT, output=TEXT), "minItems": 1, "maxItems": 2},
        final_answer=TEXT,
    ),
    "calendar": closed(
        title=TEXT, day={"enum": ["Mon", "Tue", "Wed"]}, who={"type": "array", "items": TEXT, "maxItems": 2}
    ),
    "moderation": closed(violates={"type": "boolean"}, category={"anyOf": [{"enum": ["hate", "spam"]},
                                                                           {"type": "null"}]}, why=TEXT),
    "invoice": closed(
        number={"type": "string", "pattern": "^INV-[0-9]{4}$"},
        lines={"type": "array", "minItems": 1, "maxItems": 2, "items": closed(
            sku={"type": "string", "maxLength": 4}, n={"type": "integer", "minimum": 1, "maximum": 99},
            price={"type": "number", "minimum": 0, "maximum": 999})},
        paid={"type": "boolean"},
    ),
    "interface": {
        "$defs": {"ui": closed(kind={"enum": ["div", "button"]}, label=TEXT,
                               children={"type": "array", "items": {"$ref": "#/$defs/ui"}, "maxItems": 1})},
        "$ref": "#/$defs/ui",
    },
    "GeoJSON point": closed(type={"const": "Point"}, coordinates={
        "type": "array", "minItems": 2, "maxItems": 2, "items": {"type": "number", "minimum": -180, "maximum": 180}}),
    "pydantic": {
        "$defs": {"Colour": {"enum": ["r", "g"], "title": "Colour", "type": "string"}},
        "title": "Car", "type": "object", "required": ["colour"],
        "properties": {
            "colour": {"$ref": "#/$defs/Colour"},
            "wheels": {"default": 4, "title": "Wheels", "type": "integer", "minimum": 3, "maximum": 18},
            "owner": {"anyOf": [{"type": "string", "maxLength": 4}, {"type": "null"}], "default": None},
        },
    },
    "pydantic union": {
        "$defs": {"Cat": closed(kind={"const": "cat"}), "Dog": closed(kind={"const": "dog"}, n=NUMBER)},
        "discriminator": {"mapping": {"cat": "#/$defs/Cat", "dog": "#/$defs/Dog"}, "propertyName": "kind"},
        "oneOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}],
    },
}  # fmt: skip
