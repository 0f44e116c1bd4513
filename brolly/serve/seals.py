"""What a vendor wants back with the next turn, as a text that clients keep and send again (encrypted_content)."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from typing import Any

MARK = "brolly."  # no vendor's own begins so
LONGEST = 16 << 20  # characters
MARKS = {"vendor", "said", "call", "phase"}  # fields that tell where something stands, and mean nothing alone


def meaning(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether there is anything in opaque parts."""
    return any(row.keys() - MARKS for row in rows)


def sealed(rows: Sequence[Mapping[str, Any]]) -> str:
    """Opaque parts as a text; "" where there is nothing in them."""
    if not meaning(rows):
        return ""
    return MARK + urlsafe_b64encode(json.dumps([dict(row) for row in rows]).encode()).decode()


def unsealed(text: str) -> list[dict[str, Any]] | None:
    """The parts of such a text, None of any other. Clients could have written it: dialects check what is in it."""
    if not text.startswith(MARK):
        return None
    try:
        rows = json.loads(urlsafe_b64decode(text[len(MARK) : LONGEST]))
    except (ValueError, RecursionError):
        return []
    sound = isinstance(rows, list) and all(isinstance(row, dict) and isinstance(row.get("vendor"), str) for row in rows)
    return rows if sound else []
