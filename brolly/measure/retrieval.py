"""Finding: texts by queries, and pictures and captions by each other. Q queries, N documents.

All vectors of the corpus are in memory, a block of queries is compared with all of them at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import log2
from typing import Any

import numpy as np

from brolly.errors import BrollyError
from brolly.measure.intervals import Ratio, Statistic
from brolly.measure.report import Record
from brolly.rows import Captioned, Pair, Row
from brolly.verbs import Embeddings

RECALL, TOP, BLOCK = (1, 5, 10), 10, 256  # how many are looked at; nDCG's depth; queries compared at a time
MOST = 2**24  # similarities held at a time
SHOWN = 200  # letters of a text in a record


def finding(prefix: str = "") -> tuple[Statistic, ...]:
    """recall@k (of a query's answers, how many are among the first k), MRR over all places, and nDCG@10."""
    names = [*(f"recall@{k}" for k in RECALL), "MRR", f"nDCG@{TOP}"]
    return tuple(Ratio(prefix + name, prefix + name) for name in names)


def ranks(similar: Any, right: Sequence[int]) -> list[int]:
    """The places from 1 at which the right ones stand among similarities (N,), the highest first, equal ones in order;
    sorted."""
    own = similar[list(right)]
    found = []
    for value, at in zip(own, right, strict=True):
        before = int((similar > value).sum()) + int((similar[:at] == value).sum())
        found.append(before + 1)
    return sorted(found)


def scores_of(places: Sequence[int], prefix: str = "") -> dict[str, float]:
    """What a query scores whose answers stand at these places."""
    gain = sum(1 / log2(1 + place) for place in places if place <= TOP)
    ideal = sum(1 / log2(1 + place) for place in range(1, min(len(places), TOP) + 1))
    found = {f"{prefix}recall@{k}": sum(place <= k for place in places) / len(places) for k in RECALL}
    return found | {f"{prefix}MRR": 1 / places[0], f"{prefix}nDCG@{TOP}": gain / ideal}


class Finding:
    """Queries and their answers, among the answers and wrong answers of all rows; equal queries are one."""

    statistics = finding()

    def __init__(self, model: Any, rows: Iterable[Row]) -> None:
        self.model, self.notes = model, list[str]()
        self.documents: dict[str, int] = {}
        self.right: dict[str, dict[int, None]] = {}
        for row in rows:
            assert isinstance(row.value, Pair)
            own = self.right.setdefault(row.value.query, {})
            for text in (row.value.positive, *row.value.also):
                own[self.documents.setdefault(text, len(self.documents))] = None
            for text in row.value.negatives:
                self.documents.setdefault(text, len(self.documents))
        self.notes.append(f"{len(self.right):,} queries, each among {len(self.documents):,} texts")

    def records(self, rows: Iterator[Row]) -> Iterator[Record]:
        texts = list(self.documents)
        corpus, lost = vectors(self.model, texts, role="document")
        seen: set[str] = set()

        def found(batch: Sequence[tuple[Row, str]]) -> Iterator[Record]:
            asked, errors = vectors(self.model, [query for _, query in batch], role="query")
            for (row, query), similar in zip(batch, similarities(self.model, asked, corpus, lost), strict=True):
                error = errors.get(query) or next((lost[texts[i]] for i in self.right[query] if texts[i] in lost), "")
                if error:
                    yield Record(row.number, row.where, error=error)
                    continue
                places = ranks(similar, list(self.right[query]))
                best = texts[int(similar.argmax())]
                yield Record(row.number, row.where, row.value.positive[:SHOWN], best[:SHOWN], scores_of(places))  # type: ignore[union-attr]

        batch: list[tuple[Row, str]] = []
        for row in rows:
            query = row.value.query  # type: ignore[union-attr]
            if query in seen:
                continue
            seen.add(query)
            batch.append((row, query))
            if len(batch) * len(texts) >= MOST or len(batch) == BLOCK:
                yield from found(batch)
                batch = []
        if batch:
            yield from found(batch)


class Captioning:
    """Pictures and captions: each picture finds its captions among all, each caption its pictures."""

    statistics = (*finding("image→text "), *finding("text→image "))

    def __init__(self, model: Any, rows: Iterable[Row]) -> None:
        self.model, self.notes = model, list[str]()
        self.pictures: dict[Any, tuple[int, Any]] = {}
        self.captions: dict[str, int] = {}
        self.texts_of: dict[int, dict[int, None]] = {}
        self.pictures_of: dict[int, dict[int, None]] = {}
        for row in rows:
            assert isinstance(row.value, Captioned)
            image, text = self._picture(row.value.image), self.captions.setdefault(row.value.text, len(self.captions))
            self.texts_of.setdefault(image, {})[text] = None
            self.pictures_of.setdefault(text, {})[image] = None
        self.notes.append(f"{len(self.pictures):,} pictures and {len(self.captions):,} captions, each among all")

    def _picture(self, image: Any) -> int:
        key = hashlib.sha256(image).digest() if isinstance(image, bytes) else image
        return self.pictures.setdefault(key, (len(self.pictures), image))[0]

    def records(self, rows: Iterator[Row]) -> Iterator[Record]:
        images, lost = vectors(self.model, [image for _, image in self.pictures.values()])
        texts, unread = vectors(self.model, list(self.captions))
        names, told = list(self.captions), set[tuple[str, int]]()
        for row in rows:
            value: Any = row.value
            image, text = self._picture(value.image), self.captions[value.text]
            scores: dict[str, float] = {}
            answer = ""
            if error := lost.get(key_of(value.image)) or unread.get(value.text, ""):
                yield Record(row.number, row.where, error=error)
                continue
            if ("image", image) not in told:
                similar = next(similarities(self.model, only(images, image), texts, unread))
                scores |= scores_of(ranks(similar, list(self.texts_of[image])), "image→text ")
                answer = names[int(similar.argmax())]
            if ("text", text) not in told:
                similar = next(similarities(self.model, only(texts, text), images, lost))
                scores |= scores_of(ranks(similar, list(self.pictures_of[text])), "text→image ")
            told |= {("image", image), ("text", text)}
            if scores:
                yield Record(row.number, row.where, value.text[:SHOWN], answer[:SHOWN], scores)


def key_of(given: Any) -> Any:
    """What an input is known by."""
    return hashlib.sha256(given).digest() if isinstance(given, bytes) else given


def vectors(model: Any, inputs: Sequence[Any], role: str | None = None) -> tuple[Embeddings, dict[Any, str]]:
    """A vector an input, and what is wrong with those that have none: theirs is nought."""
    found: list[Any] = [None] * len(inputs)
    errors: dict[Any, str] = {}
    for one in model.stream_embed(list(inputs), role=role):
        if one.error is not None:
            if not isinstance(one.error, BrollyError):
                raise one.error
            errors[key_of(inputs[one.index])] = str(one.error)
        found[one.index] = one.vector
    some = next((vector for vector in found if vector is not None), None)
    if some is None:
        raise next(iter(map(BrollyError, errors.values())), BrollyError("there is nothing to embed."))
    found = [np.zeros_like(some) if vector is None else vector for vector in found]
    stacked: Any = np.stack(found) if some.ndim == 1 else found
    return Embeddings(stacked, ("",) * len(found)), errors


def only(embeddings: Embeddings, i: int) -> Embeddings:
    """One of them."""
    return Embeddings(embeddings.vectors[i : i + 1], ("",))


def similarities(model: Any, asked: Embeddings, corpus: Embeddings, lost: Mapping[Any, str]) -> Iterator[Any]:
    """Of each query the cosines with the corpus (N,); a document without a vector has the lowest there is."""
    found = model.similarity(asked, corpus)
    if lost:
        norms = np.array([np.abs(vector).max() for vector in corpus.vectors])
        found = np.where(norms > 0, found, -np.inf)
    yield from found


class Reranking:
    """Queries, each with texts that answer it and texts that do not: where a reranker puts those that do."""

    statistics = finding()

    def __init__(self, model: Any) -> None:
        self.model, self.notes = model, ["each query's answers among its own wrong ones"]

    def records(self, rows: Iterator[Row]) -> Iterator[Record]:
        for row in rows:
            assert isinstance(row.value, Pair)
            right = (row.value.positive, *row.value.also)
            if not row.value.negatives:
                yield Record(
                    row.number, row.where, error="it has no wrong answer that the right one could stand before"
                )
                continue
            try:
                # the right ones last: equal scores count against the model
                ranked = self.model.rerank(row.value.query, [*row.value.negatives, *right])
            except BrollyError as error:
                yield Record(row.number, row.where, error=str(error))
                continue
            first = len(row.value.negatives)
            places = [place for place, one in enumerate(ranked, 1) if one.index >= first]
            yield Record(row.number, row.where, right[0][:SHOWN], ranked[0].document[:SHOWN], scores_of(places))
