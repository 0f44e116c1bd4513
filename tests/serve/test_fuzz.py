"""The short form of fuzz.py: hostile bodies to every route are refused or answered, and none is a failure of ours."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx")

from brolly.serve.app import create  # noqa: E402
from brolly.serve.settings import Settings  # noqa: E402
from tests.serve import fuzz  # noqa: E402


def test_hostile_bodies_to_every_route_are_never_a_failure_of_ours() -> None:
    async def send() -> tuple[dict[int, int], list[str], set[str]]:
        app = create(Settings(models=fuzz.MODELS))
        inside = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=inside, base_url="http://localhost", timeout=60) as client,
        ):
            counts, failures = await fuzz.fuzz(client, 300, seed=0)
            return counts, failures, {o.path for o in fuzz.operations(app.openapi())}

    counts, failures, paths = asyncio.run(send())
    assert failures == []
    assert {"/v1/chat/completions", "/v1/embeddings", "/v1/messages", "/api/chat"} <= paths
    assert counts[200] > 10 and counts[400] > 50  # the bodies come near enough to be answered now and then


def test_a_failure_is_told_with_its_case() -> None:
    from tests.serve.small import small

    app = small()

    async def send() -> list[str]:
        inside = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=inside, base_url="http://localhost") as client:
            return (await fuzz.fuzz(client, 60, seed=0))[1]

    failures = asyncio.run(send())
    assert any("/v1/fail" in failure and "500" in failure for failure in failures)
    assert all(failure.startswith("case ") for failure in failures)
