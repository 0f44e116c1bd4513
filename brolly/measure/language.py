"""Language models: how likely they find what rows hold, and whether they write what is expected."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, islice
from math import log
from typing import Any

from brolly.engine.engine import write_all
from brolly.errors import BrollyError
from brolly.measure.intervals import Auc, MacroF1, Ratio, Statistic
from brolly.measure.likelihood import Likelihood, Told
from brolly.measure.report import Record
from brolly.measure.words import f1, normaliser, plain
from brolly.rows import Completion, Conversation, Labelled, Row, Text
from brolly.verbs import gather

BATCH = 64  # rows whose answers are written together
MOST_CHOICES = 20  # different completions up to which they are a choice, if rows are five times as many
SCORES: tuple[Statistic, ...] = (
    Ratio("perplexity", "nll", "tokens", "lower", lambda x: exp_of(x)),
    Ratio("bits per byte", "bits", "bytes", "lower"),
)


def exp_of(x: Any) -> Any:
    import numpy as np

    return np.exp(x)


class Writing:
    """Texts, completions and conversations: perplexity and bits per byte; what is written by the likeliest token."""

    def __init__(
        self, model: Any, rows: Iterable[Row], *, generate: bool, normalize: str | None, options: Mapping[str, Any]
    ) -> None:
        self.model, self.likelihood = model, Likelihood(model)
        self.options = {"temperature": 0.0, "repetition_penalty": 1.0, **options}
        self.generate, self.alike = generate, normaliser(normalize or "none")
        self.loose = normaliser(normalize if normalize and normalize != "none" else "unicode")
        self.notes: list[str] = []
        self.choices = choices = self._choices(rows) if generate else None
        self.statistics: tuple[Statistic, ...] = SCORES
        if choices:
            self.statistics += (Ratio("accuracy", "exact"), MacroF1())
            self.notes.append(f"accuracy: what is written is one of {len(choices)} answers, and the right one")
        elif self.generate:
            self.statistics += (Ratio("exact match", "exact"), Ratio("F1", "f1"))
        if self.generate:
            self.notes.append(
                "written by the likeliest token" if not options.get("temperature") else "written by chance"
            )
            if "max_tokens" not in options:
                self.notes.append("an answer ends after twice the expected one's tokens and 16 at the latest")

    def _choices(self, rows: Iterable[Row]) -> set[str] | None:
        rows = iter(rows)
        first = next(rows, None)
        if first is not None and isinstance(first.value, Text):
            self.generate = False
            return None
        return choices_of(rows if first is None else chain([first], rows), self.alike)

    def records(self, rows: Iterator[Row]) -> Iterator[Record]:
        while batch := list(islice(rows, BATCH)):
            yield from self._answered(batch)

    def _answered(self, batch: Sequence[Row]) -> Iterator[Record]:
        told = self.likelihood.of([row.value for row in batch])  # type: ignore[misc]
        jobs: dict[int, Any] = {}
        for i, (row, one) in enumerate(zip(batch, told, strict=True)):
            try:
                if self.generate and isinstance(one, Told):
                    jobs[i] = self._job(row.value, one.n_tokens)
            except BrollyError as error:
                told[i] = error
        written = dict(zip(jobs, write_all(self.model.engine, list(jobs.values())), strict=True)) if jobs else {}
        for i, row in enumerate(batch):
            found_ = told[i]
            if isinstance(found_, BrollyError):
                yield Record(row.number, row.where, error=str(found_))
                continue
            scores: dict[str, Any] = likely(found_)
            expected = "" if isinstance(row.value, Text) else expected_of(row.value)
            answer = ""
            if i in written:
                made = gather(written[i], False)
                answer = told_of(made.text, [(call.name, call.arguments) for call in made.tool_calls])
                scores["exact"] = float(self.alike(expected) == self.alike(answer))
                if self.choices:
                    scores |= {"class": self.alike(expected), "said": self.alike(answer)}
                else:
                    scores["f1"] = f1(self.loose(expected), self.loose(answer))
            yield Record(row.number, row.where, expected, answer, scores)

    def _job(self, value: Any, n_expected: int) -> Any:
        options = {"max_tokens": 2 * n_expected + 16, **self.options}
        if isinstance(value, Completion):
            room = self.model.network.config.context - len(self.model.prompt_ids(value.prompt, None))
            return self.model.prepare(
                value.prompt, **{**options, "max_tokens": max(1, min(options["max_tokens"], room))}
            )
        last = answered(value.messages)
        return self.model.prepare_chat(value.bare[:last], tools=value.tools, **options)


def choices_of(rows: Iterable[Row], alike: Callable[[str], str]) -> set[str] | None:
    """All answers, where few are expected, again and again."""
    found: set[str] = set()
    n = 0
    for row in rows:
        found.add(alike(expected_of(row.value)))
        n += 1
        if len(found) > MOST_CHOICES:
            return None
    return found if len(found) > 1 and 5 * len(found) <= n else None


def likely(told: Told) -> dict[str, Any]:
    return {"nll": -told.logprob, "tokens": told.n_tokens, "bits": -told.logprob / log(2), "bytes": told.n_bytes}


def answered(messages: Sequence[Mapping[str, Any]]) -> int:
    """The place of the last of the assistant's messages that counts."""
    return max(i for i, m in enumerate(messages) if m["role"] == "assistant" and m.get("weight", 1))


def expected_of(value: Any) -> str:
    """The answer that a row holds, as a text."""
    if isinstance(value, Completion):
        return value.completion
    message = value.messages[answered(value.messages)]
    calls = [call.get("function", {}) for call in message.get("tool_calls") or ()]
    return told_of(message.get("content") or "", [(call.get("name"), call.get("arguments")) for call in calls])


def told_of(text: str, calls: Sequence[tuple[Any, Any]]) -> str:
    """An answer with its tool calls, whose arguments are written in one way."""
    if not calls:
        return text
    parts = []
    for name, arguments in calls:
        with suppress(ValueError, RecursionError):
            arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
        parts.append(json.dumps({"name": name, "arguments": arguments}, sort_keys=True, ensure_ascii=False))
    return "\n".join([text, *parts] if text else parts)


class Preferring:
    """Preferences: whether the better answer is the likelier one, all of it or a token of it."""

    statistics: tuple[Statistic, ...] = (
        Ratio("chosen is likelier", "likelier"),
        Ratio("chosen is likelier, by a token", "likelier by a token"),
    )

    def __init__(self, model: Any) -> None:
        self.likelihood, self.notes = Likelihood(model), list[str]()

    def records(self, rows: Iterator[Row]) -> Iterator[Record]:
        while batch := list(islice(rows, BATCH)):
            values: list[Any] = [row.value for row in batch]
            answers = [said(value.prompt, answer) for value in values for answer in (value.chosen, value.rejected)]
            told = self.likelihood.of(answers)
            for row, chosen, rejected in zip(batch, told[::2], told[1::2], strict=True):
                if isinstance(chosen, BrollyError) or isinstance(rejected, BrollyError):
                    error = chosen if isinstance(chosen, BrollyError) else rejected
                    yield Record(row.number, row.where, error=str(error))
                else:
                    yield Record(row.number, row.where, scores=preferred(chosen, rejected))


def preferred(chosen: Told, rejected: Told) -> dict[str, Any]:
    """Whether the better of two answers is the likelier one."""
    a, b = (one.logprob / one.n_tokens for one in (chosen, rejected))
    return {
        "likelier": float(chosen.logprob > rejected.logprob), "likelier by a token": float(a > b),
        "chosen": chosen.logprob, "rejected": rejected.logprob, "chosen tokens": chosen.n_tokens,
        "rejected tokens": rejected.n_tokens,
    }  # fmt: skip


class Judging:
    """Good and bad answers, each to its own prompt: how often a good one is likelier, by a token, than a bad one."""

    statistics: tuple[Statistic, ...] = (Auc("good above bad", "mean"),)

    def __init__(self, model: Any) -> None:
        self.likelihood = Likelihood(model)
        self.notes = ["good above bad: of a good and a bad row, how often the good one's tokens are the likelier (AUC)"]

    def records(self, rows: Iterator[Row]) -> Iterator[Record]:
        while batch := list(islice(rows, BATCH)):
            values: list[Any] = [row.value for row in batch]
            told = self.likelihood.of([said(value.prompt, value.completion) for value in values])
            for row, value, one in zip(batch, values, told, strict=True):
                if isinstance(one, BrollyError):
                    yield Record(row.number, row.where, error=str(one))
                    continue
                scores = {"mean": one.logprob / one.n_tokens, "good": int(value.good), "tokens": one.n_tokens}
                yield Record(row.number, row.where, scores=scores)


class Choosing:
    """Texts and labels: a language model writes one of the labels behind the text, and can write nothing else."""

    statistics: tuple[Statistic, ...] = (Ratio("accuracy", "exact"), MacroF1())

    def __init__(self, model: Any, labels: Sequence[str], options: Mapping[str, Any]) -> None:
        self.model, self.labels = model, labels
        self.options = {"temperature": 0.0, "repetition_penalty": 1.0, **options}
        self.notes = [f"the model writes one of {len(labels):,} labels behind the text"]

    def records(self, rows: Iterator[Row]) -> Iterator[Record]:
        while batch := list(islice(rows, BATCH)):
            jobs: dict[int, Any] = {}
            errors: dict[int, str] = {}
            for i, row in enumerate(batch):
                assert isinstance(row.value, Labelled) and isinstance(row.value.input, str)
                text = row.value.input
                blank = "" if text[-1:].isspace() else " "  # as words follow one another in running text
                choice = [blank + label for label in self.labels]
                try:
                    jobs[i] = self.model.prepare(text, **self.options, choice=choice)
                except BrollyError as error:
                    errors[i] = str(error)
            written = dict(zip(jobs, write_all(self.model.engine, list(jobs.values())), strict=True))
            for i, row in enumerate(batch):
                label = row.value.label  # type: ignore[union-attr]
                if i in errors:
                    yield Record(row.number, row.where, error=errors[i])
                    continue
                answer = plain(gather(written[i], False).text)
                scores = {"exact": float(answer == plain(label)), "class": plain(label), "said": answer}
                yield Record(row.number, row.where, label, answer, scores)


def said(prompt: Any, answer: Any) -> Completion | Conversation:
    """A prompt and an answer, two texts or two messages, as what is learnt from them: the answer alone counts."""
    if isinstance(prompt, str):
        return Completion(prompt, answer)
    before = tuple({**m, "weight": 0} if m["role"] == "assistant" else m for m in prompt)
    return Conversation((*before, *answer))
