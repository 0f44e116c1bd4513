"""LoRA adapters that come and go while the server runs, by vLLM's two routes. For admins alone: a path is read."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response
from pydantic import Field

from brolly.errors import CheckpointError
from brolly.serve.app import house
from brolly.serve.errors import Refused
from brolly.serve.names import adopt
from brolly.serve.wire.common import ERRORS, Strict

TEXT: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **ERRORS}

router = APIRouter(prefix="/v1", tags=["models"], responses=TEXT)


class LoadAdapter(Strict):
    lora_name: str = Field(min_length=1, max_length=200, description="NAME, or BASE:NAME where several models write")
    lora_path: str = Field(min_length=1, max_length=4096, description="a folder of the server's, in PEFT's layout")


class UnloadAdapter(Strict):
    lora_name: str
    lora_int_id: int | None = Field(None, description="not looked at")


@router.post("/load_lora_adapter", response_model=None)
async def load_lora_adapter(body: LoadAdapter, request: Request) -> Response:
    """Load an adapter and serve it from now on, by its name and as "base:name"."""
    inside, folder = house(request), Path(body.lora_path)
    base = body.lora_name.rpartition(":")[0]
    entries = [inside.find(base)[0]] if base else [entry for entry in inside.entries.values() if not entry.fault]
    cards = [(entry, await inside.read(entry)) for entry in entries]
    able = {entry.name: entry for entry, card in cards if card.verbs}
    found, short = await asyncio.to_thread(adopt, able, body.lora_name, folder)
    if len(found) > 1:  # one that does not say whose it is belongs to what writes
        writes = {entry.name for entry, card in cards if "generate" in card.verbs}
        for entry in [entry for entry in found if entry.name not in writes]:
            inside.drop_adapter(entry, short)
            found.remove(entry)
    if len(found) != 1:
        for entry in found:
            inside.drop_adapter(entry, short)
        names = ", ".join(name for name, entry in able.items() if entry.target is None) or "none"
        raise Refused(
            f"The adapter does not say which of the models here is its base; there are {names}. Say BASE:{short}.",
            param="lora_name",
        )
    try:
        async with inside.use(f"{found[0].name}:{short}"):
            pass
    except BaseException as error:
        inside.drop_adapter(found[0], short)
        if isinstance(error, CheckpointError):
            raise Refused(str(error), param="lora_path") from None
        raise
    return PlainTextResponse(f"Success: LoRA adapter '{short}' added successfully.")


@router.post("/unload_lora_adapter", response_model=None)
async def unload_lora_adapter(body: UnloadAdapter, request: Request) -> Response:
    """Serve an adapter no more."""
    inside = house(request)
    entry, adapter = inside.find(body.lora_name)
    if adapter is None:
        raise Refused(f"{body.lora_name!r:.200} is a model, and no adapter.", 404, param="lora_name")
    inside.drop_adapter(entry, adapter)
    return PlainTextResponse(f"Success: LoRA adapter '{adapter}' removed successfully.")
