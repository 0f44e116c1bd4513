"""The same server over many processes and machines by Ray Serve: `serve run brolly.serve.ray:app models=org/name`.

A front takes every request and hands it to the deployment of its model; each replica there is a whole brolly server for
that one model, called by ASGI without a socket. Ray scales the replicas, replaces those that die, and routes by prefix.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray import serve
from ray.serve.config import AutoscalingConfig, RequestRouterConfig
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from brolly.errors import OptionError
from brolly.serve.app import create
from brolly.serve.errors import Refused, envelope
from brolly.serve.settings import Settings

log = logging.getLogger("brolly")

# ray.serve.llm has it in its public name, but cannot be imported without another engine
ROUTER = "ray.llm._internal.serve.routing_policies.prefix_aware.prefix_aware_router.PrefixCacheAffinityRouter"
HEAD = 16384  # characters of a prompt that Ray's router compares
LOST = (ray.exceptions.RayActorError, ray.exceptions.WorkerCrashedError)
TRIES = 3  # replicas that may die under one request before its client is told


@dataclass(frozen=True)
class Asked:
    """A request on its way to a replica; `prompt` is what Ray's router reads."""

    method: str
    path: str
    query: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    prompt: str = "-"

    def scope(self) -> dict[str, Any]:
        """The same for an ASGI application."""
        return {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1",
            "scheme": "http", "method": self.method, "path": self.path, "raw_path": self.path.encode(),
            "query_string": self.query, "root_path": "", "headers": list(self.headers),
            "client": ("127.0.0.1", 0), "server": ("127.0.0.1", 80), "state": {},
        }  # fmt: skip


class Replica:
    """One process that serves one model."""

    def __init__(self, settings: Settings) -> None:
        self.app = create(settings)
        self._living = self.app.router.lifespan_context(self.app)
        self._opening: asyncio.Future[Any] | None = None

    async def answer(self, asked: Asked) -> AsyncIterator[dict[str, Any]]:
        """The ASGI messages of the response, the head first; who leaves early cancels what was asked."""
        self._opening = self._opening or asyncio.ensure_future(self._living.__aenter__())
        await asyncio.shield(self._opening)
        messages: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(64)
        given, gone = False, asyncio.Event()

        async def receive() -> dict[str, Any]:
            nonlocal given
            if not given:
                given = True
                return {"type": "http.request", "body": asked.body, "more_body": False}
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if gone.is_set():
                raise OSError("the client has left")
            await messages.put(dict(message))

        async def run() -> None:
            try:
                await self.app(asked.scope(), receive, send)
            finally:
                await messages.put(None)

        task = asyncio.ensure_future(run())
        try:
            while (message := await messages.get()) is not None:
                yield message
            await task
        finally:
            gone.set()
            while not messages.empty():
                messages.get_nowait()

    async def __aexit__(self, *_: Any) -> None:
        await self._living.__aexit__(None, None, None)


@serve.deployment(name="front", max_ongoing_requests=4096)
class Front:
    """What clients speak to: it reads which model is meant and passes bytes through."""

    def __init__(self, models: dict[str, DeploymentHandle], alias: dict[str, str], body_bytes: int) -> None:
        self.models, self.alias, self.body_bytes = models, alias, body_bytes

    async def __call__(self, request: Request) -> Response:
        """Any request to the replica that answers it."""
        path = request.url.path
        try:
            asked = await self._read(request, path)
            if asked.path == "/v1/models":
                return await self._listed(asked)
            name, prompt = meant(asked)
            return await self._answered(self._handle(name), replace(asked, prompt=prompt[:HEAD] or "-"))
        except Refused as refused:
            return JSONResponse(envelope(path, refused), refused.status)

    async def _read(self, request: Request, path: str) -> Asked:
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > self.body_bytes:
                raise Refused(f"the body has more than {self.body_bytes:,} bytes, the most that is taken.", 413)
        return Asked(request.method, path, request.scope["query_string"], tuple(request.scope["headers"]), bytes(body))

    def _handle(self, name: str) -> DeploymentHandle:
        """The deployment of a model; a request that names none goes to the first."""
        name = self.alias.get(name, name)
        if name not in self.models:
            name = name.partition(":")[0]  # an adapter of it
        if name and name not in self.models:
            raise Refused(f"the model {name!r:.200} is not served here; there are {', '.join(self.models)}.", 404)
        found = self.models[name] if name else next(iter(self.models.values()))
        return found.options(stream=True, method_name="answer")

    async def _answered(self, handle: DeploymentHandle, asked: Asked) -> Response:
        """A replica's response. One that dies before its first word is asked for anew of another."""
        for left in reversed(range(TRIES)):
            messages: Any = handle.remote(asked)
            try:
                head = await anext(messages)
                if not streams(
                    head
                ):  # nothing reaches the client before all of it is here, so that it can be asked anew
                    body = b"".join([m.get("body", b"") async for m in messages])
                    return Response(body, head["status"], raw_headers(head))
                break
            except LOST as error:
                log.warning("a replica died under %s %s (%s)", asked.method, asked.path, type(error).__name__)
                if not left:
                    raise Refused("the replicas of this model died under the request; try again.", 503) from None

        async def parts() -> AsyncIterator[bytes]:
            try:
                async for message in messages:
                    yield message.get("body", b"")
            except LOST:
                told = Refused("the replica died while it wrote this answer; ask again.", 503, "server_error")
                yield f"data: {json.dumps(envelope(asked.path, told))}\n\n".encode()
            finally:
                messages.cancel()

        return StreamingResponse(parts(), head["status"], raw_headers(head))

    async def _listed(self, asked: Asked) -> Response:
        """What all deployments serve, as one list."""
        answers = await asyncio.gather(*(self._answered(self._handle(name), asked) for name in self.models))
        if bad := next((a for a in answers if a.status_code != 200), None):
            return bad
        first, *others = (json.loads(bytes(a.body)) for a in answers)
        for other in others:
            first["data"] += other["data"]
        return JSONResponse(first)


def streams(head: dict[str, Any]) -> bool:
    """Whether a response comes by pieces."""
    kinds = [value for name, value in head["headers"] if name.lower() == b"content-type"]
    return any(kind.startswith((b"text/event-stream", b"application/x-ndjson")) for kind in kinds)


def raw_headers(head: dict[str, Any]) -> dict[str, str]:
    left_out = (b"content-length", b"transfer-encoding")
    return {k.decode("latin-1"): v.decode("latin-1") for k, v in head["headers"] if k.lower() not in left_out}


def meant(asked: Asked) -> tuple[str, str]:
    """The model that a request names, and its prompt as far as routing looks at it."""
    kind = next((v for k, v in asked.headers if k == b"content-type"), b"")
    if kind.startswith(b"multipart/form-data"):
        _, _, rest = asked.body.partition(b'name="model"')
        value = rest.partition(b"\r\n\r\n")[2][:400].partition(b"\r\n")[0]
        return value.decode(errors="replace"), ""
    try:
        body = json.loads(asked.body or b"{}")
    except (ValueError, RecursionError):
        return "", ""  # the replica refuses it in the right words
    if not isinstance(body, dict):
        return "", ""
    text = body.get("messages") or body.get("prompt") or body.get("input") or ""
    name = body.get("model")
    return name if isinstance(name, str) else "", text if isinstance(text, str) else json.dumps(text)


def app(args: dict[str, str]) -> serve.Application:
    """What `serve run brolly.serve.ray:app models=a,b` deploys.

    `models` (between commas), `replicas` (1) or `min_replicas` and `max_replicas` with `target` requests a replica (8),
    `cpus` and `gpus` of each replica, `alias` (name=model between commas), `memory` (bytes of a replica), `dtype`.
    Raises OptionError.
    """
    known = {"models", "replicas", "min_replicas", "max_replicas", "target", "cpus", "gpus", "alias", "memory", "dtype"}
    if unknown := sorted(args.keys() - known):
        raise OptionError(f"{unknown[0]!r} is no argument; there are {', '.join(sorted(known))}.")
    names = [name.strip() for name in args.get("models", "").split(",") if name.strip()]
    if not names:
        raise OptionError("there is no model to serve; say which: serve run brolly.serve.ray:app models=org/name.")
    alias = dict(pair.split("=", 1) for pair in args.get("alias", "").split(",") if "=" in pair)
    least = int(args.get("min_replicas", args.get("replicas", 1)))
    most = int(args.get("max_replicas", args.get("replicas", max(least, 1))))
    scaling: dict[str, Any] = {"num_replicas": least}
    if most > least:
        target = float(args.get("target", 8))
        scaling = {
            "autoscaling_config": AutoscalingConfig(
                min_replicas=least, max_replicas=most, target_ongoing_requests=target
            )
        }
    deployments = {}
    for i, name in enumerate(names):
        settings = Settings(
            models=(name,), pin=(name,), hosts=("*",), dtype=args.get("dtype"),
            memory=int(args["memory"]) if "memory" in args else None,
            alias={a: m for a, m in alias.items() if m == name},
        )  # fmt: skip
        made = serve.deployment(
            name=f"model-{i}-{name.rpartition('/')[2]}"[:60],
            max_ongoing_requests=1024,
            health_check_period_s=5,
            graceful_shutdown_timeout_s=settings.shutdown_seconds,
            ray_actor_options={"num_cpus": float(args.get("cpus", 1)), "num_gpus": float(args.get("gpus", 0))},
            request_router_config=RequestRouterConfig(request_router_class=ROUTER),  # type: ignore[arg-type]
            **scaling,
        )(Replica)
        deployments[name] = made.bind(settings)
    made_front: Any = Front
    bound: serve.Application = made_front.bind(deployments, alias, Settings().body_bytes)
    return bound
