"""ATTRIBUTION.tsv of mini-llm: every storybook and book, its author and licence. `python recipes/attribution.py CORPUS OUT`."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

COLUMNS = ("source", "title", "text by", "translated by", "licence")


def rows(corpus: Path) -> list[dict[str, str]]:
    with open(corpus / "ATTRIBUTION_stories.tsv", newline="") as file:
        out = list(csv.DictReader(file, delimiter="\t"))
    with open(corpus / "BOOKS.tsv", newline="") as file:
        for book in csv.DictReader(file, delimiter="\t"):
            if book["part"] != "general_md":  # adult prose, not read
                named = {"source": book["part"], "title": book["title"], "text by": book["author"]}
                out.append(named | {"translated by": "", "licence": "public domain"})
    return out


def main() -> None:
    corpus, target = map(Path, sys.argv[1:3])
    with open(target, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, delimiter="\t", extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows({c: " ".join((row.get(c) or "").split()) for c in COLUMNS} for row in rows(corpus))


if __name__ == "__main__":
    main()
