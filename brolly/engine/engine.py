"""Many answers at a time from one network: the thread that plans steps, runs them and hands out what became certain."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import count
from queue import Empty, SimpleQueue
from statistics import fmean
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from brolly.engine.blocks import Blocks
from brolly.engine.job import Deliver, Job, Ticket
from brolly.engine.pace import Pace
from brolly.engine.pages import BLOCK, Stretch
from brolly.engine.scheduler import PRIORITIES, Row, Scheduler
from brolly.engine.writing import Text, Writing
from brolly.errors import BrollyError, Busy, ContextTooLong, OptionError
from brolly.kernels.pages import available
from brolly.verbs import Piece

MOST_ANSWERS = 128  # to one job
LONGEST_WAIT = 60.0  # seconds that one who is refused is told to wait
log = logging.getLogger(__name__)


class Network(Protocol):
    """What the engine needs of `engine.pages.Pages`."""

    n_blocks: int

    @property
    def likeliest(self) -> Sequence[int]: ...

    def forward(self, stretches: Sequence[Stretch]) -> Tensor: ...
    def copy(self, pairs: Sequence[tuple[int, int]]) -> None: ...


@dataclass(frozen=True)
class Event:
    """Something that took time: a job's wait for its turn, that for its first token, the time between two, or all."""

    name: Literal["queue", "first", "between", "whole"]
    seconds: float
    job: Job
    outcome: str = ""  # of the whole: a finish reason, "cancelled" or "error"


@dataclass(frozen=True)
class Stats:
    """The engine now, and what it did so far."""

    running: int
    waiting: int
    blocks_used: int
    blocks_free: int
    blocks_cached: int  # of the free ones
    prefix_hits: int
    prefix_tokens: int
    preemptions: int
    steps: int
    tokens_in: int
    tokens_out: int


@dataclass(eq=False)
class Task:
    """A job that was taken, and its answers."""

    engine: Engine
    job: Job
    deliver: Deliver
    adapter: Any
    most: int
    born: float
    rows: list[Row] = field(default_factory=list)
    waiting: bool = True
    over: bool = False  # holds nothing any more
    cancelled: bool = False  # wants nothing any more
    last: float | None = None  # when something was written last
    open: int = 0  # answers that are not done
    kept: list[tuple[float, int, list[Piece]]] = field(default_factory=list)  # best_of's: mean log-probability, index

    def cancel(self) -> None:
        """Stop, and free what it held, with the next step; nothing more is delivered."""
        self.cancelled = True
        self.engine._wake(self)


@dataclass
class Answer:
    """What a row is about."""

    task: Task
    writing: Writing
    pieces: list[Piece] = field(default_factory=list)  # held back until the best are known


class Engine:
    """Takes jobs from any thread; its own thread starts with the first one and ends with `close`."""

    def __init__(
        self, pages: Network, text: Text, *, context: int, stop_ids: Iterable[int] = (), window: int | None = None,
        adapter: Callable[[str], Any] | None = None, queue: int = 256, most: int = 64, budget: int = 512,
        least: int = 8, prefixes: bool = True, clock: Callable[[], float] = time.perf_counter,
    ) -> None:  # fmt: skip
        """`queue` jobs may wait, `most` answers are written at a time, and a step takes `budget` tokens at most.

        `least` tokens of prompts join a step however long it takes: more where a step costs much beside its tokens.

        `prefixes`: whether a prompt takes over what others with the same beginning have computed.
        `window` is the widest of all layers', None where one sees everything; `adapter` finds one by its name.
        """
        self.pages, self.text, self.context, self.stop_ids = pages, text, context, frozenset(stop_ids)
        self.queue, self.most, self.budget, self.window = queue, most, budget, window
        self.prefixes = prefixes
        self.observe: Callable[[Event], None] | None = None
        self._adapter, self._clock = adapter, clock
        self._renew()
        self.pace = Pace(budget, least)
        self._tasks: set[Task] = set()  # that have begun and are not over
        self._adapters: dict[str, tuple[weakref.ref[Any], int]] = {}  # the latest of each name, and which of all it was
        self._versions = count()
        self._inbox: deque[Task] = deque()
        self._bell = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._queued = 0  # jobs that have not begun
        self._gaps = deque([0.1], maxlen=256)  # seconds between two jobs' ends; in a batch many end at once
        self._ended = self._promised = clock()
        self._tokens_in = self._tokens_out = 0
        self._out: list[tuple[Task, Piece | BaseException]] = []

    # From any thread -------------------------------------------------------------------------------------------------

    def submit(self, job: Job, deliver: Deliver) -> Ticket:
        """Take a job. Raises Busy where too many wait, ContextTooLong, OptionError."""
        best_of = job.n if job.best_of is None else job.best_of
        if not 1 <= job.n <= best_of <= MOST_ANSWERS:
            raise OptionError(
                f"n is {job.n} and best_of {best_of}; expected 1 <= n <= best_of <= {MOST_ANSWERS}."
            )  # fmt: skip
        if not -PRIORITIES <= job.priority <= PRIORITIES:
            raise OptionError(f"priority is {job.priority}; it must be between {-PRIORITIES} and {PRIORITIES}.")
        adapter = None
        if job.adapter is not None:
            if self._adapter is None:
                raise OptionError(f"there is no adapter {job.adapter!r:.80} here; this model has none.")
            adapter = self._adapter(job.adapter)
        most = room(job, self.context, self.scheduler.room)
        task = Task(self, job, deliver, adapter, most, self._clock(), open=best_of)
        with self._bell:
            if self._closed:
                raise BrollyError("this model was closed; load it again.")
            if self._queued >= self.queue:
                raise Busy(f"{self._queued} requests wait for this model already; try again later.", self._turn())
            self._queued += 1
            self._inbox.append(task)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="brolly-engine", daemon=True)
                self._thread.start()
            self._bell.notify()
        return task

    def _turn(self) -> float:
        """Seconds until one who is refused now may be taken: those who were refused before come first."""
        now, between = self._clock(), fmean(tuple(self._gaps))
        after = max(self._promised, now + self._queued * between) + between
        self._promised = min(after, now + LONGEST_WAIT)
        return max(self._promised - now, 1.0)

    def stats(self) -> Stats:
        """A snapshot."""
        s, b = self.scheduler, self.blocks
        running, free = len(s.running), b.free
        return Stats(
            running, s.n_waiting + len(self._inbox), b.n_blocks - free, free, b.kept, s.hits, s.hit_tokens,
            s.preemptions, s.step, self._tokens_in, self._tokens_out,
        )  # fmt: skip

    def close(self) -> None:
        """End all jobs with an error, and the thread; twice does no harm."""
        with self._bell:
            self._closed = True
            self._bell.notify()
        if self._thread not in (None, threading.current_thread()):
            assert self._thread is not None
            self._thread.join()

    def _wake(self, task: Task) -> None:
        with self._bell:
            self._inbox.append(task)
            self._bell.notify()

    # In the engine's thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._bell:
                while not (self._inbox or self.scheduler.users or self._closed):
                    self._bell.wait()
                news, self._inbox = self._inbox, deque()
                closed = self._closed
            while news:  # nothing of a task is kept here while the engine waits
                self._heed(news.popleft())
            if closed:
                break
            try:
                if self.scheduler.users:
                    self._step()
            except Exception as error:  # our own mistake: nobody shall wait for ever
                log.exception("the engine failed and starts anew")
                for task in self._tasks:
                    task.rows = []
                self._renew()
                self._end_all(error)
            self._hand_out()
        self._end_all(BrollyError("the model was closed while it wrote."))
        self._hand_out()

    def _heed(self, task: Task) -> None:
        """A task came, or was cancelled."""
        if task.cancelled and not task.over:
            self._over(task, "cancelled")
        elif not task.over:
            self._begin(task)

    def _renew(self) -> None:
        """Books in which nothing is written yet."""
        self.blocks = Blocks(self.pages.n_blocks)
        self.scheduler = Scheduler(
            self.blocks, BLOCK, budget=self.budget, most=self.most, window=self.window, prefixes=self.prefixes
        )

    def _end_all(self, error: BaseException) -> None:
        for task in list(self._tasks):
            self._fail(task, error)

    def _begin(self, task: Task) -> None:
        job = task.job
        if not self._tasks:
            self._ended = self._clock()
        self._tasks.add(task)
        try:  # a job that cannot begin ends alone: the thread must go on for the others
            payload = Answer(task, self._writing(task, 0))
            row = Row(job.prompt, user=job.user, priority=job.priority, root=self._root(task), payload=payload)
            self.scheduler.add(row)
        except Exception as error:
            self._fail(task, error)
        else:
            task.rows.append(row)

    def _root(self, task: Task) -> bytes:
        """What keys depend on beside tokens: the adapter, and another one that came by the same name is another."""
        name = task.job.adapter
        if name is None:
            return b""
        if name not in self._adapters or self._adapters[name][0]() is not task.adapter:
            self._adapters[name] = (weakref.ref(task.adapter), next(self._versions))
        return f"adapter {self._adapters[name][1]} {name}".encode()

    def _writing(self, task: Task, index: int) -> Writing:
        ranked = task.open > task.job.n
        return Writing(self.text, task.job, most=task.most, stop_ids=self.stop_ids, index=index, ranked=ranked)

    def _step(self) -> None:
        scheduler, started = self.scheduler, self._clock()
        filling = scheduler.filling
        chunk = self.pace.chunk(len(scheduler.running) - filling, filling + scheduler.n_waiting)
        plan = scheduler.plan(chunk)
        for row in plan.admitted:
            self._start(row.payload.task, started)
        stretches = [
            Stretch(row.tokens[start : start + n], start, row.blocks, part.last, row.payload.task.adapter)
            for part in plan.parts
            for row, start, n, _ in (part,)
        ]
        try:
            self.pages.copy(plan.copies)
            logits = self.pages.forward(stretches)
            likeliest = finite(logits, self.pages.likeliest)
        except Exception as error:
            for part in plan.parts:
                self._fail(part.row.payload.task, error)
            return
        scheduler.advance(plan)
        self._tokens_in += plan.prompts
        ready = [part.row for part in plan.parts if part.last]
        if logits.is_cuda and not all(row.payload.writing.plain for row in ready):
            logits = logits.cpu()  # at once, not row by row
        with torch.inference_mode():
            for row, scores, token in zip(ready, logits, likeliest, strict=True):
                self._write(row, scores, token)
        self.pace.note(plan.answers, plan.prompts, self._clock() - started)

    def _write(self, row: Row, logits: Tensor, likeliest: int) -> None:
        """The next token of a row, and of those that fork off it here."""
        rows, task = [row], row.payload.task
        if task.over:  # another of its answers failed in this step
            return
        try:
            if len(task.rows) < task.open:
                rows += self._fork(task, row)
            for one in rows:
                self._next(one, one.payload, logits, likeliest)
        except Exception as error:
            self._fail(task, error)

    def _fork(self, task: Task, row: Row) -> list[Row]:
        """The rows of all answers but the first."""
        writings = [self._writing(task, index) for index in range(1, task.open)]
        children = self.scheduler.fork(row, task.open - 1)
        task.rows += children
        for child, writing in zip(children, writings, strict=True):
            child.payload = Answer(task, writing)
        return children

    def _next(self, row: Row, answer: Answer, logits: Tensor, likeliest: int) -> None:
        task, writing = answer.task, answer.writing
        token = likeliest if likeliest >= 0 and writing.plain else writing.choose(logits)
        writing.cached = row.cached
        written = writing.n
        piece = writing.take(token, logits)
        self._tokens_out += writing.n - written
        self._mark(task)
        if writing.over:
            self.scheduler.end(row)
        else:
            self.scheduler.write(row, token)
        if piece is None:
            return
        if writing.ranked:
            answer.pieces.append(piece)
        else:
            self._out.append((task, piece))
        if writing.over:
            self._done(task, answer, piece)

    def _done(self, task: Task, answer: Answer, piece: Piece) -> None:
        """One of a task's answers is whole."""
        task.open -= 1
        if answer.writing.ranked:
            mean = answer.writing.total / max(answer.writing.n, 1)
            task.kept.append((-mean, answer.writing.index, answer.pieces))
        if not task.open:
            for index, (_, _, pieces) in enumerate(sorted(task.kept, key=lambda kept: kept[:2])[: task.job.n]):
                self._out += [(task, replace(piece, index=index)) for piece in pieces]
            self._over(task, piece.finish_reason or "")

    def _fail(self, task: Task, error: BaseException) -> None:
        """A task ends with an error, and no other one does."""
        if not task.over:
            self._out.append((task, error))
            self._over(task, "error")

    def _over(self, task: Task, outcome: str) -> None:
        """A task holds nothing any more."""
        now = self._clock()
        self._start(task, now)
        task.over = True
        self._tasks.discard(task)
        for row in task.rows:
            self.scheduler.end(row)
        task.rows, task.kept = [], []
        self._gaps.append(now - self._ended)
        self._ended = now
        self._tell("whole", now - task.born, task, outcome)

    def _start(self, task: Task, now: float) -> None:
        """A task waits no longer."""
        if task.waiting:
            task.waiting = False
            with self._bell:
                self._queued -= 1
            self._tell("queue", now - task.born, task)

    def _mark(self, task: Task) -> None:
        """Something was written."""
        if self.observe is not None:
            now = self._clock()
            if task.last is None:
                self._tell("first", now - task.born, task)
            elif now > task.last:
                self._tell("between", now - task.last, task)
            task.last = now

    def _tell(self, name: Any, seconds: float, task: Task, outcome: str = "") -> None:
        if self.observe is not None:
            try:
                self.observe(Event(name, seconds, task.job, outcome))
            except Exception:
                log.exception("an event could not be told")

    def _hand_out(self) -> None:
        """Deliver what came about; who cannot take it gets nothing more."""
        out, self._out = self._out, []
        for task, piece in out:
            if task.cancelled:
                continue
            try:
                task.deliver(piece)
            except Exception:
                log.exception("an answer could not be delivered")
                task.cancelled = True
                if not task.over:
                    self._over(task, "error")


def room(job: Job, context: int, memory: int) -> int:
    """Tokens that an answer may have, in a context and in the memory for one. Raises ContextTooLong, OptionError."""
    n = len(job.prompt)
    if not n:
        raise OptionError("the prompt is empty and this model has no token to begin with; give it at least one word.")
    if n >= context:
        raise ContextTooLong(f"the prompt has {n} tokens; this model holds {context}, answer included. Shorten it.")
    if n >= memory:
        raise ContextTooLong(
            f"the prompt has {n} tokens; the memory given to this model holds {memory - 1}. Shorten it, or give more."
        )
    left = min(context, memory) - n
    return min(job.options.max_tokens or left, left)


def finite(logits: Tensor, likeliest: Sequence[int]) -> list[int]:
    """The likeliest tokens of logits (n, V), -1 where the largest is not a finite number."""
    if not likeliest:
        return []
    tops = logits[torch.arange(len(likeliest), device=logits.device), torch.tensor(likeliest, device=logits.device)]
    return [token if ok else -1 for token, ok in zip(likeliest, tops.isfinite().tolist(), strict=True)]


def blocks_for(context: int, block_bytes: int, device: torch.device, n_bytes: int | None = None) -> int:
    """How many blocks the cache of a network gets: of `n_bytes`, or as many as are of use and half of what is free."""
    whole = -(-context // BLOCK)
    if n_bytes is None:
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available()
        useful = max(4 * whole, 2**16 // BLOCK)
        return max(8, min(useful, free // 2 // block_bytes) if free else useful)
    if n_bytes < 8 * block_bytes:
        raise OptionError(f"{n_bytes:,} bytes hold no cache of this model; it needs {8 * block_bytes:,} at least.")
    return n_bytes // block_bytes


def write_all(engine: Engine, jobs: Sequence[Job]) -> list[list[Piece]]:
    """The pieces of many jobs, each of one answer, in their order; the first error of any ends them all.

    No more of them wait than keep the engine at work, so that its queue is left to others.
    """
    found: list[list[Piece]] = [[] for _ in jobs]
    ended: SimpleQueue[BaseException | None] = SimpleQueue()
    tickets: list[Ticket] = []
    open_ = 0

    def sink(pieces: list[Piece]) -> Deliver:
        def deliver(piece: Piece | BaseException) -> None:
            if isinstance(piece, BaseException):
                ended.put(piece)
                return
            pieces.append(piece)
            if piece.finish_reason:
                ended.put(None)

        return deliver

    def one_ends(timeout: float | None = None) -> None:
        nonlocal open_
        if error := ended.get(timeout=timeout):
            raise error
        open_ -= 1

    try:
        for job, pieces in zip(jobs, found, strict=True):
            while True:
                if open_ >= 2 * engine.most:
                    one_ends()
                try:
                    tickets.append(engine.submit(job, sink(pieces)))
                    break
                except Busy as busy:
                    with suppress(Empty):
                        one_ends(min(busy.retry_after, 1.0))
            open_ += 1
        while open_:
            one_ends()
    except BaseException:
        for ticket in tickets:
            ticket.cancel()
        raise
    return found
