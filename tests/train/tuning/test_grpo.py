"""Rewards: the loss is TRL's, answers are the network's own as it is now, and what a reward asks for is learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import brolly
from brolly.engine.cache import Causal
from brolly.errors import BrollyError, NotFound, OptionError, RecipeError
from brolly.rows import RowFault, open_rows
from brolly.train.tuning.examples import Tokens
from brolly.train.tuning.lora import switched_off
from brolly.train.tuning.objectives import choose
from brolly.train.tuning.objectives.grpo import Answered, advantages, divergence, surrogate
from brolly.train.tuning.objectives.rewards import judged, reward_of
from brolly.train.tuning.objectives.sampling import loras, merged
from brolly.verbs import Lora, TuneOptions
from tests.train.tuning.beside_trl import check_gradients, needs_trl, student, trl_trainer

PROMPTS = [{"prompt": f"Once there was a little {animal}.", "word": animal} for animal in ("fox", "owl", "cat", "hare")]


def long(prompt: str, completions: list[str]) -> list[float]:
    return [float(len(one)) for one in completions]


def objective_of(model: Any, **options: Any) -> Any:
    given = {"reward": long, "samples": 4, "max_tokens": 6, **options}
    return choose(model, "prompted", TuneOptions(**given))


def asked(objective: Any, rows: Any = PROMPTS) -> list[Any]:
    return [objective.example(row) for row in open_rows(rows, shape="prompted")]


@needs_trl
@pytest.mark.parametrize(("name", "theirs"), [("grpo", "grpo"), ("dapo", "dapo"), ("dr-grpo", "dr_grpo")])
def test_the_loss_and_its_gradients_are_those_of_trl(name: str, theirs: str, tmp_path: Path) -> None:
    model, layers = student()
    objective = objective_of(model, objective=name, beta=0.1, reach=0.1)
    answers = [" He ran.", " She was very small, but", " The end", " No"]
    gains = advantages(torch.tensor([[1.0, 0.0, 0.5, 0.0]]), name != "dr-grpo")[0]
    prompt = model.tokenizer.encode("Once there was a little fox.")
    found = []
    for answer, gain in zip(answers, gains.tolist(), strict=True):
        ids = model.tokenizer.encode(answer, special=False)
        tokens = Tokens([*prompt, *ids], [False] * len(prompt) + [True] * len(ids))
        found.append(Answered(tokens, gain))
    torch.manual_seed(1)
    old = [log_p + 0.2 * torch.randn_like(log_p) for log_p in objective.said(found)]  # so that some are cut off
    with switched_off(model.network):
        reference = objective.said(found)
    found = [one._replace(old=o, reference=r) for one, o, r in zip(found, old, reference, strict=True)]
    loss = objective.backward([found[:2], found[2:]], sum(map(objective.weight, found)))

    config = {"num_generations": 4, "max_completion_length": 6, "beta": 0.1, "epsilon": 0.1, "loss_type": theirs}
    rows = [{"prompt": "Once there was a little fox."}] * 4
    trainer = trl_trainer("GRPO", rows, layers, tmp_path, reward_funcs=lambda completions, **_: [0.0], **config)
    trainer.current_gradient_accumulation_steps = 1
    lengths = [len(o) for o in old]

    def padded(rows: list[Any], fill: float = 0) -> torch.Tensor:
        return torch.tensor([[*map(float, row), *[fill] * (max(lengths) - len(row))] for row in rows])

    mask = padded([[1] * n for n in lengths]).long()
    batch = {
        "prompt_ids": torch.tensor([prompt] * 4), "prompt_mask": torch.ones(4, len(prompt), dtype=torch.long),
        "completion_ids": padded([one.tokens.ids[len(prompt) :] for one in found]).long(), "completion_mask": mask,
        "advantages": gains, "old_per_token_logps": padded(old), "ref_per_token_logps": padded(reference),
        "num_items_in_batch": mask.sum(),
    }  # fmt: skip
    trainer.model.train()
    expected = trainer._compute_loss(trainer.model, batch)
    expected.backward()
    assert trainer._metrics["train"]["clip_ratio/region_mean"][-1] > 0
    assert float(loss) == pytest.approx(expected.item(), abs=1e-5)
    check_gradients(layers, trainer)


def test_advantages_and_clipping_are_what_the_papers_say() -> None:
    rewards = torch.tensor([[1.0, 3.0], [2.0, 2.0]])
    assert torch.allclose(advantages(rewards), torch.tensor([[-0.7071, 0.7071], [0, 0]]), atol=1e-4)
    assert torch.equal(advantages(rewards, scaled=False), torch.tensor([[-1.0, 1.0], [0, 0]]))
    old, gain = torch.zeros(4), torch.tensor([1.0, 1.0, -1.0, -1.0])
    ratio = torch.tensor([1.1, 1.5, 0.9, 0.5], requires_grad=True)
    loss = surrogate(ratio.log(), old, gain, 0.2)
    assert torch.allclose(loss, torch.tensor([-1.1, -1.2, 0.9, 0.8]))
    loss.sum().backward()
    assert torch.equal(ratio.grad == 0, torch.tensor([False, True, False, True]))  # nothing draws further
    assert torch.all(divergence(torch.tensor([-1.0, -2.0]), torch.tensor([-1.0, -3.0])) >= 0)


@pytest.mark.parametrize(("dtype", "within"), [("float32", 0.2), ("bfloat16", 0.6)])
def test_answers_are_the_networks_own_with_its_lora_as_it_is_now(dtype: str, within: float) -> None:
    model, layers = student(dtype)
    objective = objective_of(model, temperature=0.01)  # all but certain to take the likeliest
    before = objective.write(asked(objective), 2, "0")
    for layer in layers.values():
        torch.nn.init.normal_(layer.lora_B, std=0.3)
    after = objective.write(asked(objective), 2, "0")
    for prompt, group in zip(asked(objective), after, strict=True):
        for one in group:
            ids = torch.tensor([[*prompt.ids, *one.tokens]])
            with torch.no_grad():
                hidden = model.network(ids, torch.arange(ids.shape[1])[None], Causal(model.network.config))
                logits = model.network.logits(hidden[0, len(prompt.ids) - 1 : -1])
            chosen = logits.gather(1, torch.tensor(one.tokens)[:, None])[:, 0]
            assert torch.all(logits.amax(1) - chosen < within)  # less likely ones have exp(-20) at this temperature
            assert model.tokenizer.decode(one.tokens) == one.text
    assert before != after


@pytest.mark.parametrize("dora", [False, True])
def test_a_merged_network_says_what_the_trained_one_says(dora: bool) -> None:
    model, _ = student(dora=dora)
    plain = merged(model.network, loras(model.network))
    ids, places = torch.arange(100, 140)[None], torch.arange(40)[None]
    with torch.no_grad():
        ours, theirs = (one(ids, places, Causal(one.config)) for one in (plain, model.network))
    assert torch.allclose(ours, theirs, atol=1e-4)
    model.network.model.norm = torch.nn.Sequential(model.network.model.norm)
    assert merged(model.network, loras(model.network)) is None


def test_an_answers_end_is_learnt_and_the_same_seed_writes_the_same() -> None:
    model, _ = student()
    objective = objective_of(model, max_tokens=40, samples=8)
    rows = [{"prompt": "“Good night,” said the owl. And they lived happily ever after."}]
    found = objective.write(asked(objective, rows), 8, "0")
    ended = [one for one in found[0] if one.ended]
    assert ended and all(one.tokens[-1] in model.stop_ids for one in ended)
    assert all(len(one.tokens) == 40 for one in found[0] if not one.ended)
    assert found == objective.write(asked(objective, rows), 8, "0")
    assert len({one.text for one in found[0]}) > 1


def test_a_group_of_equal_rewards_teaches_nothing() -> None:
    model, layers = student()
    objective = objective_of(model, reward=lambda prompt, completions: [1.0] * len(completions))
    answers = objective.sample(asked(objective), 0)
    assert len(answers) == 16 and objective.noted["reward"] == 1 and objective.noted["deviation"] == 0
    assert float(objective.backward([answers], sum(map(objective.weight, answers)))) == 0
    assert all(layer.lora_A.grad is None for layer in layers.values())


def test_several_updates_learn_from_one_sampling_and_know_how_it_was_written() -> None:
    model, layers = student()
    objective = objective_of(model, updates=2)
    first = objective.sample(asked(objective), 0)
    assert objective.sample(asked(objective), 1) is first
    for layer in layers.values():
        layer.lora_B.data *= 1.1
    now = objective.said(first)
    assert all(not torch.allclose(a, b.old) for a, b in zip(now, first, strict=True))
    assert objective.sample(asked(objective), 2) is not first


def test_a_reward_gets_the_columns_that_it_names() -> None:
    seen = []

    def word(prompt: str, completions: list[str], word: str) -> list[float]:
        seen.append((prompt, len(completions), word))
        return [1.0] * len(completions)

    model, _ = student()
    objective = objective_of(model, reward=word)
    objective.sample(asked(objective), 0)
    assert seen == [(row["prompt"], 4, row["word"]) for row in PROMPTS]


@pytest.mark.parametrize(
    ("reward", "words"),
    [
        (lambda prompt, completions: [1.0], "1 numbers for 2"),
        (lambda prompt, completions: [float("nan"), 1.0], "finite"),
        (lambda prompt, completions: 1 / 0, "ZeroDivisionError"),
        (lambda prompt, completions, missing: [1.0, 1.0], "missing"),
    ],
)
def test_a_reward_that_fails_is_told_with_its_row(reward: Any, words: str) -> None:
    with pytest.raises(RecipeError, match=f"line 7: .*{words}"):
        judged(reward, "data.jsonl, line 7", "Hello", ["a", "b"], {})


def test_a_reward_is_found_by_its_files_name(tmp_path: Path) -> None:
    file = tmp_path / "rewards.py"
    file.write_text("def short(prompt, completions):\n    return [-len(c) for c in completions]\nnumber = 3\n")
    assert reward_of(f"{file}:short")("", ["ab"]) == [-2]
    (tmp_path / "broken.py").write_text("1 / 0")
    for given, kind, words in (
        (None, OptionError, "--reward"),
        ("short", OptionError, "file.py:function"),
        (f"{tmp_path}/none.py:short", NotFound, "does not exist"),
        (f"{file}:number", OptionError, "no function number"),
        (f"{tmp_path}/broken.py:short", OptionError, "ZeroDivisionError"),
    ):
        with pytest.raises(kind, match=words):
            reward_of(given)


def test_what_cannot_be_learnt_so_is_refused_before_a_step(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="reward"):
        brolly.tune("mini-llm", PROMPTS, out=tmp_path / "a", shape="prompted")
    with pytest.raises(BrollyError, match="second network"):
        brolly.tune("mini-llm", PROMPTS, out=tmp_path / "b", shape="prompted", reward=long, beta=0.1, lora=None)
    model, _ = student()
    rows = open_rows([PROMPTS[0], {"prompt": "word " * 600}], shape="prompted")
    with pytest.raises(RowFault, match="row 2"):
        objective_of(model).example(rows[1])


def test_what_a_reward_asks_for_is_learnt_on_prompts_that_were_held_out(tmp_path: Path) -> None:
    """That the story goes on with her: base about a third, tuned nearly all, by intervals that do not overlap."""
    from brolly.measure.intervals import wilson

    def she(prompt: str, completions: list[str]) -> list[float]:
        return [float(one.startswith(" She")) for one in completions]

    rows = [
        {"prompt": f"Once upon a time there was a {size} {animal} named {name}."}
        for size in ("little", "small")
        for animal in ("fox", "owl", "cat", "dog", "bear")
        for name in ("Pip", "Luma", "Tiko", "Milo", "Nora")
    ]
    events: list[dict[str, Any]] = []
    adapter = brolly.tune(
        "mini-llm", rows[::2], out=tmp_path / "out", eval=rows[1::2], shape="prompted", reward=she, samples=8, batch=8,
        max_tokens=2, steps=12, lr=2e-3, lora=Lora(rank=4), eval_every=12, progress=events.append,
    )  # fmt: skip
    rewards = [event["reward"] for event in events if event["event"] == "step"]
    assert rewards[0] < 0.6 < 0.9 < rewards[-1]
    n = len(rows[1::2])
    model = brolly.load("mini-llm", fused=False)
    objective = objective_of(model, reward=she, max_tokens=2)
    base = objective.measure(asked(objective, rows[1::2]))["reward"][0]
    assert wilson(round(base), n)[1] < wilson(round(adapter.measures["reward"] * n), n)[0]
    assert model.generate(rows[1]["prompt"], adapter=adapter.path, max_tokens=1, temperature=0).text == " She"
