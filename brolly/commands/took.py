"""What an answer took, for --verbose: tokens, time to the first of them, speed, and cost where it is known."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

from brolly.verbs import Piece, Usage


class Took:
    """Watches the pieces of one answer pass, and tells what they took."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.begun = time.perf_counter()
        self.first: float | None = None  # seconds to the first piece that says anything
        self.ended = self.begun
        self.usage: Usage | None = None
        self._n = 0
        self._before = spent(model)

    def watch(self, pieces: Iterable[Piece]) -> Iterator[Piece]:
        """The same pieces."""
        try:
            for piece in pieces:
                self.ended = time.perf_counter()
                if self.first is None and (piece.text or piece.reasoning or piece.calls or piece.tokens):
                    self.first = self.ended - self.begun
                self._n += len(piece.tokens)
                self.usage = piece.usage or self.usage
                yield piece
        finally:
            if close := getattr(pieces, "close", None):
                close()

    def whole(self, usage: Usage) -> None:
        """It came in one."""
        self.ended, self.usage = time.perf_counter(), usage

    @property
    def n_tokens(self) -> int:
        """Written."""
        return self.usage.completion_tokens if self.usage else self._n

    def __str__(self) -> str:
        """12 tokens, 34.5 a second; first after 0.20 s; 100 read, 64 of them cached; $0.00012"""
        took = max(self.ended - self.begun, 1e-9)
        said = [f"{self.n_tokens:,} tokens, {self.n_tokens / took:.1f} a second"]
        if self.first is not None:
            said.append(f"first after {self.first:.2f} s")
        if self.usage:
            beside = [
                f"{n:,} {what}"
                for n, what in (
                    (self.usage.cached_tokens, "of them cached"), (self.usage.written_tokens, "put into the cache"),
                    (self.usage.reasoning_tokens, "written as thoughts"),
                )
                if n
            ]  # fmt: skip
            said.append(", ".join([f"{self.usage.prompt_tokens:,} read", *beside]))
        if cost := cost_since(self.model, self._before):
            said.append(cost)
        return "; ".join(said)


def spent(model: Any) -> tuple[float, int]:
    """Dollars that a model has cost so far, and how many requests whose price nobody knows."""
    budget = getattr(model, "budget", None)
    return (budget.spent, budget.unknown) if budget is not None else (0.0, 0)


def cost_since(model: Any, before: tuple[float, int]) -> str:
    """What a model that runs elsewhere has cost since then; "" of one that runs here."""
    if getattr(model, "budget", None) is None:
        return ""
    dollars, unknown = (now - then for now, then in zip(spent(model), before, strict=True))
    if unknown:
        return f"cost unknown (${dollars:.6f} known)" if dollars else "cost unknown"
    seen = getattr(model.price, "seen", "")
    return f"${dollars:.6f}" + (f" by prices of {seen}" if seen else "")
