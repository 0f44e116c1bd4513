"""The short forms of tests/soak: a server of its own process under traffic, floods, overload and signals."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("uvicorn")
pytest.importorskip("httpx")
pytest.importorskip("peft")

from tests.soak import floods, killed, mixed, overload  # noqa: E402
from tests.soak.models import write  # noqa: E402
from tests.soak.process import Held, Server, serving  # noqa: E402

pytestmark = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="memory is read as Linux tells it")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With room for some models and connections, and a short queue."""
    folder = tmp_path_factory.mktemp("soak")
    bounds = ("--memory", mixed.MEMORY, "--waiting", "16", "--connections", "300", "--body-time", "1s")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # else each thread of a pool has a team of torch's once it loads a model
        with serving(folder, *write(folder / "models"), *bounds) as found:
            yield found


def test_mixed_traffic_leaves_nothing_behind(server: Server) -> None:
    seen = asyncio.run(mixed.soak(server, 0, round=0.3, beside=5))
    assert seen.failures == []
    assert [text for held, text in seen.verdicts(within=0.25) if not held] == []
    assert {name for name, _ in seen.counts} > {"chat, guided", "hears a large file", "vanish", "slow", "ollama chat"}


def test_a_flood_of_idle_connections_keeps_nobody_from_being_answered(server: Server) -> None:
    for wave in asyncio.run(floods.floods(server, 500, 0.6)):
        assert wave.failures == [], wave.name
        assert wave.most <= 320


def test_more_than_there_is_room_for_is_told_to_wait(server: Server) -> None:
    found = asyncio.run(overload.load(server, 200, 0.5, answers=40))
    assert found.failures == []
    assert found.statuses[200] > 0 < found.statuses[429] and set(found.statuses) == {200, 429}


def test_signals_lose_nothing_that_was_accepted(tmp_path: Path) -> None:
    failures, counts, statuses = asyncio.run(killed.rounds(tmp_path, terms=1, kills=1, n=3, seed=0))
    assert failures == []
    assert min(counts[name] for name in ("stored", "background", "streams", "answers")) >= 3
    assert statuses["completed"] + statuses["incomplete"] >= 6


def test_what_grows_is_noticed() -> None:
    held = Held(100, 200, 150, 7, 20, 500, 0)
    seen = mixed.Soak(held, rests=[Held(100 + i, 200, 150, 7, 20 + i // 9, 500, 0) for i in range(10)])
    fails = [text for held, text in seen.verdicts(within=0.03) if not held]
    assert len(fails) == 2 and fails[0].startswith("memory at rest is flat: own +") and fails[1].startswith("files")
