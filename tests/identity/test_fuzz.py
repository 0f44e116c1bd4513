"""A short, seeded run of the fuzzer, and whether it would catch what it is for."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest

from brolly.checkpoint import gguf
from tests.identity.damage import LINES, VALUES, spoilt, tree
from tests.identity.fuzz import MEMORY, SECOND, piece, read
from tests.identity.samples import FILES, write_all


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    found = write_all(tmp_path_factory.mktemp("samples"))
    assert len(found) >= len(FILES) - 6, "a few libraries may be missing, not most"
    return found


def test_damaged_models_are_told_or_refused(samples: list[Path], tmp_path: Path) -> None:
    told = piece(samples, 1500, 7, tmp_path)
    assert told["failures"] == []
    assert 0.2 < told["refused"] / told["files"] < 0.8, "some are told, some refused"
    assert told["slowest"] < SECOND and told["memory"] < MEMORY


def caught(samples: list[Path], tmp_path: Path) -> list[str]:
    (sample,) = (path for path in samples if path.name == "model.gguf")
    failures = piece([sample], 12, 1, tmp_path)["failures"]
    assert all(Path(text.partition(": ")[0]).exists() for text in failures), "the damaged files are kept"
    return [text.partition(": ")[2] for text in failures]


def test_crashes_are_caught(samples: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = gguf.read_gguf, 0

    def fails(path: Any, faults: Any = None) -> Any:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise KeyError("no such thing")
        return real(path, faults)

    monkeypatch.setattr(gguf, "read_gguf", fails)
    assert "KeyError: 'no such thing'" in caught(samples, tmp_path)


def test_slowness_and_hunger_are_caught(samples: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = gguf.read_gguf, 0

    def dawdles(path: Any, faults: Any = None) -> Any:
        nonlocal calls
        calls += 1
        if calls in (2, 3):
            end = time.process_time() + 0.7
            while time.process_time() < end:
                pass
        if calls == 5:
            bytearray(MEMORY + 2**24)
        return real(path, faults)

    monkeypatch.setattr(gguf, "read_gguf", dawdles)
    monkeypatch.setattr("tests.identity.fuzz.SECOND", 0.5)
    found = caught(samples, tmp_path)
    assert found[0].startswith("took 0.7 s") and "bytes of memory" in found[1]


def test_damage_is_the_same_for_the_same_seed(samples: list[Path]) -> None:
    for sample in samples:
        held = read(sample)
        one, two = (
            tree(held, b"other", random.Random(3))
            if isinstance(held, dict)
            else spoilt(sample.name, held, b"other", random.Random(3))
            for _ in range(2)
        )
        assert one == two
    assert len(VALUES) > 30 and len(LINES) > 20
