"""What may follow: Whisper's rules for its next token, as changes to the logits.

R rows of tokens written so far, T tokens each, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from brolly.media.audio.whisper_tokens import WhisperTokens

NEVER = float("-inf")
FIRST_TIME = 50  # the first timestamp is at most 1 s into a window, in steps of 0.02 s


class Rules:
    """Silences tokens that may not come; `repeats` is the length of phrases that are written once only, 0 for any."""

    def __init__(self, tokens: WhisperTokens, device: torch.device, first_time: int = FIRST_TIME, repeats: int = 0):
        self.eot, self.times, self.first_time, self.repeats = tokens.eot, tokens.timestamp_begin, first_time, repeats
        self._always = torch.tensor(sorted({*tokens.suppressed, tokens.no_timestamps}), device=device)
        self._first = torch.tensor(sorted({*tokens.suppressed_first}), device=device)

    def apply(self, logits: Tensor, written: Tensor) -> None:
        """Change logits (R, V) in place; `written` (R, T) is what each row has so far."""
        logits.index_fill_(1, self._always, NEVER)
        if not written.shape[1]:
            logits.index_fill_(1, self._first, NEVER)
            logits[:, : self.times] = NEVER  # a window begins with a time
            logits[:, self.times + self.first_time + 1 :] = NEVER
            return
        self._apply_times(logits, written)
        if self.repeats:
            self._forbid_repeats(logits, written)
        text, times = logits[:, : self.times], logits[:, self.times :]
        # all times together likelier than any single word: then it is a time
        silence(text, times.logsumexp(1) > text.amax(1))

    def _apply_times(self, logits: Tensor, written: Tensor) -> None:
        """Times come in pairs, an end and the next start, but for the first and the last; they never go back."""
        times = logits[:, self.times :]
        is_time = written >= self.times
        after_time = is_time[:, -1]
        paired = is_time[:, -2] if written.shape[1] > 1 else torch.ones_like(after_time)
        silence(times, after_time & paired)
        open_pair = after_time & ~paired
        silence(logits[:, : self.eot], open_pair)
        latest = torch.where(is_time, written - self.times, -1).amax(1)
        earliest = latest + ((latest >= 0) & ~open_pair)  # a segment ends later than it began
        steps = torch.arange(times.shape[1], device=logits.device)
        times.masked_fill_(steps < earliest[:, None], NEVER)

    def _forbid_repeats(self, logits: Tensor, written: Tensor) -> None:
        size = self.repeats
        for row, tokens in zip(logits, written.tolist(), strict=True):
            tail = tokens[len(tokens) - size + 1 :]
            ends = (i + size - 1 for i in range(len(tokens) - size + 1) if tokens[i : i + size - 1] == tail)
            row[[token for token in {tokens[i] for i in ends} if token < self.eot]] = NEVER


def silence(logits: Tensor, rows: Tensor) -> None:
    """Rows that `rows` tells become impossible; most often there are none, and nothing is touched."""
    if rows.any():
        logits[rows] = NEVER
