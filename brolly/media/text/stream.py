"""Ids to text as they come: never half a character, and the pieces joined equal the whole decoded at once."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from brolly.media.text.tokenizer import Tokenizer

_UTF8 = codecs.getincrementaldecoder("utf-8")
# surrogateescape gives each stray byte a character of its own: U+DC80 to U+DCFF
_STRAY = dict.fromkeys(range(0xDC80, 0xDD00), "\ufffd")


class TextStream:
    """Turns token ids into text one at a time, in constant time each.

    `after` is what stands before them (the prompt): with it, a SentencePiece word keeps the space that it begins with.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special: bool = True, after: Sequence[int] = ()) -> None:
        spelling = tokenizer.spelling
        self._tokenizer = tokenizer
        self._skip = skip_special
        self._each_byte = spelling.each_byte
        self._utf8 = _UTF8("surrogateescape" if spelling.each_byte else "replace")
        self._strip = spelling.strip
        self._last = spelling.last
        self._held = ""
        if any(tokenizer.token_bytes(i) and not tokenizer.is_special(i) for i in after):
            self._strip = 0
        for token_id in after[-4:]:
            self.push(token_id)

    def push(self, token_id: int) -> str:
        """The text that became certain with this id, often "" within a character of several tokens."""
        if self._skip and self._tokenizer.is_special(token_id):
            return ""
        return self._text(self._tokenizer.token_bytes(token_id), final=False)

    def finish(self) -> str:
        """What was held back: U+FFFD for a character that never became whole."""
        text = self._text(b"", final=True)
        self._held = ""
        return text

    def _text(self, data: bytes, *, final: bool) -> str:
        while self._strip and data:
            if data[:1] == b" ":
                self._strip, data = self._strip - 1, data[1:]
            else:
                self._strip = 0
        text = self._utf8.decode(data, final)
        if self._each_byte and not text.isascii():
            text = text.translate(_STRAY)
        if self._last and text:
            text = self._held + text
            self._held = self._last if text.endswith(self._last) else ""
            text = text.removesuffix(self._last)
        return text
