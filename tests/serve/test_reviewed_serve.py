"""What a review found: each test failed before its mend."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

pytest.importorskip("uvicorn")

from brolly.engine.job import Job
from brolly.errors import OptionError
from brolly.serve import threads
from brolly.serve.house import House
from brolly.serve.server import LATE, server
from brolly.serve.settings import Settings
from brolly.serve.store import Conversation, Store
from brolly.serve.streams import Pieces
from brolly.serve.words import chat
from brolly.serve.words.completions import Legacy
from brolly.verbs import GenerateOptions, Piece
from tests.serve.conftest import Running
from tests.serve.scripted import scripted, words
from tests.serve.small import small
from tests.serve.test_house import FakeHouse, living, run, until


class Raced(deque[Any]):
    """Pieces that the event loop takes, and then waits, right after the engine looked how many there are."""

    def __len__(self) -> int:
        found = super().__len__()
        self.clear()
        return found


def test_a_piece_wakes_a_reader_who_took_the_one_before_while_it_was_delivered() -> None:
    async def work() -> None:
        pieces = Pieces(None, Job([1], GenerateOptions()))
        pieces._waiting = Raced([Piece("first")])
        pieces._deliver(Piece("second"))
        await asyncio.sleep(0)
        assert pieces._there.is_set() or not list(pieces._waiting)

    run(work())


def test_who_leaves_while_a_model_is_unloaded_does_not_end_its_closing() -> None:
    async def work() -> None:
        gate, closed = threading.Event(), threading.Event()

        def close() -> None:
            assert gate.wait(20)
            closed.set()

        async with living(FakeHouse(Settings(models=("mini-llm",)))) as house:
            async with house.use("mini-llm") as use:
                use.model.close = close
            waits = asyncio.create_task(house.unload("mini-llm"))
            await until(lambda: house._closing)
            await asyncio.sleep(0)
            waits.cancel()
            with suppress(asyncio.CancelledError):
                await waits
            await asyncio.sleep(0)
            assert house._closing, "who loads another model next waits until this one's memory is back"
            gate.set()
            await until(closed.is_set)

    run(work())


def test_what_fails_for_a_client_who_has_left_is_not_told_as_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_threads", ThreadPoolExecutor(1))  # so that what is asked next ends next
    begun, gate = threading.Event(), threading.Event()

    def fail() -> None:
        begun.set()
        assert gate.wait(20)
        raise OptionError("a wrong body")

    async def work() -> None:
        told: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        asking = asyncio.create_task(threads.in_turn(fail))
        await until(begun.is_set)
        asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking
        gate.set()
        await threads.in_turn(int)
        gc.collect()
        assert not told

    run(work())


@pytest.mark.parametrize("running", [{}, {"resp_1": object()}])
def test_responses_in_the_background_have_their_time_when_the_server_stops(running: dict[str, Any]) -> None:
    """They were accepted; the clock that ends a process with a thread that hangs leaves them the time to end."""
    settings = Settings(shutdown_seconds=20)
    found = server(small(settings), settings)
    found.app.state.desk = SimpleNamespace(running=running)
    found.servers, found.queues = [], []
    found.lifespan = SimpleNamespace(shutdown=lambda: asyncio.sleep(0), state={})  # type: ignore[assignment]
    try:
        asyncio.run(found.shutdown())
        assert found.late.is_alive() and found.late.interval == LATE + (20 if running else 0)
    finally:
        found.late.cancel()


def test_noting_something_about_a_conversation_loses_no_item_that_comes_meanwhile(tmp_path: Path) -> None:
    with scripted(words(1), tmp_path) as (running, _), httpx.Client(base_url=running.v1, timeout=60) as client:
        id = client.post("/conversations", json={}).json()["id"]
        store: Store = running.app.state.desk._store
        put, others = store.put_conversation, []

        def putting(one: Conversation) -> None:
            if not others:  # between the reading and the writing of the one who notes
                others.append(threading.Thread(target=store.lengthen, args=(id, [{"id": "msg_1", "type": "message"}])))
                others[0].start()
                others[0].join(0.3)
            put(one)

        store.put_conversation = putting  # type: ignore[method-assign]
        client.post(f"/conversations/{id}", json={"metadata": {"topic": "b"}}).raise_for_status()
        others[0].join(20)
        found = store.conversation(id)
        assert found is not None and found.metadata == {"topic": "b"}
        assert [item["id"] for item in found.items] == ["msg_1"]


def test_a_conversation_that_is_forgotten_while_it_grows_stays_forgotten(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put_conversation(Conversation("c", 1, {}, []))
    put, dropping = store.put_conversation, threading.Thread(target=store.drop_conversation, args=("c",))

    def putting(one: Conversation) -> None:
        dropping.start()
        dropping.join(0.3)
        put(one)

    store.put_conversation = putting  # type: ignore[method-assign]
    store.lengthen("c", [{"id": "a"}])
    dropping.join(20)
    assert store.conversation("c") is None
    store.close()


@pytest.mark.parametrize("path", ["chat/completions", "completions"])
def test_log_probabilities_are_written_off_the_event_loop(
    path: str, brolly: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_the_loop: list[bool] = []

    def noted(work: Any) -> Any:
        def noting(*args: Any) -> Any:
            with suppress(RuntimeError):
                on_the_loop.append(asyncio.get_running_loop() is not None)
            return work(*args)

        return noting

    monkeypatch.setattr(chat, "chat_logprobs", noted(chat.chat_logprobs))
    monkeypatch.setattr(Legacy, "logprobs", noted(Legacy.logprobs))
    own: dict[str, Any] = {"prompt": "Once", "logprobs": 2}
    if path.startswith("chat"):
        own = {"messages": [{"role": "user", "content": "Hi"}], "logprobs": True, "top_logprobs": 2}
    body = {"model": "mini-llm", "max_tokens": 3, **own}
    found = httpx.post(f"{brolly.v1}/{path}", json=body, timeout=60).raise_for_status().json()
    assert found["choices"][0]["logprobs"] and not on_the_loop


def test_a_model_that_goes_stops_nobody_to_look_through_all_that_was_imported() -> None:
    async def work() -> None:
        async with living(House(Settings(models=("mini-embed",)))) as house, house.use("mini-embed"):
            assert gc.get_freeze_count() > 100_000

    run(work())
