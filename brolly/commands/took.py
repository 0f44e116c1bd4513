"""What an answer took, for --verbose: tokens, time to the first of them, speed, and cost where it is known."""

from __future__ import annotations

import sys
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
        self._budget = getattr(model, "budget", None)
        self._before = spent(self._budget)

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
        if cost := cost_since(self._budget, self._before):
            seen = getattr(self.model.price, "seen", "")
            said.append(cost + (f" by prices of {seen}" if seen else ""))
        return "; ".join(said)


def spent(budget: Any) -> tuple[float, int]:
    """Dollars spent so far, and how many requests have a price that nobody knows; of no budget, none."""
    return (budget.spent, budget.unknown) if budget is not None else (0.0, 0)


def cost_since(budget: Any, before: tuple[float, int] = (0.0, 0)) -> str:
    """What models that run elsewhere have cost since then; "" where there are none."""
    if budget is None:
        return ""
    dollars, unknown = (now - then for now, then in zip(spent(budget), before, strict=True))
    if unknown:
        return f"cost unknown ({in_dollars(dollars)} known)" if dollars else "cost unknown"
    return in_dollars(dollars)


def in_dollars(amount: float) -> str:
    """$1.2345, $0.000012"""
    from math import floor, log10

    if amount <= 0:
        return "$0"
    return f"${amount:.{4 if amount >= 0.01 else 1 - floor(log10(amount))}f}"


def tell_cost(args: Any, *models: Any) -> None:
    """With --verbose, what a command's models that run elsewhere have cost, on standard error; they share a budget."""
    budget = next((one.budget for one in models if hasattr(one, "budget")), None)
    if args.verbose and budget is not None:
        print(cost_since(budget), file=sys.stderr)
