"""Logits to the next token, by OpenAI's and transformers' options. Knows no text and no network. V vocabulary."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any

import numpy as np
from torch import Tensor

from brolly.errors import CheckpointError, OptionError
from brolly.verbs import GenerateOptions

NEAR = -9.0  # tokens less than exp(9) times as unlikely as the likeliest mostly make up any top-p; sorting all is slow
Numbers = np.ndarray[Any, Any]  # by numpy: torch would wake its threads for a vocabulary, to spin beside the kernel's


class Sampler:
    """Chooses tokens for one sequence; the same options, seed, index and logits give the same tokens.

    What a seed promises: draw i of answer `index` is one number of a generator that knows the seed, the index and i
    alone; no neighbour in a batch and no other thread moves it. So where the network computes the same bits, the text
    is the same, on every machine. Which bits are the same:
    - By the fused kernel for batches (`Pages.describe` tells), those of one request, alone or beside any others, its
      prompt cut anywhere, found in the cache or computed again: through the engine, the text is the same.
    - By torch, and between the engine and a single stream, which has a kernel of its own, sums run in another order. In
      float32 they differ by about a millionth, which a text mostly never shows; in bfloat16 by about a hundredth, which
      now and then turns a close choice, and the text goes on otherwise from there.
    """

    def __init__(self, options: GenerateOptions, prompt: Sequence[int] = (), index: int = 0) -> None:
        self.options = options
        self.written: Counter[int] = Counter()
        self.seen = set(prompt) if options.repetition_penalty not in (None, 1.0) else set()  # each of n answers has one
        seed = None if options.seed is None else options.seed % 2**64
        self.biased = np.fromiter(options.logit_bias, np.int64)
        self.biases = np.fromiter(options.logit_bias.values(), np.float32)
        self.random = Random(f"{seed}/{index}" if seed is not None and index else seed)

    def choose(self, logits: Tensor) -> int:
        """The next token after logits (V,), which is added to what the penalties look at."""
        if self.options.temperature == 0:
            token = likeliest(logits) if self._untouched() else -1
            if token < 0:
                token = int(self._penalised(logits).argmax())
        else:
            shares, ids = self.distribution(logits)
            token = int(ids[drawn(shares, self.random.random())])
        self.written[token] += 1
        self.seen.add(token)
        return token

    @property
    def plain(self) -> bool:
        """Whether it takes the likeliest token, and nothing written before changes that."""
        return self.options.temperature == 0 and self._untouched()

    def distribution(self, logits: Tensor) -> tuple[Numbers, Numbers]:
        """Shares and ids of the tokens that may come next: penalties, temperature, then top-k, top-p and min-p."""
        scores = self._penalised(logits)
        temperature = 1.0 if self.options.temperature is None else self.options.temperature
        scores -= scores.max()  # the likeliest at 0, so that a tiny temperature cannot overflow
        with np.errstate(over="ignore"):
            scores /= np.float32(max(temperature, 1e-30))
        scores, ids = kept(scores, self.options)
        shares = np.exp(scores - scores.max())
        return shares / shares.sum(), ids

    def _untouched(self) -> bool:
        o = self.options
        quiet = o.repetition_penalty in (None, 1.0) and not o.presence_penalty and not o.frequency_penalty
        return quiet and not o.logit_bias

    def _penalised(self, logits: Tensor) -> Numbers:
        """Repetition looks at the prompt too (transformers); presence and frequency at what was written (OpenAI)."""
        o = self.options
        scores: Numbers = np.array(logits.detach().float().cpu().numpy())
        if not np.isfinite(scores.max()):
            scores = np.nan_to_num(scores, nan=-np.inf, neginf=-np.inf)
            if scores.max() == -np.inf:
                raise CheckpointError(
                    "the model computed no number for any token; try --dtype float32, or pull it again."
                )
        if o.repetition_penalty not in (None, 1.0) and self.seen:
            ids = np.fromiter(self.seen, np.int64)
            old = scores[ids]
            scores[ids] = np.where(old < 0, old * o.repetition_penalty, old / o.repetition_penalty)
        if (o.presence_penalty or o.frequency_penalty) and self.written:
            ids = np.fromiter(self.written, np.int64)
            counts = np.fromiter(self.written.values(), np.float32)
            scores[ids] -= o.presence_penalty + o.frequency_penalty * counts
        if len(self.biased):
            beyond = self.biased[(self.biased < 0) | (self.biased >= len(scores))]
            if len(beyond):
                raise OptionError(f"logit_bias names token {beyond[0]}; this vocabulary has 0 to {len(scores) - 1}.")
            scores[self.biased] += self.biases
        return scores


def drawn(shares: Numbers, u: float) -> int:
    """The place where the shares, added up, pass the part u of them all; 0 <= u < 1."""
    sums = np.cumsum(shares, dtype=np.float64)
    return int(np.searchsorted(sums, math.nextafter(u * float(sums[-1]), 0.0), side="right"))


def likeliest(logits: Tensor) -> int:
    """The first of the largest logits, or -1 where a number among them is not one."""
    scores = logits.detach().float().cpu().numpy()
    token = int(scores.argmax())  # the first that is no number, where there is one
    return token if np.isfinite(scores[token]) else -1


def kept(scores: Numbers, options: GenerateOptions) -> tuple[Numbers, Numbers]:
    """Scores and ids that top-k, top-p and min-p leave, each of what the one before it left; never none.

    The largest score is 0.
    """
    k, p, floor = int(options.top_k or 0), 1.0 if options.top_p is None else options.top_p, options.min_p
    few, many = 0 < k < len(scores), p < 1
    if not (few or many or floor):
        return scores, np.arange(len(scores))
    ids = np.flatnonzero(scores > NEAR) if few or many else np.arange(len(scores))
    total = np.exp(scores).sum() if many and not few else 1.0
    if (few and len(ids) < k) or (many and not few and np.exp(scores[ids]).sum() < p * total):
        ids = np.arange(len(scores))
    if few:
        ids = np.sort(ids[np.argpartition(scores[ids], -k)[-k:]]) if k < len(ids) else ids
        total = np.exp(scores[ids]).sum()
    if many:
        ids = ids[np.argsort(-scores[ids], kind="stable")]
        shares = np.exp(scores[ids]) / total
        within = np.cumsum(shares) - shares < p
        within[0] = True
        ids = ids[within]
    if floor:
        ids = ids[scores[ids] >= math.log(floor)]  # shares of the likeliest, whose score is 0
    return scores[ids], ids
