"""OpenAI's /v1/vector_stores."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from brolly.serve.wire.common import Answer, Given, Listed, Open, Strict, Words

Attributes = Annotated[dict[str, str | float | bool], Field(max_length=16)]


class Comparison(Given):
    type: Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin"]
    key: str = Field(max_length=512)
    value: str | float | bool | Annotated[list[str | float], Field(max_length=1000)]


class Compound(Given):
    type: Literal["and", "or"]
    filters: list[Comparison | Compound] = Field(max_length=100)


Filter = Comparison | Compound


class Expires(Open):
    anchor: Literal["last_active_at"] = "last_active_at"
    days: int = Field(ge=1, le=365)


class StoreRequest(Strict):
    name: str | None = Field(None, max_length=512)
    description: str | None = Field(None, max_length=4096)
    file_ids: list[str] | None = Field(None, max_length=500)
    expires_after: Expires | None = None
    chunking_strategy: dict[str, Any] | None = Field(None, description="auto; chunks are cut as `brolly index` does")
    metadata: Words | None = Field(None, max_length=16)
    embedding_model: str | None = Field(None, description="brolly's own: one of the models here (default: mini-embed)")


class StoreChange(Strict):
    name: str | None = Field(None, max_length=512)
    expires_after: Expires | None = None
    metadata: Words | None = Field(None, max_length=16)


class Ranking(Open):
    ranker: str | None = None
    score_threshold: float | None = Field(None, ge=0, le=1)


class SearchRequest(Strict):
    query: str | list[str]
    filters: Filter | None = None
    max_num_results: int = Field(10, ge=1, le=50)
    ranking_options: Ranking | None = None
    rewrite_query: bool | None = None


class FileRequest(Strict):
    file_id: str
    attributes: Attributes | None = None
    chunking_strategy: dict[str, Any] | None = None


class AttributesRequest(Strict):
    attributes: Attributes | None


class BatchRequest(Strict):
    file_ids: list[str] | None = Field(None, min_length=1, max_length=500)
    files: list[FileRequest] | None = Field(None, min_length=1, max_length=500)
    attributes: Attributes | None = None
    chunking_strategy: dict[str, Any] | None = None


class Counts(Answer):
    in_progress: int
    completed: int
    failed: int
    cancelled: int
    total: int


class StoreBody(Answer):
    id: str
    object: Literal["vector_store"]
    created_at: int
    name: str
    description: str | None
    usage_bytes: int
    file_counts: Counts
    status: Literal["expired", "in_progress", "completed"]
    expires_after: dict[str, Any] | None
    expires_at: int | None
    last_active_at: int | None
    metadata: dict[str, str]


class StoreList(Listed):
    data: list[StoreBody]


class FileFault(Answer):
    code: str
    message: str


class StoredFile(Answer):
    id: str
    object: Literal["vector_store.file"]
    created_at: int
    last_error: FileFault | None
    status: Literal["in_progress", "completed", "cancelled", "failed"]
    usage_bytes: int
    vector_store_id: str
    attributes: dict[str, Any]
    chunking_strategy: dict[str, Any]


class StoredFileList(Listed):
    data: list[StoredFile]


class BatchBody(Answer):
    id: str
    object: Literal["vector_store.files_batch"]
    created_at: int
    vector_store_id: str
    status: Literal["in_progress", "completed", "cancelled", "failed"]
    file_counts: Counts


class Content(Answer):
    type: Literal["text"]
    text: str


class SearchResult(Answer):
    file_id: str
    filename: str
    score: float
    attributes: dict[str, Any]
    content: list[Content]


class SearchPage(Answer):
    object: Literal["vector_store.search_results.page"]
    search_query: list[str]
    data: list[SearchResult]
    has_more: bool
    next_page: str | None


class ContentPage(Answer):
    object: Literal["vector_store.file_content.page"]
    data: list[Content]
    has_more: bool
    next_page: str | None
