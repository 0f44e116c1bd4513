"""Which models are served, each with its card."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from brolly.errors import BrollyError
from brolly.remote.target import COMPATIBLE
from brolly.serve.app import house
from brolly.serve.elsewhere import Elsewhere
from brolly.serve.errors import bare
from brolly.serve.house import Entry, House
from brolly.serve.tell import reply
from brolly.serve.wire.common import ERRORS
from brolly.serve.wire.models import ModelBody, ModelList
from brolly.serve.words import anthropic

router = APIRouter(tags=["models"])


@router.get("/v1/models", response_model=ModelList, responses=ERRORS)
async def models(request: Request) -> Response:
    """Every model that is served, and every adapter as "base:adapter"."""
    inside = house(request)
    entries = list(inside.entries.values())
    bodies = await asyncio.to_thread(lambda: [body for entry in entries for body in _bodies(inside, entry)])
    if "anthropic-version" in request.headers:
        return reply(anthropic.model_page(bodies, request.query_params))
    return reply({"object": "list", "data": bodies})


@router.get("/v1/models/{id:path}", response_model=ModelBody, responses=ERRORS)
async def model(id: str, request: Request) -> Response:
    """One of them, by its name or an alias."""
    inside = house(request)
    entry, adapter = inside.find(id)
    bodies = await asyncio.to_thread(_bodies, inside, entry)
    found = next((b for b in bodies if adapter and b["id"] == f"{entry.name}:{adapter}"), bodies[0])
    found = {**found, "id": id}
    return reply(anthropic.model_info(found) if "anthropic-version" in request.headers else found)


def _bodies(inside: House, entry: Entry) -> list[dict[str, Any]]:
    """The model, then its adapters; may read the files' headers."""
    about = _card(inside, entry)
    made = {
        "id": entry.name, "object": "model", "created": entry.created, "owned_by": _owner(entry),
        "max_model_len": about["context_length"], "brolly": about,
    }  # fmt: skip
    adapters = [f"{entry.name}:{name}" for name in entry.adapters]
    own = {**about, "aliases": [], "adapter_of": entry.name}
    return [made, *({**made, "id": name, "brolly": own} for name in adapters)]


def _card(inside: House, entry: Entry) -> dict[str, Any]:
    loaded: dict[str, Any] = {"loaded": entry.model is not None, "aliases": list(entry.aliases)}
    more: dict[str, Any] = {}
    if entry.target is not None:
        model: Elsewhere = entry.model
        loaded |= {"loaded": False, "remote": True, "host": entry.target.host}
        more = {
            "context_length": model.traits.context, "max_output": model.traits.max_output, "verbs": list(entry.verbs),
        }  # fmt: skip
        if "chat" in entry.verbs:  # as far as anybody tells
            more["modalities"] = {"in": ["text", *sorted(model.traits.reads)], "out": ["text"]}
    try:
        card = inside.card(entry)
        kind, size, licence = card.kind, card.parameters, card.licence
        return {
            "kind": kind.kind, "family": kind.family, "size_class": size.size_class,
            "parameters": {"total": size.total, "activated": size.activated},
            "precision": size.precision, "quantization": size.quantization,
            "context_length": card.needs.context_length,
            "modalities": {"in": list(kind.modalities_in), "out": list(kind.modalities_out)},
            "licence": {
                "id": licence.id, "name": licence.name, "commercial": licence.commercial,
                "free_and_open": licence.free_and_open, "url": licence.url,
            },
            "rules": [
                {"id": r.id, "name": r.name, "outcome": r.outcome, "article": r.article, "because": r.because}
                for r in card.rules
            ],
            "verbs": list(card.verbs), **loaded, **more,
        }  # fmt: skip
    except BrollyError as error:
        return {"context_length": None, "verbs": [], "error": bare(str(error)), **loaded, **more}


def _owner(entry: Entry) -> str:
    """Who publishes it: its vendor, or the first half of "org/name"."""
    if entry.target is not None:
        return entry.target.host if entry.target.vendor.name == COMPATIBLE else entry.target.vendor.title
    owner, slash, rest = entry.name.partition("/")
    return owner if slash and "/" not in rest and owner not in ("", ".", "..", "~") else "brolly"
