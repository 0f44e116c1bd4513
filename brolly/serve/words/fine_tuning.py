"""OpenAI's fine-tuning jobs: `brolly tune` on an uploaded file; what was learnt is served as "model:name"."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any
from uuid import uuid4

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.responses import Response

from brolly.serve.app import house
from brolly.serve.desk import desk, owner_of, page_of
from brolly.serve.errors import Refused
from brolly.serve.tell import reply
from brolly.serve.tuning import Jobs
from brolly.serve.wire.common import ERRORS
from brolly.serve.wire.fine_tuning import CheckpointList, Hyperparameters, JobBody, JobEventList, JobList, JobRequest

Limit = Annotated[int, Query(ge=1, le=100)]
FLAGS = {
    "n_epochs": "--epochs", "batch_size": "--batch", "learning_rate": "--lr", "rank": "--rank", "alpha": "--alpha",
    "beta": "--beta",
}  # fmt: skip


@asynccontextmanager
async def life(app: FastAPI) -> AsyncIterator[None]:
    jobs: Jobs = Jobs(app.state.desk.folder / "tuning", app.state.house)
    app.state.jobs = jobs
    jobs.open()
    try:
        yield
    finally:
        await jobs.close()


router = APIRouter(prefix="/v1/fine_tuning/jobs", tags=["fine-tuning"], lifespan=life)


def jobs(request: Request) -> Jobs:
    found: Jobs = request.app.state.jobs
    return found


@router.post("", response_model=JobBody, responses=ERRORS)
async def create_job(body: JobRequest, request: Request) -> Response:
    """Tune a served model on an uploaded file, in a process of its own, when its turn has come."""
    kind = body.method.type if body.method else "supervised"
    if kind == "reinforcement":
        raise Refused("Graders are not served; `brolly tune --reward` takes a function of your own.", param="method")
    if body.integrations:
        raise Refused("integrations are not served; leave them out.", param="integrations")
    chosen = body.method.dpo if body.method and kind == "dpo" else body.method.supervised if body.method else None
    asked = (chosen.hyperparameters if chosen else None) or body.hyperparameters or Hyperparameters.model_validate({})
    if asked.learning_rate_multiplier not in (None, "auto", 1):
        raise Refused(
            "learning_rate_multiplier multiplies nothing that you could know here; say learning_rate itself, or auto.",
            param="learning_rate_multiplier",
        )
    entry, adapter = house(request).find(body.model)
    if adapter is not None:
        raise Refused(f"{body.model} is an adapter; tune its base, {entry.name}.", param="model")
    if entry.target is not None:
        raise Refused(
            f"{entry.name} runs elsewhere; `brolly tune` it there, then serve what came of it.", param="model"
        )
    files, owner = await desk(request).files(), owner_of(request)
    rows = await asyncio.to_thread(files.path, body.training_file, owner)
    held = await asyncio.to_thread(files.path, body.validation_file, owner) if body.validation_file else None
    seed = body.seed or 0
    said = {name: value for name, value in asked.model_dump().items() if value not in (None, "auto")}
    shown = {name: said.get(name, "auto") for name in ("n_epochs", "batch_size", "learning_rate_multiplier")} | said
    told = {
        "id": f"ftjob-{uuid4().hex}", "object": "fine_tuning.job", "created_at": int(time.time()), "error": None,
        "fine_tuned_model": None, "finished_at": None, "hyperparameters": shown,
        "method": {"type": kind, kind: {"hyperparameters": shown}}, "model": body.model, "organization_id": "brolly",
        "result_files": [], "status": "queued", "trained_tokens": None, "training_file": body.training_file,
        "validation_file": body.validation_file, "integrations": [], "seed": seed, "estimated_finish": None,
        "metadata": body.metadata or {}, "suffix": body.suffix,
    }  # fmt: skip
    made = jobs(request).create(told, entry.name, rows, held, options(said, seed, kind), owner)
    return reply(made.told)


def options(said: dict[str, Any], seed: int, kind: str) -> Sequence[str]:
    """The flags of `brolly tune`."""
    found = ["--seed", str(seed), *(["--shape", "preference"] if kind == "dpo" else [])]
    for name, flag in FLAGS.items():
        if name in said:
            found += [flag, str(said[name])]
    return found


@router.get("", response_model=JobList, responses=ERRORS)
async def list_jobs(request: Request, after: str | None = None, limit: Limit = 20) -> Response:
    """The jobs, the newest first."""
    owner = owner_of(request)
    own = [job.told for job in jobs(request).jobs.values() if job.owner == owner]
    page = page_of(sorted(own, key=lambda told: told["created_at"]), after, limit, "desc")
    return reply({name: page[name] for name in ("object", "data", "has_more")})


@router.get("/{id}", response_model=JobBody, responses=ERRORS)
async def job(id: str, request: Request) -> Response:
    """How a job is."""
    return reply(jobs(request).find(id, owner_of(request)).told)


@router.post("/{id}/cancel", response_model=JobBody, responses=ERRORS)
async def cancel(id: str, request: Request) -> Response:
    """Stop a job for good."""
    return await _ended(id, request, "cancelled")


@router.post("/{id}/pause", response_model=JobBody, responses=ERRORS)
async def pause(id: str, request: Request) -> Response:
    """Stop a job where it is; it saves, and can go on."""
    return await _ended(id, request, "paused")


@router.post("/{id}/resume", response_model=JobBody, responses=ERRORS)
async def resume(id: str, request: Request) -> Response:
    """Let a paused job go on."""
    found = jobs(request).find(id, owner_of(request))
    jobs(request).resume(found)
    return reply(found.told)


@router.get("/{id}/events", response_model=JobEventList, responses=ERRORS)
async def events(id: str, request: Request, after: str | None = None, limit: Limit = 20) -> Response:
    """What a job told, the newest first."""
    found = await asyncio.to_thread(jobs(request).find(id, owner_of(request)).events)
    page = page_of(found, after, limit, "desc")
    return reply({name: page[name] for name in ("object", "data", "has_more")})


@router.get("/{id}/checkpoints", response_model=CheckpointList, responses=ERRORS)
async def checkpoints(id: str, request: Request, after: str | None = None, limit: Limit = 10) -> Response:
    """What can be used of a job: the end of one that succeeded."""
    found = jobs(request).find(id, owner_of(request))
    rows: list[dict[str, Any]] = []
    if found.status == "succeeded" and found.told["fine_tuned_model"]:
        last = (await asyncio.to_thread(found.events))[-1]
        rows.append({
            "id": f"ftckpt-{found.id[6:]}", "object": "fine_tuning.job.checkpoint",
            "created_at": found.told["finished_at"], "fine_tuned_model_checkpoint": found.told["fine_tuned_model"],
            "fine_tuning_job_id": found.id, "step_number": last["data"].get("step", 0),
            "metrics": {k: v for k, v in last["data"].items() if k not in ("step", "steps")},
        })  # fmt: skip
    return reply(page_of(rows, after, limit, "desc"))


async def _ended(id: str, request: Request, status: str) -> Response:
    found = jobs(request).find(id, owner_of(request))
    await jobs(request).end(found, status)
    return reply(found.told)
