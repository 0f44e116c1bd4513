"""OpenAI's /v1/files."""

from __future__ import annotations

from typing import Literal

from fastapi import UploadFile
from pydantic import Field

from brolly.serve.wire.common import Answer, Listed, Open

Purpose = Literal["assistants", "batch", "fine-tune", "vision", "user_data", "evals"]


class FileForm(Open):
    file: UploadFile
    purpose: Purpose
    anchor: Literal["created_at"] | None = Field(None, alias="expires_after[anchor]")
    seconds: int | None = Field(None, alias="expires_after[seconds]", ge=3600, le=2_592_000)


class FileBody(Answer):
    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: Literal["uploaded", "processed", "error"]
    expires_at: int | None


class FileList(Listed):
    data: list[FileBody]
