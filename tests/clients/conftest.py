"""Where the server is that clients are tried with. `make test-clients` starts it; `make test` passes by."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

URL = os.environ.get("BROLLY_CLIENTS_URL", "")
if not URL:
    collect_ignore_glob = ["test_*.py"]

CHAT, EMBED, EAR, EYE = "tiny-tools", "mini-embed", "mini-whisper", "mini-clip"


@pytest.fixture(scope="session")
def url() -> str:
    return URL


@pytest.fixture(scope="session")
def v1() -> str:
    return f"{URL}/v1"


@pytest.fixture(scope="session")
def checkpoint() -> Path:
    """The folder of the language model that the server serves."""
    return Path(os.environ["BROLLY_CLIENTS_CHECKPOINT"])


@pytest.fixture(scope="session")
def sound() -> Path:
    return Path(__file__).parents[1] / "fixtures" / "audio" / "fuzzy.flac"
