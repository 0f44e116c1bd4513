"""A label for a picture or a text: a classifier on an encoder, its own or a new one.

B examples, L labels. A new classifier is begun as transformers begins it and learnt whole; the body by LoRA or whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brolly.checkpoint import Mapped
from brolly.configs import TextEncoderConfig
from brolly.errors import RecipeError
from brolly.families.heads import Headed, begun, with_head
from brolly.fill import view
from brolly.layers.transformer import Spans
from brolly.models import build
from brolly.rows import Labelled, Row, RowFault, Rows
from brolly.train.tuning.objectives import Usual, by_parts
from brolly.train.tuning.objectives.contrastive import read
from brolly.train.tuning.objectives.kinds import usual
from brolly.train.tuning.objectives.pictures import Album, source_of
from brolly.verbs import TuneOptions

MOST = 10_000  # labels of a new classifier
SPREAD = 0.02  # of a new layer's numbers


class Judged(NamedTuple):
    """A text's tokens or a picture, how much of it there is, and which label it has."""

    given: Any
    size: int
    label: int


class Labels:
    name, together = "labels", False

    def __init__(self, model: Any, options: TuneOptions) -> None:
        self.model, self.network, self.options = model, model.network, options
        self.reads = isinstance(self.network.config, TextEncoderConfig)
        self.album = None if self.reads else Album(model)
        self.labels: dict[str, int] = {}
        self.head: Headed | None = None  # what is written beside a LoRA, or in a whole model

    def look(self, rows: Rows, numbers: Sequence[int]) -> None:
        """Note the labels that there are, once, and put a classifier of them on the network."""
        seen = {row.value.label for row in rows.only(numbers) if isinstance(row.value, Labelled)}
        if not self.labels:
            if not 2 <= len(seen) <= MOST:
                raise RecipeError(f"{rows.source} has {len(seen):,} labels; expected 2 to {MOST:,}.")
            own = self.network.config.labels
            labels = own if seen <= set(own) else tuple(sorted(seen))
            self.labels = {label: i for i, label in enumerate(labels)}
            self.head = with_head(self.model.card.recognised, labels)
            self.put_on(self.head, own == labels)
        if self.album:
            self.album.look(source_of(row) for row in rows.only(numbers))

    def put_on(self, head: Headed, keep: bool) -> None:
        """A classifier on the network, learnt whole; one of the same labels is kept as it is."""
        network, part = self.network, "head" if self.reads else "classifier"
        if not keep:
            with torch.device("meta"):
                made = getattr(build(head.base.config), part)
            made = made.to_empty(device=self.model.device).float()
            with Mapped(self.model.card.header) as mapped, torch.no_grad():
                known = begun(self.model.card.recognised) if self.reads else {}
                for name, parameter in made.named_parameters():
                    info = known.get(f"{part}.{name}")
                    if info is not None and info.shape == tuple(parameter.shape):
                        parameter.copy_(view(mapped, info))
                    elif parameter.dim() > 1:
                        nn.init.normal_(parameter, std=SPREAD)
                    else:
                        parameter.fill_(1.0 if name.startswith("norm.w") else 0.0)
            setattr(network, part, made)
            network.config = head.base.config
            if hasattr(network, "pool"):
                del network.pool
        getattr(network, part).to(torch.float32).requires_grad_(True)

    def usual(self, n_examples: int, full: bool) -> Usual:
        config = self.network.config
        width = config.stack.dim if self.reads else config.vision.stack.dim
        return usual(n_examples, 8 if n_examples < 1000 else 16, 100, width, full)

    def example(self, row: Row) -> Judged:
        value = row.value
        if not isinstance(value, Labelled) or isinstance(value.input, str) != self.reads:
            wanted = "a text" if self.reads else "a picture"
            raise RowFault(row.where, f"it is a {type(value).__name__} without {wanted}; expected that and its label")
        if value.label not in self.labels:
            raise RowFault(row.where, f"its label {value.label!r:.60} is none of those that are learnt")
        label = self.labels[value.label]
        if isinstance(value.input, str):
            ids = read(self.model, value.input, None, self.options.context, row)
            return Judged(ids, len(ids), label)
        assert self.album
        return Judged(value.input, self.album.checked(value.input, row), label)

    def size(self, example: Judged) -> int:
        return example.size

    def weight(self, example: Judged) -> float:
        return 1.0

    def logits(self, part: Sequence[Judged]) -> Tensor:
        """(B, L) float32."""
        if self.album:
            x: Tensor = self.network.classify(self.album.pixels([one.given for one in part]))
            return x.float()
        device = self.model.device
        order = sorted(range(len(part)), key=lambda i: part[i].size)
        ids = torch.tensor([token for i in order for token in part[i].given], device=device)
        found: Tensor = self.network.scores(ids, Spans([part[i].size for i in order], device))
        return found.float()[torch.tensor(order, device=device).argsort()]

    def losses(self, part: Sequence[Judged]) -> tuple[Tensor, Tensor]:
        """Σ of a part's losses, and how many labels are right."""
        logits = self.logits(part)
        wanted = torch.tensor([one.label for one in part], device=logits.device)
        return F.cross_entropy(logits, wanted, reduction="sum"), (logits.argmax(1) == wanted).sum()

    def backward(self, parts: Sequence[Sequence[Judged]], total: float) -> Tensor:
        return by_parts(lambda part: self.losses(part)[0], parts, total)

    @torch.no_grad()
    def measure(self, part: Sequence[Judged]) -> dict[str, tuple[float, float]]:
        loss, right = self.losses(part)
        return {"loss": (float(loss), len(part)), "accuracy": (float(right), len(part))}
