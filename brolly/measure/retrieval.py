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

RECALL, TOP = (1, 5, 10), 10  # how many are looked at; nDCG's depth
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
        self.model = model
        self.documents: dict[str, int] = {}
        self.right: dict[str, dict[int, None]] = {}
        self.told: dict[int, str] = {}  # the first row of each query speaks for it
        for row in rows:
            assert isinstance(row.value, Pair)
            if row.value.query not in self.right:
                self.told[row.number] = row.value.query
            own = self.right.setdefault(row.value.query, {})
            for text in (row.value.positive, *row.value.also):
                own[self.documents.setdefault(text, len(self.documents))] = None
            for text in row.value.negatives:
                self.documents.setdefault(text, len(self.documents))
        self.notes = [f"{len(self.right):,} queries, each among {len(self.documents):,} texts"]

    def records(self, rows: Iterator[Row]) -> Iterator[Record]:
        asked = [row for row in rows if row.number in self.told]
        texts, queries = list(self.documents), [self.told[row.number] for row in asked]
        if not asked:
            return
        corpus, lost = vectors(self.model, texts, role="document")
        vectors_of, unread = vectors(self.model, queries, role="query")
        right = [list(self.right[query]) for query in queries]
        for row, query, own, (places, best) in zip(
            asked, queries, right, placed(self.model, vectors_of, corpus, right, texts, lost), strict=True
        ):
            error = unread.get(query) or next((lost[texts[i]] for i in own if texts[i] in lost), "")
            if error:
                yield Record(row.number, row.where, error=error)
            else:
                yield Record(row.number, row.where, texts[own[0]][:SHOWN], texts[best][:SHOWN], scores_of(places))


class Captioning:
    """Pictures and captions: each picture finds its captions among all, each caption its pictures."""

    statistics = (*finding("image→text "), *finding("text→image "))

    def __init__(self, model: Any, rows: Iterable[Row]) -> None:
        self.model = model
        self.pictures: dict[Any, int] = {}
        self.images: list[Any] = []
        self.captions: dict[str, int] = {}
        self.texts_of: list[dict[int, None]] = []
        self.images_of: list[dict[int, None]] = []
        self.told: dict[int, tuple[bool, bool]] = {}  # of a row, whether it is the first with its picture, its caption
        for row in rows:
            assert isinstance(row.value, Captioned)
            key, text = key_of(row.value.image), row.value.text
            self.told[row.number] = key not in self.pictures, text not in self.captions
            if key not in self.pictures:
                self.pictures[key] = len(self.images)
                self.images.append(row.value.image)
                self.texts_of.append({})
            if text not in self.captions:
                self.captions[text] = len(self.captions)
                self.images_of.append({})
            self.texts_of[self.pictures[key]][self.captions[text]] = None
            self.images_of[self.captions[text]][self.pictures[key]] = None
        self.notes = [f"{len(self.images):,} pictures and {len(self.captions):,} captions, each among all"]

    def records(self, rows: Iterator[Row]) -> Iterator[Record]:
        texts, keys = list(self.captions), list(self.pictures)
        images, lost = vectors(self.model, self.images)
        words, unread = vectors(self.model, texts)
        to_texts, to_images = ([list(own) for own in each] for each in (self.texts_of, self.images_of))
        by_image = list(placed(self.model, images, words, to_texts, texts, unread))
        by_text = list(placed(self.model, words, images, to_images, keys, lost))
        for row in rows:
            value: Any = row.value
            first_image, first_text = self.told[row.number]
            if error := lost.get(key_of(value.image)) or unread.get(value.text, ""):
                yield Record(row.number, row.where, error=error)
            elif first_image or first_text:
                places, best = by_image[self.pictures[key_of(value.image)]]
                scores = scores_of(places, "image→text ") if first_image else {}
                if first_text:
                    scores |= scores_of(by_text[self.captions[value.text]][0], "text→image ")
                yield Record(row.number, row.where, value.text[:SHOWN], texts[best][:SHOWN], scores)


def placed(
    model: Any, asked: Embeddings, corpus: Embeddings, right: Sequence[Sequence[int]], names: Sequence[Any],
    lost: Mapping[Any, str],
) -> Iterator[tuple[list[int], int]]:  # fmt: skip
    """Of each query the places at which its right ones stand in the corpus, and which stands first.

    What has no vector is less like than all others.
    """
    gone = np.array([name in lost for name in names])
    size = max(1, MOST // max(len(names), 1))
    for start in range(0, len(right), size):
        block = Embeddings(asked.vectors[start : start + size], asked.kinds[start : start + size])
        for similar, own in zip(model.similarity(block, corpus), right[start : start + size], strict=True):
            similar = np.where(gone, -np.inf, similar)
            yield ranks(similar, own), int(similar.argmax())


def key_of(given: Any) -> Any:
    """What an input is known by."""
    return hashlib.sha256(given).digest() if isinstance(given, bytes) else given


def vectors(model: Any, inputs: Sequence[Any], role: str | None = None) -> tuple[Embeddings, dict[Any, str]]:
    """A vector an input, and what is wrong with those that have none: theirs is nought."""
    found: list[Any] = [None] * len(inputs)
    errors: dict[Any, str] = {}
    if hasattr(model, "target") and not model.takes("role", "embed"):
        role = None
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
