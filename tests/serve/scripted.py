"""A house of one model that says what a test gives it, piece by piece: for what no bundled model writes of itself."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from brolly import hub
from brolly.engine.job import Job
from brolly.identity import examine
from brolly.media.text import load_tokenizer
from brolly.serve.app import create
from brolly.serve.settings import Settings
from brolly.verbs import GenerateOptions, Piece, Usage
from tests.serve.conftest import Running, serving

Script = Callable[[Job], Iterable[Piece | BaseException]]


class ScriptedTicket:
    """Whether a job was cancelled, for tests to wait for."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()

    def cancel(self) -> None:
        self.cancelled.set()


class ScriptedModel:
    """The tokenizer and card of mini-llm; what is written comes from the script, each job's in a thread of its own."""

    def __init__(self, script: Script, pause: float = 0.0) -> None:
        self.script, self.pause = script, pause
        self.card = examine(hub.resolve("mini-llm"))
        self.tokenizer = load_tokenizer(self.card.header)
        self.dtype = "float32"
        self.network = type("Network", (), {"config": type("Config", (), {"context": 512, "vocab_size": 4096})})
        self.jobs: list[Job] = []
        self.asked: list[dict[str, Any]] = []
        self.tickets: list[ScriptedTicket] = []

    def prepare(self, prompt: Any, **options: Any) -> Job:
        ids = self.tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)
        return self._job(ids, options)

    def prepare_chat(self, messages: list[dict[str, Any]], **options: Any) -> Job:
        self.asked.append({"messages": messages, **options})
        for name in ("tools", "tool_choice", "parallel_tool_calls", "template"):
            options.pop(name, None)
        return self._job(self.tokenizer.encode_chat(messages), options)

    def _job(self, ids: list[int], options: dict[str, Any]) -> Job:
        own = {name: options.pop(name) for name in ("n", "best_of", "adapter", "priority", "user") if name in options}
        return Job(ids, GenerateOptions(**options), **own)

    def submit(self, job: Job, deliver: Callable[[Piece | BaseException], None]) -> ScriptedTicket:
        ticket = ScriptedTicket()
        self.jobs.append(job)
        self.tickets.append(ticket)

        def write() -> None:
            for piece in self.script(job):
                if ticket.cancelled.wait(self.pause) if self.pause else ticket.cancelled.is_set():
                    return
                deliver(piece)

        threading.Thread(target=write, daemon=True).start()
        return ticket


class ScriptedHouse:
    """A house whose only model is always loaded."""

    def __init__(self, model: ScriptedModel) -> None:
        self.model = model
        entry = {
            "name": "scripted",
            "path": hub.resolve("mini-llm"),
            "revision": "",
            "aliases": [],
            "adapters": {},
            "created": 0,
            "model": model,
            "card": model.card,
            "target": None,
        }
        self.entry = type("Entry", (), entry)()
        self.entries = {"scripted": self.entry}

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def ready(self) -> bool:
        return True

    def find(self, name: str) -> tuple[Any, None]:
        return self.entry, None

    @asynccontextmanager
    async def use(self, name: str, verb: str = "", priority: int = 0, keep_alive: Any = None) -> AsyncIterator[Any]:
        yield type("Use", (), {"name": name, "entry": self.entry, "model": self.model, "adapter": None})


@contextmanager
def scripted(
    script: Script, store: Path, pause: float = 0.0, **settings: Any
) -> Iterator[tuple[Running, ScriptedModel]]:
    """A server whose model follows the script, with `pause` seconds before each piece."""
    model = ScriptedModel(script, pause)
    app = create(Settings(models=("mini-llm",), store=store, **settings))
    app.state.house = ScriptedHouse(model)
    with serving(app) as running:
        yield running, model


def words(count: int, finish: str = "stop") -> Script:
    """So many pieces of a word each."""

    def script(job: Job) -> Iterator[Piece]:
        for n in range(count):
            yield Piece(f" word{n}", (n,))
        yield Piece("", finish_reason=finish, usage=Usage(len(job.prompt), count))

    return script


def eventually(true: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Whether something comes true within the time."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def asked_and_left(running: Running, path: str, body: dict[str, Any], begun: Callable[[], bool]) -> None:
    """A client that sends a request and goes away without a word as soon as the work has begun."""
    host, _, port = running.url.removeprefix("http://").partition(":")
    content = json.dumps(body).encode()
    rows = (f"host: {host}", "content-type: application/json", f"content-length: {len(content)}")
    head = "\r\n".join((f"POST {path} HTTP/1.1", *rows, "", ""))
    with socket.create_connection((host, int(port))) as client:
        client.sendall(head.encode() + content)
        assert eventually(begun)
