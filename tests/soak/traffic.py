"""What clients do to a server: every verb in every dialect, and all that clients should not do."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import random
import socket
import struct
import wave
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import httpx
import numpy as np
from PIL import Image

from tests.serve import fuzz
from tests.soak.models import WRITERS

WORDS = ("once", "upon", "a", "time", "the", "small", "red", "fox", "met", "an", "old", "hen", "and", "they", "slept")
Body = tuple[str, dict[str, Any]]


class Wrong(Exception):
    """An answer that should not have come."""


class Late(Exception):
    """429, with how long to wait."""


def said(r: random.Random, least: int = 1, most: int = 60) -> str:
    return " ".join(r.choices(WORDS, k=r.randint(least, most)))


def talk(r: random.Random) -> list[dict[str, Any]]:
    return [{"role": "system", "content": "Be brief."}, {"role": "user", "content": said(r)}]


def sound(r: random.Random, seconds: float, rate: int = 16000) -> bytes:
    """A WAV file."""
    file, at = io.BytesIO(), np.arange(int(seconds * rate)) / rate
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes((np.sin(at * r.randint(500, 3000)) * 9000).astype("<i2").tobytes())
    return file.getvalue()


def picture(r: random.Random) -> str:
    """A data: URL."""
    file = io.BytesIO()
    Image.new("RGB", (r.randint(20, 300), r.randint(20, 300)), r.choice(("red", "green", "blue"))).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


SCHEMA = {
    "type": "object", "properties": {"age": {"type": "integer"}, "ok": {"type": "boolean"}},
    "required": ["age", "ok"], "additionalProperties": False,
}  # fmt: skip
FORM = {"type": "json_schema", "json_schema": {"name": "fox", "schema": SCHEMA, "strict": True}}
TOOL = {"type": "function", "function": {"name": "look", "description": "Look it up.", "parameters": SCHEMA}}


def chat(r: random.Random, **more: Any) -> Body:
    common = {"model": r.choice(WRITERS), "messages": talk(r), "max_tokens": r.randint(1, 48)}
    return "/v1/chat/completions", common | more


def hard(r: random.Random, n: int) -> Body:
    """What takes some time to read: a grammar that is not known yet."""
    schema = {"type": "string", "pattern": f"^(fox{n}|hen){{1,400}}$"}
    form = {"type": "json_schema", "json_schema": {"name": "fox", "schema": schema}}
    return chat(r, model="mini-llm", response_format=form, max_tokens=1)


def completion(r: random.Random, **more: Any) -> Body:
    common = {"model": r.choice(WRITERS), "prompt": said(r), "max_tokens": r.randint(1, 48)}
    return "/v1/completions", common | more


def response(r: random.Random, **more: Any) -> Body:
    return "/v1/responses", {
        "model": r.choice(WRITERS),
        "input": said(r),
        "max_output_tokens": r.randint(16, 48),
    } | more


def message(r: random.Random, **more: Any) -> Body:
    given = [{"role": "user", "content": said(r)}]
    return "/v1/messages", {"model": r.choice(WRITERS), "messages": given, "max_tokens": r.randint(1, 48)} | more


def ollama(r: random.Random, **more: Any) -> Body:
    options = {"num_predict": r.randint(1, 48)}
    return "/api/chat", {"model": r.choice(WRITERS), "messages": talk(r), "options": options, "stream": False} | more


def generate(r: random.Random, **more: Any) -> Body:
    options = {"num_predict": r.randint(1, 32)}
    return "/api/generate", {"model": r.choice(WRITERS), "prompt": said(r), "options": options, "stream": False} | more


def embed(r: random.Random, **more: Any) -> Body:
    return "/v1/embeddings", {"model": "mini-embed", "input": [said(r) for _ in range(r.randint(1, 9))]} | more


def shown(r: random.Random) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": picture(r)}}


def load(r: random.Random) -> dict[str, Any]:
    return {"model": r.choice((*WRITERS[:3], "mini-clip", "mini-embed"))}


# answered at once and whole
WHOLE: dict[str, Callable[[random.Random], Body]] = {
    "chat": chat,
    "chat, n and logprobs": lambda r: chat(r, n=r.randint(2, 6), logprobs=True, top_logprobs=5, temperature=1.2),
    "chat, guided": lambda r: chat(r, response_format=FORM, max_tokens=40),
    "chat, tools": lambda r: chat(r, model="mini-llm", tools=[TOOL], tool_choice="required", max_tokens=64),
    "chat, long": lambda r: chat(r, model="tall", messages=[{"role": "user", "content": said(r, 100, 200)}]),
    "completions": completion,
    "completions, n of best_of": lambda r: completion(r, n=2, best_of=4, logprobs=3, seed=r.randint(0, 99), stop=["x"]),
    "completions, echo": lambda r: completion(r, model=r.choice(WRITERS[:3]), echo=True, logprobs=1, max_tokens=1),
    "completions, prompts": lambda r: completion(r, prompt=[said(r) for _ in range(r.randint(2, 5))]),
    "responses, not stored": lambda r: response(r, store=False),
    "messages": message,
    "count_tokens": lambda r: ("/v1/messages/count_tokens", {"model": "mini-llm", "messages": talk(r)[1:]}),
    "ollama chat": ollama,
    "ollama generate": generate,
    "ollama, gone at once": lambda r: generate(r, model=r.choice(("tiny", "tall")), keep_alive=0),
    "ollama embed": lambda r: ("/api/embed", {"model": "mini-embed", "input": said(r)}),
    "embeddings": embed,
    "embeddings, base64": lambda r: embed(r, encoding_format="base64", dimensions=16),
    "embeddings of pictures": lambda r: embed(r, model="mini-clip", input=[shown(r), said(r, 1, 9)]),
    "rerank": lambda r: ("/v1/rerank", {"model": "mini-embed", "query": said(r), "documents": [said(r), said(r)]}),
    "score": lambda r: ("/v1/score", {"model": "mini-embed", "text_1": said(r), "text_2": [said(r), said(r)]}),
    "classify": lambda r: (
        "/v1/classify", {"model": "mini-clip", "input": picture(r), "labels": r.sample(["a fox", "a hen", "red"], 2)}
    ),
    "tokenize": lambda r: ("/tokenize", {"model": r.choice(WRITERS[:3]), "prompt": said(r), "return_token_strs": True}),
    "detokenize": lambda r: ("/detokenize", {"model": "mini-llm", "tokens": [r.randint(0, 99) for _ in range(9)]}),
    "load": lambda r: ("/v1/brolly/load", load(r)),
    "unload": lambda r: ("/v1/brolly/unload", {"model": r.choice((*WRITERS[:3], "mini-clip", "mini-whisper"))}),
}  # fmt: skip
# by events or lines, and one of what the last ones say
STREAMS: dict[str, tuple[Callable[[random.Random], Body], tuple[str, ...]]] = {
    "chat, streamed": (lambda r: chat(r, stream=True, n=r.randint(1, 3)), ("data: [DONE]",)),
    "chat, guided and streamed": (
        lambda r: chat(r, stream=True, response_format=FORM, stream_options={"include_usage": True}),
        ("data: [DONE]",),
    ),
    "completions, streamed": (lambda r: completion(r, stream=True, logprobs=5), ("data: [DONE]",)),
    "responses, streamed": (
        lambda r: response(r, stream=True), ("event: response.completed", "event: response.incomplete"),
    ),
    "responses, background and streamed": (
        lambda r: response(r, stream=True, background=True),
        ("event: response.completed", "event: response.incomplete"),
    ),
    "messages, streamed": (lambda r: message(r, stream=True), ("event: message_stop",)),
    "ollama chat, streamed": (lambda r: ollama(r, stream=True), ('"done":true',)),
    "ollama generate, streamed": (lambda r: generate(r, stream=True), ('"done":true',)),
    "load, streamed": (lambda r: ("/v1/brolly/load", load(r) | {"stream": True}), ('"verbs"',)),  # whatever its state
}  # fmt: skip


class Traffic:
    """Clients of one server. What they did is in `counts`, what should not have come in `failures`."""

    def __init__(self, url: str, seed: int = 0) -> None:
        self.url, self.port, self.random = url, int(url.rpartition(":")[2]), random.Random(seed)
        self.client = httpx.AsyncClient(base_url=url, timeout=300)
        self.counts: Counter[tuple[str, str]] = Counter()  # (what was done, how it ended)
        self.failures: list[str] = []
        self.document: dict[str, Any] = {}
        acts: list[tuple[str, Callable[[], Awaitable[None]]]] = []
        acts += [(name, lambda make=make: self.whole(make)) for name, make in WHOLE.items()]  # type: ignore[misc]
        acts += [(name, lambda of=of: self.streamed(*of)) for name, of in STREAMS.items()]  # type: ignore[misc]
        unruly = (
            self.stored, self.background, self.conversation, self.hears, self.hears_a_large_file, self.tells,
            self.broken, self.vanish, self.vanish, self.vanish, self.vanish_unheard, self.slow, self.slow,
            self.garbage, self.garbage, self.no_http, self.half, self.silent,
        )  # fmt: skip
        self.acts = acts + [(act.__name__.replace("_", " "), act) for act in unruly]

    async def run(self, seconds: float, beside: int) -> None:
        """So many clients, each doing one thing after another; on return all of it is done."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds

        async def work() -> None:
            while loop.time() < end:
                await self.do(*self.random.choice(self.acts))

        await asyncio.gather(*(work() for _ in range(beside)))

    async def each(self, beside: int) -> None:
        """Everything once, by so many clients."""
        acts = iter(dict(self.acts).items())

        async def work() -> None:
            for name, act in acts:
                await self.do(name, act)

        await asyncio.gather(*(work() for _ in range(beside)))

    async def fill_pools(self, beside: int) -> None:
        """So much at once of what threads of pools do that each pool has as many threads as it will have."""
        await asyncio.gather(*(self.tells() for _ in range(4 * beside)))  # the loop's own
        await asyncio.gather(*(self.ask("/metrics", "GET") for _ in range(beside)))  # routes without `async`
        await asyncio.gather(*(self.whole(partial(hard, n=n)) for n in range(2 * beside)))  # readings

    async def do(self, name: str, act: Callable[[], Awaitable[None]]) -> None:
        try:
            async with asyncio.timeout(400):
                await act()
            self.counts[name, "as expected"] += 1
        except Late:
            self.counts[name, "429"] += 1
        except Exception as error:
            self.counts[name, "WRONG"] += 1
            self.failures.append(f"{name}: {type(error).__name__}: {error}"[:500])

    async def close(self) -> None:
        """Let go of all connections; further acts open new ones."""
        await self.client.aclose()
        self.client = httpx.AsyncClient(base_url=self.url, timeout=300)

    # what clients should do

    async def ask(self, path: str, method: str = "POST", expected: int = 200, **given: Any) -> httpx.Response:
        reply = await self.client.request(method, path, **given)
        judge(reply.status_code, reply.headers, reply.text, expected)
        return reply

    async def whole(self, make: Callable[[random.Random], Body]) -> None:
        path, body = make(self.random)
        (await self.ask(path, json=body)).json()

    async def streamed(self, make: Callable[[random.Random], Body], ends: tuple[str, ...]) -> None:
        path, body = make(self.random)
        last: list[str] = []
        async with self.client.stream("POST", path, json=body) as reply:
            if reply.status_code != 200:
                judge(reply.status_code, reply.headers, (await reply.aread()).decode(), 200)
            async for line in reply.aiter_lines():
                last = [*last[-5:], line]
        if not any(end in line for end in ends for line in last):
            raise Wrong(f"{path} ended with {last}")

    async def stored(self) -> None:
        """A response, its continuation, both read again, one deleted."""
        path, body = response(self.random)
        first = (await self.ask(path, json=body)).json()
        second = (await self.ask(path, json=body | {"previous_response_id": first["id"]})).json()
        for one in (first, second):
            again = (await self.ask(f"{path}/{one['id']}", "GET")).json()
            if again["output"] != one["output"]:
                raise Wrong("a stored response says something else")
        await self.ask(f"{path}/{first['id']}", "DELETE")
        await self.ask(f"{path}/{first['id']}", "GET", 404)

    async def background(self) -> None:
        """Responses that nobody waits for: some are cancelled, the others end."""
        path, body = response(self.random, background=True)
        id = (await self.ask(path, json=body)).json()["id"]
        if self.random.random() < 0.5:
            await asyncio.sleep(self.random.random() * 0.1)
            await self.ask(f"{path}/{id}/cancel")
        status = "queued"
        while status in ("queued", "in_progress"):
            await asyncio.sleep(0.05)
            status = (await self.ask(f"{path}/{id}", "GET")).json()["status"]
        if status not in ("completed", "incomplete", "cancelled"):
            raise Wrong(f"a response in the background is {status}")

    async def conversation(self) -> None:
        id = (await self.ask("/v1/conversations", json={})).json()["id"]
        path, body = response(self.random, conversation=id)
        await self.ask(path, json=body)
        found = (await self.ask(f"/v1/conversations/{id}/items", "GET")).json()
        if len(found["data"]) < 2:
            raise Wrong(f"a conversation has lost what was said: {found}")
        await self.ask(f"/v1/conversations/{id}", "DELETE")

    async def hears(self, rate: int = 16000) -> None:
        wav = sound(self.random, 3 + self.random.random(), rate)
        form = {"model": "mini-whisper", "response_format": self.random.choice(("json", "verbose_json", "srt"))}
        path = self.random.choice(("/v1/audio/transcriptions", "/v1/audio/translations"))
        await self.ask(path, data=form, files={"file": ("a.wav", wav)})

    async def hears_a_large_file(self) -> None:
        """An upload of more than a megabyte, which is kept in a temporary file."""
        await self.hears(192_000)

    async def tells(self) -> None:
        for path in ("/v1/models", "/v1/brolly/ps", "/v1/brolly/models", "/api/tags", "/api/ps", "/openapi.json", "/"):
            await self.ask(path, "GET")
        await self.ask("/api/show", json={"model": "mini-llm"})

    async def broken(self) -> None:
        """A model that cannot be loaded says so, and no other one minds."""
        path, body = completion(self.random, model="broken")
        reply = await self.client.post(path, json=body)
        if reply.json()["error"]["code"] not in ("model_broken", "model_not_supported"):
            raise Wrong(reply.text)

    # what clients should not do

    def raw(self, name: str) -> bytes:
        """The request of a stream, as bytes."""
        path, body = STREAMS[name][0](self.random)
        return post(path, json.dumps(body).encode())

    async def vanish(self) -> None:
        """Leave in the middle of a stream."""
        reader, writer = await dial(self.port)
        writer.write(self.raw(self.random.choice(list(STREAMS))))
        await reader.read(self.random.randint(1, 4000))
        hang_up(writer)

    async def vanish_unheard(self) -> None:
        """Ask for something and leave before there is an answer."""
        path, body = self.random.choice(list(WHOLE.values()))(self.random)
        _, writer = await dial(self.port)
        writer.write(post(path, json.dumps(body).encode()))
        await writer.drain()
        await asyncio.sleep(self.random.choice((0, 0.001, 0.01, 0.1)))
        hang_up(writer)

    async def slow(self) -> None:
        """Read a long answer by small parts, so that the server must wait; now and then give up."""
        reader, writer = await dial(self.port, window=2048)
        path, body = chat(self.random, stream=True, n=6, logprobs=True, top_logprobs=20, max_tokens=32)
        writer.write(post(path, json.dumps(body).encode()))
        parts, patience = b"", self.random.choice((20, 200, 1000))
        while not parts.endswith(b"\r\n0\r\n\r\n") and patience:
            part, patience = await reader.read(2048), patience - 1
            if parts.startswith(b"HTTP/1.1 4"):
                break
            if not part:
                raise Wrong(f"a stream was cut: {parts[-200:]!r}")
            parts = (parts + part)[-4096:] if len(parts) > 4096 else parts + part
            await asyncio.sleep(0.01)
        hang_up(writer)

    async def garbage(self) -> None:
        """A hostile body, as fuzz.py makes them."""
        if not self.document:
            self.document = (await self.ask("/openapi.json", "GET")).json()
        routes = fuzz.operations(self.document)
        given = fuzz.Maker(random.Random(self.random.random()), self.document).request(self.random.choice(routes))
        reply = await self.client.request(**given)
        if reply.status_code >= 500 and reply.status_code != 501:
            raise Wrong(f"{reply.status_code} {reply.text} to {given}")

    async def no_http(self) -> None:
        """Bytes that are no request."""
        reader, writer = await dial(self.port)
        writer.write(
            self.random.choice((b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", self.random.randbytes(999), b"\r\n" * 9))
        )
        if self.random.random() < 0.5:
            writer.write_eof()
            await reader.read()
        hang_up(writer)

    async def half(self) -> None:
        """Half a head, or half a body; then silence, and away."""
        _, writer = await dial(self.port)
        whole = post("/v1/audio/transcriptions", self.random.randbytes(1 << 20), "multipart/form-data; boundary=x")
        writer.write(whole[: self.random.choice((9, 60, len(whole) // 2))])
        await asyncio.sleep(self.random.random())
        hang_up(writer)

    async def silent(self) -> None:
        """Connect, say nothing, go."""
        _, writer = await dial(self.port)
        await asyncio.sleep(self.random.random() * 2)
        hang_up(writer)


def judge(status: int, headers: Any, text: str, expected: int) -> None:
    """Raises Late for a 429 that says until when, and Wrong for anything unexpected."""
    if status == 429 and "retry-after" in headers:
        raise Late
    if status != expected:
        raise Wrong(f"{status} in place of {expected}: {text[:300]}")


def post(path: str, body: bytes, kind: str = "application/json") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def dial(port: int, window: int = 0) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection; with a window, one that takes so many bytes before it must be read."""
    sock = socket.socket()
    sock.setblocking(False)
    if window:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    return await asyncio.open_connection(sock=sock, limit=window or 65536)


def hang_up(writer: asyncio.StreamWriter) -> None:
    """Go without a farewell: the other side sees a reset."""
    with suppress(OSError):  # the other side went before
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()
