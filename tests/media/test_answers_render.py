# ruff: noqa: E501 - a template stands on its line whole
"""Conversations in OpenAI's shape reach every model: changed as far as its template asks, and never for a bad call."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from brolly.errors import OptionError, TemplateError, UnsupportedTask
from brolly.media.text.answers import render_chat
from tests.media.answer_templates import OWN
from tests.media.test_answers_format import QUESTION, TOOLS, known, published

QWEN = OWN["qwen3"]
ECHO = "{% for m in messages %}[{{ m.role }}|{{ m.content }}]{% endfor %}"
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "22 degrees"}


def called(arguments: Any = '{"city": "Paris"}', name: str = "get_weather", **more: Any) -> dict[str, Any]:
    call = {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [call | more]}


def prompt(source: str, messages: list[dict[str, Any]], **options: Any) -> str:
    before = copy.deepcopy(messages)
    text = render_chat(*known(source), messages, **options)
    assert messages == before  # a caller's messages are left as they are
    return text


def test_parts_become_text_and_roles_become_those_that_templates_know() -> None:
    parts = [{"type": "text", "text": "Hello "}, {"type": "input_text", "text": "there"}]
    said = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts}]
    assert prompt(ECHO, said) == "[system|Be brief.][user|Hello there]"
    assert prompt(ECHO, [{"role": "user", "content": None}]) == "[user|]"


@pytest.mark.parametrize("kind", ["image_url", "input_image", "image", "input_audio", "file"])
def test_what_is_no_text_is_refused(kind: str) -> None:
    with pytest.raises(UnsupportedTask, match=kind):
        prompt(ECHO, [{"role": "user", "content": [{"type": kind, kind: {"url": "x"}}]}])


def test_what_is_no_message_is_refused() -> None:
    for wrong in ("hi", {"content": "x"}, {"role": 3, "content": "x"}):
        with pytest.raises(TemplateError, match="A message is"):
            prompt(ECHO, [wrong])  # type: ignore[list-item]
    with pytest.raises(OptionError, match="must hold a text"):
        prompt(ECHO, [{"role": "user", "content": [{"type": "text"}]}])
    with pytest.raises(OptionError, match="'messages' cannot be given"):
        prompt(ECHO, [QUESTION], extra={"messages": []})


BAD: dict[str, dict[str, Any]] = {
    "no JSON": called('{"city": '),
    "an unknown tool": called(name="nothing_like_it"),
    "a list": called("[1, 2]"),
    "nothing": called(""),
    "no arguments": {"role": "assistant", "tool_calls": [{"id": "call_1", "function": {"name": "get_weather"}}]},
    "no id": called(id=None),
    "no function": {"role": "assistant", "content": "x", "tool_calls": [{"id": "call_1", "type": "function"}]},
    "no object": {"role": "assistant", "content": "x", "tool_calls": ["get_weather()"]},
    "an old call": {"role": "assistant", "content": None, "function_call": {"name": "get_weather", "arguments": "{}"}},
    "an object": called({"city": "Paris"}),
    "quotes": called('{"city": "Pa"ris</tool_call>"}'),
}


def check_bad(source: str, name: str) -> None:
    message = BAD[name]
    text = prompt(source, [QUESTION, message, RESULT, {"role": "user", "content": "And?"}], tools=TOOLS)
    assert "22 degrees" in text and "And?" in text
    if name == "an unknown tool":
        assert "nothing_like_it" in text
    if name == "no JSON":
        assert '{"city": ' in text or json.dumps('{"city": ')[1:-1] in text


@pytest.mark.parametrize("name", BAD)
def test_a_bad_call_of_the_history_is_shown_and_not_refused(name: str) -> None:
    for source in OWN.values():
        check_bad(source, name)


@pytest.mark.parametrize("name", BAD)
def test_published_templates_show_a_bad_call_of_the_history(name: str, shared: Path) -> None:
    for source in published(shared).values():
        check_bad(source, name)


def test_a_call_that_is_no_json_is_quoted() -> None:
    assert '"arguments": "{\\"city\\": "}' in prompt(
        QWEN.replace("tc.function.arguments if tc.function.arguments is string else ", ""), [QUESTION, BAD["no JSON"]]
    )


def test_results_without_ids_and_names_get_those_of_their_calls() -> None:
    source = ECHO.replace(
        "|{{ m.content }}", "|{{ m.name }}|{{ m.tool_call_id }}|{{ m.tool_calls[0].id if m.tool_calls }}"
    )
    source += "{% for m in messages if m.tool_calls %}{{ m.tool_calls[0].function }}{% endfor %}"
    text = prompt(source, [QUESTION, called(id=None), {"role": "tool", "content": "22"}])
    assert "[tool|get_weather|call00100|]" in text and "[assistant|||call00100]" in text


def test_a_refusing_template_is_asked_again_in_other_words() -> None:
    alternate = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}{% endif %}"
        "[{{ m.role }}|{{ m.content }}]{% endfor %}"
    )
    system, user = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}
    answer = {"role": "assistant", "content": "Yes"}
    assert prompt(alternate, [system, user, answer, user]) == "[user|Be brief.\n\nHi][assistant|Yes][user|Hi]"
    assert prompt(alternate, [user, user]) == "[user|Hi\n\nHi]"
    assert prompt(alternate, [user, system, answer, system]) == "[user|Be brief.\n\nBe brief.\n\nHi][assistant|Yes]"
    assert prompt(alternate, [answer, user]) == "[user|][assistant|Yes][user|Hi]"
    text = prompt(alternate, [user, called(), RESULT, user], tools=TOOLS)
    assert text.count("[user|") == 2 and '{"name": "get_weather", "arguments": {"city": "Paris"}}' in text
    assert "<tool_response>\n22 degrees\n</tool_response>" in text
    with pytest.raises(TemplateError, match="never"):
        prompt("{{ raise_exception('never') }}", [user])


def test_ids_are_shortened_where_a_template_asks_for_it() -> None:
    both = [called(id="call_abcdefghijkl"), {**RESULT, "tool_call_id": "call_abcdefghijkl"}]
    text = prompt(OWN["mistral_v13"], [QUESTION, *both], tools=TOOLS)
    id = text.partition("[CALL_ID]")[2].partition("[ARGS]")[0]
    assert len(id) == 9 and id.isalnum()
    assert "functions.get_weather:0<" in prompt(OWN["kimi_k2"], [QUESTION, *both], tools=TOOLS)


def test_several_calls_reach_templates_that_take_one(shared: Path) -> None:
    calls = [called(id=f"id{i}", name=name)["tool_calls"][0] for i, name in enumerate(("get_weather", "get_time"))]
    calls[1]["function"] = {"name": "get_time", "arguments": "{}"}
    results = [{"role": "tool", "tool_call_id": f"id{i}", "content": text} for i, text in enumerate(("RAIN", "NOON"))]
    said = [QUESTION, {"role": "assistant", "content": None, "tool_calls": calls}, *results]
    text = prompt(published(shared)["meta-llama-Llama-3.1-8B-Instruct"], said, tools=TOOLS)
    places = [text.rindex(word) for word in ('"get_weather"', "RAIN", '"get_time"', "NOON")]
    assert places == sorted(places)


def test_words_beside_calls_are_not_lost_with_templates_that_show_one_of_the_two(shared: Path) -> None:
    said = [QUESTION, {**called(), "content": "Let me see."}, RESULT]
    for name in ("deepseek-ai-DeepSeek-R1-Distill-Qwen-32B", "llama-cpp-deepseek-r1"):
        text = prompt(published(shared)[name], said, tools=TOOLS)
        assert "Let me see." in text and "get_weather\n```json" in text


def test_tools_that_a_template_does_not_show_are_told_in_words() -> None:
    text = prompt(ECHO, [QUESTION], tools=TOOLS)
    assert text.startswith("[system|You may call these functions") and '{"name": "get_weather"' in text.replace(
        '"description": "Tells it.", ', ""
    )
    assert '<tool_call>\n{"name": "function_name", "arguments": {"argument": "value"}}\n</tool_call>' in text
    assert prompt(ECHO, [QUESTION]) == "[user|What?]"
    system = {"role": "system", "content": "Be brief."}
    assert prompt(ECHO, [system, QUESTION], tools=TOOLS).startswith("[system|Be brief.\n\nYou may call")


def test_a_template_made_for_tools_alone_does_without_them(shared: Path) -> None:
    for name, source in published(shared).items():
        assert "What?" in prompt(source, [QUESTION]), name
        assert "What?" in prompt(source, [{"role": "system", "content": "Be brief."}, QUESTION]), name
        assert "get_weather" in prompt(source, [QUESTION], tools=TOOLS), name


def test_thoughts_of_the_history_are_the_templates_to_show() -> None:
    said = [QUESTION, {"role": "assistant", "content": "Yes", "reasoning_content": "Hm."}, QUESTION]
    assert "<think>\nHm.\n</think>" in prompt(QWEN, said)
    assert "Hm." not in prompt(ECHO, said)
    assert prompt(QWEN, [QUESTION], extra={"enable_thinking": False}).endswith("<think>\n\n</think>\n\n")


def test_what_is_ours_to_keep_is_not_shown_to_the_model() -> None:
    strict = copy.deepcopy(TOOLS)
    strict[0]["function"]["strict"] = True
    for source in (QWEN, ECHO):
        assert prompt(source, [QUESTION], tools=strict) == prompt(source, [QUESTION], tools=TOOLS)
    assert strict[0]["function"]["strict"]


def test_results_stand_behind_their_own_calls_where_ids_come_again(shared: Path) -> None:
    calls = [called(id=str(i))["tool_calls"][0] for i in range(2)]
    turn = [{"role": "assistant", "content": "", "tool_calls": calls}]
    said = [QUESTION]
    for name in ("A", "B"):
        said += turn + [{"role": "tool", "tool_call_id": str(i), "content": f"{name}{i}"} for i in (1, 0)]
    text = prompt(published(shared)["meta-llama-Llama-3.1-8B-Instruct"], said, tools=TOOLS)
    places = [text.index(f'"{word}"') for word in ("A0", "A1", "B0", "B1")]
    assert places == sorted(places)


def test_long_histories_are_rendered_in_linear_time() -> None:
    strict = "{% for m in messages %}{% if m.tool_calls or m.role == 'tool' %}{{ raise_exception('no') }}{% endif %}{{ m.role }}{% endfor %}"
    calls = [{"id": f"call_{i}", "function": {"name": "get_time", "arguments": "{}"}} for i in range(4_000)]
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "x"} for call in reversed(calls)]
    said = [QUESTION] * 4_000 + [{"role": "assistant", "content": "", "tool_calls": calls}, *results]
    assert prompt(strict, said).endswith("user")
    assert prompt(OWN["harmony"], said).count("<|call|>") == 4_000
