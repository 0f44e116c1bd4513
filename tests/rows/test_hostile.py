"""Whatever a file holds, reading it ends in rows, in faults that name them, or in one error of ours."""

from __future__ import annotations

import csv
import io
import json
import random
from pathlib import Path
from typing import Any

import pytest

from brolly.errors import BrollyError
from brolly.rows import Captioned, RowFault, held_out, open_rows, overlap, preview

NAMES = (
    "text content prompt completion response instruction input output question answer messages conversations tools "
    "system chosen rejected preferred_output non_preferred_output label query anchor positive pos negative neg "
    "negative_1 image file_name audio_filepath path sentence language"
)
SAID: list[Any] = [
    {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}, {"from": "gpt", "value": "a"},
    {"role": "assistant"}, {"role": "assistant", "content": [{"type": "text", "text": "a"}]},
]  # fmt: skip
STRANGE: list[Any] = [
    None, 3, 10**30, float("nan"), True, "", "x", "a.png", "b.wav", "http://a/b.png", [], {}, ["x"], [1], SAID,
    SAID[:2], {"messages": SAID[:1]}, {"bytes": None, "path": None}, "\ud800", "[", '{"a": 1}', "true", "\x00\x1b[2J",
    "\u202e",
]  # fmt: skip
BITS = [b'"', b"\n", b"\r\n", b"[", b"{", b"\\", b",", b"\xff", b"\x00", b'"""', b"\t"]


def damaged(raw: bytes, draw: random.Random) -> bytes:
    found = bytearray(raw)
    for _ in range(draw.randrange(6)):
        at = draw.randrange(len(found) + 1)
        if draw.random() < 0.5:
            found[at:at] = draw.choice(BITS)
        else:
            del found[at : at + draw.randrange(1, 20)]
    return bytes(found)


def written(rows: list[dict[str, Any]], names: list[str], kind: str) -> bytes:
    if kind == "jsonl":
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    if kind == "json":
        return json.dumps(rows).encode()
    file = io.StringIO()
    out = csv.writer(file, delimiter="," if kind == "csv" else "\t")
    out.writerows([names, *([v if isinstance(v, str) else json.dumps(v) for v in row.values()] for row in rows)])
    return file.getvalue().encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "tsv"])
def test_damaged_files_end_in_rows_or_one_error(kind: str, tmp_path: Path) -> None:
    draw = random.Random(kind)
    n_read = 0
    for _ in range(150):
        names = draw.sample(NAMES.split(), draw.randrange(1, 5))
        rows = [
            {name: draw.choice(STRANGE) if draw.random() < 0.4 else f"word {draw.random()}" for name in names}
            for _ in range(draw.randrange(8))
        ]
        path = tmp_path / f"a.{kind}"
        path.write_bytes(damaged(written(rows, names, kind), draw))
        try:
            found = open_rows(path)
            shown = preview(found)
            train, held = held_out(found, 0.3)
        except BrollyError as error:
            assert len(str(error)) < 4000
            continue
        n_read += 1
        assert len(train) + len(held) + found.n_bad == len(found)
        assert shown.isprintable() or all(c.isprintable() or c in "\n\xa0\u3000" for c in shown)
        overlap(found.only(train), found.only(held))
    assert n_read > 5


@pytest.mark.parametrize(
    "fields",
    [{"image": "a.png", "text": "x"}, {"audio": "a.wav", "text": "x"}, {"image": "a.png", "label": "x"},
     {"image": {"bytes": None, "path": "a.png"}, "text": "x"}],
)  # fmt: skip
@pytest.mark.parametrize("whole", [False, True])
def test_rows_of_strangers_name_no_files(fields: dict[str, Any], whole: bool, tmp_path: Path) -> None:
    for name in ("a.png", "a.wav"):
        (tmp_path / name).write_bytes(b"secret")
    at = f"{tmp_path}/" if whole else ""
    said = json.dumps(fields).replace('"a.', f'"{at}a.')
    (tmp_path / "rows.jsonl").write_text(f"{said}\n")
    assert len(list(open_rows(tmp_path / "rows.jsonl"))) == 1
    rows = open_rows(tmp_path / "rows.jsonl", paths=False)
    with pytest.raises(RowFault, match="names a file"):
        rows[0]
    with pytest.raises(BrollyError, match="all 1 rows"):
        list(open_rows(rows))


def test_rows_that_hold_bytes_may_be_strangers() -> None:
    (row,) = open_rows([{"image": b"\x89PNG", "text": "x"}], paths=False)
    assert row.value == Captioned(b"\x89PNG", "x")
