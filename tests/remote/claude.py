"""What tests of Claude in other houses share: one question, asked by Anthropic's own package and by us."""

from __future__ import annotations

from typing import Any

from brolly.remote import Remote
from brolly.verbs import gather
from tests.remote.fakes import Fake, Request

HELLO = [{"role": "user", "content": "Hello"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}


def both_asked(fake: Fake, theirs: Any, name: str, stream: bool) -> list[Request]:
    """The requests of their client and of ours, which must get the call that it asks for."""
    found = theirs.messages.create(
        model=name.partition(":")[2], max_tokens=100, messages=HELLO, system="Be kind.",
        tools=[{"name": "weather", "input_schema": SCHEMA}], tool_choice={"type": "any"},
        **({"stream": True} if stream else {}),
    )  # fmt: skip
    if stream:
        list(found)
    rows = [{"role": "system", "content": "Be kind."}, *HELLO]
    given: Any = {"max_tokens": 100, "tools": [WEATHER], "tool_choice": "required"}
    remote = Remote(name)
    mine = gather(remote.stream_chat(rows, **given)) if stream else remote.chat(rows, **given)
    assert [call.name for call in mine.tool_calls] == ["weather"]
    return fake.requests
