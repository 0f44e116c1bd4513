"""Documents in order, as Cohere (v1, v2) and Jina have it, and vLLM's scores of pairs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from brolly.serve.wire.common import Answer, ErrorBody, Open


class Document(Open):
    text: str


class RerankRequest(Open):
    model: str
    query: str
    documents: list[str | Document] = Field(min_length=1, max_length=10_000)
    top_n: int | None = Field(None, ge=1, le=1 << 20, description="Only the best.")
    return_documents: bool | None = Field(None, description="By default true, and in Cohere's v2 false.")
    instruction: str | None = Field(None, description="What counts as an answer, for a language model that judges.")
    truncate: bool = Field(True, description="Cut what is too long, and say so in meta.warnings; else it is refused.")


class ResultBody(Answer):
    index: int
    relevance_score: float
    document: Document | None = None


class Meta(Answer):
    warnings: list[str]


class RerankAnswer(Answer):
    """The best first. Scores are the model's own: most judges say 0 to 1, an embedder the cosine."""

    id: str
    model: str
    results: list[ResultBody]
    meta: Meta


class RerankError(Answer):
    """`message` for Cohere's and Jina's clients, `error` for OpenAI's and vLLM's."""

    id: str | None
    message: str
    error: ErrorBody


RERANK_ERRORS: dict[int | str, dict[str, Any]] = {"4XX": {"model": RerankError}, "5XX": {"model": RerankError}}

Texts = Annotated[list[str], Field(min_length=1, max_length=10_000)]


class ScoreRequest(Open):
    """One text with each of several, or several pairs."""

    model: str
    text_1: str | Texts
    text_2: str | Texts
    instruction: str | None = None
    truncate: bool = False


class ScoreBody(Answer):
    index: int
    object: Literal["score"]
    score: float


class ScoreAnswer(Answer):
    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[ScoreBody]
