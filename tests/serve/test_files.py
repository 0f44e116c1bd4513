"""Files that clients leave, by OpenAI's own client."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from brolly.serve.errors import Refused
from brolly.serve.files import RECORD, Files, kept_name

openai = pytest.importorskip("openai")


def test_a_file_is_left_listed_read_and_forgotten(openai_client: Any) -> None:
    rows = b'{"prompt": "a", "completion": "b"}\n'
    made = openai_client.files.create(file=("täg.jsonl", rows), purpose="fine-tune")
    assert (made.bytes, made.filename, made.purpose, made.status) == (len(rows), "täg.jsonl", "fine-tune", "processed")
    assert openai_client.files.retrieve(made.id) == made
    assert made in list(openai_client.files.list(purpose="fine-tune"))
    assert made not in list(openai_client.files.list(purpose="vision"))
    assert openai_client.files.content(made.id).read() == rows
    assert openai_client.files.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError, match="No such File"):
        openai_client.files.retrieve(made.id)


@pytest.mark.parametrize("id", ["file-absent", "file-" + "0" * 32, "%2e%2e"])
def test_a_file_that_is_not_there_is_told(openai_client: Any, id: str) -> None:
    with pytest.raises(openai.NotFoundError):
        openai_client.files.retrieve(id)


def test_a_file_of_no_known_purpose_is_refused(openai_client: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="purpose"):
        openai_client.files.create(file=("a.txt", b"a"), purpose="anything")


def test_files_outlive_the_server_and_half_ones_do_not(tmp_path: Path) -> None:
    files = Files(tmp_path, 2 * RECORD + 100)
    kept = files.put(io.BytesIO(b"x" * 60), "a.txt", "user_data", "key-1")
    (tmp_path / ".file-half").mkdir()
    with pytest.raises(Refused, match="more than 8,292 bytes"):
        files.put(io.BytesIO(b"x" * 60), "b.txt", "user_data")
    again = Files(tmp_path, 2 * RECORD + 100)
    assert [one["id"] for one in again.of("key-1")] == [kept["id"]] and not again.of("key-2")
    assert sorted(p.name for p in tmp_path.iterdir()) == [kept["id"]]
    with pytest.raises(Refused):
        again.path(kept["id"], "key-2")
    again.delete(kept["id"], "key-1")
    assert again.put(io.BytesIO(b"x" * 90), "b.txt", "user_data")["bytes"] == 90


def test_a_file_that_expired_is_forgotten(tmp_path: Path) -> None:
    files = Files(tmp_path, 2 * RECORD + 100)
    old = files.put(io.BytesIO(b"x"), "a.txt", "user_data", seconds=-1)
    with pytest.raises(Refused):
        files.get(old["id"])
    assert not files.of()
    files.put(io.BytesIO(b"x"), "b.txt", "user_data")
    assert len(list(tmp_path.iterdir())) == 1


def test_uploads_at_once_keep_to_the_bytes_that_there_are(tmp_path: Path) -> None:
    files = Files(tmp_path, 2 * RECORD + 100)
    inside: list[dict[str, Any]] = []

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if not self.tell() and not inside:
                inside.append(files.put(io.BytesIO(b"x" * 60), "a.txt", "user_data"))
            return super().read(size)

    with pytest.raises(Refused, match="more than"):
        files.put(Slow(b"x" * 60), "b.txt", "user_data")
    files.delete(inside[0]["id"])
    assert files.put(io.BytesIO(b"x" * 100), "c.txt", "user_data")["bytes"] == 100


def test_empty_files_count_too(tmp_path: Path) -> None:
    files = Files(tmp_path, RECORD)
    files.put(io.BytesIO(), "a.txt", "user_data")
    with pytest.raises(Refused, match="more than"):
        files.put(io.BytesIO(), "b.txt", "user_data")


def test_a_file_that_another_deletes_first_is_counted_once(tmp_path: Path) -> None:
    files = Files(tmp_path, 4 * RECORD)
    about = files.put(io.BytesIO(b"x"), "a.txt", "user_data")
    files._drop(about)
    files._drop(about)
    assert files._bytes == 0


@pytest.mark.parametrize(
    ("name", "kept"),
    [("a.jsonl", "content.jsonl"), ("../../etc/passwd", "content"), ("x.tar.gz", "content.tar.gz"), ("", "content"),
     ("a.b/c\0.txt", "content.b.txt"), ("rows.JSONL.GZ", "content.jsonl.gz")],
)  # fmt: skip
def test_only_an_ending_is_left_of_a_name(name: str, kept: str) -> None:
    assert kept_name(name) == kept
