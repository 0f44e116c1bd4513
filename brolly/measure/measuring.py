"""A model's own measure of its task on rows: chosen by what it can do and what the rows hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from brolly.errors import BrollyError, OptionError, UnsupportedTask
from brolly.measure.intervals import FEWEST, Statistic, measured
from brolly.measure.report import ROWS, Log, Record, Report
from brolly.measure.words import NORMALISERS
from brolly.rows import Row, Rows, open_rows
from brolly.verbs import GenerateOptions

if TYPE_CHECKING:
    from brolly.model import Model

FEW = 5  # errors that are told
HEARD = ("seed", "temperature", "language", "beam_size")  # options that a transcriber knows


class Judge(Protocol):
    """A way to measure: the statistics, what is to be said of them, and a record a row."""

    notes: list[str]

    @property
    def statistics(self) -> tuple[Statistic, ...]: ...
    def records(self, rows: Iterator[Row]) -> Iterator[Record]: ...


def evaluate(
    model: Model | str | Path, rows: Rows | str | Path | Sequence[Mapping[str, Any]], *,
    adapter: Any = None, normalize: str | None = None, limit: int | None = None, generate: bool = True,
    templates: Sequence[str] | None = None, options: Mapping[str, Any] | None = None, out: str | Path | None = None,
    log: str = ROWS, resume: bool = False, seed: int = 0, quiet: bool = True,
) -> Report:  # fmt: skip
    """Measure a model on rows; `adapter` is one of its adapters (a folder, a verbs.Adapter).

    `normalize` ("none", "unicode", "english") makes texts alike before they are compared, `limit` takes the first good
    rows, `generate` has answers written and not only scored, `templates` stand around labels, `options` are those of
    generate or transcribe. `out` is a folder for each row's answer, written as they come; `resume` goes on there.
    Raises OptionError, RecipeError, UnsupportedTask.
    """
    from brolly.loader import load
    from brolly.progress import bar

    if normalize not in (None, *NORMALISERS):
        raise OptionError(f"normalize is {normalize!r}; expected one of {', '.join(NORMALISERS)}.")
    if limit is not None and limit < 1:
        raise OptionError(f"limit is {limit}; expected at least 1.")
    data = rows if isinstance(rows, Rows) else open_rows(rows)
    whole: Any = load(model) if isinstance(model, (str, Path)) else model
    elsewhere = hasattr(whole, "target")
    name = str(whole.target if elsewhere else whole.card.header.path)
    n_params = None if elsewhere else whole.card.header.n_params
    if adapter is not None:
        whole, name = whole.with_adapter(adapter), f"{name} with {getattr(adapter, 'path', adapter)}"
    asked = dict(options or {})

    def good() -> Iterator[Row]:
        return islice(iter(data), limit)

    judge = choose(whole, data, good, normalize, generate, templates, asked)
    total = min(len(data), limit or len(data))
    kept = None
    if out is not None:
        settings = {
            "model": name, "parameters": n_params, "data": data.source, "sha256": data.fingerprint,
            "shape": data.shape, "columns": dict(data.columns), "normalize": normalize, "limit": limit,
            "generate": generate, "templates": list(templates) if templates else None,
            "options": {key: list(v) if isinstance(v, tuple) else v for key, v in sorted(asked.items())},
        }  # fmt: skip
        kept = Log(Path(out), log, settings, resume)
    scores: dict[int, Any] = {}
    errors: list[str] = []
    n_failed = 0
    done = {record.row for record in kept.records} if kept else set()

    def note(record: Record) -> None:
        nonlocal n_failed
        if record.error:
            n_failed += 1
            errors.extend([f"{record.where}: {record.error}"] * (len(errors) < FEW))
        else:
            scores[record.row] = record.scores

    for record in kept.records if kept else ():
        note(record)
    n_rows = 0

    def left() -> Iterator[Row]:
        nonlocal n_rows
        for row in good():
            n_rows += 1
            progress.update(1)
            if row.number not in done:
                yield row

    with bar(total, "row", what="measured", quiet=quiet) as progress:
        try:
            for record in judge.records(left()):
                note(record)
                if kept:
                    kept.add(record)
        finally:
            if kept:
                kept.close()
    if not scores:
        raise BrollyError(f"none of the {n_rows:,} rows of {data.source} could be answered; the first: {errors[0]}.")
    bad = [str(fault) for fault in data.faults[: FEW - len(errors)]]
    return Report(
        name, data.source, data.shape, n_rows, data.n_bad, n_failed,
        tuple(measured(judge.statistics, [scores[i] for i in sorted(scores)], seed)),
        (*judge.notes, *[f"intervals mean little: fewer than {FEWEST} rows"] * (len(scores) < FEWEST)),
        (*bad, *errors), dict(sorted(scores.items())), judge.statistics,
    )  # fmt: skip


def choose(
    model: Any, rows: Rows, good: Any, normalize: str | None, generate: bool, templates: Sequence[str] | None,
    options: Mapping[str, Any],
) -> Judge:  # fmt: skip
    """The judge for what a model can do and what rows hold. Raises UnsupportedTask, OptionError."""
    if hasattr(model, "target"):
        from brolly.measure.answering import judge_of

        if templates:
            raise OptionError(f"{model.target} compares no pictures with texts; leave the templates out.")
        judge: Judge = judge_of(model, rows.shape, good(), normalize, generate, options)
        return judge
    verbs, shape = model.card.recognised.tasks, rows.shape
    name = f"{model.card.header.path}, measured on rows of the shape {shape!r},"
    given = {*options, *(["normalize"] if normalize else []), *(["templates"] if templates else [])}
    written = {f.name for f in fields(GenerateOptions)}

    def takes(*known: str) -> None:
        if odd := sorted(given - set(known)):
            raise OptionError(f"{name} takes no {odd[0]}; leave it out.")

    pictures = shape == "label" and not isinstance(first(good()).value.input, str)  # type: ignore[union-attr]
    if shape == "label" and "classify" in verbs and (pictures or hasattr(model.network, "scores")):
        from brolly.measure.perception import Labelling

        takes("templates")
        return Labelling(model, good(), templates)
    if "score" in verbs and shape in ("text", "completion", "chat"):
        from brolly.measure.language import Writing

        takes("normalize", *written)
        return Writing(model, good(), generate=generate, normalize=normalize, options=options)
    if "score" in verbs and shape in ("preference", "judged"):
        from brolly.measure.language import Judging, Preferring

        takes()
        return Preferring(model) if shape == "preference" else Judging(model)
    if "generate" in verbs and shape == "label" and not pictures:
        from brolly.measure.language import Choosing

        takes(*written - {"choice", "regex", "grammar", "json_schema"})
        return Choosing(model, sorted({row.value.label for row in good()}), options)
    if {"embed", "rerank"} & set(verbs) and shape == "pair":
        from brolly.measure.retrieval import Finding, Reranking

        takes()
        return Finding(model, good()) if "embed" in verbs else Reranking(model)
    if {"embed", "classify"} <= set(verbs) and shape == "caption":
        from brolly.measure.retrieval import Captioning

        takes()
        return Captioning(model, good())
    if "transcribe" in verbs and shape == "speech":
        from brolly.measure.perception import Hearing

        takes("normalize", *HEARD)
        return Hearing(model, normalize, options)
    raise UnsupportedTask(
        f"{model.card.header.path} is a {model.card.recognised.family.name} ({', '.join(verbs)}), and "
        f"{rows.source} holds rows of the shape {shape!r}; docs/evaluate.md tells what is measured by which."
    )


def first(rows: Iterable[Row]) -> Row:
    return next(iter(rows))
