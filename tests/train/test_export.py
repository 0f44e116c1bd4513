"""What a run leaves behind: a folder that transformers and brolly read alike, and the loss as a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

import brolly
from brolly.engine.cache import Causal
from brolly.train import pretrain
from brolly.train.export import plot
from tests.train.tiny import TEMPLATE, losses, story, write_recipe

TALK = [{"role": "user", "content": "Where is the fox?"}, {"role": "assistant", "content": "By the river."}]
TEXTS = ["", "The fox", " two  spaces\n\n", story(3), "Öl, 水 and 🦉", "a<|end|>b<|user|>c", "\x00\x7f\ttab"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run")
    (path / "card.md").write_text("# A card\n")
    recipe = write_recipe(
        path, tokenizer_special=["<|end|>", "<|user|>", "<|assistant|>"], tokenizer_chat_template=TEMPLATE,
        generation_temperature=0.5, generation_top_p=0.9,
    )  # fmt: skip
    recipe.write_text('card = "card.md"\n' + recipe.read_text("utf-8"), "utf-8")
    return pretrain(recipe)


def test_transformers_and_brolly_compute_the_same_logits(folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    theirs, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    ours = brolly.load(folder, device="cpu", dtype="float32").network
    ids = torch.arange(64).reshape(2, 32) * 4
    with torch.no_grad():
        expected = theirs(ids).logits
        found = ours.logits(ours(ids, torch.arange(32).expand(2, 32), Causal(ours.config)))
    assert expected.std() > 0.1
    assert torch.allclose(found, expected, atol=1e-5)


def test_the_exported_weights_are_the_trained_ones_in_bfloat16(folder: Path) -> None:
    from safetensors.torch import load_file

    trained = load_file(folder.parent / "step-00000020" / "state.safetensors")
    exported = load_file(folder / "model.safetensors")
    assert {f"network.{name}" for name in exported} == {name for name in trained if name.startswith("network.")}
    for name, tensor in exported.items():
        assert tensor.dtype == torch.bfloat16 and torch.equal(tensor, trained[f"network.{name}"].bfloat16())


def test_transformers_and_brolly_read_the_same_tokens(folder: Path) -> None:
    from transformers import AutoTokenizer

    theirs, ours = AutoTokenizer.from_pretrained(folder), brolly.load(folder, device="cpu").tokenizer
    for text in TEXTS:
        ids = ours.encode(text)
        assert ids == theirs(text)["input_ids"]
        assert ours.decode(ids, skip_special=False) == theirs.decode(ids, skip_special_tokens=False) == text
    assert theirs.eos_token_id == ours.eos_id == 0
    assert ours.encode_chat(TALK) == theirs.apply_chat_template(TALK, add_generation_prompt=True, return_dict=False)


def test_the_greedy_text_is_the_same(folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = network.generate(**tokenizer("The fox", return_tensors="pt"), do_sample=False, max_new_tokens=16)
    model = brolly.load(folder, device="cpu", dtype="float32")
    new = model.generate("The fox", temperature=0, max_tokens=16).tokens
    assert new == [i for i in ids[0].tolist()[len(tokenizer("The fox")["input_ids"]) :] if i != 0]


def test_advice_and_card_come_along(folder: Path) -> None:
    options = brolly.load(folder, device="cpu").options()
    assert (options.temperature, options.top_p) == (0.5, 0.9)
    assert (folder / "README.md").read_text() == "# A card\n"
    assert json.loads((folder / "config.json").read_text())["max_position_embeddings"] == 32


def polylines(picture: Path) -> list[list[tuple[float, float]]]:
    svg = "{http://www.w3.org/2000/svg}"
    root = ElementTree.parse(picture).getroot()
    assert root.tag == svg + "svg"
    lines = [line.attrib["points"].split() for line in root.iter(svg + "polyline")]
    return [[(float(x), float(y)) for x, y in (point.split(",") for point in line)] for line in lines]


def test_the_picture_shows_every_loss_within_its_frame(folder: Path) -> None:
    training, held = polylines(folder.parent / "loss.svg")
    assert len(training) == len(losses(folder.parent)) == 20 and len(held) == 2
    assert [x for x, _ in training] == sorted(x for x, _ in training)
    assert all(50 <= x <= 740 and 40 <= y <= 360 for x, y in training + held)
    lowest = min(losses(folder.parent), key=lambda row: row[1])[0]
    assert max(range(20), key=lambda i: training[i][1]) == lowest - 1  # down is low


LOGS: dict[str, list[Any]] = {
    "one step": [{"step": 1, "loss": 2.0}],
    "all equal": [{"step": n, "loss": 2.0} for n in range(1, 4)],
    "odd names": [{"step": 1, "loss": 2.0}, {"step": 1, "held": {"<&\"'>": {"loss": 1.0}}}],
    "very long": [{"step": n, "loss": 9.0 / n} for n in range(1, 9001)],
}


@pytest.mark.parametrize("name", LOGS)
def test_any_log_gives_a_picture_that_is_xml(name: str, tmp_path: Path) -> None:
    text = "".join(json.dumps(row) + "\n" for row in LOGS[name])
    (tmp_path / "log.jsonl").write_text(text + '{"step": 9, "lo')  # a line cut short by a kill
    plot(tmp_path / "log.jsonl", tmp_path / "loss.svg", "<tiny> & \x01 Co")
    assert 1 <= len(polylines(tmp_path / "loss.svg")[0]) <= 4000
    assert (tmp_path / "loss.svg").stat().st_size < 200_000


def test_a_log_without_losses_gives_no_picture(tmp_path: Path) -> None:
    plot(tmp_path / "log.jsonl", tmp_path / "loss.svg", "tiny")
    assert list(tmp_path.iterdir()) == []
