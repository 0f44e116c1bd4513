"""What a language model is measured by: its log-probabilities are the network's own, its answers the likeliest."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import brolly
from brolly.errors import BrollyError, OptionError, UnsupportedTask
from brolly.measure import compare, evaluate
from brolly.measure.language import expected_of, told_of
from brolly.measure.likelihood import Likelihood, Told
from brolly.rows import Completion, Conversation, Text

ASKED = [{"role": "user", "content": "Tell me a story about a fox."}, {"role": "assistant", "content": "A fox ran."}]


@pytest.fixture(scope="module")
def model() -> Any:
    return brolly.load("mini-llm", device="cpu", dtype="float32")


def nlls(model: Any, ids: list[int], first: int) -> list[float]:
    """-log p of the tokens from `first` on, by one pass of the network."""
    from brolly.engine.cache import Causal

    with torch.inference_mode():
        row = torch.tensor([ids])
        hidden = model.network(row, torch.arange(len(ids))[None], Causal(model.network.config))
        logits = model.network.logits(hidden).double().log_softmax(-1)[0]
    return [-logits[i - 1, ids[i]].item() for i in range(first, len(ids))]


def test_a_completion_is_told_of_given_its_prompt_and_with_its_end(model: Any) -> None:
    row = {"prompt": "Once upon a time", "completion": " there was a fox."}
    report = evaluate(model, [row], generate=False)
    prompt, whole = (model.tokenizer.encode(text) for text in (row["prompt"], row["prompt"] + row["completion"]))
    wanted = nlls(model, [*whole, model.tokenizer.eos_id], len(prompt))
    assert report["perplexity"].value == pytest.approx(math.exp(sum(wanted) / len(wanted)), rel=1e-4)
    assert report["bits per byte"].value == pytest.approx(sum(wanted) / math.log(2) / 17, rel=1e-4)
    assert [one.name for one in report.measures] == ["perplexity", "bits per byte"]


def test_a_text_longer_than_the_context_passes_in_windows(model: Any) -> None:
    text = "The fox ran to the old tree. " * 150
    (found,) = Likelihood(model).of([Text(text)])
    assert isinstance(found, Told)
    ids = [model.tokenizer.eos_id, *model.tokenizer.encode(text)]
    context = model.network.config.context
    assert len(ids) > 2 * context
    wanted, told = 0.0, 1
    while told < len(ids):
        begin = max(0, told - context // 2) if told > 1 else 0
        window = ids[begin : begin + context]
        wanted += sum(nlls(model, window, told - begin))
        told = begin + len(window)
    assert found.n_tokens == len(ids) - 1 and found.n_bytes == len(text)
    assert -found.logprob == pytest.approx(wanted, rel=1e-4)


def test_a_conversation_is_told_of_by_its_answers_alone(model: Any) -> None:
    likelihood = Likelihood(model)
    (part,) = likelihood.answers(Conversation(tuple(ASKED)))
    before, after = part.ids[: part.first], part.ids[part.first :]
    assert model.tokenizer.decode(before, skip_special=False).endswith("<|assistant|>\n")
    assert model.tokenizer.decode(after, skip_special=False) == "A fox ran.<|end|>" and part.n_bytes == 10
    twice = Conversation((*ASKED, *ASKED))
    parts = likelihood.answers(twice)
    assert len(parts) == 2 and parts[0] == part and parts[1].first > part.first
    unlearnt = Conversation((ASKED[0], {**ASKED[1], "weight": 0}, *ASKED))
    assert likelihood.answers(unlearnt) == parts[1:]
    wanted = [-sum(nlls(model, one.ids, one.first)) for one in parts]
    first, both = likelihood.of([Conversation(tuple(ASKED)), twice])
    assert isinstance(first, Told) and isinstance(both, Told)
    assert first.logprob == pytest.approx(wanted[0], rel=1e-4) and both.n_bytes == 20
    assert both.logprob == pytest.approx(sum(wanted), rel=1e-4)


def test_many_texts_are_told_of_as_each_alone(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    likelihood = Likelihood(model)
    texts = [Text("The fox ran home. " * n) for n in (1, 9, 3, 40, 2, 1, 7)]
    alone = [likelihood.of([text])[0] for text in texts]
    monkeypatch.setattr("brolly.measure.likelihood.TOKENS", 300)
    for one, other in zip(likelihood.of(texts), alone, strict=True):
        assert isinstance(one, Told) and isinstance(other, Told)
        assert one.logprob == pytest.approx(other.logprob, rel=1e-4)
        assert (one.n_tokens, one.n_bytes, one.greedy) == (other.n_tokens, other.n_bytes, other.greedy)
    (part,) = likelihood.parts(texts[1])
    assert likelihood._alone(part).logprob == pytest.approx(alone[1].logprob, rel=1e-4)  # type: ignore[union-attr]


@pytest.mark.parametrize("lengths", [(1, 2, 3), (1, 9, 30)])  # an engine adds adapters to few tokens in its own way
def test_an_adapter_is_measured_as_score_has_it(model: Any, tmp_path: Path, lengths: tuple[int, ...]) -> None:
    from safetensors.torch import save_file

    config, tensors = model.network.config, {}
    draw = torch.Generator().manual_seed(3)
    for layer in range(config.n_layers):
        name = f"base_model.model.model.layers.{layer}.mlp.down_proj"
        tensors[f"{name}.lora_A.weight"] = torch.randn(4, config.hidden_dim, generator=draw)
        tensors[f"{name}.lora_B.weight"] = torch.randn(config.dim, 4, generator=draw) * 0.02
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 4, "target_modules": ["down_proj"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    texts = [Text("The fox ran home. " * n) for n in lengths]
    adapted = model.with_adapter(tmp_path)
    likelihood, bare = Likelihood(adapted), Likelihood(model)
    for text, one, other in zip(texts, likelihood.of(texts), bare.of(texts), strict=True):
        assert isinstance(one, Told) and isinstance(other, Told)
        (part,) = likelihood.parts(text)
        assert one.logprob == pytest.approx(adapted.score(part.ids).total, rel=1e-4)
        assert abs(one.logprob - other.logprob) > 1e-2 * abs(other.logprob)
    report = evaluate(model, [{"text": text.text} for text in texts], adapter=tmp_path)
    assert report.model.endswith(f"with {tmp_path}")
    assert report["perplexity"].value != evaluate(model, [{"text": t.text} for t in texts])["perplexity"].value


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Once upon a", "completion": " time."}, {"prompt": "Once up", "completion": "on a time."},
        {"messages": ASKED}, {"messages": [*ASKED, *ASKED]},
        {"messages": [ASKED[0], {**ASKED[1], "weight": 0}, *ASKED]},
    ],
)  # fmt: skip
def test_what_is_told_of_is_what_tuning_learns(model: Any, row: dict[str, Any]) -> None:
    from brolly.rows import open_rows
    from brolly.train.tuning.objectives.next_token import NextToken
    from brolly.verbs import TuneOptions

    one = open_rows([row])[0]
    example = NextToken(model, TuneOptions()).example(one)
    learnt = [i for i, taught in zip(example.ids, example.learnt, strict=True) if taught]
    likelihood = Likelihood(model)
    parts = [likelihood.completion(one.value)] if "prompt" in row else likelihood.answers(one.value)  # type: ignore[arg-type]
    assert [i for part in parts for i in part.ids[part.first :]] == learnt


def test_answers_are_those_of_generate_and_scored(model: Any, tmp_path: Path) -> None:
    prompts = ["Once upon a time", "The fox", "One day, Tom"]
    rows: list[Any] = []
    for prompt in prompts:
        answer = model.generate(prompt, temperature=0.0, repetition_penalty=1.0, max_tokens=8).text
        rows.append({"prompt": prompt, "completion": answer})
    rows[1]["completion"] += " and never again"
    rows.append({"prompt": "x " * 3000, "completion": "y"})
    report = evaluate(model, rows, options={"max_tokens": 8}, out=tmp_path / "out")
    assert report["exact match"].value == pytest.approx(2 / 3) and 2 / 3 < report["F1"].value < 1
    assert report.n_failed == 1 and "row 4" in report.errors[0] and "tokens" in report.errors[0]
    lines = [json.loads(line) for line in (tmp_path / "out" / "rows.jsonl").read_text().splitlines()]
    assert [line["row"] for line in lines] == [0, 1, 2, 3] and lines[0]["answer"] == rows[0]["completion"]
    assert "error" in lines[3] and "answer" not in lines[3]
    chat = evaluate(model, [{"messages": ASKED}], options={"max_tokens": 4})
    assert chat["F1"].n == 1 and chat.notes[0] == "written by the likeliest token"


def test_few_answers_are_a_choice(model: Any) -> None:
    said = model.generate("The fox", temperature=0.0, repetition_penalty=1.0, max_tokens=4).text
    rows = [{"prompt": "The fox", "completion": said if i % 4 else " no"} for i in range(12)]
    report = evaluate(model, rows, options={"max_tokens": 4})
    assert report["accuracy"].value == 0.75 and "one of 2 answers" in report.notes[0]
    assert report["macro F1"].value == pytest.approx((2 * 9 / (2 * 9 + 3) + 0) / 2)


def test_labels_behind_texts_are_chosen_from(model: Any) -> None:
    rows = [{"text": "The boy was very, very", "label": label} for label in ("happy", "xylophone", "happy")]
    report = evaluate(model, rows)
    assert report["accuracy"].value == pytest.approx(2 / 3) and report.shape == "label"


def test_the_likelier_answer_is_preferred(model: Any) -> None:
    good, bad = " a time, there was a little girl.", " zebra of of the piano with."
    rows = [{"prompt": "Once upon", "chosen": good, "rejected": bad}] * 3
    rows += [{"prompt": "Once upon", "chosen": bad, "rejected": good}]
    report = evaluate(model, rows)
    assert report["chosen is likelier"].value == 0.75
    scores = report.scores[0]
    (of,) = Likelihood(model).of([Completion("Once upon", good)])
    assert isinstance(of, Told)
    assert scores["chosen"] == pytest.approx(of.logprob, rel=1e-4) and scores["chosen tokens"] == of.n_tokens
    judged = [{"prompt": "Once upon", "completion": c, "label": c == good} for c in (good, bad, good)]
    assert evaluate(model, judged)["good above bad"].value == 1
    messages = [{"prompt": ASKED[:1], "chosen": ASKED[1:], "rejected": [{**ASKED[1], "content": "zebra piano with."}]}]
    assert evaluate(model, messages)["chosen is likelier"].value == 1


def test_two_models_are_compared_on_the_rows_that_both_answer(model: Any) -> None:
    rows = [{"text": f"The fox ran {word}."} for word in ("home", "away", "up")]
    a = evaluate(model, rows, generate=False)
    b = evaluate(model, rows, generate=False, limit=2)
    with pytest.raises(OptionError, match="not the same data"):
        compare(a, evaluate(model, rows[:2], generate=False))
    found = compare(a, b)
    assert [(one.name, one.value, one.n) for one in found] == [("perplexity", 0, 2), ("bits per byte", 0, 2)]


def test_what_cannot_be_measured_is_told(model: Any) -> None:
    with pytest.raises(UnsupportedTask, match="is a Llama .*rows of the shape 'pair'"):
        evaluate(model, [{"query": "a", "positive": "b"}])
    with pytest.raises(BrollyError, match="none of the 1 rows"):
        evaluate(model, [{"prompt": "x " * 3000, "completion": "y"}], generate=False)
    with pytest.raises(OptionError, match="normalize is 'latin'"):
        evaluate(model, [{"text": "a"}], normalize="latin")
    with pytest.raises(OptionError, match="'preference', takes no max_tokens"):
        evaluate(model, [{"prompt": "a", "chosen": "b", "rejected": "c"}], options={"max_tokens": 3})
    with pytest.raises(OptionError, match="limit is 0"):
        evaluate(model, [{"text": "a"}], limit=0)


def test_calls_are_compared_by_name_and_arguments() -> None:
    calls = [{"type": "function", "function": {"name": "look", "arguments": '{"b": 1, "a": [2]}'}}]
    expected = expected_of(Conversation((ASKED[0], {"role": "assistant", "content": None, "tool_calls": calls})))
    assert expected == told_of("", [("look", '{"a":[2],"b":1}')]) != told_of("", [("look", '{"a":[3],"b":1}')])
    assert told_of("so", [("look", "no JSON")]) == 'so\n{"arguments": "no JSON", "name": "look"}'
