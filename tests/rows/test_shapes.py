"""Each shape that people have is found out by looking, and read as what it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from brolly.errors import RecipeError
from brolly.rows import (
    Completion,
    Conversation,
    Judged,
    Labelled,
    Pair,
    Preference,
    Prompted,
    RowFault,
    Text,
    Value,
    open_rows,
)

USER, YES, NO = (
    {"role": role, "content": text} for role, text in (("user", "Q"), ("assistant", "A"), ("assistant", "B"))
)
TOOL = {"type": "function", "function": {"name": "look", "parameters": {}}}
CALLED = {"name": "look", "arguments": {"at": 1}}
CALLS = [{"type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}]
CALL = {"role": "assistant", "content": None, "tool_calls": CALLS}
HUMAN, GPT = {"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}

SHAPES: list[tuple[str, Mapping[str, Any], Value]] = [
    ("text", {"text": "a"}, Text("a")),
    ("text", {"content": "a", "id": 3}, Text("a")),
    ("completion", {"prompt": "Q", "completion": "A"}, Completion("Q", "A")),
    ("completion", {"input": "Q", "output": "A"}, Completion("Q", "A")),
    ("completion", {"question": "Q", "answer": "A"}, Completion("Q", "A")),
    ("completion", {"instruction": "Q", "response": "A"}, Completion("Q", "A")),
    ("completion", {"instruction": "Q", "input": "", "output": "A"}, Completion("Q", "A")),
    ("completion", {"instruction": "Q", "input": "x", "output": "A"}, Completion("Q\n\nx", "A")),
    ("completion", {"prompt": [USER], "completion": [YES]}, Conversation((USER, YES))),
    ("completion", {"prompt": "Q", "completion": '[{"item": "A"}]'}, Completion("Q", '[{"item": "A"}]')),
    ("completion", {"prompt": "[1, 2]", "completion": '{"role": "user"}'}, Completion("[1, 2]", '{"role": "user"}')),
    ("completion", {"prompt": json.dumps([USER]), "completion": "A"}, Conversation((USER, YES))),
    ("chat", {"messages": [USER, YES]}, Conversation((USER, YES))),
    ("chat", {"messages": [USER, {**YES, "weight": 0}, YES], "tools": [TOOL]},
     Conversation((USER, {**YES, "weight": 0}, YES), (TOOL,))),
    ("chat", {"messages": json.dumps([USER, YES]), "prompt": "Q"}, Conversation((USER, YES))),
    ("chat", {"messages": [{**USER, "content": [{"type": "text", "text": "Q"}]}, YES]}, Conversation((USER, YES))),
    ("chat", {"conversations": [HUMAN, GPT]}, Conversation((USER, YES))),
    ("chat", {"system": "S", "conversations": [HUMAN, {"from": "function_call", "value": json.dumps(CALLED)},
                                               {"from": "observation", "value": "seen"}, GPT]},
     Conversation(({"role": "system", "content": "S"}, USER, CALL, {"role": "tool", "content": "seen"}, YES))),
    ("preference", {"input": {"messages": [USER]}, "preferred_output": [YES], "non_preferred_output": [NO]},
     Preference((USER,), (YES,), (NO,))),
    ("preference", {"prompt": "Q", "chosen": "A", "rejected": "B"}, Preference("Q", "A", "B")),
    ("preference", {"prompt": [USER], "chosen": [YES], "rejected": [NO]}, Preference((USER,), (YES,), (NO,))),
    ("preference", {"prompt": "Q", "chosen": [USER, YES], "rejected": [USER, NO]}, Preference((USER,), (YES,), (NO,))),
    ("preference", {"chosen": [USER, YES], "rejected": [USER, NO]}, Preference((USER,), (YES,), (NO,))),
    ("preference", {"chosen": "Q? A", "rejected": "Q? B"}, Preference("Q?", " A", " B")),
    ("judged", {"prompt": "Q", "completion": "A", "label": False}, Judged("Q", "A", False)),
    ("judged", {"prompt": "Q", "completion": "A", "label": 1}, Judged("Q", "A", True)),
    ("judged", {"prompt": [USER], "completion": [YES], "label": "true"}, Judged((USER,), (YES,), True)),
    ("prompted", {"prompt": "Q", "truth": 3}, Prompted("Q")),
    ("pair", {"query": "Q", "positive": "A"}, Pair("Q", "A")),
    ("pair", {"anchor": "Q", "positive": "A", "negative": "B"}, Pair("Q", "A", ("B",))),
    ("pair", {"query": "Q", "document": "A", "negatives": ["B", "C"]}, Pair("Q", "A", ("B", "C"))),
    ("pair", {"query": "Q", "document": "[1]", "negatives": '["B", "C"]'}, Pair("Q", "[1]", ("B", "C"))),
    ("pair", {"query": "Q", "pos": ["A", "D"], "neg": ["B"]}, Pair("Q", "A", ("B",), ("D",))),
    ("pair", {"query": "Q", "positive": "A", "negative_10": "C", "negative_2": "B"}, Pair("Q", "A", ("B", "C"))),
    ("label", {"text": "a", "label": 3}, Labelled("a", "3")),
    ("label", {"sentence": "a", "label": "good"}, Labelled("a", "good")),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "row", "value"), SHAPES, ids=lambda x: x if isinstance(x, str) else "")
def test_a_shape_is_found_by_its_columns(shape: str, row: Mapping[str, Any], value: Value) -> None:
    rows = open_rows([row, row])
    assert (rows.shape, rows[1].value) == (shape, value)
    assert rows[1].fields == row


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"prompt": "Q"}, "has no 'completion'"),
        ({"prompt": "Q", "completion": None}, "has no 'completion'"),
        ({"prompt": "Q", "completion": " \n"}, "'completion' is empty"),
        ({"prompt": "", "completion": "A"}, "'prompt' is empty"),
        ({"prompt": 3, "completion": "A"}, "'prompt' is a number, not a text"),
        ({"prompt": ["Q"], "completion": "A"}, "'prompt' is a list, not a text"),
        ({"prompt": "Q", "completion": "\ud800"}, "half of a character"),
        ([1], "is a list, not a dict"),
    ],
)
def test_a_bad_row_is_told_and_stops_no_other(row: Any, why: str) -> None:
    good = {"prompt": "Q", "completion": "A"}
    rows = open_rows([good, row, good])
    assert [r.number for r in rows] == [0, 2]
    assert len(rows.faults) == rows.n_bad == 1 and why in rows.faults[0].message and rows.faults[0].where == "row 2"
    with pytest.raises(RowFault, match="row 2"):
        rows[1]
    assert rows.n_bad == 1 and [r.number for r in rows.only([0, 1])] == [0]


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([], "holds no messages"),
        ("hello", "is a text, not a list"),
        ([3], "message 1 of 'messages' is a number"),
        ([USER], "no assistant's message"),
        ([USER, {**YES, "weight": 0}], "no assistant's message"),
        ([USER, {**YES, "weight": 2}], "the weight '2'"),
        ([USER, {**YES, "weight": True}], "the weight 'True'"),
        ([{"role": "boss", "content": "Q"}, YES], "the role 'boss'"),
        ([{"role": ["user"], "content": "Q"}, YES], "the role"),
        ([USER, {"role": "assistant", "content": ""}], "is empty"),
        ([USER, {"role": "assistant"}], "has no content"),
        ([USER, {"role": "assistant", "tool_calls": "look"}], "tool_calls"),
        ([{"role": "user", "content": [{"type": "image_url"}]}, YES], "'image_url'"),
        ([USER, {"role": "assistant", "content": 3}], "is a number"),
    ],
)
def test_a_bad_conversation_is_told(messages: Any, why: str) -> None:
    rows = open_rows([{"messages": [USER, YES]}, {"messages": messages}])
    list(rows)
    assert [why in fault.message for fault in rows.faults] == [True], rows.faults


def test_what_is_ambiguous_is_one_error_with_the_choices() -> None:
    row = {"messages": [USER, YES], "prompt": "Q", "chosen": "A", "rejected": "B"}
    with pytest.raises(RecipeError, match=r"chat \(messages\).*by shape|preference.*chat.*by shape"):
        open_rows([row])
    assert open_rows([row], shape="chat").shape == "chat"
    both = {"question": "Q", "answer": "A", "source": "S", "target": "T"}
    with pytest.raises(RecipeError, match="prompt from 'question'.*prompt from 'source'.*by columns"):
        open_rows([both])
    assert open_rows([both], columns={"prompt": "source"})[0].value == Completion("S", "T")


def test_columns_may_have_any_name_where_they_are_said() -> None:
    rows = open_rows([{"q": "Q", "a": "A"}], columns={"prompt": "q", "completion": "a"})
    assert rows[0].value == Completion("Q", "A") and rows.columns == {"prompt": "q", "completion": "a"}
    with pytest.raises(RecipeError, match="no column 'b'; it has 'a', 'q'"):
        open_rows([{"q": "Q", "a": "A"}], columns={"prompt": "q", "completion": "b"})
    with pytest.raises(RecipeError, match="columns names 'promt'"):
        open_rows([{"q": "Q", "a": "A"}], columns={"promt": "q"})
    with pytest.raises(RecipeError, match="'tales' is no shape"):
        open_rows([{"q": "Q"}], shape="tales")
    with pytest.raises(RecipeError, match="has the columns 'a', 'q'; expected those of the shape 'chat'"):
        open_rows([{"q": "Q", "a": "A"}], shape="chat")


def test_a_column_that_few_rows_have_does_not_decide() -> None:
    rows = open_rows([{"text": "a"}, {"text": "b"}, {"text": "c", "label": "x"}])
    assert rows.shape == "text"
    rows = open_rows([*[{"messages": [USER, YES]}] * 3, {"messages": [USER, YES], "tools": [TOOL]}])
    assert rows[3].value == Conversation((USER, YES), (TOOL,)) and rows.columns["tools"] == "tools"


def test_nothing_and_nothing_good_are_errors(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n \n")
    with pytest.raises(RecipeError, match="holds no rows"):
        open_rows(tmp_path / "empty.jsonl")
    (tmp_path / "bad.jsonl").write_text("one\ntwo\n")
    with pytest.raises(RecipeError, match="none of the first 2 rows.*line 1: is not JSON"):
        open_rows(tmp_path / "bad.jsonl")
    rows = open_rows([{"text": ""}, {"text": " "}])
    with pytest.raises(RecipeError, match="all 2 rows.*'text' is empty"):
        list(rows)
