"""Rows of tokens about windows of sound: the likeliest ones by beam search, the likeliest token each time, or drawn.

W windows, B rows a window, R = W·B, T tokens, V vocabulary. Scores are sums of log-probabilities, in float32.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from brolly.engine.listen import Writing
from brolly.errors import CheckpointError
from brolly.tasks.transcribe.rules import Rules


class Candidate(NamedTuple):
    """A text that may be a window's: its tokens, without the end, and the sum of their log-probabilities with it."""

    tokens: list[int]
    score: float


class Chosen(NamedTuple):
    """The next tokens (R,), the rows that they follow (R), and which windows are complete (W)."""

    tokens: Tensor
    sources: list[int]
    done: list[bool]


class Chooser(Protocol):
    """A way to go on; it keeps the score of each row, and forgets windows that are let go."""

    rows: int

    def choose(self, logits: Tensor, written: Tensor) -> Chosen: ...
    def candidates(self, window: int, written: Tensor) -> list[Candidate]: ...
    def keep(self, windows: list[int]) -> None: ...


def write(writing: Writing, chooser: Chooser, rules: Rules, most: int) -> list[list[Candidate]]:
    """Every window's candidates, of at most `most` tokens; the chooser decides."""
    n_windows = writing.n_rows
    found: list[list[Candidate]] = [[] for _ in range(n_windows)]
    here = list(range(n_windows))  # windows that are written about, some of them perhaps complete
    logits = writing.prompt_logits()
    written = torch.empty((n_windows, 0), dtype=torch.long, device=logits.device)
    for place in range(most):
        rules.apply(logits, written)
        if not logits.amax(1).isfinite().all():
            raise CheckpointError(
                "this Whisper can write nothing next: its weights are broken, or its generation_config.json forbids "
                "every token; pull the model again, or use float32."
            )
        tokens, sources, done = chooser.choose(logits, written)
        written = torch.cat([written[sources], tokens[:, None]], dim=1)
        for i, window in enumerate(here):
            if not found[window] and (done[i] or place == most - 1):
                found[window] = chooser.candidates(i, written[i * chooser.rows : (i + 1) * chooser.rows])
        if all(found):
            break
        if not place:
            writing = writing.fork(chooser.rows)
        else:
            writing.reorder(sources)
        left = [i for i, window in enumerate(here) if not found[window]]
        if len(left) * 2 <= len(here):  # letting go costs a copy of the rest, so it is done by halves
            rows = [i * chooser.rows + j for i in left for j in range(chooser.rows)]
            written, tokens, here = written[rows], tokens[rows], [here[i] for i in left]
            writing.keep(left)
            chooser.keep(left)
        logits = writing.step(tokens)
    return found


class Beams:
    """The `rows` likeliest unfinished texts a window, until round(rows · patience) are finished (Kasai et al. 2022)."""

    def __init__(self, rows: int, n_windows: int, eot: int, patience: float = 1.0) -> None:
        self.rows, self.eot, self.enough = rows, eot, max(round(rows * patience), 1)
        self.finished: list[list[Candidate]] = [[] for _ in range(n_windows)]
        self.scores: Tensor | None = None  # (R,)

    def choose(self, logits: Tensor, written: Tensor) -> Chosen:
        """Of each row's likeliest followers the best: those that end are finished, `rows` others go on."""
        n_windows = len(self.finished)
        each = len(logits) // n_windows  # 1 at first, when the rows of a window are alike
        gained, ids = logits.log_softmax(1).topk(self.rows + 1)
        scores = gained if self.scores is None else self.scores[:, None] + gained
        order = scores.view(n_windows, -1).sort(descending=True, stable=True)
        ranked = ids.view(n_windows, -1).gather(1, order.indices)
        tokens, kept, sources = [], [], []
        for window, row in enumerate(zip(order.values.tolist(), order.indices.tolist(), ranked.tolist(), strict=True)):
            going = 0
            for score, at, token in zip(*row, strict=True):
                source = window * each + at // (self.rows + 1)
                if token == self.eot:
                    if len(self.finished[window]) < self.enough:
                        self.finished[window].append(Candidate(written[source].tolist(), score))
                    continue
                tokens.append(token)
                kept.append(score)
                sources.append(source)
                if (going := going + 1) == self.rows:
                    break
        self.scores = torch.tensor(kept, device=logits.device)
        done = [len(texts) >= self.enough for texts in self.finished]
        return Chosen(torch.tensor(tokens, device=logits.device), sources, done)

    def candidates(self, window: int, written: Tensor) -> list[Candidate]:
        """What is finished; where that is too little, the best of what is not."""
        assert self.scores is not None
        found = [*self.finished[window]]
        scores = self.scores[window * self.rows : (window + 1) * self.rows].tolist()
        for i in sorted(range(self.rows), key=scores.__getitem__, reverse=True)[: max(self.rows - len(found), 0)]:
            found.append(Candidate(written[i].tolist(), scores[i]))
        return found

    def keep(self, windows: list[int]) -> None:
        assert self.scores is not None
        self.scores = self.scores.view(-1, self.rows)[windows].flatten()
        self.finished = [self.finished[i] for i in windows]


class Samples:
    """`rows` texts a window: each token the likeliest at temperature 0, else drawn."""

    def __init__(
        self, rows: int, n_windows: int, eot: int, temperature: float, generator: torch.Generator | None = None
    ) -> None:
        self.rows, self.eot, self.temperature, self.generator = rows, eot, temperature, generator
        self.scores: Tensor | None = None  # (R,)

    def choose(self, logits: Tensor, written: Tensor) -> Chosen:
        first = self.scores is None
        sources = [i // self.rows if first else i for i in range(len(logits) * (self.rows if first else 1))]
        if first and self.rows > 1:
            logits = logits.repeat_interleave(self.rows, 0)
        if self.temperature == 0:
            tokens = logits.argmax(1)
        else:
            shares = (logits / self.temperature).softmax(1)
            tokens = torch.multinomial(shares, 1, replacement=True, generator=self.generator)[:, 0]
        gained = logits.log_softmax(1).gather(1, tokens[:, None])[:, 0]
        if self.scores is None:
            self.scores = gained
        else:
            ended = written[:, -1] == self.eot
            tokens = tokens.masked_fill(ended, self.eot)
            self.scores = self.scores + gained.masked_fill(ended, 0)
        done = (tokens == self.eot).view(-1, self.rows).all(1)
        return Chosen(tokens, sources, done.tolist())

    def candidates(self, window: int, written: Tensor) -> list[Candidate]:
        assert self.scores is not None
        scores = self.scores[window * self.rows : (window + 1) * self.rows].tolist()
        texts = ([*row, self.eot] for row in written.tolist())
        return [Candidate(text[: text.index(self.eot)], score) for text, score in zip(texts, scores, strict=True)]

    def keep(self, windows: list[int]) -> None:
        assert self.scores is not None
        self.scores = self.scores.view(-1, self.rows)[windows].flatten()


def best(candidates: list[Candidate], length_penalty: float | None) -> Candidate:
    """The likeliest a token, or by the length penalty of Wu et al. 2016."""

    def rank(one: Candidate) -> float:
        n = len(one.tokens)
        return one.score / (max(n, 1) if length_penalty is None else ((5 + n) / 6) ** length_penalty)

    return max(candidates, key=rank)
