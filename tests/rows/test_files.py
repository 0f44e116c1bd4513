"""Files of rows: each place is found by its bytes, packed or not, whatever else the file holds."""

from __future__ import annotations

import csv
import gzip
import json
import lzma
import os
import random
import struct
from pathlib import Path
from typing import Any

import pytest

from brolly.errors import NotFound, RecipeError
from brolly.rows import Completion, RowFault, Rows, Text, open_rows, store


def texts(rows: Rows) -> list[str]:
    return [row.value.text for row in rows]  # type: ignore[union-attr]


def places(rows: Rows) -> list[str]:
    return [row.where.rpartition(" ")[2] for row in rows]


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64, 2**20])
def test_lines_are_found_wherever_a_chunk_ends(tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        "",
        '{"text": "one"}',
        "   ",
        '{"text": "two\\n"}',
        "",
        "",
        '{"text": "thr\u00e9e"}',
        "\t\r",
        "nonsense",
        '{"text": "4"}',
    ]
    path = tmp_path / "a.jsonl"
    path.write_bytes("\n".join(lines).encode())
    chunks = store.Bytes.chunks
    monkeypatch.setattr(store.Bytes, "chunks", lambda self, size=chunk: chunks(self, size))
    rows = open_rows(path)
    assert texts(rows) == ["one", "two\n", "thr\u00e9e", "4"] and places(rows) == ["2", "4", "7", "10"]
    assert [str(fault)[:16] for fault in rows.faults] == ["a.jsonl, line 9:"]
    assert [rows[i].where[-1] for i in (4, 2, -1)] == ["0", "7", "0"]


@pytest.mark.parametrize("chunk", [1, 2, 5, 2**20])
def test_items_of_a_list_are_found_wherever_a_chunk_ends(
    tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [{"text": 'a] "},{'}, {"text": "b\\"}, {"text": 3}, {"text": "c", "more": [[{}], {"x": "]"}]}]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(items, indent=1))
    chunks = store.Bytes.chunks
    monkeypatch.setattr(store.Bytes, "chunks", lambda self, size=chunk: chunks(self, size))
    rows = open_rows(path)
    assert texts(rows) == ['a] "},{', "b\\", "c"] and len(rows) == 4
    assert [str(fault) for fault in rows.faults] == ["a.json, item 3: 'text' is a number, not a text"]


def test_a_list_that_is_cut_short_or_empty_is_told(tmp_path: Path) -> None:
    (tmp_path / "cut.json").write_text('[{"text": "a"}, {"text"')
    with pytest.raises(RecipeError, match="cut short"):
        open_rows(tmp_path / "cut.json")
    (tmp_path / "none.json").write_text("[ ]")
    with pytest.raises(RecipeError, match="holds no rows"):
        open_rows(tmp_path / "none.json")


def test_json_may_be_a_line_a_row_under_any_name(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"text": "a"}\n{"text": "b"}\n')
    assert texts(open_rows(tmp_path / "a.json")) == ["a", "b"]


@pytest.mark.parametrize("ending", [".gz", ".xz", ".zst"])
def test_packed_files_are_read_at_any_place(tmp_path: Path, ending: str) -> None:
    raw = b"".join(b'{"text": "row %d"}\n' % i for i in range(2000))
    path = tmp_path / f"a.jsonl{ending}"
    if ending == ".zst":
        pyarrow = pytest.importorskip("pyarrow")
        path.write_bytes(pyarrow.Codec("zstd").compress(raw, asbytes=True))
    else:
        path.write_bytes((gzip if ending == ".gz" else lzma).compress(raw))
    rows = open_rows(path)
    assert (
        len(rows) == 2000 and rows[1234].value == Text("row 1234") and rows[1234].where == f"a.jsonl{ending}, line 1235"
    )
    path.write_bytes(path.read_bytes()[:-20])
    if ending != ".zst":
        with pytest.raises(RecipeError, match="cannot be unpacked"):
            open_rows(path)


def test_tables_have_fields_over_lines_and_bad_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        'question,answer,n\r\n"a,\nb",c,1\r\n\r\nx,"y""s"\r\nq,"never closed,2\r\nz,1,3\r\ne,\xff,4\r\n',
        "latin-1",
        newline="",
    )
    rows = open_rows(path)
    assert [row.value for row in rows] == [Completion("a,\nb", "c"), Completion("z", "1")]
    assert [row.where for row in rows] == ["a.csv, line 2", "a.csv, line 7"]
    told = [str(fault) for fault in rows.faults]
    assert told[0] == "a.csv, line 5: has 2 fields, and there are 3 columns"
    assert told[1].startswith("a.csv, line 6: is no row of a table")
    assert told[2] == "a.csv, line 8: is not text in UTF-8" and len(told) == 3


def test_tables_are_read_as_the_standard_library_reads_them(tmp_path: Path) -> None:
    draw = random.Random(7)
    letters = ['"', ",", "\n", "a", "\u00e9", " ", "\t", ";", "''", "\r\n", "|"]
    table = [["x" + "".join(draw.choices(letters, k=draw.randrange(9))) for _ in range(3)] for _ in range(300)]
    for name, separator in (("a.csv", ","), ("b.csv", ";"), ("c.tsv", "\t"), ("d.csv", "|")):
        with (tmp_path / name).open("w", newline="", encoding="utf-8-sig") as file:
            csv.writer(file, delimiter=separator).writerows([["prompt", "completion", "more"], *table])
        rows = open_rows(tmp_path / name)
        assert [list(row.fields.values()) for row in rows] == table and not rows.faults, name
        lines = (tmp_path / name).read_bytes().split(b"\n")
        for i in (0, 117, 299):
            assert lines[int(rows[i].where.rpartition(" ")[2]) - 1].decode().startswith(("x", '"x')), name


def test_between_tabs_a_quote_is_a_letter_where_the_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('text\tid\n"Well," he said.\t1\nHe left.\t2\n')
    assert texts(open_rows(tmp_path / "a.tsv")) == ['"Well," he said.', "He left."]


def test_parquet_is_read_in_order_and_at_any_place(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    said = [
        [{"role": "user", "content": f"Q{i}"}, {"role": "assistant", "content": f"A{i}" if i != 700 else ""}]
        for i in range(1500)
    ]
    pq.write_table(pa.table({"messages": said}), tmp_path / "a.parquet", row_group_size=600)
    rows = open_rows(tmp_path / "a.parquet")
    assert [row.number for row in rows] == [i for i in range(1500) if i != 700]
    assert str(rows.faults[0]).startswith("a.parquet, row 701: content of message 2")
    for i in (1499, 3, 599, 600, 256, 1199):
        assert rows[i].value.messages[1]["content"] == f"A{i}"  # type: ignore[union-attr]
    raw = bytearray((tmp_path / "a.parquet").read_bytes())
    middle = pq.ParquetFile(tmp_path / "a.parquet").metadata.row_group(1).column(0).data_page_offset
    raw[middle : middle + 40] = b"\xff" * 40
    (tmp_path / "b.parquet").write_bytes(raw)
    broken = open_rows(tmp_path / "b.parquet")
    assert {row.number for row in broken} >= {*range(600), *range(1200, 1500)} and broken.n_bad
    (tmp_path / "c.parquet").write_bytes(b"PAR1" + bytes(40))
    with pytest.raises(RecipeError, match="cannot be read as Parquet"):
        open_rows(tmp_path / "c.parquet")


def test_classes_of_hosted_parquet_have_names(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    features = {"info": {"features": {"label": {"names": ["no", "yes"], "_type": "ClassLabel"}}}}
    table = pa.table({"text": ["a", "b", "c"], "label": [0, 1, 7]})
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(features)}), tmp_path / "a.parquet")
    rows = open_rows(tmp_path / "a.parquet")
    assert [row.value.label for row in rows] == ["no", "yes", "7"]  # type: ignore[union-attr]


def test_deep_long_and_strange_lines_are_bad_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MAX_LINE", 300_000)
    path = tmp_path / "a.jsonl"
    bad: list[Any] = ["[" * 100_000, '{"text": "' + "x" * 300_000 + '"}', b"\xff\xfe", "[1]", "3", '{"text": NaN}']
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in ['{"text": "a"}', *bad]))
    rows = open_rows(path)
    assert texts(rows) == ["a"]
    whys = [fault.message for fault in rows.faults]
    wanted = ["nested too deep", "300,013 bytes", "not text in UTF-8", "holds a list", "holds a number", "is a number"]
    assert len(whys) == len(wanted) and all(want in why for want, why in zip(wanted, whys, strict=True)), whys


def test_files_that_are_none_are_told(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="does not exist"):
        open_rows(tmp_path / "a.jsonl")
    (tmp_path / "a.docx").write_text("x")
    with pytest.raises(RecipeError, match="ends in '.docx'"):
        open_rows(tmp_path / "a.docx")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "b.jsonl")
        with pytest.raises(RecipeError, match="no regular file"):
            open_rows(tmp_path / "b.jsonl")


def test_a_row_of_many_is_found_without_holding_the_file(tmp_path: Path) -> None:
    """A hundred thousand rows cost eight bytes each; the one bad row is named."""
    path = tmp_path / "a.jsonl"
    with path.open("w") as file:
        for i in range(100_000):
            file.write(f'{{"text": "row {i}"}}\n' if i != 76_543 else '{"text": "row\n')
    rows = open_rows(path)
    index: Any = rows._store
    assert index.starts.itemsize * len(index.starts) == 800_000 and not len(index.blanks)
    with pytest.raises(RowFault, match="a.jsonl, line 76544: is not JSON"):
        rows[76_543]
    assert rows[99_999].value == Text("row 99999")


def test_the_fingerprint_is_that_of_the_bytes(tmp_path: Path) -> None:
    import hashlib

    raw = b'{"text": "a"}\n'
    (tmp_path / "a.jsonl").write_bytes(raw)
    assert open_rows(tmp_path / "a.jsonl").fingerprint == hashlib.sha256(raw).hexdigest()
    one, two = ([{"text": "a", "more": struct.pack("d", x)}] for x in (1, 2))
    assert open_rows(one).fingerprint != open_rows(two).fingerprint == open_rows(two).fingerprint


def test_what_does_not_fit_unpacked_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a"}\n' * 1000))
    monkeypatch.setattr(store, "KEPT_FREE", 2**60)
    with pytest.raises(RecipeError, match="does not fit unpacked .* set TMPDIR"):
        open_rows(tmp_path / "a.jsonl.gz")


def test_rows_are_read_by_many_threads(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    table = pa.table({"text": [f"row {i}" for i in range(3000)]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=1000)
    (tmp_path / "a.jsonl").write_text("".join(f'{{"text": "row {i}"}}\n' for i in range(3000)))
    numbers = random.Random(2).sample(range(3000), 600)
    for name in ("a.parquet", "a.jsonl"):
        rows = open_rows(tmp_path / name)
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(lambda i, rows=rows: rows[i].value.text, numbers)) == [f"row {i}" for i in numbers]
