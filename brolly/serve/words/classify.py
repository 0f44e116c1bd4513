"""Labels for pictures and texts, by falling probability. Requests with the same labels are one batch."""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

from fastapi import APIRouter, Request
from fastapi.responses import Response

from brolly.configs import TextEncoderConfig
from brolly.serve.app import house
from brolly.serve.errors import Refused
from brolly.serve.provenance import provenance
from brolly.serve.streams import unless_left
from brolly.serve.tell import reply
from brolly.serve.turns import turns
from brolly.serve.wire.classify import ClassifyAnswer, ClassifyRequest
from brolly.serve.wire.common import ERRORS
from brolly.serve.wire.embeddings import ImagePart
from brolly.serve.words.embeddings import MOST, Pictures
from brolly.verbs import Classification

router = APIRouter(tags=["classify"])


@router.post("/v1/classify", response_model=ClassifyAnswer, responses=ERRORS)
@router.post("/classify", response_model=ClassifyAnswer, responses=ERRORS, operation_id="classify_as_vllm")
async def classify(request: Request, body: ClassifyRequest) -> Response:
    """The likeliest labels of each picture, or of each text."""
    return await unless_left(request, classified(request, body))


async def classified(request: Request, body: ClassifyRequest) -> Response:
    given = body.input if isinstance(body.input, list) else [body.input]
    if not 0 < len(given) <= MOST:
        raise Refused(f"input has {len(given)} items; expected 1 to {MOST}.", param="input")
    images = await read(request, body.model, given)
    async with house(request).use(body.model, "classify") as use:
        model, headers = use.model, provenance(use).headers

        def work(every: list[Any]) -> list[Any]:
            return list(model.stream_classify(every, body.labels, templates=body.templates, top=body.top))

        key = ("classify", tuple(body.labels or ()), tuple(body.templates or ()), body.top)
        found: list[Classification] = await turns(request, model).together(key, images, work)
    rows = [
        {
            "index": i, "object": "classification", "label": one.label,
            "labels": [
                {"label": label, "probability": p, "logit": logit}
                for label, p, logit in zip(one.labels, one.probabilities, one.logits, strict=True)
            ],
        }
        for i, one in enumerate(found)
    ]  # fmt: skip
    answer = {"id": f"classify-{uuid4().hex}", "object": "list", "created": int(time.time()), "model": body.model}
    return reply({**answer, "data": rows}, headers)


async def read(request: Request, model: str, given: list[ImagePart | str]) -> list[bytes | str]:
    """The pictures that parts stand for; of a model that labels texts, the texts. Raises Refused."""
    inside = house(request)
    card = await inside.read(inside.find(model)[0])
    if isinstance(card.recognised.config, TextEncoderConfig):
        texts = [one for one in given if isinstance(one, str)]
        if len(texts) < len(given):
            raise Refused(f"{model} labels texts; input holds a picture.", param="input")
        return [*texts]
    pictures = Pictures(request.app.state.settings)
    return [await pictures.read(one) for one in given]
