"""Small files beside a checkpoint, read within bounds."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from brolly.errors import TokenizerError

MAX_TOKENIZER = 96 << 20  # Gemma 3's tokenizer.json has 33 MB
MAX_CONFIG = 16 << 20
MAX_ID = 1 << 21
_LARGE = re.compile(rb":\s*(\d{7,20})")


def read_bytes(path: Path, limit: int = MAX_TOKENIZER) -> bytes:
    """A file's bytes; a longer file than `limit` is refused before it is read."""
    try:
        if not path.is_file():
            raise TokenizerError(f"{path} is not a file; expected a tokenizer there.")
        size = path.stat().st_size
        if size > limit:
            raise TokenizerError(f"{path} has {size:,} bytes; a file of its kind has at most {limit:,}.")
        with path.open("rb") as file:
            return file.read(limit)
    except OSError as error:
        raise TokenizerError(f"{path} cannot be read: {error.strerror or error}.") from error


def check_ids(data: bytes, path: Path) -> bytes:
    """Refuse a JSON vocabulary with an id that no vocabulary has: `tokenizers` makes a table as long as the largest."""
    for found in _LARGE.finditer(data):
        if int(found[1]) >= MAX_ID and _largest_id(data) >= MAX_ID:
            raise TokenizerError(f"{path} gives a token the id {_largest_id(data):,}; expected ids below {MAX_ID:,}.")
    return data


def _largest_id(data: bytes) -> int:
    """The largest id, by reading the JSON whole: only a file with a large number somewhere needs it."""
    try:
        whole = json.loads(data)
        model, added = whole.get("model", {}), whole.get("added_tokens") or []
        vocabulary = model.get("vocab") if isinstance(model, dict) and "vocab" in model else whole
        ids = list(vocabulary.values()) if isinstance(vocabulary, dict) else []
        ids += [row.get("id") for row in added if isinstance(row, dict)]
        return max((i for i in ids if isinstance(i, int)), default=0)
    except (ValueError, RecursionError, AttributeError, TypeError):
        return 0  # `tokenizers` refuses it too


def read_text(path: Path, limit: int = MAX_CONFIG) -> str:
    """A UTF-8 file."""
    try:
        return read_bytes(path, limit).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{path} is not UTF-8 at byte {error.start}; expected text.") from error


def read_object(path: Path, limit: int = MAX_CONFIG) -> dict[str, Any]:
    """A JSON object."""
    try:
        found = json.loads(read_text(path, limit))
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"{path} is not JSON that can be read: {error}.") from error
    if not isinstance(found, dict):
        raise TokenizerError(f"{path} holds a JSON {type(found).__name__}; expected an object.")
    return found
