"""Gemini's generateContent, streamGenerateContent and countTokens: a conversation in Google's words."""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

from brolly.errors import BadAnswer, OptionError
from brolly.remote.ask import Ask, Message, Part, beside
from brolly.remote.content import taken_apart, text_of
from brolly.remote.dialect import Call
from brolly.remote.dialects.gemini.answers import FAMILY, KEPT, Stream
from brolly.remote.dialects.gemini.answers import told as told
from brolly.remote.dialects.gemini.answers import whole as whole
from brolly.remote.shapes import schema_of
from brolly.remote.target import Target
from brolly.remote.traits import EFFORTS, nearest, traits_of

# an option → its field of generationConfig
FIELDS = {
    "max_tokens": "maxOutputTokens", "temperature": "temperature", "top_p": "topP", "top_k": "topK", "seed": "seed",
    "presence_penalty": "presencePenalty", "frequency_penalty": "frequencyPenalty",
}  # fmt: skip
OPTIONS = frozenset(FIELDS) | {"stop", "logprobs", "json_schema", "choice", "effort", "thoughts"}
STOPS, MOST_LOGPROBS, MOST_ANSWERS, MOST_SEED = 5, 20, 8, 2**31 - 1
LEVELS = ("minimal", "low", "medium", "high", "xhigh")
# what Google's own OpenAI-compatible address takes these words for, where thinking is counted in tokens
BUDGETS = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24576}
# keywords of JSON Schema that answers are bound by
BINDING = frozenset({
    "$id", "$defs", "$ref", "$anchor", "type", "format", "title", "description", "enum", "items", "prefixItems",
    "minItems", "maxItems", "minimum", "maximum", "anyOf", "oneOf", "properties", "additionalProperties", "required",
    "propertyOrdering", "$schema", "$comment", "default", "examples",
})  # fmt: skip
# stands for the signature of a call that another model made, as Google's page on thought signatures has it
UNSIGNED = "skip_thought_signature_validator"


def model_path(target: Target, method: str) -> str:
    """/models/gemini-…:method; of a tuned model, too. Raises OptionError."""
    kind, slash, name = target.model.rpartition("/")
    if kind not in ("", "models", "tunedModels") or name in (".", ".."):
        raise OptionError(f"{target.model!r:.80} is no name of a model; expected one such as gemini-3-pro.")
    return f"/{kind or 'models'}/{quote(name, safe='')}:{method}"


def lacks(ask: Ask, target: Target) -> list[str]:
    """What of this it has no word for."""
    options, traits = ask.options, traits_of(target)
    found = []
    if (options.logprobs or 0) > MOST_LOGPROBS:
        found.append(f"{target} tells {MOST_LOGPROBS} alternatives of a token, not {options.logprobs}")
    if options.top_k == 0:
        found.append(f"{target} has no top_k of 0, which keeps all tokens")
    if ask.n > 1 and (ask.stream or ask.n > MOST_ANSWERS or "n" in traits.lacks):
        several = "one answer" if "n" in traits.lacks else f"up to {MOST_ANSWERS} answers, and one if it is streamed"
        found.append(f"{target} gives {several}; {ask.n} are asked for")
    if ask.tools and not ask.parallel:
        found.append(f"{target} has no parallel_tool_calls=false")
    return found + _unsaid(ask, target)


def _unsaid(ask: Ask, target: Target) -> list[str]:
    """What of the conversation it has no word for."""
    found = []
    if not any(message["role"] not in ("system", "developer") for message in ask.messages):
        found.append(f"{target} answers no instructions alone: add a message of the user's")
    called: dict[str, str] = {}
    for message in ask.messages:
        called |= {one["id"]: one["function"]["name"] for one in _calls(message)}
        if message["role"] == "tool" and not _named(message, called):
            asked = message.get("tool_call_id")
            found.append(f"{target} wants the name of each tool that answers, and no message calls {asked!r:.80}")
        for part in _parts(message):
            if told := _unknown(part):
                found.append(f"{target} {told}")
            elif part["type"] != "text" and message["role"] not in ("user", "tool"):
                found.append(f"{target} reads files of users and tools, not in a message of the role {message['role']}")
    return list(dict.fromkeys(found))


def hints(ask: Ask, target: Target) -> list[str]:
    """What it leaves out that changes no meaning."""
    options = ask.options
    found = []
    if options.seed is not None and not -MOST_SEED <= options.seed <= MOST_SEED:
        found.append(f"{target} has no seed beyond {MOST_SEED}")
    _, told = _thinking(ask, target)
    found += [told] if told else []
    if options.json_schema and (loose := sorted(_loose(schema_of(options.json_schema)))):
        found.append(f"{target} is not bound by what a schema says by {', '.join(loose)[:200]}")
    if any(_function(tool).get("strict") for tool in ask.tools):
        found.append(f"{target} has no strict tools")
    begun = False
    for message in ask.messages:
        if message["role"] in ("system", "developer") and begun:
            found.append(f"{target} reads instructions before the conversation, so a later one's place has no word")
            break
        begun = begun or message["role"] not in ("system", "developer")
    if any(
        (part.get("image_url") or {}).get("detail", "auto") != "auto"
        for message in ask.messages
        for part in _parts(message)
        if part.get("type") == "image_url" and isinstance(part.get("image_url"), Mapping)
    ):
        found.append(f"{target} has no detail of a picture")
    return found


def call(ask: Ask, target: Target) -> Call:
    """The request. Raises OptionError."""
    settings = {"generationConfig": {}} | _settings(ask, target)
    body = beside(conversation(ask, target) | settings, ask.extra)
    if not body["generationConfig"]:
        del body["generationConfig"]
    if ask.stream:
        return Call(model_path(target, "streamGenerateContent"), body, query={"alt": "sse"})
    return Call(model_path(target, "generateContent"), body)


def reader(ask: Ask, target: Target) -> Stream:
    return Stream(ask, target)


def count(ask: Ask, target: Target) -> Call:
    """countTokens: of a bare conversation, or of a whole request where it has instructions or tools.

    Raises OptionError.
    """
    said = conversation(ask, target)
    if len(said) > 1:
        said = {"generateContentRequest": {"model": model_path(target, "").strip("/:"), **said}}
    return Call(model_path(target, "countTokens"), said)


def counted(body: Any) -> int:
    """How many tokens. Raises BadAnswer."""
    found = body.get("totalTokens", 0) if isinstance(body, Mapping) else None
    if type(found) is not int or found < 0:
        raise BadAnswer("Google's count of tokens is no number.")
    return found


# what is said


def conversation(ask: Ask, target: Target) -> dict[str, Any]:
    """contents, systemInstruction and tools. Raises OptionError."""
    if unsaid := _unsaid(ask, target):
        raise OptionError(f"{'; '.join(unsaid)}.")
    called: dict[str, str] = {}
    own = {one["call"]: one for message in ask.messages for one in _own(message) if isinstance(one.get("call"), str)}
    # those that think by levels know ids of calls, and want signatures; older ones go by names and order
    signs = traits_of(target).thinking not in ("budget", "none")
    if not signs:
        own = {id: {**one, "own": False} for id, one in own.items()}
    instructions: list[dict[str, Any]] = []
    contents: list[dict[str, Any]] = []
    for message in _ordered(ask.messages):
        called |= {one["id"]: one["function"]["name"] for one in _calls(message)}
        if message["role"] in ("system", "developer"):
            instructions += [{"text": text_of(message.get("content"))}]
            continue
        if message["role"] == "assistant":
            role, parts = "model", list(_turn(message, own, signs))
        elif message["role"] == "tool":
            role, parts = "user", [_result(message, called, own)]
        else:
            role, parts = "user", [_part(part) for part in _parts(message)]
        # what a user says stands apart from results of tools, as many as were called for
        alike = contents and ("functionResponse" in contents[-1]["parts"][0]) == (message["role"] == "tool")
        if parts and alike and contents[-1]["role"] == role:
            contents[-1]["parts"] += parts
        elif parts:
            contents.append({"role": role, "parts": parts})
    said: dict[str, Any] = {"contents": contents}
    if instructions:
        said["systemInstruction"] = {"parts": instructions}
    if ask.tools:
        said["tools"] = [{"functionDeclarations": [_declared(_function(tool)) for tool in ask.tools]}]
    return said


def _ordered(messages: Sequence[Message]) -> list[Message]:
    """The same with results of tools in the order of their calls, as names alone do not tell which is whose."""
    found: list[Message] = []
    places: dict[str, int] = {}
    first = 0  # of the results at the end
    for message in messages:
        if message["role"] == "tool":
            found.append(message)
            found[first:] = sorted(found[first:], key=lambda one: places.get(str(one.get("tool_call_id")), 0))
            continue
        places |= {one["id"]: at for at, one in enumerate(_calls(message))}
        found.append(message)
        first = len(found)
    return found


def _turn(message: Message, own: Mapping[str, Any], signs: bool) -> Iterator[dict[str, Any]]:
    """The parts of a turn of the model's: its text with the signatures where they stood, then its calls."""
    yield from _signed(message)
    calls = _calls(message)
    bare = signs and not any(own.get(one["id"], {}).get("signature") for one in calls)
    for at, one in enumerate(calls):
        known = own.get(one["id"], {})
        arguments = one["function"].get("arguments") or "{}"
        try:
            given = json.loads(arguments)
            if not isinstance(given, dict):
                raise ValueError
        except (ValueError, RecursionError):
            raise OptionError(
                f"the arguments of the call {one['id']!r:.60} are {arguments!r:.60}; expected a JSON object."
            ) from None
        # ids are Gemini's own or none
        call = {"name": one["function"]["name"], "args": given} | ({"id": one["id"]} if known.get("own") else {})
        signature = known.get("signature") or (UNSIGNED if bare and at == 0 else None)
        yield {"functionCall": call} | ({"thoughtSignature": signature} if signature else {})


def _signed(message: Message) -> Iterator[dict[str, Any]]:
    """A turn's text, cut where a signature or a part of Google's own tools stood."""
    text, at = text_of(message.get("content")), 0
    for one in _own(message):
        if "call" in one:
            continue
        after, length = (int(one[name]) if type(one.get(name)) is int else 0 for name in ("after", "length"))
        if not at <= after <= after + length <= len(text):
            after, length = len(text), 0  # the text was changed since
        if text[at:after]:
            yield {"text": text[at:after]}
        at = max(at, after + length)
        signature = {"thoughtSignature": one["signature"]} if isinstance(one.get("signature"), str) else {}
        if isinstance(part := one.get("part"), Mapping):
            # a server's clients have it in between, and could name files of the account that are not theirs
            yield {name: part[name] for name in KEPT if name in part} | signature
        else:
            yield {"text": text[after : after + length], **signature}
    if text[at:]:
        yield {"text": text[at:]}


def _result(message: Message, called: Mapping[str, str], own: Mapping[str, Any]) -> dict[str, Any]:
    """The answer of a tool; pictures that it gave go beside its text."""
    id = message.get("tool_call_id")
    word = "error" if message.get("is_error") else "output"
    response: dict[str, Any] = {"id": id} if str(id) in own and own[str(id)].get("own") else {}
    response |= {"name": _named(message, called), "response": {word: text_of(message.get("content"))}}
    if files := [_part(part) for part in _parts(message) if part.get("type") != "text"]:
        response["parts"] = files
    return {"functionResponse": response}


def _named(message: Message, called: Mapping[str, str]) -> str:
    """The name of the tool that answers; "" if nothing tells it."""
    id, name = message.get("tool_call_id"), message.get("name")
    return (called.get(id, "") if isinstance(id, str) else "") or (name if isinstance(name, str) else "")


def _own(message: Message) -> list[Mapping[str, Any]]:
    """What Gemini wants back of a turn."""
    given = message.get("opaque") or ()
    return [one for one in given if isinstance(one, Mapping) and one.get("vendor") == FAMILY]


def _part(part: Part) -> dict[str, Any]:
    """Raises OptionError."""
    if part["type"] == "text":
        return {"text": part.get("text", "")}
    if part["type"] == "input_audio":
        sound = part["input_audio"]
        return {"inlineData": {"mimeType": f"audio/{sound.get('format', 'wav')}", "data": sound["data"]}}
    url = _url(part)
    inline = taken_apart(url)
    if inline is not None:
        return {"inlineData": {"mimeType": inline[0], "data": inline[1]}}
    return {"fileData": {"mimeType": _kind(url), "fileUri": url}}


def _unknown(part: Part) -> str:
    """What is wrong with a part; "" if nothing is."""
    kind = part.get("type")
    if kind == "text":
        return ""
    if kind not in ("image_url", "input_audio", "file"):
        return f"has no parts of the type {kind!r:.40}"
    if kind == "input_audio":
        sound = part.get("input_audio")
        fine = isinstance(sound, Mapping) and isinstance(sound.get("data"), str) and sound.get("format", "").isalnum()
        return "" if fine else "wants a sound as base64 with its format"
    url = _url(part)
    if url[:5].lower() == "data:" or url.startswith("https://") and _kind(url):
        return ""
    if url.startswith("https://"):
        return f"wants the type of a file, and the name in {url!r:.80} does not tell; send the file itself"
    return "reads files that are sent with a message (data: URLs) or that lie at https://; send the file itself"


def _url(part: Part) -> str:
    inner = part.get("image_url" if part.get("type") == "image_url" else "file")
    found = inner if isinstance(inner, str) else None
    if isinstance(inner, Mapping):
        found = inner.get("url") or inner.get("file_data") or inner.get("file_url")
    return found if isinstance(found, str) else ""


def _kind(url: str) -> str:
    """The media type that the name at an address tells; "" if it tells none."""
    return mimetypes.guess_type(urlsplit(url).path)[0] or ""


def _parts(message: Message) -> list[Part]:
    content = message.get("content")
    if isinstance(content, (list, tuple)):
        return [part for part in content if part.get("type") != "text" or part.get("text") or len(content) == 1]
    return [] if content is None else [{"type": "text", "text": content}]


def _calls(message: Message) -> list[Mapping[str, Any]]:
    """The calls of a turn of the assistant's. Raises OptionError."""
    found = message.get("tool_calls") or [] if message["role"] == "assistant" else []
    for one in found:
        function = one.get("function") if isinstance(one, Mapping) else None
        if (
            not isinstance(function, Mapping)
            or not isinstance(function.get("name"), str)
            or not isinstance(one.get("id"), str)
        ):
            raise OptionError("a tool call is {id, type: function, function: {name, arguments}}; found another.")
    return list(found)


# how it is to be answered


def _settings(ask: Ask, target: Target) -> dict[str, Any]:
    """generationConfig and toolConfig."""
    options = ask.options
    config: dict[str, Any] = {}
    for name, field in FIELDS.items():
        value = getattr(options, name)
        if value is not None and not (value == 0 and name.endswith("_penalty")):
            config[field] = value
    if not -MOST_SEED <= config.get("seed", 0) <= MOST_SEED:
        del config["seed"]
    if options.stop:
        config["stopSequences"] = list(options.stop)
    if ask.n > 1:
        config["candidateCount"] = ask.n
    if options.logprobs is not None:
        config |= {"responseLogprobs": True} | ({"logprobs": options.logprobs} if options.logprobs else {})
    if options.json_schema:
        config["responseMimeType"] = "application/json"
        if schema := schema_of(options.json_schema):
            config["responseJsonSchema"] = schema
    if options.choice:
        config["responseMimeType"] = "text/x.enum"
        config["responseSchema"] = {"type": "STRING", "enum": list(options.choice)}
    thinking, _ = _thinking(ask, target)
    if thinking:
        config["thinkingConfig"] = thinking
    found: dict[str, Any] = {"generationConfig": config} if config else {}
    if ask.tools and (calling := _calling(ask.choice)):
        found["toolConfig"] = {"functionCallingConfig": calling}
    return found


def _thinking(ask: Ask, target: Target) -> tuple[dict[str, Any], str]:
    """thinkingConfig, and what of it there is no word for."""
    traits, effort = traits_of(target), ask.options.effort
    found: dict[str, Any] = {}
    if traits.thinking == "none":
        asked = ask.options.thoughts or effort not in (None, "none")
        return {}, f"{target} does not think, so it has no effort and no thoughts" if asked else ""
    if ask.options.thoughts:
        found["includeThoughts"] = True
    if effort is None:
        return found, ""
    if effort.isdecimal():
        if traits.thinking == "level":
            return found, f"{target} counts no tokens of thinking ({effort}): say {', '.join(traits.efforts or LEVELS)}"
        return found | {"thinkingBudget": int(effort)}, ""
    words = traits.efforts or (tuple(BUDGETS) if traits.thinking == "budget" else LEVELS)
    if effort not in EFFORTS:
        return found, f"{target} has no effort {effort!r:.40}; it knows {', '.join(words)}"
    word = nearest(effort, words)
    told = "" if word == effort else f"{target} has no effort {effort!r} ({word} is sent in its place)"
    if traits.thinking == "budget":
        return found | {"thinkingBudget": BUDGETS[word]}, told
    return found | {"thinkingLevel": word.upper()}, told


def _calling(choice: str | Mapping[str, Any]) -> dict[str, Any]:
    """functionCallingConfig; {} where the model decides. Raises OptionError."""
    if choice == "auto":
        return {}
    if choice in ("none", "required"):
        return {"mode": "NONE" if choice == "none" else "ANY"}
    if isinstance(choice, Mapping):
        if choice.get("type") == "allowed_tools":
            inner = choice.get("allowed_tools", choice)
            names = [_function(tool).get("name") for tool in inner.get("tools", ())]
            return {"mode": "ANY" if inner.get("mode") == "required" else "VALIDATED", "allowedFunctionNames": names}
        if isinstance(name := _function(choice).get("name"), str):
            return {"mode": "ANY", "allowedFunctionNames": [name]}
    raise OptionError(f"tool_choice is {choice!r:.80}; expected auto, none, required or a function's name.")


def _function(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """What is in a tool's or a choice's "function". Raises OptionError at another type."""
    inner = (
        tool.get("function", tool) if isinstance(tool, Mapping) and tool.get("type", "function") == "function" else None
    )
    if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
        raise OptionError(f"a tool is {tool!r:.80}; expected {{type: function, function: {{name, parameters}}}}.")
    return inner


def _declared(function: Mapping[str, Any]) -> dict[str, Any]:
    found = {"name": function["name"]}
    if function.get("description"):
        found["description"] = function["description"]
    if function.get("parameters"):
        found["parametersJsonSchema"] = function["parameters"]
    return found


def _loose(schema: Any, depth: int = 0) -> set[str]:
    """Keywords that bind nobody there. A bound on the depth, as schemas come from anywhere."""
    if not isinstance(schema, Mapping) or depth > 64:
        return set()
    found = {name for name in schema if name not in BINDING}
    for name in ("properties", "$defs"):
        if isinstance(schema.get(name), Mapping):
            found = found.union(*(_loose(one, depth + 1) for one in schema[name].values()))
    for name in ("items", "additionalProperties", "anyOf", "oneOf", "prefixItems"):
        inner = schema.get(name)
        found = found.union(*(_loose(one, depth + 1) for one in (inner if isinstance(inner, list) else [inner])))
    return found
