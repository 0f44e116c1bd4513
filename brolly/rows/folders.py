"""Rows of folders: a folder of pictures a label, media beside their texts, manifests, and many files as one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from brolly.errors import RecipeError
from brolly.rows.fault import RowFault
from brolly.rows.reading import PICTURES, SOUNDS
from brolly.rows.shapes import listed
from brolly.rows.store import PACKED, Array, Bytes, Joined, Lines, Store, in_order, opened
from brolly.rows.tables import Table

MANIFESTS = ("metadata.jsonl", "metadata.csv", "metadata.tsv", "metadata.parquet")
DATA = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
SPLITS = ("train", "test", "val", "valid", "validation", "dev", "eval")
MAX_CAPTION = 2**20  # bytes


def in_file(path: Path) -> Store:
    """The rows of one file, by its ending; JSON is looked into. Raises RecipeError, NotFound, MissingExtra."""
    kind = kind_of(path)
    if kind == ".parquet":
        from brolly.rows.arrow import Parquet

        return Parquet(path)
    if kind in (".csv", ".tsv"):
        return Table(path, separator="\t" if kind == ".tsv" else "")
    if kind in (".jsonl", ".ndjson"):
        return Lines(path)
    if kind == ".json":
        head = next(Bytes(path).chunks(), b"").lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
        return Array(path) if head == b"[" else Lines(path)
    opened(path).close()  # of what is not there its ending tells nothing
    raise RecipeError(
        f"{path} ends in {path.suffix!r}; rows are read from {', '.join(DATA)}, also packed as {', '.join(PACKED)}."
    )


def kind_of(path: Path) -> str:
    """A file's ending, without that of its packing."""
    suffixes = [s.lower() for s in path.suffixes]
    if suffixes and suffixes[-1] in PACKED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def in_folder(folder: Path) -> Store:
    """The rows of a folder, by what lies in it. Raises RecipeError."""
    entries = sorted(entry.name for entry in os.scandir(folder) if not entry.name.startswith("."))
    if {"dataset_info.json", "state.json"} <= set(entries) or "dataset_dict.json" in entries:
        from brolly.rows.arrow import hosted

        return hosted(str(folder))
    if manifest := next((name for name in MANIFESTS if name in entries), None):
        return _speech(folder / manifest) or in_file(folder / manifest)
    files = [name for name in entries if kind_of(Path(name)) in DATA and (folder / name).is_file()]
    media = [name for name in entries if _ends(name, PICTURES + SOUNDS)]
    folders = [name for name in entries if (folder / name).is_dir()]
    if files and not media:
        return _many(folder, files)
    if media:
        return Beside(folder, media, entries)
    if folders == ["data"] or (len(folders) == 1 and folders[0] in SPLITS):
        return in_folder(folder / folders[0])
    if folders and all(name.lower() in SPLITS for name in folders):
        raise RecipeError(f"{folder} has the parts {', '.join(folders)}; name one, such as {folder / folders[0]}.")
    if folders:
        return Classes(folder, folders)
    raise RecipeError(
        f"{folder} holds nothing that rows are read from; expected data ({', '.join(DATA)}), a metadata.jsonl or "
        "metadata.csv, pictures or sounds beside .txt files, or a folder of pictures for each label."
    )


def _many(folder: Path, files: list[str]) -> Store:
    if len(files) > 1 and all(kind_of(Path(name)) == ".json" for name in files[1:]) is False:
        files = [name for name in files if kind_of(Path(name)) != ".json"] or files  # settings lie beside data
    parts = {part for name in files for part in SPLITS if name.lower().startswith(part)}
    kinds = {kind_of(Path(name)) for name in files}
    if len(parts) > 1 or len(kinds) > 1:
        raise RecipeError(f"{folder} holds {listed(files)}; name one of them, or a folder that holds one kind of data.")
    if len(files) == 1:
        return in_file(folder / files[0])
    return Joined([in_file(folder / name) for name in files], folder)


class Files:
    """Rows that are files: their names, sorted."""

    def __init__(self, folder: Path, names: list[str], notes: list[str]) -> None:
        self.base, self.names, self.notes = folder, names, notes

    def __len__(self) -> int:
        return len(self.names)

    def where(self, i: int) -> str:
        return self.names[i]

    def fields(self, i: int) -> Mapping[str, Any]:
        raise NotImplementedError

    def stream(self) -> Iterator[Mapping[str, Any] | RowFault]:
        return in_order(self)

    def digest(self) -> str:
        """By names and sizes: to read every picture would take as long as training on it."""
        seal = hashlib.sha256()
        for name in self.names:
            size = (self.base / name).stat().st_size if (self.base / name).is_file() else -1
            seal.update(f"{name}\0{size}\n".encode("utf-8", "surrogateescape"))
        return seal.hexdigest()


class Classes(Files):
    """A folder a label, as torchvision's ImageFolder: label/…/picture."""

    def __init__(self, folder: Path, labels: list[str]) -> None:
        names: list[str] = []
        other: list[str] = []
        for label in labels:
            before = len(names)
            for place, inner, files in os.walk(folder / label):
                inner[:] = sorted(name for name in inner if not name.startswith("."))
                for name in sorted(files):
                    if not name.startswith("."):
                        path = str(Path(place, name).relative_to(folder))
                        (names if _ends(name, PICTURES) else other).append(path)
            if len(names) == before:
                other.append(f"{label}/, which holds no picture")
        if not names:
            raise RecipeError(f"{folder} has the folders {listed(labels)}, and no picture in them.")
        super().__init__(folder, names, _left_out(other))

    def fields(self, i: int) -> Mapping[str, Any]:
        name = self.names[i]
        return {"image": name, "label": Path(name).parts[0]}


class Beside(Files):
    """Pictures or sounds, each beside a .txt of the same stem that says what is in it."""

    def __init__(self, folder: Path, media: list[str], entries: list[str]) -> None:
        texts = {name for name in entries if name.lower().endswith(".txt")}
        self.sound = _ends(media[0], SOUNDS)
        kinds = SOUNDS if self.sound else PICTURES
        stems = {Path(name).stem for name in media}
        if not any(f"{stem}.txt" in texts for stem in stems):
            raise RecipeError(
                f"{folder} holds {listed(media, 3)} and no texts; expected a .txt of the same name beside each, a "
                "metadata.jsonl or metadata.csv with file_name, or a folder for each label."
            )
        other = [name for name in media if not _ends(name, kinds)]
        other += [name for name in sorted(texts) if Path(name).stem not in stems]
        super().__init__(folder, [name for name in media if _ends(name, kinds)], _left_out(other))

    def fields(self, i: int) -> Mapping[str, Any]:
        name = self.names[i]
        path = (self.base / name).with_suffix(".txt")
        try:
            with path.open("rb") as file:
                raw = file.read(MAX_CAPTION + 1)
            if len(raw) > MAX_CAPTION:
                raise RowFault(name, f"{path.name} has more than {MAX_CAPTION:,} bytes")
            text = raw.decode("utf-8-sig").strip()
        except FileNotFoundError:
            raise RowFault(name, f"has no {path.name} beside it") from None
        except OSError as error:
            raise RowFault(name, f"{path.name} cannot be read ({error.strerror})") from None
        except UnicodeDecodeError:
            raise RowFault(name, f"{path.name} is not text in UTF-8") from None
        return {"audio" if self.sound else "image": name, "text": text}


class Recordings(Table):
    """LJSpeech's metadata.csv: id|text|normalised text, without a line of columns; sounds in wavs/."""

    def __init__(self, path: Path, n_columns: int) -> None:
        super().__init__(path, separator="|", columns=("id", "text", "normalized_text")[:n_columns], quotes=False)

    def fields(self, i: int) -> Mapping[str, Any]:
        row = super().fields(i)
        name = row["id"] if _ends(row["id"], SOUNDS) else f"{row['id']}.wav"
        return {"audio": name, "text": row.get("normalized_text") or row["text"]}


def _speech(path: Path) -> Store | None:
    """A manifest as LJSpeech's, if it is one."""
    if path.name != "metadata.csv":
        return None
    first = next(Bytes(path).chunks(), b"").partition(b"\n")[0].decode("utf-8-sig", "replace")
    cells = first.strip().split("|")
    if len(cells) not in (2, 3) or "file_name" in cells or "text" in cells:
        return None
    return Recordings(path, len(cells))


def _ends(name: str, endings: tuple[str, ...]) -> bool:
    return name.lower().endswith(endings)


def _left_out(names: list[str]) -> list[str]:
    return [f"left out: {listed(names, 5)}"] if names else []
