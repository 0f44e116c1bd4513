"""Logits to the next token, by OpenAI's and transformers' options. Knows no text and no network. V vocabulary."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from random import Random

import torch
from torch import Tensor

from brolly.errors import CheckpointError, OptionError
from brolly.verbs import GenerateOptions

PART = 2**14  # numbers: a torch operation on fewer does not wake threads, which would then spin beside the kernel's
FEW = 1024  # tokens that mostly make up any top-p; sorting a whole vocabulary takes longer than a small network's step


class Sampler:
    """Chooses tokens for one sequence; the same options, seed, index and logits give the same tokens.

    What a seed promises: draw i of answer `index` is one number of a generator that knows the seed, the index and i
    alone; no neighbour in a batch and no other thread moves it. So where the network computes the same numbers, the
    text is the same, on every machine. The numbers are the same from run to run of the same steps. In a batch, behind a
    prompt found in the cache, or with other kernels, they may differ in the last bits: in float32 by about a millionth,
    which a text mostly never shows; in bfloat16 by about a hundredth, which now and then turns the draw of a close
    choice, and the text goes on otherwise from there.
    """

    def __init__(self, options: GenerateOptions, prompt: Sequence[int] = (), index: int = 0) -> None:
        self.options = options
        self.written: Counter[int] = Counter()
        self.seen = set(prompt)
        seed = None if options.seed is None else options.seed % 2**64
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

    def distribution(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Shares and ids of the tokens that may come next: penalties, temperature, then top-k, top-p and min-p."""
        scores = self._penalised(logits)
        temperature = 1.0 if self.options.temperature is None else self.options.temperature
        top = max(float(part.max()) for part in scores.split(PART))
        for part in scores.split(PART):  # the likeliest at 0, so that a tiny temperature cannot overflow
            part.sub_(top).div_(max(temperature, 1e-30))
        scores, ids = kept(scores, self.options)
        return torch.softmax(scores, 0), ids

    def _untouched(self) -> bool:
        o = self.options
        quiet = o.repetition_penalty in (None, 1.0) and not o.presence_penalty and not o.frequency_penalty
        return quiet and not o.logit_bias

    def _penalised(self, logits: Tensor) -> Tensor:
        """Repetition looks at the prompt too (transformers); presence and frequency at what was written (OpenAI)."""
        o = self.options
        scores = torch.empty(len(logits))
        for part, given in zip(scores.split(PART), logits.cpu().split(PART), strict=True):
            part.copy_(torch.nan_to_num(given.float(), nan=-torch.inf, neginf=-torch.inf))
        if all(part.max() == -torch.inf for part in scores.split(PART)):
            raise CheckpointError("the model computed no number for any token; try --dtype float32, or pull it again.")
        if o.repetition_penalty not in (None, 1.0) and self.seen:
            ids = torch.tensor(sorted(self.seen))
            old = scores[ids]
            scores[ids] = torch.where(old < 0, old * o.repetition_penalty, old / o.repetition_penalty)
        if (o.presence_penalty or o.frequency_penalty) and self.written:
            ids = torch.tensor(list(self.written))
            counts = torch.tensor([float(n) for n in self.written.values()])
            scores[ids] -= o.presence_penalty + o.frequency_penalty * counts
        for token, bias in o.logit_bias.items():
            if not 0 <= token < len(scores):
                raise OptionError(f"logit_bias names token {token}; this vocabulary has 0 to {len(scores) - 1}.")
            scores[token] += bias
        return scores


def drawn(shares: Tensor, u: float) -> int:
    """The place where the shares, added up, pass the part u of them all; 0 <= u < 1."""
    sums = shares.double().cumsum(0)
    point = math.nextafter(u * float(sums[-1]), 0.0)
    return int(torch.searchsorted(sums, torch.tensor(point, dtype=torch.float64), right=True))


def likeliest(logits: Tensor) -> int:
    """The first of the largest logits, or -1 where a number among them is not one."""
    best, token = -math.inf, -1
    for start, part in zip(range(0, len(logits), PART), logits.split(PART), strict=True):
        value, at = (float(x) for x in part.max(0))
        if value != value or value == math.inf:
            return -1
        if value > best:
            best, token = value, start + int(at)
    return token


def kept(scores: Tensor, options: GenerateOptions) -> tuple[Tensor, Tensor]:
    """Scores and ids that top-k, top-p and min-p leave, each of what the one before it left; never none."""
    k, p, floor = int(options.top_k or 0), options.top_p, options.min_p
    if 0 < k < len(scores):
        scores, ids = scores.topk(k)
        total = scores.logsumexp(0)
    elif p is not None and p < 1:
        total = scores.logsumexp(0)
        ordered, ids = scores.topk(min(FEW, len(scores)))
        few = float((ordered - total).exp().sum()) < p
        scores, ids = scores.sort(descending=True) if few else (ordered, ids)
    else:
        ids = torch.arange(len(scores))
    if p is not None and p < 1:
        shares = (scores - total).exp()
        within = shares.cumsum(0) - shares < p
        within[0] = True
        scores, ids = scores[within], ids[within]
    if floor:
        shares = torch.softmax(scores, 0)
        likely = shares >= floor * shares.max()
        scores, ids = scores[likely], ids[likely]
    return scores, ids
