"""What every request passes before a route sees it, as plain ASGI: no task and no copy a message.

`Watch` gives it an id and keeps its account; `Guard` asks where it comes from, for a key, and for a body within limits.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import socket
from collections.abc import Callable
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from brolly.serve import logs, strict_json
from brolly.serve.account import Account, current
from brolly.serve.bodies import Body, Given, too_large
from brolly.serve.errors import Refused, respond
from brolly.serve.keys import OPEN, Caller, Keys, is_address, is_loopback, needs_admin, presented
from brolly.serve.metrics import Metrics
from brolly.serve.settings import Settings
from brolly.serve.tracing import Tracing

SAFE_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
CHANGES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
LOGGED = 10_000  # characters of a body in the log, where prompts may be there
SECURITY = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]


class Watch:
    """The outermost: an id for each request, and its account told to log, metrics and traces when it ends."""

    def __init__(self, app: ASGIApp, metrics: Metrics, tracing: Tracing | None) -> None:
        self.app, self.metrics, self.tracing = app, metrics, tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers, client = Headers(scope), scope.get("client")
        asked = headers.get(b"x-request-id")
        request_id = asked if SAFE_ID.fullmatch(asked) else f"req_{secrets.token_hex(12)}"
        account = Account(request_id, scope["method"], scope["path"], client[0] if client else "")
        if parent := headers.get(b"traceparent"):
            account.trace = {"traceparent": parent, "tracestate": headers.get(b"tracestate")}
        state = scope.setdefault("state", {})
        state["id"], state["account"] = request_id, account
        added = [(b"x-request-id", request_id.encode()), *SECURITY]
        if route_path(scope).startswith("/v1/messages"):
            added.append((b"request-id", request_id.encode()))  # where Anthropic's clients look
        whole = False

        async def tell(message: Message) -> None:
            nonlocal whole
            if message["type"] == "http.response.start":
                account.status = message["status"]
                said = list(message.get("headers", ()))
                known = {name.lower() for name, _ in said}
                message["headers"] = said + [(name, value) for name, value in added if name not in known]
            elif not message.get("more_body", False):
                whole = True
            await send(message)

        self.metrics.begin(account)
        before = current.set(account)
        try:
            await self.app(scope, receive, tell)
        except asyncio.CancelledError:
            if not scope["app"].state.stopping:
                raise
            account.error = "server_stopped"  # which cuts what takes too long, and is no failure
        finally:
            current.reset(before)
            account.ended = perf_counter()
            account.route = getattr(scope.get("route"), "path", account.route)
            if not whole:
                account.status, account.error = account.status or 499, account.error or "client_left"
            self.metrics.end(account)
            logs.tell(account)
            if self.tracing is not None:
                self.tracing.end(account)


class Guard:
    """The innermost: a request that passes comes from where it may, by whom it may, and its body is whole and sound."""

    def __init__(self, app: ASGIApp, settings: Settings, keys: Keys) -> None:
        self.app, self.settings, self.keys = app, settings, keys
        self.names = {settings.host.lower(), socket.gethostname().lower(), *(h.lower() for h in settings.hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        account: Account = scope["state"]["account"]
        path, method, headers = route_path(scope), scope["method"], Headers(scope)
        started = False
        last = perf_counter()

        async def sending(message: Message) -> None:
            nonlocal started, last
            started = True
            last = perf_counter()
            await send(message)
            last = perf_counter()

        def idle() -> float:
            return perf_counter() - last

        limit = asyncio.timeout(None)
        try:
            if CONTROL.search(path):  # the router's `$` passes over a line's end behind a path, and no rule here would
                raise Refused("The path holds control characters, which no path here has.", 404, code="not_found")
            self.check_host(scope, headers)
            self.check_origin(method, headers)
            caller = self.admit(scope)
            account.user, account.owner, account.scope = caller.name, caller.owner, caller.scope
            scope["state"]["user"], scope["state"]["scope"] = caller.name, caller.scope
            receive = await self.read(scope, headers, receive, account)
            last = perf_counter()
            async with limit:
                watching = Patience(limit, self.settings.request_seconds, idle)
                try:
                    await self.app(scope, receive, sending)
                finally:
                    watching.stop()
        except Exception as error:
            if isinstance(error, TimeoutError) and limit.expired():
                error = Refused(
                    f"No answer within {self.settings.request_seconds:g} s; ask for fewer tokens, or let it stream.",
                    504, "server_error", "timeout",
                )  # fmt: skip
            response = respond(error, method, path)
            if not started:
                await response(scope, receive, send)
            # what has begun cannot become an error: it ends unfinished, and the server closes the connection

    def check_host(self, scope: Scope, headers: Headers) -> None:
        """Against DNS rebinding: a page whose name points at this machine calls it by that name. Raises Refused."""
        server = scope.get("server")
        local = is_loopback(self.settings.host) or is_loopback(server[0] if server else None)
        host = headers.get(b"host")
        if self.keys or not local or not host:
            return
        name = parsed(f"//{host}")[1] if host.isascii() else ""
        single = name and "." not in name and ":" not in name  # no public name; only this network knows it
        literal = re.fullmatch(r"[0-9.]+", name) or ":" in name
        if not (single or literal or is_loopback(name) or name in self.names):
            raise Refused(
                f"The host {host!r:.80} is not this server's; call it as {self.settings.host}, or allow the name with "
                "--allow-host.", 403, "permission_error", "unknown_host",
            )  # fmt: skip

    def check_origin(self, method: str, headers: Headers) -> None:
        """Other sites' pages change nothing here, unless they are named with --cors. Raises Refused."""
        origin = headers.get(b"origin")
        if method not in CHANGES or not self.foreign(origin, headers):
            return
        raise Refused(
            f"A page of {origin or 'another site':.80} may not call this server; allow it with --cors.",
            403, "permission_error", "origin_not_allowed",
        )  # fmt: skip

    def foreign(self, origin: str, headers: Headers) -> bool:
        allowed = self.settings.cors
        if "*" in allowed or origin in allowed:
            return False
        if not origin:
            return headers.get(b"sec-fetch-site") == "cross-site"
        return parsed(origin)[0] != headers.get(b"host").lower()

    def admit(self, scope: Scope) -> Caller:
        """Whose request it is. Raises Refused: 401 without a key that is known, 403 where another scope is needed."""
        path, client = route_path(scope), scope["client"][0] if scope.get("client") else ""
        admin = needs_admin(scope["method"], path) and not (path == "/metrics" and self.settings.open_metrics)
        if not self.keys:
            local = not client or is_loopback(client) or (is_loopback(self.settings.host) and not is_address(client))
            if admin and not local:
                raise Refused(
                    "Without API keys this is granted to the server's own machine alone; start it with --api-key-file.",
                    403, "permission_error", "admin_only",
                )  # fmt: skip
            return Caller(client, "admin" if local else "user")
        shown = presented(scope["headers"])[:4]
        caller = next((found for key in shown if (found := self.keys.caller(key)) is not None), None)
        if caller is None:
            reads = scope["method"] in ("GET", "HEAD")
            if (reads and (path in OPEN or path.startswith("/page/"))) or (path == "/metrics" and not admin):
                return Caller(client, "user")
            what = "No API key was given" if not shown else "The API key is not known here"
            raise Refused(
                f"{what}; send one as 'Authorization: Bearer KEY' or 'x-api-key: KEY'.",
                401, "authentication_error", "invalid_api_key", headers={"www-authenticate": "Bearer"},
            )  # fmt: skip
        if admin and caller.scope != "admin":
            raise Refused("This needs a key of the scope admin.", 403, "permission_error", "admin_only")
        return caller

    async def read(self, scope: Scope, headers: Headers, receive: Receive, account: Account) -> Receive:
        """What gives the route its body: read whole and checked, or counted while it comes if it is an upload."""
        length = headers.get(b"content-length")
        known = int(length) if re.fullmatch(r"[0-9]{1,18}", length) else 0
        if not known and not headers.get(b"transfer-encoding"):
            return receive
        kind = headers.get(b"content-type").partition(";")[0].strip().lower()
        upload = kind == "multipart/form-data"
        most = self.settings.upload_bytes if upload else self.settings.body_bytes
        body = Body(receive, most, self.settings.body_seconds)
        if known > most:
            if not headers.get(b"expect"):
                await body.discard()
            raise too_large(most)
        if headers.get(b"content-encoding").lower() not in ("", "identity"):
            raise Refused("Bodies are taken as they are; send this one without content-encoding.", 415)
        if upload:
            return body
        content = await body.whole()
        if route_path(scope).startswith("/api/") and kind != "application/json" and not headers.get(b"origin"):
            kind = "application/json"  # Ollama takes what `curl -d` sends, under whatever name
            others = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
            scope["headers"] = [*others, (b"content-type", b"application/json")]
        if content and (kind == "application/json" or kind.endswith("+json")):
            strict_json.check(content)
        if self.settings.log_prompts:
            account.body = content[: LOGGED * 4].decode("utf-8", "replace")[:LOGGED]
        return Given(content, receive)


def parsed(url: str) -> tuple[str, str]:
    """A URL's host with its port, and without; "" for what is no URL."""
    try:
        found = urlsplit(url)
        return found.netloc.lower(), found.hostname or ""
    except ValueError:
        return "", ""


def route_path(scope: Scope) -> str:
    """The path as the routes know it: without the prefix under which Ray or a proxy mounts the application."""
    path, root = scope["path"], scope.get("root_path", "").rstrip("/")
    mounted = root and (path == root or path.startswith(root + "/"))
    return str(path[len(root) :] or "/" if mounted else path)


class Headers(dict[bytes, str]):
    """A request's headers by their lower-case names, the first of each; "" for one that is not there."""

    def __init__(self, scope: Scope) -> None:
        super().__init__((name, value.decode("latin-1")) for name, value in reversed(scope["headers"]))

    def __missing__(self, name: bytes) -> str:
        return ""

    def get(self, name: bytes, default: Any = "") -> Any:
        return super().get(name, default)


class Patience:
    """Ends an `asyncio.timeout` after so many seconds without a message; costs nothing a message."""

    def __init__(self, limit: asyncio.Timeout, seconds: float, idle: Callable[[], float]) -> None:
        self.limit, self.seconds, self.idle = limit, seconds, idle
        self.loop = asyncio.get_running_loop()
        self.timer = self.loop.call_later(seconds, self.look)

    def look(self) -> None:
        left = self.seconds - self.idle()
        if left > 0:
            self.timer = self.loop.call_later(left, self.look)
        else:
            self.limit.reschedule(self.loop.time())

    def stop(self) -> None:
        self.timer.cancel()
