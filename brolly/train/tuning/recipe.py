"""A tuning in one TOML file: every option of `brolly tune` under its own name; unknown keys are mistakes. No torch."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from brolly.errors import RecipeError
from brolly.verbs import Lora, TuneOptions, read_options

FILES = ("data", "eval", "out", "start")  # relative to the recipe
KEYS = ("model", *FILES, "full", "device", "dtype", "shape", "columns", "lora", "tune")


def read_recipe(path: str | Path) -> dict[str, Any]:
    """`tune`'s arguments by name: model, data, out …, lora (a dict, or None for full tuning), and TuneOptions' own.

    Raises RecipeError.
    """
    path = Path(path).expanduser()
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise RecipeError(f"{path} cannot be read ({error.strerror}).") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not valid TOML: {error}.") from None
    known(raw, KEYS, f"{path}")
    lora, options = table(raw, "lora", Lora, path), table(raw, "tune", TuneOptions, path)
    found: dict[str, Any] = {}
    for key in ("model", *FILES, "device", "dtype", "shape"):
        if key in raw:
            if not isinstance(raw[key], str):
                raise RecipeError(f"{path}: {key} is {raw[key]!r:.60}; expected a text.")
            found[key] = str(path.parent / raw[key]) if key in FILES and ":" not in raw[key] else raw[key]
    if (model := found.get("model")) and model.startswith((".", "..")):
        found["model"] = str(path.parent / model)
    if "columns" in raw:
        if not isinstance(raw["columns"], dict) or not all(isinstance(v, str) for v in raw["columns"].values()):
            raise RecipeError(f'{path}: columns is {raw["columns"]!r:.60}; expected a table of role = "column".')
        found["columns"] = raw["columns"]
    full = raw.get("full", False)
    if not isinstance(full, bool) or (full and lora):
        raise RecipeError(
            f"{path}: full is {full!r:.20}" + (" beside [lora]" * bool(lora)) + "; expected one of the two."
        )
    return {**found, "lora": None if full else lora, **options}


def table(raw: Mapping[str, Any], name: str, kind: type, path: Path) -> dict[str, Any]:
    """A table's values, checked as the options of a dataclass."""
    given = raw.get(name, {})
    if not isinstance(given, dict):
        raise RecipeError(f"{path}: [{name}] is {given!r:.60}; expected a table.")
    known(given, tuple(f.name for f in fields(kind)), f"{path}: [{name}]")
    tuples = {f.name for f in fields(kind) if str(f.type).startswith("tuple")}
    found = {k: tuple(v) if k in tuples and isinstance(v, list) else v for k, v in given.items()}
    try:
        read_options(kind, found)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"{path}: [{name}] {error}.") from None
    return found


def known(raw: Mapping[str, Any], keys: tuple[str, ...], where: str) -> None:
    for key in raw:
        if key not in keys:
            close = get_close_matches(key, keys, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"expected {', '.join(keys)}."
            raise RecipeError(f"{where} has an unknown key {key!r}; {hint}")


def write_recipe(given: Mapping[str, Any], lora: Lora | None, options: TuneOptions) -> str:
    """A run's options as the recipe that repeats it; what is None is left out, as that is what it means."""
    lines = [f"{key} = {toml(value)}" for key, value in given.items() if value is not None]
    lines += ["full = true"] if lora is None else []
    for name, values in (("lora", lora), ("tune", options)):
        if values is None:
            continue
        lines += ["", f"[{name}]"]
        for f in fields(values):
            value = getattr(values, f.name)
            if isinstance(value, (str, int, float, bool)) or (isinstance(value, tuple) and value):
                lines.append(f"{f.name} = {toml(value)}")
    return "\n".join(lines) + "\n"


def toml(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(str(k))} = {toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, (bool, int, float)):
        return json.dumps(value)
    text = json.dumps(str(value).encode(errors="replace").decode(), ensure_ascii=False)
    return text.replace("\x7f", "\\u007f")  # which TOML takes as an escape alone
