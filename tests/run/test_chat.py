"""A conversation, at a terminal and through a pipe, with a model whose answer tells how long its prompt was."""

from __future__ import annotations

import json
import sys
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest

from brolly.cli import main
from tests.run.checkpoints import END, START, tokenizer, write_llama, write_reciter
from tests.run.terminal import Terminal, brolly

SAYS = "A fox met a hen under an old tree; the hen said hello, größe 🦊 and good morning." + END


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("chatty")
    write_reciter(path, SAYS)
    return path


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A model that writes for a long time, and the options that keep it from ending."""
    pytest.importorskip("transformers")
    path = tmp_path_factory.mktemp("endless")
    write_llama(path, max_position_embeddings=2**20)
    return [str(path), "--logit-bias", json.dumps({str(tokenizer().token_to_id(END)): -1000})]


def answers(system: str | None, *questions: str) -> list[dict[str, str]]:
    """The conversation that must follow: each answer begins at the word that the length of its prompt points at."""
    backend = tokenizer()
    says = backend.encode(SAYS).ids
    said: list[dict[str, str]] = []
    for question in questions:
        said.append({"role": "user", "content": question})
        first = [{"role": "system", "content": system}] if system else []
        text = "".join(f"{START}{m['role']}\n{m['content']}{END}\n" for m in first + said) + f"{START}assistant\n"
        n = len(backend.encode(text).ids) % len(says)
        said.append({"role": "assistant", "content": backend.decode(says[n:-1])})
    return said


def talk(folder: Path, capsys: Any, monkeypatch: Any, text: str, *options: str) -> list[str]:
    """The lines that a piped conversation writes."""
    monkeypatch.setattr(sys, "stdin", StringIO(text))
    assert main(["chat", str(folder), "--device", "cpu", "--temperature", "0", *options]) == 0
    return capsys.readouterr().out.splitlines()


# Through a pipe ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("system", [None, "Be brief."])
def test_the_history_goes_along(folder: Path, capsys: Any, monkeypatch: Any, system: str | None) -> None:
    expected = answers(system, "Hi", "And?", "The end?")
    options = ["-s", system] if system else []
    lines = talk(folder, capsys, monkeypatch, "Hi\nAnd?\n\nThe end?\n", *options)
    assert lines == [m["content"] for m in expected if m["role"] == "assistant"] + [""]
    assert len({*lines}) == 4


@pytest.mark.parametrize(
    ("typed", "question"),
    [
        ("one\\\ntwo\\\nthree\n", "one\ntwo\nthree"),
        ('"""one\n\n  two"""\n', "one\n\n  two"),
        ('"""\none\ntwo\n"""\n', "one\ntwo"),
        ('"""one"""\n', "one"),
        ('"""/etc is a folder"""\n', "/etc is a folder"),
        ("größe 🦊\n", "größe 🦊"),
    ],
)
def test_a_question_of_several_lines(
    folder: Path, tmp_path: Path, capsys: Any, monkeypatch: Any, typed: str, question: str
) -> None:
    talk(folder, capsys, monkeypatch, typed + f"/save {tmp_path}/said.json\n")
    assert json.loads((tmp_path / "said.json").read_text(encoding="utf-8")) == answers(None, question)


def test_commands_change_the_conversation(folder: Path, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    typed = f"one\ntwo\n/undo\n/save {tmp_path}/1\n/clear\n/save {tmp_path}/2\n"
    typed += f"/system Be kind.\nthree\n/save {tmp_path}/3\n"
    talk(folder, capsys, monkeypatch, typed)
    said = [json.loads((tmp_path / name).read_text(encoding="utf-8")) for name in "123"]
    assert said == [answers(None, "one"), [], answers("Be kind.", "three")]


def test_set_holds_from_then_on(folder: Path, capsys: Any, monkeypatch: Any) -> None:
    typed = "/set max_tokens 2\nHi\n/stats\n/set max_tokens null\n/undo\nHi\n/set stop  fox\n"
    first, stats, second, _ = talk(folder, capsys, monkeypatch, typed)
    whole = answers(None, "Hi")[1]["content"]
    assert (second, whole.startswith(first), len(first) < len(whole)) == (whole, True, True)
    assert stats == "2 tokens in the last answer, 2 messages"


@pytest.mark.parametrize("leave", ["/exit", "/quit", "/bye"])
def test_leaving_leaves_the_rest_unread(folder: Path, capsys: Any, monkeypatch: Any, leave: str) -> None:
    assert talk(folder, capsys, monkeypatch, f"{leave}\nHi\n") == []


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("/nonsense", "/nonsense is no command; /help lists them."),
        ("/", "/ is no command; /help lists them."),
        ("/set", "/set takes an option and its value; options are max_tokens, temperature"),
        ("/set temperature", "/set takes an option and its value"),
        ("/set colour 3", "/set takes an option and its value"),
        ("/set temperature warm", "'warm' is not a number."),
        ("/set temperature -3", "temperature is -3; it must be a number between 0 and 100."),
        ("/set temperature true", "temperature is True; it must be a number"),
        ("/set max_tokens 0", "max_tokens is 0; it must be a number at least 1."),
        ("/set max_tokens 2.5", "max_tokens is 2.5; it must be a whole number."),
        ("/set top_k 2.5", "top_k is 2.5; it must be a whole number."),
        ('/set seed "x"', "seed is 'x'; it must be a whole number."),
        ("/set logit_bias 5", "logit_bias is 5; it must map token ids to numbers."),
        ('/set logit_bias {"5": "x"}', "logit_bias is {5: 'x'}; it must map token ids to finite numbers."),
        ('/set logit_bias {"x": 5}', """'{"x": 5}' is not a number."""),
        ("/save", "'' cannot be written (Is a directory)."),
        ("/save /nowhere/at/all", "'/nowhere/at/all' cannot be written (No such file or directory)."),
        ("word " * 200, "this model holds 160, answer included. Shorten it."),
    ],
)
def test_a_mistake_is_told_and_the_conversation_goes_on(
    folder: Path, capsys: Any, monkeypatch: Any, typed: str, message: str
) -> None:
    lines = talk(folder, capsys, monkeypatch, f"{typed}\nHi\n")
    assert message in lines[0]
    assert lines[1:] == [answers(None, "Hi")[1]["content"], ""]


def test_logit_bias_can_be_set(folder: Path, capsys: Any, monkeypatch: Any) -> None:
    bias = json.dumps({str(tokenizer().token_to_id("x")): 100})
    assert talk(folder, capsys, monkeypatch, f"/set logit_bias {bias}\n/set max_tokens 3\nHi\n")[0] == "xxx"


def test_help_names_every_command(folder: Path, capsys: Any, monkeypatch: Any) -> None:
    lines = talk(folder, capsys, monkeypatch, "/help\n")
    for name in ("clear", "system", "set", "undo", "save", "stats", "help", "exit"):
        assert any(line.startswith(f"/{name} ") for line in lines)


def test_a_line_that_is_no_text_is_told(folder: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(b"\xff\xfe\n"), encoding="utf-8"))
    assert main(["chat", str(folder), "--device", "cpu"]) == 0
    assert "This line is not text" in capsys.readouterr().out


def test_a_base_model_is_told_before_it_is_talked_to(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    write_reciter(tmp_path, "abc", template=None)
    monkeypatch.setattr(sys, "stdin", StringIO("Hi\n"))
    assert main(["chat", str(tmp_path), "--device", "cpu"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1) and "base model" in err


def test_a_piped_conversation_shows_no_prompt(folder: Path) -> None:
    result = brolly("chat", folder, "--temperature", "0", stdin="Hi\n")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == answers(None, "Hi")[1]["content"] + "\n\n"


# At a terminal -------------------------------------------------------------------------------------------------------


def test_a_conversation_at_a_terminal(folder: Path, tmp_path: Path) -> None:
    expected = answers(None, "Hi", "one\ntwo", "three\nfour")
    with Terminal("chat", folder, "--temperature", "0") as terminal:
        terminal.until(">>> ")
        assert terminal.ask("Hi") == expected[1]["content"] + "\n"
        assert terminal.ask("one\\", "... ") == ""
        assert terminal.ask("two") == expected[3]["content"] + "\n"
        assert terminal.ask('"""three', "... ") == ""
        assert terminal.ask('four"""') == expected[5]["content"] + "\n"
        assert "/system TEXT" in terminal.ask("/help")
        assert "is no command" in terminal.ask("/colour")
        assert terminal.ask(f"/save {tmp_path}/said.json") == ""
        assert "6 messages" in terminal.ask("/stats")
        terminal.type("half a line")
        terminal.until("half a line")
        terminal.interrupt()
        assert "/exit to leave" in terminal.until(">>> ")
        assert terminal.ask("") == ""
        terminal.type("\x04")
        assert terminal.finish() == 0
    assert json.loads((tmp_path / "said.json").read_text(encoding="utf-8")) == expected


def test_an_interrupt_stops_the_answer_and_not_the_program(endless: list[str]) -> None:
    with Terminal("chat", *endless, "--temperature", "0") as terminal:
        terminal.until(">>> ")
        for n_messages in (2, 4):
            terminal.type("Hi\n")
            terminal.until("Hi\r\n")
            terminal.until(" ")  # it has begun to answer
            terminal.interrupt()
            terminal.until("(stopped)")
            terminal.until(">>> ")
            assert f"{n_messages} messages" in terminal.ask("/stats")
        assert "0 messages" in (terminal.ask("/clear") + terminal.ask("/stats"))
        terminal.type("/quit\n")
        assert terminal.finish() == 0


def test_an_interrupt_ends_a_run(endless: list[str]) -> None:
    with Terminal("run", *endless, "--temperature", "0", "Once upon a time") as terminal:
        terminal.until(" ")
        terminal.interrupt()
        assert terminal.finish() == 130
        assert "Traceback" not in terminal.shown
