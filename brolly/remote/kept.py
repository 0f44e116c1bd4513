"""What vendors want back with the calls that they made, for clients that cannot keep it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

MOST, MOST_BYTES = 4096, 64 << 20  # calls; characters of what is kept for them
AMBIGUOUS: list[Mapping[str, Any]] = []


def size_of(opaque: Sequence[Mapping[str, Any]]) -> int:
    """Characters, about; of what is nested too deeply to be written, more than is kept."""
    try:
        return sum(len(str(one)) for one in opaque)
    except RecursionError:
        return MOST_BYTES + 1


class Kept:
    """Opaque parts by user and call: nobody has another's. For any thread; the oldest go first.

    A call that two answers made (some vendors count from 1 in each) tells nothing of either.
    """

    def __init__(self) -> None:
        self._rows: OrderedDict[tuple[str, str], tuple[list[Mapping[str, Any]], int]] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def keep(self, user: str, calls: Sequence[str], opaque: list[Mapping[str, Any]], size: int) -> None:
        """All that came so far of one answer, told by the list itself, and its size."""
        with self._lock:
            for call in calls:
                old, held = self._rows.pop((user, call), (opaque, 0))
                row = (opaque, size) if old is opaque else (AMBIGUOUS, 0)
                self._rows[user, call] = row
                self._size += row[1] - held
            while len(self._rows) > MOST or (self._size > MOST_BYTES and self._rows):
                _, (_, held) = self._rows.popitem(last=False)
                self._size -= held

    def given(self, message: Mapping[str, Any], user: str) -> Mapping[str, Any]:
        """A turn of the assistant's with what was kept of it, where it has nothing of its own."""
        if not self._rows or not message.get("tool_calls") or message.get("opaque"):
            return message
        with self._lock:
            rows = (self._rows.get((user, str(call.get("id")))) for call in message["tool_calls"])
            kept = next((opaque for opaque, _ in filter(None, rows) if opaque), None)
        return message if kept is None else {**message, "opaque": list(kept)}
