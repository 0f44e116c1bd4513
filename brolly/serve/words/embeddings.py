"""Texts, tokens and pictures → vectors, as OpenAI has it. Small requests that come together are computed together."""

from __future__ import annotations

import asyncio
import binascii
from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from brolly.errors import OptionError
from brolly.serve.account import took
from brolly.serve.app import house
from brolly.serve.elsewhere import Elsewhere
from brolly.serve.errors import Refused
from brolly.serve.fetch import content
from brolly.serve.provenance import provenance
from brolly.serve.settings import Settings
from brolly.serve.streams import unless_left
from brolly.serve.tell import reply
from brolly.serve.turns import turns
from brolly.serve.wire.common import ERRORS
from brolly.serve.wire.embeddings import EmbeddingsAnswer, EmbeddingsRequest, ImagePart, ImageURL, TextPart
from brolly.verbs import Embedding

router = APIRouter(tags=["embeddings"])
ROLES = {
    "search_query": "query", "search_document": "document", "passage": "document", "retrieval.query": "query",
    "retrieval.passage": "document",
}  # fmt: skip
MOST = 2048  # inputs a request


@router.post("/v1/embeddings", response_model=EmbeddingsAnswer, responses=ERRORS)
async def embeddings(request: Request, body: EmbeddingsRequest) -> Response:
    """A vector for each input."""
    return await unless_left(request, answer(request, body))


async def answer(request: Request, body: EmbeddingsRequest) -> Response:
    inputs = await read(request.app.state.settings, body)
    said = body.role or body.input_type or body.task
    role = ROLES.get(said, said) if said else None
    async with house(request).use(body.model, "embed") as use:
        headers = provenance(use).headers
        if tokens := [i for one in inputs if isinstance(one, list) for i in one]:
            known(use.model, tokens)
        options: dict[str, Any] = {"role": role, "dimensions": body.dimensions, "truncate": body.truncate}
        if isinstance(use.model, Elsewhere) and "truncate" not in body.model_fields_set:
            del options["truncate"]  # as its vendor does by itself
        found = await vectors(request, use.model, inputs, **options)
    packed = body.encoding_format == "base64"
    if packed and any(one.vector.ndim > 1 for one in found):
        raise Refused("this model gives a vector a token; ask for encoding_format float.", param="encoding_format")
    n = sum(one.n_tokens for one in found)

    def written() -> Response:  # in a thread, as a thousand vectors are millions of digits
        rows = [
            {"object": "embedding", "index": i, "embedding": base64(one.vector) if packed else one.vector.tolist()}
            for i, one in enumerate(found)
        ]
        usage = {"prompt_tokens": n, "total_tokens": n}
        return reply({"object": "list", "data": rows, "model": body.model, "usage": usage}, headers)

    return await asyncio.to_thread(written)


def known(model: Any, tokens: Sequence[int]) -> None:
    """Raises Refused at a token that a model has not."""
    if isinstance(model, Elsewhere):
        raise Refused(f"{model.target} runs elsewhere and reads text, not tokens.", param="input")
    vocab = model.network.config.vocab_size
    if (most := max(tokens)) >= vocab:
        raise Refused(f"input has the token {most}; this model's go from 0 to {vocab - 1}.", param="input")


async def vectors(request: Request, model: Any, inputs: Sequence[Any], **options: Any) -> list[Embedding]:
    """The embedding of each input, in order. Raises Busy and the first input's error."""

    def work(every: list[Any]) -> list[Embedding | Exception]:
        found: list[Any] = [None] * len(every)
        for one in model.stream_embed(every, **options):
            found[one.index] = one.error or one
        return found

    if isinstance(model, Elsewhere):
        found = await model.vectors(inputs, **options)
    else:
        found = await turns(request, model).together(("embed", *sorted(options.items())), inputs, work)
    took(sum(one.n_tokens for one in found))
    return found


def base64(vector: Any) -> str:
    """Little-endian float32."""
    return b64encode(vector.astype("<f4").tobytes()).decode()


async def read(settings: Settings, body: EmbeddingsRequest) -> list[Any]:
    """What a request wants embedded, as `Model.embed` takes it."""
    if (body.input is None) == (body.messages is None):
        raise Refused("expected either input or messages.", param="input")
    given: Any = body.input
    if body.messages is not None:
        parts = [p for m in body.messages for p in ([m.content] if isinstance(m.content, str) else m.content)]
        if len(parts) != 1:
            raise Refused(f"messages have {len(parts)} parts; expected one text or one picture.", param="messages")
        given = parts
    if not isinstance(given, list) or (given and isinstance(given[0], int)):
        given = [given]
    if not 0 < len(given) <= MOST:
        raise Refused(f"input has {len(given)} parts; expected 1 to {MOST}.", param="input")
    pictures, found = Pictures(settings), []
    for one in given:
        one = one.text if isinstance(one, TextPart) else one
        if not one:
            raise OptionError("a text is empty; expected at least one character or token.")
        found.append(await pictures.read(one) if isinstance(one, ImagePart) else one)
    return found


class Pictures:
    """The files of one request's pictures, together no larger than an upload may be."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.left = settings, settings.upload_bytes

    async def read(self, one: ImagePart | str) -> bytes:
        """The file that a part or a URL stands for. Raises Refused."""
        url = one if isinstance(one, str) else one.image_url
        url = url.url if isinstance(url, ImageURL) else url
        if url is not None:
            data = await content(url, self.settings, min(self.left, self.settings.body_bytes))
            self.left -= len(data)
            return data
        try:
            return b64decode((isinstance(one, ImagePart) and one.image) or "", validate=True)
        except (binascii.Error, ValueError):
            raise Refused("a picture's `image` is no base64; expected that, or image_url.", param="input") from None
