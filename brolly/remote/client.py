"""HTTP to one vendor: keys, connections, retries, limits, timeouts, server-sent events. Knows no dialect.

Requests are httpx's, so that its Auth can sign them; connections are of `sockets`. Errors are raised beside, never
within, the handling of those from below, whose frames hold the headers and the key in them.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import AsyncGenerator, Callable
from contextvars import ContextVar
from functools import cache, cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any, AnyStr, cast

from brolly.errors import BadAnswer, BrollyError, Busy, OptionError, Overloaded, QuotaSpent, Unreachable
from brolly.remote import faults
from brolly.remote.auth import Auth, auth_of, secrets_of
from brolly.remote.dialect import DONE, Call, Told
from brolly.remote.limits import PATIENCE, Limit, limit_of
from brolly.remote.proxies import way_to
from brolly.remote.sockets import Connections, Headers, Line, LineError
from brolly.remote.target import Target
from brolly.verbs import RemoteOptions

if TYPE_CHECKING:
    import httpx

Teller = Callable[[Any], Told]
Data = bytes  # within Client, that name is a verb's
FIRST, LONGEST = 0.5, 8.0  # seconds: the most that is waited before the second try, and before any
MOST_BODY = 256 << 20  # bytes of a whole answer
MOST_KIND = 100  # characters of a media type
LONGEST_ANSWER = 3600.0  # seconds that an answer may come in drops
MOST_FAULT = 1 << 20  # and of one that tells what went wrong
FAULT_SECONDS = 15.0  # that it may take
DRAIN = 0.25  # seconds that a stream may take to end behind [DONE]
EVENTS = ("brolly.remote.sse", "Events")
DECODERS = {"application/vnd.amazon.eventstream": ("brolly.remote.frames", "Frames")}  # media type → who reads it
# worth another try: when nothing can have been done yet, and when something may have
GATES = frozenset((408, 502, 504, 520, 524))  # said by who stands between, of a request that may be done meanwhile
REFUSED, FAILED = frozenset((429, 503, 529)), frozenset((408, 409, 500, 502, 504, 520, 521, 522, 523, 524))


# what a key may have in JSON: of texts, of bytes
ESCAPED = re.compile(r"\\(?:u00[2-7]|/)"), re.compile(rb"\\(?:u00[2-7]|/)")
heard: ContextVar[Callable[[], Any] | None] = ContextVar("heard", default=None)  # called as a vendor begins to answer


class _Failed(Exception):
    """One try's end: the error, whether another try may help, and whether a stale connection is to blame."""

    def __init__(self, error: BrollyError, again: bool, after: float | None = None, stale: bool = False) -> None:
        super().__init__()
        self.error, self.again, self.after, self.stale = error, again, after, stale


class Client:
    """Connections to one target. One object serves several event loops; nothing is opened before the first call."""

    def __init__(self, target: Target, manners: RemoteOptions) -> None:
        self.target, self.manners = target, manners
        self.retries = 0  # tries behind the first
        self.closings = 0  # times that it was closed: what was open then is not tried again
        self.unkeyed: Callable[[str], str] = str  # a text without the last key that was sent, or parts of it
        self._lines: dict[asyncio.AbstractEventLoop, Connections] = {}
        self._urls: dict[tuple[str, tuple[tuple[str, str], ...]], httpx.URL] = {}

    def __repr__(self) -> str:
        return f"<Client of {self.target.host}>"

    async def json(self, call: Call, told: Teller) -> Any:
        """The parsed body of an answer. Raises RemoteError's kinds, Busy, NotFound, ContextTooLong, OptionError."""
        data, kind = await self._whole(call, told, "application/json")
        return self._parsed(data, kind)

    async def bytes(self, call: Call, told: Teller) -> tuple[Data, str]:
        """An answer's body, and its media type. Raises as `json` does."""
        return await self._whole(call, told, "*/*")

    async def events(self, call: Call, told: Teller) -> AsyncGenerator[list[tuple[str, Any]], None]:
        """Server-sent events as (name, parsed JSON), as many as came together; closing this closes the connection."""
        tries = _Tries(self, call)
        while True:
            answer, handed = _Answer(self, call), False
            try:
                await self._ask(answer, told, "text/event-stream")
                reader = await self._reader(answer, told)
                if (tell := heard.get()) is not None:
                    tell()
                over = False
                async for chunk in answer:
                    batch = [(name, self._event(answer.hidden(data))) for name, data in reader.push(chunk) if data]
                    if batch:
                        handed = True
                        yield batch
                        if over := batch[-1][1] == DONE:
                            break
                if over:
                    await answer.drain()
                elif batch := [(name, self._event(answer.hidden(data))) for name, data in reader.end() if data]:
                    yield batch
                return
            except _Failed as error:
                failed = error
            finally:
                answer.close()
            await tries.over(failed, handed)

    async def aclose(self) -> None:
        """Close what is open on every loop."""
        self.closings += 1
        here = asyncio.get_running_loop()
        for loop, lines in list(self._lines.items()):
            if loop is here:
                await lines.aclose()
            elif not loop.is_closed():
                asyncio.run_coroutine_threadsafe(lines.aclose(), loop)

    # inside

    async def _whole(self, call: Call, told: Teller, wanted: str) -> tuple[Data, str]:
        tries = _Tries(self, call)
        while True:
            answer = _Answer(self, call)
            try:
                await self._ask(answer, told, wanted)
                if (tell := heard.get()) is not None:
                    tell()
                return await answer.read(MOST_BODY), answer.kind
            except _Failed as error:
                failed = error
            finally:
                answer.close()
            await tries.over(failed)

    def _parsed(self, data: Data, kind: str) -> Any:
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            said = faults.page_told(data, kind)
        if "html" in kind or data.lstrip()[:1] == b"<":
            raise BadAnswer(
                f"{self.target.host} answered with {said.message} (200); is {self.target.base} the address of an API?",
                200,
            )
        raise BadAnswer(
            f"{self.target.host} answered with what is no JSON ({len(data)} bytes, {kind or 'no type'}).", 200
        )

    async def _reader(self, answer: _Answer, told: Teller) -> Any:
        """What reads this answer's events. Raises _Failed, BrollyError where it has none."""
        if answer.kind not in ("application/json", "text/html"):
            module, name = DECODERS.get(answer.kind, EVENTS)
            return getattr(import_module(module), name)(self.target.host)
        said = told(self._parsed(await answer.read(MOST_FAULT), answer.kind))
        if said.kind or said.message:
            raise faults.fault(0, said, self.target, secrets=answer.secrets())
        raise BadAnswer(f"{self.target.host} answered {answer.kind} where a stream of events was expected.", 200)

    def _event(self, data: str) -> Any:
        if data == DONE:
            return DONE
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            pass
        raise BadAnswer(f"{self.target.host} sent an event that is no JSON ({len(data)} characters); ask again.")

    async def _ask(self, answer: _Answer, told: Teller, wanted: str) -> None:
        """Begin an answer that is one: its status says so. Raises _Failed, BrollyError."""
        await answer.begin(self._request(answer.call, wanted))
        if 200 <= answer.status < 300:
            return
        if answer.call.tab is not None and answer.status not in GATES:
            answer.call.tab.sent = False  # refused, or failed before it was done: it costs nothing
        error, after = await self._fault(answer, told)
        safe, wish = answer.call.safe, answer.headers.get("x-should-retry", "")
        again = answer.status in REFUSED or (safe and answer.status in FAILED)
        again = (again or (safe and wish == "true")) and wish != "false"
        if isinstance(error, (Busy, Overloaded)) and after is not None:
            self.limit.pause(self.target.model, after)
        raise _Failed(error, again and not isinstance(error, QuotaSpent), after)

    async def _fault(self, answer: _Answer, told: Teller) -> tuple[BrollyError, float | None]:
        """What an answer with another status says, and after how many seconds to ask again."""
        try:
            async with asyncio.timeout(FAULT_SECONDS):
                data = await answer.read(MOST_FAULT)
        except (_Failed, BadAnswer, TimeoutError):  # its status tells enough
            data = b""
        if 300 <= answer.status < 400:
            to = answer.headers.get("location", "").partition("?")[0]
            said = Told(message=f"it points to {to:.200}, where a key does not go by itself")
        else:
            try:
                body = json.loads(data)
            except (ValueError, RecursionError):
                said = faults.page_told(data, answer.kind)
            else:
                said = told(body)
        after = faults.told_after(faults.retry_after(answer.headers), said)
        secrets = answer.secrets()
        error = faults.fault(answer.status, said, self.target, after=after, secrets=secrets, keyed=bool(secrets))
        return error, after

    def _request(self, call: Call, wanted: str) -> httpx.Request:
        """Without a key. Raises OptionError."""
        import httpx

        headers = {"user-agent": user_agent(), "accept": wanted, "accept-encoding": "identity"}
        headers |= self.target.vendor.headers
        headers |= call.headers
        url = self._url(call)
        if call.files or call.form:
            return httpx.Request(
                call.method, url, headers=headers, data=dict(call.form), files=cast(Any, list(call.files)) or None
            )
        if call.body is None:
            return httpx.Request(call.method, url, headers=headers)
        try:
            content = json.dumps(call.body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
        except UnicodeEncodeError:
            what = "a text that is no Unicode: half of a pair of surrogates"
        except (ValueError, TypeError, RecursionError) as error:
            what = f"what JSON cannot say ({error})"
        else:
            headers.setdefault("content-type", "application/json")
            return httpx.Request(call.method, url, headers=headers, content=content)
        raise OptionError(f"the request to {self.target} holds {what}.")

    def _url(self, call: Call) -> httpx.URL:
        """Behind the target's base, and nowhere else. Raises OptionError."""
        import httpx

        key = call.path, tuple(call.query.items())
        found = self._urls.get(key)
        if found is None:
            base = self._base
            if not call.path.startswith("/"):
                raise OptionError(f"{call.path!r:.80} is no path of {self.target.host}.")
            try:
                found = httpx.URL(self.target.base + call.path)
                if call.query:
                    found = found.copy_merge_params(dict(call.query))
            except httpx.InvalidURL:
                raise OptionError(f"{call.path!r:.80} is no path of {self.target.host}.") from None
            if (found.scheme, found.netloc) != (base.scheme, base.netloc):
                raise OptionError(f"{call.path!r:.80} leads away from {self.target.host}.")
            if len(self._urls) < 1000:
                self._urls[key] = found
        return found

    @cached_property
    def _base(self) -> httpx.URL:
        import httpx

        try:
            found = httpx.URL(self.target.base)
        except httpx.InvalidURL as error:
            why = str(error)
        else:
            if 0 < (found.port or 80) < 1 << 16:
                return found
            why = f"port {found.port}"
        raise OptionError(f"the address of {self.target.host} cannot be one ({why}); expected https://host/path.")

    @cached_property
    def auth(self) -> Auth:
        return auth_of(self.target)

    @cached_property
    def limit(self) -> Limit:
        return limit_of(self.target)

    def connections(self) -> Connections:
        """Those of the running event loop. Raises OptionError at a proxy or authorities that cannot be."""
        loop = asyncio.get_running_loop()
        found = self._lines.get(loop)
        if found is None:
            for old in [old for old in self._lines if old.is_closed()]:  # each is held by its connections
                del self._lines[old]
            found = self._lines[loop] = Connections(way_to(self.target))
        return found


class _Tries:
    """How often a call was tried, and whether once more is safe."""

    def __init__(self, client: Client, call: Call) -> None:
        self._client, self._most, self._safe, self._tab = client, client.manners.retries, call.safe, call.tab
        self._n = 0
        self._renewed = False
        self._closings = client.closings

    async def over(self, failed: _Failed, handed: bool = False) -> None:
        """Wait until the next one; or raise what the last one ended with: no more help, or something was handed out."""
        if self._client.closings != self._closings:
            raise failed.error
        if failed.stale and self._safe and not self._renewed:
            self._renewed = True  # the connection had ended while it waited to be used again; that was no try
            return
        self._n += 1
        after = failed.after
        if handed or not failed.again or self._n > self._most or (after is not None and after > PATIENCE):
            raise failed.error
        if self._tab is not None and not self._tab.again():
            raise failed.error
        self._client.retries += 1
        wait = random.uniform(0, min(LONGEST, FIRST * 2 ** (self._n - 1)))
        await asyncio.sleep(wait if after is None else after + wait / 4)


class _Answer:
    """One try: a request that is sent, and what comes back, chunk by chunk."""

    status = 0
    kind = ""  # media type, without parameters

    def __init__(self, client: Client, call: Call) -> None:
        self._client, self.call = client, call
        self.headers: dict[str, str] = {}
        self._request: httpx.Request | None = None
        self._lines: Connections | None = None
        self._line: Line | None = None
        self._used = self._entered = self._began = False
        self._size, self._until = 0, 0.0
        self._hides: tuple[list[tuple[str, str]], list[tuple[Data, Data]]] | None = None

    async def begin(self, request: httpx.Request) -> None:
        """Send it, signed, when it is its turn, and read the answer's headers. Raises _Failed, BrollyError."""
        import httpx

        client, manners = self._client, self._client.manners
        self._lines = client.connections()
        await client.limit.enter(client.target.model, manners.concurrency, manners.rate, manners.silence_seconds)
        self._entered = True
        flow = client.auth.async_auth_flow(request)
        try:
            await self._send(await anext(flow))
            while self.status == 401:
                following = await _next(flow, httpx.Response(401, headers=self.headers, request=request))
                if following is None:
                    break
                self._end()
                await self._send(following)
        finally:
            await flow.aclose()

    async def _send(self, request: httpx.Request) -> None:
        manners, url = self._client.manners, request.url
        self._request, self._hides = request, None
        self._until = asyncio.get_running_loop().time() + LONGEST_ANSWER
        self._client.unkeyed = _hiding(self.secrets())  # no frame that lasts has them
        assert self._lines is not None
        target = str(url).partition("#")[0].encode("ascii") if self._lines.way.forwarded else url.raw_path
        try:
            self._line, self._used = await self._lines.take(manners.connect_seconds)
            if self.call.tab is not None:
                self.call.tab.sent = True
            self.status, headers = await self._line.ask(
                request.method, target, self._headers(), request.read(), manners.silence_seconds
            )
        except LineError as error:
            failed = self._broken(error)
        else:
            self._began = True
            self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
            kind = self.headers.get("content-type", "").partition(";")[0].strip()
            self.kind = self.hidden(kind).lower()[:MOST_KIND]
            if self.headers.get("content-encoding", "identity").lower() in ("identity", ""):
                return
            raise BadAnswer(f"{self._client.target.host} compressed its answer though asked not to.", self.status)
        raise failed

    def _headers(self) -> Headers:
        assert self._request is not None and self._lines is not None
        return self._request.headers.raw + self._lines.proof()

    def __aiter__(self) -> _Answer:
        return self

    async def __anext__(self) -> Data:
        """What came since, or comes next. Raises _Failed."""
        assert self._line is not None
        try:
            chunk = await self._line.body(self._client.manners.silence_seconds)
        except LineError as error:
            failed = self._broken(error)
        else:
            if not chunk:
                raise StopAsyncIteration
            self._size += len(chunk)
            if self._size > MOST_BODY:
                host = self._client.target.host
                raise BadAnswer(f"{host} answered with more than {MOST_BODY >> 20} MiB.", self.status)
            if asyncio.get_running_loop().time() > self._until:
                host = self._client.target.host
                raise Unreachable(f"{host} did not end its answer in {LONGEST_ANSWER:g} s; ask for less.")
            return self.hidden(chunk)
        raise failed

    async def read(self, most: int) -> Data:
        """The whole body, without keys. Raises _Failed, BadAnswer."""
        parts, size = [], 0
        async for chunk in self:
            size += len(chunk)
            if size > most:
                raise BadAnswer(f"{self._client.target.host} answered with more than {most >> 20} MiB.", self.status)
            parts.append(chunk)
        return self.hidden(b"".join(parts))

    async def drain(self) -> None:
        """To the end, if it is near, so that the connection can be used again."""
        try:
            async with asyncio.timeout(DRAIN):
                async for _ in self:
                    pass
        except (TimeoutError, _Failed):
            pass

    def secrets(self) -> tuple[str, ...]:
        return secrets_of(self._request) if self._request is not None else ()

    def hidden(self, said: AnyStr) -> AnyStr:
        """What a vendor says without keys, whoever wrote them there; a short one may be a word ("ollama") and stays."""
        if self._hides is None:
            keys = [key for key in self.secrets() if len(key) >= 16]
            self._hides = [(key, "***") for key in keys], [(key.encode("latin-1"), b"***") for key in keys]
        pairs: Any = self._hides[isinstance(said, bytes)]
        escaped: Any = ESCAPED[isinstance(said, bytes)]
        for key, instead in pairs:
            if key in said:
                said = said.replace(key, instead)
            if escaped.search(said):  # as JSON may write it, too
                said = re.sub(_spelt(key), instead, said)
        return said

    def close(self) -> None:
        self._end()
        if self._entered:
            self._entered = False
            self._client.limit.leave()

    def _end(self) -> None:
        """Let go of the connection, which is closed unless its answer was read to the end."""
        line, self._line, self._began = self._line, None, False
        if line is not None and self._lines is not None:
            self._lines.give(line)

    def _broken(self, error: LineError) -> _Failed:
        """What a fault of the connection means."""
        target, manners, safe = self._client.target, self._client.manners, self.call.safe
        host, way = target.host, self._lines.way if self._lines is not None else ""
        what = "broken" if self._began and error.what in ("closed", "garbled") else error.what
        if what == "unreached":
            why, again = _unconnected(error.why)
            return _Failed(Unreachable(f"{host} was not reached{way}: {why}"), again)
        stale = what == "closed" and self._used
        text, kind, again = {
            "late": (f"was not reached{way} within {manners.connect_seconds:g} s.", Unreachable, True),
            "proxy": (f"was not reached{way}, which answered {error.why}; see to HTTPS_PROXY.", Unreachable, False),
            "silent": (
                f"was silent for {manners.silence_seconds:g} s; ask again, or allow more silence_seconds.",
                Unreachable,
                safe,
            ),
            "closed": ("closed the connection without an answer; ask again.", Unreachable, safe),
            "garbled": ("does not speak HTTP as expected; is the address right?", BadAnswer, False),
            "broken": ("broke off in the middle of its answer; ask again.", BadAnswer, safe),
            "unsendable": ("cannot be sent a header of this request; expected ASCII on one line.", OptionError, False),
        }[what]
        return _Failed(kind(f"{host} {text}"), again, stale=stale)


def _hiding(secrets: tuple[str, ...]) -> Callable[[str], str]:
    return lambda text: faults.unkeyed(text, secrets)


def _spelt(key: AnyStr) -> AnyStr:
    """A pattern of a key, each letter plain or as JSON may write it."""
    text = key if isinstance(key, str) else key.decode("latin-1")
    found = ""
    for letter in text:
        code = "".join(f"[{digit}{digit.upper()}]" for digit in f"{ord(letter):02x}")
        slash = r"|\\/" if letter == "/" else ""
        found += rf"(?:{re.escape(letter)}|\\u00{code}{slash})"
    return found if isinstance(key, str) else found.encode("latin-1")


async def _next(flow: Any, response: httpx.Response) -> httpx.Request | None:
    try:
        found: httpx.Request = await flow.asend(response)
        return found
    except StopAsyncIteration:
        return None


def _unconnected(error: BaseException) -> tuple[str, bool]:
    """Why there is no connection, to the end of a sentence, and whether another try may find one."""
    import socket
    import ssl

    if isinstance(error, ssl.SSLCertVerificationError):
        why = f"its certificate is not trusted here ({error.verify_message}); SSL_CERT_FILE names others to trust."
        return why, False
    if isinstance(error, ssl.SSLError):
        return f"it does not speak TLS as expected ({error.reason or 'handshake failed'}).", False
    if isinstance(error, socket.gaierror):
        return "its name is not known here.", error.errno == socket.EAI_AGAIN
    if isinstance(error, ConnectionRefusedError):
        return "the connection was refused; is a server running there?", True
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"{text[:200].rstrip('.')}.", True


@cache
def user_agent() -> str:
    from brolly import __version__

    return f"brolly/{__version__}"
