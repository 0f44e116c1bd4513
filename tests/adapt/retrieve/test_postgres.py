"""The team's store against a real server with pgvector: BROLLY_TEST_POSTGRES names one, in which a schema is made and dropped."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from brolly.adapt.retrieve import Index, ask
from brolly.errors import Busy, NotFound, OptionError
from tests.adapt.retrieve.hashed import Hashed

NAME = "brolly_test"


@pytest.fixture
def address() -> Iterator[str]:
    place = os.environ.get("BROLLY_TEST_POSTGRES")
    if not place:
        pytest.skip("BROLLY_TEST_POSTGRES names no server; expected postgresql://… with pgvector")
    psycopg = pytest.importorskip("psycopg", reason="the extra 'pgvector' is not installed")

    def clear() -> None:
        with psycopg.connect(place) as db:
            db.execute(f"DROP SCHEMA IF EXISTS {NAME} CASCADE")

    clear()
    yield place + ("&" if "?" in place else "?") + f"index={NAME}"
    clear()


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    (tmp_path / "pump.md").write_text("---\nauthor: Ada\n---\n# The pump\n\nIt was oiled in spring.\n")
    (tmp_path / "mill.txt").write_text("The mill grinds barley.\n\nIts owner is called Brandt.\n")
    return tmp_path


def test_the_team_finds_what_one_finds(docs: Path, address: str) -> None:
    for i in range(60):
        (docs / f"{i}.txt").write_text(f"Paper {i} tells of {('herons', 'reeds', 'lakes')[i % 3]} and number {i * i}.")
    with Index.build(docs, embed=Hashed(), out=address) as team, Index.build(docs, embed=Hashed()) as one:
        assert len(team.documents()) == 62
        for question in ("who owns the mill?", "herons and reeds", "number 49", "oil", "zebra"):
            ours, theirs = one.find(question, top=10), team.find(question, top=10)
            assert ours.known == theirs.known
            assert ours.hits[0].name == theirs.hits[0].name or question == "zebra"
            assert len({h.name for h in ours.hits} & {h.name for h in theirs.hits}) >= 7
        assert {h.name for h in team.search("the pump", filters={"author": "ada"})} == {"pump.md"}
        assert ask(None, team, "Who is the owner of the mill?", sure=0).citations[0].name == "mill.txt"


def test_the_team_follows_files_and_sees_all_at_once(docs: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Hashed()
    with Index.build(docs, embed=made, out=address) as team, Index(address, embed=made) as reader:
        (docs / "mill.txt").write_text("The mill is a museum now.\n")
        (docs / "pump.md").unlink()
        from brolly.adapt.retrieve.postgres import PostgresWriter

        monkeypatch.setattr(PostgresWriter, "publish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            team.update()
        assert {d.name for d in reader.documents()} == {"mill.txt", "pump.md"} and reader.search("barley")[
            0
        ].name == "mill.txt"
        monkeypatch.undo()
        made.n_texts = 0
        done = team.update()
        assert (done.changed, done.removed, made.n_texts) == (("mill.txt",), ("pump.md",), 0)
        assert "museum" in reader.search("mill")[0].text and len(reader.documents()) == 1


def test_an_index_made_anew_may_have_another_embedder(docs: Path, address: str) -> None:
    Index.build(docs, embed=Hashed(), out=address).close()
    with pytest.raises(OptionError, match="another model"):
        Index.build(docs, embed=Hashed("other", 32), out=address)
    with Index.build(docs, embed=Hashed("other", 32), out=address, anew=True) as team:
        assert team.search("barley")[0].name == "mill.txt"
        with team.reading() as now:
            now._run("SET LOCAL enable_seqscan = off")
            plan = now._run(
                "EXPLAIN SELECT id FROM {s}.chunks WHERE live AND space = 0 AND vector_dims(vector) = 32 "
                "ORDER BY vector::vector(32) <=> '[" + ",".join(["1"] * 32) + "]'::vector LIMIT 5"
            ).fetchall()
        assert any("near_0" in line[0] for line in plan), plan


def test_one_writes_and_a_second_is_told(docs: Path, address: str) -> None:
    with Index.build(docs, embed=Hashed(), out=address) as team, Index(address, embed=Hashed()) as other:
        with team._store.writing(), pytest.raises(Busy):
            other.update()
        other.update()


def test_what_is_not_there_is_told(address: str) -> None:
    with pytest.raises(NotFound, match="holds no index"):
        Index(address)
    with pytest.raises(OptionError):
        Index("postgresql://nobody:secret@127.0.0.1:1/x")
    with pytest.raises(OptionError, match="no name"):
        Index(address.replace(NAME, "Bad;Name"))
