"""/v1/conversations: items in a row that responses read and lengthen."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from brolly.serve.wire.common import Answer, Strict, Words
from brolly.serve.wire.responses import Item


class ConversationRequest(Strict):
    items: list[Item] | None = Field(None, max_length=20)
    metadata: Words | None = None


class MetadataRequest(Strict):
    metadata: Words | None


class ItemsRequest(Strict):
    items: list[Item] = Field(max_length=20)


class ConversationBody(Answer):
    id: str
    object: Literal["conversation"]
    created_at: int
    metadata: dict[str, str]


class ConversationDeleted(Answer):
    id: str
    object: Literal["conversation.deleted"]
    deleted: Literal[True]
