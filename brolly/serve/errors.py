"""What goes wrong → status, and the envelope that each dialect's clients read."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from brolly.errors import (
    BrollyError,
    Busy,
    ContextTooLong,
    Gated,
    MediaError,
    MissingExtra,
    NotFound,
    OptionError,
    TemplateError,
    TokenizerError,
    UnsupportedTask,
)

# the first that fits: kind, status, OpenAI's type, OpenAI's code
ROWS: tuple[tuple[type[BrollyError], int, str, str | None], ...] = (
    (Busy, 429, "rate_limit_error", "rate_limit_exceeded"),
    (ContextTooLong, 400, "invalid_request_error", "context_length_exceeded"),
    (NotFound, 404, "invalid_request_error", "model_not_found"),
    (Gated, 403, "permission_error", "model_gated"),
    (UnsupportedTask, 400, "invalid_request_error", "model_not_supported"),
    (OptionError, 400, "invalid_request_error", "invalid_value"),
    (MediaError, 400, "invalid_request_error", "invalid_media"),
    (TemplateError, 400, "invalid_request_error", "invalid_prompt"),
    (TokenizerError, 400, "invalid_request_error", "invalid_prompt"),
    (MissingExtra, 501, "server_error", "missing_extra"),
)
ANTHROPIC = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    405: "invalid_request_error", 413: "request_too_large", 422: "invalid_request_error", 429: "rate_limit_error",
    503: "overloaded_error",
}  # fmt: skip


class Refused(BrollyError):
    """A request that cannot be granted as it stands, with the status, type, code and parameter to tell."""

    def __init__(
        self, message: str, status: int = 400, kind: str = "invalid_request_error", code: str | None = None,
        param: str | None = None, headers: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status, self.kind, self.code, self.param, self.headers = status, kind, code, param, headers or {}


def told(error: BaseException) -> Refused:
    """Any error as one that can be told; what is our fault tells nothing of the inside."""
    match error:
        case Refused():
            return error
        case RequestValidationError():
            first = error.errors()[0]
            where = [str(part) for part in first["loc"] if part != "body"]
            at = ".".join(where)
            return Refused(f"{at}: {first['msg']}" if at else str(first["msg"]), param=at or None)
        case HTTPException():
            kind = {401: "authentication_error", 403: "permission_error"}.get(
                error.status_code, "invalid_request_error"
            )
            return Refused(str(error.detail), error.status_code, kind, headers=dict(error.headers or {}))
        case BrollyError():
            for known, status, kind, code in ROWS:
                if isinstance(error, known):
                    wait = {"retry-after": str(max(1, round(error.retry_after)))} if isinstance(error, Busy) else {}
                    return Refused(str(error), status, kind, code, headers=wait)
            return Refused(str(error), 500, "server_error")
    return Refused("The server failed at this request; its log tells why.", 500, "server_error")


def envelope(path: str, refused: Refused, request_id: str = "") -> dict[str, Any]:
    """The error as the clients of this path expect it."""
    if path.startswith("/v1/messages"):
        kind = ANTHROPIC.get(refused.status, "api_error")
        inner: dict[str, str | None] = {"type": kind, "message": str(refused)}
        return {"type": "error", "error": inner, "request_id": request_id or None}
    if path.startswith("/api/"):
        return {"error": str(refused)}
    inner = {"message": str(refused), "type": refused.kind, "param": refused.param, "code": refused.code}
    return {"error": inner}


async def answer(request: Request, error: Exception) -> JSONResponse:
    """The response to an error: FastAPI's handler for every kind."""
    refused = told(error)
    body = envelope(request.url.path, refused, getattr(request.state, "id", ""))
    return JSONResponse(body, refused.status, headers=refused.headers)
