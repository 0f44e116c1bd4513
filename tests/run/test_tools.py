# ruff: noqa: E501 - a template stands on its line whole
"""Chats with tools and thoughts, end to end: a model that recites an answer, and one that is made to call."""

from __future__ import annotations

import json
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from brolly.errors import OptionError
from brolly.loader import load
from brolly.verbs import Piece
from tests.run.checkpoints import END, START, tokenizer, write_reciter

TEMPLATE = """{% for t in tools or [] %}{{ t.function.name }} {% endfor %}{% for m in messages %}<|im_start|>{{ m.role }}
{% if m.reasoning_content %}<think>
{{ m.reasoning_content }}
</think>

{% endif %}{{ m.content or '' }}{% for tc in m.tool_calls or [] %}
<tool_call>
{"name": "{{ tc.function.name }}", "arguments": {{ tc.function.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking %}<think>
{% endif %}{% endif %}"""
assert START in TEMPLATE and END in TEMPLATE
CITY = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 9}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": name, "parameters": CITY}} for name in ("rain", "snow")]
QUESTION = [{"role": "user", "content": "Rain?"}]


def reciter(folder: Path, answer: str, **asked: Any) -> Any:
    """A model that answers this question with this text."""
    write_reciter(folder, answer + END, template=TEMPLATE)
    n = len(load(folder, device="cpu").prepare_chat(QUESTION, **asked).prompt)
    ids = tokenizer().encode(answer + END).ids
    at = -n % len(ids)
    write_reciter(folder, ids[at:] + ids[:at], template=TEMPLATE)
    return load(folder, device="cpu", dtype="float32")


def through_engine(model: Any, **asked: Any) -> list[Piece]:
    found: list[Any] = []
    done = Event()

    def deliver(piece: Piece | BaseException) -> None:
        found.append(piece)
        if isinstance(piece, BaseException) or piece.finish_reason:
            done.set()

    model.submit(model.prepare_chat(QUESTION, **asked), deliver)
    assert done.wait(60) and not isinstance(found[-1], BaseException), found
    return found


ANSWER = (
    '<think>\nHm, rain.\n</think>\n\nI look.\n<tool_call>\n{"name": "rain", "arguments": {"city": "Rom"}}\n</tool_call>'
)


def test_thoughts_and_calls_are_told_apart_streamed_or_not(tmp_path: Path) -> None:
    model = reciter(tmp_path, ANSWER, tools=TOOLS)
    told = model.chat(QUESTION, tools=TOOLS, temperature=0)
    assert (told.text, told.reasoning, told.finish_reason) == ("I look.", "Hm, rain.", "tool_calls")
    assert [(c.name, c.arguments) for c in told.tool_calls] == [("rain", '{"city": "Rom"}')]
    thought = len(tokenizer().encode("<think>\nHm, rain.\n</think>").ids)
    assert 0 < told.usage.reasoning_tokens <= thought < told.usage.completion_tokens
    for pieces in (list(model.stream_chat(QUESTION, tools=TOOLS, temperature=0)),
                   through_engine(model, tools=TOOLS, temperature=0)):  # fmt: skip
        assert "".join(p.text for p in pieces) == told.text
        assert "".join(p.reasoning for p in pieces) == told.reasoning
        parts = [part for p in pieces for part in p.calls]
        assert "".join(part.arguments for part in parts) == '{"city": "Rom"}' and len(parts) > 2
        assert pieces[-1].finish_reason == "tool_calls" and pieces[-1].usage == told.usage
    model.close()


def test_an_answer_goes_on_from_thoughts_that_the_prompt_began(tmp_path: Path) -> None:
    asked = {"template": {"enable_thinking": True}}
    model = reciter(tmp_path, "Hm.\n</think>\n\nYes.", **asked)
    told = model.chat(QUESTION, temperature=0, **asked)
    assert (told.text, told.reasoning, told.finish_reason) == ("Yes.", "Hm.", "stop")
    assert model.chat(QUESTION, temperature=0, max_tokens=2, **asked).text == ""


def test_without_tools_or_with_none_chosen_a_call_is_text(tmp_path: Path) -> None:
    call = ANSWER.partition("I look.\n")[2]
    for asked in ({}, {"tools": TOOLS, "tool_choice": "none"}):
        model = reciter(tmp_path / str(len(asked)), call, **asked)
        told = model.chat(QUESTION, temperature=0, **asked)
        assert told.text == call and told.tool_calls == () and told.finish_reason == "stop"


def test_one_call_is_the_last_where_several_are_not_wanted(tmp_path: Path) -> None:
    call = ANSWER.partition("I look.\n")[2]
    model = reciter(tmp_path, f"{call}\n{call}", tools=TOOLS)
    assert len(model.chat(QUESTION, tools=TOOLS, temperature=0).tool_calls) == 2
    told = model.chat(QUESTION, tools=TOOLS, temperature=0, parallel_tool_calls=False)
    assert len(told.tool_calls) == 1 and told.finish_reason == "tool_calls"
    assert told.usage.completion_tokens < len(tokenizer().encode(call).ids)


def test_a_model_is_made_to_call() -> None:
    pytest.importorskip("llguidance")
    model = load("mini-llm", device="cpu")
    for choice, names in (
        ("required", {"rain", "snow"}),
        ({"type": "function", "function": {"name": "snow"}}, {"snow"}),
    ):
        told = model.chat(QUESTION, tools=TOOLS, tool_choice=choice, parallel_tool_calls=False, seed=3, max_tokens=150)
        assert told.finish_reason == "tool_calls" and told.text == "" and len(told.tool_calls) == 1
        assert told.tool_calls[0].name in names
        assert len(json.loads(told.tool_calls[0].arguments)["city"]) <= 9
    with pytest.raises(OptionError, match="both say what may be written"):
        model.prepare_chat(QUESTION, tools=TOOLS, tool_choice="required", json_schema="{}")
    odd = {
        "type": "function",
        "function": {"name": "odd", "parameters": {"type": "object", "not": {"required": ["x"]}}},
    }
    assert model.prepare_chat(QUESTION, tools=[odd], tool_choice="required").guide
    odd["function"]["strict"] = True  # type: ignore[index]
    with pytest.raises(OptionError):
        model.prepare_chat(QUESTION, tools=[odd], tool_choice="required")


def test_thoughts_are_dimmed_at_a_terminal_and_kept_apart(tmp_path: Path) -> None:
    from brolly.tasks.chat import Conversation

    model = reciter(tmp_path, "<think>\nHm.\n</think>\n\nYes.")
    for dim in (True, False):
        shown: list[str] = []
        talk = Conversation(model, {"temperature": 0.0}, None, shown.append)
        talk.dim = dim
        talk.answer("Rain?")
        plain = "".join(shown).replace("\033[0m\033[2m", "")
        assert plain == ("\033[2mHm.\033[0m\n\nYes.\n" if dim else "Yes.\n")
        assert talk.said[1] == {"role": "assistant", "content": "Yes.", "reasoning_content": "Hm."}


def test_a_conversation_goes_on_from_a_call_that_was_made(tmp_path: Path) -> None:
    model = reciter(tmp_path, "Wet.")
    said = [
        *QUESTION,
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "x", "function": {"name": "rain", "arguments": "{"}}],
        },
        {"role": "tool", "tool_call_id": "x", "content": "It rains."},
    ]
    text = model.tokenizer.decode(model.prepare_chat(said, tools=TOOLS).prompt, skip_special=False)
    assert '{"name": "rain", "arguments": "{"}' in text and "It rains." in text
