"""One answer in the making: logits in, pieces of text out. A single stream and the engine share it, so that they agree.

Knows samplers, guides, stop strings and a tokenizer's stream; no network and no cache.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from brolly.engine.job import Job
from brolly.engine.sampler import Sampler
from brolly.media.text.stops import Held
from brolly.verbs import Piece, TokenLogprob, ToolDelta, Usage

END = -1  # chosen where a guide lets nothing follow


class Text(Protocol):
    """What an answer needs of a tokenizer."""

    def stream(self, *, skip_special: bool = True, after: Sequence[int] = ()) -> Any: ...
    def token_text(self, token_id: int) -> str: ...


class Writing:
    """Answer `index` to a job, of `most` tokens at most: `choose` the next token, then `take` it.

    `tokens` are those taken; the last piece has the finish reason and the usage.
    """

    def __init__(
        self, text: Text, job: Job, *, most: int, stop_ids: Iterable[int], index: int = 0, ranked: bool = False
    ) -> None:
        """`ranked` adds up the answer's log-probability in `total`."""
        options = job.options
        self.text, self.options, self.most, self.index = text, options, most, index
        self.n_prompt, self.cached = len(job.prompt), 0
        self.sampler = Sampler(options, job.prompt, index)
        self.words = text.stream(skip_special=not job.keep_special, after=job.after)
        self.guide = job.guide() if job.guide else None
        self.split = job.split() if job.split else None
        self.stops = set(stop_ids)
        self.hold = Held(options.stop)
        self.n = self.n_thoughts = 0  # tokens written, and those of them that are reasoning
        self.ranked, self.total = ranked, 0.0
        self.over = False
        self._shown = ""
        self._tokens: list[int] = []
        self._details: list[TokenLogprob] = []
        self._unsorted = 0  # tokens of which the splitter has not told what they are

    @property
    def plain(self) -> bool:
        """Whether the next token is simply the likeliest, as long as its logit is a number."""
        return self.sampler.plain and self.guide is None and self.n >= self.options.min_tokens

    def choose(self, logits: Tensor) -> int:
        """The next token after logits (V,) float32, which are left as they are."""
        if self.guide is not None and self.guide.complete:
            return END
        early = self.n < self.options.min_tokens and not self.options.ignore_eos
        if self.guide is not None or early:
            logits = logits.clone()
        if self.guide is not None:
            self.guide.mask(logits)
        if early and (stops := [i for i in self.stops if i < len(logits)]):
            ends = logits[stops]
            logits[stops] = -torch.inf
            if self.guide is not None and not (logits > -torch.inf).any():
                logits[stops] = ends  # the guide allows an end alone
        return self.sampler.choose(logits)

    def take(self, token: int, logits: Tensor) -> Piece | None:
        """What became certain with the token, chosen after these logits; None where nothing did."""
        assert not self.over
        if token == END or (token in self.stops and not self.options.ignore_eos):
            ended = self._end("stop")
            if ended is not None and token != END and self.options.logprobs is not None:
                return replace(ended, end=self._detail(token, torch.log_softmax(logits.float(), 0)))
            return ended
        if self.options.logprobs is not None or self.ranked:
            self._look(token, logits)
        self._tokens.append(token)
        self.n += 1
        self._unsorted += 1
        if self.guide is not None:
            self.guide.accept(token)
        new, stopped = self.words.push(token), False
        if self.n >= self.options.min_tokens:
            new, stopped = self.hold.push(new)
        self._shown += new
        if stopped:
            return self._piece("stop")
        if self.guide is not None and self.guide.complete:
            return self._end("stop")
        if self.n == self.most:
            return self._end("length")
        return self._piece(None) if self._shown else None

    def _end(self, reason: str) -> Piece | None:
        tail, stopped = self.hold.push(self.words.finish())
        self._shown += tail + ("" if stopped else self.hold.text)
        return self._piece("stop" if stopped else reason)

    def _piece(self, reason: str | None) -> Piece | None:
        text, reasoning = self._shown, ""
        calls: tuple[ToolDelta, ...] = ()
        if self.split is not None:
            found = [self.split.push(text)] if text else []
            found += [self.split.finish()] if reason else []
            text, reasoning = "".join(p.text for p in found), "".join(p.reasoning for p in found)
            calls = tuple(call for p in found for call in p.calls)
            called = any(p.finish_reason for p in found)  # in the midst: nothing may follow
            if text or reasoning or calls:
                self.n_thoughts += self._unsorted if reasoning else 0
                self._unsorted = 0
            elif reason is None and not called:
                self._shown = ""
                return None
            if called and reason in (None, "stop"):
                reason = "tool_calls"
        usage = Usage(self.n_prompt, self.n, self.cached, self.n_thoughts) if reason else None
        piece = Piece(
            text, tuple(self._tokens), tuple(self._details), reason, reasoning, calls, self.index, usage,
            stopped=self.hold.met if reason == "stop" else None,
        )  # fmt: skip
        self._shown, self._tokens, self._details = "", [], []
        self.over = reason is not None
        return piece

    def _look(self, token: int, logits: Tensor) -> None:
        """Log-probabilities of the model's own distribution, before penalties and temperature, as OpenAI tells them."""
        shares = torch.log_softmax(logits.float(), 0)
        self.total += float(shares[token])
        if self.options.logprobs is not None:
            self._details.append(self._detail(token, shares))

    def _detail(self, token: int, shares: Tensor) -> TokenLogprob:
        n_top = self.options.logprobs
        values, ids = shares.topk(min(n_top, len(shares))) if n_top else (shares[:0], shares[:0])
        top = {int(i): float(v) for i, v in zip(ids, values, strict=True)}
        return TokenLogprob(token, self.text.token_text(token), float(shares[token]), top)
