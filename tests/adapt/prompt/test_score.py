"""Measures and intervals: what they say of known numbers, and what nobody may conclude from too few."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from brolly import Prompt
from brolly.adapt.prompt.prompt import Result
from brolly.adapt.prompt.score import (
    cases_of,
    difference,
    exact,
    fields,
    interval,
    measure_of,
    scored,
    told,
    verdict,
)
from brolly.errors import OptionError


def test_exact_counts_runs_of_blanks_as_one() -> None:
    assert exact("a  b\n", "a b") == 1 and exact("a", "A") == 0 and exact({"x": 1}, {"x": 1.0}) == 1


def test_fields_are_counted_at_any_depth() -> None:
    expected = {"a": 1, "b": {"c": ["x", "y"]}, "d": []}
    assert fields(expected, expected) == 1
    assert fields(expected, {"a": 1, "b": {"c": ["x", "z"]}, "d": []}) == 0.75
    assert fields(expected, "text") == 0 and fields("a", "a") == 1
    assert fields({"a": 1}, {"a": True}) == 0


def test_a_paired_difference_leaves_out_what_is_hard_for_both() -> None:
    hard = [float(i % 2) for i in range(40)]
    better = [1.0 if i < 8 else h for i, h in enumerate(hard)]
    found = difference(better, hard)
    assert found.value == pytest.approx(0.1) and found.low > 0 and verdict(found) == "better"
    assert verdict(difference(hard, better)) == "worse"
    assert interval(better).low < interval(hard).high, "apart, the two overlap"


def test_nothing_is_better_where_the_interval_holds_zero() -> None:
    found = difference([1.0] * 21 + [0.0] * 19, [0.0] * 20 + [1.0] * 20)
    assert found.value > 0 and found.low <= 0 <= found.high and verdict(found) == "no difference shown"
    assert verdict(difference([1.0] * 9, [0.0] * 9)) == "too few rows to tell"
    assert verdict(difference([1.0] * 20, [1.0] * 20)) == "no difference shown"


def test_a_mean_lies_within_its_interval() -> None:
    draws = random.Random(3)
    hits = 0
    for turn in range(25):
        found = interval([draws.gauss(2, 1) for _ in range(60)], seed=turn)
        assert found.low <= found.value <= found.high and found.n == 60
        hits += found.low <= 2 <= found.high
    assert 20 <= hits <= 25
    assert told(interval([1.0, 0.0, 1.0, 1.0])) == "0.750 (0.301 to 0.954, 4 rows)"  # Wilson's for 3 of 4
    assert interval([]).n == 0


def test_a_function_of_a_file_measures(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def near(expected, got):\n    return 1 - abs(expected - got) / 10\n")
    prompt = Prompt("x", int)
    name, measure = measure_of(f"{tmp_path / 'mine.py'}:near", prompt)
    assert name == "near" and scored(measure, 5, Result(1, 3)) == pytest.approx(0.8)
    assert scored(measure, 5, Result(1, error=OptionError("x"))) == 0
    with pytest.raises(OptionError, match="measure failed"):
        scored(measure, 5, Result(1, "three"))
    for wrong in ("nothing", f"{tmp_path / 'mine.py'}:far", f"{tmp_path / 'none.py'}:near"):
        with pytest.raises(OptionError, match="measure"):
            measure_of(wrong, prompt)
    assert measure_of(None, prompt)[0] == "exact" and measure_of(None, Prompt("x", {"type": "object"}))[0] == "fields"


def test_right_answers_are_read_by_the_prompts_shape() -> None:
    assert [c.expected for c in cases_of(Prompt("x", int), [{"text": "a", "answer": "12"}])] == [12]
    assert cases_of(Prompt("x", {"type": "object"}), [{"text": "a", "answer": '{"b": 1}'}])[0].expected == {"b": 1}
    with pytest.raises(OptionError, match="row 2: 'maybe' is no answer"):
        cases_of(Prompt("x", ["yes"]), [{"text": "a", "answer": "yes"}, {"text": "b", "answer": "maybe"}])
    with pytest.raises(OptionError, match="row 1 has text; expected 'answer'"):
        cases_of(Prompt("x"), [{"text": "a"}])
