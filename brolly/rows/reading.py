"""A raw row → its value: types are checked, messages and paths too, and what is wrong is said in a few words."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from brolly.rows.shapes import Found
from brolly.rows.store import MAX_LINE, article
from brolly.rows.values import (
    Captioned,
    Completion,
    Conversation,
    Judged,
    Labelled,
    Messages,
    Pair,
    Preference,
    Prompted,
    Said,
    Spoken,
    Text,
    Value,
)

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
# ShareGPT's names of who speaks
SPEAKERS = {
    "human": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "model": "assistant",
    "observation": "tool", "function_response": "tool",
}  # fmt: skip
FOLDERS = {"image": ("",), "sound": ("", "clips", "wavs")}  # beside a manifest; Common Voice's and LJSpeech's too
MAX_MESSAGES, MAX_NEGATIVES = 10_000, 10_000
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif", ".heic")
SOUNDS = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac", ".wma", ".aiff", ".aif", ".mp4", ".webm", ".mkv")


class Bad(Exception):
    """Why a row cannot be used; who knows where it stands makes a RowFault of it."""


def value_of(row: Mapping[str, Any], found: Found, base: Path | None) -> Value:
    """The value of a raw row. `base` is the folder that its paths are relative to; None allows no path. Raises Bad."""
    columns = found.columns

    def cell(role: str) -> Any:
        name = columns.get(role)
        return None if name is None else row.get(name)

    def text(role: str) -> str:
        return text_in(cell(role), repr(columns[role]))

    match found.shape:
        case "text":
            return Text(text("text"))
        case "completion":
            return _completion(row, columns, cell)
        case "chat":
            return _conversation(cell, columns)
        case "preference":
            return _preference(cell, columns)
        case "judged":
            asked, answer = _both(cell("prompt"), cell("completion"), columns["prompt"], columns["completion"])
            return Judged(asked, answer, _truth(cell("good"), columns["good"]))
        case "prompted":
            return Prompted(_said(cell("prompt"), columns["prompt"]))
        case "pair":
            return _pair(row, found, cell)
        case "caption":
            return Captioned(file_in(cell("image"), columns["image"], base, "image"), text("text"))
        case "label":
            given, name = cell("input"), columns["input"]
            seen = file_in(given, name, base, "image") if found.picture else text_in(given, repr(name))
            return Labelled(seen, _label(cell("label"), columns["label"]))
        case "speech":
            language = cell("language")
            if language is not None and not isinstance(language, str):
                raise Bad(f"{columns['language']!r} is {article(language)}, not a language's name")
            return Spoken(file_in(cell("audio"), columns["audio"], base, "sound"), text("text"), language or None)
    raise AssertionError(found.shape)


def text_in(value: Any, name: str, *, empty: bool = False) -> str:
    """A text that is one; `name` is what a message calls it. Raises Bad."""
    if value is None:
        raise Bad(f"has no {name}")
    if not isinstance(value, str):
        raise Bad(f"{name} is {article(value)}, not a text")
    if not empty and not value.strip():
        raise Bad(f"{name} is empty")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Bad(f"{name} holds half of a character (a lone surrogate), which no text has") from None
    return value


def parsed(value: Any) -> Any:
    """A list or an object that a table could only hold as JSON; anything else as it is."""
    if isinstance(value, str) and value[:256].lstrip()[:1] in ("[", "{") and len(value) <= MAX_LINE:
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def messages_in(value: Any, name: str) -> Messages:
    """Messages as OpenAI's chat has them, of those or of ShareGPT's. Raises Bad."""
    value = parsed(value)
    if value is None:
        raise Bad(f"has no {name!r}")
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise Bad(f"{name!r} is {article(value)}, not a list of messages")
    if not value:
        raise Bad(f"{name!r} holds no messages")
    if len(value) > MAX_MESSAGES:
        raise Bad(f"{name!r} holds {len(value):,} messages; {MAX_MESSAGES:,} are read at most")
    return tuple(_message(one, f"message {i + 1} of {name!r}") for i, one in enumerate(value))


def _message(one: Any, which: str) -> Mapping[str, Any]:
    if not isinstance(one, Mapping):
        raise Bad(f"{which} is {article(one)}, not an object with a role and a content")
    one = {k: v for k, v in one.items() if v is not None}  # Parquet has every column in every row
    if "from" in one and "role" not in one:
        one = {"role": one.pop("from"), "content": one.pop("value", None), **one}
    if one.get("role") == "function_call":
        return _called(one, which)
    role = SPEAKERS.get(one.get("role", ""), one.get("role")) if isinstance(one.get("role", ""), str) else None
    if role not in ROLES:
        raise Bad(f"{which} has the role {str(one.get('role'))[:40]!r}; expected one of {', '.join(ROLES)}")
    calls = one.get("tool_calls")
    if calls is not None and (
        role != "assistant" or not isinstance(calls, list) or not all(isinstance(c, Mapping) for c in calls)
    ):
        raise Bad(f"{which} has tool_calls that are no list of an assistant's calls")
    content = one.get("content")
    if isinstance(content, list):
        content = _joined(content, which)
    if content is None and not calls and not one.get("function_call"):
        raise Bad(f"{which} has no content")
    if content is not None:
        text_in(content, f"content of {which}", empty=bool(calls) or role != "assistant")
    if "weight" in one and (isinstance(one["weight"], bool) or one["weight"] not in (0, 1)):
        raise Bad(f"{which} has the weight {str(one['weight'])[:20]!r}; expected 0 or 1")
    return {**one, "role": role, "content": content}


def _joined(parts: Sequence[Any], which: str) -> str:
    """The text of a content in parts."""
    texts = []
    for part in parts:
        if not isinstance(part, Mapping) or part.get("type") not in ("text", "input_text", "output_text"):
            kind = part.get("type") if isinstance(part, Mapping) else article(part)
            raise Bad(f"{which} holds a part of the kind {str(kind)[:40]!r}; only texts are read here")
        texts.append(text_in(part.get("text"), f"text of {which}", empty=True))
    return "".join(texts)


def _called(one: Mapping[str, Any], which: str) -> Mapping[str, Any]:
    """A tool call as ShareGPT's data spell it: JSON with a name and arguments, or a list of such."""
    calls = parsed(one.get("content"))
    calls = [calls] if isinstance(calls, Mapping) else calls
    if (
        not isinstance(calls, list)
        or not calls
        or not all(isinstance(c, Mapping) and isinstance(c.get("name"), str) for c in calls)
    ):
        raise Bad(f"{which} is a function call that is no JSON with a name and arguments")
    made = [
        {"type": "function", "function": {"name": c["name"], "arguments": json.dumps(c.get("arguments", {}))}}
        for c in calls
    ]
    return {"role": "assistant", "content": None, "tool_calls": made}


def _said(value: Any, name: str) -> Said:
    """A text, or messages; a text that is JSON is such only where it can be nothing else."""
    many = parsed(value)
    objects = isinstance(many, list) and many and all(isinstance(m, Mapping) for m in many)
    if objects and (not isinstance(value, str) or all(m.get("role") in ROLES and "content" in m for m in many)):
        return messages_in(many, name)
    return text_in(value, repr(name))


def _both(asked: Any, answer: Any, asked_name: str, answer_name: str) -> tuple[Said, Said]:
    """A prompt and an answer of one kind: where one of them is messages, the other becomes such."""
    first, second = _said(asked, asked_name), _said(answer, answer_name)
    if isinstance(first, str) and not isinstance(second, str):
        first = ({"role": "user", "content": first},)
    if isinstance(second, str) and not isinstance(first, str):
        second = ({"role": "assistant", "content": second},)
    return first, second


def _completion(row: Mapping[str, Any], columns: Mapping[str, str], cell: Callable[[str], Any]) -> Value:
    asked, answer = _both(cell("prompt"), cell("completion"), columns["prompt"], columns["completion"])
    if not isinstance(asked, str):
        assert not isinstance(answer, str)
        return Conversation(tuple({**m, "weight": 0} if m["role"] == "assistant" else m for m in asked) + answer)
    assert isinstance(answer, str)
    if "input" in columns and cell("input") is not None:
        more = text_in(cell("input"), repr(columns["input"]), empty=True)
        asked = f"{asked}\n\n{more}" if more.strip() else asked
    return Completion(asked, answer)


def _conversation(cell: Callable[[str], Any], columns: Mapping[str, str]) -> Conversation:
    messages = messages_in(cell("messages"), columns["messages"])
    if not any(m["role"] == "assistant" and m.get("weight", 1) for m in messages):
        raise Bad("has no assistant's message to learn from")
    if system := cell("system"):
        messages = ({"role": "system", "content": text_in(system, repr(columns["system"]))}, *messages)
    return Conversation(messages, _tools(cell("tools"), columns.get("tools", "")))


def _tools(value: Any, name: str) -> tuple[Any, ...]:
    value = parsed(value)
    if value is None or value == "":
        return ()
    if not isinstance(value, list) or not all(isinstance(tool, Mapping) for tool in value):
        raise Bad(f"{name!r} is {article(value)}, not a list of tools")
    return tuple(value)


def _preference(cell: Callable[[str], Any], columns: Mapping[str, str]) -> Preference:
    chosen, rejected = (_said(cell(role), columns[role]) for role in ("chosen", "rejected"))
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise Bad(f"{columns['chosen']!r} and {columns['rejected']!r} are a text and messages; expected two of a kind")
    if chosen == rejected:
        raise Bad("its two answers are equal, so neither is the better")
    if "input" in columns:
        given = parsed(cell("input"))
        prompt: Any = messages_in(given.get("messages") if isinstance(given, Mapping) else given, columns["input"])
    elif "prompt" in columns:
        prompt = _said(cell("prompt"), columns["prompt"])
    else:
        return _parted(chosen, rejected)
    if isinstance(chosen, str):
        if isinstance(prompt, str):
            return Preference(prompt, chosen, rejected)
        return Preference(
            prompt, ({"role": "assistant", "content": chosen},), ({"role": "assistant", "content": rejected},)
        )
    if chosen[0]["role"] != "assistant":  # the answers repeat what they answer
        return _parted(chosen, rejected)
    return Preference(({"role": "user", "content": prompt},) if isinstance(prompt, str) else prompt, chosen, rejected)


def _parted(chosen: Any, rejected: Any) -> Preference:
    """Two answers that begin with their prompt: it is what they share (as TRL takes it, without a space at its end)."""
    n = next(
        (i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), min(len(chosen), len(rejected))
    )
    if isinstance(chosen, str) and n and chosen[n - 1] == " ":
        n -= 1
    if not n or n == len(chosen) or n == len(rejected):
        raise Bad("has no prompt, and its two answers do not share a beginning and then differ")
    return Preference(chosen[:n], chosen[n:], rejected[n:])


def _truth(value: Any, name: str) -> bool:
    if isinstance(value, int) and value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    raise Bad(f"{name!r} is {str(value)[:40]!r}; expected true or false")


def _texts(value: Any, name: str) -> tuple[str, ...]:
    many = parsed(value)
    if isinstance(value, str) and isinstance(many, list) and all(isinstance(one, str) for one in many):
        value = many  # of a table's cell
    if value is None or value == "":
        return ()
    value = [value] if isinstance(value, str) else value
    if not isinstance(value, list):
        raise Bad(f"{name!r} is {article(value)}, not a text or a list of texts")
    if len(value) > MAX_NEGATIVES:
        raise Bad(f"{name!r} holds {len(value):,} texts; {MAX_NEGATIVES:,} are read at most")
    return tuple(text_in(one, repr(name)) for one in value)


def _pair(row: Mapping[str, Any], found: Found, cell: Callable[[str], Any]) -> Pair:
    names = found.columns
    positives = _texts(cell("positive"), names["positive"])
    if not positives:
        raise Bad(f"has no {names['positive']!r}")
    negatives = _texts(cell("negatives"), names.get("negatives", ""))
    negatives += tuple(text for name in found.negatives for text in _texts(row.get(name), name))
    if both := set(positives) & set(negatives):
        raise Bad(f"calls one text an answer and no answer: {min(both)[:40]!r}")
    return Pair(text_in(cell("query"), repr(names["query"])), positives[0], negatives, positives[1:])


def _label(value: Any, name: str) -> str:
    if isinstance(value, (bool, int)):
        return str(value)
    return text_in(value, repr(name)).strip()


def is_file_name(text: str, endings: tuple[str, ...]) -> bool:
    return len(text) < 4096 and "\n" not in text and text.lower().endswith(endings)


def file_in(value: Any, name: str, base: Path | None, what: str) -> Path | bytes:
    """A file's path, beside its manifest or absolute, or its bytes (alone, or as `datasets` keeps them). Raises Bad."""
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        if not value:
            raise Bad(f"{name!r} holds no bytes")
        return value
    text = text_in(value, repr(name))
    if "://" in text[:16]:
        raise Bad(f"{name!r} is an address ({text[:80]!r}); expected a file on this disk")
    if base is None:
        raise Bad(f"{name!r} names a file, and rows are read here that hold the bytes themselves (Parquet does)")
    try:
        for place in FOLDERS[what]:
            if (path := base / place / text).is_file():
                return path
        why = "is no file" if (base / text).exists() else "is not there"
    except (OSError, ValueError):
        raise Bad(f"{name!r}: {text[:80]!r} is no path") from None
    raise Bad(f"{name!r}: the {what} {str(base / text)[:300]!r} {why}")
