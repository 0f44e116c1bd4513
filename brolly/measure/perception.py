"""Pictures and texts by their labels, sounds by what is said in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from brolly.errors import BrollyError, OptionError
from brolly.measure.intervals import MacroF1, Ratio, Statistic
from brolly.measure.report import Record
from brolly.measure.words import edits, normaliser
from brolly.rows import Labelled, Row, Spoken

BATCH = 256


class Labelling:
    """Labels of pictures and texts: by the classifier that a network has, or zero-shot among those of all rows."""

    statistics: tuple[Statistic, ...] = (Ratio("accuracy", "exact"), MacroF1())

    def __init__(self, model: Any, rows: Iterable[Row], templates: Sequence[str] | None) -> None:
        self.model, self.templates = model, templates
        own = tuple(getattr(model.network.config, "labels", ()))
        told = sorted({row.value.label for row in rows})  # type: ignore[union-attr]
        words = {label.replace("_", " "): label for label in told}  # folders are called new_york
        self.words = words if len(words) == len(told) and not own else {}
        self.labels: list[str] | None = None if own else list(self.words or told)
        if own and not set(told) & set(own):
            raise OptionError(
                f"the rows' labels ({', '.join(told[:5])} …) are none of the model's {len(own):,} "
                f"({', '.join(own[:5])} …)."
            )
        n = len(own or told)
        how = "the model's own classifier" if own else f"zero-shot, by {'; '.join(templates or model.templates)!r}"
        self.notes = [f"{n:,} labels, {how}"]

    def records(self, rows: Iterator[Row]) -> Iterator[Record]:
        while batch := list(islice(rows, BATCH)):
            values: list[Labelled] = [row.value for row in batch]  # type: ignore[misc]
            seen = self.model.stream_classify(
                [value.input for value in values], self.labels, templates=self.templates, top=1
            )
            for row, value, found in zip(batch, values, seen, strict=True):
                if isinstance(found, BrollyError):
                    yield Record(row.number, row.where, error=str(found))
                    continue
                label = self.words.get(found.label, found.label)
                scores = {"exact": float(label == value.label), "class": value.label, "said": label}
                yield Record(row.number, row.where, value.label, label, scores)


class Hearing:
    """Sounds and what is said in them: edits of words (WER) and of letters (CER) over those of the transcripts."""

    statistics: tuple[Statistic, ...] = (
        Ratio("WER", "word edits", "words", "lower"),
        Ratio("CER", "letter edits", "letters", "lower"),
    )

    def __init__(self, model: Any, normalize: str | None, options: Mapping[str, Any]) -> None:
        self.model, self.normalize, self.options = model, normalize, dict(options)
        how = {
            None: "English by Whisper's rules in a short form of ours, other languages by letters and digits alone",
            "english": "all by Whisper's English rules in a short form of ours",
            "unicode": "all by letters and digits alone, in small letters", "none": "as they are",
        }[normalize]  # fmt: skip
        self.notes = [f"texts are made alike first: {how}"]

    def records(self, rows: Iterator[Row]) -> Iterator[Record]:
        for row in rows:
            value = row.value
            assert isinstance(value, Spoken)
            options = dict(self.options)
            if value.language and "language" not in options:
                options["language"] = value.language
            try:
                made = self.model.transcribe(value.audio, **options)
            except BrollyError as error:
                yield Record(row.number, row.where, error=str(error))
                continue
            alike = normaliser(self.normalize or ("english" if made.language == "en" else "unicode"))
            expected, answer = alike(value.text), alike(made.text)
            if not expected:
                yield Record(row.number, row.where, error=f"nothing is left of its text {value.text[:40]!r} to compare")
                continue
            words = expected.split()
            yield Record(
                row.number, row.where, value.text, made.text.strip(),
                {
                    "word edits": edits(words, answer.split()), "words": len(words),
                    "letter edits": edits(expected, answer), "letters": len(expected),
                },
            )  # fmt: skip
