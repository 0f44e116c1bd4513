"""A mistake in a recipe is told in a sentence, before anything is computed, and the command exits with 2."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import MISSING, fields
from pathlib import Path

import pytest

from brolly.cli import main
from brolly.train.recipe import ADVICE, KEYS, Run, Shape, Stage, Words, read_recipe
from tests.train.tiny import stories, write_recipe

RECIPES = Path(__file__).parents[2] / "recipes"

MISTAKES = {  # what is changed in the recipe's text, and what the sentence must say
    "top": ('name = "tiny"', 'nmae = "tiny"', "the recipe has an unknown key 'nmae'; did you mean 'name'?"),
    "table": ("[train]", "[trian]", "unknown key 'trian'; did you mean 'train'?"),
    "model": ("n_layers = 2", "n_layer = 2", "[model] has an unknown key 'n_layer'; did you mean 'n_layers'?"),
    "far": ("dim = 32", "width = 32", "[model] has an unknown key 'width'; expected dim, n_layers"),
    "train": ("warmup = 2", "warm_up = 2", "did you mean 'warmup'?"),
    "data": ("held_out = 0.1", "heldout = 0.1", "did you mean 'held_out'?"),
    "words": ("vocab_size = 300", "vocab = 300", "did you mean 'vocab_size'?"),
    "generation": ("[generation]", "[generation]\ntemprature = 1", "did you mean 'temperature'?"),
    "advice": ("[generation]", "[generation]\ntop_p = 2", "top_p is 2; it must be a number between 0 and 1."),
    "stage": ("[generation]", "[[stage]]\nuntill = 1.0", "did you mean 'until'?"),
    "mix": ("[generation]", "[[stage]]\nuntil = 1.0\nmix = { texts = 1 }", "did you mean 'text'?"),
    "no weight": ("[generation]", "[[stage]]\nuntil = 1.0\nmix = { text = 0 }", "not all of them 0"),
    "early end": ("[generation]", "[[stage]]\nuntil = 0.5\nmix = { text = 1 }", "expected rising shares"),
    "nan": ("[generation]", "[[stage]]\nuntil = nan\nmix = { text = 1 }", "expected rising shares"),
    "missing": ("dim = 32\n", "", "[model] lacks 'dim'"),
    "missing two": ("steps = 20\nbatch = 8\n", "", "[train] lacks 'steps' and 'batch'"),
    "text for number": ("dim = 32", 'dim = "32"', "[model] dim is '32'; expected int."),
    "share for number": ("dim = 32", "dim = 32.5", "dim is 32.5; expected int."),
    "truth for number": ("steps = 20", "steps = true", "steps is True; expected int."),
    "number for truth": ("compile = false", "compile = 0", "compile is 0; expected bool."),
    "zero": ("steps = 20", "steps = 0", "steps is 0; expected 1 to"),
    "minus": ("lr = 0.003", "lr = -1", "[train] lr is -1; expected"),
    "infinite": ("lr = 0.003", "lr = inf", "[train] lr is inf; expected"),
    "huge": ("dim = 32", "dim = 32000000", "dim is 32000000; expected 1 to 65536."),
    "choice": ("[train]", '[train]\noptimizer = "adam"', "optimizer is 'adam'; expected adamw or muon."),
    "half": ('dtype = "float32"', 'dtype = "float16"', "dtype is 'float16'; expected bfloat16 or float32."),
    "heads": ("n_kv_heads = 2", "n_kv_heads = 3", "expected n_heads to be a multiple of n_kv_heads"),
    "accumulate": ("[train]", "[train]\naccumulate = 3", "batch is 8; expected a multiple of accumulate, 3."),
    "vocabulary": ("vocab_size = 300", "vocab_size = 256", "bytes and special tokens alone need more"),
    "special": ("[tokenizer]", '[tokenizer]\nspecial = ["<a>", "<a>"]', "expected a list of different texts"),
    "no special": ("[tokenizer]", "[tokenizer]\nspecial = []", "special"),
    "no file": ('"text.txt"', '"txt.txt"', "txt.txt, which does not exist or is no file."),
    "folder": ('"text.txt"', '"."', "which does not exist or is no file."),
    "source name": ('{ text = "text.txt" }', '{ "../x" = "text.txt" }', "source '../x' has an odd name"),
    "no source": ('{ text = "text.txt" }', "{}", "expected sources = { name = 'file.txt' }."),
    "share": ("held_out = 0.1", "held_out = 1", "held_out is 1; expected a share"),
    "card": ('name = "tiny"', 'card = "card.md"', "card.md, which does not exist"),
    "TOML": ("[train]", "[train", "is not valid TOML"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_in_a_sentence(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = write_recipe(tmp_path)
    right, wrong, says = MISTAKES[name]
    text = recipe.read_text("utf-8")
    assert text.count(right) == 1
    recipe.write_text(text.replace(right, wrong), "utf-8")
    assert main(["pretrain", str(recipe)]) == 2
    said = capsys.readouterr()
    assert says in said.err and str(recipe.parent) in said.err
    assert said.err.startswith("brolly: ") and said.err.count("\n") == 1 and said.out == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "says"), [("no.toml", "cannot be read"), ("latin.toml", "is not valid TOML")])
def test_a_recipe_that_cannot_be_read_is_named(
    name: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "latin.toml").write_bytes(b'name = "caf\xe9"')
    assert main(["pretrain", str(tmp_path / name)]) == 2
    assert f"{name} {says}" in capsys.readouterr().err


def test_the_command_itself_exits_with_2_and_no_traceback(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    recipe.write_text(recipe.read_text("utf-8").replace("n_layers", "n_layer"), "utf-8")
    done = subprocess.run([sys.executable, "-m", "brolly", "pretrain", recipe], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_a_chat_template_that_cannot_be_read_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = write_recipe(tmp_path, "", data_sources={"chat": "chat.jsonl"}, tokenizer_chat_template="{% for %}")
    (tmp_path / "chat.jsonl").write_text('{"prompt": "Hi", "completion": "Hello"}\n')
    assert main(["pretrain", str(recipe)]) == 2
    assert "template" in capsys.readouterr().err


def test_paths_are_those_of_the_recipe_and_out_can_be_given(tmp_path: Path) -> None:
    recipe = read_recipe(write_recipe(tmp_path))
    assert recipe.sources == {"text": (tmp_path / "text.txt").resolve()}
    assert recipe.out == (tmp_path / "out").resolve()
    assert read_recipe(recipe.path, tmp_path / "other").out == (tmp_path / "other").resolve()


def test_the_recipes_that_come_along_are_right(tmp_path: Path) -> None:
    found = sorted(RECIPES.glob("*.toml"))
    assert found
    for path in found:
        text = path.read_text("utf-8").replace('"../runs/', f'"{tmp_path}/')
        for name in ("books", "tales", "storybooks", "small", "chat", "questions"):
            file = tmp_path / "mini-llm-text" / f"{name}.jsonl"
            file.parent.mkdir(exist_ok=True)
            file.write_text(stories(1))
        (tmp_path / "mini-llm-card.md").write_text("A card.")
        (tmp_path / path.name).write_text(text, "utf-8")
        assert read_recipe(tmp_path / path.name).card == "A card."


def test_the_page_names_every_key_with_its_default() -> None:
    page = (RECIPES.parent / "docs" / "pretrain.md").read_text("utf-8")
    rows = [
        line.split(" | ") for line in page.replace("\\|", "¦").partition("## Every key")[2].splitlines() if "|" in line
    ]
    named = {key: (row[1], re.findall(r"`(\w+)`", row[0])) for row in rows for key in re.findall(r"`(\w+)`", row[0])}
    for table in (Shape, Words, Stage, Run):
        for field in fields(table):
            assert field.name in named, f"{field.name} is not in the table"
            defaults, keys = named[field.name]
            if field.default is MISSING or field.default in ("", ()):
                continue
            said = re.split(r", (?=[^\"])", defaults.strip())[keys.index(field.name)].strip("`")
            default = list(field.default) if isinstance(field.default, tuple) else field.default
            assert json.loads(said.replace("¦", "|")) == default, field.name
    for key in (*KEYS, *ADVICE):
        assert key in named or f"[{key}" in page, key
