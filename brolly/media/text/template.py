"""Chat templates: messages to one prompt, in the Jinja that publishers write for transformers, in a bounded sandbox."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from brolly.errors import TemplateError


class ChatTemplate:
    """A chat template; `named` holds variants ("tool_use") beside the default one."""

    def __init__(
        self, source: str, special_tokens: Mapping[str, str] | None = None, *, named: Mapping[str, str] | None = None
    ) -> None:
        self.source = source
        self.special_tokens = dict(special_tokens or {})
        self.named = dict(named or {})

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **extra: Any,
    ) -> str:
        """The prompt for a conversation; `extra` reaches the template by name (enable_thinking, ...)."""
        from brolly.media.text.sandbox import render

        source = self.named.get("tool_use", self.source) if tools else self.source
        if not source:
            raise TemplateError("There is no default chat template here; this is a base model: use `brolly run`.")
        values = {"messages": messages, "tools": tools, "documents": documents}
        return render(source, {**self.special_tokens, **extra, **values, "add_generation_prompt": add_generation_prompt})
