"""What people put into a message (files, bytes, Pillow pictures) → parts that travel; and parts → bytes again."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from brolly.errors import MediaError, NotFound, OptionError
from brolly.remote.ask import Message, Part

MOST_BYTES = 64 << 20  # of one file; vendors take less
INNER = {"image_url": ("url",), "input_audio": ("data", "format"), "file": ()}  # a part's fields, and theirs
ROLES = ("system", "developer", "user", "assistant", "tool")
# first bytes → media type
MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF8", "image/gif"),
    (b"%PDF-", "application/pdf"), (b"ID3", "audio/mp3"), (b"\xff\xfb", "audio/mp3"), (b"\xff\xf3", "audio/mp3"),
    (b"fLaC", "audio/flac"), (b"OggS", "audio/ogg"),
)  # fmt: skip
RIFF = {b"WEBP": "image/webp", b"WAVE": "audio/wav"}


def messages_of(given: Sequence[Mapping[str, Any]]) -> tuple[Message, ...]:
    """A conversation as `Ask` has it. Raises OptionError, MediaError, NotFound."""
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Sequence) or not given:
        raise OptionError('a conversation is a list of messages such as {"role": "user", "content": "Hello"}.')
    rows = []
    for at, message in enumerate(given):
        if not isinstance(message, Mapping) or message.get("role") not in ROLES:
            raise OptionError(f"message {at} is {message!r:.80}; expected a role among {', '.join(ROLES)}.")
        content = message.get("content")
        if content is not None and not isinstance(content, (str, list, tuple)):
            raise OptionError(f"the content of message {at} is {content!r:.60}; expected text or a list of parts.")
        for name in ("tool_calls", "opaque"):
            several = message.get(name) or ()
            if not isinstance(several, (list, tuple)) or not all(isinstance(one, Mapping) for one in several):
                raise OptionError(f"{name} of message {at} is {several!r:.60}; expected a list of mappings.")
        if isinstance(content, (list, tuple)):
            message = {**message, "content": [part_of(one) for one in content]}
        rows.append(message)
    return tuple(rows)


def tools_of(given: Any, choice: Any) -> tuple[Mapping[str, Any], ...]:
    """Tools, and which of them is to be called, as `Ask` has them. Raises OptionError."""
    if isinstance(given, (str, Mapping)) or not isinstance(given, Sequence):
        raise OptionError(f"tools are {given!r:.60}; expected a list of functions in OpenAI's form.")
    for tool in given:
        if not isinstance(tool, Mapping):
            raise OptionError(f"a tool is {tool!r:.60}; expected a function in OpenAI's form.")
    if not isinstance(choice, (str, Mapping)):
        raise OptionError(
            f"tool_choice is {choice!r:.60}; expected auto, none, required, or a tool's name in its form."
        )
    return tuple(given)


def part_of(given: Any) -> Part:
    """A part of a text, a part, a Path, bytes of a file, or a Pillow picture. A str is text, never a path."""
    if isinstance(given, str):
        return {"type": "text", "text": given}
    if isinstance(given, Mapping):
        if not isinstance(given.get("type"), str):
            raise OptionError(f"a part is {given!r:.80}; expected one with a type: text, image_url, input_audio, file.")
        return _sound(given)
    if isinstance(given, Path):
        return file_part(read(given), given.name)
    if isinstance(given, (bytes, bytearray)):
        return file_part(bytes(given), "data")
    if (png := _png(given)) is not None:
        return file_part(png, "picture.png")
    raise OptionError(f"a part is a {type(given).__name__}; expected text, a path, bytes, a picture or a mapping.")


def _sound(part: Mapping[str, Any]) -> Part:
    """A part whose fields are what its type says. Raises OptionError."""
    kind = part["type"]
    if kind == "text" and not isinstance(part.get("text"), str):
        raise OptionError(f"a part is {part!r:.80}; expected its text.")
    if kind not in INNER:
        return part
    inner, needed = part.get(kind), INNER[kind]
    if kind == "image_url" and isinstance(inner, str):
        inner = {"url": inner}
    texts = {*needed, "file_data", "file_id", "filename", "detail"}
    if not isinstance(inner, Mapping) or any(
        not isinstance(inner.get(name), str) for name in texts if name in needed or inner.get(name) is not None
    ):
        raise OptionError(
            f"a part is {part!r:.80}; expected {kind} with {' and '.join(needed) or 'file_data'} as texts."
        )
    return {**part, kind: inner}


def read(path: Path) -> bytes:
    """A file's bytes. Raises NotFound, MediaError."""
    try:
        with path.expanduser().open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise NotFound(f"{path} does not exist; expected a file.") from None
    except OSError as error:
        raise MediaError(f"{path} cannot be read ({error.strerror}).") from None
    if len(data) > MOST_BYTES:
        raise MediaError(f"{path} has more than {MOST_BYTES >> 20} MiB, the most that travels with a message.")
    return data


def file_part(data: bytes, name: str) -> Part:
    """The part of a file's bytes; a text becomes text. Raises MediaError."""
    kind = media_type(data)
    if kind.startswith("image/"):
        return {"type": "image_url", "image_url": {"url": data_url(data, kind)}}
    if kind.startswith("audio/"):
        return {"type": "input_audio", "input_audio": {"data": base64.b64encode(data).decode(), "format": kind[6:]}}
    if kind == "application/pdf":
        return {"type": "file", "file": {"file_data": data_url(data, kind), "filename": name}}
    try:
        return {"type": "text", "text": f"{name}:\n{data.decode('utf-8-sig')}"}
    except UnicodeDecodeError:
        raise MediaError(
            f"{name} is none that travels: expected JPEG, PNG, GIF, WebP; WAV, MP3, FLAC, OGG; PDF; or text in UTF-8."
        ) from None


def media_type(data: bytes) -> str:
    """By the first bytes; "" where they tell nothing."""
    if data[:4] == b"RIFF":
        return RIFF.get(data[8:12], "")
    return next((kind for magic, kind in MAGIC if data.startswith(magic)), "")


def data_url(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def taken_apart(url: str) -> tuple[str, str] | None:
    """The media type and the base64 of a data: URL; None of another URL. Raises OptionError."""
    if url[:5].lower() != "data:":
        return None
    head, comma, body = url[5:].partition(",")
    kind, _, coding = head.partition(";")
    try:
        if not comma or coding.rpartition(";")[2].lower() != "base64":
            raise ValueError
        base64.b64decode(body[:64] if len(body) % 4 == 0 else body, validate=True)
    except (ValueError, binascii.Error):
        raise OptionError("a data: URL is not base64 that can be read; expected data:TYPE;base64,DATA.") from None
    return kind.lower(), body


def clean(value: Any) -> str:
    """A vendor's text without halves of characters, which nothing could write again; "" of anything else."""
    if not isinstance(value, str) or value.isascii():
        return value if isinstance(value, str) else ""
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def text_of(content: Any) -> str:
    """The text of a content, its other parts left out."""
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part.get("text", "") for part in content if part.get("type") == "text")


def bytes_of(given: Any) -> bytes:
    """A file's bytes: of a Path, of bytes, of an open binary file, or a Pillow picture as PNG. Raises MediaError."""
    if isinstance(given, Path):
        return read(given)
    if isinstance(given, (bytes, bytearray)):
        return bytes(given)
    if (png := _png(given)) is not None:
        return png
    if hasattr(given, "read"):
        data = given.read(MOST_BYTES + 1)
        if isinstance(data, bytes) and len(data) <= MOST_BYTES:
            return data
    raise OptionError(f"{type(given).__name__} is no file that can be sent; expected a path or the bytes of a file.")


def _png(given: Any) -> bytes | None:
    """A Pillow picture as a file; None of anything else."""
    if not (hasattr(given, "save") and hasattr(given, "mode")):
        return None
    made = io.BytesIO()
    given.save(made, "PNG")
    return made.getvalue()


def check_sound(data: bytes, name: str) -> None:
    """A file that is surely no sound is told before it is sent. Raises MediaError."""
    kind = media_type(data)
    try:
        text = "".join(data[:2048].decode("ascii").split()).isprintable()
    except UnicodeDecodeError:
        text = False
    if not data or kind.startswith("image/") or kind == "application/pdf" or (text and not kind):
        what = "empty" if not data else kind or "text"
        raise MediaError(f"{name} is {what}; expected a sound or a video.")
