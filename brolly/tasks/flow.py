"""Many jobs through what writes them together, an engine or a vendor: answers in order, an error in its own place."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

from brolly.errors import Busy
from brolly.verbs import Piece

T = TypeVar("T")
WINDOW = 128  # jobs that are open at a time: twice what the engine writes together, half of what it lets wait
Deliver = Callable[[Piece | BaseException], None]


class Ticket(Protocol):
    """A job that was taken."""

    def cancel(self) -> None: ...


Submit = Callable[[Any, Deliver], Ticket]  # of an engine's Job, or a remote Ask


@dataclass
class Slot(Generic[T]):
    """A thing that was asked, and what came of it."""

    asked: T
    pieces: list[Piece] = field(default_factory=list)
    error: BaseException | None = None
    ended: bool = False
    ticket: Ticket | None = None


def in_order(submit: Submit, asked: Iterable[tuple[T, Any]]) -> Iterator[tuple[T, list[Piece], Any]]:
    """Of each thing asked, in order: itself, its pieces and its error. One without a job passes as it is.

    Whoever stops taking them, by ^C too, ends what is still being written.
    """
    waiting: deque[Slot[T]] = deque()
    ends: SimpleQueue[None] = SimpleQueue()
    things = iter(asked)
    more = True
    try:
        while more or waiting:
            while more and len(waiting) < WINDOW and not (waiting and waiting[0].ended):
                thing = next(things, None)
                if thing is None:
                    more = False
                    break
                slot = Slot(thing[0])
                waiting.append(slot)
                if thing[1] is None:
                    slot.ended = True
                else:
                    _submit(submit, thing[1], slot, ends)
            while waiting and waiting[0].ended:
                slot = waiting.popleft()
                yield slot.asked, slot.pieces, slot.error
            if waiting and (not more or len(waiting) >= WINDOW) and not waiting[0].ended:
                ends.get()
    finally:
        for slot in waiting:
            if slot.ticket is not None and not slot.ended:
                slot.ticket.cancel()


def _submit(submit: Submit, job: Any, slot: Slot[Any], ends: SimpleQueue[None]) -> None:
    """Hand a job to the engine; where too many wait there, wait for one of ours, or as long as it says."""

    def deliver(piece: Piece | BaseException) -> None:
        if isinstance(piece, BaseException):
            slot.error = piece
        else:
            slot.pieces.append(piece)
        if slot.error is not None or slot.pieces[-1].finish_reason:
            slot.ended = True
            ends.put(None)

    while True:
        try:
            slot.ticket = submit(job, deliver)
            return
        except Busy as busy:
            try:
                ends.get(timeout=min(busy.retry_after, 1.0))
            except Empty:
                time.sleep(0.01)
        except Exception as error:
            slot.error, slot.ended = error, True
            return
