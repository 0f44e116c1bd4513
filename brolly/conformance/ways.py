"""How a model is reached: in this process, or through `brolly serve` in each wire format, by our own clients."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from brolly.conformance.suite import Subject
from brolly.errors import OptionError, UnsupportedTask
from brolly.remote import Remote, Target, is_remote
from brolly.remote.vendors import Vendor, vendors

START = 120.0  # seconds for a server to say where it listens
WIRES = {  # a way through the server → the vendor whose words are spoken, and what follows the server's address
    "chat": ("compatible", "/v1"),
    "responses": ("openai-responses", "/v1"),
    "messages": ("anthropic", ""),
}
VARIABLE = "BROLLY_CONFORMANCE_KEY"
WAYS = ("python", *WIRES)


class Way(NamedTuple):
    """One way: its name, and the subject while the way is open."""

    name: str
    open: Callable[[], Any]  # a context manager that gives a Subject


def ways_of(reference: str, names: tuple[str, ...] = WAYS, **remote: Any) -> list[Way]:
    """The ways to a model, in order; those through a server share one that lives as long as they are asked. Raises
    OptionError."""
    if unknown := [name for name in names if name not in WAYS]:
        raise OptionError(f"{unknown[0]!r:.40} is no way; there are {', '.join(WAYS)}.")
    return [
        Way(name, partial(here, reference, **remote) if name == "python" else partial(through, reference, name))
        for name in names
    ]


@contextmanager
def here(reference: str, **remote: Any) -> Iterator[Subject]:
    """The model in this process: loaded, or asked at its vendor."""
    if is_remote(reference):
        model: Any = Remote(reference, **remote)
        traits = model.traits
        yield Subject(
            model, reference, repeats=model.target.host.startswith("127.0.0.1"), free=model.target.vendor.local,
            reads=("text", *traits.reads) if traits.reads else (), verbs=model.card.verbs, context=traits.context,
            thinks=traits.thinking in ("effort", "level"), cool="temperature" not in traits.lacks,
            elsewhere=lambda name: Remote(replace(model.target, name=name, model=name)),
            wrong_key=partial(wrong, model.target) if model.target.vendor.keys else None,
        )  # fmt: skip
        model.close()
        return
    from brolly.loader import load

    model = load(reference)
    if "chat" not in model.card.verbs:
        raise UnsupportedTask(f"{reference} can {', '.join(model.card.verbs)}; the suite is for models that chat.")
    yield Subject(
        model, reference, repeats=True, free=True, random=True, reads=tuple(model.card.kind.modalities_in),
        verbs=model.card.verbs, context=model.network.config.context,
    )  # fmt: skip
    model.close()


@contextmanager
def through(reference: str, wire: str) -> Iterator[Subject]:
    """The same through a server of its own."""
    with serving(reference) as (url, name):
        vendor, behind = WIRES[wire]
        target = Target(f"{name} by {wire}", plain(vendors()[vendor]), url + behind, name)
        model = Remote(target)
        about = card(url, name)
        local = not is_remote(reference)
        yield Subject(
            model, name, repeats=local, free=local, random=local, reads=tuple(about["modalities"]["in"]),
            verbs=("chat",), context=about.get("context_length") if local else None,
            elsewhere=lambda other: Remote(replace(target, name=other, model=other)),
        )  # fmt: skip
        model.close()


def plain(vendor: Vendor) -> Vendor:
    """A vendor's words without its keys: for a server of our own."""
    ours = vendors().get("brolly", vendor)
    takes = ours.takes if "openai.chat" in vendor.dialects["chat"] else vendor.takes
    return replace(
        vendor, title="brolly serve", auth="bearer_if_any", keys=(), bases=(), local=True, takes=takes, lacks=()
    )


def wrong(target: Target) -> Remote:
    """The same model with a key that is surely wrong."""
    os.environ[VARIABLE] = "wrong-0123456789"
    return Remote(replace(target, vendor=replace(target.vendor, keys=(VARIABLE,))))


@contextmanager
def serving(reference: str) -> Iterator[tuple[str, str]]:
    """A `brolly serve` of one model in a process of its own: its address, and the model's name there."""
    command = [sys.executable, "-m", "brolly", "serve", reference, "--port", "0", "--log", "json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said: list[str] = []
    urls: list[str] = []
    found = threading.Event()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            if matched := re.search(r"http://127\.0\.0\.1:\d+", line):
                urls.append(matched[0])
                found.set()
        found.set()

    threading.Thread(target=read, daemon=True).start()
    try:
        found.wait(START)
        if not urls:
            raise OptionError(f"the server of {reference} did not start: {''.join(said)[-300:].strip()}")
        url = urls[0]
        yield url, get(f"{url}/v1/models")["data"][0]["id"]
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def get(url: str) -> Any:
    """A JSON document of our own server, which may still be starting."""
    import httpx

    return httpx.get(url, timeout=60, trust_env=False).raise_for_status().json()


def card(url: str, name: str) -> dict[str, Any]:
    from urllib.parse import quote

    found: dict[str, Any] = get(f"{url}/v1/models/{quote(name)}")["brolly"]
    return found
