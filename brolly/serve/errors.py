"""What goes wrong → status, and the envelope that each dialect's clients read."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match

from brolly.errors import (
    BadAnswer,
    BrollyError,
    BudgetSpent,
    Busy,
    CheckpointError,
    ContextTooLong,
    DiskFull,
    Filtered,
    Gated,
    HubError,
    KeyRefused,
    MediaError,
    MissingExtra,
    NotFound,
    Offline,
    OptionError,
    Overloaded,
    QuotaSpent,
    RecipeError,
    RemoteError,
    TemplateError,
    TokenizerError,
    UnknownModel,
    Unreachable,
    UnsupportedTask,
)
from brolly.serve.account import current

OVERLOADED = "upstream_overloaded"
# the first that fits: kind, status, OpenAI's type, OpenAI's code
ROWS: tuple[tuple[type[BrollyError], int, str, str | None], ...] = (
    (Busy, 429, "rate_limit_error", "rate_limit_exceeded"),
    (ContextTooLong, 400, "invalid_request_error", "context_length_exceeded"),
    (NotFound, 404, "invalid_request_error", "model_not_found"),
    (Gated, 403, "permission_error", "model_gated"),
    (Offline, 503, "server_error", "hub_unreachable"),
    (DiskFull, 507, "server_error", "disk_full"),
    (HubError, 502, "server_error", "hub_error"),
    (UnsupportedTask, 400, "invalid_request_error", "model_not_supported"),
    (UnknownModel, 400, "invalid_request_error", "model_not_supported"),
    (CheckpointError, 500, "server_error", "model_broken"),
    (OptionError, 400, "invalid_request_error", "invalid_value"),
    (MediaError, 400, "invalid_request_error", "invalid_media"),
    (TemplateError, 400, "invalid_request_error", "invalid_prompt"),
    (TokenizerError, 400, "invalid_request_error", "invalid_prompt"),
    (RecipeError, 400, "invalid_request_error", "invalid_value"),
    (MissingExtra, 501, "server_error", "missing_extra"),
    # of a vendor: never 401, as the client's own key was right
    (KeyRefused, 502, "server_error", "upstream_key_refused"),
    (QuotaSpent, 429, "insufficient_quota", "insufficient_quota"),
    (BudgetSpent, 402, "insufficient_quota", "budget_spent"),
    (Filtered, 400, "invalid_request_error", "content_policy_violation"),
    (Overloaded, 503, "server_error", OVERLOADED),
    (Unreachable, 504, "server_error", "upstream_unreachable"),
    (BadAnswer, 502, "server_error", "upstream_bad_answer"),
    (RemoteError, 502, "server_error", "upstream_error"),
)
TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}  # OpenAI's, by status
ANTHROPIC = {
    401: "authentication_error", 402: "billing_error", 403: "permission_error", 404: "not_found_error",
    413: "request_too_large", 429: "rate_limit_error", 503: "overloaded_error", 504: "timeout_error",
    529: "overloaded_error",
}  # fmt: skip
ADDRESS = re.compile(r"\bhttps?://(?:[^\s/@]*@)?([^\s/?#'\",;)]+)[^\s'\",;)]*")  # of which the host may be told
FOLDERS = re.compile(r"(?<![\w./\\:-])(?:~|[A-Za-z]:)?(?:[/\\][^\s/\\:'\"]+)+[/\\](?=[^\s/\\])")
# pydantic's kinds of error → what OpenAI says was expected
EXPECTED = {
    "string_type": "a string", "string_unicode": "a string", "int_type": "an integer", "int_from_float": "an integer",
    "int_parsing": "an integer", "float_type": "a decimal number", "float_parsing": "a decimal number",
    "bool_type": "a boolean", "bool_parsing": "a boolean", "list_type": "an array", "dict_type": "an object",
    "tuple_type": "an array", "model_type": "an object", "model_attributes_type": "an object",
    "dataclass_type": "an object", "finite_number": "a finite number", "bytes_type": "a string",
}  # fmt: skip
BOUNDS = {
    "greater_than": ("below_min_value", ">", "gt"), "greater_than_equal": ("below_min_value", ">=", "ge"),
    "less_than": ("above_max_value", "<", "lt"), "less_than_equal": ("above_max_value", "<=", "le"),
}  # fmt: skip
JSON_NAMES = {
    str: "a string", bool: "a boolean", int: "an integer", float: "a decimal number", list: "an array",
    dict: "an object", type(None): "null",
}  # fmt: skip


class Refused(BrollyError):
    """A request that cannot be granted as it stands, with the status, type, code and parameter to tell."""

    def __init__(
        self, message: str, status: int = 400, kind: str = "invalid_request_error", code: str | None = None,
        param: str | None = None, headers: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status, self.kind, self.code, self.param, self.headers = status, kind, code, param, headers or {}


def told(error: BaseException, method: str = "", path: str = "") -> Refused:
    """Any error as one that can be told; what is our fault tells nothing of the inside."""
    match error:
        case Refused():
            return error
        case RequestValidationError():
            return invalid(error.errors(), error.body)
        case HTTPException():
            return refusal(error, method, path)
        case BrollyError():
            for known, status, kind, code in ROWS:
                if isinstance(error, known):
                    wait = {}
                    if isinstance(error, Busy | Overloaded):
                        wait = {"retry-after": str(max(1, round(error.retry_after)))}
                    ours = status >= 500 or isinstance(error, TemplateError | TokenizerError)
                    text = ADDRESS.sub(r"\1", str(error)) if isinstance(error, RemoteError | NotFound) else str(error)
                    return Refused(bare(text) if ours else text, status, kind, code, headers=wait)
            return Refused(bare(str(error)), 500, "server_error")
    return Refused(
        "The server failed at this request; its log tells why, under this request's id.", 500, "server_error"
    )


def bare(text: str) -> str:
    """A message without the folders of this machine: where files lie is nobody's business but the log's."""
    return FOLDERS.sub("", text)


def refusal(error: HTTPException, method: str, path: str) -> Refused:
    """What the routing refuses: no such path, no such method; a body that cannot be read."""
    status, headers = error.status_code, dict(error.headers or {})
    kind = TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    if isinstance(error.__cause__, Refused):
        return error.__cause__
    if status == 404 and error.detail == "Not Found":
        text = f"There is no {method} {path:.200} here; GET /openapi.json lists what there is."
        return Refused(text, 404, kind, "unknown_url", headers=headers)
    if status == 405:
        allowed = headers.get("Allow") or headers.get("allow")
        hint = f"; it takes {allowed}" if allowed else ""
        return Refused(f"{path:.200} does not take {method}{hint}.", 405, kind, "method_not_allowed", headers=headers)
    return Refused(str(error.detail), status, kind, headers=headers)


def invalid(errors: Sequence[Any], body: Any) -> Refused:
    """What pydantic found, as OpenAI tells it: the parameter's name, what was expected and what was got."""
    if not errors:
        return Refused("The request is not valid.")
    # of a union's many complaints, the one that came furthest into the body is about what the client meant
    first = max(errors, key=lambda e: len(named(e["loc"], body)))
    kind, context = first["type"], first.get("ctx") or {}
    parts = named(first["loc"], body)
    param = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in parts).removeprefix(".") or None
    value = first.get("input")
    if kind == "json_invalid":
        return Refused("The body is not JSON: " + str(context.get("error", "it cannot be read")) + ".")
    if kind == "missing":
        if param is None:
            return Refused("There is no body; expected a JSON object.", code="missing_required_parameter")
        return Refused(f"Missing required parameter: '{param}'.", code="missing_required_parameter", param=param)
    if kind == "extra_forbidden":
        return Refused(f"Unknown parameter: '{param}'.", code="unknown_parameter", param=param)
    at = f"'{param}'" if param else "the body"
    if kind in EXPECTED:
        got = JSON_NAMES.get(type(value), "something else")
        text = f"Invalid type for {at}: expected {EXPECTED[kind]}, but got {got} instead."
        return Refused(text, code="invalid_type", param=param)
    if kind in BOUNDS:
        code, sign, key = BOUNDS[kind]
        number = "integer" if type(value) is int else "decimal"
        text = f"Invalid {at}: expected a value {sign} {context.get(key)}, but got {value!r:.80} instead."
        return Refused(text, code=f"{number}_{code}", param=param)
    if kind in ("literal_error", "enum"):
        text = f"Invalid value: {value!r:.80}. Supported values of {at} are: {context.get('expected')}."
        return Refused(text, code="invalid_value", param=param)
    if kind in ("too_long", "too_short", "string_too_long", "string_too_short"):
        code = ("array" if kind.startswith("too") else "string") + ("_above" if "long" in kind else "_below")
        return Refused(f"Invalid {at}: {first['msg']}.", code=f"{code}_{code_end(kind)}", param=param)
    return Refused(f"Invalid {at}: {first['msg']}.", code="invalid_value", param=param)


def code_end(kind: str) -> str:
    """The end of OpenAI's code for a length out of its range."""
    return "max_length" if "long" in kind else "min_length"


def named(where: Sequence[Any], body: Any) -> list[Any]:
    """A place as the client knows it: pydantic's own steps (members of unions, "body") are left out."""
    steps = list(where[1:] if where and where[0] in ("body", "query", "path", "header") else where)
    if where and where[0] != "body":
        return steps
    found: list[Any] = []
    for n, step in enumerate(steps):
        if (
            isinstance(body, dict)
            and step in body
            or isinstance(body, list)
            and isinstance(step, int)
            and 0 <= step < len(body)
        ):
            body = body[step]
        elif n < len(steps) - 1 or not isinstance(body, dict):
            continue
        found.append(step)
    return found


def envelope(path: str, refused: Refused, request_id: str = "") -> dict[str, Any]:
    """The error as the clients of this path expect it."""
    message = str(refused).encode("utf-8", "replace").decode()  # half a surrogate pair cannot be sent
    if path.startswith("/v1/messages"):
        kind = ANTHROPIC.get(refused.status, "api_error" if refused.status >= 500 else "invalid_request_error")
        return {"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id or None}
    if path.startswith("/api/"):
        return {"error": message}
    inner = {"message": message, "type": refused.kind, "param": refused.param, "code": refused.code}
    if path.endswith("/rerank"):  # Cohere's and Jina's clients read the message, ours and vLLM's the error
        return {"id": request_id or None, "message": message, "error": inner}
    return {"error": inner}


def noted(error: BaseException, method: str, path: str) -> Refused:
    """What the client is told of an error, noted in the request's account; what is our fault goes to the log."""
    refused, account = told(error, method, path), current.get()
    kind = type(error).__name__
    if account is not None:
        known = isinstance(error, BrollyError | HTTPException | RequestValidationError)
        account.error = refused.code or refused.kind if known else kind
    if refused.status >= 500 and not isinstance(error, Refused | HTTPException):
        known = isinstance(error, BrollyError)
        logging.getLogger("brolly.serve").error(
            "%s %s: %s", method, path[:200], error if known else kind,
            extra={"request_id": account.id if account else ""}, exc_info=None if known else error,
        )  # fmt: skip
    return refused


def respond(error: BaseException, method: str, path: str) -> JSONResponse:
    """The response to an error, which is noted."""
    refused, account = noted(error, method, path), current.get()
    request_id = account.id if account is not None else ""
    # Anthropic has a status of its own for a vendor without room
    status = 529 if path.startswith("/v1/messages") and refused.code == OVERLOADED else refused.status
    return JSONResponse(envelope(path, refused, request_id), status, headers=refused.headers)


def methods(request: Request) -> list[str]:
    """All that the request's path takes."""

    def taken(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)

    return [method for method in ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT") if taken(method)]


async def answer(request: Request, error: Exception) -> JSONResponse:
    """FastAPI's handler for every kind of error."""
    root = request.scope.get("root_path", "")
    if (
        isinstance(error, HTTPException) and error.status_code == 405
    ):  # the routing names its first route's methods only
        error.headers = {"Allow": ", ".join(methods(request))}
    return respond(error, request.method, request.url.path.removeprefix(root))
