"""Chat templates: messages to one prompt, in the Jinja that publishers write for transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from brolly.errors import TemplateError


class ChatTemplate:
    """A chat template; `named` holds variants ("tool_use") beside the default. Jinja is imported when it renders."""

    def __init__(
        self, source: str, special_tokens: Mapping[str, str] | None = None, *, named: Mapping[str, str] | None = None
    ) -> None:
        self.source = source
        self.special_tokens = dict(special_tokens or {})
        self.named = dict(named or {})
        self._compiled: dict[str, Any] = {}

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        marks: tuple[str, str] = ("", ""),
        **extra: Any,
    ) -> str:
        """The prompt for a conversation; `extra` reaches the template by name (enable_thinking, ...).

        `marks` stand around what a template says the assistant wrote ({% generation %}).
        """
        from brolly.media.text.sandbox import compile_template, render

        source = self.source_for(tools=bool(tools))
        for kind, rows in (("message", messages), ("tool", tools), ("document", documents)):
            wrong = next((row for row in rows or () if not isinstance(row, Mapping)), None)
            if wrong is not None or isinstance(rows, (str, Mapping)):
                raise TemplateError(f"A {kind} is {wrong or rows!r}; expected a list of objects.")
        if source not in self._compiled:
            self._compiled[source] = compile_template(source)
        values = {
            **self.special_tokens,
            **extra,
            "messages": [_reasoned(m) for m in messages],
            "tools": tools,
            "documents": documents,
            "add_generation_prompt": add_generation_prompt,
        }
        return render(self._compiled[source], values, marks)

    def marked(
        self, messages: Sequence[Mapping[str, Any]], *, tools: Sequence[Mapping[str, Any]] | None = None
    ) -> list[tuple[int, int]] | None:
        """Where in the text of a whole conversation the assistant's words stand; None where the template tells not."""
        import secrets

        if "generation" not in self.source_for(tools=bool(tools)).replace("add_generation_prompt", ""):
            return None
        mark = f"\ue000{secrets.token_hex(8)}\ue001"  # nobody can have written it
        text = self.render(messages, tools=tools, add_generation_prompt=False, marks=(mark, mark))
        parts = text.split(mark)
        plain = self.render(messages, tools=tools, add_generation_prompt=False)
        if len(parts) < 3 or not len(parts) % 2 or "".join(parts) != plain:
            return None
        ends = [0]
        for part in parts:
            ends.append(ends[-1] + len(part))
        return [(ends[i], ends[i + 1]) for i in range(1, len(parts), 2)]

    def source_for(self, *, tools: bool) -> str:
        """The variant made for tools where there are some, else the default one."""
        source = self.named.get("tool_use", self.source) if tools else self.source
        if not source:
            names = ", ".join(sorted(self.named)) or "none"
            raise TemplateError(f"There is no default chat template here; the named ones are: {names}.")
        return source


_REASONING = ("reasoning_content", "thinking", "reasoning")


def _reasoned(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """A message whose thoughts are found under each name that templates read."""
    thoughts = next((message[key] for key in _REASONING if message.get(key) is not None), None)
    return message if thoughts is None else {"thinking": thoughts, **message, "reasoning_content": thoughts}
