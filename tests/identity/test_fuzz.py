"""A short, seeded run of the fuzzer, and whether it would catch what it is for."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
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
    told = piece(samples, 1000, 7, tmp_path)
    assert told["failures"] == []
    assert 0.2 < told["refused"] / told["files"] < 0.8, "some are told, some refused"
    assert told["slowest"] < SECOND and told["memory"] < MEMORY


def caught(samples: list[Path], folder: Path, patch: pytest.MonkeyPatch, spoil: Callable[[int], None]) -> list[str]:
    """What the fuzzer says of a reader that does `spoil` with the first, second … damaged file of a format."""
    (sample,) = (path for path in samples if path.name == "model.gguf")
    real, clean, met = gguf.read_gguf, sample.read_bytes(), list[bytes]()

    def reads(path: Any, faults: Any = None) -> Any:
        if (raw := path.read_bytes()) != clean:
            if raw not in met:
                met.append(raw)
            spoil(met.index(raw))
        return real(path, faults)

    patch.setattr(gguf, "read_gguf", reads)
    failures = piece([sample], 12, 1, folder)["failures"]
    assert all(Path(text.partition(": ")[0]).exists() for text in failures), "the damaged files are kept"
    return [text.partition(": ")[2] for text in failures]


def test_crashes_are_caught(samples: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(number: int) -> None:
        if number == 2:
            raise KeyError("no such thing")

    assert caught(samples, tmp_path, monkeypatch, fails) == ["KeyError: 'no such thing'"]


def test_slowness_and_hunger_are_caught(samples: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dawdles(number: int) -> None:
        end = time.process_time() + 0.7 * (number == 1)
        while time.process_time() < end:
            pass
        if number == 3:
            bytearray(MEMORY + 2**27)  # the process may give back some of its own meanwhile

    monkeypatch.setattr("tests.identity.fuzz.SECOND", 0.5)
    found = caught(samples, tmp_path, monkeypatch, dawdles)
    assert found[0].startswith("took 0.7 s") and "bytes of memory" in found[1]


def test_what_never_ends_is_given_up(samples: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hangs(number: int) -> None:
        while number == 1:
            pass

    monkeypatch.setattr("tests.identity.fuzz.HANG", 0.3)
    assert caught(samples, tmp_path, monkeypatch, hangs) == ["took more than 0.3 s"]


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
