# ruff: noqa: E501 - a template stands on its line whole
"""How models write calls and thoughts is deduced from their templates: published ones and our own."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from brolly.errors import OptionError, TemplateError
from brolly.media.text import ChatTemplate
from brolly.media.text.answers import AnswerFormat, check_tools, format_of, render_chat
from brolly.media.text.answers.calls import Channels, JsonCalls, NamedCalls, TaggedCalls
from brolly.media.text.answers.written import written
from brolly.verbs import Piece
from tests.media.answer_templates import OWN

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


def tool(name: str, **properties: Any) -> dict[str, Any]:
    given = {key: {"type": kind, "description": key} for key, kind in properties.items()}
    parameters = {"type": "object", "properties": given, "required": [*properties][:1]}
    return {"type": "function", "function": {"name": name, "description": "Tells it.", "parameters": parameters}}


TOOLS = check_tools([tool("get_weather", city="string", n="integer", deep="array"), tool("get_time", city="string")])
ARGUMENTS = {"city": 'Paris <b> "é"\nx', "n": 3, "deep": [1, None, True, {"a": []}]}
QUESTION = {"role": "user", "content": "What?"}


@cache
def known(source: str) -> tuple[ChatTemplate, AnswerFormat]:
    """A template and what is deduced from it, once for all tests."""
    template = ChatTemplate(source, SPECIAL)
    return template, format_of(template)


def published(shared: Path) -> dict[str, str]:
    return {p.stem: p.read_text() for p in sorted((shared / "data" / "templates").glob("*.jinja"))}


def gathered(pieces: Iterable[Piece]) -> tuple[str, str, list[tuple[str, str]]]:
    """Text, thoughts and calls of pieces; an id and a name come first, and once."""
    text = thoughts = ""
    calls: list[tuple[str, str]] = []
    for piece in pieces:
        text, thoughts = text + piece.text, thoughts + piece.reasoning
        for part in piece.calls:
            if part.id is not None:
                assert part.index == len(calls) and part.name
                calls.append((part.name, part.arguments))
            else:
                assert part.index == len(calls) - 1 and part.name is None
                calls[-1] = (calls[-1][0], calls[-1][1] + part.arguments)
    return text, thoughts, calls


def read(format: AnswerFormat, answer: Iterable[str], prompt: str = "", tools: Any = TOOLS) -> Any:
    split = format.split(tools, prompt=prompt)
    return gathered([*[split.push(part) for part in answer], split.finish()])


def formats(sources: dict[str, str]) -> dict[str, tuple[ChatTemplate, AnswerFormat]]:
    return {name: known(source) for name, source in sources.items()}


def different(sources: dict[str, str]) -> dict[str, tuple[ChatTemplate, AnswerFormat]]:
    """Of those that write calls and thoughts the same way one each."""
    found = formats(sources).items()
    return {str((f.calls, f.thoughts, f.shown)): (t, f) for _, (t, f) in found}


GENERIC = JsonCalls("<tool_call>\n", "\n</tool_call>")
DEEPSEEK = NamedCalls("<｜tool▁call▁begin｜>function<｜tool▁sep｜>", "\n```json\n", "\n```<｜tool▁call▁end｜>",
                      ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"))  # fmt: skip
THINK = ("<think>", "</think>")
FOUND: dict[str, tuple[Any, tuple[str, str] | None, bool]] = {
    "CohereForAI-c4ai-command-r-plus-tool_use": (
        JsonCalls("Action:\n```json\n", "```", "tool_name", "parameters", True), None, True,
    ),
    "CohereForAI-c4ai-command-r7b-12-2024-tool_use": (
        JsonCalls("<|START_ACTION|>", "<|END_ACTION|>", "tool_name", "parameters", True),
        ("<|START_THINKING|>", "<|END_THINKING|>"), True,
    ),
    "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use": (GENERIC, None, True),
    "NousResearch-Hermes-3-Llama-3.1-8B-tool_use": (GENERIC, None, True),
    "Qwen-Qwen2.5-7B-Instruct": (GENERIC, None, True),
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B": (DEEPSEEK, THINK, False),
    "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B": (DEEPSEEK, THINK, False),
    "llama-cpp-deepseek-r1": (DEEPSEEK, THINK, False),
    "fireworks-ai-llama-3-firefunction-v2": (JsonCalls("functools", listed=True), None, True),
    "google-gemma-2-2b-it": (GENERIC, None, False),
    "meetkai-functionary-medium-v3.1": (NamedCalls("<function=", ">", "</function>"), None, True),
    "meetkai-functionary-medium-v3.2": (NamedCalls(">>>", "\n", plain="all"), None, True),
    "meta-llama-Llama-3.1-8B-Instruct": (JsonCalls(arguments="parameters", also=("<|python_tag|>",)), None, True),
    "meta-llama-Llama-3.2-3B-Instruct": (JsonCalls(arguments="parameters"), None, True),
    "meta-llama-Llama-3.3-70B-Instruct": (JsonCalls(arguments="parameters", also=("<|python_tag|>",)), None, True),
    "microsoft-Phi-3.5-mini-instruct": (GENERIC, None, False),
    "mistralai-Mistral-Nemo-Instruct-2407": (JsonCalls("[TOOL_CALLS]", listed=True), None, True),
    "qwen3": (GENERIC, THINK, True),
    "qwen3_coder": (
        TaggedCalls("<tool_call>\n<function=", ">\n", "<parameter=", ">\n", "\n</parameter>",
                    "\n</function>\n</tool_call>", also=("<function=",)), None, True,
    ),
    "glm": (
        TaggedCalls("<tool_call>", "\n", "<arg_key>", "</arg_key>\n<arg_value>", "</arg_value>", "\n</tool_call>"),
        THINK, True,
    ),
    "minimax": (
        TaggedCalls('<invoke name="', '">\n', '<parameter name="', '">', "</parameter>", "\n</invoke>",
                    ("<minimax:tool_call>", "</minimax:tool_call>")), THINK, True,
    ),
    "deepseek_v31": (
        NamedCalls("<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>", DEEPSEEK.section), THINK, True,
    ),
    "kimi_k2": (
        NamedCalls("<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>",
                   ("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"), numbered=True), None, True,
    ),
    "mistral_v11": (NamedCalls("[TOOL_CALLS]", "[ARGS]"), ("[THINK]", "[/THINK]"), True),
    "mistral_v13": (NamedCalls("[TOOL_CALLS]", "[ARGS]", identity="[CALL_ID]"), ("[THINK]", "[/THINK]"), True),
    "granite": (JsonCalls("<|tool_call|>", listed=True), None, True),
    "phi_4_mini": (GENERIC, None, False),
    "harmony": (Channels(), None, True),
    "internlm": (JsonCalls("<|action_start|><|plugin|>\n", "<|action_end|>", arguments="parameters"), None, True),
    "nemotron": (JsonCalls("<TOOLCALL>", "</TOOLCALL>", listed=True), None, True),
    "xlam": (JsonCalls(listed=True), None, True),
    "smollm3": (GENERIC, THINK, True),
    "kimi_vl": (GENERIC, ("◁think▷", "◁/think▷"), False),
    "own_thoughts": (GENERIC, ("<mull>", "</mull>"), False),
}  # fmt: skip


@pytest.mark.parametrize("name", OWN)
def test_our_templates_are_deduced(name: str) -> None:
    format = known(OWN[name])[1]
    assert (format.calls, format.thoughts, format.shown) == FOUND[name]


def test_every_published_template_is_deduced(shared: Path) -> None:
    for name, (_, format) in formats(published(shared)).items():
        assert (format.calls, format.thoughts, format.shown) == FOUND[name], name


def test_tokens_name_what_a_template_does_not() -> None:
    """Phi-4-mini's template tells tools in the system message, and only its tokens show how calls are written."""

    class Tokens:
        control = {"<|tool_call|>": 7, "<|/tool_call|>": 8}
        added = {**control, "</think>": 9}

    template = ChatTemplate(OWN["phi_4_mini"], SPECIAL)
    format = format_of(template, Tokens())  # type: ignore[arg-type]
    assert format.calls == JsonCalls("<|tool_call|>", "<|/tool_call|>", listed=True)
    assert format.thoughts == THINK and format.shown and format.within
    prompt = render_chat(template, format, [QUESTION], tools=TOOLS)
    assert prompt.startswith("<|system|>You are") and '<|tool|>[{"name": "get_weather"' in prompt.replace(
        '"description": "Tells it.", ', ""
    )
    assert format.keep_special(True) and not format.keep_special(False)


ENDS = ("<|im_end|>", "</s>", "<|eot_id|>", "<|eom_id|>", "<|END_OF_TURN_TOKEN|>", "<｜end▁of▁sentence｜>",
        "<|end_of_text|>", "<end_of_turn>", "<|end|>", "[e~[", "<|call|>")  # fmt: skip


def answer_in(whole: str, spoken: str, calls: list[str]) -> str:
    """The answer in a rendered conversation, from where one in words (`spoken`) has its first."""
    head = spoken[: spoken.rindex("HERE")]
    at = len(head) if whole.startswith(head) else whole.rindex("What?") + len("What?")
    ends = [i for end in ENDS if (i := whole.find(end, max(whole.find(c, at) for c in calls))) > 0]
    return whole[at : min(ends, default=len(whole))]


def check_round_trip(name: str, template: ChatTemplate, format: AnswerFormat) -> None:
    """A call that the template renders is read back as the same call."""
    extra = {"add_generation_prompt": False}
    words = [QUESTION, {"role": "assistant", "content": "HERE"}]
    spoken = render_chat(template, format, words, tools=TOOLS, extra=extra)
    for names in (["get_weather"], ["get_weather", "get_time"]):
        if format.single and len(names) > 1:
            continue
        rows = [(called, ARGUMENTS if called == "get_weather" else {"city": "Rome"}) for called in names]
        calls = [
            {"id": f"call_{i}", "type": "function", "function": {"name": n, "arguments": json.dumps(a)}}
            for i, (n, a) in enumerate(rows)
        ]
        for content in ("", "Let me see.") if not getattr(format.calls, "bare", False) else ("",):
            said = [QUESTION, {"role": "assistant", "content": content, "tool_calls": calls}]
            whole = render_chat(template, format, said, tools=TOOLS, extra=extra)
            answer = answer_in(whole, spoken, names)
            if isinstance(format.calls, Channels):
                answer = answer.partition("<|start|>assistant")[2]
            text, _, found = read(format, [answer])
            assert [(n, json.loads(a)) for n, a in found] == rows, (name, answer, text, found)
            assert read(format, answer) == (text, _, found), name


@pytest.mark.parametrize("name", OWN)
def test_a_rendered_call_is_read_back(name: str) -> None:
    check_round_trip(name, *known(OWN[name]))


def test_calls_of_every_published_template_are_read_back(shared: Path) -> None:
    for name, (template, format) in formats(published(shared)).items():
        check_round_trip(name, template, format)


def check_written(name: str, template: ChatTemplate, format: AnswerFormat) -> None:
    """Calls as we write them (the example that models are shown) are read the same, alone and after words."""
    prompt = render_chat(template, format, [QUESTION], tools=TOOLS)
    rows = [("get_weather", ARGUMENTS), ("get_time", {"city": "Rome"})]
    begun = format.begun(prompt)
    for some in (rows[:1], rows) if not format.single else (rows[:1],):
        text = written(format.calls, [(n, json.dumps(a)) for n, a in some])
        before = format.thoughts[1] if format.thoughts and begun == format.thoughts[0] else ""
        text = before + (text.removeprefix(begun) if not before else text)
        found = read(format, [text], prompt)
        assert found[:2] == ("", "") and [(n, json.loads(a)) for n, a in found[2]] == some, (name, text, found)
        for cut in range(len(text)):
            assert read(format, [text[:cut], text[cut:]], prompt) == found, (name, cut)


@pytest.mark.parametrize("name", OWN)
def test_a_call_that_we_write_is_read_wherever_it_is_cut(name: str) -> None:
    check_written(name, *known(OWN[name]))


def test_calls_that_we_write_as_published_models_do_are_read(shared: Path) -> None:
    for name, (template, format) in different(published(shared)).items():
        check_written(name, template, format)


def test_tools_are_checked() -> None:
    assert check_tools([{"name": "f"}])[0]["function"]["parameters"] == {"type": "object", "properties": {}}
    assert check_tools(None) == []
    with pytest.raises(OptionError, match="has a name"):
        check_tools([{"type": "function", "function": {}}])
    with pytest.raises(OptionError, match="two tools are named 'f'"):
        check_tools([{"name": "f"}, {"name": "f"}])


def test_a_template_that_has_to_be_stopped_is_asked_once() -> None:
    endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    template = ChatTemplate(endless, SPECIAL)
    n, render = 0, template.render

    def counted(*args: Any, **options: Any) -> str:
        nonlocal n
        n += 1
        return render(*args, **options)

    template.render = counted  # type: ignore[method-assign]
    with pytest.raises(TemplateError, match="was stopped"):
        format_of(template)
    assert n == 1


@pytest.mark.parametrize("prose", ["[", '{"a": ', "<", "<x>", " ", "zebra_tool", "```", "a"])
def test_prose_around_calls_makes_no_marks_and_no_delay(prose: str) -> None:
    much = "{{ (PROSE * 50000) }}".replace("PROSE", repr(prose))
    call = "{{ m.content or '' }}{% for tc in m.tool_calls or [] %}PROSE{{ tc.function.name }}{{ tc.function.arguments | tojson }}PROSE{% endfor %}"
    template = ChatTemplate("{% for m in messages %}" + call.replace("PROSE", much) + "{% endfor %}", SPECIAL)
    format = format_of(template)
    assert len(str(format.calls)) < 2_000
    assert "What?" in render_chat(template, format, [QUESTION], tools=TOOLS)
