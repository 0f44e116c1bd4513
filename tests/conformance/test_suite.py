"""The suite over a local model by every way, and over models that break a promise each: it must notice."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from brolly.cli import main
from brolly.conformance import CHECKS, examine, markdown, table, ways_of
from brolly.conformance.suite import FAILED, PASSED, Subject
from brolly.errors import OptionError
from brolly.verbs import Generation, Piece


@pytest.mark.parametrize("name", ["python", "chat", "responses", "messages"])
def test_a_local_model_keeps_every_promise(name: str) -> None:
    if name != "python":
        pytest.importorskip("fastapi")
    (way,) = ways_of("mini-llm", (name,))
    with way.open() as subject:
        outcomes = list(examine(subject))
    assert not [one for one in outcomes if one.state == FAILED], table({name: outcomes})
    assert sum(one.state == PASSED for one in outcomes) >= 20


class Spoilt:
    """mini-llm, with one thing about its answers changed."""

    def __init__(self, model: Any, spoil: Any) -> None:
        self.model, self.spoil = model, spoil

    def chat(self, messages: Sequence[Mapping[str, Any]], **given: Any) -> Generation:
        return self.spoil(self.model.chat(messages, **given), given)

    def stream_chat(self, messages: Sequence[Mapping[str, Any]], **given: Any) -> Iterator[Piece]:
        return self.model.stream_chat(messages, **given)


@pytest.mark.parametrize(
    ("spoil", "notices"),
    [
        (lambda g, _: replace(g, text=g.text + "!"), "says the same by pieces as whole"),
        (lambda g, _: replace(g, finish_reason="done"), "answers, says why it ended and what it used"),
        (lambda g, o: replace(g, text=g.text + str(o.get("stop", ("",))[0])), "ends before a stop text"),
        (lambda g, o: replace(g, finish_reason="stop") if o["max_tokens"] == 16 else g, "ends at max_tokens and tells"),
        (lambda g, _: replace(g, tool_calls=()), "calls the tool that it must"),
        (lambda g, o: replace(g, text="maybe") if "choice" in o else g, "chooses one of the texts that it may write"),
        (lambda g, o: replace(g, text="{}") if "json_schema" in o else g, "writes JSON of a schema"),
        (lambda g, _: replace(g, logprobs=None), "tells the likelihood of its tokens, or that it cannot"),
    ],
)  # fmt: skip
def test_a_broken_promise_is_noticed(spoil: Any, notices: str, mini: Any) -> None:
    subject = Subject(Spoilt(mini, spoil), "spoilt", True, True, ("text",), ("chat",), random=True)
    found = {one.check: one.state for one in examine(subject) if one.check in (notices,) or one.group == "chat"}
    assert found[notices] == FAILED


@pytest.fixture(scope="module")
def mini() -> Any:
    import brolly

    return brolly.load("mini-llm")


def test_the_command_tells_it_and_exits_by_it(capsys: Any, tmp_path: Any) -> None:
    page = tmp_path / "table.md"
    args = ["doctor", "--conformance", "mini-llm", "--way", "python", "--only", "shapes"]
    assert main([*args, "--markdown", str(page)]) == 0
    assert "chooses one of the texts" in capsys.readouterr().out
    assert page.read_text().startswith("| the model … | python |")
    assert main([*args, "--json"]) == 0
    assert {row["state"] for row in json.loads(capsys.readouterr().out)["outcomes"]} == {PASSED}


def test_without_a_server_it_is_told_before_anything_is_asked(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("brolly.commands.doctor.find_spec", lambda name: None)
    assert main(["doctor", "--conformance", "openai:gpt-5"]) == 2
    assert "--way python needs none" in capsys.readouterr().err
    assert main(["doctor", "--conformance", "mini-llm", "--way", "python", "--only", "shapes"]) == 0


def test_a_way_that_is_none_is_refused() -> None:
    with pytest.raises(OptionError, match="pigeon"):
        ways_of("mini-llm", ("pigeon",))


def test_names_are_told_apart() -> None:
    from brolly.conformance import checks

    assert checks and len({one.name for one in CHECKS}) == len(CHECKS)
    assert markdown({}).startswith("| the model")
