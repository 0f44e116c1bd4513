"""What is read before a window: hotwords, the user's prompt, and the text of the windows before."""

from __future__ import annotations

from collections.abc import Sequence

from brolly.media.audio.whisper_tokens import WhisperTokens
from brolly.verbs import TranscribeOptions

HOT = 0.5  # a temperature above which a text is no example for the next


class Context:
    """The text so far, of which the last `most` tokens are shown."""

    def __init__(self, tokens: WhisperTokens, language: str, options: TranscribeOptions, most: int) -> None:
        self._tokens, self._most, self._keep = tokens, most, options.condition_on_previous_text
        self._begin = list(tokens.sot_sequence(language, translate=options.translate))
        prompt = tokens.encode(" " + options.prompt.strip()) if options.prompt is not None else []
        hot = tokens.encode(" " + options.hotwords.strip()) if options.hotwords else []
        self._always = (hot + (prompt if options.carry_prompt else []))[-most:]
        self._text: list[int] = [] if options.carry_prompt else prompt

    def prompt(self) -> list[int]:
        """What stands before the next window's text."""
        room = self._most - len(self._always)
        shown = self._always + (self._text[-room:] if room else [])
        return [self._tokens.sot_prev, *shown, *self._begin] if shown else self._begin

    def add(self, text: Sequence[int], temperature: float) -> None:
        """A window's text, which the next reads, unless it was drawn too freely."""
        if not self._keep or temperature > HOT:
            self._text = []
        else:
            self._text = (self._text + list(text))[-self._most :]
