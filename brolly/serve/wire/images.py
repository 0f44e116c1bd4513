"""OpenAI's /v1/images: texts and pictures → pictures."""

from __future__ import annotations

from typing import Any

from fastapi import UploadFile
from pydantic import Field

from brolly.serve.wire.common import Answer, Open


class ImagesRequest(Open):
    """What a picture is to show, and in which form it is wanted."""

    model: str | None = None
    prompt: str
    n: int | None = Field(None, ge=1, le=10)
    size: str | None = Field(None, description="As 1024x1024, or auto.")
    quality: str | None = None
    style: str | None = None
    background: str | None = None
    output_format: str | None = None
    output_compression: int | None = Field(None, ge=0, le=100)
    response_format: str | None = Field(None, description="b64_json.")
    seed: int | None = None
    stream: bool | None = None
    user: str | None = None


class EditForm(Open):
    model: str | None = None
    image: list[UploadFile] = Field(alias="image[]", min_length=1, max_length=16)
    mask: UploadFile | None = None
    prompt: str
    n: int | None = Field(None, ge=1, le=10)
    size: str | None = None
    quality: str | None = None
    background: str | None = None
    output_format: str | None = None
    output_compression: int | None = Field(None, ge=0, le=100)
    seed: int | None = None
    stream: bool | None = None
    response_format: str | None = None
    user: str | None = None


class PictureBody(Answer):
    b64_json: str
    revised_prompt: str | None = None


class Drawn(Answer):
    created: int
    data: list[PictureBody]
    output_format: str
    usage: dict[str, Any] | None = None


class VariationForm(Open):
    model: str | None = None
    image: UploadFile
    n: int | None = Field(None, ge=1, le=10)
    size: str | None = None
    response_format: str | None = None
    user: str | None = None


class ModerationsRequest(Open):
    model: str | None = None
    input: str | list[str] | list[dict[str, Any]]
