"""OpenAI's files: uploaded once, then named by what is tuned on them or searches them."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import FileResponse, Response

from brolly.serve.desk import desk, owner_of, page_of
from brolly.serve.tell import reply
from brolly.serve.uploads import described, form
from brolly.serve.wire.common import ERRORS, Deleted
from brolly.serve.wire.files import FileBody, FileForm, FileList

router = APIRouter(prefix="/v1/files", tags=["files"])
BYTES: dict[int | str, dict[str, Any]] = {200: {"content": {"application/octet-stream": {}}}, **ERRORS}


@router.post("", response_model=FileBody, responses=ERRORS, openapi_extra=described(FileForm))
async def upload(request: Request, given: Annotated[FileForm, Depends(form(FileForm))]) -> Response:
    """Leave a file here."""
    name = "".join(c for c in given.file.filename or "" if c.isprintable())[:255] or "file"
    files = await desk(request).files()
    kept = await asyncio.to_thread(files.put, given.file.file, name, given.purpose, owner_of(request), given.seconds)
    return reply(told(kept))


@router.get("", response_model=FileList, responses=ERRORS)
async def files(
    request: Request, purpose: str | None = None, after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000, order: Literal["asc", "desc"] = "desc",
) -> Response:  # fmt: skip
    """The files that were left, page by page."""
    found = await asyncio.to_thread((await desk(request).files()).of, owner_of(request), purpose)
    return reply(page_of([told(one) for one in found], after, limit, order))


@router.get("/{id}", response_model=FileBody, responses=ERRORS)
async def file(id: str, request: Request) -> Response:
    """What is known of a file."""
    return reply(told(await asyncio.to_thread((await desk(request).files()).get, id, owner_of(request))))


@router.get("/{id}/content", response_model=None, responses=BYTES)
async def content(id: str, request: Request) -> Response:
    """A file's bytes."""
    path = await asyncio.to_thread((await desk(request).files()).path, id, owner_of(request))
    return FileResponse(path, media_type="application/octet-stream", headers={"x-content-type-options": "nosniff"})


@router.delete("/{id}", response_model=Deleted, responses=ERRORS)
async def delete(id: str, request: Request) -> Response:
    """Forget a file."""
    await asyncio.to_thread((await desk(request).files()).delete, id, owner_of(request))
    return reply({"id": id, "object": "file", "deleted": True})


def told(about: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in about.items() if name != "owner"}
