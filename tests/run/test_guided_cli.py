"""Guided answers end to end, by the bundled model: the command line's flags, Python's keywords, streams and chats."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import brolly
from brolly.cli import main
from brolly.errors import OptionError

pytest.importorskip("llguidance")

PET = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "kind": {"enum": ["cat", "dog"]},
        "age": {"type": "integer", "minimum": 0, "maximum": 30},
    },
    "required": ["name", "kind", "age"],
}
RUN = ["run", "mini-llm", "Once upon a time", "--max-tokens", "120", "--device", "cpu"]


@pytest.fixture(scope="module")
def mini() -> Any:
    return brolly.load("mini-llm", device="cpu")


def printed(capsys: Any, *flags: str) -> str:
    assert main([*RUN, *flags]) == 0
    out: str = capsys.readouterr().out
    return out.removesuffix("\n")


def test_a_schema_on_the_command_line(capsys: Any) -> None:
    jsonschema.validate(json.loads(printed(capsys, "--json-schema", json.dumps(PET))), PET)


def test_a_schema_from_a_file(capsys: Any, tmp_path: Path) -> None:
    (tmp_path / "pet.json").write_text(json.dumps(PET))
    jsonschema.validate(json.loads(printed(capsys, "--json-schema", str(tmp_path / "pet.json"))), PET)


def test_a_schema_with_an_instruction(capsys: Any) -> None:
    text = printed(capsys, "-s", "You tell of pets.", "--json-schema", json.dumps(PET), "--temperature", "0")
    jsonschema.validate(json.loads(text), PET)


def test_a_regex_on_the_command_line(capsys: Any) -> None:
    assert re.fullmatch(r"[0-9]{3}-[0-9]{4}", printed(capsys, "--regex", "[0-9]{3}-[0-9]{4}"))


def test_choices_on_the_command_line(capsys: Any) -> None:
    assert printed(capsys, "--choice", "yes", "--choice", "no") in ("yes", "no")


def test_a_grammar_as_text_and_from_a_file(capsys: Any, tmp_path: Path) -> None:
    grammar = 'root ::= "e" [1-8] "-" [a-h] [1-8]\n'
    (tmp_path / "chess.gbnf").write_text(grammar)
    for given in (grammar, str(tmp_path / "chess.gbnf"), 'start: "e" /[1-8]/ "-" /[a-h][1-8]/'):
        assert re.fullmatch("e[1-8]-[a-h][1-8]", printed(capsys, "--grammar", given))


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--json-schema", "nowhere.json"), "there is no file 'nowhere.json'"),
        (("--json-schema", "pet"), "no JSON"),
        (("--regex", "["), "unclosed"),
        (("--regex", "a", "--choice", "b"), "leave one of them out"),
        (("--grammar", "start: nothing"), "nothing"),
    ],
)
def test_a_wrong_one_is_told_in_a_line(flags: tuple[str, ...], reason: str, capsys: Any) -> None:
    try:
        code: Any = main([*RUN, *flags])
    except SystemExit as exit:
        code = exit.code
    told = capsys.readouterr().err
    assert code == 2 and reason in told and told.count("\n") == 1


def test_python_takes_a_schema_as_a_dict(mini: Any) -> None:
    for seed in range(3):
        found = mini.generate("The pet:", json_schema=PET, max_tokens=120, seed=seed)
        assert found.finish_reason == "stop"
        jsonschema.validate(json.loads(found.text), PET)


def test_python_takes_the_schema_of_a_pydantic_model(mini: Any) -> None:
    pydantic = pytest.importorskip("pydantic")

    class Pet(pydantic.BaseModel):
        name: str = pydantic.Field(max_length=10)
        legs: int = pydantic.Field(ge=0, le=8)

    found = mini.generate("The pet:", json_schema=Pet.model_json_schema(), max_tokens=120, seed=0)
    assert 0 <= Pet.model_validate_json(found.text).legs <= 8


def test_a_chat_and_its_stream_keep_to_it_too(mini: Any) -> None:
    messages = [{"role": "user", "content": "Pick one."}]
    whole = mini.chat(messages, choice=["red", "green", "blue"], seed=3)
    pieces = list(mini.stream_chat(messages, choice=["red", "green", "blue"], seed=3))
    assert whole.text in ("red", "green", "blue")
    assert "".join(piece.text for piece in pieces) == whole.text
    assert pieces[-1].finish_reason == "stop"


def test_an_answer_that_is_cut_says_so(mini: Any) -> None:
    found = mini.generate("The pet:", json_schema=PET, max_tokens=3, seed=0)
    assert found.finish_reason == "length" and len(found.tokens) == 3


def test_several_answers_at_a_time_keep_to_it(mini: Any) -> None:
    found = mini.generate(["One:", "Two:", "Three:"], regex="[0-9]{2}", seed=0)
    assert all(re.fullmatch("[0-9]{2}", one.text) for one in found)


def test_log_probabilities_are_the_models_own(mini: Any) -> None:
    """What a guide rules out still has its probability there, as OpenAI reports it."""
    found = mini.generate("The pet:", choice=["yes", "no"], seed=0, logprobs=5)
    assert len(found.logprobs[0].top) == 5 and all(p > -1e9 for p in found.logprobs[0].top.values())


def test_a_refused_schema_is_told_before_anything_is_computed(mini: Any) -> None:
    with pytest.raises(OptionError, match="uniqueItems"):
        mini.prepare("The pet:", json_schema={"type": "array", "uniqueItems": True})


def written(model: Any, *jobs: Any) -> list[Any]:
    """The text that each job's answer comes to in the engine, or its error."""
    found: list[Any] = [""] * len(jobs)
    over = [threading.Event() for _ in jobs]

    def deliver_to(i: int) -> Any:
        def deliver(piece: Any) -> None:
            if isinstance(piece, BaseException):
                found[i] = piece
            else:
                found[i] += piece.text
            if isinstance(piece, BaseException) or piece.finish_reason:
                over[i].set()

        return deliver

    for i, job in enumerate(jobs):
        model.submit(job, deliver_to(i))
    assert all(event.wait(60) for event in over)
    return found


def test_guided_answers_side_by_side_are_those_written_alone(mini: Any) -> None:
    asked: list[dict[str, Any]] = [
        {"json_schema": PET}, {"regex": "[0-9]{3}-[0-9]{4}"}, {"choice": ["yes", "no"]}, {},
        {"grammar": 'start: "e" /[1-8]/'},
    ]  # fmt: skip
    asked = [{"seed": 5, "max_tokens": 60, "temperature": 0} | one for one in asked]
    alone = [mini.generate("The pet:", **one).text for one in asked]
    assert written(mini, *(mini.prepare("The pet:", **one) for one in asked)) == alone


def test_a_guide_that_fails_takes_no_other_answer_down(mini: Any) -> None:
    class Broken:
        complete = False

        def mask(self, logits: Any) -> None:
            raise OptionError("the grammar cannot be followed further.")

        def accept(self, token: int) -> None: ...

    good = mini.prepare("The pet:", regex="[0-9]{8}", seed=1)
    bad = replace(mini.prepare("The pet:", seed=1), guide=Broken)
    first, second = written(mini, bad, good)
    assert isinstance(first, OptionError) and re.fullmatch("[0-9]{8}", second)
