"""A tuning from rows to a folder: what it says beforehand, what it leaves, what it refuses; and it learns."""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import brolly
from brolly.errors import CheckpointError, DiskFull, OptionError, RecipeError
from brolly.loader import load
from brolly.train.tuning import tune
from brolly.train.tuning.examples import drawn
from brolly.train.tuning.objectives.next_token import NextToken
from brolly.train.tuning.recipe import read_recipe
from brolly.verbs import Lora
from tests.run.checkpoints import write_llama
from tests.train.tuning.bases import facts, write_rows

QUICK = {"steps": 3, "batch": 2, "held_out": 0}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("base")
    write_llama(folder)
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "data.jsonl", facts(12))


@pytest.mark.parametrize("lora", [Lora(rank=8), None], ids=["LoRA", "full"])
def test_it_learns_and_answers_as_it_learnt(base: Path, data: Path, tmp_path: Path, lora: Lora | None) -> None:
    """Facts by heart; then `generate` says them and stops, though the base would sample."""
    events: list[dict[str, Any]] = []
    lr = {"lr": 1e-2} if lora else {"lr": 2e-3}
    adapter = tune(base, data, out=tmp_path / "out", lora=lora, epochs=40, batch=4, progress=events.append, **lr)
    losses = [e["loss"] for e in events if e["event"] == "step"]
    assert losses[0] > 4 and losses[-1] < 0.1
    (base / "generation_config.json").write_text(json.dumps({"do_sample": True, "temperature": 3.0}))
    try:
        model = load(base if lora else adapter.path, device="cpu", dtype="float32")
        view = model.with_adapter(adapter) if lora else model
        told = view.generate([row["prompt"] for row in facts(12)], max_tokens=20)
        right = sum(g.text == row["completion"] for g, row in zip(told, facts(12), strict=True))
        assert right == 12 and {g.finish_reason for g in told} == {"stop"}
        if lora:
            assert view.generate("fox 1 is", max_tokens=9).text == facts(2)[1]["completion"]
            assert "".join(p.text for p in view.stream("fox 1 is", max_tokens=9)) == facts(2)[1]["completion"]
            assert (
                view.score("fox 1 is" + facts(2)[1]["completion"]).total
                > model.score("fox 1 is" + facts(2)[1]["completion"]).total + 5
            )
            assert model.options().temperature == 3.0 and model.options(str(adapter.path)).temperature == 0
            assert view.engine is model.engine and view.runner is model.runner
        model.close()
    finally:
        (base / "generation_config.json").unlink()


def test_the_plan_comes_first_and_may_be_refused(base: Path, data: Path, tmp_path: Path) -> None:
    seen: list[Any] = []
    with pytest.raises(RecipeError, match="nothing was trained"):
        tune(base, data, out=tmp_path / "out", approve=lambda plan: seen.append(plan), **QUICK)
    plan = seen[0]
    assert (plan.examples, plan.held, plan.steps, plan.batch) == (12, 0, 3, 2)
    assert 0 < plan.learnt < plan.tokens and plan.context == 160 and plan.longest < 20
    page = str(plan)
    for words in ("fox 0 is", "12 to learn", "FLOP", "licence", "one-third", "MB", "learning rate"):
        assert words in page
    assert not (tmp_path / "out" / "adapter_config.json").exists()


def test_flop_are_counted_layer_by_layer(base: Path, data: Path, tmp_path: Path) -> None:
    """Four a frozen weight, six a learnt one; the embedding is looked up."""
    found = []
    for lora in (Lora(rank=4), None):
        with pytest.raises(RecipeError):
            tune(base, data, out=tmp_path / "o", lora=lora, approve=lambda p: found.append(p), **QUICK)
    tokens = found[0].tokens / 12 * 6
    network = load(base, fused=False).network
    multiplied = sum(p.numel() for n, p in network.named_parameters() if p.dim() == 2 and "embed" not in n)
    assert found[0].flop == pytest.approx(tokens * (4 * multiplied + 6 * found[0].trained))
    assert found[1].flop == pytest.approx(tokens * 6 * multiplied)


def test_it_leaves_a_card_a_recipe_a_log_and_a_picture(base: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "d.jsonl", facts(50))
    adapter = brolly.tune(str(base), str(data), out=tmp_path / "out", steps=4, batch=4, eval_every=2, lora=Lora(rank=2))
    out = tmp_path / "out"
    there = {p.name for p in out.iterdir()}
    assert {
        "adapter_config.json",
        "adapter_model.safetensors",
        "README.md",
        "recipe.toml",
        "log.jsonl",
        "loss.svg",
    } < there
    assert not list(out.glob("step-*")) and not (out / "examples").exists()
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log if "loss" in row] == [1, 2, 3, 4]
    assert [row["step"] for row in log if "held" in row] == [2, 4]
    assert adapter.measures["loss"] == log[-1]["held"]["rows"]["loss"]
    card = (out / "README.md").read_text()
    assert brolly_hash(data) in card and "FLOP" in card and "base_model_relation" in card
    told = brolly.identify(out)
    assert told.kind.relation == "adapter"
    again = read_recipe(out / "recipe.toml")
    assert again["steps"] == 4 and again["lora"]["rank"] == 2 and Path(again["data"]) == data


def brolly_hash(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_recipe_repeats_a_run(base: Path, data: Path, tmp_path: Path) -> None:
    tune(base, data, out=tmp_path / "one", lora=Lora(rank=2, dropout=0.1), seed=3, **QUICK)
    tune(recipe=tmp_path / "one" / "recipe.toml", out=tmp_path / "two")
    first, second = ((tmp_path / n / "adapter_model.safetensors").read_bytes() for n in ("one", "two"))
    assert first == second
    (tmp_path / "bad.toml").write_text('model = "x"\n[tune]\nepoch = 3\n')
    with pytest.raises(RecipeError, match=r"\[tune\] has an unknown key 'epoch'; did you mean 'epochs'"):
        tune(recipe=tmp_path / "bad.toml", data=data, out=tmp_path / "three")


def test_tensorboard_reads_the_events(base: Path, data: Path, tmp_path: Path) -> None:
    """The frames and fields of TFRecord and tensorflow.Event, read by the protobuf reader of the checkpoints."""
    tune(base, data, out=tmp_path / "out", lora=Lora(rank=2), **QUICK)
    (file,) = (tmp_path / "out").glob("events.out.tfevents.*")
    raw, at, bodies = file.read_bytes(), 0, []
    while at < len(raw):
        length = int.from_bytes(raw[at : at + 8], "little")
        bodies.append(raw[at + 12 : at + 12 + length])
        assert raw[at + 8 : at + 12] == masked(raw[at : at + 8])
        assert raw[at + 12 + length : at + 16 + length] == masked(bodies[-1])
        at += length + 16
    assert b"brain.Event:2" in bodies[0] and len(bodies) == 4
    assert b"train/loss" in bodies[1] and b"train/lr" in bodies[3]


def masked(data: bytes) -> bytes:
    """CRC-32C bit by bit, and TFRecord's mask."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0x82F63B78 * (crc & 1)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8 & 0xFFFFFFFF).to_bytes(4, "little")


def test_services_get_the_numbers_too(base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of a service's name gets a run and a row a step; one that is not installed is an extra."""
    import sys
    from types import SimpleNamespace

    from brolly.errors import MissingExtra

    told: list[Any] = []
    service = SimpleNamespace(
        init=lambda **how: told.append(how), log=lambda row, step: told.append((step, row["train/loss"]))
    )
    monkeypatch.setitem(sys.modules, "trackio", service)
    monkeypatch.setitem(sys.modules, "wandb", None)
    tune(base, data, out=tmp_path / "out", report_to=["trackio"], lora=Lora(rank=1), **QUICK)
    assert told[0]["name"] == "out" and [step for step, _ in told[1:]] == [1, 2, 3]
    with pytest.raises(MissingExtra, match=r"brolly\[wandb\]"):
        tune(base, data, out=tmp_path / "two", report_to=["wandb"], lora=Lora(rank=1), **QUICK)


def test_accumulated_equals_a_large_batch(base: Path, data: Path, tmp_path: Path) -> None:
    """A step's examples in one part, and cut into parts of a few tokens."""
    from safetensors.torch import load_file

    found = []
    for part in (10_000, 20):
        out = tmp_path / str(part)
        tune(base, data, out=out, lora=Lora(rank=4), part=part, steps=5, batch=6, held_out=0, dtype="float32", lr=1e-3)
        found.append(load_file(out / "adapter_model.safetensors"))
    for name in found[0]:
        torch.testing.assert_close(found[0][name], found[1][name], rtol=1e-3, atol=1e-5)


def test_few_rows_are_not_held_out_and_equal_inputs_stay_together(base: Path, tmp_path: Path) -> None:
    plans: list[Any] = []

    def plan(rows: list[dict[str, Any]], **options: Any) -> Any:
        with pytest.raises(RecipeError):
            tune(
                base,
                write_rows(tmp_path / "d.jsonl", rows),
                out=tmp_path / "o",
                approve=lambda p: plans.append(p),
                **options,
            )
        return plans[-1]

    few = plan(facts(39))
    assert few.held == 0 and few.examples == 39 and any("fewer than 40 rows" in note for note in few.notes)
    assert plan(facts(60)).held == 3
    assert plan(facts(20), held_out=0.1).held == 2
    assert plan(facts(45) * 2).held % 2 == 0


def test_rows_for_evaluation_are_apart_and_what_they_share_is_told(base: Path, tmp_path: Path) -> None:
    plans: list[Any] = []
    data = write_rows(tmp_path / "d.jsonl", facts(12))
    held = write_rows(tmp_path / "e.jsonl", [facts(3)[2], {"prompt": "a hen said", "completion": " good morning."}])
    with pytest.raises(RecipeError, match="nothing was trained"):
        tune(base, data, eval=held, out=tmp_path / "o", approve=lambda p: plans.append(p))
    assert (plans[0].examples, plans[0].held) == (12, 2)
    assert any(note.startswith("1 of 2 held rows") for note in plans[0].notes)


def test_a_disk_that_cannot_be_written_is_told(base: Path, data: Path, tmp_path: Path) -> None:
    from brolly.train.tuning.examples import Examples

    (tmp_path / "o").write_text("a file where the folder should be")
    with pytest.raises(CheckpointError, match="cannot be written"):
        Examples([], None, [], tmp_path / "o" / "examples")


def test_bad_rows_are_told_and_all_bad_is_an_error(base: Path, tmp_path: Path) -> None:
    rows = facts(12)
    rows[3] = {"prompt": 7, "completion": "x"}
    rows[5]["prompt"] = "fox " * 300
    plans: list[Any] = []
    with pytest.raises(RecipeError, match="nothing was trained"):
        tune(base, write_rows(tmp_path / "d.jsonl", rows), out=tmp_path / "o", approve=lambda p: plans.append(p))
    assert plans[0].examples == 10 and plans[0].bad == 2
    assert any("line 6" in note and "context" in note for note in plans[0].notes) and "line 4" in str(plans[0])
    with pytest.raises(RecipeError, match=r"no row to learn from; the first: .*line 1.*context's 8 tokens"):
        long = write_rows(tmp_path / "e.jsonl", [{"prompt": "fox " * 9, "completion": "x"}])
        tune(base, long, out=tmp_path / "p", context=8)
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(RecipeError, match="empty"):
        tune(base, tmp_path / "empty.jsonl", out=tmp_path / "p")


def test_all_examples_longer_than_the_context_are_told(base: Path, tmp_path: Path) -> None:
    plans: list[Any] = []
    rows = write_rows(tmp_path / "d.jsonl", [{"text": "a fox met a hen " * 100}] * 3)
    with pytest.raises(RecipeError):
        tune(base, rows, out=tmp_path / "o", approve=lambda p: plans.append(p))
    assert any("all examples are longer than 160 tokens" in note for note in plans[0].notes) and plans[0].cut == 3


def test_a_loss_that_is_no_number_names_the_row_and_keeps_what_was_learnt(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = NextToken.losses

    def spoilt(self: Any, part: Any) -> torch.Tensor:
        found = losses(self, part)
        marked = any(self.model.tokenizer.decode(one.ids).startswith("fox 9") for one in part)
        return found * math.nan if marked and self.network.training_step > 2 else found

    monkeypatch.setattr(NextToken, "losses", spoilt)
    seen = 0

    def count(event: dict[str, Any]) -> None:
        nonlocal seen
        seen += event["event"] == "step"
        torch.nn.Module.training_step = seen  # type: ignore[attr-defined]

    monkeypatch.setattr(torch.nn.Module, "training_step", 0, raising=False)
    with pytest.raises(RecipeError, match=r"the loss is nan at step \d+, of data.jsonl, line 10; .*before") as told:
        tune(base, data, out=tmp_path / "out", lora=Lora(rank=2), epochs=5, batch=4, held_out=0, progress=count)
    assert "--lr" in str(told.value)
    kept = load(base, device="cpu", dtype="float32").with_adapter(tmp_path / "out" / "before")
    assert kept.generate("fox", max_tokens=2).tokens


def test_a_full_disk_is_one_error_and_leaves_the_last_checkpoint(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    from brolly.checkpoint import safetensors
    from brolly.train.tuning.state import checkpoints

    rest = {"lora": Lora(rank=2), "steps": 6, "batch": 2, "held_out": 0, "save_every": 2}
    fsync, count = safetensors.os.fsync, 0

    def full(descriptor: int) -> None:
        nonlocal count
        count += 1
        if count > 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(safetensors.os, "fsync", full)
    with pytest.raises(DiskFull):
        tune(base, data, out=tmp_path / "out", **rest)
    monkeypatch.undo()
    assert [p.name for p in checkpoints(tmp_path / "out")] == ["step-00000002"]
    assert not [p for p in (tmp_path / "out").rglob("*") if p.name.endswith(".part")]
    assert tune(base, data, out=tmp_path / "out", resume=True, **rest).steps == 6


def test_folders_that_hold_something_else_are_refused(base: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("…")
    with pytest.raises(RecipeError, match=r"holds other things \(thesis.txt\)"):
        tune(base, data, out=tmp_path / "mine", **QUICK)
    with pytest.raises(RecipeError, match="is a file"):
        tune(base, data, out=data, **QUICK)
    tune(base, data, out=tmp_path / "done", lora=Lora(rank=1), **QUICK)
    with pytest.raises(RecipeError, match="holds a finished tuning"):
        tune(base, data, out=tmp_path / "done", **QUICK)
    assert tune(base, data, out=tmp_path / "done", resume=True, **QUICK).steps == 3
    with pytest.raises(OptionError, match="out is not given"):
        tune(base, data)


def test_an_adapter_is_tuned_further(base: Path, data: Path, tmp_path: Path) -> None:
    first = tune(base, data, out=tmp_path / "a", lora=Lora(rank=4, rslora=True), epochs=20, lr=1e-2, batch=4)
    events: list[dict[str, Any]] = []
    tune(base, data, out=tmp_path / "b", start=first, steps=1, batch=12, progress=events.append)
    begun = next(e["loss"] for e in events if e["event"] == "step")
    assert begun < 0.5
    settings = json.loads((tmp_path / "b" / "adapter_config.json").read_text())
    assert (settings["r"], settings["use_rslora"]) == (4, True)


def test_a_view_by_a_whole_model_is_refused(base: Path, data: Path, tmp_path: Path) -> None:
    whole = tune(base, data, out=tmp_path / "whole", lora=None, **QUICK)
    model = load(base, device="cpu")
    with pytest.raises(OptionError, match="is a whole model"):
        model.with_adapter(whole)
    with pytest.raises(CheckpointError):
        model.with_adapter(data)
    model.close()


def test_every_example_is_drawn_once_an_epoch() -> None:
    for n, size in ((10, 3), (7, 7), (100, 8)):
        seen = [i for step in range(n * 3 // size + 1) for i in drawn(step, size, n, seed=5)]
        for epoch in range(3):
            assert sorted(seen[epoch * n : (epoch + 1) * n]) == list(range(n))
    assert drawn(3, 4, 50, 0) != drawn(3, 4, 50, 1)


def test_names_are_no_markup_of_the_card_and_may_be_no_text(tmp_path: Path) -> None:
    strange = b"a|b`\n\n---\n<img src=x>[y](z)\x7f\xff"
    folder = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), strange)))
    folder.mkdir()
    data = write_rows(folder / os.fsdecode(strange.replace(b"/", b"") + b".jsonl"), facts(4))
    out = folder / "o`|\n# new"
    adapter = tune("mini-llm", data, out=out, steps=1, batch=1)
    card = (adapter.path / "README.md").read_text("utf-8")
    assert card.count("\n# ") == 1 and card.count("---\n") == 2 and card.count("```") == 2
    assert "<img" not in card.replace("\\<img", "") and "[y]" not in card
    assert [len(re.split(r"(?<!\\)\|", line)) for line in card.splitlines() if line.startswith("|")] == [4] * 10
    read_recipe(adapter.path / "recipe.toml")
