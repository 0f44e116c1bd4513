"""The same questions to several models: what each says, how soon, in how many tokens, for how much."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from queue import SimpleQueue
from statistics import median
from typing import Any

from brolly.errors import BadAnswer, BrollyError, TemplateError
from brolly.measure.questions import Question
from brolly.verbs import Piece, Usage

PARALLEL = 8  # questions that one model which runs elsewhere has at a time
OTHER = "unexpected {}: {}"


@dataclass
class Answer:
    """One model's answer to one question. Seconds are from asking; `cost` is None where nobody knows it."""

    text: str = ""
    thoughts: str = ""
    finish: str = ""  # why it ended; "" where it did not
    first: float | None = None  # seconds to the first piece that says anything
    seconds: float | None = None
    usage: Usage | None = None
    cost: float | None = None
    error: str = ""
    calls: dict[int, list[str]] = field(default_factory=dict)  # of tools: name, arguments

    @property
    def done(self) -> bool:
        return bool(self.finish or self.error)

    @property
    def shown(self) -> str:
        """Its text, or the calls that it makes instead."""
        return "\n".join(
            [*([self.text] if self.text else []), *(f"{name}({args})" for name, args in self.calls.values())]
        )

    def as_json(self) -> dict[str, Any]:
        row = asdict(self)
        row["calls"] = [{"name": name, "arguments": arguments} for name, arguments in self.calls.values()]
        return {name: value for name, value in row.items() if value not in (None, "", [])}


@dataclass(frozen=True)
class Totals:
    """All answers of one model. Medians are of those that came whole; None: of none, or unknown."""

    answered: int
    errors: int
    first: float | None
    seconds: float | None
    read: int
    written: int
    cached: int
    reasoning: int
    cost: float | None


@dataclass
class Column:
    """One model: its name, where it runs, and an answer a question."""

    name: str
    where: str
    here: bool  # it runs on this computer, where no answer has a price
    answers: list[Answer]

    @property
    def totals(self) -> Totals:
        whole = [a for a in self.answers if a.finish and not a.error]
        usages = [a.usage for a in self.answers if a.usage]
        costs = [a.cost for a in self.answers if a.usage or a.finish]
        return Totals(
            len(whole), sum(bool(a.error) for a in self.answers), _median(a.first for a in whole),
            _median(a.seconds for a in whole), sum(u.prompt_tokens for u in usages),
            sum(u.completion_tokens for u in usages), sum(u.cached_tokens for u in usages),
            sum(u.reasoning_tokens for u in usages),
            None if self.here or not costs or None in costs else sum(c for c in costs if c is not None),
        )  # fmt: skip


@dataclass
class Comparison:
    """Questions and columns; `stopped`: somebody had seen enough before all was answered."""

    questions: Sequence[Question]
    columns: list[Column]
    stopped: bool = False

    def as_json(self) -> dict[str, Any]:
        return {
            "models": [{"model": c.name, "where": c.where, "totals": asdict(c.totals)} for c in self.columns],
            "rows": [
                {
                    "where": question.where, "question": str(question),
                    **({"expected": question.expected} if question.expected else {}),
                    "answers": {c.name: c.answers[at].as_json() for c in self.columns},
                }
                for at, question in enumerate(self.questions)
            ],
            "stopped": self.stopped,
        }  # fmt: skip


def beside(
    models: Sequence[tuple[str, Any]], questions: Sequence[Question], options: Mapping[str, Any], *,
    parallel: int = PARALLEL, tell: Callable[[], None] = lambda: None,
) -> Comparison:  # fmt: skip
    """Ask all models all questions: those that run elsewhere at once, those here in turn. An error stands in its place.

    `tell` is called at the end of each answer. ^C ends what is open and keeps what was answered. Raises OptionError
    where a model has no word for an option, before anything is sent.
    """
    columns = [
        Column(name, model.describe() if _elsewhere(model) else "this computer", not _elsewhere(model),
               [Answer() for _ in questions])
        for name, model in models
    ]  # fmt: skip
    for _, model in models:
        if _elsewhere(model):
            model.check(model.prepare_chat([{"role": "user", "content": "Hello"}], **options))
    found, come = Comparison(questions, columns), Come(columns, [model for _, model in models])
    elsewhere = [Elsewhere(at, model, questions, options, come, parallel)
                 for at, (_, model) in enumerate(models) if _elsewhere(model)]  # fmt: skip
    here = [(at, model) for at, (_, model) in enumerate(models) if not _elsewhere(model)]
    stop = threading.Event()
    worker = threading.Thread(target=_in_turn, args=(here, questions, options, come, stop), daemon=True)
    try:
        worker.start()
        for one in elsewhere:
            one.fill()
        left = len(columns) * len(questions)
        while left:
            at = come.take()
            if at is not None:
                left -= 1
                tell()
                for one in elsewhere:
                    if one.at == at:
                        one.ended()
    except KeyboardInterrupt:
        found.stopped = True
    finally:
        stop.set()
        for one in elsewhere:
            one.stop()
        if here:
            worker.join(5)  # a step of the network
    return found


class Come:
    """What came, from any thread, in its order; `take` puts it into the answers."""

    def __init__(self, columns: list[Column], models: list[Any]) -> None:
        self.columns, self.models = columns, models
        self.begun: dict[tuple[int, int], float] = {}
        self.queue: SimpleQueue[tuple[int, int, float, Piece | BaseException]] = SimpleQueue()

    def begin(self, at: int, number: int) -> None:
        self.begun[at, number] = time.perf_counter()

    def put(self, at: int, number: int, piece: Piece | BaseException) -> None:
        self.queue.put((at, number, time.perf_counter(), piece))

    def take(self) -> int | None:
        """The next piece, into its place; the column, if that ended an answer."""
        at, number, now, piece = self.queue.get()
        answer = self.columns[at].answers[number]
        took = now - self.begun.get((at, number), now)
        if answer.done:
            return None
        if isinstance(piece, BaseException):
            known = isinstance(piece, BrollyError)
            answer.error = str(piece) if known else OTHER.format(type(piece).__name__, str(piece)[:300])
            answer.seconds = took
            return at
        if answer.first is None and (piece.text or piece.reasoning or piece.calls or piece.tokens):
            answer.first = took
        answer.text += piece.text
        answer.thoughts += piece.reasoning
        answer.usage = piece.usage or answer.usage
        for call in piece.calls:
            kept = answer.calls.setdefault(call.index, ["", ""])
            kept[0], kept[1] = kept[0] or call.name or "", kept[1] + call.arguments
        if piece.finish_reason is None:
            return None
        answer.finish, answer.seconds = piece.finish_reason, took
        price = getattr(self.models[at], "price", None)
        if price is not None and answer.usage is not None and answer.usage.prompt_tokens:  # 0: nobody told
            answer.cost = price.of(answer.usage)
        return at


class Elsewhere:
    """One model that runs elsewhere, with some questions open at a time."""

    def __init__(
        self, at: int, model: Any, questions: Sequence[Question], options: Mapping[str, Any], come: Come, most: int
    ) -> None:
        self.at, self.model, self.options, self.come, self.most = at, model, options, come, most
        self.waiting = deque(enumerate(questions))
        self.open = 0
        self.tickets: list[Any] = []

    def fill(self) -> None:
        while self.waiting and self.open < self.most:
            number, question = self.waiting.popleft()
            self.open += 1
            self.come.begin(self.at, number)
            try:
                ask = self.model.prepare_chat(question.messages, **self.options)
                self.tickets.append(self.model.submit(ask, lambda piece, n=number: self.come.put(self.at, n, piece)))
            except BrollyError as error:
                self.come.put(self.at, number, error)

    def ended(self) -> None:
        self.open -= 1
        self.fill()

    def stop(self) -> None:
        for ticket in self.tickets:
            ticket.cancel()


def _in_turn(
    models: Iterable[tuple[int, Any]], questions: Sequence[Question], options: Mapping[str, Any], come: Come,
    stop: threading.Event,
) -> None:  # fmt: skip
    """Models of this computer, one after the other."""
    for at, model in models:
        chats = _chats(model)
        for number, question in enumerate(questions):
            come.begin(at, number)
            try:
                plain = None if chats else question.prompt
                messages = [dict(message) for message in question.messages]
                pieces = model.stream(plain, **options) if plain is not None else model.stream_chat(messages, **options)
                for piece in pieces:
                    if stop.is_set():
                        return
                    come.put(at, number, piece)
                come.put(at, number, BadAnswer("its answer has no end."))  # nobody hears this if it has
            except Exception as error:
                come.put(at, number, error)
            if stop.is_set():
                return


def _chats(model: Any) -> bool:
    """Whether it has a template of conversations; what has none continues prompts."""
    try:
        model.tokenizer.prompt([{"role": "user", "content": "Hello"}])
    except TemplateError:
        return False
    return True


def _elsewhere(model: Any) -> bool:
    return hasattr(model, "target")


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None
