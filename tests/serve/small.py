"""A small application behind the whole guard, so that tests of it load no model."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from brolly.errors import BrollyError
from brolly.serve.account import current
from brolly.serve.errors import answer
from brolly.serve.guard import Guard, Watch
from brolly.serve.keys import Keys
from brolly.serve.metrics import Metrics
from brolly.serve.server import listen, server
from brolly.serve.settings import Settings
from brolly.verbs import Piece, Usage


class Part(BaseModel):
    text: str


class Body(BaseModel):
    """Something of each kind that bodies have."""

    model_config = ConfigDict(extra="forbid")
    model: str
    messages: list[dict[str, Any]] = []
    temperature: float | None = Field(None, ge=0, le=2)
    n: int = Field(1, ge=1)
    parts: list[Part | str] = Field([], max_length=3)


def small(settings: Settings | None = None, tracing: Any = None) -> FastAPI:
    """The application; its routes say what reached them."""
    settings, metrics = settings or Settings(), Metrics()
    passed = [Middleware(Watch, metrics=metrics, tracing=tracing)]
    if settings.cors:
        passed.append(Middleware(CORSMiddleware, allow_origins=settings.cors, allow_methods=["*"], allow_headers=["*"]))
    passed.append(Middleware(Guard, settings=settings, keys=Keys(settings.api_keys)))
    app = FastAPI(middleware=passed)
    app.state.metrics = metrics
    for kind in (BrollyError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, answer)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/metrics")
    @app.post("/v1/brolly/load")
    @app.post("/api/pull")
    @app.delete("/v1/models/{name:path}")
    async def admin() -> dict[str, str]:
        return {"admin": "yes"}

    @app.post("/v1/echo")
    @app.post("/v1/messages")
    @app.post("/v1/rerank")
    @app.post("/api/chat")
    async def echo(body: Body, request: Request) -> dict[str, Any]:
        return {"got": body.model, "user": request.state.user}

    @app.post("/v1/upload")
    async def upload(request: Request) -> dict[str, int]:
        async with request.form() as form:
            return {"bytes": sum([len(await f.read()) for f in form.values() if not isinstance(f, str)])}

    @app.post("/v1/fail")
    async def fail(body: dict[str, Any]) -> None:
        raise ZeroDivisionError("the inside")

    @app.post("/v1/stream")
    async def stream(body: dict[str, Any]) -> StreamingResponse:
        account = current.get()
        assert account is not None
        account.uses("mini-llm", "chat")

        async def pieces() -> Any:
            count = body["tokens"]
            for n in range(count):
                await asyncio.sleep(body.get("seconds", 0))
                last = n == count - 1
                usage = Usage(7, count, cached_tokens=3) if last else None
                text, reason = "x" * body.get("size", 1), "stop" if last else None
                account.wrote(Piece(text, (n,), finish_reason=reason, usage=usage))
                yield f"data: {text}\n\n".encode()
            yield b"data: [DONE]\n\n"

        return StreamingResponse(pieces(), media_type="text/event-stream")

    return app


def client(
    settings: Settings | None = None, address: str = "127.0.0.1", tracing: Any = None, at: str = "localhost"
) -> TestClient:  # fmt: skip
    """A client of it, from an address, which reached it at another."""
    return TestClient(small(settings, tracing), base_url=f"http://{at}", client=(address, 50000))


if __name__ == "__main__":  # a process of its own, to send signals to: python -m tests.serve.small
    given = Settings(shutdown_seconds=20)
    sock = listen("127.0.0.1", 0)
    found = server(small(given), given)
    found.tell = lambda: print(sock.getsockname()[1], flush=True)
    found.run([sock])
    found.late.cancel()
