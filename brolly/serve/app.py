"""The application: its routes, and what every request passes. `create(settings)` is all that uvicorn and Ray need."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from pkgutil import iter_modules

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from brolly import __version__
from brolly.errors import BrollyError
from brolly.serve import words
from brolly.serve.errors import answer
from brolly.serve.house import House
from brolly.serve.settings import Settings


def create(settings: Settings) -> FastAPI:
    """A server's application; its house opens and closes with it."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        await app.state.house.start()
        try:
            yield
        finally:
            await app.state.house.close()

    app = FastAPI(title="brolly", version=__version__, lifespan=life, docs_url=None, redoc_url=None)
    app.state.settings, app.state.house = settings, House(settings)
    for kind in (BrollyError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, answer)
    for module in sorted(m.name for m in iter_modules(words.__path__)):
        app.include_router(import_module(f"{words.__name__}.{module}").router)
    return app


def house(request: Request) -> House:
    """The models, for a route."""
    found: House = request.app.state.house
    return found
