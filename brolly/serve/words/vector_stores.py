"""OpenAI's vector stores: uploaded files, indexed as `brolly index` does, searched by words and by meaning."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal
from uuid import uuid4

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.responses import Response

from brolly.serve.desk import desk, owner_of, page_of
from brolly.serve.errors import Refused
from brolly.serve.shelves import MOST_BATCHES, Shelf, Shelves
from brolly.serve.tell import reply
from brolly.serve.wire.common import ERRORS, Deleted
from brolly.serve.wire.vector_stores import (
    AttributesRequest,
    BatchBody,
    BatchRequest,
    Comparison,
    ContentPage,
    Expires,
    FileRequest,
    Filter,
    SearchPage,
    SearchRequest,
    StoreBody,
    StoreChange,
    StoredFile,
    StoredFileList,
    StoreList,
    StoreRequest,
)

Limit = Annotated[int, Query(ge=1, le=100)]
Order = Literal["asc", "desc"]
Status = Literal["in_progress", "completed", "failed", "cancelled"]


@asynccontextmanager
async def life(app: FastAPI) -> AsyncIterator[None]:
    app.state.shelves = Shelves(app.state.desk.folder / "vector_stores", app)
    app.state.shelves.open()
    try:
        yield
    finally:
        await app.state.shelves.close()


router = APIRouter(prefix="/v1/vector_stores", tags=["vector stores"], lifespan=life)


def shelves(request: Request) -> Shelves:
    found: Shelves = request.app.state.shelves
    return found


def shelf_of(request: Request, id: str) -> Shelf:
    return shelves(request).find(id, owner_of(request))


@router.post("", response_model=StoreBody, responses=ERRORS)
async def create_store(body: StoreRequest, request: Request) -> Response:
    """An index of uploaded files; they can be found as soon as they are indexed."""
    _chunks(body.chunking_strategy)
    told = {
        "name": body.name or "", "description": body.description, "metadata": body.metadata or {},
        "expires_after": _expires(body.expires_after),
    }  # fmt: skip
    inside, owner = shelves(request), owner_of(request)
    files = await desk(request).files()
    for id in body.file_ids or ():
        await asyncio.to_thread(files.get, id, owner)  # what is not there is told before anything is made
    if body.embedding_model is not None:
        request.app.state.house.find(body.embedding_model)
    shelf = await inside.create(told, owner, body.embedding_model)
    if body.file_ids:
        await inside.add(shelf, files, body.file_ids, {})
    return reply(shelf.body())


@router.get("", response_model=StoreList, responses=ERRORS)
async def stores(request: Request, after: str | None = None, limit: Limit = 20, order: Order = "desc") -> Response:
    """The stores, page by page."""
    owner = owner_of(request)
    own = sorted((s for s in shelves(request).shelves.values() if s.owner == owner), key=lambda s: s.told["created_at"])
    return reply(page_of([shelf.body() for shelf in own], after, limit, order))


@router.get("/{id}", response_model=StoreBody, responses=ERRORS)
async def store(id: str, request: Request) -> Response:
    """How a store is."""
    return reply(shelf_of(request, id).body())


@router.post("/{id}", response_model=StoreBody, responses=ERRORS)
async def change_store(id: str, body: StoreChange, request: Request) -> Response:
    """Another name, another time to live, other notes."""
    shelf = shelf_of(request, id)
    given = body.model_dump(exclude_unset=True)
    if "expires_after" in given:
        given["expires_after"] = _expires(body.expires_after)
    shelf.told |= {name: value for name, value in given.items() if value is not None or name == "expires_after"}
    await shelf.keep()
    return reply(shelf.body())


@router.delete("/{id}", response_model=Deleted, responses=ERRORS)
async def delete_store(id: str, request: Request) -> Response:
    """Forget a store; the files that were uploaded stay."""
    await shelves(request).drop(shelf_of(request, id))
    return reply({"id": id, "object": "vector_store.deleted", "deleted": True})


@router.post("/{id}/search", response_model=SearchPage, responses=ERRORS)
async def search(id: str, body: SearchRequest, request: Request) -> Response:
    """The passages that are likeliest to answer."""
    questions = [body.query] if isinstance(body.query, str) else body.query
    if not any(q.strip() for q in questions):
        raise Refused("The query is empty; ask something.", param="query")
    least = body.ranking_options.score_threshold or 0.0 if body.ranking_options else 0.0
    found = await shelves(request).search(
        [shelf_of(request, id)], " ".join(questions), body.max_num_results, allowing(body.filters), least
    )
    rows = [
        {"file_id": one.file_id, "filename": one.filename, "score": round(one.score, 6), "attributes": one.attributes,
         "content": [{"type": "text", "text": one.text}]}
        for one in found
    ]  # fmt: skip
    page = {"object": "vector_store.search_results.page", "search_query": questions}
    return reply(page | {"data": rows, "has_more": False, "next_page": None})


@router.post("/{id}/files", response_model=StoredFile, responses=ERRORS)
async def add_file(id: str, body: FileRequest, request: Request) -> Response:
    """Put an uploaded file into a store."""
    _chunks(body.chunking_strategy)
    shelf = shelf_of(request, id)
    await shelves(request).add(shelf, await desk(request).files(), [body.file_id], body.attributes or {})
    return reply(shelf.files[body.file_id])


@router.get("/{id}/files", response_model=StoredFileList, responses=ERRORS)
async def files(
    id: str, request: Request, filter: Status | None = None, after: str | None = None, limit: Limit = 20,
    order: Order = "desc",
) -> Response:  # fmt: skip
    """The files of a store, page by page."""
    rows = [one for one in shelf_of(request, id).files.values() if filter in (None, one["status"])]
    return reply(page_of(rows, after, limit, order))


@router.get("/{id}/files/{file}", response_model=StoredFile, responses=ERRORS)
async def file(id: str, file: str, request: Request) -> Response:
    """How a file of a store is."""
    return reply(shelves(request).file(shelf_of(request, id), file))


@router.post("/{id}/files/{file}", response_model=StoredFile, responses=ERRORS)
async def change_file(id: str, file: str, body: AttributesRequest, request: Request) -> Response:
    """Other attributes, by which searches are narrowed."""
    shelf = shelf_of(request, id)
    found = shelves(request).file(shelf, file)
    found["attributes"] = dict(body.attributes or {})
    await shelf.keep()
    return reply(found)


@router.delete("/{id}/files/{file}", response_model=Deleted, responses=ERRORS)
async def remove_file(id: str, file: str, request: Request) -> Response:
    """Take a file out of a store."""
    await shelves(request).remove(shelf_of(request, id), file)
    return reply({"id": file, "object": "vector_store.file.deleted", "deleted": True})


@router.get("/{id}/files/{file}/content", response_model=ContentPage, responses=ERRORS)
async def content(id: str, file: str, request: Request) -> Response:
    """What a file says, as it is indexed."""
    text = await shelves(request).text(shelf_of(request, id), file)
    rows = [{"type": "text", "text": text}] if text else []
    page = {"object": "vector_store.file_content.page", "data": rows, "has_more": False, "next_page": None}
    return reply(page)


@router.post("/{id}/file_batches", response_model=BatchBody, responses=ERRORS)
async def create_batch(id: str, body: BatchRequest, request: Request) -> Response:
    """Put many files into a store at once."""
    if (body.file_ids is None) == (body.files is None):
        raise Refused("expected file_ids, or else files.", param="file_ids")
    _chunks(body.chunking_strategy)
    shelf, inside, kept = shelf_of(request, id), shelves(request), await desk(request).files()
    if body.file_ids is not None:
        ids = list(dict.fromkeys(body.file_ids))
        await inside.add(shelf, kept, ids, body.attributes or {})
    else:
        rows = {one.file_id: one.attributes or {} for one in body.files or ()}
        ids = list(rows)
        for one in ids:
            await asyncio.to_thread(kept.get, one, shelf.owner)
        await inside.add(shelf, kept, ids, {})
        for one, attributes in rows.items():
            shelf.files[one]["attributes"] = dict(attributes)
    while len(shelf.batches) >= MOST_BATCHES:
        shelf.batches.pop(next(iter(shelf.batches)))
    batch = f"vsfb_{int(time.time()):x}{uuid4().hex[:16]}"
    shelf.batches[batch] = ids
    await shelf.keep()
    return reply(_batch(shelf, batch))


@router.get("/{id}/file_batches/{batch}", response_model=BatchBody, responses=ERRORS)
async def batch(id: str, batch: str, request: Request) -> Response:
    """How far a batch has come."""
    return reply(_batch(shelf_of(request, id), batch))


@router.get("/{id}/file_batches/{batch}/files", response_model=StoredFileList, responses=ERRORS)
async def batch_files(
    id: str, batch: str, request: Request, filter: Status | None = None, after: str | None = None, limit: Limit = 20,
    order: Order = "desc",
) -> Response:  # fmt: skip
    """The files of a batch, page by page."""
    shelf = shelf_of(request, id)
    _batch(shelf, batch)
    rows = [shelf.files[one] for one in shelf.batches[batch] if one in shelf.files]
    return reply(page_of([row for row in rows if filter in (None, row["status"])], after, limit, order))


def _batch(shelf: Shelf, batch: str) -> dict[str, Any]:
    if batch not in shelf.batches:
        raise Refused(f"No file batch found with id '{batch:.80}'.", 404, param="batch_id")
    counts = shelf.counts(shelf.batches[batch])
    return {
        "id": batch, "object": "vector_store.files_batch", "created_at": shelf.told["created_at"],
        "vector_store_id": shelf.id, "status": "in_progress" if counts["in_progress"] else "completed",
        "file_counts": counts,
    }  # fmt: skip


def _expires(given: Expires | None) -> dict[str, Any] | None:
    return {"anchor": given.anchor, "days": given.days} if given else None


def _chunks(given: Mapping[str, Any] | None) -> None:
    if given and given.get("type") != "auto":
        text = "Chunks are cut as `brolly index` cuts them; leave chunking_strategy out."
        raise Refused(text, param="chunking_strategy")


def allowing(filter: Filter | None) -> Callable[[Mapping[str, Any]], bool] | None:
    """Whether a file's attributes pass a filter."""
    return None if filter is None else lambda attributes: _passes(filter, attributes)


def _passes(filter: Filter, attributes: Mapping[str, Any]) -> bool:
    if not isinstance(filter, Comparison):
        return (all if filter.type == "and" else any)(_passes(one, attributes) for one in filter.filters)
    said, value = attributes.get(filter.key), filter.value
    match filter.type:
        case "eq":
            return bool(said == value)
        case "ne":
            return bool(said != value)
        case "in" | "nin":
            return (said in value if isinstance(value, list) else said == value) == (filter.type == "in")
    if not isinstance(said, (int, float)) or not isinstance(value, (int, float)):
        return False
    order = {"gt": said > value, "gte": said >= value, "lt": said < value, "lte": said <= value}
    return order[filter.type]
