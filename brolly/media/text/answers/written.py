"""Calls as a model would write them: for templates that render none, and for the example that a model is shown."""

from __future__ import annotations

import json
from collections.abc import Sequence

from brolly.media.text.answers.calls import Calls, Channels, JsonCalls, NamedCalls, is_object


def written(calls: Calls, rows: Sequence[tuple[str, str]]) -> str:
    """Calls of (name, arguments as JSON) in a format; arguments that are no JSON object stand there quoted."""
    match calls:
        case JsonCalls():
            objects = [
                f"{{{json.dumps(calls.name)}: {json.dumps(name, ensure_ascii=False)}, "
                f"{json.dumps(calls.arguments)}: {_quoted(given)}}}"
                for name, given in rows
            ]
            if calls.listed:
                return f"{calls.begin}[{', '.join(objects)}]{calls.end}"
            return "\n".join(f"{calls.begin}{one}{calls.end}" for one in objects)
        case NamedCalls():
            start = "functions." if calls.numbered else ""
            each = []
            for n, (name, given) in enumerate(rows):
                id = f"{calls.identity}call{n:05}" if calls.identity else f":{n}" if calls.numbered else ""
                each.append(f"{calls.begin}{start}{name}{id}{calls.middle}{_quoted(given)}{calls.end}")
            return calls.section[0] + "".join(each) + calls.section[1]
        case Channels():
            head = "<|channel|>commentary to=functions.{} <|constrain|>json<|message|>{}<|call|>"
            return "<|start|>assistant".join(head.format(name, _quoted(given)) for name, given in rows)
        case _:
            each = []
            for name, given in rows:
                values = json.loads(given) if is_object(given) else {"arguments": given}
                texts = {k: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for k, v in values.items()}
                gap = "\n" if calls.end.startswith("\n") else ""
                inner = gap.join(f"{calls.key}{k}{calls.between}{v}{calls.value_end}" for k, v in texts.items())
                each.append(f"{calls.begin}{name}{calls.middle}{inner}{calls.end}")
            section = calls.section
            return f"{section[0]}{chr(10) if section[0] else ''}" + "\n".join(each) + section[1]


def _quoted(arguments: str) -> str:
    return arguments if is_object(arguments) else json.dumps(arguments, ensure_ascii=False)
