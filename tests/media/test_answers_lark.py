"""Grammars of calls: what a model may write when it must call, in its own format, by llguidance on bytes."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from brolly.errors import OptionError
from brolly.media.text import ChatTemplate
from brolly.media.text.answers import AnswerFormat, check_tools, format_of, render_chat
from brolly.media.text.answers.calls import Channels, JsonCalls, NamedCalls, TaggedCalls
from brolly.media.text.answers.written import written
from tests.media.answer_templates import OWN
from tests.media.test_answers_format import QUESTION, SPECIAL, different, known, published, tool

llguidance = pytest.importorskip("llguidance")
TOOLS = check_tools([tool("get_weather", city="string", n="integer"), tool("get_time", city="string")])
STRICT = copy.deepcopy(TOOLS)
STRICT[0]["function"]["strict"] = True
GOOD, BAD = json.dumps({"city": "Pärís", "n": 3}, ensure_ascii=False), json.dumps({"city": ["x"], "n": "y"})


class Bytes:
    """A tokenizer of single bytes."""

    eos_token_id, bos_token_id, special_token_ids = 256, None, [256]
    tokens = [bytes([i]) for i in range(256)] + [b"<eos>"]

    def __call__(self, text: Any) -> list[int]:
        return list(text if isinstance(text, bytes) else text.encode())


@pytest.fixture(scope="module")
def tokens() -> Any:
    return llguidance.LLTokenizer(llguidance.TokenizerWrapper(Bytes()), n_vocab=257)


def allows(tokens: Any, grammar: str | None, text: str) -> bool:
    """Whether the whole text may be written, and may end there."""
    assert grammar is not None
    matcher = llguidance.LLMatcher(tokens, grammar, log_level=0)
    assert not matcher.is_error(), matcher.get_error() + grammar
    data = list(text.encode())
    return matcher.try_consume_tokens(data) == len(data) and matcher.is_accepting()


def check_grammars(tokens: Any, template: ChatTemplate, format: AnswerFormat) -> None:
    prompt = render_chat(template, format, [QUESTION], tools=TOOLS)
    begun = format.begun(prompt)
    thinking = format.thoughts is not None and begun == format.thoughts[0]
    think = f"Hm.{format.thoughts[1]}\n\n" if format.thoughts and thinking else ""

    def answer(*rows: tuple[str, str]) -> str:
        text = written(format.calls, rows).removesuffix("<|call|>")
        return think + (text if thinking else text.removeprefix(begun))

    weather, hour = ("get_weather", GOOD), ("get_time", GOOD.replace(', "n": 3', ""))
    must = format.grammar(TOOLS, "required", prompt=prompt)
    assert allows(tokens, must, answer(weather)) and allows(tokens, must, answer(hour))
    assert not allows(tokens, must, "Hello") and not allows(tokens, must, think + "Hello")
    assert not allows(tokens, must, answer(("get_rich", GOOD)))
    many = not format.single and not getattr(format.calls, "bare", False)
    assert allows(tokens, must, answer(weather, hour)) == many
    assert not allows(tokens, format.grammar(TOOLS, "required", False, prompt=prompt), answer(weather, hour))
    named = format.grammar(TOOLS, {"type": "function", "function": {"name": "get_time"}}, prompt=prompt)
    assert allows(tokens, named, answer(hour)) and not allows(tokens, named, answer(weather))
    assert not allows(tokens, must, answer(("get_weather", BAD)))
    loose = format.grammar(TOOLS, "required", prompt=prompt, rule=None)
    assert allows(tokens, loose, answer(("get_weather", BAD)))
    assert format.grammar(TOOLS, "auto", prompt=prompt) is None
    strict = format.grammar(STRICT, "auto", prompt=prompt)
    if isinstance(format.calls, Channels) or (isinstance(format.calls, NamedCalls) and format.calls.plain):
        assert strict is None
        return
    words = "" if format.calls.bare else "I see; <b> 1 < 2.\n"
    assert allows(tokens, strict, think + "Hello there") and allows(tokens, strict, think)
    assert allows(tokens, strict, think + words + answer(weather).removeprefix(think))
    assert not allows(tokens, strict, answer(("get_weather", BAD)))
    assert allows(tokens, strict, answer(("get_time", BAD)))  # not strict


@pytest.mark.parametrize("name", OWN)
def test_a_forced_call_is_written_as_the_model_does(name: str, tokens: Any) -> None:
    check_grammars(tokens, *known(OWN[name]))


def test_forced_calls_of_every_published_template(shared: Path, tokens: Any) -> None:
    for template, format in different(published(shared)).values():
        check_grammars(tokens, template, format)


def test_control_tokens_go_by_their_ids() -> None:
    calls = JsonCalls("<|tool|>", "<|/tool|>")
    format = AnswerFormat(calls, ("<think>", "</think>"), True, True, True, control={"<|tool|>": 7, "</think>": 9})
    grammar = format.grammar(TOOLS, "required", prompt="<think>")
    assert grammar and "<[7]>" in grammar and "<[9]>" in grammar and "<|/tool|>" in grammar
    strict = format.grammar(STRICT, "auto")
    assert strict and "words: /(.|\\n)*/ <[7]>" in strict


def test_values_between_tags_keep_to_their_kinds(tokens: Any) -> None:
    given = tool("f", when="string", n="integer")
    schema = given["function"]["parameters"]
    schema["properties"]["when"]["enum"] = ["now", "later"]
    schema["properties"] |= {"o": {"$ref": "#/$defs/o"}, "s": {"type": ["string", "null"]}}
    schema["$defs"] = {"o": {"type": "boolean"}}
    format = format_of(ChatTemplate(OWN["qwen3_coder"], SPECIAL))
    assert isinstance(format.calls, TaggedCalls)
    must = format.grammar(check_tools([given]), "required")
    for arguments, fine in [
        ({"when": "now", "n": 3}, True), ({"when": "now"}, True), ({"when": "soon"}, False), ({"n": 3}, False),
        ({"when": "later", "n": "x"}, False), ({"when": "now", "s": "x"}, True), ({"when": "now", "s": None}, True),
    ]:  # fmt: skip
        assert allows(tokens, must, written(format.calls, [("f", json.dumps(arguments))])) == fine, arguments


def test_a_choice_that_there_is_not_is_refused() -> None:
    format = known(OWN["qwen3"])[1]
    with pytest.raises(OptionError, match="names 'x'; the tools given are: get_weather, get_time"):
        format.grammar(TOOLS, {"type": "function", "function": {"name": "x"}})
    with pytest.raises(OptionError, match="must be auto, none, required"):
        format.grammar(TOOLS, "always")
    with pytest.raises(OptionError, match="there are no tools"):
        format.grammar([], "required")
