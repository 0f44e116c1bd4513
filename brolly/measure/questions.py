"""What several models are asked: a file of prompts or conversations, with pictures beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from brolly.errors import BrollyError, NotFound, OptionError, RecipeError
from brolly.remote.content import media_type, text_of
from brolly.rows import Completion, Conversation, Preference, RowFault, Rows, input_of, open_rows

MOST = 10_000  # questions
LINE = 64 << 20  # bytes of a line
HEAD = 16  # bytes that tell what a file is
LISTS = ("images", "files")  # of a row's files


@dataclass(frozen=True)
class Question:
    """Messages without the answer; `expected` is what the file says should come. A content may hold paths of files."""

    where: str
    messages: tuple[Mapping[str, Any], ...]
    expected: str = ""

    @property
    def prompt(self) -> str | None:
        """The text, where it is nothing but that."""
        (first, *rest) = self.messages
        return first["content"] if not rest and first["role"] == "user" and isinstance(first["content"], str) else None

    @property
    def files(self) -> list[Path]:
        return [part for m in self.messages if isinstance(m["content"], list) for part in m["content"]
                if isinstance(part, Path)]  # fmt: skip

    def __str__(self) -> str:
        """All that is asked, as text; of one message without its role."""
        texts = [(m["role"], _said(m["content"])) for m in self.messages]
        return texts[0][1] if len(texts) == 1 else "\n\n".join(f"{role}: {text}" for role, text in texts)


def questions(path: str | Path, limit: int | None = None) -> tuple[list[Question], list[RowFault]]:
    """The questions of a file and the rows that are none: lines of text, JSON lines, or what `rows` reads.

    A JSON line is a text, {"prompt"} or {"messages"}, with "system", "images" and "files" (paths below the file's
    folder) beside them. Raises NotFound, OptionError, RecipeError.
    """
    path = Path(path).expanduser()
    if path.is_file() and path.suffix.lower() in (".txt", ".jsonl", ".ndjson"):
        found, faults, ours = _lines(path, limit)
        if ours:
            if not found:
                first = f"; the first: {faults[0]}" if faults else ""
                raise RecipeError(f"{path} holds no question{first}.")
            return found, faults
    elif not path.exists() and not str(path).startswith("hf-dataset:"):
        raise NotFound(f"{path} does not exist; expected a file of prompts, a line each.")
    rows = open_rows(str(path))
    return list(islice(_of_rows(rows), _most(limit))), rows.faults


def _most(limit: int | None) -> int:
    return min(MOST, limit or MOST)


def _lines(path: Path, limit: int | None) -> tuple[list[Question], list[RowFault], bool]:
    """Questions, bad rows, and whether the file has questions of its own form at all."""
    found: list[Question] = []
    faults: list[RowFault] = []
    with path.open("rb") as file:
        for number in range(1, 1 << 40):
            raw = file.readline(LINE + 1)
            if not raw or len(found) >= _most(limit):
                break
            where = f"{path.name}, line {number}"
            if len(raw) > LINE:
                raise RecipeError(f"{where} is longer than {LINE >> 20} MiB; expected a question.")
            if not raw.strip():
                continue
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                row = line.strip() if path.suffix.lower() == ".txt" else json.loads(line)
                if not found and isinstance(row, Mapping) and not {"prompt", "messages"} & row.keys():
                    return [], [], False  # another of the shapes that rows know
                found.append(_question(row, where, path.parent))
            except (ValueError, RecursionError) as error:
                why = "is no UTF-8" if isinstance(error, UnicodeDecodeError) else f"is no JSON ({str(error)[:80]})"
                faults.append(RowFault(where, why))
            except BrollyError as error:
                faults.append(RowFault(where, str(error)))
    return found, faults, True


def _question(row: Any, where: str, folder: Path) -> Question:
    """Raises OptionError."""
    if isinstance(row, str):
        row = {"prompt": row}
    if not isinstance(row, Mapping):
        raise OptionError(f"is {row!r:.40}; expected a text, or an object with a prompt or messages")
    given = row.get("messages")
    if given is None:
        if "prompt" not in row:
            raise OptionError("has neither a prompt nor messages")
        if not isinstance(row["prompt"], str) or not row["prompt"].strip():
            raise OptionError("has a prompt that is no text")
        given = [{"role": "user", "content": row["prompt"]}]
    if not isinstance(given, list) or not given:
        raise OptionError("has messages that are no list of them")
    messages = [_message(message, folder) for message in given]
    if isinstance(row.get("system"), str):
        messages.insert(0, {"role": "system", "content": row["system"]})
    files = [name for key in LISTS for name in (row.get(key) or ())] + ([row["image"]] if row.get("image") else [])
    if files:
        at = max((i for i, message in enumerate(messages) if message["role"] == "user"), default=None)
        if at is None:
            raise OptionError("names files, and has no message of a user's that they go with")
        content = messages[at]["content"]
        parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
        messages[at] = {**messages[at], "content": [*(_file(name, folder) for name in files), *parts]}
    expected = next((row[name] for name in ("expected", "completion", "answer") if isinstance(row.get(name), str)), "")
    if messages[-1]["role"] == "assistant":
        expected = _said(messages.pop()["content"]) or expected
    if not messages:
        raise OptionError("holds an answer and no question")
    return Question(where, tuple(messages), expected)


def _message(message: Any, folder: Path) -> dict[str, Any]:
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise OptionError(f"has the message {message!r:.60}; expected one with a role and a content")
    content = message.get("content")
    if isinstance(content, list):
        content = [_part(part, folder) for part in content]
    elif content is not None and not isinstance(content, str):
        raise OptionError(f"has the content {content!r:.60}; expected a text or a list of parts")
    return {**message, "content": content}


def _part(part: Any, folder: Path) -> Any:
    """A part as it is; of a picture that is named by its path, the path."""
    if isinstance(part, Mapping) and part.get("type") == "image_url":
        url = part.get("image_url")
        url = url.get("url") if isinstance(url, Mapping) else url
        if isinstance(url, str) and not url.startswith(("data:", "http://", "https://")):
            return _file(url, folder)
    return part


def _file(name: Any, folder: Path) -> Path:
    """A picture, a sound or a PDF below the folder; nothing else of this disk goes to a vendor by a file of rows."""
    path = folder / name if isinstance(name, str) else folder
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
        with path.open("rb") as file:
            kind = media_type(file.read(HEAD))
    except (OSError, ValueError):
        raise OptionError(f"names the file {name!r:.80}, which cannot be read") from None
    if not inside or not kind:
        wanted = f"a picture, a sound or a PDF in {folder}" if not inside else "a picture, a sound or a PDF"
        raise OptionError(f"names the file {name!r:.80}; expected {wanted}")
    return path


def _of_rows(rows: Rows) -> Iterator[Question]:
    for row in rows:
        value, expected = row.value, ""
        messages: list[Mapping[str, Any]] = []
        if isinstance(value, Conversation):
            messages = [*value.bare]
            expected = _said(messages.pop()["content"]) if messages[-1]["role"] == "assistant" else ""
        elif isinstance(value, Preference) and not isinstance(value.prompt, str):
            messages = [*value.prompt]
        elif isinstance(value, Completion):
            expected = value.completion
        given = input_of(value)
        if not messages and not isinstance(given, str):
            raise RecipeError(f"{rows.source} holds rows of the shape {rows.shape!r}, which are no questions.")
        yield Question(row.where, tuple(messages or [{"role": "user", "content": given}]), expected)


def _said(content: Any) -> str:
    """The text of a content that may hold paths, these named."""
    if not isinstance(content, Sequence) or isinstance(content, str):
        return content or ""
    return "\n".join(f"[{part.name}]" if isinstance(part, Path) else text_of([part]) for part in content)
