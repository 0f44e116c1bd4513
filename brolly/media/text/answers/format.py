"""AnswerFormat: how one model writes tool calls and thoughts, and what follows from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from brolly.errors import OptionError
from brolly.media.text.answers.calls import Calls, Channels, NamedCalls
from brolly.media.text.answers.deduce import deduce
from brolly.media.text.answers.lark import Spelling, forced_grammar, free_grammar, json_expression
from brolly.media.text.answers.split import Split, starts_of
from brolly.media.text.template import ChatTemplate
from brolly.media.text.tokenizer import Tokenizer

Tools = Sequence[Mapping[str, Any]]
Rule = Callable[[Mapping[str, Any]], str]


@dataclass(frozen=True)
class AnswerFormat:
    """What `format_of` found.

    `shown`: the template tells the model of tools (with `beside`, only where there is a system message; with `within`,
    by a text in that message); otherwise they are told in a system text. `rendered`: it writes calls of earlier turns;
    otherwise they are written as text. `objects`: it wants arguments as objects, not as JSON texts. `empty` is the
    content that it wants beside calls; `alone`: of one message it shows either words or calls; `single`: one call.
    """

    calls: Calls
    thoughts: tuple[str, str] | None
    shown: bool
    rendered: bool
    objects: bool
    beside: bool = False
    within: bool = False
    empty: str | None = ""
    alone: bool = False
    single: bool = False
    control: Mapping[str, int] = field(default_factory=dict)

    def keep_special(self, tools: bool) -> bool:
        """Whether the text that is split must show control tokens."""
        marks = [*starts_of(self.calls)] if tools or self._always else []
        if tools and not isinstance(self.calls, Channels):
            texts = [getattr(self.calls, name) for name in vars(self.calls) if name not in ("also", "section")]
            marks += [text for text in texts if isinstance(text, str)]
        marks += self.thoughts or ()
        return isinstance(self.calls, Channels) or any(text in mark for mark in marks for text in self.control if text)

    @property
    def _always(self) -> bool:
        return isinstance(self.calls, Channels) or (isinstance(self.calls, NamedCalls) and bool(self.calls.plain))

    def needs_split(self, tools: bool) -> bool:
        """Whether an answer can hold anything but words."""
        return tools or self._always or self.thoughts is not None

    def begun(self, prompt: str) -> str:
        """The mark that a prompt ends with, which the answer then goes on from."""
        if self.thoughts and prompt.rstrip().endswith(self.thoughts[0]):
            return self.thoughts[0]
        if isinstance(self.calls, NamedCalls) and self.calls.plain and prompt.endswith(self.calls.begin):
            return self.calls.begin
        return ""

    def split(self, tools: Tools = (), *, parallel: bool = True, prompt: str = "") -> Split:
        """What takes one answer to `prompt` apart; without `parallel` it ends after one call."""
        given = {name_of(tool): parameters_of(tool) for tool in tools}
        control = tuple(self.control) if self.keep_special(bool(tools)) else ()
        return Split(
            self.calls, self.thoughts, given, control=control, parallel=parallel, begun=self.begun(prompt)
        )  # fmt: skip

    def grammar(
        self, tools: Tools, choice: str | Mapping[str, Any] = "required", parallel: bool = True, *, prompt: str = "",
        rule: Rule | None = json_expression,
    ) -> str | None:  # fmt: skip
        """What may be written, in llguidance's Lark: a call of a tool where `choice` is "required", of the named one;
        or, where it is "auto", anything, in which a call of a `strict` function keeps to its schema (None if none is,
        and for formats where the beginning of a call cannot be told: harmony's and functionary 3.2's).

        `rule` makes an expression of a schema; without it arguments are any JSON object. Raises OptionError.
        """
        chosen = chosen_tools(tools, choice)
        spell = Spelling(self.control, rule or json_expression)
        schemas = {name_of(tool): parameters_of(tool) if rule else {} for tool in chosen}
        begun = self.begun(prompt)
        if choice == "auto":
            strict = {name_of(tool) for tool in chosen if function_of(tool).get("strict")}
            rows = [(name, schema if name in strict else {}) for name, schema in schemas.items()]
            return free_grammar(self.calls, self.thoughts, rows, parallel, begun, spell) if strict else None
        several = parallel and not isinstance(choice, Mapping)
        return forced_grammar(self.calls, self.thoughts, list(schemas.items()), several, begun, spell)


def format_of(template: ChatTemplate, tokenizer: Tokenizer | None = None) -> AnswerFormat:
    """How the model of a template and a tokenizer answers, by rendering the template and looking."""
    control: Mapping[str, int] = tokenizer.control if tokenizer is not None else {}
    found = deduce(template, tuple(control), tuple(tokenizer.added) if tokenizer is not None else ())
    return AnswerFormat(**vars(found), control=control)


def function_of(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """A tool's function, whether it is wrapped as OpenAI's chat wraps it or bare."""
    found = tool.get("function", tool)
    return found if isinstance(found, Mapping) else {}


def name_of(tool: Mapping[str, Any]) -> str:
    return str(function_of(tool).get("name") or "")


def parameters_of(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """The JSON Schema of a tool's arguments; {} where it says nothing."""
    found = function_of(tool).get("parameters")
    return found if isinstance(found, Mapping) else {}


def check_tools(tools: Any) -> list[dict[str, Any]]:
    """Tools as OpenAI's chat words them. Raises OptionError."""
    checked: list[dict[str, Any]] = []
    names: set[str] = set()
    for tool in tools or ():
        name = name_of(tool) if isinstance(tool, Mapping) else ""
        if not name:
            raise OptionError(f"a tool is {tool!r:.200}; it must be an object with a function that has a name.")
        if name in names:
            raise OptionError(f"two tools are named {name!r}; a call could not tell them apart.")
        names.add(name)
        function: dict[str, Any] = {"description": "", **function_of(tool)}
        if not isinstance(function.get("parameters"), Mapping):
            function["parameters"] = {"type": "object", "properties": {}}
        function["parameters"] = {"type": "object", "properties": {}, **function["parameters"]}
        checked.append({"type": "function", "function": function})
    return checked


def chosen_tools(tools: Tools, choice: str | Mapping[str, Any]) -> Tools:
    """The tools that a choice leaves. Raises OptionError where it leaves none of what it asks for."""
    if isinstance(choice, Mapping):
        name = name_of(choice)
        found = [tool for tool in tools if name_of(tool) == name]
        if not found:
            there = ", ".join(map(name_of, tools)) or "none"
            raise OptionError(f"tool_choice names {name!r}; the tools given are: {there}.")
        return found
    if choice not in ("auto", "none", "required"):
        raise OptionError(f"tool_choice is {choice!r:.80}; it must be auto, none, required or name a function.")
    if choice == "required" and not tools:
        raise OptionError("tool_choice is 'required' and there are no tools; give some.")
    return [] if choice == "none" else tools
