"""Anthropic's /v1/messages: an `Ask` → a request; how it is counted. What comes back is read in `answers`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from brolly.errors import BadAnswer, OptionError
from brolly.remote.ask import Ask, beside
from brolly.remote.dialect import Call
from brolly.remote.dialects.anthropic import schemas, thinking, turns
from brolly.remote.dialects.anthropic.answers import Reader as Reader
from brolly.remote.dialects.anthropic.answers import told as told
from brolly.remote.dialects.anthropic.answers import whole as whole
from brolly.remote.shapes import schema_of
from brolly.remote.target import Target
from brolly.remote.traits import traits_of

BLANK_STOPS = False  # a stop text of white space alone is refused there
VERSION = "2026-10-21"
SAMPLED = "2023-06-01"  # the last version that has temperature, top_p and top_k
SAMPLING = ("temperature", "top_p", "top_k")
COUNTED = ("model", "messages", "system", "tools", "tool_choice", "thinking", "output_config", "cache_control", "speed")
OPTIONS = frozenset(
    ("max_tokens", "temperature", "top_p", "top_k", "stop", "json_schema", "effort", "thoughts")
)  # fmt: skip


def lacks(ask: Ask, target: Target) -> list[str]:
    """What of this it has no word for."""
    options = ask.options
    found = turns.lacks(ask, target) + list(thinking.planned(ask, target).lacks)
    if ask.n > 1:
        found.append(f"{target} gives one answer, not {ask.n}")
    if ask.template:
        found.append(f"{target} has no chat template to give values to")
    if options.temperature is not None and options.temperature > 1:
        found.append(f"{target} takes temperatures from 0 to 1, not {options.temperature:g}")
    if options.json_schema is not None:
        found += [f"{target} {why}" for why in schemas.unsaid(schema_of(options.json_schema))]
    for schema in _strict(ask):
        found += [f"{target} {why} (in a strict tool)" for why in schemas.unsaid(schema)]
    if ask.tools and ask.choice not in ("auto", "none") and "tool_choice" in traits_of(target).lacks:
        found.append(f"{target} cannot be made to call a tool; let tool_choice be auto")
    elif ask.tools and isinstance(ask.choice, Mapping) and not _named(ask.choice):
        found.append(f"{target} has no tool_choice of the type {ask.choice.get('type')!r:.40}")
    return found


def hints(ask: Ask, target: Target) -> list[str]:
    """What it leaves out that changes no meaning."""
    shapes = [*_strict(ask), *([schema_of(ask.options.json_schema)] if ask.options.json_schema else [])]
    bounds = sorted({name for shape in shapes for name in schemas.loose(shape)})
    beyond = [f"{target} is not bound by what a schema says by {', '.join(bounds)}"] if bounds else []
    return [*turns.hints(ask, target), *thinking.planned(ask, target).hints, *beyond]


def call(ask: Ask, target: Target) -> Call:
    """The request. Raises OptionError where a message cannot be read."""
    said = {"model": target.model, **body(ask, target)}
    if ask.stream:
        said["stream"] = True
    betas = said.pop("betas", None)
    return Call("/v1/messages", said, headers=headers(said, betas))


def headers(said: Mapping[str, Any], betas: Any = None) -> dict[str, str]:
    """The version of the API that has words for all that is said, and the betas that are asked for."""
    found = {"anthropic-version": SAMPLED if any(name in said for name in SAMPLING) else VERSION}
    if betas:
        found["anthropic-beta"] = betas if isinstance(betas, str) else ",".join(map(str, betas))
    return found


def body(ask: Ask, target: Target) -> dict[str, Any]:
    """What is the same wherever Claude runs: all but the model and whether it streams."""
    options, plan = ask.options, thinking.planned(ask, target)
    system, rows = turns.turned(ask, target)
    said: dict[str, Any] = {"max_tokens": plan.max_tokens, "messages": rows}
    config: dict[str, Any] = {}
    if system is not None:
        said["system"] = system
    for name in SAMPLING:
        if getattr(options, name) is not None and (name, getattr(options, name)) != ("top_k", 0):
            said[name] = getattr(options, name)
    if options.stop:
        said["stop_sequences"] = list(options.stop)
    if ask.tools:
        said["tools"] = [_tool(tool) for tool in ask.tools]
        if (choice := _choice(ask)) is not None:
            said["tool_choice"] = choice
    if plan.thinking is not None:
        said["thinking"] = plan.thinking
    if plan.effort is not None:
        config["effort"] = plan.effort
    if options.json_schema is not None:
        config["format"] = {"type": "json_schema", "schema": schemas.taken(schema_of(options.json_schema))}
    if config:
        said["output_config"] = config
    return beside(said, ask.extra)


def count(ask: Ask, target: Target) -> Call:
    """A request for the tokens of a conversation."""
    said = {"model": target.model, **body(ask, target)}
    betas = said.pop("betas", None)
    return Call(
        "/v1/messages/count_tokens",
        {name: said[name] for name in COUNTED if name in said},
        headers=headers({}, betas),
    )


def counted(body: Any) -> int:
    """Tokens. Raises BadAnswer."""
    found = body.get("input_tokens") if isinstance(body, Mapping) else None
    if type(found) is not int or found < 0:
        raise BadAnswer(f"the count of tokens is {found!r:.60}; expected a number under input_tokens.")
    return found


def reader(ask: Ask, target: Target) -> Reader:
    return Reader(target)


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    """A function in Anthropic's words; a tool of Anthropic's own as it stands."""
    function = tool.get("function")
    if tool.get("type", "function") != "function" or not isinstance(function, Mapping):
        return dict(tool)
    if not isinstance(function.get("name"), str):
        raise OptionError(f"a tool is {tool!r:.80}; expected a function with a name.")
    schema = function.get("parameters")
    if schema is not None and not isinstance(schema, Mapping):
        raise OptionError(f"the parameters of {function['name']:.60} are {schema!r:.60}; expected a JSON schema.")
    schema = {"type": "object", **(schema or {"properties": {}})}
    strict = function.get("strict") is True
    found: dict[str, Any] = {"name": function["name"], "input_schema": schemas.taken(schema) if strict else schema}
    if function.get("description"):
        found["description"] = function["description"]
    if strict:
        found["strict"] = True
    cached = tool.get("cache_control", function.get("cache_control"))
    if cached is not None:
        found["cache_control"] = cached
    return found


def _strict(ask: Ask) -> list[Any]:
    """The schemas of tools whose calls must keep to them."""
    functions = [tool.get("function") for tool in ask.tools]
    return [
        one["parameters"]
        for one in functions
        if isinstance(one, Mapping) and one.get("strict") and one.get("parameters")
    ]


def _choice(ask: Ask) -> dict[str, Any] | None:
    """tool_choice; None where the API's own says the same."""
    if ask.choice == "none":
        return {"type": "none"}
    name = _named(ask.choice) if isinstance(ask.choice, Mapping) else ""
    said: dict[str, Any] = {"type": "tool", "name": name} if name else {"type": "any"}
    if ask.choice == "auto":
        said = {"type": "auto"}
        if ask.parallel:
            return None
    elif not name and ask.choice != "required":
        raise OptionError(f"tool_choice is {ask.choice!r:.60}; expected auto, none, required or a function's name.")
    return said if ask.parallel else {**said, "disable_parallel_tool_use": True}


def _named(choice: Mapping[str, Any]) -> str:
    """The name of the tool that is forced."""
    function = choice.get("function")
    name = function.get("name") if isinstance(function, Mapping) else choice.get("name")
    return name if isinstance(name, str) and choice.get("type") in ("function", "tool") else ""
