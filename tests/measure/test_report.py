"""Rows' answers are written as they come and gone on with; tables and pictures tell what was measured."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from brolly.errors import CheckpointError, OptionError
from brolly.measure import Report, compare, measuring
from brolly.measure.intervals import Measured, Ratio
from brolly.measure.plot import ceiling, picture
from brolly.measure.report import Record, comparison, read_log, table
from brolly.rows import open_rows

ROWS = [{"text": f"row {i}"} for i in range(6)] + [{"text": ""}]


class Judge:
    """Scores a row by its number; stops at `end` as a kill would."""

    statistics = (Ratio("accuracy", "hit"), Ratio("perplexity", "nll", better="lower"))

    def __init__(self, end: int = 99, shift: float = 0.0) -> None:
        self.end, self.shift, self.seen = end, shift, list[int]()
        self.notes = ["as a test"]

    def records(self, rows: Iterator[Any]) -> Iterator[Record]:
        for row in rows:
            if row.number == self.end:
                raise KeyboardInterrupt
            self.seen.append(row.number)
            if row.number == 4:
                yield Record(4, row.where, error="too\x1b[31m long")
            else:
                yield Record(
                    row.number, row.where, "x", "y", {"hit": float(row.number % 2), "nll": row.number + self.shift}
                )


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch) -> Any:
    class Header:
        path, n_params = "some/model", 7

    class Fake:
        class card:
            header = Header

    def call(judge: Judge, **options: Any) -> Report:
        monkeypatch.setattr(measuring, "choose", lambda *_: judge)
        return measuring.evaluate(Fake, open_rows(ROWS), **options)  # type: ignore[arg-type]

    return call


def test_what_was_stopped_goes_on(measure: Any, tmp_path: Path) -> None:
    whole = measure(Judge())
    first, rest = Judge(end=3), Judge()
    with pytest.raises(KeyboardInterrupt):
        measure(first, out=tmp_path)
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write('{"row": 3, "where": "row 4", "sco')  # what a kill leaves
    with pytest.raises(OptionError, match="is there already; go on with it by --resume"):
        measure(Judge(), out=tmp_path)
    with pytest.raises(OptionError, match=r"was measured otherwise \(normalize\)"):
        measure(Judge(), out=tmp_path, resume=True, normalize="english")
    report = measure(rest, out=tmp_path, resume=True)
    assert (first.seen, rest.seen) == ([0, 1, 2], [3, 4, 5])
    assert report == whole and report.scores == whole.scores
    assert [record.row for record in read_log(tmp_path / "rows.jsonl")] == [0, 1, 2, 3, 4, 5]
    again = Judge()
    assert measure(again, out=tmp_path, resume=True) == whole and again.seen == []


def test_a_folder_that_cannot_be_written_is_told(measure: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        measure(Judge(), out=tmp_path / "file")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a").write_text("")
    with pytest.raises(OptionError, match="holds no rows.jsonl to go on with"):
        measure(Judge(), out=tmp_path / "other", resume=True)


def test_a_log_is_hostile_input(tmp_path: Path) -> None:
    lines = [
        "[" * 5000,
        "3",
        '{"row": "a", "where": "x"}',
        '{"row": 1, "where": "x", "scores": 3}',
        '{"row": 2, "more": 1}',
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join([*lines, '{"row": 5, "where": "x", "scores": {"hit": 1}}', ""]))
    assert [record.row for record in read_log(tmp_path / "rows.jsonl")] == [5]


def test_a_table_tells_values_intervals_and_what_failed(measure: Any) -> None:
    text = table(measure(Judge()))
    assert "accuracy     0.6000   0.2307 to 0.8824" in text and "\x1b" not in text
    assert "bad rows, which were left out: 1" in text and "row 5: too\ufffd[31m long" in text and "as a test" in text
    report = measure(Judge())
    assert report["accuracy"].n == 5 and report.n_rows == 6 and (report.n_bad, report.n_failed) == (1, 1)
    with pytest.raises(KeyError, match="accuracy, perplexity"):
        report["WER"]
    assert json.loads(json.dumps(report.as_json()))["measures"][0]["name"] == "accuracy"


def test_a_comparison_tells_which_is_better(measure: Any) -> None:
    a, b = measure(Judge()), measure(Judge(shift=-0.5))
    found = compare(a, b)
    assert [one.better for one in found] == ["", ""]  # of five rows
    text = comparison(a, b, [found[0], replace(found[1], better="b")])
    assert "perplexity   2.2000   1.7000   -0.5000   -0.5000 to -0.5000      5   B is better" in text
    assert "no difference shown" in text


def test_a_picture_is_well_formed_and_holds_every_measure(measure: Any) -> None:
    a, b = measure(Judge()), measure(Judge(shift=-0.5))
    for reports, found in (([a], ()), ([a, b], compare(a, b))):
        root = ElementTree.fromstring(picture(reports, found))
        told = "".join(root.itertext())
        assert "accuracy" in told and "perplexity" in told and "some/model" in told
        assert len(root.findall("{*}circle")) == 3 * len(reports)
    strange = Report("a\x00<b>&", "c" * 300, "text", 1, 0, 0, (Measured("x<", 1e300, float("inf"), 0, 1, "lower"),))
    assert ElementTree.fromstring(picture([strange])) is not None
    assert [ceiling(x) for x in (0, 0.3, 1, 7, 20, 23)] == [1, 0.5, 1, 10, 20, 50]
