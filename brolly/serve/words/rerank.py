"""Documents in the order in which they answer a query. An embedder, which judges no pairs, tells cosines instead."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any
from uuid import uuid4

from fastapi import APIRouter, Request
from fastapi.responses import Response

from brolly.errors import ContextTooLong, OptionError
from brolly.serve.app import house
from brolly.serve.elsewhere import Elsewhere
from brolly.serve.errors import Refused
from brolly.serve.provenance import provenance
from brolly.serve.streams import unless_left
from brolly.serve.tell import reply
from brolly.serve.turns import turns
from brolly.serve.wire.common import ERRORS
from brolly.serve.wire.rerank import RERANK_ERRORS, RerankAnswer, RerankRequest, ScoreAnswer, ScoreRequest

router = APIRouter(tags=["rerank"])


@router.post("/v1/rerank", response_model=RerankAnswer, responses=RERANK_ERRORS)
@router.post("/rerank", response_model=RerankAnswer, responses=RERANK_ERRORS, operation_id="rerank_as_jina")
async def rerank(request: Request, body: RerankRequest) -> Response:
    """Documents by falling relevance, as Jina and Cohere's v1 answer."""
    return await unless_left(request, ranked(request, body, body.return_documents is not False))


@router.post("/v2/rerank", response_model=RerankAnswer, responses=RERANK_ERRORS)
async def rerank_v2(request: Request, body: RerankRequest) -> Response:
    """Documents by falling relevance, as Cohere's v2 answers."""
    return await unless_left(request, ranked(request, body, bool(body.return_documents)))


@router.post("/v1/score", response_model=ScoreAnswer, responses=ERRORS)
@router.post("/score", response_model=ScoreAnswer, responses=ERRORS, operation_id="score_as_vllm")
async def score(request: Request, body: ScoreRequest) -> Response:
    """How well texts go with each other, as vLLM answers."""
    return await unless_left(request, scored(request, body))


async def ranked(request: Request, body: RerankRequest, with_documents: bool) -> Response:
    documents = [one if isinstance(one, str) else one.text for one in body.documents]
    pairs = [(body.query, documents)]
    [scores], warnings, headers = await judged(request, body.model, pairs, body.instruction, body.truncate)
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[: body.top_n]
    results: list[dict[str, Any]] = [{"index": i, "relevance_score": scores[i]} for i in order]
    if with_documents:
        results = [{**row, "document": {"text": documents[row["index"]]}} for row in results]
    found = {"id": f"rerank-{uuid4().hex}", "model": body.model, "results": results, "meta": {"warnings": warnings}}
    return reply(found, headers)


async def scored(request: Request, body: ScoreRequest) -> Response:
    first, second = ([t] if isinstance(t, str) else t for t in (body.text_1, body.text_2))
    if len(first) > 1 and len(first) != len(second):
        raise Refused(
            f"text_1 has {len(first)} texts and text_2 {len(second)}; expected one text in text_1, or as many as in "
            "text_2.", param="text_1",
        )  # fmt: skip
    pairs = [(first[0], second)] if len(first) == 1 else [(a, [b]) for a, b in zip(first, second, strict=True)]
    every, _, headers = await judged(request, body.model, pairs, body.instruction, body.truncate)
    rows = [{"index": i, "object": "score", "score": s} for i, s in enumerate(s for scores in every for s in scores)]
    found = {"id": f"score-{uuid4().hex}", "object": "list", "created": int(time.time())}
    return reply({**found, "model": body.model, "data": rows}, headers)


async def judged(
    request: Request, name: str, pairs: Sequence[tuple[str, Sequence[str]]], instruction: str | None, truncate: bool
) -> tuple[list[list[float]], list[str], dict[str, str]]:
    """The scores of each query's documents in the order given, what was cut, and whose scores they are."""
    rooms = house(request)
    verbs = (await rooms.read(rooms.find(name)[0])).verbs
    verb = "embed" if "embed" in verbs and "rerank" not in verbs else "rerank"
    if verb == "embed" and instruction is not None:
        raise OptionError("this model embeds texts and takes no instruction; leave it out.")
    async with rooms.use(name, verb) as use:
        model = use.model

        def work() -> tuple[list[list[float]], list[str]]:
            warnings: list[str] = []
            judge: Callable[..., list[float]] = cosines if verb == "embed" else relevances
            found = []
            for query, documents in pairs:
                try:
                    found.append(judge(model, query, documents, instruction, truncate=False))
                except ContextTooLong as error:
                    if not truncate:
                        raise
                    warnings.append(f"Cut at its end: {error}")
                    found.append(judge(model, query, documents, instruction, truncate=True))
            return found, warnings

        return *await turns(request, model).run(work), provenance(use).headers


def relevances(
    model: Any, query: str, documents: Sequence[str], instruction: str | None, truncate: bool
) -> list[float]:
    """By a network that judges pairs, in the order of the documents."""
    scores = [0.0] * len(documents)
    for one in model.rerank(query, documents, instruction=instruction, truncate=truncate):
        scores[one.index] = one.score
    return scores


def cosines(model: Any, query: str, documents: Sequence[str], _: str | None, truncate: bool) -> list[float]:
    """By an embedder, in the order of the documents."""
    own = {} if isinstance(model, Elsewhere) else {"truncate": truncate}  # there, as its vendor does by itself
    asked = model.embed([query], role="query", **own)
    told = model.embed(list(documents), role="document", **own)
    found: list[float] = model.similarity(asked, told)[0].tolist()
    return found
