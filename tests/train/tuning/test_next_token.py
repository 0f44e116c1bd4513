"""Which tokens are learnt: completions, the assistant's turns by marks or by rendering, cuts; and that parts add up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from brolly.loader import load
from brolly.media.text import ChatTemplate
from brolly.rows import Completion, Conversation, RowFault, Text
from brolly.train.tuning.objectives.next_token import NextToken
from brolly.verbs import TuneOptions
from tests.run.checkpoints import CHATML, END, write_llama

MARKED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}{{ m.content }}"
    "<|im_end|>{% endgeneration %}{% else %}{{ m.content }}<|im_end|>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
STRIPPED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ m.content if loop.last or m.role != 'assistant' else m.content.split('</think>')[-1] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TALK = (
    {"role": "system", "content": "Be a fox."},
    {"role": "user", "content": "Once upon a time?"},
    {"role": "assistant", "content": "the hen said"},
    {"role": "user", "content": "and?"},
    {"role": "assistant", "content": "good morning, fox!"},
)


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Any:
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("base")
    write_llama(folder)
    return load(folder, device="cpu", dtype="float32", fused=False)


@pytest.fixture
def objective(student: Any) -> Any:
    student.tokenizer.template = ChatTemplate(CHATML)
    return NextToken(student, TuneOptions())


def row(value: Any) -> Any:
    return SimpleNamespace(number=0, where="data.jsonl, line 7", value=value, fields={})


def texts(objective: Any, value: Any) -> list[str]:
    """The stretches of an example that are learnt, as texts."""
    example = objective.example(row(value))
    tokenizer, found, run = objective.model.tokenizer, [], []
    for i, on in [*zip(example.ids, example.learnt, strict=True), (0, False)]:
        if on:
            run.append(i)
        elif run:
            found.append(tokenizer.decode(run, skip_special=False))
            run = []
    return found


def test_a_completion_is_read_as_run_reads_it_and_ends(objective: Any) -> None:
    example = objective.example(row(Completion("the fox", " met a hen")))
    before = objective.model.prompt_ids("the fox", None)
    assert example.ids[: len(before)] == before and not any(example.learnt[: len(before)])
    assert all(example.learnt[len(before) :]) and example.ids[-1] == objective.model.tokenizer.eos_id
    assert texts(objective, Completion("the fox", " met a hen")) == [f" met a hen{END}"]


def test_a_token_across_the_border_is_cut_there(objective: Any) -> None:
    """ "fox" may be one token; behind the prompt "fo" the model must write "x"."""
    assert texts(objective, Completion("the fo", "x")) == [f"x{END}"]


def test_a_text_is_learnt_whole_but_for_its_first_token(objective: Any) -> None:
    example = objective.example(row(Text("the fox met a hen")))
    assert not example.learnt[0] and all(example.learnt[1:])


@pytest.mark.parametrize("template", [CHATML, MARKED])
def test_answers_alone_are_learnt_each_to_its_end(objective: Any, template: str) -> None:
    objective.model.tokenizer.template = ChatTemplate(template)
    assert texts(objective, Conversation(TALK)) == [f"the hen said{END}", f"good morning, fox!{END}"]
    example = objective.example(row(Conversation(TALK)))
    prompt = objective.model.tokenizer.encode_chat(TALK[:2])
    assert list(example.ids[: len(prompt)]) == prompt and not any(example.learnt[: len(prompt)])


@pytest.mark.parametrize("template", [CHATML, MARKED])
def test_an_answer_of_weight_0_is_read_and_not_learnt(objective: Any, template: str) -> None:
    objective.model.tokenizer.template = ChatTemplate(template)
    talk = (*TALK[:2], {**TALK[2], "weight": 0}, *TALK[3:])
    assert texts(objective, Conversation(talk)) == [f"good morning, fox!{END}"]
    example, plain = objective.example(row(Conversation(talk))), objective.example(row(Conversation(TALK)))
    assert example.ids == plain.ids


def test_answers_that_are_written_otherwise_later_are_counted_not_learnt(objective: Any) -> None:
    objective.model.tokenizer.template = ChatTemplate(STRIPPED)
    talk = (*TALK[:2], {"role": "assistant", "content": "old</think>the hen"}, *TALK[3:])
    assert texts(objective, Conversation(talk)) == [f"good morning, fox!{END}"]
    assert objective.lost == 1


def test_all_tokens_are_learnt_where_that_is_asked(student: Any) -> None:
    student.tokenizer.template = ChatTemplate(CHATML)
    objective = NextToken(student, TuneOptions(train_on="all"))
    example = objective.example(row(Completion("the fox", " met a hen")))
    assert all(example.learnt[1:])


def test_tools_reach_the_template(objective: Any) -> None:
    objective.model.tokenizer.template = ChatTemplate("{% for t in tools %}{{ t.function.name }};{% endfor %}" + CHATML)
    tools = ({"type": "function", "function": {"name": "dig"}},)
    example = objective.example(row(Conversation(TALK[1:3], tools)))
    assert objective.model.tokenizer.decode(example.ids, skip_special=False).startswith("dig;<|im_start|>user")
    assert texts(objective, Conversation(TALK[1:3], tools)) == [f"the hen said{END}"]


def test_a_long_example_keeps_its_answers_start(student: Any) -> None:
    objective = NextToken(student, TuneOptions(context=8))
    example = objective.example(row(Completion("the fox", " met a hen" * 20)))
    assert len(example.ids) == 8 and example.cut and any(example.learnt)
    with pytest.raises(RowFault, match=r"line 7: what is to be learnt begins behind the context's 8 tokens"):
        objective.example(row(Completion("the fox met " * 9, "a hen")))


def test_rows_that_teach_nothing_say_so(objective: Any) -> None:
    silent = (TALK[1], {**TALK[2], "weight": 0})
    with pytest.raises(RowFault, match="nothing in it is learnt"):
        objective.example(row(Conversation(silent)))
    with pytest.raises(RowFault, match="no message is the assistant's"):
        objective.example(row(Conversation(TALK[:2])))
    objective.model.tokenizer.template = ChatTemplate("{{ raise_exception('no system') }}")
    with pytest.raises(RowFault, match="line 7: The chat template refuses this conversation: no system"):
        objective.example(row(Conversation(TALK)))


def test_a_huge_row_is_not_tokenised_whole(student: Any) -> None:
    objective = NextToken(student, TuneOptions(context=8))
    seen: list[int] = []
    encode = student.tokenizer.encode
    student.tokenizer.encode = lambda text, **how: seen.append(len(text)) or encode(text, **how)
    try:
        objective.example(row(Text("a fox " * 2_000_000)))
    finally:
        del student.tokenizer.encode
    assert max(seen) < 10_000


def test_parts_of_any_size_give_one_gradient(objective: Any) -> None:
    """Packed together, one by one, and by halves: the same loss and the same gradients."""
    student = objective.model
    student.network.requires_grad_(True)
    values = [
        Completion("the fox", " met a hen"),
        Text("good morning"),
        Conversation(TALK),
        Completion("a", " b c d e f"),
    ]
    examples = [objective.example(row(value)) for value in values]
    total = sum(map(objective.weight, examples))

    def gradients(parts: list[list[Any]]) -> tuple[float, list[torch.Tensor]]:
        student.network.zero_grad(set_to_none=True)
        loss = objective.backward(parts, total)
        return float(loss), [p.grad for p in student.network.parameters()]

    loss, whole = gradients([examples])
    for parts in ([[one] for one in examples], [examples[:2], examples[2:]]):
        again, found = gradients(parts)
        assert again == pytest.approx(loss, rel=1e-6)
        for a, b in zip(found, whole, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    measured = objective.measure(examples)["loss"]
    assert measured[0] / measured[1] == pytest.approx(loss, rel=1e-5) and measured[1] == total
    student.network.requires_grad_(False)
    student.network.zero_grad(set_to_none=True)
