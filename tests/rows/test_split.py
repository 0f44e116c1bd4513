"""What is held out, what it shares with the rest, and what a person sees of the rows."""

from __future__ import annotations

import random

import pytest

from brolly.errors import OptionError
from brolly.rows import held_out, open_rows, overlap, preview

WORDS = [f"w{i}" for i in range(5000)]


def test_equal_inputs_are_on_one_side() -> None:
    rows = open_rows(
        [{"prompt": f"Q{i % 100}", "completion": f"A{i}"} for i in range(400)] + [{"prompt": "", "completion": "A"}]
    )
    train, held = held_out(rows, 0.1)
    assert sorted(train + held) == list(range(400)) and 40 <= len(held) < 48
    assert not {i % 100 for i in train} & {i % 100 for i in held}
    assert held_out(rows, 0.1) == (train, held)


def test_an_added_row_moves_few_others() -> None:
    data = [{"text": f"text {i}"} for i in range(1000)]
    _, before = held_out(open_rows(data), 0.1)
    _, after = held_out(open_rows([*data, {"text": "one more"}]), 0.1)
    assert len(set(before) ^ set(after)) <= 2 and len(before) == 100


@pytest.mark.parametrize(
    ("n", "share", "most", "held"), [(10, 0.01, 500, 1), (1000, 0.9, 50, 50), (10, 0, 500, 0), (1, 0.5, 500, 0)]
)
def test_how_many_are_held_out(n: int, share: float, most: int, held: int) -> None:
    rows = open_rows([{"text": f"text {i}"} for i in range(n)])
    train, found = held_out(rows, share, most)
    assert len(found) == held and len(train) == n - held


def test_one_input_for_all_is_never_held_out_whole() -> None:
    rows = open_rows([{"prompt": "Q", "completion": f"A{i}"} for i in range(10)])
    assert held_out(rows, 0.5) == (list(range(10)), [])
    with pytest.raises(OptionError, match="share held out is 1"):
        held_out(rows, 1)


def test_shared_runs_of_words_are_found() -> None:
    draw = random.Random(3)
    texts = [" ".join(draw.choices(WORDS, k=60)) for _ in range(40)]
    held = texts[:10]
    train = texts[10:]
    train[3] += " And " + " ".join(held[2].split()[20:33]).upper().replace(" ", ", ")  # 13 words: found
    train[4] += " " + " ".join(held[5].split()[20:32])  # 12: not
    held += ["Seven words that are found within another", "Yes.", "Never seen, of six words only"]
    train += [f"He said: seven words that are found, within another! {texts[39]}", "yes", "no"]
    found = overlap(open_rows([{"text": t} for t in train]), open_rows([{"text": t} for t in held]))
    assert set(found.rows) == {2, 10, 11} and found.share == pytest.approx(3 / 13)
    assert found.rows[2] == pytest.approx(1 / 48) and found.rows[10] == 1
    assert "3 of 13 held rows (23.1%)" in str(found)


def test_a_template_is_no_overlap() -> None:
    form = "Classify the following review as positive or negative and answer with one word only please: "
    train = open_rows([{"prompt": f"{form} a{i} b{i} c{i}", "completion": "good"} for i in range(50)])
    held = open_rows([{"prompt": f"{form} d{i} e{i} f{i}", "completion": "good"} for i in range(40)])
    assert overlap(train, held).share == 0
    assert overlap(train, train).share == 1
    assert str(overlap(train, held)).startswith("none of 40")


def test_a_preview_tells_what_will_be_learnt() -> None:
    rows = open_rows(
        [{"prompt": "a\x1b[31mred\nline", "completion": "b" * 500, "id": 1}, {"prompt": "x", "completion": "", "id": 2}]
        + [{"prompt": f"p{i}", "completion": "c", "id": 3} for i in range(9)]
    )
    text = preview(rows)
    assert "11 rows of the shape 'completion'" in text and "'id'" in text and "row 2: 'completion' is empty" in text
    assert "a\ufffd[31mred\u23celine" in text and "\x1b" not in text and "bbb\u2026" in text
    assert text.count("completion    ") == 3 and max(map(len, text.splitlines())) <= 100
    assert "good          10" in text and "bad           1" in text


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A", "weight": 0},
                       {"role": "assistant", "content": "B"}], "tools": [{}]}, ["(not learnt)", "tools         1"]),
        ({"prompt": "Q", "chosen": "A", "rejected": "B"}, ["chosen        A", "rejected      B"]),
        ({"prompt": "Q", "completion": "A", "label": False}, ["bad           A"]),
        ({"query": "Q", "positive": "A", "negative": "B"}, ["negative      B"]),
        ({"audio": b"RIFF", "text": "A", "language": "de"}, ["audio         4 bytes", "language      de"]),
        ({"image": b"\xff\xd8", "label": "A"}, ["input         2 bytes", "label         A"]),
    ],
)  # fmt: skip
def test_a_preview_shows_every_shape(row: dict, words: list[str]) -> None:
    text = preview(open_rows([row]))
    assert all(word in text for word in words), text
