"""Vector stores under hostile and hurried clients."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("fastapi")

from brolly.serve import shelves as shelving  # noqa: E402
from brolly.serve.errors import Refused  # noqa: E402
from brolly.serve.files import Files  # noqa: E402
from brolly.serve.shelves import Shelf, Shelves, name_of  # noqa: E402

TOLD: dict[str, Any] = {"name": "", "description": None, "metadata": {}, "expires_after": None}


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 30))


def made(tmp_path: Path, most_bytes: int = 1 << 20) -> tuple[Shelves, Files]:
    app: Any = SimpleNamespace(state=SimpleNamespace())
    return Shelves(tmp_path / "vector_stores", app), Files(tmp_path / "files", most_bytes)


def put(files: Files, text: bytes = b"text", name: str = "a.txt") -> str:
    return str(files.put(io.BytesIO(text), name, "assistants")["id"])


@pytest.fixture(autouse=True)
def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    async def indexed(self: Shelves, shelf: Shelf) -> str:
        return ""

    monkeypatch.setattr(Shelves, "_indexed", indexed)
    monkeypatch.setattr(shelving, "_faults", lambda shelf: {})


def test_changes_that_come_at_once_leave_a_whole_record(tmp_path: Path) -> None:
    async def work() -> None:
        inside, files = made(tmp_path)
        shelf = await inside.create(TOLD, "", "mini-embed")
        await inside.add(shelf, files, [put(files) for _ in range(20)], {})

        async def change(n: int) -> None:
            shelf.told["metadata"][str(n)] = "x" * 1000
            shelf.files[f"file-{n}"] = dict(next(iter(shelf.files.values())), id=f"file-{n}")
            shelf.names[f"file-{n}"] = "a"
            await shelf.keep()

        await asyncio.gather(*(change(n) for n in range(50)))
        assert shelf.task
        await shelf.task
        kept = json.loads((shelf.folder / "about.json").read_text())
        assert set(kept["files"]) == set(shelf.files) and len(kept["told"]["metadata"]) == 50
        assert not list(shelf.folder.glob(".*"))

    run(work())


def test_few_stores_are_indexed_at_once_and_many_changes_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = most = times = 0

    async def indexed(self: Shelves, shelf: Shelf) -> str:
        nonlocal now, most, times
        now, times = now + 1, times + 1
        most = max(most, now)
        await asyncio.sleep(0.05)
        now -= 1
        return ""

    monkeypatch.setattr(Shelves, "_indexed", indexed)

    async def work() -> None:
        inside, files = made(tmp_path)
        ids = [put(files) for _ in range(10)]
        every = [await inside.create(TOLD, "", "mini-embed") for _ in range(6)]
        for id in ids:
            for shelf in every:
                await inside.add(shelf, files, [id], {})
        for shelf in every:
            assert shelf.task
            await shelf.task
            assert shelf.counts()["completed"] == 10
        assert most == shelving.INDEXED and times < 30

    run(work())


def test_an_index_that_fails_in_an_unforeseen_way_leaves_no_file_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def indexed(self: Shelves, shelf: Shelf) -> str:
        raise RuntimeError("of /etc/secret")

    monkeypatch.setattr(Shelves, "_indexed", indexed)

    async def work() -> None:
        inside, files = made(tmp_path)
        shelf = await inside.create(TOLD, "", "mini-embed")
        await inside.add(shelf, files, [put(files)], {})
        assert shelf.task
        await shelf.task
        (one,) = shelf.files.values()
        assert one["status"] == "failed" and "secret" not in one["last_error"]["message"]

    run(work())


def test_stores_hold_no_more_than_files_may_though_these_are_deleted(tmp_path: Path) -> None:
    async def work() -> None:
        inside, files = made(tmp_path, 100_000)
        shelf = await inside.create(TOLD, "", "mini-embed")
        for left in range(3):
            id = put(files, b"x" * 40_000)
            if left < 2:
                await inside.add(shelf, files, [id], {})
            else:
                with pytest.raises(Refused, match="more than 100,000 bytes"):
                    await inside.add(shelf, files, [id], {})
            files.delete(id)

    run(work())


def test_a_store_that_has_expired_is_not_searched(tmp_path: Path) -> None:
    async def work() -> None:
        inside, _ = made(tmp_path)
        shelf = await inside.create(TOLD | {"expires_after": {"anchor": "last_active_at", "days": 1}}, "", "mini-embed")
        shelf.told["last_active_at"] -= 2 * shelving.DAY
        with pytest.raises(Refused, match="expired"):
            await inside.search([shelf], "q", 1)

    run(work())


def test_a_deleted_store_is_gone_whatever_is_being_indexed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def indexed(self: Shelves, shelf: Shelf) -> str:
        await asyncio.sleep(60)
        return ""

    monkeypatch.setattr(Shelves, "_indexed", indexed)

    async def work() -> None:
        inside, files = made(tmp_path)
        shelf = await inside.create(TOLD, "", "mini-embed")
        await inside.add(shelf, files, [put(files)], {})
        await asyncio.sleep(0)
        await inside.drop(shelf)
        assert not list((tmp_path / "vector_stores").iterdir())
        with pytest.raises(Refused, match="not found"):
            await shelf.keep()
        (tmp_path / "vector_stores" / ".vs_left").mkdir()
        inside.open()
        assert not list((tmp_path / "vector_stores").iterdir())

    run(work())


def test_the_text_of_a_broken_file_is_refused_without_the_servers_folders(tmp_path: Path) -> None:
    async def work() -> None:
        inside, files = made(tmp_path)
        shelf = await inside.create(TOLD, "", "mini-embed")
        id = put(files, b"%PDF-1.4 no more", "x.pdf")
        await inside.add(shelf, files, [id], {})
        with pytest.raises(Refused) as refused:
            await inside.text(shelf, id)
        assert "x.pdf" in str(refused.value) and str(tmp_path) not in str(refused.value)

    run(work())


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("../../etc/passwd", "_.._etc_passwd"), (".gitignore", "gitignore"), ("...", "file"), ("a\nb.md", "a_b.md"),
        ("é" * 200 + ".pdf", "é" * 58 + ".pdf"), ("..", "file"), ("a\\b.md", "a_b.md"),
    ],
)  # fmt: skip
def test_names_are_those_of_files_on_any_disk(given: str, kept: str) -> None:
    assert name_of(given) == kept and len(kept.encode()) <= shelving.NAME
