"""Ollama's list of models: which are here, which are loaded and until when, and what each one is."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from brolly import __version__
from brolly.checkpoint import json_object
from brolly.errors import BrollyError
from brolly.identity import Card
from brolly.media.text import load_tokenizer
from brolly.serve.app import house
from brolly.serve.elsewhere import Elsewhere
from brolly.serve.errors import Refused
from brolly.serve.house import House
from brolly.serve.names import LATEST, Entry
from brolly.serve.provenance import identity_of
from brolly.serve.streams import dumps
from brolly.serve.tell import reply
from brolly.serve.wire.ollama import ERRORS, NameRequest, Processes, Shown, Tags, Version

router = APIRouter(tags=["ollama"])
SPOKEN = "0.12.6"  # the Ollama whose words these are; its clients compare it before they use newer ones
NEVER = datetime(2318, 1, 1, tzinfo=UTC)  # what Ollama says of a model that stays for ever
CAPABILITIES = {"generate": "completion", "chat": "completion", "embed": "embedding"}
PARAMETERS = {
    "temperature": "temperature", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p",
    "repetition_penalty": "repeat_penalty", "max_new_tokens": "num_predict",
}  # fmt: skip


@router.head("/", include_in_schema=False)
async def here() -> Response:
    """Ollama's clients look whether someone is there; GET / is the web page."""
    return Response()


@router.head("/api/version", include_in_schema=False)
@router.get("/api/version", response_model=Version)
async def version() -> Response:
    """Whose words are spoken, and by which brolly."""
    return reply({"version": SPOKEN, "brolly": __version__})


@router.head("/api/tags", include_in_schema=False)
@router.get("/api/tags", response_model=Tags, responses=ERRORS)
async def tags(request: Request) -> Response:
    """Every model that is served, and every adapter as base:adapter."""
    inside = house(request)
    entries = list(inside.entries.values())
    return reply({"models": await asyncio.to_thread(lambda: [row for e in entries for row in listed(inside, e)])})


@router.get("/api/ps", response_model=Processes, responses=ERRORS)
async def ps(request: Request) -> Response:
    """The models in memory, and when each one goes if nobody uses it."""
    inside = house(request)
    rows = []
    for entry in [e for e in inside.entries.values() if e.model is not None and e.target is None]:
        row = (await asyncio.to_thread(listed, inside, entry))[0]
        del row["modified_at"]
        share, n_bytes = entry.share, entry.share.n_bytes
        idle = share.keep_alive if share.uses else (share.until() or 0) - inside.clock()
        stays = share.pinned or share.keep_alive < 0
        goes = NEVER if stays else datetime.fromtimestamp(time.time() + max(idle, 0), UTC)
        row |= {
            "size": n_bytes, "size_vram": 0 if str(inside.device) == "cpu" else n_bytes, "expires_at": stamp(goes),
            "context_length": inside.card(entry).needs.context_length or 0,
        }  # fmt: skip
        rows.append(row)
    return reply({"models": rows})


@router.post("/api/show", response_model=Shown, responses=ERRORS)
async def show(request: Request, body: NameRequest) -> Response:
    """What a model is and can do."""
    inside = house(request)
    entry, _ = inside.find(named(body))
    return reply(await asyncio.to_thread(shown, inside, entry))


@router.post(
    "/api/pull", response_model=None,
    responses={200: {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}}, **ERRORS},
)  # fmt: skip
async def pull(request: Request, body: NameRequest) -> Response:
    """Done already where the model is served; else refused, as a server's models are chosen when it is started."""
    try:
        house(request).find(named(body))
    except BrollyError:
        raise Refused(
            f"{named(body)!r:.200} is not served here, and which models are is said at the start: "
            "`brolly pull` it, then start the server again.", 501, "server_error", "not_implemented",
        ) from None  # fmt: skip
    if body.stream is False:
        return reply({"status": "success"})
    return Response(f"{dumps({'status': 'success'})}\n", media_type="application/x-ndjson")


@router.delete("/api/delete", response_model=None, status_code=501, responses=ERRORS)
@router.post("/api/create", response_model=None, status_code=501, responses=ERRORS)
@router.post("/api/copy", response_model=None, status_code=501, responses=ERRORS)
@router.post("/api/push", response_model=None, status_code=501, responses=ERRORS)
async def fixed(request: Request) -> Response:
    """Refused: a server's models are chosen when it is started."""
    raise Refused(
        f"{request.url.path} changes which models there are, and a server's are said at its start; use `brolly pull`, "
        "`brolly remove` and --alias.", 501, "server_error", "not_implemented",
    )  # fmt: skip


def named(body: NameRequest) -> str:
    name = body.model or body.name
    if not name:
        raise Refused("no model is named; give its name as model.", param="model")
    return name


def listed(inside: House, entry: Entry) -> list[dict[str, Any]]:
    """The rows of a model and its adapters; may read the files' headers."""
    size, digest, about = 0, "", details(None)
    try:
        card = inside.card(entry)
        size, about = card.needs.disk or 0, details(card)
        digest = "" if entry.target else identity_of(card.header.files or (card.header.path,))
    except BrollyError:  # a broken file is listed, and its load tells what is wrong
        pass
    first = entry.name if ":" in entry.name else f"{entry.name}{LATEST}"
    row = {"modified_at": stamp(created(entry)), "size": size, "digest": digest, "details": about}
    names = [first, *entry.aliases, *(f"{entry.name}:{adapter}" for adapter in entry.adapters)]
    return [{"name": name, "model": name, **row} for name in names]


def details(card: Card | None) -> dict[str, Any]:
    """Ollama's few words about a model."""
    if card is None:
        return {
            "parent_model": "", "format": "", "family": "", "families": [], "parameter_size": "",
            "quantization_level": "",
        }  # fmt: skip
    family, size = (card.kind.family or "").lower(), card.parameters
    return {
        "parent_model": (card.kind.base_model or ("",))[0], "format": card.header.format, "family": family,
        "families": [family] if family else [], "parameter_size": counted(size.total),
        "quantization_level": size.quantization or size.precision or "",
    }  # fmt: skip


def counted(n: int | None) -> str:
    """5401856 → 5.4M"""
    for unit, text in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if n and n >= unit:
            return f"{n / unit:.1f}{text}"
    return "" if n is None else str(n)


def shown(inside: House, entry: Entry) -> dict[str, Any]:
    """Everything that /api/show tells; reads the tokenizer of what chats."""
    if entry.target is not None:
        return shown_elsewhere(entry)
    card = inside.card(entry)
    template, family = "", (card.kind.family or "unknown").lower()
    can = {CAPABILITIES[verb]: None for verb in card.verbs if verb in CAPABILITIES}
    if "chat" in card.verbs:
        found = load_tokenizer(card.header).template
        template = found.source_for(tools=False) if found else ""
        can |= {"tools": None} if found and "tools" in found.source_for(tools=True) else {}
        can |= {"thinking": None} if any(word in template for word in ("enable_thinking", "<think>")) else {}
    if "image" in card.kind.modalities_in:
        can["vision"] = None
    path = card.header.folder / "generation_config.json"
    said = json_object(path) if path.is_file() else {}
    rows = [f"{name} {said[key]}" for key, name in PARAMETERS.items() if isinstance(said.get(key), (int, float))]
    config = card.header.config
    info = {
        "general.architecture": family, "general.parameter_count": card.parameters.total,
        "general.license": card.licence.id, f"{family}.context_length": card.needs.context_length,
        f"{family}.embedding_length": config.get("hidden_size"),
        f"{family}.block_count": config.get("num_hidden_layers"),
        f"{family}.attention.head_count": config.get("num_attention_heads"),
    }  # fmt: skip
    return {
        "modelfile": f"FROM {entry.name}\n", "parameters": "\n".join(rows), "template": template,
        "license": card.licence.name or card.licence.id or "", "details": details(card),
        "model_info": {key: value for key, value in info.items() if value is not None}, "capabilities": list(can),
        "modified_at": stamp(created(entry)),
    }  # fmt: skip


def shown_elsewhere(entry: Entry) -> dict[str, Any]:
    """The same of a model of which nobody here has the files."""
    model: Elsewhere = entry.model
    traits = model.traits
    can = [CAPABILITIES[verb] for verb in model.verbs if verb in CAPABILITIES]
    can += ["tools"] if "chat" in model.verbs and "tools" not in traits.lacks else []
    can += ["vision"] if "image" in traits.reads else []
    can += ["thinking"] if traits.thinking not in ("", "none") else []
    info = {"general.architecture": model.family or "unknown", f"{model.family}.context_length": traits.context}
    return {
        "modelfile": f"FROM {entry.name}\n", "parameters": "", "template": "", "license": "", "details": details(None),
        "model_info": {key: value for key, value in info.items() if value is not None}, "capabilities": can,
        "modified_at": stamp(created(entry)),
    }  # fmt: skip


def created(entry: Entry) -> datetime:
    return datetime.fromtimestamp(entry.created, UTC)


def stamp(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")
