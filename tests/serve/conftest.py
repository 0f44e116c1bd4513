"""A real server on 127.0.0.1 and a free port, for clients that know nothing of tests."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

uvicorn = pytest.importorskip("uvicorn")
pytest.importorskip("fastapi")
pytest.importorskip("torch")  # before a server's thread imports it, while fixtures look at what is half there

from brolly.serve.app import create  # noqa: E402
from brolly.serve.settings import Settings  # noqa: E402

MINIS = ("mini-llm", "mini-clip", "mini-embed", "mini-whisper")


@dataclass(frozen=True)
class Running:
    """A server that runs in a thread of this process: where, and its application, to look inside."""

    url: str  # "http://127.0.0.1:49152"
    app: Any

    @property
    def v1(self) -> str:
        return f"{self.url}/v1"


@contextmanager
def serving(app: Any) -> Iterator[Running]:
    """An application behind uvicorn, from its lifespan's start to its end."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="warning", lifespan="on", timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server ended while it started"
        time.sleep(0.01)
    try:
        yield Running(f"http://127.0.0.1:{listener.getsockname()[1]}", app)
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()


@pytest.fixture(scope="session")
def server() -> Iterator[Callable[[Settings], Running]]:
    """Start a server of these settings; it stops with the session. `server(settings).url` is where it listens."""
    with ExitStack() as stack:
        yield lambda settings: stack.enter_context(serving(create(settings)))


@pytest.fixture(scope="session")
def brolly(server: Callable[[Settings], Running], tmp_path_factory: pytest.TempPathFactory) -> Running:
    """The server that most tests share: the four bundled models, loaded when first asked for."""
    return server(Settings(models=MINIS, store=tmp_path_factory.mktemp("store"), port=0))


@pytest.fixture(scope="session")
def openai_client(brolly: Running) -> Iterator[Any]:
    """OpenAI's own client, pointed at the shared server."""
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=brolly.v1, api_key="none", max_retries=0) as client:
        yield client
