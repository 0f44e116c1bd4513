"""A conversation in OpenAI's words → Anthropic's `system` and turns of blocks.

Leading system and developer messages are the `system` field. A later one stands where it does, or behind the user's
turn that it came before, as the API wants it; for models that read none there it goes to the start. Turns of one role
become one, a tool's answers before all else in it. An assistant's thoughts go back block by block, as they came
(`opaque`), each to its own place.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from brolly.errors import OptionError
from brolly.remote.ask import Ask, Message, Part
from brolly.remote.content import taken_apart, text_of
from brolly.remote.target import Target
from brolly.remote.traits import traits_of

FAMILY = "anthropic"  # whose `opaque` parts are ours
FIRST = ("system", "developer")
PICTURES = ("image/jpeg", "image/png", "image/gif", "image/webp")
PDF = "application/pdf"
THOUGHTS = {"thinking": ("thinking", "signature"), "redacted_thinking": ("data",)}  # what such a block has
ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")  # of a call
LATER, PREFILL = "later_system", "prefill"  # what a model's or a vendor's row may lack

Block = dict[str, Any]


def turned(ask: Ask, target: Target) -> tuple[str | list[Block] | None, list[dict[str, Any]]]:
    """The system prompt, None without one, and the turns. Raises OptionError."""
    messages, n = ask.messages, leading(ask.messages)
    if _moved(messages[n:], target):
        messages = tuple(sorted(messages, key=lambda message: message["role"] not in FIRST))
        n = leading(messages)
    system = [block for message in messages[:n] for block in _blocks(message)]
    turns: list[tuple[str, list[Block]]] = []
    waits: list[Block] = []  # a system message, for the end of the user's turn that it came before
    for message in messages[n:]:
        role = message["role"]
        if role in FIRST:
            waits += _blocks(message)
            continue
        blocks = list(_assistant(message)) if role == "assistant" else _user(message)
        role = "assistant" if role == "assistant" else "user"
        if role == "assistant" and waits:
            turns, waits = [*turns, ("system", waits)], []
        if turns and turns[-1][0] == role:
            turns[-1][1].extend(blocks)
        elif blocks or role == "user":
            turns.append((role, blocks))
    if waits:
        turns.append(("system", waits))
    return (_short(system) if system else None), [{"role": role, "content": _short(_sorted(b))} for role, b in turns]


def leading(messages: Sequence[Message]) -> int:
    """How many system and developer messages a conversation begins with."""
    return next((i for i, message in enumerate(messages) if message["role"] not in FIRST), len(messages))


def lacks(ask: Ask, target: Target) -> list[str]:
    """What of the messages has no word here."""
    n = leading(ask.messages)
    rest = [message["role"] for message in ask.messages[n:]]
    found = {}  # a sentence once
    if not rest:
        found[f"{target} answers a user, and the conversation has system messages alone"] = 1
    if rest and rest[-1] == "assistant" and PREFILL in traits_of(target).lacks:
        found[f"{target} cannot go on with an assistant's unfinished message; end with a user's"] = 1
    for message in ask.messages:
        content = message.get("content")
        for part in content if isinstance(content, (list, tuple)) else ():
            if why := _unsaid(part, message["role"]):
                found[f"{target} {why}"] = 1
    return list(found)


def _moved(messages: Sequence[Message], target: Target) -> bool:
    """Whether later system messages go to the start: the model reads them nowhere else, or one has no user's turn
    beside it, where the API wants it."""
    roles = [message["role"] for message in messages]
    if not any(role in FIRST for role in roles):
        return False
    if LATER in traits_of(target).lacks or LATER in target.vendor.lacks:
        return True
    seen = [role for at, role in enumerate(roles) if role not in FIRST or at == 0 or roles[at - 1] not in FIRST]
    near = [{*seen[max(at - 1, 0) : at], *seen[at + 1 : at + 2]} for at, role in enumerate(seen) if role in FIRST]
    return not all(beside & {"user", "tool"} for beside in near)


def hints(ask: Ask, target: Target) -> list[str]:
    """What of the messages is left out and changes no meaning."""
    found = []
    if _moved(ask.messages[leading(ask.messages) :], target):
        found.append(f"{target} reads instructions before the conversation, so a later one's place has no word")
    for message in ask.messages:
        content = message.get("content")
        for part in content if isinstance(content, (list, tuple)) else ():
            image = part.get("image_url")
            if isinstance(image, Mapping) and image.get("detail") not in (None, "auto"):
                return [*found, f"{target} has no detail of pictures"]
    return found


def _unsaid(part: Part, role: str) -> str:
    """Why a part cannot be sent; "" where it can."""
    kind = part["type"]
    if kind in ("text", "refusal"):
        return ""
    if kind == "input_audio":
        return "reads no sounds"
    if kind not in ("image_url", "file"):
        return f"has no parts of the type {kind!r:.40}"
    if role not in ("user", "tool"):
        return f"reads pictures and files of users and tools, not in a message of the role {role}"
    found = taken_apart(_url(part))
    if found and kind == "image_url" and found[0] not in PICTURES:
        return f"reads JPEG, PNG, GIF and WebP, not {found[0]:.40}"
    if found and kind == "file" and found[0] != PDF:
        return f"reads files that are PDFs, not {found[0]:.40}; give texts as text"
    return ""


def _url(part: Part) -> str:
    """Where a picture or a file is: a data: URL, another URL, or "" where it is a file that the vendor keeps."""
    inner = part.get(part["type"])
    if part["type"] == "image_url":
        url = inner.get("url") if isinstance(inner, Mapping) else inner
    else:
        url = inner.get("file_data") if isinstance(inner, Mapping) else None
        if url is None and isinstance(inner, Mapping) and isinstance(inner.get("file_id"), str):
            return ""
    if not isinstance(url, str) or not url:
        raise OptionError(f"a part of the type {part['type']} has no address or data; expected a data: or https: URL.")
    return url


def _blocks(message: Message) -> list[Block]:
    """The content of a message of any role; empty texts are left out, which the API refuses."""
    content = message.get("content")
    if content is None or isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return [block for part in content if (block := _block(part)) is not None]


def _block(part: Part) -> Block | None:
    kind = part["type"]
    if kind in ("text", "refusal"):
        text = part.get(kind)
        if not isinstance(text, str):
            raise OptionError(f"a part of the type {kind} holds {text!r:.40}; expected a text.")
        if not text:
            return None
        block: Block = {"type": "text", "text": text}
    elif kind in ("image_url", "file"):
        url = _url(part)
        source: Block
        if (found := taken_apart(url)) is not None:
            source = {"type": "base64", "media_type": found[0], "data": found[1]}
        else:
            source = {"type": "url", "url": url} if url else {"type": "file", "file_id": part["file"]["file_id"]}
        block = {"type": "image" if kind == "image_url" else "document", "source": source}
        if kind == "file" and isinstance(name := part["file"].get("filename"), str) and name:
            block["title"] = name
    else:
        raise OptionError(f"a part has the type {kind!r:.40}; expected text, image_url or file.")
    if part.get("cache_control") is not None:
        block["cache_control"] = part["cache_control"]
    return block


def _user(message: Message) -> list[Block]:
    blocks = _blocks(message)
    if message["role"] != "tool":
        return blocks
    result: Block = {"type": "tool_result", "tool_use_id": call_id(message.get("tool_call_id"))}
    if blocks:
        if "cache_control" in blocks[-1]:  # of the result: blocks within it count as other places to cache
            result["cache_control"] = blocks[-1].pop("cache_control")
        result["content"] = _short(blocks)
    if message.get("is_error"):
        result["is_error"] = True
    return [result]


def _assistant(message: Message) -> Iterator[Block]:
    """Text, thoughts and calls in the order in which they came."""
    kept = [
        (row["at"], row["block"])
        for row in message.get("opaque") or ()
        if isinstance(row, Mapping) and row.get("vendor") == FAMILY and _placed(row)
    ]
    blocks, calls = _blocks(message), [_call(call) for call in message.get("tool_calls") or ()]
    length = len(text_of(message.get("content")))
    text = calling = 0  # characters and calls that were given
    for (chars, n_calls), block in kept:
        yield from _cut(blocks, text, min(chars, length))
        yield from calls[calling:n_calls]
        text, calling = max(text, min(chars, length)), max(calling, min(n_calls, len(calls)))
        yield dict(block)
    yield from _cut(blocks, text, length)
    yield from calls[calling:]


def _placed(row: Mapping[str, Any]) -> bool:
    """Whether it is a thought, and says where it stood."""
    at, block = row.get("at"), row.get("block")
    if not (isinstance(at, (list, tuple)) and len(at) == 2 and all(type(n) is int and n >= 0 for n in at)):
        return False
    if not isinstance(block, Mapping):
        return False
    fields = next((fields for kind, fields in THOUGHTS.items() if block.get("type") == kind), ())
    return bool(fields) and all(isinstance(block.get(name), str) for name in fields)


def _cut(blocks: list[Block], start: int, end: int) -> Iterator[Block]:
    """Blocks of text from one character to another, counted over all of them."""
    at = 0
    for block in blocks:
        text = block.get("text", "")
        piece = text[max(start - at, 0) : max(end - at, 0)]
        at += len(text)
        if piece:
            yield {**block, "text": piece}


def _call(call: Any) -> Block:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise OptionError(f"a call of a tool is {call!r:.80}; expected an id and a function with its name.")
    given = function.get("arguments") or "{}"
    try:
        parsed = json.loads(given) if isinstance(given, str) else given
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, Mapping):
        raise OptionError(
            f"the arguments of a call of {function['name']:.60} are {given!r:.60}; expected a JSON object."
        )
    block = {"type": "tool_use", "id": call_id(call.get("id")), "name": function["name"], "input": dict(parsed)}
    if call.get("cache_control") is not None:
        block["cache_control"] = call["cache_control"]
    return block


def call_id(given: Any) -> str:
    """A call's id in the letters that the API takes; that of another vendor is told from all others by a hash."""
    if not isinstance(given, str) or not given:
        raise OptionError(f"a tool's answer or call has the id {given!r:.40}; expected the id of the call.")
    if ID.fullmatch(given):
        return given
    name = hashlib.sha256(given.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{re.sub(r'[^a-zA-Z0-9_-]', '_', given)[:40]}_{name}"


def _sorted(blocks: list[Block]) -> list[Block]:
    """Answers of tools first, which the API wants."""
    return sorted(blocks, key=lambda block: block["type"] != "tool_result")


def _short(blocks: list[Block]) -> str | list[Block]:
    """A text alone as a string."""
    if not blocks:
        return ""
    plain = len(blocks) == 1 and blocks[0].keys() == {"type", "text"} and blocks[0]["type"] == "text"
    return blocks[0]["text"] if plain else blocks
