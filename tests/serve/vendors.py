"""Fakes of the vendors, and a server of brolly's before them, for tests of models that run elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from brolly.serve.app import create
from brolly.serve.settings import Settings
from tests.remote.fakes import KEY, Fake
from tests.remote.fakes.anthropic import FakeAnthropic
from tests.remote.fakes.gemini import FakeGemini
from tests.remote.fakes.openai import FakeOpenAI
from tests.serve.conftest import Running, serving

CLIENT = "sk-brolly-client-key"  # whose requests these are; no vendor may see it
KEYS = (KEY, FakeOpenAI.key)  # and no client these


class World:
    """A server, and the vendors behind it, by the beginnings of their variables."""

    def __init__(self, running: Running, fakes: dict[str, Any]) -> None:
        self.running, self.fakes = running, fakes

    def vendor(self, model: str) -> Any:
        """Whose a model is: openai-responses:m is OPENAI's."""
        return self.fakes[model.partition(":")[0].partition("-")[0].upper()]

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {CLIENT}"}


@contextmanager
def world_of(models: tuple[str, ...], store: Path, **settings: Any) -> Iterator[World]:
    """At its end, nobody was told a key that is not theirs."""
    with (
        pytest.MonkeyPatch.context() as patch,
        FakeOpenAI() as openai,
        FakeAnthropic() as claude,
        FakeGemini() as gemini,
    ):
        fakes: dict[str, Fake] = {"OPENAI": openai, "ANTHROPIC": claude, "GEMINI": gemini}
        bases = {"OPENAI": openai.base, "ANTHROPIC": claude.url, "GEMINI": f"{gemini.url}/v1"}
        for name, base in bases.items():
            patch.setenv(f"{name}_BASE_URL", base)
            patch.setenv(f"{name}_API_KEY", FakeOpenAI.key if name == "OPENAI" else KEY)
        patch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")
        models = tuple(model.replace("OPENAI", openai.base) for model in models)
        given = Settings(models=models, store=store, api_keys=((CLIENT, "admin"),), **settings)
        with serving(create(given)) as running:
            yield World(running, fakes)
        for fake in fakes.values():
            for request in fake.requests:
                assert CLIENT.encode() not in request.body + str(request.headers).encode() + request.target.encode()
