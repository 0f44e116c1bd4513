"""Findings as SARIF 2.1.0, which code scanning services read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from brolly import __version__

if TYPE_CHECKING:
    from brolly.identity.card import Card
    from brolly.identity.tree import Row

LEVELS = {"danger": "error", "warning": "warning", "info": "note"}
HELP = "https://github.com/brolly-ai/brolly/blob/main/docs/identify.md#findings"
SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def sarif(cards: Sequence[Card]) -> dict[str, Any]:
    """One run with a result for each finding of these cards."""
    from brolly.place import is_folder

    rows = []
    for card in cards:
        where = card.subject.where
        base = str(where) if is_folder(where) else str(where.parent)
        rows += [(base, finding._asdict()) for finding in card.findings]
    return _document(rows)


def sarif_of_rows(rows: Iterable[Row]) -> dict[str, Any]:
    """The same of a tree."""
    found = []
    for row in rows:
        base = row.path if Path(row.path).is_dir() else str(Path(row.path).parent)
        found += [(base, finding) for finding in row.json["findings"]]
    return _document(found)


def _document(rows: Iterable[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    rows = list(rows)
    ids = sorted({finding["id"] for _, finding in rows})
    rules = [{"id": i, "name": i, "shortDescription": {"text": i.replace("-", " ")}, "helpUri": HELP} for i in ids]
    results = [
        {
            "ruleId": finding["id"],
            "ruleIndex": ids.index(finding["id"]),
            "level": LEVELS[finding["severity"]],
            "message": {"text": finding["message"]},
            "locations": [{"physicalLocation": {"artifactLocation": {"uri": _uri(base, finding["file"])}}}],
        }
        for base, finding in rows
    ]
    driver = {
        "name": "brolly",
        "version": __version__,
        "informationUri": "https://github.com/brolly-ai/brolly",
        "rules": rules,
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]}


def _uri(base: str, file: str) -> str:
    """A relative reference where the model lies below the working folder, as scanners of repositories expect."""
    path = Path(base) / file if file else Path(base)
    try:
        return quote(os.fsencode(path.absolute().relative_to(Path.cwd()).as_posix()))
    except ValueError:
        return "file://" + quote(os.fsencode(path.absolute().as_posix()))
