"""Write on from a prompt: the loop that every language verb shares. Knows runners and tokenizers by what they do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from brolly.engine.sampler import Sampler
from brolly.errors import ContextTooLong, OptionError
from brolly.verbs import GenerateOptions, Generation, Piece, TokenLogprob, Usage

CHUNK = 2048  # prompt tokens a pass: bounds the memory of attention and lets ^C through


class Steps(Protocol):
    """What the loop needs of a runner."""

    def new_cache(self, batch: int, capacity: int) -> Any: ...
    def forward(self, ids: Tensor, positions: Tensor, cache: Any) -> Tensor: ...


class Text(Protocol):
    """What the loop needs of a tokenizer."""

    def stream(self, *, skip_special: bool = True, after: Sequence[int] = ()) -> Any: ...
    def token_text(self, token_id: int) -> str: ...


def stream(
    steps: Steps,
    text: Text,
    prompt: Sequence[int],
    options: GenerateOptions,
    *,
    context: int,
    stop_ids: Iterable[int],
    after: Sequence[int] = (),
    device: torch.device | None = None,
) -> Iterator[Piece]:
    """Pieces of text as they become certain; the last carries the finish reason, "stop" or "length".

    `after` is what a continuation follows, so that its first word keeps its space. Raises ContextTooLong, OptionError.
    """
    if not prompt:
        raise OptionError("the prompt is empty and this model has no token to begin with; give it at least one word.")
    if len(prompt) >= context:
        raise ContextTooLong(
            f"the prompt has {len(prompt)} tokens; this model holds {context}, answer included. Shorten it."
        )
    room = context - len(prompt)
    most = min(options.max_tokens or room, room)
    sampler, stops, words = Sampler(options, prompt), set(stop_ids), text.stream(after=after)
    hold = _Held(options.stop)
    cache = steps.new_cache(1, min(len(prompt) + min(most, 256), context))
    logits = _prefill(steps, prompt, cache, device)
    tokens: list[int] = []
    details: list[TokenLogprob] = []
    for n in range(most):
        token = sampler.choose(logits)
        if token in stops:
            yield Piece(hold.rest(words.finish()), tuple(tokens), tuple(details), "stop")
            return
        if options.logprobs is not None:
            details.append(_logprob(logits, token, options.logprobs, text))
        tokens.append(token)
        out, stopped = hold.push(words.push(token))
        if stopped:
            yield Piece(out, tuple(tokens), tuple(details), "stop")
            return
        if n + 1 == most:
            break
        if out:
            yield Piece(out, tuple(tokens), tuple(details))
            tokens, details = [], []
        place = torch.tensor([[len(prompt) + n]], device=device)
        logits = steps.forward(torch.tensor([[token]], device=device), place, cache)[0]
    tail, stopped = hold.push(words.finish())
    yield Piece(
        out + tail + ("" if stopped else hold.rest("")), tuple(tokens), tuple(details), "stop" if stopped else "length"
    )


def _prefill(steps: Steps, prompt: Sequence[int], cache: Any, device: torch.device | None) -> Tensor:
    ids = torch.tensor([list(prompt)], device=device)
    places = torch.arange(len(prompt), device=device)[None]
    for start in range(0, len(prompt), CHUNK):
        part = slice(start, start + CHUNK)
        logits = steps.forward(ids[:, part], places[:, part], cache)
    return logits[0]


class _Held:
    """Text not yet shown because it could be the beginning of a stop string."""

    def __init__(self, stops: Sequence[str]) -> None:
        self.stops, self.text = stops, ""

    def push(self, more: str) -> tuple[str, bool]:
        """What may be shown now, and whether a stop string was met (and cut off, with all after it)."""
        self.text += more
        found = [at for at in (self.text.find(stop) for stop in self.stops) if at >= 0]
        if found:
            return self.text[: min(found)], True
        keep = max((n for stop in self.stops for n in range(1, len(stop)) if self.text.endswith(stop[:n])), default=0)
        shown, self.text = self.text[: len(self.text) - keep], self.text[len(self.text) - keep :]
        return shown, False

    def rest(self, more: str) -> str:
        """All that is left when nothing more will come."""
        shown, stopped = self.push(more)
        return shown if stopped else shown + self.text


def _logprob(logits: Tensor, token: int, n_top: int, text: Text) -> TokenLogprob:
    """Of the model's own distribution, before penalties and temperature, as OpenAI reports it."""
    shares = torch.log_softmax(logits.float(), 0)
    values, ids = shares.topk(min(n_top, len(shares))) if n_top else (shares[:0], shares[:0])
    top = {int(i): float(v) for i, v in zip(ids, values, strict=True)}
    return TokenLogprob(token, text.token_text(token), float(shares[token]), top)


def gather(pieces: Iterable[Piece], n_prompt: int, with_logprobs: bool) -> Generation:
    """All pieces as one result."""
    text, reason = "", "length"
    tokens: list[int] = []
    details: list[TokenLogprob] = []
    for piece in pieces:
        text += piece.text
        tokens += piece.tokens
        details += piece.logprobs
        reason = piece.finish_reason or reason
    usage = Usage(n_prompt, len(tokens))
    return Generation(text, tokens, reason, usage, details if with_logprobs else None)
