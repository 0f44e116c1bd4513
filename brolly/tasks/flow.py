"""Many jobs through what writes them together, an engine or a vendor: answers in order, an error in its own place."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

from brolly.errors import BudgetSpent, Busy, KeyRefused, NotFound, Overloaded, QuotaSpent
from brolly.verbs import Piece

T = TypeVar("T")
WINDOW = 128  # jobs that are open at a time: twice what the engine writes together, half of what it lets wait
TRIES, PATIENCE = 20, 120.0  # of a job that is turned away; seconds that are waited for the next
# after which no other job can be answered either: the budget, the key, the model's name, the account
ENDS = (BudgetSpent, KeyRefused, NotFound, QuotaSpent)
Deliver = Callable[[Piece | BaseException], None]


class Ticket(Protocol):
    """A job that was taken."""

    def cancel(self) -> None: ...


Submit = Callable[[Any, Deliver], Ticket]  # of an engine's Job, or a remote Ask


@dataclass
class Slot(Generic[T]):
    """A thing that was asked, and what came of it. `due`: when it may be asked again, where it was turned away."""

    asked: T
    job: Any
    pieces: list[Piece] = field(default_factory=list)
    error: BaseException | None = None
    ended: bool = False
    ticket: Ticket | None = None
    due: float | None = None
    tries: int = 0

    @property
    def open(self) -> bool:
        return not self.ended and self.due is None


def in_order(submit: Submit, asked: Iterable[tuple[T, Any]]) -> Iterator[tuple[T, list[Piece], Any]]:
    """Of each thing asked, in order: itself, its pieces and its error. One without a job passes as it is.

    A vendor that has no room now is asked again later, with half as many at a time, then with one more for each answer.
    Whoever stops taking them, by ^C too, ends what is still being written.
    """
    waiting: deque[Slot[T]] = deque()
    turned: list[Slot[T]] = []  # away, and not seen yet
    ends: SimpleQueue[None] = SimpleQueue()
    things = iter(asked)
    more, room = True, WINDOW
    try:
        while more or waiting:
            while more and len(waiting) < WINDOW and not (waiting and waiting[0].ended):
                thing = next(things, None)
                if thing is None:
                    more = False
                    break
                slot = Slot(*thing)
                waiting.append(slot)
                if slot.job is None:
                    slot.ended = True
                elif room < WINDOW:
                    slot.due = 0.0
                else:
                    _submit(submit, slot, turned, ends)
            while waiting and waiting[0].ended:
                slot = waiting.popleft()
                room = min(WINDOW, room + (slot.job is not None and slot.error is None))
                yield slot.asked, slot.pieces, slot.error
            n_open, now = sum(slot.open for slot in waiting), time.monotonic()
            if turned:
                turned.clear()
                room = max(1, min(room, n_open // 2))
            for slot in waiting:
                if n_open < room and slot.due is not None and slot.due <= now:
                    _submit(submit, slot, turned, ends)
                    n_open += 1
            if waiting and (not more or len(waiting) >= WINDOW) and not waiting[0].ended:
                dues = [slot.due for slot in waiting if slot.due]
                with suppress(Empty):
                    ends.get(timeout=max(0.01, min(dues) - now) if dues else None)
    finally:
        for slot in waiting:
            if slot.ticket is not None and slot.open:
                slot.ticket.cancel()


def _submit(submit: Submit, slot: Slot[Any], turned: list[Slot[Any]], ends: SimpleQueue[None]) -> None:
    """Hand a job over; where too many wait there, wait for one of ours, or as long as it says."""

    def deliver(piece: Piece | BaseException) -> None:
        again = isinstance(piece, (Busy, Overloaded)) and piece.retry_after <= PATIENCE
        if again and not slot.pieces and slot.tries < TRIES:
            slot.due = time.monotonic() + piece.retry_after  # type: ignore[union-attr]
            turned.append(slot)
            ends.put(None)
            return
        if isinstance(piece, BaseException):
            slot.error = piece
        else:
            slot.pieces.append(piece)
        if slot.error is not None or slot.pieces[-1].finish_reason:
            slot.ended = True
            ends.put(None)

    slot.due = None
    slot.tries += 1
    while True:
        try:
            slot.ticket = submit(slot.job, deliver)
            return
        except Busy as busy:
            try:
                ends.get(timeout=min(busy.retry_after, 1.0))
            except Empty:
                time.sleep(0.01)
        except Exception as error:
            slot.error, slot.ended = error, True
            return
