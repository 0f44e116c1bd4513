# ruff: noqa: E501 - a row of the table stands on its line
"""Answers taken apart: words, thoughts and calls, the same wherever the text is cut, nothing lost, in linear time."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brolly.media.text.answers import AnswerFormat, Split, check_tools
from brolly.media.text.answers.calls import JsonCalls, NamedCalls
from brolly.media.text.answers.reader import Reader, json_value
from tests.media.answer_templates import OWN
from tests.media.test_answers_format import gathered, known, tool

TOOLS = check_tools([tool("get_weather", city="string", n="integer"), tool("now")])
THINK = ("<think>", "</think>")
LLAMA = JsonCalls(arguments="parameters", also=("<|python_tag|>",))
PARIS = [("get_weather", '{"city": "Paris"}')]


def own(name: str) -> AnswerFormat:
    return known(OWN[name])[1]


def made(calls: Any, thoughts: Any = None, **control: int) -> AnswerFormat:
    return AnswerFormat(calls, thoughts, True, True, True, control=control)


QWEN, CODER, GLM, V11, V13 = own("qwen3"), own("qwen3_coder"), own("glm"), own("mistral_v11"), own("mistral_v13")
KIMI, HARMONY, MINIMAX = own("kimi_k2"), own("harmony"), own("minimax")
RECIPIENTS = made(NamedCalls(">>>", "\n", plain="all"))
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
TABLE: list[tuple[AnswerFormat, str, str, str, list[tuple[str, str]]]] = [
    # format, answer, text, thoughts, calls
    (QWEN, "Hello", "Hello", "", []),
    (QWEN, " Hello \n there \n", " Hello \n there \n", "", []),
    (QWEN, "<think>\nHm.\n</think>\n\nHello", "Hello", "Hm.", []),
    (QWEN, "<think>\n\n</think>\n\nHello", "Hello", "", []),
    (QWEN, "<think>never ends", "", "never ends", []),
    (QWEN, "It writes <think> and </think>.", "It writes <think> and </think>.", "", []),
    (QWEN, "<think>a</think><think>b</think>c", "c", "ab", []),
    (QWEN, f"<think>Call?</think>\n\nLet me see.\n\n{CALL}\n", "Let me see.", "Call?", PARIS),
    (QWEN, CALL + CALL, "", "", PARIS * 2),
    (QWEN, f"{CALL} and\n{CALL}", "and", "", PARIS * 2),
    (QWEN, CALL.removesuffix("\n</tool_call>"), "", "", PARIS),
    (QWEN, '<tool_call>{"arguments": {"n": 1}, "id": 3, "name": "get_weather"}</tool_call>', "", "",
     [("get_weather", '{"n": 1}')]),
    (QWEN, '<tool_call>{"type": "function", "function": {"name": "now", "arguments": "{\\"a\\": 1}"}}</tool_call>',
     "", "", [("now", '{"a": 1}')]),
    (QWEN, '<tool_call>{"name": "now"}</tool_call>', "", "", [("now", "{}")]),
    (QWEN, '<tool_call>{"name": "now", "arguments": {"ok": True, "t": "a\nb"}}</tool_call>', "", "",
     [("now", '{"ok": true, "t": "a\\nb"}')]),
    (QWEN, '<tool_call>{"name": "later", "arguments": {}}</tool_call>',
     '<tool_call>{"name": "later", "arguments": {}}</tool_call>', "", []),
    (QWEN, '<tool_call>{"nam', '<tool_call>{"nam', "", []),
    (QWEN, "a <tool_call> is\n<tool_call>\n{'x'}", "a <tool_call> is\n<tool_call>\n{'x'}", "", []),
    (QWEN, f"<tool_call>no<tool_call>{CALL[11:]}", "<tool_call>no", "", PARIS),
    (QWEN, '<tool_call>{"name": "now", "arguments": {"a": nope}}</tool_call>!', "nope}}</tool_call>!", "",
     [("now", '{"a": ')]),
    (QWEN, '{"name": "now", "arguments": {}}', '{"name": "now", "arguments": {}}', "", []),
    (CODER, "<tool_call>\n<function=get_weather>\n<parameter=city>\nPar\nis <b>\n</parameter>\n<parameter=n>\n3\n"
     "</parameter>\n</function>\n</tool_call>", "", "", [("get_weather", '{"city": "Par\\nis <b>", "n": 3}')]),
    (CODER, "I see.\n<function=get_weather>\n<parameter=city>Paris</parameter></function>", "I see.", "",
     [("get_weather", '{"city": "Paris"}')]),
    (CODER, "<tool_call>\n<function=now>\n<parameter=x>\n[1, {}]\n</parameter>\n<parameter=y>\nso\n</parameter>\n"
     "</function>\n</tool_call>", "", "", [("now", '{"x": [1, {}], "y": "so"}')]),
    (CODER, "<tool_call>\n<function=now>\n</function>\n</tool_call>", "", "", [("now", "{}")]),
    (CODER, "<tool_call>\n<function=never>\n</function>", "<tool_call>\n<function=never>\n</function>", "", []),
    (CODER, "<tool_call>\n<function=get_weather>\n<parameter=city>\nPar", "", "", [("get_weather", '{"city": "Par')]),
    (GLM, "<think>x</think>\n<tool_call>get_weather\n<arg_key>n</arg_key>\n<arg_value>12</arg_value>\n</tool_call>",
     "", "x", [("get_weather", '{"n": 12}')]),
    (GLM, "<tool_call>get_weather<arg_key>n</arg_key><arg_value>twelve</arg_value></tool_call>", "", "",
     [("get_weather", '{"n": "twelve"}')]),
    (V11, '[THINK]x[/THINK]Yes.[TOOL_CALLS]now[ARGS]{}[TOOL_CALLS]get_weather[ARGS]{"n":1}', "Yes.", "x",
     [("now", "{}"), ("get_weather", '{"n":1}')]),
    (V13, '[TOOL_CALLS]now[CALL_ID]abcdefghi[ARGS]{"a": "]"}', "", "", [("now", '{"a": "]"}')]),
    (V13, "[TOOL_CALLS]now[ARGS]{}", "", "", [("now", "{}")]),
    (KIMI, "<|tool_calls_section_begin|><|tool_call_begin|>functions.now:4<|tool_call_argument_begin|>{}"
     "<|tool_call_end|><|tool_calls_section_end|>", "", "", [("now", "{}")]),
    (made(JsonCalls("[TOOL_CALLS]", listed=True)), 'So:[TOOL_CALLS][{"name": "now", "arguments": {}, "id": "123456789"},'
     ' {"name": "get_weather", "arguments": {"n": 2}}]', "So:", "", [("now", "{}"), ("get_weather", '{"n": 2}')]),
    (made(JsonCalls("[TOOL_CALLS]", listed=True)), '[TOOL_CALLS][{"name": "now", "arguments": {}} so', "so", "", [("now", "{}")]),
    (made(JsonCalls("[TOOL_CALLS]", listed=True)), "[TOOL_CALLS][]", "[TOOL_CALLS][]", "", []),
    (made(LLAMA), '{"name": "now", "parameters": {"a": 1.50}}', "", "", [("now", '{"a": 1.50}')]),
    (made(LLAMA), '{"name": "now", "parameters": {}}; {"name": "now", "parameters": {}}', "", "", [("now", "{}")] * 2),
    (made(LLAMA), '<|python_tag|>{"name": "now", "parameters": {}}', "", "", [("now", "{}")]),
    (made(LLAMA), '<|python_tag|>print("now")', '<|python_tag|>print("now")', "", []),
    (made(LLAMA, None, **{"<|python_tag|>": 9}), '<|python_tag|>print("now")', 'print("now")', "", []),
    (made(LLAMA), 'So: {"name": "now", "parameters": {}}', 'So: {"name": "now", "parameters": {}}', "", []),
    (made(LLAMA), '{"name": "now"}', '{"name": "now"}', "", []),
    (made(LLAMA), '{"name": "Ann", "parameters": {}}', '{"name": "Ann", "parameters": {}}', "", []),
    (made(LLAMA), '[1, 2]', '[1, 2]', "", []),
    (RECIPIENTS, '>>>all\nHello\n>>>get_weather\n{"n": 1}>>>now\n{}', "Hello", "", [("get_weather", '{"n": 1}'), ("now", "{}")]),
    (RECIPIENTS, ">>>all\n>>> print(1)", ">>> print(1)", "", []),
    (HARMONY, "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes.<|return|>",
     "Yes.", "Hm.", []),
    (HARMONY, "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary to=functions.now "
     "<|constrain|>json<|message|>{}<|call|>", "", "Hm.", [("now", "{}")]),
    (HARMONY, ' to=functions.get_weather<|channel|>commentary json<|message|>{"n": 1}<|call|>', "", "",
     [("get_weather", '{"n": 1}')]),
    (HARMONY, "<|channel|>commentary<|message|>I will look.<|end|><|start|>assistant<|channel|>commentary "
     "to=functions.now<|message|>{}", "I will look.", "", [("now", "{}")]),
    (HARMONY, "Hello", "Hello", "", []),
    (MINIMAX, 'x</think>\n\n<minimax:tool_call>\n<invoke name="get_weather">\n<parameter name="city">Paris</parameter>\n'
     "</invoke>\n</minimax:tool_call>", 'x</think>', "", PARIS),
]  # fmt: skip


def apart(split: Split, parts: list[str]) -> Any:
    return gathered([*[split.push(part) for part in parts], split.finish()])


@pytest.mark.parametrize("row", range(len(TABLE)))
def test_answers_are_taken_apart_the_same_wherever_they_are_cut(row: int) -> None:
    format, answer, *want = TABLE[row]
    want = tuple(want)
    assert apart(format.split(TOOLS), [answer]) == want
    assert apart(format.split(TOOLS), list(answer)) == want
    for cut in range(1, len(answer)):
        assert apart(format.split(TOOLS), [answer[:cut], answer[cut:]]) == want, cut


def test_thoughts_that_the_prompt_began_go_on() -> None:
    for prompt, answer, want in [
        ("<|assistant|><think>\n", "Hm.\n</think>\n\nYes", ("Yes", "Hm.", [])),
        ("<|assistant|><think>\n\n</think>\n\n", "Yes", ("Yes", "", [])),
        ("<|assistant|><think>\n", "Hm", ("", "Hm", [])),
    ]:
        for parts in ([answer], list(answer)):
            assert apart(QWEN.split((), prompt=prompt), parts) == want
    answer = 'all\nYes>>>now\n{"a": 1}'
    assert apart(RECIPIENTS.split(TOOLS, prompt="x>>>"), [*answer]) == ("Yes", "", [("now", '{"a": 1}')])
    assert apart(RECIPIENTS.split((), prompt="x>>>"), ["all\nYes"]) == ("Yes", "", [])
    assert apart(RECIPIENTS.split(TOOLS, prompt="x>>>"), ["what"]) == ("what", "", [])


def test_without_tools_nothing_is_a_call() -> None:
    assert apart(QWEN.split(()), [CALL]) == (CALL, "", [])
    text = '{"name": "now", "parameters": {}}'
    assert apart(made(LLAMA).split(()), [text]) == (text, "", [])
    assert not made(LLAMA).needs_split(False) and QWEN.needs_split(False) and made(LLAMA).needs_split(True)


def test_what_is_certain_comes_at_once() -> None:
    split = QWEN.split(TOOLS)
    assert split.push("Hello ").text == "Hello"
    assert split.push("there <").text == " there"
    assert split.push("b").text == " <b"
    head = split.push('\n<tool_call>\n{"name": "get_weather", "arguments": {"ci').calls
    assert (head[0].name, head[0].arguments) == ("get_weather", '{"ci') and len(head[0].id or "") == 9
    assert split.push('ty": "Pa').calls[0].arguments == 'ty": "Pa'
    piece = split.push("ris <tool")
    assert not piece.text and piece.calls[0].arguments == "ris <tool"


def test_arguments_are_the_beginning_of_json_at_any_time() -> None:
    for format, answer, _, _, calls in TABLE:
        split, arguments = format.split(TOOLS), [""] * len(calls)
        for char in answer:
            for part in split.push(char).calls:
                arguments[part.index] += part.arguments
                reader = Reader()
                reader.add(arguments[part.index])
                run = json_value(reader, lambda text: None)
                try:
                    next(run)
                except StopIteration as done:
                    assert done.value, arguments
        for name_of_call, text in calls:
            if text.endswith("}"):
                assert isinstance(json.loads(text), dict), name_of_call


def test_the_last_piece_says_whether_calls_were_made() -> None:
    def reason(answer: str, **more: Any) -> str | None:
        split = QWEN.split(TOOLS, **more)
        split.push(answer)
        return split.finish().finish_reason

    assert reason("Hello") is None
    assert reason(CALL) == "tool_calls"
    assert reason('<tool_call>{"name": "now", "arguments": {"a') is None  # cut off


def test_one_call_is_the_last_where_several_are_not_wanted() -> None:
    split = QWEN.split(TOOLS, parallel=False)
    pieces = [split.push(char) for char in CALL + CALL + "more"]
    assert [p.finish_reason for p in pieces].index("tool_calls") == CALL.rindex("}}") + 1
    assert gathered([*pieces, split.finish()]) == ("", "", PARIS)
    array = made(JsonCalls("[TOOL_CALLS]", listed=True)).split(TOOLS, parallel=False)
    answer = '[TOOL_CALLS][{"name": "now", "arguments": {}}, {"name": "now", "arguments": {}}]'
    assert apart(array, [answer]) == ("", "", [("now", "{}")])


def test_kimis_ids_are_the_models_own() -> None:
    split = KIMI.split(TOOLS)
    piece = split.push("<|tool_call_begin|>functions.now:4<|tool_call_argument_begin|>{}<|tool_call_end|>")
    assert piece.calls[0].id == "functions.now:4"


def test_control_tokens_that_are_no_marks_are_left_out() -> None:
    control = {"<|START_RESPONSE|>": 1, "<|END_RESPONSE|>": 2, "<|START_ACTION|>": 3, "<|START_THINKING|>": 4}
    calls = JsonCalls("<|START_ACTION|>", "<|END_ACTION|>", "tool_name", "parameters", True)
    format = AnswerFormat(calls, ("<|START_THINKING|>", "<|END_THINKING|>"), True, True, True, control=control)
    answer = "<|START_THINKING|>Hm.<|END_THINKING|><|START_RESPONSE|>Yes, so.<|END_RESPONSE|>"
    assert format.keep_special(False)
    assert apart(format.split(()), [*answer]) == ("Yes, so.", "Hm.", [])
    assert not made(JsonCalls("functools", listed=True), None, **{"<|end|>": 1}).keep_special(True)


FRAGMENTS = ["<think>", "</think>", "<tool_call>", "</tool_call>", '{"name": "now", "arguments": ', "{}", "}", '"', "\\",
             "[", "]", "a", " ", "\n", "<", ",", ":", "é", "1", '"a": ', "<function=now>", "<parameter=a>", "</parameter>",
             "</function>", "[TOOL_CALLS]", "now", "[ARGS]", "<|channel|>", "final", "<|message|>", "<|end|>", "true",
             "<arg_key>", "</arg_key>", "<arg_value>", ";", "<|start|>", "analysis", " to=functions.now"]  # fmt: skip
FORMATS = [QWEN, CODER, GLM, V11, V13, HARMONY, MINIMAX, RECIPIENTS, made(LLAMA), made(JsonCalls(listed=True))]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=30), st.integers(0, len(FORMATS) - 1), st.booleans(), st.data())
def test_hostile_answers_are_taken_apart_the_same_wherever_they_are_cut(
    parts: list[str], which: int, tools: bool, data: Any
) -> None:
    answer, format = "".join(parts), FORMATS[which]
    given_tools = TOOLS if tools else ()
    whole = apart(format.split(given_tools), [answer])
    assert apart(format.split(given_tools), list(answer)) == whole
    cuts = sorted(data.draw(st.lists(st.integers(0, len(answer)), max_size=4)))
    pieces = [answer[a:b] for a, b in zip([0, *cuts], [*cuts, len(answer)], strict=True)]
    assert apart(format.split(given_tools), pieces) == whole
    if format.thoughts is None and not format.needs_split(False) and not whole[2]:
        assert whole[0] == answer


HOSTILE = {
    "opened calls": "<tool_call>",
    "opened names": '<tool_call>{"name": "',
    "opened objects": '<tool_call>{"a":{',
    "opened lists": '<tool_call>{"name": "now", "arguments": [',
    "opened marks": "<",
    "white space": " ",
    "thoughts": "<think></think>",
    "escapes": '<tool_call>{"a": "\\\\',
    "digits": '<tool_call>{"name": "now", "arguments": 1111',
    "tags": "<function=now><parameter=a>",
    "heads": "<|channel|>",
    "messages": "<|channel|>final<|message|>",
    "recipients": ">>>now\n{",
    "half a tag": "<tool_cal",
    "lines": "\n</paramete",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_takes_linear_time(name: str) -> None:
    """Four times the text takes about four times the steps, not sixteen, and little text is ever kept unread."""

    def steps(n: int, format: AnswerFormat, size: int) -> int:
        text = (HOSTILE[name] * (n // len(HOSTILE[name]) + 1))[:n]
        split, count = format.split(TOOLS), 0

        def profile(*_: Any) -> None:
            nonlocal count
            count += 1

        sys.setprofile(profile)
        try:
            for at in range(0, n, size):
                split.push(text[at : at + size])
                reader = split._reader
                assert len(reader.text) - reader.at < 600 or split._run is None
            split.finish()
        finally:
            sys.setprofile(None)
        return count

    for format in (QWEN, CODER, HARMONY, RECIPIENTS, made(LLAMA)):
        for size in (1, 4_000):
            assert steps(4_000, format, size) < 6 * steps(1_000, format, size), (format.calls, size)
