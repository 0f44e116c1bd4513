"""Rows of Parquet files and of Hugging Face's `datasets`, both by pyarrow: read group by group, kept on the disk."""

from __future__ import annotations

import json
import shutil
import tempfile
import weakref
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Lock
from typing import Any

from brolly.errors import MissingExtra, NotFound, RecipeError
from brolly.rows.fault import RowFault
from brolly.rows.store import KEPT_FREE, hash_of, hash_of_rows, in_order, opened

BATCH = 256  # rows decoded together


class Parquet:
    """A Parquet file: in order straight from it; any row by a copy of its row group that is mapped from the disk."""

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow
            import pyarrow.parquet as parquet
        except ImportError:
            raise MissingExtra(f"reading {path.name}", "parquet") from None
        opened(path).close()
        self.base, self.path = path.parent, path
        self.notes: list[str] = []
        try:
            self.file = parquet.ParquetFile(path)
        except (pyarrow.ArrowException, OSError) as error:
            raise RecipeError(f"{path} cannot be read as Parquet ({str(error)[:100]}).") from None
        self.faults = (pyarrow.ArrowException, OSError, UnicodeDecodeError)
        self.first = [0]
        for g in range(self.file.num_row_groups):
            self.first.append(self.first[-1] + self.file.metadata.row_group(g).num_rows)
        self.names = class_names(self.file.schema_arrow.metadata or {})
        self.groups: dict[int, tuple[Any, list[int]]] = {}
        self.folder: str | None = None
        self.spreading = Lock()

    def __len__(self) -> int:
        return self.first[-1]

    def where(self, i: int) -> str:
        return f"{self.path.name}, row {i + 1}"

    def fields(self, i: int) -> Mapping[str, Any]:
        g = bisect_right(self.first, i) - 1
        try:
            with self.spreading:
                if g not in self.groups:
                    self.groups[g] = self._spread(g)
            file, starts = self.groups[g]
            part = bisect_right(starts, i) - 1
            row = file.get_batch(part).slice(i - starts[part], 1).to_pylist()[0]
        except self.faults as error:
            raise RowFault(self.where(i), f"cannot be read ({str(error)[:80]})") from None
        return named(row, self.names)

    def _spread(self, g: int) -> tuple[Any, list[int]]:
        """A row group as an Arrow file of its own, mapped, and its batches' first rows: never whole in memory."""
        import pyarrow

        if self.folder is None:
            self.folder = tempfile.mkdtemp(prefix="brolly-rows-")
            weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        need = self.file.metadata.row_group(g).total_byte_size
        if shutil.disk_usage(self.folder).free < KEPT_FREE + need:
            raise RecipeError(
                f"{self.path}: a row group of {need:,} bytes does not fit into {self.folder}; set TMPDIR to a folder "
                "with more room."
            )
        place, starts, at = f"{self.folder}/{g}.arrow", [], self.first[g]
        with pyarrow.OSFile(place, "wb") as out, pyarrow.ipc.new_file(out, self.file.schema_arrow) as writer:
            for batch in self.file.iter_batches(batch_size=BATCH, row_groups=[g]):
                writer.write_batch(batch)
                starts.append(at)
                at += len(batch)
        return pyarrow.ipc.open_file(pyarrow.memory_map(place)), starts

    def stream(self) -> Iterator[Mapping[str, Any] | RowFault]:
        for g, first in enumerate(self.first[:-1]):
            done = first
            try:
                for batch in self.file.iter_batches(batch_size=BATCH, row_groups=[g]):
                    for row in batch.to_pylist():
                        yield named(row, self.names)
                        done += 1
            except self.faults as error:
                for i in range(done, self.first[g + 1]):
                    yield RowFault(self.where(i), f"cannot be read ({str(error)[:80]})")

    def digest(self) -> str:
        return hash_of(self.path)


class Hosted:
    """A data set of Hugging Face's `datasets`: it maps Arrow files, and reads any row."""

    def __init__(self, data: Any, name: str, base: Path) -> None:
        from datasets import Audio, ClassLabel, Image

        self.name, self.base = name, base
        self.notes: list[str] = []
        self.names: dict[str, list[str]] = {}
        for column, kind in data.features.items():
            if isinstance(kind, (Audio, Image)):
                data = data.cast_column(column, type(kind)(decode=False))  # their bytes; decoding is ours
            elif isinstance(kind, ClassLabel):
                self.names[column] = list(kind.names)
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def where(self, i: int) -> str:
        return f"{self.name}, row {i + 1}"

    def fields(self, i: int) -> Mapping[str, Any]:
        return named(self.data[i], self.names)

    def stream(self) -> Iterator[Mapping[str, Any] | RowFault]:
        return in_order(self)

    def digest(self) -> str:
        return hash_of_rows(self)


def hosted(reference: str) -> Hosted:
    """hf-dataset:org/name, hf-dataset:org/name/config, each with :split behind it, or a folder by save_to_disk."""
    try:
        import datasets
    except ImportError:
        raise MissingExtra("reading Hugging Face data sets", "datasets") from None
    folder, base = Path(reference), Path()
    name, _, split = reference.removeprefix("hf-dataset:").partition(":")
    try:
        if folder.is_dir():
            found, base = datasets.load_from_disk(reference), folder
        else:
            parts = name.split("/")
            if len(parts) not in (2, 3) or not all(parts):
                raise RecipeError(f"{reference!r:.200} names no data set; expected hf-dataset:org/name:split.")
            found = datasets.load_dataset("/".join(parts[:2]), *parts[2:], split=split or None)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise NotFound(f"{reference} cannot be loaded as a data set ({str(error)[:200]}).") from None
    if isinstance(found, dict):
        if len(found) > 1:
            how = f"hf-dataset:{name}:{next(iter(found))}" if not folder.is_dir() else f"{folder}/{next(iter(found))}"
            raise RecipeError(f"{reference} has the splits {', '.join(found)}; name one, such as {how}.")
        found = next(iter(found.values()))
    return Hosted(found, name, base)


def class_names(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """Of columns whose numbers are classes, the classes' names, where `datasets` wrote them into the file."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        kinds = {name: kind["names"] for name, kind in features.items() if kind.get("_type") == "ClassLabel"}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return {k: v for k, v in kinds.items() if isinstance(v, list) and all(isinstance(name, str) for name in v)}


def named(row: Mapping[str, Any], names: Mapping[str, list[str]]) -> Mapping[str, Any]:
    """The row, with classes by name."""
    for column, words in names.items():
        if type(i := row.get(column)) is int and 0 <= i < len(words):
            row = {**row, column: words[i]}
    return row
