"""What stands on the command line → texts and pictures: files, folders, globs, standard input, or words themselves."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from brolly.errors import BrollyError, MediaError, NotFound, OptionError
from brolly.media.image import looks_like_image

MAX_TEXT = 16 << 20


class Input(NamedTuple):
    """One thing to look at: what the user calls it, and its picture's path or its text (or the path to that)."""

    name: str
    kind: str  # "image" or "text"
    path: Path | None = None

    def value(self) -> Path | str:
        """What a model takes. Raises MediaError where a file is no text."""
        if self.path is None or self.kind == "image":
            return self.path or self.name
        return read_text(self.path)


def inputs(words: Iterable[str], force: str | None = None) -> list[Input]:
    """Every input that words name, in their order: "-" is a text a line of standard input (with `force` "image", a path
    a line), a path that exists is a file or a folder's files, a pattern its matches, and all else a text."""
    found: list[Input] = []
    for word in words:
        if word == "-":
            lines = [line for line in stdin_text().splitlines() if line.strip()]
            found += (_of_path(Path(line), force) if force == "image" else Input(line, "text") for line in lines)
            continue
        name = os.path.expanduser(word)  # os.path says no where Path would raise: at a text too long for a name
        if force == "text":
            found.append(Input(word, "text"))
        elif os.path.isdir(name):
            found += (_of_path(p, force) for p in files_in(Path(name)) if force is None or looks_like_image(p))
        elif os.path.exists(name) or force == "image" and not glob.has_magic(name):
            found.append(_of_path(Path(name), force))
        elif matches := sorted(glob.iglob(name, recursive=True)) if glob.has_magic(name) else []:
            found += (_of_path(Path(m), force) for m in matches if os.path.isfile(m))
        elif force == "image":
            raise NotFound(f"no file matches {word!r:.200}.")
        else:
            found.append(Input(word, "text"))
    if not found:
        raise OptionError("there is nothing to look at; name a file, a folder or a text.")
    return found


def _of_path(path: Path, force: str | None) -> Input:
    return Input(str(path), force or ("image" if looks_like_image(path) else "text"), path)


def files_in(folder: Path) -> Iterator[Path]:
    """Every file below a folder by name, but those that are hidden, and no pipes."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        paths = (Path(place, name) for name in sorted(names) if not name.startswith("."))
        yield from (path for path in paths if path.is_file())


def images_in(words: Sequence[str]) -> list[Path]:
    """Every picture that words name: files as they are, a folder's by content. Raises NotFound, OptionError."""
    found = [one.path for one in inputs(words, "image") if one.path]
    if missing := next((p for p in found if not os.path.lexists(p)), None):
        raise NotFound(f"{missing} does not exist; expected an image or a folder of images.")
    return found


def read_text(path: Path) -> str:
    """A file's text. Raises MediaError where it is none."""
    try:
        with path.open("rb") as file:  # a device and a pipe do not tell how much they hold
            data = file.read(MAX_TEXT + 1)
        if len(data) > MAX_TEXT:
            raise MediaError(f"{path} has more than {MAX_TEXT:,} bytes, the most that a text has.")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise MediaError(f"{path} is neither an image that can be read here nor text in UTF-8.") from None
    except OSError as error:
        raise MediaError(f"{path} cannot be read ({error.strerror}).") from None


def lines_of(path: str, what: str) -> tuple[str, ...]:
    """The lines of a file that are not empty. Raises OptionError where there are none."""
    if not (found := tuple(line.strip() for line in read_text(Path(path)).splitlines() if line.strip())):
        raise OptionError(f"{path} holds no {what}; expected one a line.")
    return found


def stdin_text() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise OptionError(f"standard input is not text ({error.reason} at byte {error.start}).") from None


class Errors:
    """What went wrong with single inputs while the others went on: told at once, counted at the end."""

    def __init__(self) -> None:
        self.rows: list[dict[str, str]] = []

    def add(self, name: str, error: BrollyError | Exception) -> None:
        known = any(row["error"] == str(error) for row in self.rows)  # of a kind of input, not of this one
        self.rows.append({"input": name, "error": str(error)})
        if not known:
            from tqdm import tqdm

            tqdm.write(f"brolly: {error}", file=sys.stderr)

    def close(self, n_done: int) -> int:
        """The exit code: 0, or 1 where some failed, or 2 where all did; how many is said at the end."""
        if self.rows and n_done + len(self.rows) > 1:
            print(f"brolly: {len(self.rows):,} of {n_done + len(self.rows):,} inputs failed.", file=sys.stderr)
        return (1 if n_done else 2) if self.rows else 0
