"""Stop texts in a stream: what may be shown, and when it ends."""

from __future__ import annotations

from collections.abc import Sequence


class Held:
    """Text not yet shown because it could be the beginning of a stop string. `met` is the one that ended it."""

    def __init__(self, stops: Sequence[str]) -> None:
        self.stops, self.text = stops, ""
        self.met: str | None = None

    def push(self, more: str) -> tuple[str, bool]:
        """What may be shown now, and whether a stop string was met (and cut off, with all after it)."""
        if not self.stops:
            return more, False
        self.text += more
        found = [(at, stop) for stop in self.stops if (at := self.text.find(stop)) >= 0]
        if found:
            at, self.met = min(found)
            return self.text[:at], True
        keep = max((held(self.text, stop) for stop in self.stops), default=0)
        shown, self.text = self.text[: len(self.text) - keep], self.text[len(self.text) - keep :]
        return shown, False


def held(text: str, stop: str) -> int:
    """How many characters at a text's end are the beginning of a stop string."""
    at = max(len(text) - len(stop) + 1, 0)
    while (at := text.find(stop[0], at)) >= 0:
        if stop.startswith(text[at:]):
            return len(text) - at
        at += 1
    return 0
