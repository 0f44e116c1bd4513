"""Names that are none: what is meant is told, before anybody is asked."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

import brolly
from brolly.cli import main
from brolly.errors import NotFound, OptionError
from brolly.remote.meant import check


@pytest.mark.parametrize(
    "wrong, meant",
    [
        ("opeani:gpt-5", "perhaps openai:gpt-5 is meant"),
        ("OpenAI:gpt-5", "perhaps openai:gpt-5 is meant"),
        ("google:gemini-2.5-pro", "perhaps gemini:gemini-2.5-pro is meant"),
        ("claude:opus-5-5", "perhaps anthropic:opus-5-5 is meant"),
        ("antropic:claude-opus-5-5", "perhaps anthropic:claude-opus-5-5"),
        ("zzz:model", "expected openai, anthropic, "),
    ],
)
def test_a_vendor_misspelt(wrong: str, meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OptionError, match="is no vendor") as told:
        brolly.load(wrong)
    assert meant in str(told.value) and "compatible" not in str(told.value)
    for line in (["run", wrong, "Hello"], ["list", wrong], ["keys", "set", wrong.partition(":")[0]]):
        assert main(line) == 2
        word = meant.replace(f":{wrong.partition(':')[2]}", "") if line[0] in ("list", "keys") else meant
        assert word.removesuffix(" is meant") in capsys.readouterr().err, line


def test_the_card_of_a_vendor_misspelt(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["identify", "opeani:gpt-5"]) == 2
    assert "perhaps openai:gpt-5 is meant" in capsys.readouterr().err
    assert main(["identify", "https://vllm.example/v1"]) == 2
    assert "https://vllm.example/v1#model" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name, meant",
    [("gpt-5", "openai:gpt-5"), ("claude-opus-5-5", "anthropic:claude-opus-5-5"), ("openai/gpt-5", "openai:gpt-5")],
)
def test_a_closed_model_without_its_vendor(name: str, meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(NotFound, match=f"runs elsewhere; expected {meant}"):
        brolly.load(name)
    assert main(["run", name, "Hello"]) == 2
    assert meant in capsys.readouterr().err
    assert main(["pull", name]) == 2 and meant in capsys.readouterr().err


def test_drawing_and_removing_tell_it_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["draw", "gpt-image-2", "a fox", "-o", "fox.png"]) == 2
    assert "expected openai:gpt-image-2" in capsys.readouterr().err
    assert main(["remove", "openai:gpt-5"]) == 2
    assert "openai:gpt-5 runs elsewhere; there are no files of it" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "https://vllm.example/v1", "https://x.example/openai/v1/"])
def test_an_address_without_a_model(address: str) -> None:
    with pytest.raises(OptionError, match="names no model; expected .*#model"):
        brolly.load(address)


@pytest.mark.parametrize(
    "name",
    ["mini-llm", "org/name", "org/name@main", "hf://org/name", "gpt2", "openai/whisper-tiny", "openai:gpt-5", "C:/x",
     "https://host.example/model.safetensors", "https://huggingface.co/org/name", "./a:b", "openai/gpt-oss-20b"],
)  # fmt: skip
def test_other_names_are_left_alone(name: str) -> None:
    check(name)


def test_what_lies_here_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("gpt-5", "opeani:gpt-5"):
        (tmp_path / name).mkdir()
        check(name)


@pytest.mark.parametrize(
    "name, meant",
    [("opeani:gpt-5", "perhaps openai:gpt-5 is meant"), ("claude-opus-5-5", "expected anthropic:claude-opus-5-5"),
     ("https://vllm.example/v1", "expected https://vllm.example/v1#model")],
)  # fmt: skip
def test_a_server_is_told_before_it_starts(
    name: str, meant: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fastapi")
    for logger in map(logging.getLogger, ("brolly", "uvicorn")):  # serving changes them for the whole process
        for attribute in ("handlers", "propagate", "level"):
            monkeypatch.setattr(logger, attribute, getattr(logger, attribute))
    assert main(["serve", name, "--port", "0"]) == 2
    assert meant in capsys.readouterr().err


@pytest.mark.parametrize("text", ["https://huggingface.co/org/v2", "https://hf.co/org/name/tree/v9"])
def test_a_repository_s_address_is_no_address_of_models(text: str) -> None:
    check(text)
