"""Files that come with a form (multipart/form-data): spooled to nameless temporary files, which end with the request.

How large and how slow an upload may be is `guard`'s to say.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.formparsers import MultiPartException, MultiPartParser

from brolly.serve.errors import Refused

M = TypeVar("M", bound=BaseModel)
MAX_FILES, MAX_FIELDS, MAX_FIELD = 16, 256, 1 << 20


def form(model: type[M]) -> Callable[[Request], AsyncIterator[M]]:
    """A FastAPI dependency: the form as `model`; its fields that end in [] are lists, and its files live as long as the
    answer takes. It raises Refused and RequestValidationError."""

    async def read(request: Request) -> AsyncIterator[M]:
        if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
            raise Refused("this takes a form; send it as multipart/form-data.", 415)
        parser = MultiPartParser(
            request.headers, request.stream(), max_files=MAX_FILES, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD
        )
        try:
            data = await parser.parse()
        except MultiPartException as error:
            raise Refused(f"the form cannot be read: {error.message}") from None
        except (ValueError, LookupError, AttributeError):  # headers of parts that are none
            raise Refused("the form cannot be read; it is no multipart/form-data as RFC 7578 has it.") from None
        try:
            yield validated(model, fields(model, data.multi_items()))
        finally:
            await data.close()

    return read


def fields(model: type[BaseModel], items: list[tuple[str, Any]]) -> dict[str, Any]:
    """Each field under its name: what the model has under "name[]" as a list, however often it was sent."""
    lists = {f.alias or name for name, f in model.model_fields.items() if (f.alias or name).endswith("[]")}
    found: dict[str, Any] = {}
    for name, value in items:
        name = re.sub(r"\[\d*\]$", "[]", name)
        several = name if name.endswith("[]") else f"{name}[]"
        if several in lists:
            found.setdefault(several, []).append(value)
        else:
            found[name] = value
    return found


def validated(model: type[M], given: dict[str, Any]) -> M:
    """Raises RequestValidationError."""
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise RequestValidationError([{**e, "loc": ("body", *e["loc"])} for e in error.errors()], body=given) from None


def described(model: type[BaseModel]) -> dict[str, Any]:
    """A route's `openapi_extra`: the form that it takes."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}
