"""Data stays data: what a text spells of a model's control tokens and turn markers is broken before the model reads it.

A chat template joins roles and contents to one text, in which a content's "<|im_end|>" would be read as the token that
ends a turn. Here each such place gets a cut, a character that no text has; the prompt is encoded piece by piece between
the cuts, and no piece holds a whole marker. Markers that are plain words (Llama 2's [INST]) get a blank inside.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from brolly.errors import OptionError, TemplateError
from brolly.media.text import Tokenizer
from brolly.media.text.answers import render_chat

CUT = "\ufdd0"  # a noncharacter: Unicode promises that it means nothing
KEPT, SHORT = 4096, 4096  # texts whose quoting is remembered, as examples come with every row; their characters
# what opens and closes turns in published templates, whichever model is at work
MARKS = re.compile(
    r"<\|[^<>|\n]{1,60}\|>|<(?:start|end)_of_turn>|<(?:bos|eos|pad|unk|s|/s)>|\[/?(?:INST|SYS|AVAILABLE_TOOLS|TOOL_CALLS|"
    r"TOOL_RESULTS)\]|<</?SYS>>|<｜[^<>\n]{1,60}｜>|</?(?:think|tool_call|tool_response)\b",
    re.IGNORECASE,
)
PROBES = ("Qzeroq", "Qoneq", "Qtwoq", "Qthreeq")
MARKED = re.compile(r"[<\[{(|#&@!\]>}].*", re.DOTALL)


class Quoter:
    """Of one model: finds in texts what would be read as its control tokens or its turn markers, and breaks it."""

    def __init__(self, tokenizer: Tokenizer, words: Sequence[str] = ()) -> None:
        self.tokenizer, self.words = tokenizer, tuple(words)
        added = {i for text, i in tokenizer.added.items() if MARKED.fullmatch(text) and len(text) > 2}
        self._guarded = frozenset(tokenizer.control.values()) | added
        spelt = (r"\s*".join(map(re.escape, word.split())) for word in sorted(words, key=len, reverse=True))
        self._words = re.compile("|".join(spelt), re.IGNORECASE) if words else None
        self._kept: dict[str, tuple[str, tuple[str, ...]]] = {}

    def quote(self, text: str) -> tuple[str, tuple[str, ...]]:
        """The text with its markers broken, and what they were. Raises OptionError at one that cannot be."""
        if found := self._kept.get(text):
            return found
        found = self._quoted(text)
        if len(text) <= SHORT:
            if len(self._kept) >= KEPT:
                self._kept.clear()
            self._kept[text] = found
        return found

    def _quoted(self, text: str) -> tuple[str, tuple[str, ...]]:
        found: list[str] = []
        text = text.replace(CUT, "\ufffd")

        def broken(match: re.Match[str]) -> str:
            found.append(match[0])
            return f"{match[0][0]} {match[0][1:]}"

        if self._words:
            text = self._words.sub(broken, text)
        done: list[str] = []
        waiting = [text]
        while waiting:
            piece = waiting.pop()
            spans = self._spans(piece)
            if not spans:
                done.append(piece)
                continue
            parts, at = [], 0
            for start, end in spans:
                inside = start + len(piece[start:end]) - len(piece[start:end].lstrip()) + 1
                if inside >= end or inside <= at:
                    raise OptionError(
                        f"the input holds {piece[start:end]!r:.40}, which is a control token of this model and cannot "
                        "be told as text; take it out."
                    )
                found.append(piece[start:end].strip())
                parts.append(piece[at:inside])
                at = inside
            waiting += reversed([*parts, piece[at:]])
        return CUT.join(done), tuple(dict.fromkeys(found))

    def _spans(self, text: str) -> list[tuple[int, int]]:
        """Where the tokenizer itself reads guarded tokens in a text, whatever its normaliser makes equal."""
        if not text or not self._guarded:
            return []
        if not any(i in self._guarded for i in self.tokenizer.encode(text, special=False)):
            return []
        found = self.tokenizer.backend.encode(text, add_special_tokens=False)
        spans = [span for i, span in zip(found.ids, found.offsets, strict=True) if i in self._guarded]
        if not spans:
            raise OptionError("the input holds a control token of this model that cannot be located; take it out.")
        return spans

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Ids of a prompt in which data was quoted: each piece between cuts for itself."""
        first, *rest = text.split(CUT)
        ids = self.tokenizer.encode(first, special=special) if first else []
        for piece in rest:
            ids += self.tokenizer.encode(piece, special=False)
        return ids


class Marks:
    """Of a model that runs elsewhere. Its vendor takes contents apart from roles; how it joins them nobody sees, and
    servers of open models read marks in contents: so those of published templates get a blank inside."""

    def quote(self, text: str) -> tuple[str, tuple[str, ...]]:
        """The text with its markers broken, and what they were."""
        found: list[str] = []

        def broken(match: re.Match[str]) -> str:
            found.append(match[0])
            return f"{match[0][0]} {match[0][1:]}"

        text = text.replace(CUT, "\ufffd")
        for _ in range(8):  # breaking one may make another
            before = text
            text = MARKS.sub(broken, text)
            if text == before:
                break
        return text, tuple(dict.fromkeys(found))


def quoter_of(model: Any) -> Quoter | Marks:
    """The quoter of a model: its control tokens, and the words with which its template marks turns."""
    if hasattr(model, "target"):
        return Marks()
    tokenizer: Tokenizer = model.tokenizer
    return Quoter(tokenizer, turn_words(model) if tokenizer.template else ())


def turn_words(model: Any) -> list[str]:
    """What a template writes between the turns as plain text.

    Seen by rendering a conversation of words that nobody writes. Between turns that a control token parts, only what
    looks like a marker counts ("[INST]", not "user"): a forged turn would lack the token.
    """
    tokenizer: Tokenizer = model.tokenizer
    assert tokenizer.template
    roles = ("system", "user", "assistant", "user")
    said = [{"role": role, "content": probe} for role, probe in zip(roles, PROBES, strict=True)]
    try:
        shown = render_chat(tokenizer.template, model.answers, said, tools=[], extra=None)
    except TemplateError:  # one that knows no answers before the last question has no turns to forge
        return []
    places = [(shown.find(probe), len(probe)) for probe in PROBES]
    places = sorted(p for p in places if p[0] >= 0)
    between = [shown[at + n : end] for (at, n), (end, _) in zip(places, [*places[1:], (len(shown), 0)], strict=True)]
    first = shown[: places[0][0]][-200:] if places else ""
    open_ = any(text.strip() and not _parted(tokenizer, text) for text in between)
    found = dict.fromkeys(
        word
        for text in (first, *between)
        for word in _words(tokenizer, text)
        if len(word) > 2 and (MARKED.match(word) or (open_ and text is not first))
    )
    return list(found)


def _parted(tokenizer: Tokenizer, text: str) -> bool:
    return any(tokenizer.is_special(i) for i in tokenizer.encode(text, special=False))


def _words(tokenizer: Tokenizer, text: str) -> Iterator[str]:
    """The lines of plain text in a stretch and the bracketed words in them, without tokens beside the vocabulary."""
    added = sorted(tokenizer.added, key=len, reverse=True)
    for piece in re.split("|".join(map(re.escape, added)), text) if added else [text]:
        for line in piece.splitlines():
            if re.search(r"\w", line):
                yield line.strip()
                yield from (word for word in line.split() if word[0] in "<[" and re.search(r"\w", word))
