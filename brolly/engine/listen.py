"""Whisper at work: windows of sound heard once, and rows of tokens written about them step by step.

W windows of M mel bands and F frames, S places of sound each; R rows of tokens, as many to each window and neighbours
there; T tokens, C dim, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from brolly.engine import fuse
from brolly.engine.cache import Causal, DenseCache
from brolly.kernels.listener import Listening
from brolly.models.whisper import Whisper

ROOM = 64  # tokens that a new cache has place for behind its prompt


class Heard(NamedTuple):
    """What is looked at: the encoder's output (W, S, C), and each layer's keys and values of it: (W, H, S, D)."""

    audio: Tensor
    cross: list[tuple[Tensor, Tensor]]

    def keep(self, windows: Sequence[int]) -> Heard:
        """Some of the windows; all of them are not copied."""
        if list(windows) == list(range(len(self.audio))):
            return self
        chosen = torch.tensor(list(windows), device=self.audio.device)
        return Heard(self.audio[chosen], [(k[chosen], v[chosen]) for k, v in self.cross])


class Listener:
    """A Whisper that hears mel windows and writes about them."""

    def __init__(self, network: Whisper) -> None:
        self.network, self.config = network, network.config
        some = network.decoder.embed_tokens.weight
        self.device, self.dtype = some.device, some.dtype

    @cached_property
    def fused(self) -> Listening | str:
        """The kernel for the decoder, or why there is none; made when first needed."""
        try:
            return fuse.whisper(self.network)
        except ValueError as error:
            return str(error)

    @torch.inference_mode()
    def hear(self, mels: Tensor) -> Heard:
        """Windows of log-mel frames: (W, M, F)."""
        audio = self.network.encode(mels.to(self.device, self.dtype))
        return Heard(audio, self.network.cross(audio))

    def begin(self, heard: Heard, prompt: Sequence[int] | Sequence[Sequence[int]], rows: int = 1) -> Writing:
        """Read a prompt, or one of equal length for each window; the next step writes behind it."""
        ids = torch.tensor(prompt, device=self.device)
        ids = ids.expand(len(heard.audio), -1) if ids.dim() == 1 else ids  # (W, T)
        cache = Rows(self.config, len(ids), ids.shape[1] + ROOM, self.dtype, self.device)
        hidden = self.forward(ids, 0, cache, heard)
        writing = Writing(self, heard, cache, hidden)
        return writing if rows == 1 else writing.fork(rows)

    @torch.inference_mode()
    def forward(self, ids: Tensor, place: int, cache: Rows, heard: Heard) -> Tensor:
        """Hidden states of the tokens from `place` on, which the cache remembers: (R, T) → (R, T, C)."""
        positions = torch.arange(place, place + ids.shape[1], device=self.device).expand(len(ids), -1)
        cache.begin(positions)
        if isinstance(self.fused, Listening):
            return self.fused.listen(ids, place, cache.keys, cache.values, heard.cross)
        return self.network.decode(ids, positions, cache, heard.cross)

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """(…, C) → (…, V) in float32."""
        if isinstance(self.fused, Listening):
            return self.fused.logits(hidden)
        return self.network.logits(hidden).float()

    @torch.inference_mode()
    def align(self, heard: Heard, ids: Tensor, heads: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        """Hidden states of whole texts (W, T, C), and where (layer, head)s looked, before the softmax (W, heads, T, S).

        Texts shorter than others are padded on the right; what stands there changes nothing before it.
        """
        ids = ids.to(self.device)
        positions = torch.arange(ids.shape[1], device=self.device).expand(len(ids), -1)
        return self.network.align(ids, positions, Causal(self.config), heard.cross, heads)


class Writing:
    """Rows of tokens about windows of sound: `step` adds one to each, `reorder` lets rows go on from others."""

    def __init__(self, listener: Listener, heard: Heard, cache: Rows, hidden: Tensor) -> None:
        self.listener, self.heard, self._cache = listener, heard, cache
        self._hidden = hidden  # of the prompt, a row a window: (W, T, C)
        self._prompt = hidden.shape[1]
        self.length = self._prompt  # tokens of each row

    @property
    def n_rows(self) -> int:
        return self._cache.keys.shape[1]

    def prompt_logits(self, place: int = -1) -> Tensor:
        """What may follow the prompt's token at `place`, of each window: (W, V)."""
        return self.listener.logits(self._hidden[:, place])

    def step(self, tokens: Tensor) -> Tensor:
        """One more token a row: (R,) → what may follow it, (R, V)."""
        hidden = self.listener.forward(tokens.to(self.listener.device)[:, None], self.length, self._cache, self.heard)
        self.length += 1
        return self.listener.logits(hidden[:, 0])

    def reorder(self, rows: Sequence[int]) -> None:
        """Row i goes on from where row rows[i] of the same window stands."""
        self._cache.move(rows, self._prompt, self.length)

    def fork(self, rows: int) -> Writing:
        """As many rows for each one here, which keeps what it has: the prompt is read once for every attempt."""
        other = Writing(self.listener, self.heard, self._cache.repeated(rows), self._hidden)
        other.length = self.length
        return other

    def keep(self, windows: Sequence[int]) -> None:
        """Go on with some windows and all their rows."""
        each = self.n_rows // len(self._hidden)
        self._cache = self._cache.chosen([w * each + i for w in windows for i in range(each)])
        self.heard, self._hidden = self.heard.keep(windows), self._hidden[list(windows)]


class Rows(DenseCache):
    """A dense cache whose rows are repeated, chosen and moved; all of them have the same length."""

    @torch.inference_mode()
    def move(self, rows: Sequence[int], start: int, end: int) -> None:
        """Row i takes the places start … end of row rows[i]; before them rows of a window are alike."""
        to = [i for i, row in enumerate(rows) if row != i]
        if to:
            of = [rows[i] for i in to]
            for held in (self.keys, self.values):
                held[:, to, :, start:end] = held[:, of, :, start:end]

    def repeated(self, times: int) -> Rows:
        return self.chosen([row for row in range(self.keys.shape[1]) for _ in range(times)])

    @torch.inference_mode()
    def chosen(self, rows: Sequence[int]) -> Rows:
        """A cache of these rows, with a memory of its own."""
        other = copy(self)
        for name in ("keys", "values"):
            held: Tensor = getattr(self, name)
            new = held.new_zeros((held.shape[0], len(rows), *held.shape[2:]))
            new[:, :, :, : self.length] = held[:, list(rows), :, : self.length]
            setattr(other, name, new)
        return other
