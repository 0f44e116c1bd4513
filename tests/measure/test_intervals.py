"""Values and intervals are those of scipy and scikit-learn, and the same every time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from brolly.measure.intervals import Auc, MacroF1, Ratio, differences, draws, measured, wilson

RANDOM = np.random.default_rng(5)


@pytest.mark.parametrize(("k", "n"), [(0, 7), (7, 7), (3, 10), (450, 500), (1, 1)])
def test_shares_have_wilsons_interval(k: int, n: int) -> None:
    from scipy.stats import binomtest

    wanted = binomtest(k, n).proportion_ci(0.95, "wilson")
    assert wilson(k, n) == pytest.approx((wanted.low, wanted.high), abs=1e-12)
    (found,) = measured([Ratio("accuracy", "hit")], [{"hit": float(i < k)} for i in range(n)])
    assert (found.value, found.low, found.high, found.n) == (k / n, *wilson(k, n), n)


def test_rates_have_the_bootstraps_interval() -> None:
    from scipy.stats import bootstrap

    edits, words = RANDOM.poisson(2, 300), RANDOM.integers(5, 40, 300)
    rows = [{"edits": float(e), "words": int(w)} for e, w in zip(edits, words, strict=True)]
    (found,) = measured([Ratio("WER", "edits", "words", "lower")], rows)
    assert found.value == pytest.approx(edits.sum() / words.sum())
    other = bootstrap(
        (edits, words), lambda e, w, axis: e.sum(axis) / w.sum(axis), paired=True, method="percentile",
        rng=np.random.default_rng(1), n_resamples=2000,
    ).confidence_interval  # fmt: skip
    width = other.high - other.low
    assert abs(found.low - other.low) < 0.1 * width and abs(found.high - other.high) < 0.1 * width
    assert measured([Ratio("WER", "edits", "words", "lower")], rows) == [found]
    assert measured([Ratio("WER", "edits", "words", "lower")], rows, seed=1) != [found]


def test_perplexity_weighs_tokens_and_not_rows() -> None:
    rows = [{"nll": 2.0, "tokens": 1}, {"nll": 9.0, "tokens": 9}]
    (found,) = measured([Ratio("perplexity", "nll", "tokens", "lower", np.exp)], rows)
    assert found.value == pytest.approx(math.exp(11 / 10)) and found.low == pytest.approx(math.exp(1))
    assert found.high == pytest.approx(math.exp(2)) and not found.bounded


def repeated(rows: list[Any], counts: Any) -> list[Any]:
    return [row for row, n in zip(rows, counts, strict=True) for _ in range(int(n))]


def test_macro_f1_is_scikit_learns() -> None:
    from sklearn.metrics import f1_score

    true, said = RANDOM.choice(["a", "b", "c"], 60, p=[0.7, 0.2, 0.1]), RANDOM.choice(["a", "b", "c", "d"], 60)
    rows: list[Any] = [{"class": str(t), "said": str(s)} for t, s in zip(true, said, strict=True)]
    weighted = MacroF1().of([{}, *rows])
    counts = np.concatenate([np.ones((1, 61)), next(draws(61, 3))[:20]])
    for drawn, value in zip(counts, weighted(counts), strict=True):
        kept = repeated(rows, drawn[1:])
        own = [row["class"] for row in kept], [row["said"] for row in kept]
        wanted = f1_score(*own, labels=sorted(set(own[0])), average="macro", zero_division=0)
        assert value == pytest.approx(wanted, abs=1e-12)
    assert weighted.n == 60


def test_the_area_under_the_curve_is_scikit_learns() -> None:
    from sklearn.metrics import roc_auc_score

    rows: list[Any] = [{"mean": float(RANDOM.integers(0, 6)), "good": int(RANDOM.random() < 0.4)} for _ in range(50)]
    weighted = Auc("auc", "mean").of(rows)
    counts = np.concatenate([np.ones((1, 50)), next(draws(50, 3))[:20]])
    for drawn, value in zip(counts, weighted(counts), strict=True):
        kept = repeated(rows, drawn)
        assert value == pytest.approx(roc_auc_score([r["good"] for r in kept], [r["mean"] for r in kept]), abs=1e-12)
    one_sided = Auc("auc", "mean").of([{"mean": 1.0, "good": 1}])
    assert math.isnan(one_sided(np.ones((1, 1)))[0])


def test_a_difference_is_paired() -> None:
    hard = RANDOM.random(400)  # rows are hard or easy for both: a paired interval sees past that
    a = [{"hit": float(x < 0.5)} for x in hard]
    b = [{"hit": float(x < 0.54)} for x in hard]
    (found,) = differences([Ratio("accuracy", "hit")], a, b)
    assert found.better == "b" and found.value == pytest.approx(found.b - found.a) and found.low > 0
    apart = [one[0] for one in (measured([Ratio("accuracy", "hit")], rows) for rows in (a, b))]
    assert apart[0].high > apart[1].low
    (worse,) = differences([Ratio("loss", "hit", better="lower")], a, b)
    assert worse.better == "a"
    (same,) = differences([Ratio("accuracy", "hit")], a, a)
    assert (same.value, same.low, same.high, same.better) == (0, 0, 0, "")


def test_rows_without_a_score_do_not_count() -> None:
    found = measured([Ratio("x", "x"), Ratio("none", "none")], [{"x": 0.5}, {}, {"x": 0.7}])
    assert [(one.name, one.value, one.n) for one in found] == [("x", pytest.approx(0.6), 2)]


@pytest.mark.parametrize(("n", "sure"), [(1, ""), (5, ""), (6, "b")])
def test_a_few_rows_tell_no_better(n: int, sure: str) -> None:
    a, b = ([{"hit": x}] * n for x in (0.0, 1.0))
    (found,) = differences([Ratio("accuracy", "hit")], a, b)
    assert found.better == sure
