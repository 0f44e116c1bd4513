"""A window's text: attempts at rising temperatures until one reads well."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import torch

from brolly.engine.listen import Heard, Listener
from brolly.media.audio.whisper_tokens import WhisperTokens
from brolly.tasks.transcribe.beams import Beams, Chooser, Samples, best, write
from brolly.tasks.transcribe.rules import FIRST_TIME, Rules
from brolly.tasks.transcribe.window import Written
from brolly.verbs import TranscribeOptions


class Ear(NamedTuple):
    """A Whisper: what hears and writes, its vocabulary, and the (layer, head)s that look where a word is spoken."""

    listener: Listener
    tokens: WhisperTokens
    heads: Sequence[tuple[int, int]]
    first_time: int = FIRST_TIME  # the latest that a window's first timestamp may be, in steps of 0.02 s

    @property
    def n_mels(self) -> int:
        return self.listener.config.n_mels

    @property
    def n_prompt(self) -> int:
        """Most tokens of context before a window."""
        return self.listener.config.context // 2 - 1


@torch.inference_mode()
def attempt(
    ear: Ear, heard: Heard, prompt: Sequence[int], options: TranscribeOptions, generator: torch.Generator | None
) -> list[Written]:
    """Each window's text behind the same prompt; those that failed are tried again, together."""
    tokens, listener = ear.tokens, ear.listener
    writing = listener.begin(heard, prompt)
    silence = writing.prompt_logits(prompt.index(tokens.sot)).softmax(1)[:, tokens.no_speech].tolist()
    rules = Rules(tokens, listener.device, ear.first_time, options.no_repeat)
    context = listener.config.context
    most = min(context // 2, context + 1 - len(prompt))
    found: list[Written | None] = [None] * len(silence)
    left = list(range(len(found)))
    for temperature in options.temperature:
        chooser: Chooser
        if temperature == 0 and options.beam_size > 1:
            chooser = Beams(options.beam_size, len(left), tokens.eot, options.patience)
        else:
            chooser = Samples(options.best_of if temperature else 1, len(left), tokens.eot, temperature, generator)
        again = []
        for place, texts in enumerate(write(writing, chooser, rules, most)):
            chosen, window = best(texts, options.length_penalty), left[place]
            ratio = compression_ratio(tokens.decode(chosen.tokens).strip())
            score = chosen.score / (len(chosen.tokens) + 1)
            found[window] = written = Written(chosen.tokens, temperature, score, ratio, silence[window])
            if written.failed(options):
                again.append(place)
        if not again:
            break
        writing.keep(again)
        left = [left[place] for place in again]
    return [written for written in found if written]


def compression_ratio(text: str) -> float:
    """How much better than letter by letter a text can be said."""
    raw = text.encode()
    return len(raw) / len(zlib.compress(raw))
