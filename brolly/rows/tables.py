"""Rows of CSV, TSV and their like, by the byte at which each begins: a field in quotes may go over several lines."""

from __future__ import annotations

import csv
import io
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from brolly.errors import RecipeError
from brolly.rows.fault import RowFault
from brolly.rows.store import CHUNK, MAX_LINE, Bytes, hash_of, in_order

SEPARATORS = ",\t;|"


class Table:
    """A row a line below a line of columns; `columns` names those of a file that has no such line."""

    def __init__(
        self, path: Path, *, separator: str = "", columns: tuple[str, ...] = (), quotes: bool | None = None
    ) -> None:
        self.bytes, self.base, self.path = Bytes(path), path.parent, path
        self.notes: list[str] = []
        csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE))
        head = next(self.bytes.chunks(), b"").decode("utf-8-sig", "replace")
        first = head.partition("\n")[0]
        self.separator = separator or max(SEPARATORS, key=first.count)
        self.quotes = self._quoted(head) if quotes is None else quotes
        self.starts, self.more, self.broken = self._index()
        self.columns, self.first = columns, 0
        if not columns and self.starts:
            try:
                self.columns, self.first = tuple(name.strip() for name in self._cells(0)), 1
            except (ValueError, csv.Error) as error:
                raise RecipeError(f"{path}: its first line names no columns ({str(error)[:80]}).") from None
            del self.starts[0]
        if len(set(self.columns)) != len(self.columns):
            twice = next(name for name in self.columns if self.columns.count(name) > 1)
            raise RecipeError(f"{path} has two columns named {twice[:80]!r}; give each a name of its own.")

    def _reader(self, lines: Iterator[str]) -> Any:
        how: Any = csv.QUOTE_MINIMAL if self.quotes else csv.QUOTE_NONE
        return csv.reader(lines, delimiter=self.separator, quoting=how, strict=True)

    def _quoted(self, head: str) -> bool:
        """Whether quotes stand around fields: between commas, yes; between tabs, if the file's beginning reads so."""
        if self.separator != "\t":
            return True
        self.quotes = True
        lines = head.splitlines(keepends=True)
        try:
            whole = lines if self.bytes.size <= CHUNK else lines[:-1]
            return len({len(row) for row in self._reader(iter(whole)) if row}) == 1
        except csv.Error:
            return False

    def _index(self) -> tuple[array[int], array[int], dict[int, str]]:
        """Where rows begin; for each line that begins none, the number of rows up to it; which rows never end."""
        starts, more, broken = array("q"), array("q"), dict[int, str]()
        lines = _Lines(self.bytes)
        reader = self._reader(lines)
        while True:
            at, before = lines.at, lines.n
            try:
                row = next(reader, None)
            except (csv.Error, ValueError) as error:
                # a quote that is never closed, or closed within a word: the next row begins on the line behind
                broken[len(starts)] = str(error)[:80]
                starts.append(at)
                lines.skip(at)
                reader = self._reader(lines)
                continue
            if row is None:
                return starts, more, broken
            if row:
                starts.append(at)
            more.extend([len(starts)] * (lines.n - before - bool(row)))

    def __len__(self) -> int:
        return len(self.starts)

    def where(self, i: int) -> str:
        i += self.first
        return f"{self.path.name}, line {i + 1 + bisect_right(self.more, i)}"

    def _cells(self, i: int) -> list[str]:
        start, end = self.starts[i], self.starts[i + 1] if i + 1 < len(self.starts) else self.bytes.size
        text = self.bytes.at(start, end).decode("utf-8" if start else "utf-8-sig")
        return next(self._reader(io.StringIO(text, newline="")), [])

    def fields(self, i: int) -> Mapping[str, Any]:
        if why := self.broken.get(i + self.first):
            raise RowFault(self.where(i), f"is no row of a table ({why})")
        try:
            cells = self._cells(i)
        except UnicodeDecodeError:
            raise RowFault(self.where(i), "is not text in UTF-8") from None
        except (csv.Error, ValueError) as error:
            raise RowFault(self.where(i), f"is no row of a table ({str(error)[:80]})") from None
        if len(cells) != len(self.columns):
            raise RowFault(self.where(i), f"has {len(cells)} fields, and there are {len(self.columns)} columns")
        return dict(zip(self.columns, cells, strict=True))

    def stream(self) -> Iterator[Mapping[str, Any] | RowFault]:
        return in_order(self)

    def digest(self) -> str:
        return hash_of(self.path)


class _Lines(Iterator[str]):
    """A file's lines, a letter a byte; `at` is the byte behind the last one read, `n` how many were read."""

    def __init__(self, file: Bytes) -> None:
        self.file, self.at, self.n = file, 0, 0
        self.ahead = self._from(0)

    def __next__(self) -> str:
        line = next(self.ahead)
        self.at += len(line)
        self.n += 1
        return line

    def skip(self, start: int) -> None:
        """Go on behind the line that begins at `start`."""
        while chunk := self.file.at(start, min(start + CHUNK, self.file.size)):
            found = chunk.find(b"\n")
            start += len(chunk) if found < 0 else found + 1
            if found >= 0:
                break
        self.at, self.ahead = start, self._from(start)

    def _from(self, start: int) -> Iterator[str]:
        rest = b""
        for begin in range(start, self.file.size, CHUNK):
            lines = (rest + self.file.at(begin, min(begin + CHUNK, self.file.size))).split(b"\n")
            rest = lines.pop()
            for line in lines:
                yield line.decode("latin-1") + "\n"
            if len(rest) > MAX_LINE:
                raise ValueError(f"more than {MAX_LINE:,} bytes in a line")
        if rest:
            yield rest.decode("latin-1")
