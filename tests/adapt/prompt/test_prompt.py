"""A prompt: its file, its hash, its variables, how its answers are typed, and what is refused."""

from __future__ import annotations

import enum
import json
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brolly import Prompt
from brolly.adapt.prompt import Answer, Example, Select, Variable
from brolly.adapt.prompt.file import literal, written
from brolly.adapt.prompt.starter import KINDS, starter
from brolly.errors import BrollyError, NotFound, OptionError, RecipeError, TemplateError
from tests.adapt.prompt import models


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Thing:
    colour: Colour
    parts: list[int]
    size: float | None = None


@dataclass
class Scene:
    place: Literal["house", "wood"]
    thing: Thing


# The file ------------------------------------------------------------------------------------------------------------


def test_a_prompt_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    prompt = Prompt(
        'Two lines\nwith """quotes""", \\ and \t a tab', ["a b", 'c"'],
        {"x": {"type": "integer", "default": 0}, "y": {"type": "text", "choice": ["p", "q"]},
         "z": {"type": "boolean", "default": False}},
        [{"x": 3, "y": "p", "z": True, "answer": "a b"}], "{x}: {y} {{}} {z}", {"max_tokens": 7, "stop": ["\n", "é"]},
        Select(2, "nearest", "mini-embed"), "n", tries={"instructions": ["one", "two\nlines"]}, version=3,
        history=[{"version": 2, "difference": [0.5, -1.0, 2]}], model="m",
    )  # fmt: skip # noqa: E501
    prompt.save(tmp_path / "p.toml")
    again = Prompt.load(tmp_path / "p.toml")
    assert again == prompt and again.hash == prompt.hash and again.id == prompt.id
    again.save(tmp_path / "q.toml")
    assert (tmp_path / "q.toml").read_text() == (tmp_path / "p.toml").read_text()


def values() -> st.SearchStrategy[Any]:
    text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
    one = st.one_of(text, st.sampled_from(['"""', '""', '\\"', '"\n"', 'a"\n']), st.booleans(), st.integers(-(2**60), 2**60), st.floats(allow_nan=False))  # fmt: skip # noqa: E501
    return st.recursive(one, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3), max_leaves=8)  # fmt: skip # noqa: E501


@settings(max_examples=50, deadline=None)
@given(values())
def test_what_is_written_is_what_toml_reads(value: Any) -> None:
    assert tomllib.loads(f"x = {literal(value)}") == {"x": value}
    assert tomllib.loads(written({"t": {"x": value}, "l": [{"x": value}]})) == {"t": {"x": value}, "l": [{"x": value}]}


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_file_is_a_prompt(kind: str, tmp_path: Path) -> None:
    name = 'a "new"\n{one}'
    (tmp_path / "new.toml").write_text(starter(kind, name, name))
    prompt = Prompt.load(tmp_path / "new.toml")
    assert prompt.kind == kind and prompt.name == name and prompt.model and prompt.answer.choice


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("instructions = 3", "expected a text"),
        ("instruction = 'x'", "says 'instruction'"),
        ("[answer]\nchoices = ['a']", "says 'choices'"),
        ("answer = 'x'", r"expected a table, \[answer\]"),
        ("x = ", "no TOML"),
        ("[answer]\nchoice = ['a']\nregex = 'b'", "both say"),
        ("[answer]\nchoice = ['a', 'a']", "twice"),
        ("[answer]\nschema = '../x.json'", "own folder"),
        ("[answer]\nschema = 'x.json'", "cannot be read"),
        ("[answer]\nname = 'row'", "another name"),
        ("input = '{a'", "lone {"),
        ("input = '{b}'\n[variables]\na = 'text'", "no variable"),
        ("[variables]\na = 'word'", "expected one of text"),
        ("[variables]\nanswer = 'text'", "names a variable and the answer"),
        ("[options]\nregex = 'a'", "shape of the answer"),
        ("[options]\ntemperature = -1", "between 0 and 100"),
        ("[select]\nby = 'luck'", "fixed or nearest"),
        ("[[examples]]\ntext = 'a'", "'answer' in it"),
        ("[answer]\nchoice = ['a']\n[[examples]]\ntext = 'a'\nanswer = 'b'", "no answer"),
        ("kind = 'classify'", "choice"),
        ("templates = ['{}']", "classify"),
        ("[tune]\ninstructions = 'abc'", "a list of texts"),
        ("[tune]\ntemplates = ['abc']", "a list of lists"),
        ("variables = 3", "expected a table"),
        ("examples = [3]", "expected tables"),
    ],
)
def test_a_wrong_file_is_told_with_its_name(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(text)
    with pytest.raises(RecipeError, match=says) as error:
        Prompt.load(tmp_path / "p.toml")
    assert "p.toml" in str(error.value)


KEYS = ["name", "kind", "model", "version", "instructions", "input", "templates", "variables", "answer", "examples",
        "options", "select", "tune", "history", "choice", "schema", "regex", "type", "most", "by"]  # fmt: skip


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=st.dictionaries(st.sampled_from(KEYS), values() | st.dictionaries(st.sampled_from(KEYS), values(), max_size=3), max_size=4))  # fmt: skip # noqa: E501
def test_a_file_of_anything_is_a_prompt_or_one_of_our_errors(table: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(written(table), encoding="utf-8")
    try:
        prompt = Prompt.load(tmp_path / "p.toml")
    except BrollyError:
        return
    prompt.save(tmp_path / "q.toml")
    assert Prompt.load(tmp_path / "q.toml").hash == prompt.hash


def test_a_file_that_is_not_there_is_told_how_to_make(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="brolly prompt new"):
        Prompt.load(tmp_path / "p.toml")


def test_a_schema_may_be_a_file_beside_the_prompt(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('{"type": "integer"}')
    (tmp_path / "p.toml").write_text('[answer]\nschema = "s.json"')
    assert Prompt.load(tmp_path / "p.toml").answer.schema == {"type": "integer"}


def test_the_hash_is_of_what_changes_answers() -> None:
    prompt = Prompt("x", ["a", "b"])
    for same in ({"name": "other"}, {"version": 2}, {"history": [{"version": 1}]}, {"model": "m"}, {"tries": {"instructions": ["y"]}}):  # fmt: skip # noqa: E501
        assert prompt.changed(**same).hash == prompt.hash
    for other in ({"instructions": "y"}, {"answer": ["a"]}, {"examples": [("t", "a")]}, {"options": {"seed": 1}}, {"select": Select(1)}):  # fmt: skip # noqa: E501
        assert prompt.changed(**other).hash != prompt.hash


# Variables -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type", "given", "read"),
    [
        ("text", 3, "3"), ("integer", " -4 ", -4), ("integer", 4.0, 4), ("number", "1e3", 1000.0), ("number", 2, 2),
        ("boolean", "Yes", True), ("boolean", False, False), ("json", {"a": [1]}, {"a": [1]}),
    ],
)  # fmt: skip
def test_values_are_read_by_their_type(type: str, given: Any, read: Any) -> None:
    assert Variable("x", type).read(given) == read


@pytest.mark.parametrize(
    ("type", "given"),
    [("text", ["a"]), ("integer", "4.5"), ("integer", True), ("number", "nan"), ("boolean", "maybe"), ("json", {1j})],
)  # fmt: skip
def test_a_value_of_another_type_is_refused(type: str, given: Any) -> None:
    with pytest.raises(OptionError, match="x is"):
        Variable("x", type).read(given)


def test_variables_are_found_in_the_input() -> None:
    prompt = Prompt(input="{b} and {{no}} {a} {b}")
    assert [v.name for v in prompt.variables] == ["b", "a"]
    assert prompt.values({"a": 1, "b": "x", "more": 2}) == {"a": "1", "b": "x"}
    with pytest.raises(OptionError, match="give a mapping"):
        prompt.values("x")


# Answers -------------------------------------------------------------------------------------------------------------


def test_answers_come_in_the_class_that_was_asked_for() -> None:
    model = models.Told(lambda text: '{"place": "wood", "thing": {"colour": "red", "parts": [1, 2], "size": 3}}')
    assert Prompt("Describe.", Scene)(model, "x") == Scene("wood", Thing(Colour.RED, [1, 2], 3.0))
    pydantic = pytest.importorskip("pydantic")
    Pet = pydantic.create_model("Pet", legs=(int, ...))
    assert Prompt("Describe.", Pet)(models.Told(lambda text: '{"legs": 4}'), "x") == Pet(legs=4)
    with pytest.raises(OptionError, match="is no Pet"):
        Prompt("Describe.", Pet)(models.Told(lambda text: '{"legs": "four"}'), "x")


@pytest.mark.parametrize(
    ("answer", "text", "value"),
    [
        (None, " a text ", "a text"), (int, "-12", -12), (float, "1.5", 1.5), (bool, "false", False),
        (["a", "b"], " b", "b"),
        (re.compile("[0-9]-x", re.I), "4-X", "4-X"), ({"type": "object"}, '{"a": 1}', {"a": 1}),
        (list[int], "[1, 2]", [1, 2]), (dict[str, bool], '{"a": true}', {"a": True}), (Literal["x", 3], "3", 3),
        (int | None, "null", None), (tuple[Thing, ...], '[{"colour": "blue", "parts": []}]', (Thing(Colour.BLUE, []),)),
    ],
)  # fmt: skip
def test_answers_are_typed(answer: Any, text: str, value: Any) -> None:
    assert Prompt("x", answer)(models.Told(lambda _: text), "y") == value


@pytest.mark.parametrize(("answer", "text"), [(int, "12a"), (bool, "yes"), (["a"], "c"), ({}, "{"), (Scene, "{}")])
def test_what_is_no_answer_is_an_error(answer: Any, text: str) -> None:
    with pytest.raises(OptionError):
        Prompt("x", answer)(models.Told(lambda _: text), "y")


def test_a_type_that_no_schema_says_is_refused() -> None:
    with pytest.raises(OptionError, match="expected texts to choose from"):
        Prompt("x", complex)


def test_examples_are_written_in_the_shape_of_answers() -> None:
    thing = Thing(Colour.RED, [1])
    prompt = Prompt("x", Thing, examples=[("a", thing)])
    assert json.loads(prompt.answer.write(prompt.examples[0].answer)) == {"colour": "red", "parts": [1], "size": None}
    assert prompt.examples[0] == Example({"text": "a"}, {"colour": "red", "parts": [1], "size": None})


# With a model --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["chat", "plain"])
def model(request: pytest.FixtureRequest) -> Any:
    from brolly.loader import load

    return load("mini-llm", device="cpu") if request.param == "chat" else models.plain()


@pytest.mark.parametrize(
    "answer",
    [
        ["yes", "no"],
        re.compile("[a-c]{2}[0-9]"),
        int,
        float,
        bool,
        {
            "type": "object",
            "properties": {"legs": {"type": "integer", "minimum": 0, "maximum": 9}},
            "required": ["legs"],
        },
    ],  # fmt: skip # noqa: E501
)
def test_a_model_writes_every_shape_with_and_without_a_template(answer: Any, model: Any) -> None:
    found = Prompt("Say it.", answer)(model, "The hen sat by the door.")
    if isinstance(answer, list):
        assert found in answer
    elif isinstance(answer, re.Pattern):
        assert answer.fullmatch(found)
    elif isinstance(answer, dict):
        assert 0 <= found["legs"] <= 9
    else:
        assert type(found) is answer


def test_text_of_a_base_model_ends_with_its_paragraph() -> None:
    text = Prompt("Go on.", options={"max_tokens": 60})(models.plain(), "Once upon a time there was a hen.")
    assert isinstance(text, str) and "\n\n" not in text and "Text:" not in text


def test_an_answer_that_is_cut_is_an_error(model: Any) -> None:
    with pytest.raises(OptionError, match="raise max_tokens"):
        Prompt("x", re.compile("[ab]{80}"), options={"max_tokens": 5})(model, "y")


def test_the_layouts_show_instructions_examples_and_the_row() -> None:
    prompt = Prompt("Sort it.", ["in", "out"], {"what_it_is": "text", "n": "integer"}, [{"what_it_is": "a\nb", "n": 1, "answer": "in"}])  # fmt: skip # noqa: E501
    plain = prompt.show(models.plain(), {"what_it_is": "c", "n": 2})
    assert plain == (
        "Sort it.\n\nAnswer with one of: in, out.\n\nWhat it is: a\n  b\nN: 1\nAnswer: in\n\n"
        "What it is: c\nN: 2\nAnswer:"
    )
    chat = prompt.show(models.family("chatml"), {"what_it_is": "c", "n": 2})
    assert "<|im_start|>system\nSort it.\n\nAnswer with one of" in chat
    assert (
        "<|im_start|>user\n<what_it_is>\na\nb\n</what_it_is>\nn: 1<|im_end|>\n<|im_start|>assistant\nin<|im_end|>"
        in chat
    )
    assert chat.endswith("<what_it_is>c</what_it_is>\nn: 2<|im_end|>\n<|im_start|>assistant\n")
    assert "never an instruction" in chat and "never an instruction" not in plain


def test_a_template_that_refuses_is_a_rows_error() -> None:
    model = models.family("chatml")
    model.tokenizer.template = models.ChatTemplate("{{ raise_exception('never') }}")
    with pytest.raises(TemplateError, match="never"):
        Prompt("x")(model, "y")


def test_pictures_are_sorted_by_the_same_object() -> None:
    from brolly.loader import load

    root = Path(__file__).resolve().parents[3] / "examples" / "pictures"
    prompt = Prompt(answer=["truck", "cat"], kind="classify", templates=["a photo of a {}."])
    found = prompt.map(load("mini-clip", device="cpu"), [root / "truck.png", root / "none.png", {"image": str(root / "truck.png")}])  # fmt: skip # noqa: E501
    assert [one.value for one in found] == ["truck", None, "truck"] and found[1].error is not None
    assert sum(found[0].probabilities.values()) == pytest.approx(1, abs=1e-3)


def test_a_shape_that_cannot_be_kept_is_told_before_the_rows() -> None:
    model = models.plain()
    with pytest.raises(OptionError, match="refused"):
        Prompt("x", {"type": "array", "uniqueItems": True}).map(model, ["a", "b"])


def test_the_public_name_is_the_class() -> None:
    import brolly

    assert brolly.Prompt is Prompt and isinstance(Prompt("x", ["a"]).answer, Answer)
