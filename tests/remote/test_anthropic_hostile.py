"""Claude's answers and conversations with something wrong anywhere: they give pieces, bodies or an error of ours."""

from __future__ import annotations

import json
import random
from contextlib import suppress
from typing import Any

from brolly.errors import BrollyError
from brolly.remote.content import messages_of
from brolly.remote.dialects.anthropic import answers, models
from brolly.remote.dialects.anthropic import messages as dialect
from brolly.verbs import gather
from tests.remote.fakes.anthropic import events
from tests.remote.test_anthropic import HELLO, NEW, OLD, ROW, ask, whole


def mutated(value: Any, chance: random.Random) -> Any:
    """The same with something wrong somewhere."""
    strange = (None, 3, -1, 1e400, True, "", "x", [], {}, [[]], {"type": []}, 1 << 70, "\ud800")
    if chance.random() < 0.08:
        return chance.choice(strange)
    if isinstance(value, dict):
        rows = {k: mutated(v, chance) for k, v in value.items() if chance.random() > 0.04}
        return (
            rows if chance.random() > 0.03 else {**rows, "type": chance.choice(("error", "text", "tool_use", "ping"))}
        )
    if isinstance(value, list):
        return [mutated(one, chance) for one in value if chance.random() > 0.04]
    return value


def test_mutated_answers_give_pieces_or_our_errors() -> None:
    chance = random.Random(8)
    rows, ends = list(events(ROW)), 0
    for _ in range(3000):
        reader = dialect.reader(ask(), NEW)
        changed = [mutated(row, chance) for row in rows if chance.random() > 0.03]
        try:
            for row in changed:
                reader.push(row.get("type") if isinstance(row, dict) else "", row)  # type: ignore[arg-type]
            json.dumps(gather(reader.end()).message, ensure_ascii=False).encode()
            ends += 1
        except BrollyError:
            pass
        for function in (whole, answers.told, dialect.counted, models.listed):
            with suppress(BrollyError):
                function(mutated(ROW, chance))
    assert ends > 100


def test_mutated_conversations_give_bodies_or_our_errors() -> None:
    chance = random.Random(9)
    message = gather(whole(ROW)).message
    rows = [
        HELLO, message, {"role": "tool", "tool_call_id": "toolu_1", "content": [{"type": "text", "text": "1"}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,aaaa"}}]},
    ]  # fmt: skip
    for _ in range(2000):
        try:
            asked = ask(*messages_of([mutated(row, chance) for row in rows]), effort="low")
            dialect.lacks(asked, OLD)
            json.dumps(dialect.call(asked, OLD).body)
        except BrollyError:
            pass
