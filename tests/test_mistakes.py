"""Typical mistakes on the command line, and what they are told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from brolly.cli import parsed
from brolly.errors import BrollyError
from brolly.loader import load
from brolly.rows import open_rows


@pytest.mark.parametrize(
    "words",
    [
        "prompt run a.toml --model m in.jsonl",
        "prompt show --set x=y a.toml --model m in.jsonl",
        "prompt tune a.toml --model m in.jsonl",
        "prompt eval --model m a.toml in.jsonl",
        "prompt run a.toml in.jsonl --model m",
    ],
)
def test_rows_may_come_behind_the_options(words: str) -> None:
    args = parsed(words.split())
    assert (args.file, args.rows) == ("a.toml", "in.jsonl")


def test_an_adapter_in_place_of_a_model_is_told(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "x"}))
    name = "base_model.model.model.layers.0.mlp.up_proj.lora_{}.weight"
    zeros = {name.format(side): np.zeros((2, 2), np.float32) for side in "AB"}
    save_file(zeros, tmp_path / "adapter_model.safetensors")
    with pytest.raises(BrollyError, match="is an adapter.*--adapter"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["absent", "absent.jsonl", "absent.txt"])
def test_data_that_are_not_there_are_told_so_whatever_their_ending(name: str, tmp_path: Path) -> None:
    with pytest.raises(BrollyError, match="does not exist"):
        open_rows(tmp_path / name)
