"""One random Llama and what transformers makes of it, for all tests of running."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.run import checkpoints


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder, and the transformers model that wrote it."""
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("llama")
    return folder, checkpoints.write_llama(folder)


@pytest.fixture(scope="session")
def model(llama: tuple[Path, Any]) -> Any:
    """The same checkpoint in brolly, float32 on the CPU."""
    from brolly.loader import load

    return load(llama[0], device="cpu", dtype="float32")


@pytest.fixture
def reciter(tmp_path: Path) -> Callable[..., Any]:
    """Makes a loaded model that recites a text, or tokens; its `.says` are the tokens."""
    from brolly.loader import load

    def make(says: str | list[int], **options: Any) -> Any:
        ids = checkpoints.write_reciter(tmp_path / "reciter", says, **options)
        loaded = load(tmp_path / "reciter", device="cpu", dtype="float32")
        loaded.says = ids
        return loaded

    return make
