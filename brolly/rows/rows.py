"""Rows: data of any file and shape, a value at a time; what is wrong with a row is told beside it and stops nothing."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from brolly.errors import RecipeError
from brolly.rows.fault import RowFault
from brolly.rows.folders import in_file, in_folder
from brolly.rows.reading import PICTURES, SOUNDS, Bad, is_file_name, value_of
from brolly.rows.shapes import Found, find
from brolly.rows.store import Given, Store
from brolly.rows.values import Value

LOOKED_AT, LOOKED_FOR = 1000, 50  # rows looked at to find the shape, until so many good ones are found
KEPT_FAULTS = 10_000
TRUTHS, SOUND_MARKS = ("true", "false"), (b"RIFF", b"fLaC", b"OggS")


@dataclass(frozen=True)
class Row:
    """A good row: its number from 0, where it stands, its value, and its columns as they are."""

    number: int
    where: str
    value: Value
    fields: Mapping[str, Any]


class Rows:
    """Rows of one shape, any of them at any time. Iterating gives the good ones and notes the bad in `faults`."""

    def __init__(self, store: Store, source: str, found: Found, paths: bool = True) -> None:
        self.source, self.shape, self.columns, self.notes = source, found.shape, found.columns, store.notes
        self._store, self._found = store, found
        self._base = store.base if paths else None
        self._faults: dict[int, RowFault] = {}
        self._bad: set[int] = set()
        self._print: str | None = None

    def __repr__(self) -> str:
        return f"<{len(self):,} rows of {self.shape} from {self.source}>"

    def __len__(self) -> int:
        """Rows there are, the bad ones too."""
        return len(self._store)

    def __getitem__(self, i: int) -> Row:
        """The row of a number. Raises RowFault, IndexError."""
        if not -len(self) <= i < len(self):
            raise IndexError(f"there is no row {i}; {self.source} has {len(self):,}")
        i %= len(self)
        try:
            return self._read(i, self._store.fields(i))
        except RowFault as fault:
            self._note(i, fault)
            raise

    def __iter__(self) -> Iterator[Row]:
        """The good rows in order. Raises RecipeError at the end where none was."""
        n_good = 0
        for i, fields in enumerate(self._store.stream()):
            try:
                if isinstance(fields, RowFault):
                    raise fields
                row = self._read(i, fields)
            except RowFault as fault:
                self._note(i, fault)
                continue
            n_good += 1
            yield row
        if not n_good:
            raise RecipeError(f"all {len(self):,} rows of {self.source} are bad; the first: {self.faults[0]}.")

    def only(self, numbers: Iterable[int]) -> Iterator[Row]:
        """The good ones among the rows of these numbers."""
        for i in numbers:
            try:
                yield self[i]
            except RowFault:
                continue

    def check(self) -> Rows:
        """Read every row once, so that `faults` and `n_bad` are complete. Raises RecipeError where all are bad."""
        for _ in self:
            pass
        return self

    @property
    def faults(self) -> list[RowFault]:
        """What is wrong with the bad rows read so far, in order: the first KEPT_FAULTS of them."""
        return [self._faults[i] for i in sorted(self._faults)]

    @property
    def n_bad(self) -> int:
        """How many of the rows read so far are bad."""
        return len(self._bad)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the data: of a file its bytes, of folders of media the names and sizes."""
        if self._print is None:
            self._print = self._store.digest()
        return self._print

    def _read(self, i: int, fields: Mapping[str, Any]) -> Row:
        where = self._store.where(i)
        try:
            return Row(i, where, value_of(fields, self._found, self._base), fields)
        except Bad as why:
            raise RowFault(where, str(why)) from None

    def _note(self, i: int, fault: RowFault) -> None:
        self._bad.add(i)
        if i in self._faults or len(self._faults) < KEPT_FAULTS:
            self._faults[i] = fault


def open_rows(
    source: str | Path | Sequence[Mapping[str, Any]] | Rows, *, shape: str | None = None,
    columns: Mapping[str, str] | None = None, paths: bool = True,
) -> Rows:  # fmt: skip
    """The rows of a file, a folder, `hf-dataset:org/name:split`, or of dicts that are here already.

    The shape is found by looking at the first rows; `shape` and `columns` (role → column) override what is found.
    With `paths` false no row may name a file, as is right for strangers' rows. Rows that are open stay as they are.
    Raises RecipeError (empty, all bad, ambiguous), NotFound, MissingExtra.
    """
    if isinstance(source, Rows):
        return source
    if isinstance(source, str) and source.startswith("hf-dataset:"):
        from brolly.rows.arrow import hosted

        store: Store = hosted(source)
        name = source
    elif isinstance(source, (str, Path)):
        path = Path(os.path.expanduser(source))
        store, name = in_folder(path) if path.is_dir() else in_file(path), str(source)
    else:
        store, name = Given(source), f"the {len(source):,} rows given"
    if not len(store):
        raise RecipeError(f"{name} holds no rows; expected at least one.")
    sample, first = [], None
    for fields in islice(store.stream(), LOOKED_AT):
        if isinstance(fields, RowFault):
            first = first or fields
        else:
            sample.append(fields)
            if len(sample) == LOOKED_FOR:
                break
    if not sample:
        raise RecipeError(f"none of the first {min(len(store), LOOKED_AT):,} rows of {name} can be read; {first}.")
    seen: dict[str, list[Any]] = {}
    for fields in sample:
        for column, value in fields.items():
            if value is not None:
                seen.setdefault(str(column), []).append(value)
    kinds = {column: _kind(column, values) for column, values in seen.items() if 2 * len(values) >= len(sample)}
    given = set((columns or {}).values())
    kinds |= {column: _kind(column, values) for column, values in seen.items() if column in given}
    return Rows(store, name, find(kinds, seen.keys() - kinds, name, shape, columns), paths)


def _kind(name: str, values: Sequence[Any]) -> str:
    """What a column holds, by most of its first values: "truth", "sound", "picture", "text" or another kind."""
    return Counter(_kind_of(name, value) for value in values).most_common(1)[0][0]


def _kind_of(name: str, value: Any) -> str:
    if isinstance(value, bool) or (isinstance(value, str) and value.strip().lower() in TRUTHS):
        return "truth"
    if isinstance(value, Mapping) and {"bytes", "path"} & value.keys():
        value = value.get("path") or value.get("bytes")
    if isinstance(value, bytes):
        return "sound" if name.startswith("audio") or value[:4] in SOUND_MARKS or value[:3] == b"ID3" else "picture"
    if not isinstance(value, str):
        return type(value).__name__
    return "sound" if is_file_name(value, SOUNDS) else "picture" if is_file_name(value, PICTURES) else "text"
