"""The web page: files of this package as they are, under a policy that lets nothing leave the server."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

router = APIRouter(include_in_schema=False)
FOLDER = Path(__file__).parent.parent / "page"
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; media-src 'self' blob:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",
}


@router.api_route("/", methods=["GET", "HEAD"])
async def index(request: Request) -> Response:
    """The page itself."""
    return sent(request, "index.html")


@router.get("/page/{name}")
async def part(request: Request, name: str) -> Response:
    """What the page is made of."""
    return sent(request, name)


def sent(request: Request, name: str) -> Response:
    """A file by its name, or that it is still what the browser has. Raises HTTPException."""
    found = files().get(name)
    if found is None:
        raise HTTPException(404, f"there is no page {name[:80]!r}.")
    body, kind, tag = found
    headers = HEADERS | {"etag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(body, media_type=kind, headers=headers)


@cache
def files() -> dict[str, tuple[bytes, str, str]]:
    """Every file of the page: its bytes, its kind and its tag; read once, so that no name reaches the disk."""
    read = {path.name: path.read_bytes() for path in FOLDER.iterdir() if path.suffix in KINDS}
    return {
        name: (body, KINDS[Path(name).suffix], f'"{hashlib.sha256(body).hexdigest()[:16]}"')
        for name, body in read.items()
    }
