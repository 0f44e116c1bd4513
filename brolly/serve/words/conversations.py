"""OpenAI's conversations: items kept in a row, which responses read and lengthen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal
from uuid import uuid4

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from brolly.serve.desk import desk, owner_of, page_of
from brolly.serve.errors import Refused
from brolly.serve.items import given_items
from brolly.serve.store import Conversation
from brolly.serve.tell import reply
from brolly.serve.wire.common import ERRORS
from brolly.serve.wire.conversations import (
    ConversationBody,
    ConversationDeleted,
    ConversationRequest,
    ItemsRequest,
    MetadataRequest,
)
from brolly.serve.wire.responses import Item, ItemList

router = APIRouter(prefix="/v1/conversations", tags=["responses"])


@router.post("", response_model=ConversationBody, responses=ERRORS)
async def create_conversation(body: ConversationRequest, request: Request) -> Response:
    """Begin a conversation, with or without items."""
    items = await _items(request, body.items or ())
    made = Conversation(f"conv_{uuid4().hex}", int(time.time()), body.metadata or {}, items, owner_of(request))
    await asyncio.to_thread((await desk(request).store()).put_conversation, made)
    return _told(made)


@router.get("/{id}", response_model=ConversationBody, responses=ERRORS)
async def conversation(id: str, request: Request) -> Response:
    """A conversation, without its items."""
    return _told(await desk(request).conversation(id, owner_of(request)))


@router.post("/{id}", response_model=ConversationBody, responses=ERRORS)
async def update_conversation(id: str, body: MetadataRequest, request: Request) -> Response:
    """Replace what is noted about a conversation."""

    def note(one: Conversation) -> None:
        one.metadata = body.metadata or {}

    return _told(await _changed(id, note, request))


@router.delete("/{id}", response_model=ConversationDeleted, responses=ERRORS)
async def delete_conversation(id: str, request: Request) -> Response:
    """Forget a conversation; the responses in it stay."""
    owner = owner_of(request)
    await desk(request).conversation(id, owner)
    await asyncio.to_thread((await desk(request).store()).drop_conversation, id, owner)
    return reply({"id": id, "object": "conversation.deleted", "deleted": True})


@router.get("/{id}/items", response_model=ItemList, responses=ERRORS)
async def items(
    id: str, request: Request, after: str | None = None, limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Literal["asc", "desc"] = "desc",
) -> Response:  # fmt: skip
    """The items of a conversation, page by page."""
    found = await desk(request).conversation(id, owner_of(request))
    return reply(page_of(found.items, after, limit, order))


@router.post("/{id}/items", response_model=ItemList, responses=ERRORS)
async def add_items(id: str, body: ItemsRequest, request: Request) -> Response:
    """Add items to the end."""
    owner = owner_of(request)
    await desk(request).conversation(id, owner)
    added = await _items(request, body.items)
    await asyncio.to_thread((await desk(request).store()).lengthen, id, added, owner)
    return reply(page_of(added, None, len(added), "asc"))


@router.get("/{id}/items/{item}", responses=ERRORS)
async def item(id: str, item: str, request: Request) -> Response:
    """One item."""
    found = await desk(request).conversation(id, owner_of(request))
    return reply(found.items[_place(found, item)])


@router.delete("/{id}/items/{item}", response_model=ConversationBody, responses=ERRORS)
async def delete_item(id: str, item: str, request: Request) -> Response:
    """Take one item out."""

    def take_out(one: Conversation) -> None:
        del one.items[_place(one, item)]

    return _told(await _changed(id, take_out, request))


def _place(found: Conversation, item: str) -> int:
    for at, one in enumerate(found.items):
        if one["id"] == item:
            return at
    raise Refused(f"Item with id '{item:.80}' not found in conversation.", 404, param="item_id")


async def _changed(id: str, change: Callable[[Conversation], None], request: Request) -> Conversation:
    found = await asyncio.to_thread((await desk(request).store()).change, id, change, owner_of(request))
    if found is None:
        raise Refused(f"Conversation with id '{id:.80}' not found.", 404, param="conversation")
    return found


async def _items(request: Request, given: Sequence[Item]) -> list[dict[str, Any]]:
    store, owner = await desk(request).store(), owner_of(request)
    return await asyncio.to_thread(given_items, given, lambda id: store.item(id, owner))


def _told(one: Conversation) -> Response:
    return reply({"id": one.id, "object": "conversation", "created_at": one.created, "metadata": one.metadata})
