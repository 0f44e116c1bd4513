"""The application: its routes, and what every request passes. `create(settings)` is all that uvicorn and Ray need."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from pkgutil import iter_modules

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from brolly import __version__
from brolly.errors import BrollyError
from brolly.serve import words
from brolly.serve.desk import Desk
from brolly.serve.errors import answer
from brolly.serve.guard import Guard, Watch
from brolly.serve.house import House
from brolly.serve.keys import Keys
from brolly.serve.metrics import Metrics
from brolly.serve.settings import Settings
from brolly.serve.tracing import Tracing, wanted

FIRST = ("chat", "anthropic", "responses")  # routes are looked at in turn


def create(settings: Settings) -> FastAPI:
    """A server's application; its house opens and closes with it. Raises MissingExtra where traces are asked for."""
    tracing = Tracing() if wanted(settings.otel) else None

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        await app.state.house.start()
        try:
            yield
        finally:
            await app.state.desk.close()
            await app.state.house.close()
            if tracing is not None:
                await asyncio.to_thread(tracing.close)

    metrics, models = Metrics(), House(settings)
    metrics.watch(models)
    passed = [Middleware(Watch, metrics=metrics, tracing=tracing)]
    if settings.cors:
        passed.append(
            Middleware(
                CORSMiddleware,
                allow_origins=settings.cors,
                allow_methods=["*"],
                allow_headers=["*"],
                expose_headers=["x-request-id", "retry-after"],
            )  # fmt: skip
        )
    passed.append(Middleware(Guard, settings=settings, keys=Keys(settings.api_keys)))
    app = FastAPI(title="brolly", version=__version__, lifespan=life, docs_url=None, redoc_url=None, middleware=passed)
    app.state.settings, app.state.house, app.state.desk = settings, models, Desk(settings)
    app.state.metrics, app.state.stopping = metrics, False
    for kind in (BrollyError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, answer)
    for module in sorted((m.name for m in iter_modules(words.__path__)), key=lambda name: (name not in FIRST, name)):
        app.include_router(import_module(f"{words.__name__}.{module}").router)
    return app


def house(request: Request) -> House:
    """The models, for a route."""
    found: House = request.app.state.house
    return found
