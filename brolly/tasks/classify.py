"""Labels for pictures and texts: by likeness (Radford et al. 2021), or by the classifier that a network has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from brolly.errors import BrollyError, OptionError
from brolly.layers.transformer import Spans
from brolly.tasks.embed import Encoder, broken, embed_rows, read_texts, see
from brolly.verbs import Classification


def classify(
    model: Encoder, sources: Iterable[str | object], labels: Sequence[str], texts: Tensor | None, top: int | None,
    batch_size: int,
) -> Iterator[Classification | BrollyError]:  # fmt: skip
    """The labels of each picture or its error, in order; `texts` are the labels' vectors, None the network's own."""
    network = model.network

    def logits(pixels: Tensor) -> Tensor:
        return network.classify(pixels) if texts is None else network.logits(network.images(pixels).float(), texts)

    for row in see(model, logits, sources, batch_size):
        if isinstance(row, BrollyError):
            yield row
        elif not row.isfinite().all():
            yield broken(model)
        else:
            yield ranked(labels, row, row.softmax(-1) if texts is None else network.probabilities(row), top)


def classify_texts(
    model: Encoder, texts: Sequence[str], top: int | None, batch_size: int
) -> Iterator[Classification | BrollyError]:
    """The labels of each text by the network's own classifier, or its error, in order; what is too long is cut."""
    config: Any = model.network.config
    rows, errors = read_texts(model, dict(enumerate(texts)), truncate=True)
    found: dict[int, Classification | BrollyError] = dict(errors)
    order = sorted(rows, key=lambda i: -len(rows[i]))
    for start in range(0, len(order), batch_size):
        places = order[start : start + batch_size]
        ids = torch.tensor([token for i in places for token in rows[i]], device=model.device)
        with torch.inference_mode():
            logits = model.network.scores(ids, Spans([len(rows[i]) for i in places], model.device)).float()
        shares = logits.sigmoid() if config.sigmoid else logits.softmax(-1)
        for i, row, share in zip(places, logits, shares, strict=True):
            found[i] = ranked(config.labels, row, share, top) if row.isfinite().all() else broken(model)
    return (found[i] for i in range(len(texts)))


def ranked(labels: Sequence[str], logits: Tensor, probabilities: Tensor, top: int | None) -> Classification:
    """The likeliest labels first; equal ones in the order given."""
    order = torch.argsort(logits, descending=True, stable=True)[:top]
    return Classification(
        tuple(labels[i] for i in order.tolist()), tuple(probabilities[order].tolist()), tuple(logits[order].tolist())
    )


def label_vectors(model: Encoder, labels: Sequence[str], templates: Sequence[str], batch_size: int) -> Tensor:
    """A vector a label: its templates' normalised vectors, averaged and normalised again, as OpenAI's code does.

    Raises ContextTooLong at a label that the model cannot read whole: a cut label would be another label.
    """
    texts = enumerate(template.replace("{}", label) for label in labels for template in templates)
    rows, errors = read_texts(model, dict(texts), truncate=False)
    if errors:
        raise next(iter(errors.values()))
    sums: list[Tensor | float] = [0.0] * len(labels)
    for place, vector in embed_rows(model, rows, batch_size):
        sums[place // len(templates)] += F.normalize(vector, dim=-1)
    return F.normalize(torch.stack(sums), dim=-1)  # type: ignore[arg-type]


def check_labels(labels: Sequence[str], templates: Sequence[str]) -> None:
    """Raises OptionError where a label is empty or there twice, or a template has no place for it."""
    if isinstance(labels, str) or isinstance(templates, str):
        raise OptionError("labels and templates are lists of texts; a single text was given.")
    if not labels or not all(isinstance(label, str) and label.strip() for label in labels):
        raise OptionError("a label is empty; expected at least one, and each a text.")
    if twice := [label for label, n in Counter(labels).items() if n > 1]:
        raise OptionError(f"the label {twice[0]!r:.60} is given twice; give each once.")
    if not templates:
        raise OptionError("there is no template; expected at least one, such as 'a photo of a {}.'.")
    if bad := next((t for t in templates if not isinstance(t, str) or t.count("{}") != 1), None):
        raise OptionError(f"the template {bad!r:.80} must have one {{}}, where the label comes.")
