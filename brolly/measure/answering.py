"""Models that run elsewhere: whether they write what is expected. How likely they find a text, no vendor tells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from typing import Any

from brolly.errors import BrollyError, OptionError, UnsupportedTask
from brolly.measure.intervals import MacroF1, Ratio, Statistic
from brolly.measure.language import answered, choices_of, expected_of, told_of
from brolly.measure.perception import Hearing
from brolly.measure.report import Record
from brolly.measure.retrieval import Finding
from brolly.measure.words import f1, normaliser
from brolly.rows import Completion, Labelled, Row
from brolly.tasks.flow import ENDS, in_order
from brolly.verbs import GenerateOptions, TranscribeOptions, gather

SHAPES = {"completion": "chat", "chat": "chat", "label": "chat", "pair": "embed", "speech": "transcribe"}  # the verb


def judge_of(
    model: Any, shape: str, rows: Iterable[Row], normalize: str | None, generate: bool, options: Mapping[str, Any]
) -> Any:
    """The judge of a model behind HTTP for rows of a shape. Raises UnsupportedTask, OptionError."""
    target = model.target
    if SHAPES.get(shape) == "chat" and not generate:
        raise UnsupportedTask(f"{target} tells no likelihood of a given text; leave --no-generate out.")
    if shape not in SHAPES:
        raise UnsupportedTask(
            f"rows of the shape {shape!r} are measured by likelihoods or by pictures, and {target} tells neither; a "
            f"model on this disk does. Here {', '.join(SHAPES)} can be measured."
        )
    verb = SHAPES[shape]
    known = {"transcribe": TranscribeOptions, "chat": GenerateOptions}.get(verb)
    takes = {"normalize", *(f.name for f in fields(known))} if known else set()
    if odd := sorted({*options, *(["normalize"] if normalize else [])} - takes):
        raise OptionError(f"{target}, measured on rows of the shape {shape!r}, takes no {odd[0]}; leave it out.")
    model.takes("", verb)  # UnsupportedTask where its vendor has no such verb
    if verb == "embed":
        return Finding(model, rows)
    if verb == "transcribe":
        return Hearing(model, normalize, options)
    return Answering(model, rows, normalize=normalize, options=options)


class Answering:
    """Completions, conversations, texts and their labels: what is written, by the likeliest token where it has that."""

    def __init__(self, model: Any, rows: Iterable[Row], *, normalize: str | None, options: Mapping[str, Any]) -> None:
        self.model, self.options = model, {**model.usual, **options}
        self.alike = normaliser(normalize or "none")
        self.loose = normaliser(normalize if normalize and normalize != "none" else "unicode")
        self.notes = ["how likely it finds texts is not told by its vendor; only what it writes is measured"]
        kept = list(rows)
        self.labels: list[str] = sorted({r.value.label for r in kept if isinstance(r.value, Labelled)})
        if self.labels:
            self.options["choice"] = tuple(self.labels)
            self.notes.append(f"the model writes one of {len(self.labels):,} labels")
        elif choices := choices_of(kept, self.alike):
            self.notes.append(f"accuracy: what is written is one of {len(choices)} answers, and the right one")
        self.classes = bool(self.labels) or bool(choices)
        self.statistics: tuple[Statistic, ...] = (
            (Ratio("accuracy", "exact"), MacroF1())
            if self.classes
            else (Ratio("exact match", "exact"), Ratio("F1", "f1"))
        )
        if "max_tokens" not in options:
            self.notes.append(f"an answer of {model.target} ends after {self.options['max_tokens']:,} tokens")
        model.check(model.prepare("a", **self.options))  # an option that nobody has a word for, before the rows

    def records(self, rows: Iterator[Row]) -> Iterator[Record]:
        for (row, fault), pieces, error in in_order(self.model.submit, self._asked(rows)):
            if isinstance(error, ENDS) or (error is not None and not isinstance(error, Exception)):
                raise error
            if fault or error is not None:
                yield Record(row.number, row.where, error=fault or str(error))
                continue
            found = gather(pieces)
            if found.finish_reason == "content_filter":
                yield Record(row.number, row.where, error="the vendor's rules kept the answer back")
                continue
            answer = told_of(found.text, [(call.name, call.arguments) for call in found.tool_calls])
            yield self._scored(row, answer)

    def _asked(self, rows: Iterator[Row]) -> Iterator[tuple[tuple[Row, str], Any]]:
        for row in rows:
            try:
                yield (row, ""), self._ask(row.value)
            except BrollyError as error:
                yield (row, str(error)), None

    def _ask(self, value: Any) -> Any:
        if isinstance(value, Labelled):
            return self.model.prepare(value.input, **self.options)  # OptionError where it is a picture
        if isinstance(value, Completion):
            return self.model.prepare(value.prompt, **self.options)
        return self.model.prepare_chat(value.bare[: answered(value.messages)], tools=value.tools, **self.options)

    def _scored(self, row: Row, answer: str) -> Record:
        value: Any = row.value
        expected = value.label if isinstance(value, Labelled) else expected_of(value)
        expected, answer = expected.strip(), answer.strip()  # a completion begins with a blank, an answer does not
        scores: dict[str, Any] = {"exact": float(self.alike(expected) == self.alike(answer))}
        if self.classes:
            scores |= {"class": self.alike(expected), "said": self.alike(answer)}
        else:
            scores["f1"] = f1(self.loose(expected), self.loose(answer))
        return Record(row.number, row.where, expected, answer, scores)
