"""JSON and bytes from hostile files: bounded before they are parsed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from brolly.errors import CheckpointError, NotFound

MAX_JSON = 64 * 2**20  # bytes; the largest published index is 3 MB, the largest tokenizer.json 35 MB
MAX_DEPTH = 64
MAX_TENSORS = 2_000_000
MAX_DIMS = 16


def parse_json(raw: bytes, source: str) -> Any:
    """JSON of bounded depth, whose only surprise is a CheckpointError naming `source`."""
    if nesting(raw) > MAX_DEPTH:
        raise CheckpointError(f"{source}: its JSON is nested deeper than {MAX_DEPTH} levels, as no real file is.")
    try:
        return json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError, MemoryError) as error:
        raise CheckpointError(f"{source} is not valid JSON ({str(error)[:100]}); download it again.") from None


def nesting(raw: bytes) -> int:
    """The deepest run of open brackets; brackets within strings count too, unless they close."""
    if raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH:
        return 0
    depth = deepest = 0
    in_string = escaped = False
    for byte in raw:
        if in_string:
            if escaped:
                escaped = False
            elif byte == 0x5C:
                escaped = True
            elif byte == 0x22:
                in_string = False
        elif byte == 0x22:
            in_string = True
        elif byte in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                return depth
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest


def json_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object."""
    with opened(path) as (file, size):
        if size > MAX_JSON:
            raise CheckpointError(f"{path} has {size} bytes; a configuration has at most {MAX_JSON}.")
        found = parse_json(file.read(), str(path))
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} holds a {type(found).__name__}; expected an object of key and value.")
    return found


@contextmanager
def opened(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """A regular file and its size in bytes; what the disk says against it becomes an error that names it."""
    try:
        if not path.is_file():
            raise NotFound(f"{path} does not exist." if not path.exists() else f"{path} is not a regular file.")
        with path.open("rb") as file:
            yield file, path.stat().st_size
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror or error}).") from None


def exactly(file: BinaryIO, n_bytes: int, path: Path) -> bytes:
    """The next `n_bytes`, all of them."""
    raw = file.read(n_bytes)
    if len(raw) != n_bytes:
        raise CheckpointError(f"{path} ends after {file.tell()} bytes, in the middle of its header; download it again.")
    return raw


def shape_of(value: Any, where: str) -> tuple[int, ...]:
    """Dimensions: a short list of whole numbers that are not negative."""
    ok = isinstance(value, (list, tuple)) and len(value) <= MAX_DIMS
    if not ok or not all(type(n) is int and 0 <= n < 2**48 for n in value):
        raise CheckpointError(f"{where}: the shape is {str(value)[:80]}; expected up to {MAX_DIMS} whole numbers.")
    return tuple(value)
