"""One request to a language model: all that the engine must know of it, and what it gives back. Knows no HTTP."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from brolly.verbs import GenerateOptions, Piece

Deliver = Callable[[Piece | BaseException], None]  # called by the engine's thread; must neither block nor raise


class Guide(Protocol):
    """What keeps an answer within a grammar; one an answer."""

    def mask(self, logits: Tensor) -> None:
        """Set to -inf, in place, the logits (V,) of tokens that may not come next."""
        ...

    def accept(self, token: int) -> None:
        """The token that was chosen."""
        ...

    @property
    def complete(self) -> bool:
        """Whether nothing may follow."""
        ...


class Splitter(Protocol):
    """What takes an answer's text apart into words, thoughts and tool calls; one an answer."""

    def push(self, text: str) -> Piece:
        """What became certain with this text."""
        ...

    def finish(self) -> Piece:
        """What was held back."""
        ...


@dataclass
class Job:
    """A prompt's tokens and how to write on from them."""

    prompt: Sequence[int]
    options: GenerateOptions
    after: Sequence[int] = ()  # what the text follows, so that its first word keeps its space
    n: int = 1  # answers
    best_of: int | None = None  # write so many and keep the n likeliest
    guide: Callable[[], Guide] | None = None
    split: Callable[[], Splitter] | None = None
    keep_special: bool = False  # whether the text shows control tokens, for `split` to read
    adapter: str | None = None  # a LoRA of the model, by its name
    priority: int = 0  # higher goes first; from -10 to 10
    user: str = ""  # whose share of the engine it takes


class Ticket(Protocol):
    """A job that was taken."""

    def cancel(self) -> None:
        """Stop, and free what it held, with the next step; nothing more is delivered. From any thread."""
        ...
