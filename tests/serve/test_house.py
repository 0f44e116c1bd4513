"""The house of models: names, one load for all who wait, memory, keeping and giving back."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from brolly import hub
from brolly.errors import BrollyError, Busy, CheckpointError, NotFound, OptionError, UnsupportedTask
from brolly.serve import house as rooms
from brolly.serve.errors import Refused, told
from brolly.serve.house import House
from brolly.serve.memory import Need, predict
from brolly.serve.names import Entry
from brolly.serve.settings import Settings
from tests.run.checkpoints import write_llama

GB = 10**9


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Fake:
    """A model that only says when it was closed."""

    def __init__(self, name: str, closed: list[str]) -> None:
        self.name, self.closed, self.device, self.dtype = name, closed, "cpu", "torch.float32"

    def close(self) -> None:
        self.closed.append(self.name)


class FakeHouse(House):
    """A house whose models are names and sizes; `loading` may be held up, and fail."""

    sizes: dict[str, int]

    def __init__(self, settings: Settings, sizes: dict[str, int] | None = None, cache: int = 0) -> None:
        super().__init__(settings, Clock())
        self.sizes, self.cache = sizes or {}, cache
        self.loads: list[str] = []
        self.closed: list[str] = []
        self.caches: dict[str, int] = {}
        self.gate = threading.Event()
        self.gate.set()
        self.error: Exception | None = None

    def need(self, entry: Entry) -> Need:
        return Need(self.sizes.get(entry.name, GB), 0, self.cache, 4 * self.cache)

    def bring(self, entry: Entry, cache: int) -> Any:
        assert self.gate.wait(20)
        self.loads.append(entry.name)
        self.caches[entry.name] = cache
        if self.error and entry.name.startswith("bad"):
            raise self.error
        return Fake(entry.name, self.closed)

    def held(self, model: Any, grown: int) -> int:
        return self.sizes.get(model.name, GB)

    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds  # type: ignore[attr-defined]


@asynccontextmanager
async def living(house: Any) -> AsyncIterator[Any]:
    await house.start()
    try:
        await house.looked
        yield house
    finally:
        await house.close()


def run(work: Coroutine[Any, Any, None]) -> None:
    async def within() -> None:
        async with asyncio.timeout(30):
            await work

    asyncio.run(within())


async def until(holds: Callable[[], bool]) -> None:
    while not holds():
        await asyncio.sleep(0.005)


@pytest.fixture
def named(tmp_path: Path) -> Callable[..., tuple[str, ...]]:
    """Folders of these names, each of them mini-llm."""

    def make(*names: str) -> tuple[str, ...]:
        for name in names:
            (tmp_path / name).symlink_to(hub.MINIS / "mini-llm")
        return tuple(str(tmp_path / name) for name in names)

    return make


def a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for repo, commit in (("org/name", "a" * 40), ("org/name", "b" * 40), ("other/thing", "c" * 40)):
        folder = tmp_path / "hub" / f"models--{repo.replace('/', '--')}"
        root = folder / "snapshots" / commit
        root.mkdir(parents=True)
        for file in (hub.MINIS / "mini-llm").iterdir():
            (root / file.name).symlink_to(file)
        (folder / "refs").mkdir(exist_ok=True)
        (folder / "refs" / "main").write_text(commit)
    return tmp_path / "hub"


# names


def test_every_model_of_the_cache_is_served_by_its_repositorys_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_cache(tmp_path, monkeypatch)
    found = House(Settings())
    assert {"org/name", "org/name@aaaaaaaaaaaa", "other/thing", *hub.minis()} == set(found.entries)
    assert found.find("ORG/Name")[0].name == "org/name"
    assert found.find("thing")[0].name == "other/thing"
    assert found.find("org/name@main")[0].name == "org/name"
    assert found.find("org/name@bbbbbbb")[0].name == "org/name"
    assert found.find("org/name@aaaaaaaaaaaa")[0].revision == "a" * 40
    for wrong in ("org/name@v2", "org/name@../../../etc", "org/name@ccccccc", "org/name@"):
        with pytest.raises(NotFound):
            found.find(wrong)


def test_what_cannot_be_run_is_not_served_unless_it_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = a_cache(tmp_path, monkeypatch)
    odd = cache / "models--other--thing" / "snapshots" / ("c" * 40)
    (odd / "config.json").unlink()
    (odd / "config.json").write_text('{"model_type": "nothing-known"}')

    async def work() -> None:
        async with living(FakeHouse(Settings())) as house:
            assert "other/thing" not in house.entries and "org/name" in house.entries
        async with living(FakeHouse(Settings(models=("other/thing", "mini-llm")))) as house:
            assert "other/thing" in house.entries and house.entries["other/thing"].fault
            with pytest.raises(BrollyError):
                async with house.use("other/thing", "chat"):
                    pass
            async with house.use("mini-llm", "chat"):
                pass

    run(work())


def test_an_unknown_name_is_told_with_those_that_are_near(named: Callable[..., tuple[str, ...]]) -> None:
    found = House(Settings(models=named("small-talker", "hearer"), alias={"gpt-4o": "hearer"}))
    with pytest.raises(NotFound, match="did you mean small-talker"):
        found.find("smal-talker")
    with pytest.raises(NotFound, match="did you mean gpt-4o"):
        found.find("GPT-4")
    with pytest.raises(NotFound, match="here are gpt-4o, hearer, small-talker"):
        found.find("zzzzz")
    with pytest.raises(NotFound) as error:
        found.find("x" * 100_000)
    assert len(str(error.value)) < 500


def test_aliases_and_ollamas_tag_mean_the_model(named: Callable[..., tuple[str, ...]]) -> None:
    found = House(Settings(models=named("talker"), alias={"gpt-4o": "talker"}))
    for name in ("talker", "TALKER", "talker:latest", "gpt-4o", "GPT-4o:latest"):
        assert found.find(name)[0].name == "talker"


def test_a_short_name_of_two_models_is_not_guessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = a_cache(tmp_path, monkeypatch)
    (cache / "models--other--thing").rename(cache / "models--other--name")
    found = House(Settings())
    with pytest.raises(NotFound, match="could be org/name, other/name"):
        found.find("name")


def test_two_folders_of_one_name_are_both_served_and_told(tmp_path: Path) -> None:
    for parent in ("a", "b"):
        (tmp_path / parent).mkdir()
        (tmp_path / parent / "talker").symlink_to(hub.MINIS / ("mini-llm" if parent == "a" else "mini-embed"))
    found = House(Settings(models=(str(tmp_path / "a/talker"), str(tmp_path / "b/talker"))))
    assert set(found.entries) == {"talker", str(tmp_path / "b/talker")}
    assert "have the same name" in found.notes[0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"alias": {"talker": "hearer"}},
        {"alias": {"new": "nobody"}},
        {"pin": ("nobody",)},
        {"adapters": {"kind": "/nowhere"}},
        {"models": ("",)},
        {"models": ("./nowhere",)},
    ],
)
def test_wrong_settings_are_told_before_anything_runs(
    wrong: dict[str, Any], named: Callable[..., tuple[str, ...]]
) -> None:
    with pytest.raises((NotFound, OptionError)):
        House(Settings(**({"models": named("talker", "hearer")} | wrong)))


def test_an_adapter_is_asked_for_behind_its_base_or_by_its_own_name(
    tmp_path: Path, named: Callable[..., tuple[str, ...]]
) -> None:
    folders = {}
    for name, base in (("kind", "talker"), ("rude", "hearer"), ("any", "org/unknown")):
        folders[name] = tmp_path / "adapters" / name
        folders[name].mkdir(parents=True)
        (folders[name] / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    adapters = {"kind": str(folders["kind"]), "talker:rude": str(folders["rude"]), "any": str(folders["any"])}
    found = House(Settings(models=named("talker", "hearer"), adapters=adapters, alias={"t": "talker"}))

    def said(name: str) -> tuple[str, str | None]:
        entry, adapter = found.find(name)
        return entry.name, adapter

    assert said("talker:kind") == said("t:kind") == said("kind") == ("talker", "kind")
    assert said("talker:rude") == said("rude") == ("talker", "rude")
    assert said("hearer:any") == ("hearer", "any") and said("talker:any") == ("talker", "any")
    with pytest.raises(NotFound, match="adapter of talker, hearer"):
        found.find("any")
    with pytest.raises(NotFound):
        found.find("hearer:kind")


# loading


def test_a_thousand_waiters_share_one_load(named: Callable[..., tuple[str, ...]]) -> None:
    async def work() -> None:
        async with living(FakeHouse(Settings(models=named("a"), keep_alive=0))) as house:
            house.gate.clear()

            async def ask() -> Any:
                async with house.use("a", "chat") as use:
                    return use.model

            asking = [asyncio.create_task(ask()) for _ in range(1000)]
            await until(lambda: house.entries["a"].share.uses == 1000)
            asking[0].cancel()
            house.gate.set()
            found = await asyncio.gather(*asking, return_exceptions=True)
            assert isinstance(found[0], asyncio.CancelledError) and len(set(found[1:])) == 1
            assert house.loads == ["a"]

    run(work())


def test_more_waiters_than_may_wait_are_told_to_come_later(named: Callable[..., tuple[str, ...]]) -> None:
    async def work() -> None:
        async with living(FakeHouse(Settings(models=named("a"), waiting=1))) as house:
            house.gate.clear()
            first = asyncio.create_task(house.load("a"))
            await until(lambda: house.entries["a"].share.uses == 1)
            with pytest.raises(Busy):
                await house.load("a")
            house.gate.set()
            await first

    run(work())


@pytest.mark.parametrize("error", [CheckpointError("the file is broken."), ValueError("inside"), MemoryError()])
def test_a_failed_load_is_told_to_all_and_not_tried_again_at_once(
    named: Callable[..., tuple[str, ...]], error: Exception
) -> None:
    async def work() -> None:
        async with living(FakeHouse(Settings(models=named("bad", "good")))) as house:
            house.error = error
            found = await asyncio.gather(*(house.load("bad") for _ in range(50)), return_exceptions=True)
            assert len({str(told(e)) for e in found}) == 1 and all(isinstance(e, BrollyError) for e in found)
            assert isinstance(error, BrollyError) or "inside" not in str(found[0])
            with pytest.raises(BrollyError):
                await house.load("bad")
            assert house.loads == ["bad"] and house.state(house.entries["bad"]) == "failed"
            assert house.ledger.used == 0
            await house.load("good")
            house.error = None
            house.pass_time(rooms.REMEMBERED + 1)
            await house.load("bad")
            assert house.loads == ["bad", "good", "bad"]

    run(work())


def test_a_failed_load_keeps_nothing_of_what_it_had_built(named: Callable[..., tuple[str, ...]]) -> None:
    class Half:
        pass

    built: list[weakref.ref[Half]] = []

    class Failing(FakeHouse):
        def bring(self, entry: Entry, cache: int) -> Any:
            half = Half()
            built.append(weakref.ref(half))
            try:
                raise ValueError(f"{half}")
            except ValueError as error:
                raise CheckpointError("broken.") from error

    async def work() -> None:
        async with living(Failing(Settings(models=named("a")))) as house:
            for _ in range(2):
                with pytest.raises(CheckpointError):
                    await house.load("a")
            assert len(built) == 1 and built[0]() is None

    run(work())


def test_a_verb_that_a_model_has_not_loads_nothing(named: Callable[..., tuple[str, ...]]) -> None:
    async def work() -> None:
        async with living(FakeHouse(Settings(models=named("a")))) as house:
            with pytest.raises(UnsupportedTask, match="a can generate, chat, score; it cannot transcribe"):
                async with house.use("a", "transcribe"):
                    pass
            assert house.loads == []

    run(work())


def test_pinned_models_are_loaded_at_the_start_and_the_server_is_ready_then(
    named: Callable[..., tuple[str, ...]],
) -> None:
    async def work() -> None:
        house = FakeHouse(Settings(models=named("a", "b"), pin=("A",)))
        house.gate.clear()
        async with living(house):
            assert not house.ready()
            house.gate.set()
            await until(house.ready)
            assert house.loads == ["a"]
            house.pass_time(10**6)
            house.sweep()
            assert house.state(house.entries["a"]) == "loaded"
        assert not house.ready()

    run(work())


# memory


def test_the_least_recently_used_makes_room(named: Callable[..., tuple[str, ...]]) -> None:
    async def work() -> None:
        settings = Settings(models=named("a", "b", "c"), memory=2 * GB)
        async with living(FakeHouse(settings)) as house:
            for name in ("a", "b", "a", "c"):
                house.pass_time(1)
                await house.load(name)
            assert house.closed == ["b"] and house.ledger.used == 2 * GB
            assert [house.state(house.entries[n]) for n in "abc"] == ["loaded", "away", "loaded"]

    run(work())


def test_what_is_larger_than_all_memory_is_told_with_the_numbers(named: Callable[..., tuple[str, ...]]) -> None:
    async def work() -> None:
        async with living(FakeHouse(Settings(models=named("a"), memory=GB), {"a": 2 * GB})) as house:
            with pytest.raises(Refused, match=r"a needs 2.00 GB.*has 1.00 GB") as error:
                await house.load("a")
            assert (error.value.status, error.value.code) == (400, "model_too_large")
            assert house.loads == []

    run(work())


def test_when_all_are_in_use_a_load_waits_and_is_then_told_to_come_later(
    named: Callable[..., tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rooms, "TICK", 0.01)

    async def work() -> None:
        async with living(FakeHouse(Settings(models=named("a", "b"), memory=GB, room_seconds=3))) as house:
            async with house.use("a", "chat"):
                waiting = asyncio.create_task(house.load("b"))
                await until(lambda: house.state(house.entries["b"]) == "waiting")
                house.pass_time(4)
                with pytest.raises(Busy, match="every model here is in use"):
                    await waiting
            assert house.loads == ["a"]
            async with house.use("a", "chat"):
                waiting = asyncio.create_task(house.load("b"))
                await until(lambda: house.state(house.entries["b"]) == "waiting")
            await waiting
            assert house.loads == ["a", "b"] and house.closed == ["a"]

    run(work())


def test_a_model_in_constant_use_makes_way_for_one_that_waits_long(
    named: Callable[..., tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rooms, "TICK", 0.01)

    async def work() -> None:
        async with living(FakeHouse(Settings(models=named("a", "b"), memory=GB))) as house:
            done: list[str] = []

            async def ask(name: str) -> None:
                async with house.use(name, "chat"):
                    await asyncio.sleep(0.03)
                    done.append(name)

            async def keep_asking() -> None:  # two at a time, so that there is always one
                async with asyncio.TaskGroup() as group:
                    while "b" not in done:
                        group.create_task(ask("a"))
                        await asyncio.sleep(0.01)

            asking = asyncio.create_task(keep_asking())
            await until(lambda: "a" in done)
            waiting = asyncio.create_task(ask("b"))
            await until(lambda: house.state(house.entries["b"]) == "waiting")
            house.pass_time(rooms.PATIENCE + 0.1)
            await waiting
            await asking  # and nobody was refused
            assert house.loads[:2] == ["a", "b"]

    run(work())


def test_a_load_that_nobody_waits_for_any_more_gives_up(
    named: Callable[..., tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rooms, "TICK", 0.01)

    async def work() -> None:
        async with living(FakeHouse(Settings(models=named("a", "b"), memory=GB))) as house, house.use("a", "chat"):
            waiting = asyncio.create_task(house.load("b"))
            await until(lambda: house.state(house.entries["b"]) == "waiting")
            waiting.cancel()
            await until(lambda: house.state(house.entries["b"]) == "away")

    run(work())


def test_beside_a_model_in_use_keys_and_values_get_what_is_left(named: Callable[..., tuple[str, ...]]) -> None:
    async def work() -> None:
        settings = Settings(models=named("a", "b"), memory=7 * GB // 2)
        async with living(FakeHouse(settings, cache=GB // 4)) as house:
            async with house.use("a"), house.use("b"):
                assert house.caches == {"a": GB, "b": GB // 2}
            await house.unload("b")
            await house.load("b")  # the idle one goes for it
            assert house.caches["b"] == GB and house.closed == ["b", "a"]

    run(work())


def test_a_model_that_stays_idle_goes_after_its_time(named: Callable[..., tuple[str, ...]]) -> None:
    async def work() -> None:
        async with living(FakeHouse(Settings(models=named("a", "b", "c"), keep_alive=100))) as house:
            await house.load("a")
            await house.load("b", keep_alive=-1)
            await house.load("c", keep_alive=1000)
            house.pass_time(99)
            house.sweep()
            assert house.ledger.used == 3 * GB
            house.pass_time(2)
            house.sweep()
            assert [house.state(house.entries[n]) for n in "abc"] == ["away", "loaded", "loaded"]
            house.pass_time(10**7)
            house.sweep()
            assert [house.state(house.entries[n]) for n in "abc"] == ["away", "loaded", "away"]

    run(work())


def test_keep_alive_0_unloads_when_the_last_use_ends(named: Callable[..., tuple[str, ...]]) -> None:
    async def work() -> None:
        async with living(FakeHouse(Settings(models=named("a")))) as house:
            async with house.use("a", "chat"):
                async with house.use("a", "chat", keep_alive=0):
                    pass
                await asyncio.sleep(0.02)
                assert house.closed == []
            await until(lambda: house.closed == ["a"])

    run(work())


def test_unloading_what_is_in_use_waits_for_its_requests(named: Callable[..., tuple[str, ...]]) -> None:
    async def work() -> None:
        async with living(FakeHouse(Settings(models=named("a"), pin=("a",)))) as house:
            async with house.use("a", "chat"):
                assert house.state(await house.unload("a")) == "leaving"
                assert house.closed == []
            await until(lambda: house.closed == ["a"])
            await house.load("a")
            assert house.entries["a"].share.keep_alive == house.settings.keep_alive
            assert house.state(await house.unload("a")) == "away" and house.closed == ["a", "a"]

    run(work())


def test_closing_unloads_everything_and_refuses_what_comes_after(named: Callable[..., tuple[str, ...]]) -> None:
    async def work() -> None:
        house = FakeHouse(Settings(models=named("a", "b")))
        async with living(house):
            await house.load("a")
            house.gate.clear()
            waiting = asyncio.create_task(house.load("b"))
            await until(lambda: house.state(house.entries["b"]) == "loading")
            threading.Timer(0.1, house.gate.set).start()
        assert sorted(house.closed) == ["a", "b"]
        await asyncio.gather(waiting, return_exceptions=True)
        with pytest.raises(Refused) as error:
            await house.load("a")
        assert error.value.status == 503

    run(work())


def test_prediction_follows_the_dtype_and_the_context() -> None:
    card = House(Settings(models=("mini-llm",))).card
    entry = Entry("mini-llm", hub.MINIS / "mini-llm")
    single = predict(card(entry), 10 * GB, "cpu", "float32")
    half = predict(card(entry), 10 * GB, "cpu", "bfloat16")
    assert single.weights == 2 * half.weights == 4 * 5_401_856
    assert single.least_cache == 2 * half.least_cache == 2 * 512 * 3072
    assert half.least_cache < half.best_cache <= 10 * GB
    small = predict(card(entry), 10_000_000, "cpu", "bfloat16")
    assert small.best_cache == 2_500_000


def test_a_loaded_model_takes_about_what_was_predicted() -> None:
    async def work() -> None:
        async with living(House(Settings(models=("mini-llm", "mini-clip")))) as house:
            for name in house.entries:
                async with house.use(name) as use:
                    need = house.need(use.entry)
                    assert need.least <= use.entry.share.n_bytes <= 1.5 * need.best
                    assert use.entry.share.n_bytes >= need.weights + use.entry.share.cache_bytes

    run(work())


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_twenty_rounds_of_loading_and_unloading_leave_nothing_behind(tmp_path: Path) -> None:
    """A random model of 100 MB, and each bundled one; measured behind the first rounds, which fill caches.

    With one arena of malloc: each thread's own would keep some megabytes, and which threads work is chance.
    """
    write_llama(
        tmp_path / "big", hidden_size=512, intermediate_size=1536, num_hidden_layers=8, num_attention_heads=8,
        num_key_value_heads=4, initializer_range=0.02,
    )  # fmt: skip
    (tmp_path / "tmp").mkdir()
    for rounds, names in ((20, [str(tmp_path / "big")]), (6, hub.minis())):
        found = subprocess.run(
            [sys.executable, "-m", "tests.serve.cycles", str(rounds), *names], capture_output=True, text=True,
            timeout=300, check=True, cwd=Path(__file__).parents[2],
            env={**os.environ, "TMPDIR": str(tmp_path / "tmp"), "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
        )  # fmt: skip
        left = [SimpleNamespace(**json.loads(line)) for line in found.stdout.splitlines()]
        assert len(left) == rounds
        early, late = left[rounds // 2], left[-1]
        for what in ("own", "all"):
            assert getattr(late, what) - getattr(early, what) < 6e6, [getattr(x, what) for x in left]
        assert late.files == early.files and late.temporary == early.temporary
        assert late.threads <= early.threads + 2, [x.threads for x in left]  # asyncio's own, up to its bound
