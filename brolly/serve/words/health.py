"""Whether the server lives, whether it takes requests, and its numbers."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

router = APIRouter(tags=["operation"])


@router.get("/health")
async def health() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/ready", responses={503: {"description": "It is starting or stopping; send requests elsewhere."}})
async def ready(request: Request) -> JSONResponse:
    """Requests are taken: pinned models are loaded, and nobody has told the server to stop."""
    state: Any = request.app.state
    stopping = state.stopping
    if not stopping and state.house.ready():
        return JSONResponse({"status": "ready"})
    return JSONResponse({"status": "stopping" if stopping else "starting"}, 503, headers={"retry-after": "5"})


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def metrics(request: Request) -> Response:
    """Numbers for Prometheus."""
    body, kind = request.app.state.metrics.page()
    return Response(body, media_type=None, headers={"content-type": kind})
