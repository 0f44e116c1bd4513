"""Citations in an answer, [1] or [2, 3]: those of sources that were given stay, others are taken out and told."""

from __future__ import annotations

import re

OPEN = re.compile(r"\[(?:\d[\d\s,–-]{0,24})?$")
CITED = re.compile(r"[ \t]?\[(\d{1,3}(?:\s*[,–-]\s*\d{1,3})*)\]")


class Checked:
    """An answer as it streams: `push` gives what may be shown. `used` are sources cited, `dropped` numbers of none."""

    def __init__(self, n_sources: int) -> None:
        self.n_sources = n_sources
        self.used: list[int] = []
        self.dropped: list[int] = []
        self._held = ""

    def push(self, text: str) -> str:
        text = self._held + text
        begun = OPEN.search(text)
        at = begun.start() if begun else len(text)
        if at and text[at - 1] in " \t":  # the blank before a citation that goes
            at -= 1
        self._held = text[at:]
        return CITED.sub(self._check, text[:at])

    def finish(self) -> str:
        held, self._held = self._held, ""
        return CITED.sub(self._check, held)

    def _check(self, mark: re.Match[str]) -> str:
        good = []
        for number in numbers(mark[1]):
            if 1 <= number <= self.n_sources:
                good.append(number)
                if number not in self.used:
                    self.used.append(number)
            elif number not in self.dropped:
                self.dropped.append(number)
        blank = mark[0][: mark[0].index("[")]
        return blank + "".join(f"[{number}]" for number in good) if good else ""


def numbers(text: str) -> list[int]:
    """1, 3–5 → 1, 3, 4, 5."""
    found: list[int] = []
    for part in text.split(","):
        ends = [int(n) for n in re.findall(r"\d+", part)]
        if len(ends) == 2 and ends[0] < ends[1] <= ends[0] + 20:
            found += range(ends[0], ends[1] + 1)
        else:
            found += ends
    return found
