"""What is in memory, and loading and unloading it: for `brolly ps`, `load` and `unload`, and the web page."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import Field

from brolly.errors import BrollyError
from brolly.serve import memory
from brolly.serve.app import house
from brolly.serve.errors import bare, envelope, told
from brolly.serve.house import Entry, House
from brolly.serve.streams import event
from brolly.serve.tell import reply
from brolly.serve.wire.common import ERRORS, Answer, Strict

router = APIRouter(prefix="/v1/brolly", tags=["models"], responses=ERRORS)

BEAT = 0.25  # seconds between two events of a load


class LoadRequest(Strict):
    model: str
    stream: bool = False
    keep_alive: float | None = Field(None, description="seconds that it stays idle; below 0: for ever; 0: not at all")
    pin: bool | None = Field(None, description="whether it is never unloaded")


class UnloadRequest(Strict):
    model: str


class Held(Answer):
    """A model that is in memory or on its way."""

    name: str
    state: str = Field(
        description="loaded, leaving (when its requests are done), loading, waiting for memory; or elsewhere: it runs "
        "at the host that `device` names, and is always there"
    )
    bytes: int = Field(description="weights, keys and values, and workspace")
    cache_bytes: int = Field(description="of these, the most that keys and values may take")
    uses: int = Field(description="requests that run on it or wait for it")
    until: float | None = Field(description="when it goes unless it is used, in seconds since 1970; null: no such time")
    pinned: bool
    device: str | None
    dtype: str | None
    verbs: list[str]


class Failed(Answer):
    name: str
    error: str


class Memory(Answer):
    memory: int = Field(description="bytes for models")
    used: int
    process: int = Field(description="bytes that the server's process takes in all")
    device: str
    models: list[Held]
    failed: list[Failed] = Field(description="whose load failed just now")


class Carded(Answer):
    name: str
    aliases: list[str]
    adapters: list[str]
    error: str | None = Field(description="why there is no card")
    card: dict[str, Any] | None = Field(description="as `brolly identify --json` tells it")


class Cards(Answer):
    models: list[Carded]


@router.get("/ps", response_model=Memory)
async def ps(request: Request) -> Response:
    """What is in memory, how much it takes, until when, and who uses it."""
    inside = house(request)
    entries = [entry for entry in inside.entries.values() if inside.state(entry) not in ("away", "failed")]
    failed = [
        {"name": e.name, "error": bare(str(e.failed[0]))}
        for e in inside.entries.values()
        if inside.state(e) == "failed"
    ]
    return reply(
        {
            "memory": inside.ledger.total, "used": inside.ledger.used, "process": memory.taken(),
            "device": inside.device, "models": [held(inside, entry) for entry in entries], "failed": failed,
        }
    )  # fmt: skip


@router.get("/models", response_model=Cards)
async def models(request: Request) -> Response:
    """Every model with its whole card."""
    inside = house(request)

    def carded(entry: Entry) -> dict[str, Any]:
        card, error = None, None
        try:
            card = inside.card(entry).json() | {"path": None}  # where files lie is nobody's business
            card["verbs_why"] = bare(card["verbs_why"])
            card["findings"] = [{**found, "message": bare(found["message"])} for found in card["findings"]]
        except (BrollyError, OSError) as fault:
            error = bare(str(fault))
        return {
            "name": entry.name, "aliases": entry.aliases, "adapters": list(entry.adapters),
            "error": error, "card": card,
        }  # fmt: skip

    entries = list(inside.entries.values())
    return reply({"models": await asyncio.to_thread(lambda: [carded(entry) for entry in entries])})


@router.post("/load", response_model=Held)
async def load(body: LoadRequest, request: Request) -> Response:
    """Bring a model into memory; with `stream`, events tell how far it has come, the last one what is held."""
    inside = house(request)
    entry, _ = inside.find(body.model)
    if not body.stream:
        await inside.load(body.model, keep_alive=body.keep_alive, pin=body.pin)
        return reply(held(inside, entry))

    async def events() -> AsyncIterator[bytes]:
        task = asyncio.create_task(inside.load(body.model, keep_alive=body.keep_alive, pin=body.pin))
        try:
            await asyncio.sleep(0)
            while not task.done():
                completed, total = inside.progress(entry)
                about = {"name": entry.name, "state": inside.state(entry), "completed": completed, "total": total}
                yield event(about)
                await asyncio.wait([task], timeout=BEAT)
            await task
            yield event(held(inside, entry))
        except Exception as error:
            yield event(envelope(request.url.path, told(error)))
        finally:
            task.cancel()  # the load itself goes on for others who wait

    return StreamingResponse(events(), media_type="text/event-stream", headers={"cache-control": "no-store"})


@router.post("/unload", response_model=Held)
async def unload(body: UnloadRequest, request: Request) -> Response:
    """Give a model's memory back: at once, or when the requests that use it are done (its state is then "leaving")."""
    inside = house(request)
    return reply(held(inside, await inside.unload(body.model)))


def held(inside: House, entry: Entry) -> dict[str, Any]:
    """One row of `ps`."""
    share, model = entry.share, entry.model
    until = share.until()
    return {
        "name": entry.name, "state": inside.state(entry), "bytes": share.n_bytes, "cache_bytes": share.cache_bytes,
        "uses": share.uses, "pinned": share.pinned,
        "until": None if until is None else round(time.time() + until - inside.clock(), 1),
        "device": entry.target.host if entry.target else str(model.device) if model else None,
        "dtype": str(model.dtype).removeprefix("torch.") if model and not entry.target else None,
        "verbs": list(entry.verbs),
    }  # fmt: skip
