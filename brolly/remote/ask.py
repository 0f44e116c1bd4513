"""Ask: one request for an answer, in OpenAI's chat words, before any vendor's dialect says it.

A message is a mapping:

    role            "system", "developer", "user", "assistant" or "tool"
    content         a text, None, or a list of parts
    tool_calls      of the assistant: [{"id", "type": "function", "function": {"name", "arguments"}}], arguments as JSON
    tool_call_id    of a tool's answer; with is_error true where the tool failed
    reasoning_content   of the assistant: what it thought, as text
    opaque          of the assistant: what its vendor wants back as it was (Piece.opaque); each has "vendor"

and a part is one of

    {"type": "text", "text"}
    {"type": "image_url", "image_url": {"url": data: or https:, "detail"}}
    {"type": "input_audio", "input_audio": {"data": base64, "format": "wav", "mp3" …}}
    {"type": "file", "file": {"file_data": data: URL, "filename"}}        a PDF

each with "cache_control" beside, where what stands before it is to be cached (Anthropic's word).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from brolly.errors import OptionError
from brolly.verbs import GenerateOptions

Message = Mapping[str, Any]
Part = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A conversation, and how to go on with it. What the engine's `Job` is for models here.

    `tools`, `choice` and `parallel` are OpenAI's; `extra` are fields of the vendor's own, which go into the body
    beside what is said otherwise.
    """

    messages: tuple[Message, ...]
    options: GenerateOptions = field(default_factory=GenerateOptions)
    tools: tuple[Mapping[str, Any], ...] = ()
    choice: str | Mapping[str, Any] = "auto"
    parallel: bool = True
    n: int = 1
    stream: bool = True
    strict: bool = False  # refuse what is otherwise left out with a warning
    user: str = ""  # whose share it takes here; never sent
    extra: Mapping[str, Any] = field(default_factory=dict)
    template: Mapping[str, Any] = field(default_factory=dict)  # values for a chat template, where there is one
    # what is asked of a job of the engine, and is not known of one that runs elsewhere
    prompt: Sequence[int] = ()
    priority: int = 0

    def uses(self, kind: str) -> bool:
        """Whether a message holds a part of this type."""
        return any(
            part.get("type") == kind
            for message in self.messages
            if isinstance(message.get("content"), (list, tuple))
            for part in message["content"]
        )


OURS = ("model", "stream", "n", "candidateCount")  # what `extra` never says: reading and paying go by it


def beside(own: Mapping[str, Any], extra: Mapping[str, Any], within: str = "") -> dict[str, Any]:
    """A body with fields of the vendor's own: objects and lists are joined. Raises OptionError where both say one."""
    both = dict(own)
    for name, value in extra.items():
        said = own.get(name)
        if isinstance(said, Mapping) and isinstance(value, Mapping):
            both[name] = beside(said, value, f"{within}{name}.")
        elif isinstance(said, list) and isinstance(value, (list, tuple)):
            both[name] = [*said, *(one for one in value if one not in said)]
        elif (name in own or name in OURS) and (name not in own or said != value):
            raise OptionError(
                f"extra has {within}{name}, which the request says by itself; leave it out, or use the option for it."
            )
        else:
            both[name] = value
    return both
