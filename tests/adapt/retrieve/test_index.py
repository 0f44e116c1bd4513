"""An index follows its files, is the old one or the new one at any moment, and refuses what it was not made by."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from brolly.adapt.retrieve import Index
from brolly.adapt.retrieve.files import FOLDER
from brolly.adapt.retrieve.filters import parse
from brolly.adapt.retrieve.fuse import fuse
from brolly.adapt.retrieve.sqlite import NAME, SqliteStore
from brolly.errors import Busy, CheckpointError, DiskFull, NotFound, OptionError
from tests.adapt.retrieve.hashed import Hashed


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    (folder / "guide").mkdir(parents=True)
    (folder / "pump.md").write_text("---\nauthor: Ada\n---\n# The pump\n\nIt was oiled in spring.\n")
    (folder / "guide" / "mill.txt").write_text("The mill grinds barley.\n\nIts owner is called Brandt.\n")
    (folder / "guide" / "boat.py").write_text("def row():\n    '''Rows the boat upstream.'''\n")
    return folder


def names(index: Index, question: str, **how) -> list[str]:
    return [hit.name for hit in index.search(question, **how)]


def test_an_index_is_built_opened_and_searched(docs: Path) -> None:
    made = Hashed()
    with Index.build(docs, embed=made) as index:
        assert set(index.changes.added) == {"guide/boat.py", "guide/mill.txt", "pump.md"} and not index.faults()
    for path in (docs, docs / FOLDER, docs / FOLDER / NAME):
        with Index(path, embed=made) as index:
            hit = index.search("who owns the mill that grinds?")[0]
            assert hit.name == "guide/mill.txt" and Path(hit.path) == docs / "guide/mill.txt"
            assert (docs / hit.name).read_text()[hit.start : hit.end] == hit.text


def test_only_what_changed_is_read_again(docs: Path) -> None:
    made = Hashed()
    with Index.build(docs, embed=made) as index:
        made.n_texts = 0
        assert not index.update() and made.n_texts == 0
        os.utime(docs / "pump.md", (1, 1))
        assert not index.update() and made.n_texts == 0, "another time, the same content"
        (docs / "pump.md").write_text("# The pump\n\nIt was painted purple.\n")
        (docs / "new.txt").write_text("A heron stood there.")
        (docs / "guide" / "mill.txt").unlink()
        done = index.update()
        assert (done.added, done.changed, done.removed, done.kept) == (
            ("new.txt",),
            ("pump.md",),
            ("guide/mill.txt",),
            1,
        )
        assert made.n_texts == 2
        assert names(index, "purple")[0] == "pump.md" and names(index, "heron")[0] == "new.txt"
        assert "guide/mill.txt" not in names(index, "barley", top=50)
        with index.reading() as now:
            assert now.frequencies(["barlei", "oil", "purpl"])[0] == {"barlei": 0, "oil": 0, "purpl": 1}


def test_a_folder_may_move_with_its_index(docs: Path, tmp_path: Path) -> None:
    Index.build(docs, embed=Hashed()).close()
    shutil.move(docs, tmp_path / "elsewhere")
    with Index(tmp_path / "elsewhere", embed=Hashed()) as index:
        assert not index.update() and index.changes.kept == 3
        assert Path(index.search("barley")[0].path).read_text().startswith("The mill")


def test_several_places_have_one_index(docs: Path, tmp_path: Path) -> None:
    (tmp_path / "wiki").mkdir()
    (tmp_path / "wiki" / "a.txt").write_text("Zebras are striped.")
    with pytest.raises(OptionError, match="-o"):
        Index.build([docs, tmp_path / "wiki"], embed=Hashed())
    with Index.build([docs, tmp_path / "wiki"], out=tmp_path / "both", embed=Hashed()) as index:
        assert names(index, "zebras")[0] == "wiki/a.txt" and len(index.documents()) == 4


def test_another_embedder_is_refused(docs: Path) -> None:
    Index.build(docs, embed=Hashed()).close()
    with Index(docs, embed=Hashed("other", 32)) as index, pytest.raises(OptionError, match="hashed.*other"):
        index.search("mill")
    with pytest.raises(OptionError, match="hashed"):
        Index.build(docs, embed=Hashed("other", 32))
    with Index.build(docs, embed=Hashed("other", 32), anew=True) as index:
        assert names(index, "barley")[0] == "guide/mill.txt"


def test_filters_see_paths_suffixes_times_and_front_matter(docs: Path) -> None:
    os.utime(docs / "pump.md", (86400 * 365, 86400 * 365))
    with Index.build(docs, embed=Hashed()) as index:
        for words, expected in {
            "author=ada": {"pump.md"}, "folder=guide": {"guide/mill.txt", "guide/boat.py"}, "suffix=py": {"guide/boat.py"},
            "path=*/m*": {"guide/mill.txt"}, "kind=code": {"guide/boat.py"}, "before=2000-01-01": {"pump.md"}, "x=y": set(),
        }.items():  # fmt: skip
            assert set(names(index, "the mill, the pump, the boat", top=9, filters=parse([words]))) == expected, words
        assert set(names(index, "boat", top=9, filters=parse(["suffix=py", "suffix=md"]))) == {
            "pump.md",
            "guide/boat.py",
        }
        for wrong in ("after=soon", "suffix=", "suffix"):
            with pytest.raises(OptionError):
                index.search("boat", filters=parse([wrong]))


def test_faults_are_listed_and_not_read_again_until_they_change(docs: Path) -> None:
    pytest.importorskip("pypdfium2", reason="the extra 'retrieve' is not installed")
    (docs / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    (docs / "data.bin2").write_bytes(b"\0\1\2")
    with Index.build(docs, embed=Hashed()) as index:
        assert list(index.changes.faults) == ["broken.pdf"] and index.changes.left == ("data.bin2",)
        assert list(index.faults()) == ["broken.pdf"] and len(index.documents()) == 3
        index.update()
        assert list(index.changes.faults) == ["broken.pdf"]
        (docs / "broken.pdf").unlink()
        assert index.update().faults == {} and index.faults() == {}


def test_there_is_no_index_where_none_was_made(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="brolly index"):
        Index(tmp_path)
    with pytest.raises(NotFound):
        Index.build(tmp_path / "nowhere", embed=Hashed())
    assert not (tmp_path / FOLDER).exists()


def test_an_empty_folder_has_an_empty_index(tmp_path: Path) -> None:
    with Index.build(tmp_path, embed=Hashed()) as index:
        assert index.search("anything") == [] and index.documents() == []


def test_equal_places_in_two_orders_win() -> None:
    assert [thing for thing, _ in fuse([([1, 2, 3], 1.0), ([3, 4, 1], 1.0)])][:2] == [1, 3]


# Crashes and company ---------------------------------------------------------------------------------------------------


def fill(folder: Path, word: str, n: int = 24) -> None:
    for i in range(n):
        (folder / f"{i:03}.txt").write_text("\n\n".join(f"{word} stands in paragraph {k} of {i}." for k in range(20)))


def state(folder: Path) -> set[str]:
    """Which of the two words an index holds; it is whole."""
    with Index(folder, embed=Hashed()) as index:
        documents = index.documents()
        found = {
            word for word in ("old", "new") for hit in index.search(word, top=1000) if f"{word} stands" in hit.text
        }
        with index.reading() as now:
            counts, total = now.frequencies(["old", "new"])
        assert total == sum(d.n_chunks for d in documents) and sum(counts.values()) == total
        assert len(index.search("paragraph", top=1000)) <= total
    db = sqlite3.connect(folder / FOLDER / NAME)
    assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    db.execute("INSERT INTO words (words, rank) VALUES ('integrity-check', 0)")
    db.close()
    return found


def test_a_kill_leaves_the_old_index_or_the_new_one(tmp_path: Path) -> None:
    """Twenty SIGKILLs at moments drawn from the time that a whole run takes. (BROLLY_KILLS draws more.)"""
    fill(tmp_path, "old")
    Index.build(tmp_path, embed=Hashed()).close()
    kept = tmp_path.parent / "kept"
    shutil.copytree(tmp_path / FOLDER, kept)
    fill(tmp_path, "new")
    draw, seen, took = random.Random(5), set(), 0.0

    def follow(seconds: float | None) -> float:
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.adapt.retrieve.hashed", str(tmp_path)], stdout=subprocess.PIPE
        )
        assert child.stdout and child.stdout.readline() == b"begun\n"
        start = time.perf_counter()
        if seconds is not None:
            time.sleep(seconds)
            child.send_signal(signal.SIGKILL)
        child.wait(timeout=60)
        child.stdout.close()
        return time.perf_counter() - start

    for i in range(1 + int(os.environ.get("BROLLY_KILLS", "20"))):
        shutil.rmtree(tmp_path / FOLDER)
        shutil.copytree(kept, tmp_path / FOLDER)
        passed = follow(None if i == 0 else draw.uniform(0, took))
        took = took or passed
        found = state(tmp_path)
        assert found in ({"old"}, {"new"}), f"kill {i} left {found}"
        seen |= found
    assert seen == {"old", "new"}
    with Index.build(tmp_path, embed=Hashed()) as index:
        assert len(index.documents()) == 24
    assert state(tmp_path) == {"new"}


def test_what_was_embedded_before_a_kill_is_not_embedded_again(docs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Index.build(docs, embed=Hashed()).close()
    (docs / "new.txt").write_text("A heron stood there.")
    from brolly.adapt.retrieve.sqlite import Writer

    monkeypatch.setattr(Writer, "publish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    made = Hashed()
    with pytest.raises(KeyboardInterrupt):
        Index.build(docs, embed=made)
    assert made.n_texts == 1
    monkeypatch.undo()
    with Index(docs, embed=made) as index:
        assert len(index.documents()) == 3, "not seen before it is published"
    with Index.build(docs, embed=made) as index:
        assert made.n_texts == 1 and index.changes.added == ("new.txt",)
        assert names(index, "heron")[0] == "new.txt"


def test_a_second_writer_is_told_and_readers_go_on(docs: Path) -> None:
    with Index.build(docs, embed=Hashed()) as index, index._store.writing():
        (docs / "new.txt").write_text("A heron stood there.")
        with Index(docs, embed=Hashed()) as other:
            with pytest.raises(Busy, match="another process"):
                other.update()
            assert names(other, "barley")[0] == "guide/mill.txt"
        assert names(index, "barley")[0] == "guide/mill.txt"
    with Index(docs, embed=Hashed()) as other:
        assert other.update().added == ("new.txt",)


def test_a_reader_sees_what_another_process_published(docs: Path) -> None:
    with Index.build(docs, embed=Hashed()) as reader:
        assert "new.txt" not in names(reader, "heron")
        (docs / "new.txt").write_text("A heron stood there.")
        Index.build(docs, embed=Hashed()).close()
        assert names(reader, "heron")[0] == "new.txt"


def test_a_full_disk_leaves_the_index_as_it_was(docs: Path) -> None:
    with Index.build(docs, embed=Hashed()) as index:
        pages = index._store._db.execute("PRAGMA page_count").fetchone()[0]
        index._store._db.execute(f"PRAGMA max_page_count = {pages + 1}")
        fill(docs, "new")
        with pytest.raises(DiskFull, match="as it was"):
            index.update()
        assert names(index, "barley")[0] == "guide/mill.txt" and len(index.documents()) == 3


@pytest.mark.parametrize("damage", ["noise", "short", "text", "vectors"])
def test_a_broken_index_says_so(docs: Path, damage: str) -> None:
    Index.build(docs, embed=Hashed()).close()
    path = docs / FOLDER / NAME
    data = path.read_bytes()
    if damage == "vectors":
        db = sqlite3.connect(path)
        db.execute("UPDATE documents SET vectors = x'00'")
        db.commit()
        db.close()
    else:
        noise = random.Random(1).randbytes(len(data) - 4096)
        path.write_bytes({"noise": data[:4096] + noise, "short": data[:5000], "text": b"hello"}[damage])
    with pytest.raises(CheckpointError), Index(docs, embed=Hashed()) as index:
        index.search("barley")


def test_an_index_that_may_not_be_written_is_read(docs: Path) -> None:
    Index.build(docs, embed=Hashed()).close()
    store = SqliteStore(docs / FOLDER)
    store.close()
    for path in (docs / FOLDER).iterdir():
        path.chmod(0o444)
    (docs / FOLDER).chmod(0o555)
    try:
        with Index(docs, embed=Hashed()) as index:
            assert names(index, "barley")[0] == "guide/mill.txt"
    finally:
        (docs / FOLDER).chmod(0o755)


# Pictures and models ---------------------------------------------------------------------------------------------------


def test_pictures_are_found_by_what_they_show(docs: Path) -> None:
    from PIL import ImageDraw

    for colour in ("red", "green", "blue"):
        image = Image.new("RGB", (64, 64), "white")
        ImageDraw.Draw(image).ellipse((14, 14, 50, 50), fill=colour)
        image.save(docs / f"{'abc'['rgb'.index(colour[0])]}.png")
    (docs / "broken.png").write_bytes(b"\x89PNG nothing")
    with Index.build(docs, embed=Hashed(), images="mini-clip") as index:
        assert list(index.changes.faults) == ["broken.png"] and len(index.documents()) == 6
        for name, colour in (("a.png", "red"), ("b.png", "green"), ("c.png", "blue")):
            hits = index.search(f"a photo of a {colour} circle", filters={"kind": "image"})
            assert (hits[0].name, hits[0].kind) == (name, "image")
        assert names(index, "who grinds barley in the mill?")[0] == "guide/mill.txt", (
            "a picture does not stand above it"
        )
    with Index(docs, embed=Hashed()) as again:
        assert again.search("a green circle", filters={"kind": "image"})[0].name == "b.png"
    with Index.build(docs, embed=Hashed(), out=docs.parent / "texts") as index:
        assert set(index.changes.left) == {"a.png", "b.png", "c.png", "broken.png"}


def test_a_reranker_has_the_last_word(docs: Path) -> None:
    from brolly.verbs import Ranked

    class Backwards:
        def rerank(self, query, documents):
            return [Ranked(i, float(i), text) for i, text in reversed(list(enumerate(documents)))]

    with Index.build(docs, embed=Hashed()) as index:
        plain = names(index, "the mill, the pump, the boat", top=50)
        assert names(index, "the mill, the pump, the boat", top=50, rerank=Backwards()) == plain[::-1]
