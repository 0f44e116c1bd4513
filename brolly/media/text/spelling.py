"""How a vocabulary spells bytes: GPT-2's alphabet, SentencePiece's ▁ and <0x0A>, WordPiece's ##.

A decoder of `tokenizers` works on the whole list of tokens; read as a rule for one token, it can be streamed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
# the order in which WordPiece's clean-up undoes the spaces that it made itself
_CLEANUP = (
    (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"),
    (" do not", " don't"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"),
)  # fmt: skip


@dataclass(frozen=True)
class Spelling:
    """What one token adds to the text.

    `strip` spaces are taken off the start of the whole text, `last` off its end; `each_byte` marks every stray byte
    with its own U+FFFD, as SentencePiece does, and not every broken character. `literal` says that tokens beside the
    vocabulary are spelled as they are.
    """

    bytes_of: Callable[[str], bytes]
    strip: int = 0
    last: str = ""
    each_byte: bool = False
    literal: bool = False


@lru_cache(maxsize=1)
def alphabet() -> dict[int, str]:
    """GPT-2's printable character for each byte (Radford et al. 2019)."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    rest = [b for b in range(256) if b not in plain]
    return {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(rest)}


@lru_cache(maxsize=1)
def _letters() -> dict[str, int]:
    return {character: byte for byte, character in alphabet().items()}


def spelled(data: bytes) -> str:
    """Bytes in GPT-2's alphabet."""
    letters = alphabet()
    return "".join([letters[b] for b in data])


def byte_level(token: str) -> bytes:
    """The bytes of a token in GPT-2's alphabet; a token with other characters stands for itself."""
    letters = _letters()
    try:
        return bytes([letters[c] for c in token])
    except KeyError:
        return token.encode()


def sentencepiece(token: str) -> bytes:
    """The bytes of a SentencePiece token: ▁ is a space, <0x0A> a byte."""
    byte = _BYTE_TOKEN.fullmatch(token)
    return bytes([int(byte[1], 16)]) if byte else token.replace("▁", " ").encode()


def wordpiece(token: str, prefix: str = "##", cleanup: bool = True) -> bytes:
    """The bytes of a WordPiece token: a new word takes a space before it."""
    text = token[len(prefix) :] if prefix and token.startswith(prefix) else " " + token
    for before, after in _CLEANUP if cleanup else ():
        text = text.replace(before, after)
    return text.encode()


def spelling_of(backend: Any) -> Spelling:
    """The rule that a tokenizers.Tokenizer's decoder follows, token by token."""
    decoder = backend.decoder
    if decoder is None:
        return Spelling(lambda token: f" {token}".encode(), strip=1)
    state = json.loads(decoder.__getstate__())
    steps = state["decoders"] if state["type"] == "Sequence" else [state]
    kinds = [step["type"] for step in steps]
    if kinds == ["ByteLevel"]:
        end = str(getattr(backend.model, "end_of_word_suffix", None) or "")
        if end:
            return Spelling(lambda token: byte_level(token.removesuffix(end)) + b" " * token.endswith(end), last=" ")
        return Spelling(byte_level, literal=True)
    if kinds == ["WordPiece"]:
        prefix, cleanup = steps[0]["prefix"], steps[0]["cleanup"]
        return Spelling(lambda token: wordpiece(token, prefix, cleanup), strip=1)
    if kinds == ["BPEDecoder"] and steps[0]["suffix"]:
        suffix = steps[0]["suffix"]
        return Spelling(lambda token: token.replace(suffix, " ").encode(), last=" ")
    return _pieces(steps) or _by_asking(decoder)


def _pieces(steps: list[dict[str, Any]]) -> Spelling | None:
    """SentencePiece's decoders: replacements and byte fallback on each token, then a strip of the whole."""
    swaps: list[tuple[str, str]] = []
    fallback, strip, fused = False, 0, False
    for step in steps:
        kind = step["type"]
        if kind == "Replace" and "String" in step["pattern"] and not fused:
            swaps.append((step["pattern"]["String"], step["content"]))
        elif kind == "Metaspace" and not fused:
            swaps.append((step["replacement"], " "))
            strip = int(step.get("prepend_scheme", "always") != "never")
        elif kind == "ByteFallback":
            fallback = True
        elif kind == "Fuse":
            fused = True
        elif kind == "Strip" and fused and step["content"] == " " and not step["stop"]:
            strip = step["start"]
        else:
            return None

    def bytes_of(token: str) -> bytes:
        byte = _BYTE_TOKEN.fullmatch(token) if fallback else None
        if byte:
            return bytes([int(byte[1], 16)])
        for before, after in swaps:
            token = token.replace(before, after)
        return token.encode()

    return Spelling(bytes_of, strip=strip, each_byte=fallback)


def _by_asking(decoder: Any) -> Spelling:
    """Any other decoder: what it adds when the token follows a letter."""
    return Spelling(lambda token: decoder.decode(["a", token]).removeprefix(decoder.decode(["a"])).encode())
