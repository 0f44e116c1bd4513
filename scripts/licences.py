"""Regenerates brolly/identity/data/licences.json and licence_texts.json from the SPDX licence list.

    npm pack spdx-license-list && tar xzf spdx-license-list-*.tgz     # CC0-1.0; the texts are SPDX's
    python scripts/licences.py package

licences.json is written by hand: what a licence grants is a judgement. This fills in what SPDX knows (name, OSI's word,
URL), the table of spellings, and one row a line; licence_texts.json gets a fingerprint of each SPDX text (no text is
copied) beside the titles of model licences, which are written by hand too. Running it twice changes nothing.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from brolly.identity.licence_text import sample, words_of
from brolly.identity.licences import spelling

DATA = Path(__file__).resolve().parents[1] / "brolly/identity/data"
ORDER = ("name", "spdx", "commercial", "redistribution", "free", "osi", "conditions", "url", "by", "read", "aliases")


def main(folder: str) -> None:
    listed = json.loads((Path(folder) / "spdx-full.json").read_text())
    table = json.loads((DATA / "licences.json").read_text())
    texts = json.loads((DATA / "licence_texts.json").read_text())
    rows: dict[str, dict[str, Any]] = table["licences"]
    prints: dict[str, list[int]] = {}
    for name, row in rows.items():
        spdx = listed.get(row["spdx"]) or listed.get(str(row["spdx"]).removesuffix("-only"))
        if row["spdx"] and not spdx:
            sys.exit(f"{name}: the SPDX list has no {row['spdx']}; expected one of its ids.")
        row["osi"] = bool(spdx and spdx["osiApproved"])
        if spdx:
            row["name"], row["url"] = spdx["name"], f"https://spdx.org/licenses/{row['spdx']}.html"
            prints[name] = [len(words_of(spdx["licenseText"])), *sample(spdx["licenseText"])]
    spellings = {spelling(name): name for name in rows}
    for name, row in rows.items():
        for text in (*row["aliases"], row["name"], row["spdx"] or ""):
            if text and spellings.setdefault(spelling(text), name) != name:
                sys.exit(f"{text!r} is spelt like {spellings[spelling(text)]} and like {name}; drop one alias.")
    table["spellings"] = spellings
    table["licences"] = {name: {key: rows[name].get(key) for key in ORDER} for name in rows}
    texts["prints"] = prints
    write(DATA / "licences.json", table)
    write(DATA / "licence_texts.json", texts)


def write(path: Path, table: dict[str, Any]) -> None:
    """One row a line, sorted where order means nothing."""
    parts = []
    for key, value in table.items():
        if isinstance(value, dict) and key != "about":
            lines = [f"{line(k)}:{line(value[k])}" for k in sorted(value)]
            parts.append(f'"{key}":{{\n' + ",\n".join(lines) + "\n}")
        elif isinstance(value, list):
            parts.append(f'"{key}":[\n' + ",\n".join(line(v) for v in value) + "\n]")
        else:
            parts.append(f'"{key}":{line(value)}')
    path.write_text("{" + ",\n".join(parts) + "}\n")
    assert json.loads(path.read_text()) == table


def line(value: Any) -> str:
    return re.sub(r"\n", " ", json.dumps(value, ensure_ascii=False, separators=(",", ":")))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
