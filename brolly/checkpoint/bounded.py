"""JSON and bytes from hostile files: bounded before they are parsed."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from brolly.errors import CheckpointError, NotFound
from brolly.place import Place, Where

MAX_JSON = 32 * 2**20  # bytes; the largest published index has 13 MB
MAX_PARSED = 80 * 2**20  # bytes of Python objects, by the estimate of `weight`
MAX_DEPTH = 64
MAX_DIMS = 16
MAX_TENSORS = 65_536
MAX_SHOWN = 80  # characters
# A text (to the end where it is never closed) or a bracket; possessive, so that no input makes it go back.
TOKEN = re.compile(rb'"[^"\\]*+(?:\\.?[^"\\]*+)*+(?:"|\Z)|[][{}]', re.DOTALL)


def shown(value: Any) -> str:
    """A value for a message: short, on one line, and quick whatever a file made of it."""
    if isinstance(value, (str, bytes)):
        return repr(value[:MAX_SHOWN]) + ("…" if len(value) > MAX_SHOWN else "")
    if isinstance(value, (list, tuple)):
        inner = [shown(v) if isinstance(v, (int, float)) else type(v).__name__ for v in value[:MAX_DIMS]]
        return f"[{', '.join(inner)}{', …' if len(value) > MAX_DIMS else ''}]"
    if isinstance(value, int) and value.bit_length() > 128:
        return f"a number of {value.bit_length():,} bits"
    return repr(value) if isinstance(value, (int, float, type(None))) else f"a {type(value).__name__}"


def fault(error: BaseException) -> str:
    """What another library says, for a message: short, on one line, with nothing that a terminal would obey."""
    return str(error)[:MAX_SHOWN].encode("unicode_escape").decode()


def parse_json(raw: bytes, source: str, *, unique: bool = False) -> Any:
    """JSON of bounded depth and size, whose only surprise is a CheckpointError naming `source`.

    `unique` refuses an object that has a key twice, or text that no UTF-8 can hold.
    """
    if len(raw) > MAX_JSON or weight(raw) > MAX_PARSED:
        raise CheckpointError(f"{source}: its {len(raw):,} bytes of JSON are more than any real file's.")
    if too_deep(raw):
        raise CheckpointError(f"{source}: its JSON is nested deeper than {MAX_DEPTH} levels, as no real file is.")
    try:
        return json.loads(raw.decode("utf-8" if unique else "utf-8-sig"), object_pairs_hook=_unique if unique else None)
    except (ValueError, RecursionError, MemoryError) as error:
        raise CheckpointError(f"{source} is not valid JSON ({fault(error)}); download it again.") from None


def weight(raw: bytes) -> int:
    """An upper estimate of the memory that a JSON text takes while it is parsed, in bytes."""
    width = 1 if raw.isascii() else 4
    letters = 4 if b"\\u" in raw else width
    letters += width if b"\\" in raw else 0  # a text with escapes is put together from its pieces
    empty, full = raw.count(b"[") * 64 + raw.count(b"{") * 128, raw.count(b":") * 160 + raw.count(b",") * 72
    return len(raw) * (1 + width + letters) + empty + full


def too_deep(raw: bytes) -> bool:
    """Whether brackets outside of texts ever stand deeper than MAX_DEPTH."""
    if raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH:
        return False
    depth = 0
    for token in TOKEN.finditer(raw):
        first = raw[token.start()]
        if first != 0x22:
            depth += 1 if first in b"[{" else -1
            if depth > MAX_DEPTH:
                return True
    return False


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    for text in (text for pair in pairs for text in pair if isinstance(text, str)):
        text.encode()  # half of a surrogate pair, which JSON can spell, would break whoever prints it
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"{shown(twice)} occurs twice")
    return found


def json_object(path: Where) -> dict[str, Any]:
    """A JSON file that holds an object. Raises NotFound, CheckpointError."""
    with opened(path) as (file, size):
        if size > MAX_JSON:
            raise CheckpointError(f"{path} has {size:,} bytes; a configuration has at most {MAX_JSON:,}.")
        found = parse_json(file.read(MAX_JSON), str(path))
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} holds a {type(found).__name__}; expected an object of key and value.")
    return found


@contextmanager
def opened(path: Where) -> Iterator[tuple[BinaryIO, int]]:
    """A regular file and its size in bytes; what the disk says against it becomes an error that names it."""
    if isinstance(path, Place):
        with path.open() as remote:
            yield remote, path.n_bytes
        return
    try:
        file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115
    except FileNotFoundError:
        raise NotFound(f"{path} does not exist.") from None
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or fault(error)
        raise CheckpointError(f"{path} cannot be read ({said}); expected a regular file.") from None
    with file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise CheckpointError(f"{path} is not a regular file; expected one that holds a model or its settings.")
        try:
            yield file, status.st_size
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read ({error.strerror or error}); download it again.") from None


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a named pipe would wait for its writer for ever


def exactly(file: BinaryIO, n_bytes: int, path: Where) -> bytes:
    """The next `n_bytes`, all of them."""
    raw = file.read(n_bytes)
    if len(raw) != n_bytes:
        raise CheckpointError(f"{path} ends after {file.tell():,} bytes, inside its header; download it again.")
    return raw


def shape_of(value: Any, where: str) -> tuple[int, ...]:
    """Dimensions: a short list of whole numbers that are not negative."""
    ok = isinstance(value, (list, tuple)) and len(value) <= MAX_DIMS
    if not ok or not all(type(n) is int and 0 <= n < 2**48 for n in value):
        raise CheckpointError(f"{where}: the shape is {shown(value)}; expected up to {MAX_DIMS} whole numbers.")
    return tuple(value)


def note(faults: list[CheckpointError] | None, error: CheckpointError) -> None:
    """Go on after a fault where the caller collects them; else it ends the reading."""
    if faults is None:
        raise error
    faults.append(error)
