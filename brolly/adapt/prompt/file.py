"""A prompt's TOML file: read within bounds, every key known; written so that reading gives the same again."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from brolly.errors import NotFound, OptionError, RecipeError

MAX_BYTES = 8 << 20
WORDS = {
    "": {"name", "kind", "model", "version", "instructions", "input", "templates", "variables", "answer", "examples",
         "options", "select", "tune", "history"},
    "answer": {"name", "type", "choice", "regex", "schema"},
    "select": {"most", "by", "embed"},
    "tune": {"instructions", "templates"},
}  # fmt: skip
BARE = re.compile(r"[A-Za-z0-9_-]+")


def read_table(path: Path) -> dict[str, Any]:
    """A prompt's file as tables whose keys are known; a schema that is a file's name is read. Raises RecipeError."""
    import tomllib

    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise NotFound(f"{path} cannot be read ({error.strerror}); `brolly prompt new {path}` writes one.") from None
    if len(data) > MAX_BYTES:
        raise RecipeError(f"{path} has more than {MAX_BYTES:,} bytes, the most that a prompt's file has.")
    try:
        found = tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{path} is no TOML ({error}); a text with quotes stands between ''' or \"\"\".") from None
    for table, words in WORDS.items():
        said = found.get(table, {}) if table else found
        if not isinstance(said, dict):
            raise RecipeError(f"{path}: {table} is {said!r:.60}; expected a table, [{table}].")
        if unknown := said.keys() - words:
            where = f"[{table}]" if table else "it"
            raise RecipeError(f"{path}: {where} says {min(unknown)!r}; expected {', '.join(sorted(words))}.")
    for table in ("variables", "options"):
        if not isinstance(said := found.get(table, {}), dict):
            raise RecipeError(f"{path}: {table} is {said!r:.60}; expected a table, [{table}].")
    for table in ("examples", "history"):
        if not isinstance(said := found.get(table, []), list) or not all(isinstance(one, dict) for one in said):
            raise RecipeError(f"{path}: {table} is {said!r:.60}; expected tables, each [[{table}]].")
    if isinstance(name := found.get("answer", {}).get("schema"), str):
        found["answer"]["schema"] = _schema(path, name)
    return found


def _schema(path: Path, name: str) -> Any:
    """A schema from a file beside the prompt's, and from nowhere else."""
    if name.lstrip()[:1] == "{":
        text = name
    else:
        asked = (path.parent / name).resolve()
        if not asked.is_relative_to(path.parent.resolve()):
            raise RecipeError(f"{path}: schema is {name!r:.80}; expected a file in the prompt's own folder.")
        try:
            text = asked.read_text(encoding="utf-8") if asked.stat().st_size <= MAX_BYTES else ""
        except (OSError, ValueError) as error:
            raise RecipeError(f"{path}: the schema {name!r:.80} cannot be read ({error}).") from None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{path}: the schema {name!r:.80} is no JSON ({error}).") from None


def written(table: Mapping[str, Any]) -> str:
    """Tables as TOML: plain values first, then tables, then lists of tables; None is left out."""
    plain, tables, lists = [], [], []
    for name, value in table.items():
        if value is None or value == {} or value == []:
            continue
        if isinstance(value, Mapping):
            tables.append(f"\n[{key(name)}]\n" + "".join(_line(k, v) for k, v in value.items()))
        elif isinstance(value, list) and all(isinstance(one, Mapping) for one in value):
            lists += [f"\n[[{key(name)}]]\n" + "".join(_line(k, v) for k, v in one.items()) for one in value]
        else:
            plain.append(_line(name, value))
    return "".join(plain + tables + lists)


def _line(name: str, value: Any) -> str:
    return f"{key(name)} = {literal(value)}\n"


def key(name: str) -> str:
    """A key, quoted where it must be."""
    return name if BARE.fullmatch(name) else _quoted(name)


def literal(value: Any) -> str:
    """A value on the right of an equals sign. Raises OptionError at what TOML cannot say."""
    if isinstance(value, str):
        return _long(value) if "\n" in value else _quoted(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value) if value == value and abs(value) != float("inf") else str(value)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key(str(k))} = {literal(v)}" for k, v in value.items()) + " }" if value else "{}"
    if isinstance(value, Sequence):
        return "[" + ", ".join(map(literal, value)) + "]"
    raise OptionError(f"{value!r:.60} cannot stand in a TOML file; expected text, numbers, lists and tables.")


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _long(text: str) -> str:
    """A text of several lines, as it is read on paper; its quotes are escaped where three of them could meet."""
    body = "\n".join(_quoted(line)[1:-1] for line in text.split("\n"))
    bare = body.replace('\\"', '"')
    return '"""\n' + (body if '""' in bare or bare.endswith('"') else bare) + '"""'
