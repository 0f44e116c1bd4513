"""One request's account: filled in while it is answered, then told to the log, the metrics and the traces."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from time import perf_counter, time
from typing import Any

from brolly.verbs import Piece


@dataclass(slots=True, eq=False)
class Account:
    """What a request was, and what came of it. Times are seconds of `perf_counter`, but `at` (since 1970)."""

    id: str
    method: str = ""
    path: str = ""
    client: str = ""
    user: str = ""  # whose share of the engine it takes: a key's name, or the client's address
    owner: str = ""  # whose stored answers it sees: a digest of its key
    scope: str = "admin"
    route: str = "unmatched"  # the path's pattern, never what a client wrote
    model: str = ""  # the served model's own name, never what a client wrote
    verb: str = ""
    elsewhere: bool = False  # it runs elsewhere, and tells tokens at its end alone
    status: int = 0
    error: str = ""  # the kind of what went wrong
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    pieces: int = 0
    finish: list[str] = field(default_factory=list)
    body: str = ""  # only where prompts may be logged
    trace: dict[str, str] = field(default_factory=dict)  # W3C traceparent and tracestate, as they came
    at: float = field(default_factory=time)
    started: float = field(default_factory=perf_counter)
    ended: float = 0.0
    first: float | None = None  # when the first piece came
    last: dict[int, float] = field(default_factory=dict)  # when the last piece of each answer came
    listen: Callable[[str], Callable[[float], Any]] | None = None  # a model's name → what is told the seconds
    between: Callable[[float], Any] | None = None  # from one token to the next

    @property
    def seconds(self) -> float:
        return self.ended - self.started

    @property
    def time_to_first(self) -> float | None:
        """Seconds from the request's head to its first piece of text."""
        return None if self.first is None else self.first - self.started

    def uses(self, model: str, verb: str, *, elsewhere: bool = False) -> None:
        """The served model that answers, by its own name."""
        self.model, self.verb, self.elsewhere = model, verb, elsewhere
        if self.listen is not None:
            self.between = self.listen(model)

    def wrote(self, piece: Piece) -> None:
        """A piece of an answer came; called for each, so it is cheap."""
        now = perf_counter()
        self.pieces += 1
        if self.first is None:
            self.first = now
        before = self.last.get(piece.index)
        if before is not None and self.between is not None and piece.tokens:
            self.between((now - before) / len(piece.tokens))
        self.last[piece.index] = now
        self.completion_tokens += len(piece.tokens)
        if piece.finish_reason:
            self.finish.append(piece.finish_reason)
        if (usage := piece.usage) is not None:
            self.prompt_tokens = max(self.prompt_tokens, usage.prompt_tokens)
            self.cached_tokens = max(self.cached_tokens, usage.cached_tokens)
            if self.elsewhere:
                self.completion_tokens += usage.completion_tokens


current: ContextVar[Account | None] = ContextVar("account", default=None)


def took(read: int, written: int = 0) -> None:
    """Tokens of a verb without pieces, into the request's account, where there is one."""
    if (account := current.get()) is not None:
        account.prompt_tokens += read
        account.completion_tokens += written
