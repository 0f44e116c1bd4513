"""One program over every vendor, straight and through a server: the same answers, and conversations that move."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

for package in ("openai", "anthropic", "google.genai"):
    pytest.importorskip(package)

import brolly  # noqa: E402
from brolly.errors import ContextTooLong  # noqa: E402
from brolly.verbs import Generation, gather  # noqa: E402
from tests.remote.wire import CITY, PNG  # noqa: E402
from tests.serve.vendors import CLIENT, World, world_of  # noqa: E402

VENDORS = (
    "openai:gpt-4.1", "openai:gpt-5.6-sol", "openai-responses:gpt-5.6-sol", "anthropic:claude-haiku-4-5",
    "anthropic:claude-opus-5-5", "gemini:gemini-2.5-flash", "gemini:gemini-3-pro",
)  # fmt: skip
EVERY = (*VENDORS, *(f"brolly:{name}" for name in VENDORS))
THINKING = tuple(name for name in EVERY if "gpt-4.1" not in name)
TOOL = {"type": "function", "function": {"name": "weather", "parameters": CITY}}
PICTURE = {"type": "image_url", "image_url": {"url": PNG}}
SYSTEM = {"role": "system", "content": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world_of(VENDORS, tmp_path_factory.mktemp("store")) as found, pytest.MonkeyPatch.context() as patch:
        patch.setenv("BROLLY_BASE_URL", found.running.v1)
        patch.setenv("BROLLY_API_KEY", CLIENT)
        yield found


def said(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def asked(name: str, messages: list[Any], **options: Any) -> Generation:
    """The whole answer, as which the streamed one is."""
    model: Any = brolly.load(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole, pieces = model.chat(messages, **options), list(model.stream_chat(messages, **options))
    streamed = gather(pieces)
    assert [piece.finish_reason is None for piece in pieces] == [True] * (len(pieces) - 1) + [False]
    for one in ("text", "reasoning", "finish_reason"):
        assert getattr(whole, one) == getattr(streamed, one)
    assert [(c.name, json.loads(c.arguments)) for c in whole.tool_calls] == [
        (c.name, json.loads(c.arguments)) for c in streamed.tool_calls
    ]
    found: Generation = whole
    return found


def told(answer: Generation, *results: Any, failed: bool = False) -> list[dict[str, Any]]:
    """The turn that called, and what came of its calls."""
    rows = zip(answer.tool_calls, results, strict=True)
    more = {"is_error": True} if failed else {}
    return [answer.message, *({"role": "tool", "tool_call_id": c.id, "content": one, **more} for c, one in rows)]


@pytest.mark.parametrize("name", EVERY)
def test_an_agent_is_the_same_program_everywhere(world: World, name: str) -> None:
    begun = [SYSTEM, said("What is the weather, twice?")]
    both = asked(name, begun, tools=[TOOL])
    assert both.finish_reason == "tool_calls" and [c.name for c in both.tool_calls] == ["weather"] * 2
    assert len({c.id for c in both.tool_calls}) == 2 and both.usage.completion_tokens >= 6
    heard = [*begun, *told(both, "rain", "sun")]
    assert asked(name, heard, tools=[TOOL]).text == "The tool said rain and sun."
    assert "no such city" in asked(name, [*begun, *told(both, "no such city", "", failed=True)], tools=[TOOL]).text
    looked = asked(name, [*begun, *told(both, "rain", [{"type": "text", "text": "look"}, PICTURE])], tools=[TOOL])
    assert looked.text.startswith("The tool said rain and look")
    end = asked(name, [*heard, {"role": "assistant", "content": "Rain and sun."}, said("Where?")], json_schema=CITY)
    assert json.loads(end.text) == {"city": "text"} and end.finish_reason == "stop"
    assert asked(name, [said("one two END three")], stop=["END"]).text == "You said: one two "
    assert asked(name, [said("this is forbidden")]).finish_reason == "content_filter"
    with pytest.raises(ContextTooLong):
        asked(name, [said("toolong")])


@pytest.mark.parametrize("name", THINKING)
def test_thoughts_are_told_everywhere_and_go_back(world: World, name: str) -> None:
    options: dict[str, Any] = {"tools": [TOOL], "effort": "low", "thoughts": True, "max_tokens": 4000}
    first = asked(name, [said("weather")], **options)
    assert first.reasoning == "Let me think." and first.usage.reasoning_tokens == 3
    after = asked(name, [said("weather"), *told(first, "rain")], **options)
    assert (after.text, after.reasoning) == ("The tool said rain.", "Let me think.")


@pytest.mark.parametrize("begins", VENDORS)
@pytest.mark.parametrize("thinks", [False, True])
def test_a_conversation_moves_from_one_to_another(world: World, begins: str, thinks: bool) -> None:
    options: dict[str, Any] = {"effort": "low", "thoughts": True, "max_tokens": 4000} if thinks else {}
    first = asked(begins, [said("weather twice")], tools=[TOOL], **options)
    rows = [SYSTEM, said("weather twice"), *told(first, "rain", "sun")]
    assert json.loads(json.dumps(rows)) == rows  # it may lie in a file meanwhile
    for name in EVERY:
        assert asked(name, rows, tools=[TOOL], **options).text == "The tool said rain and sun.", name
        more = [*rows, {"role": "assistant", "content": "Fine.", "reasoning_content": "Hm."}, said("Go on")]
        assert asked(name, more, tools=[TOOL], **options).text == "You said: Go on", name
