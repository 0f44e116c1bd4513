"""Pictures from texts and pictures: the routes and their forms, for the kinds of models that come later.

No family of this version draws, so every model is refused by what its card says that it can do.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from brolly.errors import BrollyError, UnsupportedTask
from brolly.serve.app import house
from brolly.serve.uploads import described, form
from brolly.serve.wire.common import ERRORS
from brolly.serve.wire.images import EditForm, ImagesRequest, VariationForm

router = APIRouter(tags=["images"])


@router.post("/v1/images/generations", response_model=None, status_code=400, responses=ERRORS)
async def generations(request: Request, body: ImagesRequest) -> Response:
    """Pictures of a text: refused as model_not_supported, as no model draws yet."""
    raise await unable(request, body.model, "draw")


@router.post(
    "/v1/images/edits", response_model=None, status_code=400, responses=ERRORS, openapi_extra=described(EditForm)
)
async def edits(request: Request, given: Annotated[EditForm, Depends(form(EditForm))]) -> Response:
    """Pictures changed as a text says: refused as model_not_supported, as no model draws yet."""
    raise await unable(request, given.model, "draw")


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
    can = ", ".join((await rooms.read(entry)).verbs) or "do nothing here"
    return UnsupportedTask(f"{entry.name} can {can}; it cannot {verb}, nor can any model of this version.")
