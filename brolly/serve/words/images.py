"""Pictures from texts and pictures, by models that run elsewhere: no family of this version draws."""

from __future__ import annotations

import asyncio
import time
from base64 import b64encode
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from brolly.errors import BrollyError, UnsupportedTask
from brolly.serve.account import took
from brolly.serve.app import house
from brolly.serve.errors import Refused
from brolly.serve.provenance import provenance
from brolly.serve.streams import unless_left
from brolly.serve.tell import media_usage, reply
from brolly.serve.uploads import described, form
from brolly.serve.wire.common import ERRORS
from brolly.serve.wire.images import Drawn, EditForm, ImagesRequest, VariationForm
from brolly.verbs import Drawing

router = APIRouter(tags=["images"])


@router.post("/v1/images/generations", response_model=Drawn, responses=ERRORS)
async def generations(request: Request, body: ImagesRequest) -> Response:
    """Pictures of a text."""
    return await drawn(request, body, nothing)


@router.post("/v1/images/edits", response_model=Drawn, responses=ERRORS, openapi_extra=described(EditForm))
async def edits(request: Request, given: Annotated[EditForm, Depends(form(EditForm))]) -> Response:
    """Pictures changed as a text says."""

    async def read() -> list[bytes]:
        return [await file.read() for file in given.image]

    return await drawn(request, given, read)


async def nothing() -> list[bytes]:
    return []


async def drawn(
    request: Request, body: ImagesRequest | EditForm, pictures: Callable[[], Awaitable[list[bytes]]]
) -> Response:  # fmt: skip
    """What a model elsewhere draws. Raises what is in the way."""
    if body.model is None or not house(request).find(body.model)[0].target:
        raise await unable(request, body.model, "draw")
    if getattr(body, "mask", None) is not None:
        raise Refused("mask is not taken; say in the prompt what is to change.", param="mask")
    if body.stream or body.response_format == "url":
        raise Refused("Pictures come whole, as b64_json; leave stream and response_format out.", param="stream")
    given = {
        "n": body.n, "size": body.size, "quality": body.quality, "background": body.background,
        "format": body.output_format, "compression": body.output_compression, "seed": body.seed,
    }  # fmt: skip
    name, options = body.model, {key: value for key, value in given.items() if value is not None}

    async def answer() -> Response:
        async with house(request).use(name, "draw") as use, use.model.counted():
            made = await use.model.adraw(body.prompt, await pictures(), **options)
            return await asyncio.to_thread(told, made, provenance(use).headers)

    return await unless_left(request, answer())


def told(made: Drawing, headers: dict[str, str]) -> Response:
    rows = [
        {"b64_json": b64encode(one.data).decode(), **({"revised_prompt": one.prompt} if one.prompt else {})}
        for one in made.pictures
    ]
    found: dict[str, Any] = {"created": int(time.time()), "data": rows, "output_format": made.pictures[0].format}
    if (u := made.usage) is not None:
        found["usage"] = media_usage(u)
        took(u.prompt_tokens, u.completion_tokens)
    return reply(found, headers)


@router.post(
    "/v1/images/variations",
    response_model=None,
    status_code=400,
    responses=ERRORS,
    openapi_extra=described(VariationForm),
)
async def variations(request: Request, given: Annotated[VariationForm, Depends(form(VariationForm))]) -> Response:
    """Pictures like another: refused as model_not_supported, as no model draws yet."""
    raise await unable(request, given.model, "draw")


async def unable(request: Request, name: str | None, verb: str) -> BrollyError:
    """Why a model cannot do what no family here can do yet. Raises NotFound."""
    if name is None:
        return UnsupportedTask(f"no model was named, and none here can {verb}; GET /v1/models tells what each can do.")
    rooms = house(request)
    entry, _ = rooms.find(name)
    can = ", ".join(await rooms.verbs(entry))
    return UnsupportedTask(f"{entry.name} can {can}; it cannot {verb}, nor can any model of this version.")
