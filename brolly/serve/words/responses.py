"""OpenAI's responses: items → items, whole, streamed or in the background, stored or not, continued by id."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from brolly.serve.answering import Answering
from brolly.serve.app import house
from brolly.serve.desk import desk, owner_of, page_of
from brolly.serve.elsewhere import counted, prepared
from brolly.serve.errors import Refused
from brolly.serve.streams import Events, in_stream, unless_left
from brolly.serve.tell import reply
from brolly.serve.wire.common import ERRORS, Deleted, streamed
from brolly.serve.wire.responses import InputTokens, ItemList, ResponseBody, ResponseRequest

EVENTS = streamed(ResponseBody, "the typed events of OpenAI's responses")
router = APIRouter(tags=["responses"])


def background(request: Request, id: str) -> Answering | None:
    """The writing of a response that nobody waits for, while it lasts."""
    found = desk(request).running.get(id)
    return found if isinstance(found, Answering) else None


@router.post("/v1/responses", response_model=ResponseBody, responses=EVENTS)
async def create_response(body: ResponseRequest, request: Request) -> Response:
    """Answer items with items."""
    answering = Answering(body, request)
    if body.background:
        await answering.leave()
        if body.stream:
            return Events(answering.follow(), in_stream, {})
        return reply(answering.response)
    if body.stream:
        return Events(answering.stream(), in_stream, answering.headers)
    return await unless_left(request, answering.whole())


@router.post("/v1/responses/input_tokens", response_model=InputTokens, responses=ERRORS)
async def count(body: ResponseRequest, request: Request) -> Response:
    """How many tokens a request would read."""
    answering = Answering(body, request)
    async with house(request).use(body.model, "chat") as use:
        await answering.read()
        job = await prepared(answering.prepare, use.model, use.adapter)
        return reply({"object": "response.input_tokens", "input_tokens": await counted(use.model, job)})


@router.get("/v1/responses/{id}", response_model=ResponseBody, responses=EVENTS)
async def retrieve(
    id: str, request: Request, stream: bool = False, starting_after: Annotated[int, Query(ge=-1)] = -1
) -> Response:
    """A stored response, or its events again from the one after `starting_after`."""
    found = await desk(request).find(id, owner_of(request))
    if not stream:
        return reply(found.response)
    if (writing := background(request, id)) is not None:
        return Events(writing.follow(starting_after + 1), in_stream, {})

    async def again() -> AsyncGenerator[bytes, None]:
        yield b"".join(found.events[starting_after + 1 :])

    return Events(again(), in_stream, {})


@router.delete("/v1/responses/{id}", response_model=Deleted, responses=ERRORS)
async def delete(id: str, request: Request) -> Response:
    """Forget a response; one that is being written is stopped."""
    owner = owner_of(request)
    await desk(request).find(id, owner)
    if (writing := background(request, id)) is not None:
        await writing.stop()
    await asyncio.to_thread((await desk(request).store()).delete, id, owner)
    return reply({"id": id, "object": "response", "deleted": True})


@router.post("/v1/responses/{id}/cancel", response_model=ResponseBody, responses=ERRORS)
async def cancel(id: str, request: Request) -> Response:
    """Stop a response that is being written in the background."""
    found = await desk(request).find(id, owner_of(request))
    if not found.response["background"]:
        raise Refused("Only responses that were created with background: true can be cancelled.", param="id")
    if (writing := background(request, id)) is not None:
        await writing.stop()
    return reply(found.response)


@router.get("/v1/responses/{id}/input_items", response_model=ItemList, responses=ERRORS)
async def input_items(
    id: str, request: Request, after: str | None = None, limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Literal["asc", "desc"] = "desc",
) -> Response:  # fmt: skip
    """The items that a response answered, page by page."""
    found = await desk(request).find(id, owner_of(request))
    return reply(page_of(found.input, after, limit, order))
