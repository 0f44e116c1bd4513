"""What belongs together is near, all else of a step is far: pictures with captions, queries with their answers.

B examples, P pictures and T texts of a step, each once, E the space's dim. What stands twice in a step is one thing,
and what is right for an example is never held against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from brolly.errors import BrollyError, RecipeError
from brolly.layers.transformer import Spans
from brolly.rows import Captioned, Labelled, Pair, Row, RowFault, Rows
from brolly.tasks.embed import encoded, fitted
from brolly.tasks.late import late_of, longest
from brolly.train.tuning.objectives import Usual
from brolly.train.tuning.objectives.kinds import usual
from brolly.train.tuning.objectives.pictures import Album, source_of
from brolly.train.tuning.objectives.sides import Side, at_once, backward, distinct
from brolly.verbs import TuneOptions

Ids = tuple[int, ...]
SCALE = 20.0  # of cosines, as sentence-transformers has it
MOST_SCALE = log(100.0)  # of CLIP's, in full tuning (Radford et al. 2021)


def read(model: Any, text: str, role: str | None, most: int | None, row: Row) -> Ids:
    """A text's tokens as `embed` reads them, cut to what is read. Raises RowFault."""
    found = encoded(model.tokenizer, {0: model.prompted(text, role)})[0]
    reach = longest(model.network.config, role)
    try:
        if isinstance(found, BrollyError):
            raise found
        return tuple(fitted(model, found, text, min(most or reach, reach))[0])
    except BrollyError as error:
        raise RowFault(row.where, str(error)) from None


def texts_of(network: Any, rows: Sequence[Ids], device: torch.device) -> Tensor:
    """Each text's vector: (T, E) float32. Those of one length are one batch of attention."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    ids = torch.tensor([token for i in order for token in rows[i]], device=device)
    vectors = network.texts(ids, Spans([len(rows[i]) for i in order], device))
    return vectors.float()[torch.tensor(order, device=device).argsort()]


class Near(NamedTuple):
    """A query, its answer, texts that are none, and further answers."""

    query: Ids
    positive: Ids
    negatives: tuple[Ids, ...]
    also: tuple[Ids, ...]


class Answers:
    """Texts that embed: each query finds its answer among all texts of the step (Henderson et al. 2017)."""

    name, together = "contrastive", True

    def __init__(self, model: Any, options: TuneOptions) -> None:
        self.model, self.network, self.options = model, model.network, options
        config: Any = self.network.config
        if late_of(config) is not None:
            raise RecipeError(f"{model.card.header.path} keeps a vector a token, which is not tuned here yet.")
        stack = getattr(config, "stack", None) or config.llama
        self.most, self.width = options.part or at_once(stack), stack.dim

    def usual(self, n_examples: int, full: bool) -> Usual:
        """A step of many: they are each other's contrast."""
        return usual(n_examples, 64 if n_examples >= 256 else 32, 100, self.width, full)

    def example(self, row: Row) -> Near:
        pair = row.value
        if not isinstance(pair, Pair):
            raise RowFault(row.where, f"it is a {type(pair).__name__}; expected a query and its answer")

        def told(text: str) -> Ids:
            return read(self.model, text, "document", self.options.context, row)

        query = read(self.model, pair.query, "query", self.options.context, row)
        return Near(query, told(pair.positive), tuple(map(told, pair.negatives)), tuple(map(told, pair.also)))

    def size(self, example: Near) -> int:
        return sum(map(len, (example.query, example.positive, *example.negatives)))

    def weight(self, example: Near) -> float:
        return 1.0

    def step(self, batch: Sequence[Near]) -> Step:
        answers, own = distinct([*(one.positive for one in batch), *(n for one in batch for n in one.negatives)])
        rows, places = distinct([*(one.query for one in batch), *answers])
        right: dict[Ids, set[Ids]] = {}
        for one in batch:
            right.setdefault(one.query, set()).update((one.positive, *one.also))
        also = [[row in right[one.query] and row != one.positive for row in answers] for one in batch]
        device = self.model.device
        where, texts = torch.tensor(places, device=device), Side(rows, list(map(len, rows)), self.encode)
        return Step(
            texts, where[: len(batch)], where[len(batch) :], torch.tensor(own[: len(batch)], device=device),
            torch.tensor(also, device=device),
        )  # fmt: skip

    def encode(self, rows: Sequence[Ids]) -> Tensor:
        return texts_of(self.network, rows, self.model.device)

    def backward(self, parts: Sequence[Sequence[Near]], total: float) -> Tensor:
        step = self.step([one for part in parts for one in part])

        def loss(vectors: list[Tensor]) -> Tensor:
            return F.cross_entropy(step.logits(vectors[0]), step.own, reduction="sum") / total

        return backward([step.texts], loss, self.most)

    @torch.no_grad()
    def measure(self, part: Sequence[Near]) -> dict[str, tuple[float, float]]:
        step = self.step(part)
        logits = step.logits(torch.cat([self.encode(some) for some in step.texts.cut(self.most)]))
        return measured(F.cross_entropy(logits, step.own, reduction="sum"), logits, step.own, len(part))


class Step(NamedTuple):
    """The N texts of a step, each once; where in it the B queries and the T answers are, and whose answer is which."""

    texts: Side
    queries: Tensor  # (B,) of N
    answers: Tensor  # (T,) of N
    own: Tensor  # (B,) of T
    also: Tensor  # (B, T): further answers of a query

    def logits(self, vectors: Tensor) -> Tensor:
        """Scaled cosines of all vectors (N, E), where a query's further answers are left out: (B, T)."""
        unit = F.normalize(vectors, dim=-1)
        return (SCALE * unit[self.queries] @ unit[self.answers].t()).masked_fill(self.also, float("-inf"))


def measured(loss: Tensor, logits: Tensor, own: Tensor, n: int) -> dict[str, tuple[float, float]]:
    return {"loss": (float(loss), n), "accuracy": (float((logits.argmax(1) == own).sum()), n)}


class Shown(NamedTuple):
    """A picture, how many patches it has, and its caption."""

    picture: Path | bytes
    patches: int
    caption: Ids


class Captions:
    """CLIP and SigLIP: pictures and their captions; a label is a caption by the model's own template."""

    name, together = "contrastive", True

    def __init__(self, model: Any, options: TuneOptions) -> None:
        self.model, self.network, self.options = model, model.network, options
        self.album = Album(model)
        self.labels: dict[str, Ids] = {}
        config = self.network.config
        self.most = options.part or min(at_once(config.vision.stack), at_once(config.text.stack))

    def look(self, rows: Rows, numbers: Sequence[int]) -> None:
        """Decode the pictures in threads, once."""
        self.album.look(source_of(row) for row in rows.only(numbers))

    def usual(self, n_examples: int, full: bool) -> Usual:
        """A step of many: they are each other's contrast."""
        width = self.network.config.vision.stack.dim
        return usual(n_examples, 64 if n_examples >= 256 else 32, 120, width, full)

    def example(self, row: Row) -> Shown:
        source = source_of(row)
        patches = self.album.checked(source, row)
        match row.value:
            case Captioned(text=text):
                caption = self.read(text, row)
            case Labelled(label=label):
                if label not in self.labels:
                    said = label.replace("_", " ")
                    self.labels[label] = self.read(self.model.templates[0].replace("{}", said), row)
                caption = self.labels[label]
        return Shown(source, patches, caption)

    def read(self, text: str, row: Row) -> Ids:
        return read(self.model, text, None, self.options.context, row)

    def size(self, example: Shown) -> int:
        return example.patches + len(example.caption)

    def weight(self, example: Shown) -> float:
        return 1.0

    def sides(self, batch: Sequence[Shown]) -> tuple[list[Side], list[int], list[int]]:
        """Pictures and captions, each once, and which of them each example has."""
        pictures, seen = distinct([one.picture for one in batch])
        captions, said = distinct([one.caption for one in batch])
        patches = {one.picture: one.patches for one in batch}
        device = self.model.device

        def look(some: Sequence[Any]) -> Tensor:
            found: Tensor = self.network.images(self.album.pixels(some)).float()
            return found

        eye = Side(pictures, [patches[one] for one in pictures], look)
        mouth = Side(captions, list(map(len, captions)), lambda some: texts_of(self.network, some, device))
        return [eye, mouth], seen, said

    def loss(self, logits: Tensor, seen: list[int], said: list[int]) -> Tensor:
        """Σ of all examples' losses, of (P, T) logits."""
        device = logits.device
        rows, columns = torch.tensor(seen, device=device), torch.tensor(said, device=device)
        true = torch.zeros_like(logits, dtype=torch.bool)
        true[rows, columns] = True
        if self.network.config.sigmoid:  # each pair by itself (Zhai et al. 2023)
            return -F.logsigmoid(torch.where(true, logits, -logits)).sum()
        each = torch.arange(len(seen), device=device)
        others = true[rows]
        others[each, columns] = False  # further captions of the same picture
        by_picture = F.cross_entropy(logits[rows].masked_fill(others, float("-inf")), columns, reduction="sum")
        others = true.t()[columns]
        others[each, rows] = False  # further pictures of the same caption
        by_caption = F.cross_entropy(logits.t()[columns].masked_fill(others, float("-inf")), rows, reduction="sum")
        return (by_picture + by_caption) / 2

    def backward(self, parts: Sequence[Sequence[Shown]], total: float) -> Tensor:
        scale = self.network.logit_scale
        if scale.requires_grad and not self.network.config.sigmoid:
            scale.data.clamp_(max=MOST_SCALE)
        sides, seen, said = self.sides([one for part in parts for one in part])

        def loss(vectors: list[Tensor]) -> Tensor:
            return self.loss(self.network.logits(*vectors), seen, said) / total

        return backward(sides, loss, self.most)

    @torch.no_grad()
    def measure(self, part: Sequence[Shown]) -> dict[str, tuple[float, float]]:
        """The loss among these, and how often a picture's own caption is the first: of all labels, or of these."""
        sides, seen, said = self.sides(part)
        images, texts = (torch.cat([side.encode(some) for some in side.cut(self.most)]) for side in sides)
        logits = self.network.logits(images, texts)
        loss, rows = self.loss(logits, seen, said), torch.tensor(seen, device=logits.device)
        own = torch.tensor(said, device=logits.device)
        if self.labels:
            every = list(dict.fromkeys([*sides[1].items, *self.labels.values()]))
            logits = self.network.logits(images, texts_of(self.network, every, self.model.device))
        return measured(loss, logits[rows], own, len(part))
