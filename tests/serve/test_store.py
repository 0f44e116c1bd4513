"""Stored responses: what was acknowledged is there, whatever happens; and it is bounded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from brolly.errors import OptionError
from brolly.serve.store import DAY, Store, Stored


def stored(name: str, previous: str | None = None, status: str = "completed", text: str = "x") -> Stored:
    response: dict[str, Any] = {
        "id": name, "status": status, "previous_response_id": previous, "created_at": int(time.time()),
        "output": [{"type": "message", "id": f"msg_{name}", "text": text}],
    }  # fmt: skip
    return Stored(response, [{"type": "message", "id": f"in_{name}"}], events=[b"data: 1\n\n", b"data: 2\n\n"])


def test_what_was_put_is_found_and_what_was_deleted_is_not(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put(stored("a"))
    found, put = store.get("a"), stored("a")
    assert found is not None
    assert (found.response["output"], found.input, found.events) == (put.response["output"], put.input, put.events)
    assert store.item("msg_a") == {"type": "message", "id": "msg_a", "text": "x"}
    assert store.item("in_a") == {"type": "message", "id": "in_a"}
    assert store.delete("a")
    assert not store.delete("a")
    assert store.get("a") is None
    assert store.item("msg_a") is None


def test_another_state_of_a_response_takes_its_place(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put(stored("a", status="queued"))
    store.put(stored("a", text="y"))
    found = store.get("a")
    assert found is not None
    assert (found.response["status"], found.response["output"][0]["text"]) == ("completed", "y")


def test_nobody_sees_what_another_owner_stored(tmp_path: Path) -> None:
    store = Store(tmp_path)
    one = stored("a")
    one.owner = "key-1"
    store.put(one)
    assert store.get("a", "key-2") is None
    assert store.get("a") is None
    assert not store.delete("a", "key-2")
    assert store.item("msg_a", "key-2") is None
    assert store.get("a", "key-1") is not None


def test_a_chain_is_the_oldest_first_and_none_where_a_link_is_gone(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for name, previous in (("a", None), ("b", "a"), ("c", "b")):
        store.put(stored(name, previous))
    assert [one.id for one in store.chain("c") or ()] == ["a", "b", "c"]
    store.delete("a")
    assert store.chain("c") is None


def test_the_longest_unused_go_when_the_room_is_full(tmp_path: Path) -> None:
    store = Store(tmp_path, most_bytes=60_000)
    for n in range(12):
        store.put(stored(f"r{n}", text=os.urandom(6000).hex()))
        assert store.get("r0") is not None or n > 4
        if n < 8:
            store.chain("r1")  # a use
    assert store.get("r0") is None
    assert store.get("r11") is not None
    assert store.get("r1") is not None
    assert sum(f.stat().st_size for f in tmp_path.iterdir()) < 10_000_000


def test_what_was_not_used_for_long_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path, days=30)
    store.put(stored("old"))
    later = time.time() + 31 * DAY
    monkeypatch.setattr(time, "time", lambda: later)
    store.put(stored("new"))
    assert store.get("old") is None
    assert store.get("new") is not None


def test_what_a_dead_process_was_writing_has_failed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put(stored("a", status="in_progress"))
    store.put(stored("b"))
    beside = Store(tmp_path).get("a")
    assert beside is not None and beside.response["status"] == "in_progress", "its process lives"
    store.close()
    again = Store(tmp_path)
    one, two = again.get("a"), again.get("b")
    assert one is not None and two is not None
    assert one.response["status"] == "failed"
    assert one.response["error"]["code"] == "server_error"
    assert two.response["status"] == "completed"


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    """A process that puts one after another and says so is killed while it does."""
    program = (
        "import sys; from pathlib import Path; from tests.serve.test_store import Store, stored\n"
        f"store = Store(Path({str(tmp_path)!r})); n = 0\n"
        "store.put(stored('unfinished', status='in_progress'))\n"
        "while True: store.put(stored(f'r{n}')); print(n, flush=True); n += 1\n"
    )
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=root, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= 20:
            break
    os.kill(process.pid, signal.SIGKILL)
    said = [int(line) for line in process.stdout.read().split("\n")[:-1] if line.isdigit()]
    store = Store(tmp_path)
    process.wait()
    unfinished = store.get("unfinished")
    assert unfinished is not None and unfinished.response["status"] == "failed"
    assert all(store.get(f"r{n}") is not None for n in range(max(said, default=20) + 1))


def test_files_are_the_owners_alone_and_a_bad_place_is_told(tmp_path: Path) -> None:
    Store(tmp_path / "here")
    assert (tmp_path / "here" / "responses.sqlite3").stat().st_mode & 0o077 == 0
    (tmp_path / "file").write_text("")
    with pytest.raises(OptionError, match="set another store"):
        Store(tmp_path / "file" / "below")
