"""Preferences: losses, rewards and gradients are TRL's; rows that prefer nothing are told; tuning moves preferences."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

import brolly
from brolly.errors import OptionError, RecipeError
from brolly.rows import RowFault, open_rows
from brolly.train.tuning.objectives import choose
from brolly.train.tuning.objectives.preference import dpo, hinge, ipo, kto, log1mexp, orpo
from brolly.verbs import Lora, TuneOptions
from tests.train.tuning.beside_trl import check_gradients, learnt, needs_trl, trl_trainer

PAIRS = [
    {"prompt": "Tell me of a fox.", "chosen": " The fox ran home.", "rejected": " A fox? No."},
    {"prompt": "And of an owl, please.", "chosen": " It slept.", "rejected": " The owl flew over the hill to the sea."},
    {"prompt": "What did the hare eat?", "chosen": " Soup, all of it.", "rejected": " Nothing."},
    {"prompt": "Who came by?", "chosen": " The mole came by, and it sang.", "rejected": " Nobody came by today."},
]
JUDGED = [
    {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
    for row, side in zip(PAIRS, ("chosen", "rejected", "rejected", "chosen"), strict=True)
]


@needs_trl
@pytest.mark.parametrize("name", ["dpo", "ipo", "hinge"])
def test_losses_rewards_and_gradients_are_those_of_trl(name: str, tmp_path: Path) -> None:
    objective, examples, model, layers = learnt(PAIRS, objective=name, beta=0.3)
    loss = objective.backward([examples[:2], examples[2:]], 4.0)
    kind = {"dpo": "sigmoid"}.get(name, name)
    trainer = trl_trainer("DPO", PAIRS, layers, tmp_path, beta=0.3, loss_type=[kind])
    batch = next(iter(trainer.get_train_dataloader()))
    expected = trainer.compute_loss(trainer.model, batch)
    expected.backward()
    assert float(loss) == pytest.approx(expected.item(), abs=1e-5)
    check_gradients(layers, trainer)
    found = {key: total / n for key, (total, n) in objective.measure(examples).items()}
    told = {key: values[-1] for key, values in trainer._metrics["train"].items()}
    for ours, theirs in (
        ("chosen", "chosen"),
        ("rejected", "rejected"),
        ("accuracy", "accuracies"),
        ("margin", "margins"),
    ):
        assert found[ours] == pytest.approx(told[f"rewards/{theirs}"], abs=1e-5)
    assert found["loss"] == pytest.approx(expected.item(), abs=1e-5)


@needs_trl
def test_kto_is_that_of_trl_with_its_estimate_of_the_drift(tmp_path: Path) -> None:
    objective, examples, model, layers = learnt(JUDGED, beta=0.3)
    for _ in range(3):  # towards the strays, until they are likelier than they were and the estimate is not cut at 0
        (-objective.answers.log_probs([one.stray for one in examples]).sum()).backward()
        for parameter in (p for layer in layers.values() for p in layer.parameters() if p.requires_grad):
            parameter.data -= 1e-3 * parameter.grad
            parameter.grad = None
    loss = objective.backward([examples[:3], examples[3:]], 4.0)
    trainer = trl_trainer("KTO", JUDGED, layers, tmp_path, beta=0.3, train_sampling_strategy="sequential")
    batch = next(iter(trainer.get_train_dataloader()))
    expected = trainer.compute_loss(trainer.model, batch)
    expected.backward()
    told = {key: values[-1] for key, values in trainer._metrics["train"].items()}
    assert objective.drift([examples]) == pytest.approx(told["kl"], abs=1e-4) and told["kl"] > 0.1
    assert float(loss) == pytest.approx(expected.item(), abs=1e-5)
    check_gradients(layers, trainer)
    found = {key: total / n for key, (total, n) in objective.measure(examples).items()}
    assert found["good"] == pytest.approx(told["rewards/chosen"], abs=1e-5)
    assert found["bad"] == pytest.approx(told["rewards/rejected"], abs=1e-5)


@needs_trl
def test_orpo_is_that_of_trl_where_it_takes_the_mean_of_one_pair(tmp_path: Path) -> None:
    objective, examples, model, layers = learnt(PAIRS[:1], objective="orpo", beta=0.3, train_on="all")
    loss = objective.backward([examples], 1.0)
    trainer = trl_trainer("ORPO", PAIRS[:1], layers, tmp_path, beta=0.3)
    batch = next(iter(trainer.get_train_dataloader()))
    expected, told = trainer.get_batch_loss_metrics(trainer.model, batch)
    expected.backward()
    assert float(loss) == pytest.approx(expected.item(), abs=1e-5)
    check_gradients(layers, trainer)
    found = {key: total / n for key, (total, n) in objective.measure(examples).items()}
    assert found["margin"] == pytest.approx(told["rewards/margins"], abs=1e-5)
    assert found["chosen"] == pytest.approx(told["rewards/chosen"], abs=1e-5)


def test_losses_are_what_the_papers_say_of_probabilities() -> None:
    p, q = torch.tensor([0.3, 0.6]), torch.tensor([0.2, 0.7])  # of chosen and rejected
    gain = torch.log(p / q)
    odds = (p / (1 - p)) / (q / (1 - q))
    assert torch.allclose(dpo(gain, 0.5), -torch.log(1 / (1 + torch.exp(-0.5 * gain))))
    assert torch.allclose(dpo(gain, 0.5, 0.2), 0.8 * dpo(gain, 0.5) + 0.2 * dpo(-gain, 0.5))
    assert torch.allclose(hinge(gain, 2.0), torch.tensor([1 - 2 * math.log(1.5), 1 - 2 * math.log(6 / 7)]).clamp(min=0))
    assert torch.allclose(ipo(gain, 0.5), (gain - 1) ** 2)
    assert torch.allclose(orpo(p.log(), q.log(), torch.zeros(2), 1.0), -torch.log(odds / (1 + odds)), atol=1e-6)
    good = torch.tensor([True, False])
    value = torch.tensor([1 / (1 + math.exp(-(0.7 - 0.2))), 1 / (1 + math.exp(-(0.2 - 0.7)))])
    assert torch.allclose(kto(torch.tensor([0.7, 0.7]), good, 0.2, 1.0), 1 - value)


@pytest.mark.parametrize("x", [-1e-6, -1e-3, -0.5, -0.7, -3.0, -80.0])
def test_log1mexp_is_exact_at_both_ends_with_a_finite_gradient(x: float) -> None:
    given = torch.tensor(x, requires_grad=True)
    found = log1mexp(given)
    found.backward()
    exact = float(given.detach())  # as float32 has it
    assert found.item() == pytest.approx(math.log(-math.expm1(exact)), rel=1e-5, abs=1e-12)
    assert given.grad.item() == pytest.approx(-math.exp(exact) / -math.expm1(exact), rel=1e-4, abs=1e-12)


def test_the_reference_is_what_the_untouched_model_says_also_of_rows_apart() -> None:
    objective, examples, model, _ = learnt(PAIRS)
    apart = open_rows([{**row, "chosen": " Once."} for row in PAIRS])  # other rows of the same numbers
    objective.prepare(apart, range(4))
    base = brolly.load("mini-llm", dtype="float32")

    def said(tokens: Any) -> float:
        told = base.score(list(tokens.ids)).logprobs
        return sum(p for p, on in zip(told, tokens.learnt, strict=True) if on)

    for example in examples:
        expected = [said(example.chosen), said(example.rejected)]
        assert list(example.reference) == pytest.approx(expected, abs=1e-3)
    other = objective.example(apart[0])
    assert other.reference[1] != pytest.approx(examples[0].reference[1], abs=1e-3)  # by the network as it was then
    assert objective.example(open_rows(PAIRS)[1]).reference == examples[1].reference


def test_of_a_conversation_the_last_answer_alone_counts() -> None:
    talk = [
        {"role": "user", "content": "Hello!"},
        {"role": "assistant", "content": "Hello to you."},
        {"role": "user", "content": "A story?"},
    ]
    rows = [{"prompt": talk, "chosen": [{"role": "assistant", "content": "Gladly."}],
             "rejected": [{"role": "assistant", "content": "No."}]}]  # fmt: skip
    _, [example], model, _ = learnt(rows)
    for tokens, answer in ((example.chosen, "Gladly."), (example.rejected, "No.")):
        written = [i for i, on in zip(tokens.ids, tokens.learnt, strict=True) if on]
        assert written[-1] in model.stop_ids and model.tokenizer.decode(written[:-1]).strip() == answer


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"chosen": " word" * 600 + "!", "rejected": " word" * 600 + "?"}, "the same within the context"),
        ({"rejected": [{"role": "assistant", "content": "No."}]}, "text"),
        ({"prompt": "word " * 600}, "context"),
    ],
)
def test_a_row_that_prefers_nothing_is_told_with_its_place(change: dict[str, Any], words: str) -> None:
    objective, _, _, _ = learnt(PAIRS)
    rows = open_rows([PAIRS[0], {**PAIRS[0], **change}, PAIRS[1]])
    with pytest.raises(RowFault, match=f"row 2: .*({words})"):
        objective.example(rows[1])
    objective.prepare(rows, range(3))  # the others are not held up


@pytest.mark.parametrize(
    ("options", "words"),
    [({"objective": "ipo", "smoothing": 0.1}, "ipo has none"), ({"objective": "ipo", "beta": 0.0}, "divides by it")],
)
def test_options_that_an_objective_cannot_mean_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        choose(brolly.load("mini-llm"), "preference", TuneOptions(**options))


def test_an_objective_that_the_rows_do_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="preference"):
        brolly.tune("mini-llm", PAIRS, out=tmp_path / "out", objective="kto")


def test_tuning_moves_preferences_on_pairs_that_were_held_out(tmp_path: Path) -> None:
    """Base and tuned do not overlap, by intervals; a run that is resumed asks the same reference."""
    from brolly.measure import evaluate

    rows = [
        {"prompt": f"There was a little {animal} named {name}.", "chosen": f" {name} lived {place}. Oh, what a day!",
         "rejected": f" {name} lived {place}. It was a day."}
        for animal in ("fox", "owl", "cat", "dog") for name in ("Pip", "Luma", "Tiko")
        for place in ("by the sea", "in a town", "on a farm", "near a lake")
    ]  # fmt: skip
    held = rows[::2]
    adapter = brolly.tune(
        "mini-llm", rows[1::2], out=tmp_path / "out", eval=held, lora=Lora(rank=4), steps=6, batch=8, lr=2e-3,
        eval_every=6,
    )  # fmt: skip
    assert adapter.measures["accuracy"] == 1.0 and adapter.measures["margin"] > 1
    model = brolly.load("mini-llm")
    base, tuned = (evaluate(one, open_rows(held))["chosen is likelier"] for one in (model, model.with_adapter(adapter)))
    assert base.high < tuned.low and tuned.value >= 0.9


@pytest.mark.parametrize("rows", [PAIRS, JUDGED], ids=["dpo", "kto"])
def test_a_run_that_is_resumed_asks_the_reference_of_the_first(rows: Any, tmp_path: Path) -> None:
    def torn(event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["step"] == 3:
            raise RuntimeError("torn")

    options: dict[str, Any] = {"steps": 3, "batch": 2, "save_every": 2, "lora": Lora(rank=2)}
    whole = brolly.tune("mini-llm", rows, out=tmp_path / "whole", **options)
    with pytest.raises(RuntimeError, match="torn"):
        brolly.tune("mini-llm", rows, out=tmp_path / "parts", progress=torn, **options)
    parts = brolly.tune("mini-llm", rows, out=tmp_path / "parts", resume=True, **options)
    name = "adapter_model.safetensors"
    assert (Path(parts) / name).read_bytes() == (Path(whole) / name).read_bytes()
