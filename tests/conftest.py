"""Fixtures of every test: where the shared data lies, and one thread for torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if not os.environ.get("BROLLY_LIVE"):  # the keyring of whoever runs tests is nobody's business
    os.environ["PYTHON_KEYRING_BACKEND"] = "keyring.backends.fail.Keyring"
if any(
    os.environ.get(name) for kind in ("HTTP", "HTTPS", "ALL") for name in (f"{kind}_PROXY", f"{kind}_PROXY".lower())
):
    for name in ("NO_PROXY", "no_proxy"):  # servers of tests are on this machine, which a proxy does not reach
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), "127.0.0.1", "localhost")))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data kept beside the project."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "data").is_dir():
        pytest.skip(f"{folder}/data is absent: this test reads real data kept beside the project")
    return folder


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tests run beside each other; a torch that is already imported keeps to one thread, and none is imported here."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)
    yield
