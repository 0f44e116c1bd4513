"""Pictures or texts, and labels → labels by falling probability: brolly's own words, as no dialect has any for it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from brolly.serve.wire.common import Answer, Open
from brolly.serve.wire.embeddings import ImagePart


class ClassifyRequest(Open):
    model: str
    input: str | ImagePart | list[str | ImagePart] = Field(
        description="Pictures: data: or http(s) URLs, image_url parts; or texts, if the model labels those."
    )
    labels: list[str] | None = Field(
        None, description="Any texts; left out for a network with a classifier of its own."
    )
    templates: list[str] | None = Field(None, description="What stands around a label: a photo of a {}.")
    top: int | None = Field(None, ge=1, le=1 << 20, description="Only the likeliest.")


class LabelBody(Answer):
    label: str
    probability: float
    logit: float


class ClassificationBody(Answer):
    """`label` is the likeliest one, `labels` are all, the likeliest first."""

    index: int
    object: Literal["classification"]
    label: str
    labels: list[LabelBody]


class ClassifyAnswer(Answer):
    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[ClassificationBody]
