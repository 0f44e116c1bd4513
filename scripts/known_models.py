"""Checks and completes the table of known models in brolly/identity/data/.

    python scripts/known_models.py                        # sort, fill in, check, write the indexes
    python scripts/known_models.py NOTABLE.csv LARGE.csv  # the same, with compute.json anew from Epoch AI's CSV files

models.json is written by hand, a model a line: its facts, `sources` (source → the facts that it told; what a source is
stands at the top of the file), `epoch` (the name of the model's row in compute.json, which fills flop and flop_source),
`derived_from` (the row that it was made from, whose shape it has). Running it twice changes nothing.
"""

from __future__ import annotations

import csv
import json
import math
import re
import sys
from pathlib import Path
from typing import Any

from brolly.identity.answers import FLAVOURS, KINDS, MODALITIES
from brolly.identity.known import key
from brolly.identity.shapes import TYPES

DATA = Path(__file__).resolve().parents[1] / "brolly/identity/data"
COLUMNS = ("name", "organization", "date", "domain", "parameters", "flop", "dataset_size", "confidence",
           "accessibility", "link")  # fmt: skip
EPOCH = ("Model", "Organization", "Publication date", "Domain", "Parameters", "Training compute (FLOP)",
         ("Training dataset size (total)", "(DEPRECATED) Training dataset size (datapoints)"), "Confidence",
         "Model accessibility", "Link")  # fmt: skip
ABOUT = {
    "what": "training compute of models, by Epoch AI's estimates; numbers in FLOP, parameters and data points",
    "source": "Epoch AI, ‘Data on AI Models’. Published online at epoch.ai. https://epoch.ai/data/ai-models",
    "licence": "CC-BY-4.0",
    "changes": "columns chosen, rows without compute and parameters left out, dates and numbers brought to one form",
    "retrieved": "2026-05-02",
}
ORDER = ("name", "family", "organization", "kind", "modalities_in", "modalities_out", "flavours", "scope", "open",
         "parameters", "activated", "context", "tokens", "flop", "flop_source", "licence", "released", "ids", "aliases",
         "derived_from", "shape", "epoch", "told", "sources")  # fmt: skip
NUMBERS = ("parameters", "activated", "context", "tokens", "flop")
FACTS = (*NUMBERS, "licence", "released", "shape", "identity")


def main(*csvs: str) -> None:
    if csvs:
        write(DATA / "compute.json", {"about": ABOUT, "columns": COLUMNS, "models": compute_rows(csvs)})
    compute = {row[0]: dict(zip(COLUMNS, row, strict=True)) for row in read("compute.json")["models"]}
    table = read("models.json")
    rows = [filled(row, compute) for row in table["models"]]
    rows.sort(key=lambda r: (r["organization"].lower(), r["family"].lower(), r["name"].lower()))
    table["models"] = rows
    if faults := check(rows, table["sources"]):
        sys.exit("\n".join(faults))
    write(DATA / "models.json", table)
    for name, index in indexes(rows).items():
        write(DATA / name, index)
    print(f"{len(rows)} models, {len(compute)} rows of compute")


def read(name: str) -> Any:
    return json.loads((DATA / name).read_bytes())


# ---- compute.json


def compute_rows(csvs: tuple[str, ...]) -> list[list[Any]]:
    """Epoch's models that have compute or parameters, the first file's row where several have a model."""
    found: dict[str, list[Any]] = {}
    for path in csvs:
        with open(path, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                texts = [_cell(row, column) for column in EPOCH]
                numbers = [_number(texts[i]) for i in (4, 5, 6)]
                if numbers[0] or numbers[1]:
                    name = " ".join(texts[0].split())
                    found.setdefault(name, [name, *texts[1:4], *numbers, *texts[7:]])
    return [[v or None for v in found[name]] for name in sorted(found)]


def _cell(row: dict[str, str], column: str | tuple[str, ...]) -> str:
    names = (column,) if isinstance(column, str) else column
    return next((row[n].strip() for n in names if row.get(n)), "")


def _number(text: str) -> float | int | None:
    """A number, where a cell has one, or the same one several times."""
    values = set(text.split(",")) if text else set()
    if len(values) != 1 or not re.fullmatch(r"[\d.]+(e[+-]?\d+)?", value := values.pop().strip(), re.IGNORECASE):
        return None
    number = float(f"{float(value):.4g}")
    return int(number) if number < 1e15 and number == int(number) else number


# ---- models.json


def filled(row: dict[str, Any], compute: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A row with Epoch's compute, where it names a row of Epoch's that has some."""
    sources = {s: set(facts.split()) - {"flop"} for s, facts in row["sources"].items()}
    row = {k: v for k, v in row.items() if k not in ("flop", "flop_source")}
    told = compute.get(row.get("epoch", ""), {})
    if told.get("flop"):
        row["flop"] = float(told["flop"])
        row["flop_source"] = f"Epoch AI ({(told['confidence'] or 'unrated').lower()})"
        sources.setdefault("epoch", set()).add("flop")
    row["sources"] = {s: " ".join(sorted(sources[s])) for s in sorted(sources) if sources[s]}
    return {k: row[k] for k in ORDER if k in row} | {k: row[k] for k in row if k not in ORDER}


def check(rows: list[dict[str, Any]], sources: dict[str, Any]) -> list[str]:
    """What is wrong with the table, a sentence each."""
    faults: list[str] = []
    names = [row["name"] for row in rows]
    faults += [f"{n}: the name occurs twice." for n in sorted({n for n in names if names.count(n) > 1})]
    owners: dict[str, str] = {}
    for row in rows:
        name = row["name"]
        faults += [f"{name}: {fault}" for fault in _row_faults(row, sources, set(names))]
        for text in row.get("ids", ()):
            if owners.setdefault(text.lower(), name) != name:
                faults.append(f"{name}: the repository {text} is {owners[text.lower()]}'s too.")
    for alias, several in _keys(rows).items():
        if len(several) > 1 and any(alias in _own_keys(rows[n]) for n in several):
            faults.append(f"{alias!r} names {', '.join(rows[n]['name'] for n in several)}.")
    return faults


def _row_faults(row: dict[str, Any], sources: dict[str, Any], names: set[str]) -> list[str]:
    faults = [f"{k} is no key of the table." for k in row if k not in ORDER]
    faults += [f"the kind {row['kind']} is unknown."] if row["kind"] not in KINDS else []
    faults += [f"{m} is no modality." for m in (*row["modalities_in"], *row["modalities_out"]) if m not in MODALITIES]
    faults += [f"{f} is no flavour." for f in row.get("flavours", ()) if f not in FLAVOURS]
    if row.get("scope") not in ("foundation", "domain", None) or row["open"] not in ("weights", "closed", "none"):
        faults.append("scope or open has a value that is none.")
    if not re.fullmatch(r"\d{4}-\d\d(-\d\d)?", row.get("released", "2000-01-01")):
        faults.append(f"released is {row['released']}; expected a date.")
    if row.get("derived_from", row["name"]) not in names:
        faults.append(f"derived_from names {row['derived_from']}, which is no row.")
    told = {fact: s for s, facts in row["sources"].items() for fact in facts.split()}
    faults += [f"the source {s} is unknown." for s in row["sources"] if s not in sources]
    faults += [f"{fact} has no source." for fact in FACTS if fact in row and fact not in told]
    faults += [
        f"there is a source for {fact}, which the row has not." for fact in told if fact not in (*row, "identity")
    ]
    faults += [f"{f} is from memory." for f in (*NUMBERS, "licence") if told.get(f) == "memory"]
    for field in NUMBERS:
        if field in row and not (isinstance(row[field], (int, float)) and 0 < row[field] < math.inf):
            faults.append(f"{field} is {row[field]!r}.")
    if row["open"] == "closed" and "parameters" in row and not row.get("told"):
        faults.append("a closed model's parameters are given, and `told` does not say that its makers told them.")
    if row.get("activated", 0) > row.get("parameters", math.inf):
        faults.append("more is activated than there is.")
    if "shape" in row and not any(k in row["shape"] for k in TYPES):
        faults.append("the shape names no model type.")
    return faults


# ---- the indexes


def indexes(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Where known.py looks first: repositories, spellings of names, shapes by model type → rows by their number."""
    ids = {text.lower(): n for n, row in enumerate(rows) for text in row.get("ids", ())}
    tails: dict[str, list[int]] = {}
    for text, n in ids.items():
        several = tails.setdefault(text.rpartition("/")[2], [])
        several += [n] if n not in several else []
    shapes: dict[str, list[Any]] = {}
    for n, row in enumerate(rows):
        if shape := row.get("shape"):
            kind = next(shape[k] for k in TYPES if k in shape)
            shapes.setdefault(kind, []).append([n, {k: v for k, v in shape.items() if k not in TYPES}])
    return {
        "models_ids.json": {"ids": ids, "tails": tails},
        "models_names.json": {"keys": _keys(rows)},
        "models_shapes.json": shapes,
    }


def _own_keys(row: dict[str, Any]) -> set[str]:
    return {key(text) for text in (row["name"], *row.get("aliases", ()))}


def _keys(rows: list[dict[str, Any]]) -> dict[str, list[int]]:
    """Spellings of names → rows: a row's own name and aliases, then its repositories' where no name is spelt so."""
    found: dict[str, list[int]] = {}
    for n, row in enumerate(rows):
        for spelt in sorted(_own_keys(row)):
            found.setdefault(spelt, []).append(n)
    names = set(found)
    for n, row in enumerate(rows):
        for spelt in {key(text.rpartition("/")[2]) for text in row.get("ids", ())} - names:
            found.setdefault(spelt, []).append(n)
    return found


def write(path: Path, table: dict[str, Any]) -> None:
    """One row a line; what is looked up is sorted."""
    parts = []
    for name, value in table.items():
        if isinstance(value, dict) and name not in ("about",):
            inner = ",\n".join(f"{line(k)}:{line(value[k])}" for k in sorted(value))
            parts.append(f"{line(name)}:{{\n{inner}\n}}")
        elif isinstance(value, list) and value and isinstance(value[0], (dict, list)):
            parts.append(f"{line(name)}:[\n" + ",\n".join(line(v) for v in value) + "\n]")
        else:
            parts.append(f"{line(name)}:{line(value)}")
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")


def line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


if __name__ == "__main__":
    main(*sys.argv[1:])
