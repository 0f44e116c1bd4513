"""The rename machine: a checkpoint's names to the network's, by a table of patterns; the first match wins."""

from __future__ import annotations

import re
from collections.abc import Iterable

from brolly.card import Rename


def rename(names: Iterable[str], table: Iterable[Rename]) -> dict[str, tuple[tuple[str, ...], str]]:
    """Each source name's targets (none: dropped on purpose) and what happens to its numbers; no row: unchanged."""
    rows = [(re.compile(row.pattern).fullmatch, row.to, row.how) for row in table]
    out: dict[str, tuple[tuple[str, ...], str]] = {}
    for name in names:
        out[name] = ((name,), "")
        for matches, to, how in rows:
            if matched := matches(name):
                templates = (to,) if isinstance(to, str) else to or ()
                out[name] = (tuple(map(matched.expand, templates)), how)
                break
    return out


def sources(names: Iterable[str], table: Iterable[Rename]) -> dict[str, str]:
    """The other way: each network name and the checkpoint's name that fills it; dropped tensors are left out."""
    return {target: name for name, (targets, _) in rename(names, table).items() for target in targets}
