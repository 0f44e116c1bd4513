"""What was measured: rows' scores as they come, in a file that can be gone on with, and all of it as a table."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from brolly.errors import CheckpointError, OptionError
from brolly.identity.show import clean
from brolly.measure.intervals import Difference, Measured, Scores, Statistic, differences

ROWS, SETTINGS, REPORT, PLOT = "rows.jsonl", "settings.json", "report.json", "plot.svg"


@dataclass(frozen=True)
class Record:
    """A row's answer and what it scores, or why it has none. `row` is its number from 0."""

    row: int
    where: str
    expected: str = ""
    answer: str = ""
    scores: Scores = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True)
class Report:
    """A model's measures on rows, each with its interval. `n_bad` rows were unreadable, `n_failed` had no answer."""

    model: str
    data: str
    shape: str
    n_rows: int
    n_bad: int
    n_failed: int
    measures: tuple[Measured, ...]
    notes: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()  # the first of what went wrong
    scores: Mapping[int, Scores] = field(default_factory=dict, repr=False)  # by row
    statistics: tuple[Statistic, ...] = field(default=(), repr=False)

    def __getitem__(self, name: str) -> Measured:
        """The measure of a name. Raises KeyError."""
        found = {one.name: one for one in self.measures}
        if name not in found:
            raise KeyError(f"there is no measure {name!r}; there are {', '.join(found) or 'none'}")
        return found[name]

    def as_json(self) -> dict[str, Any]:
        """All but the rows' scores."""
        return {
            "model": self.model, "data": self.data, "shape": self.shape, "rows": self.n_rows, "bad": self.n_bad,
            "failed": self.n_failed, "measures": [asdict(one) for one in self.measures], "notes": list(self.notes),
            "errors": list(self.errors),
        }  # fmt: skip

    def __str__(self) -> str:
        return table(self)


def compare(a: Report, b: Report, seed: int = 0) -> tuple[Difference, ...]:
    """b - a of each measure that both have, on rows that both have answered. Raises OptionError at other data."""
    if a.shape != b.shape or a.data != b.data:
        raise OptionError(f"{a.data} and {b.data} are not the same data; compare two models on one.")
    shared = sorted(a.scores.keys() & b.scores.keys())
    theirs = {one.name for one in b.statistics}
    common = [one for one in a.statistics if one.name in theirs]
    return tuple(differences(common, [a.scores[i] for i in shared], [b.scores[i] for i in shared], seed))


def table(report: Report) -> str:
    """Measures, values, intervals and rows, for a terminal."""
    head = ("measure", "value", "95 % interval", "rows")
    rows = [(one.name, number(one.value), span(one.low, one.high), f"{one.n:,}") for one in report.measures]
    said = f"{report.model} on {report.data} ({report.shape}, {report.n_rows:,} rows)"
    lines = ["", f"  {clean(said)}", "", *columns([head, *rows]), ""]
    return "\n".join(lines + [f"  {clean(note)}" for note in tail(report)]).rstrip() + "\n"


def comparison(a: Report, b: Report, found: Sequence[Difference]) -> str:
    """Two models' measures, their difference and its interval, for a terminal."""
    head = ("measure", "A", "B", "B - A", "95 % interval", "rows", "")
    words = {"b": "B is better", "a": "A is better", "": "no difference shown"}
    rows = [
        (one.name, number(one.a), number(one.b), signed(one.value), span(one.low, one.high, signed), f"{one.n:,}",
         words[one.better])
        for one in found
    ]  # fmt: skip
    lines = ["", f"  A  {clean(a.model)}", f"  B  {clean(b.model)}", f"  on {clean(a.data)} ({a.shape})", ""]
    lines += [*columns([head, *rows]), ""]
    notes = dict.fromkeys([*tail(a), *tail(b)])
    return "\n".join(lines + [f"  {clean(note)}" for note in notes]).rstrip() + "\n"


def tail(report: Report) -> list[str]:
    """What is to be said below a table."""
    out = list(report.notes)
    if report.n_bad:
        out.append(f"bad rows, which were left out: {report.n_bad:,}")
    if report.n_failed:
        out.append(f"rows that could not be answered, and are in no measure: {report.n_failed:,}")
    return out + [f"  {error}" for error in report.errors]


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of texts under one another; the first column and the last word stand left, numbers right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    out = []
    for row in rows:
        cells = [
            f"{cell:{width}}" if i == 0 or not row[-1][:1].isdigit() and i == len(row) - 1 else f"{cell:>{width}}"
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        out.append(("  " + "   ".join(cells)).rstrip())
    return out


def number(x: float) -> str:
    """Some digits: 0.9312, 12.34, 12,345."""
    return f"{x:,.0f}" if abs(x) >= 1000 else f"{x:.2f}" if abs(x) >= 10 else f"{x:.4f}"


def signed(x: float) -> str:
    return f"{'+' if x >= 0 else '-'}{number(abs(x))}"


def span(low: float, high: float, say: Any = number) -> str:
    return f"{say(low)} to {say(high)}"


class Log:
    """rows.jsonl of a folder: a line a record, written as they come; a line that a kill cut short is left out."""

    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any], resume: bool) -> None:
        self.path, self.records = folder / name, list[Record]()
        seal = folder / name.replace(ROWS, SETTINGS)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if self.path.exists():
                self._take_up(seal, settings, resume)
            elif resume and any(folder.iterdir()) and not (folder / ROWS).exists():
                raise OptionError(f"{folder} holds no {ROWS} to go on with; leave --resume out.")
            seal.write_text(json.dumps(settings, indent=1, ensure_ascii=False) + "\n", "utf-8")
            part = self.path.with_name(self.path.name + ".part")
            part.write_text("".join(line(record) for record in self.records), "utf-8")
            os.replace(part, self.path)
            self.file = self.path.open("a", encoding="utf-8")
        except OSError as error:
            raise CheckpointError(f"{folder} cannot be written ({error.strerror or error}).") from None

    def _take_up(self, seal: Path, settings: Mapping[str, Any], resume: bool) -> None:
        if not resume:
            raise OptionError(f"{self.path} is there already; go on with it by --resume, or name another folder.")
        try:
            before = json.loads(seal.read_text("utf-8"))
        except (OSError, ValueError):
            before = None
        plain = json.loads(json.dumps(settings))
        if before != plain:
            keys = [key for key in plain if not isinstance(before, dict) or before.get(key) != plain[key]]
            raise OptionError(
                f"{self.path} was measured otherwise ({', '.join(keys) or 'by other settings'}); name another "
                "folder, or measure as before."
            )
        self.records = read_log(self.path)

    def add(self, record: Record) -> None:
        try:
            self.file.write(line(record))
            self.file.flush()
        except OSError as error:
            raise CheckpointError(
                f"{self.path} cannot be written ({error.strerror or error}); free some room, then --resume."
            ) from None

    def close(self) -> None:
        self.file.close()


def line(record: Record) -> str:
    """A record as a line of JSON, without what it has not."""
    found = {key: value for key, value in asdict(record).items() if value not in ("", {})}
    return json.dumps(found, ensure_ascii=False, allow_nan=False) + "\n"


def read_log(path: Path) -> list[Record]:
    """The records of a rows.jsonl, each row's once; what is no record is left out."""
    found: dict[int, Record] = {}
    with path.open("rb") as file:
        for raw in file:
            try:
                row = json.loads(raw)
                record = Record(**row)
            except (ValueError, TypeError, RecursionError):
                continue
            if type(record.row) is int and isinstance(record.scores, dict) and raw.endswith(b"\n"):
                found[record.row] = record
    return list(found.values())


def finite(scores: Mapping[str, Any]) -> bool:
    """Whether all numbers among scores are such."""
    return all(isfinite(value) for value in scores.values() if isinstance(value, (int, float)))
