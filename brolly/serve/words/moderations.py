"""OpenAI's moderations: the route says why it is refused, as no family of this version judges texts that way."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from brolly.serve.wire.common import ERRORS
from brolly.serve.wire.images import ModerationsRequest
from brolly.serve.words.images import unable

router = APIRouter(tags=["moderations"])


@router.post("/v1/moderations", response_model=None, status_code=400, responses=ERRORS)
async def moderations(request: Request, body: ModerationsRequest) -> Response:
    """Whether a text is harmful: refused as model_not_supported."""
    raise await unable(request, body.model, "moderate")
