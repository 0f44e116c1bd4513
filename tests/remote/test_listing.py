"""Live lists of models: all pages, bounded, kept for an hour; what was not found names what is like it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from brolly.cli import main
from brolly.errors import BadAnswer, KeyRefused, NotFound, OptionError
from brolly.remote import listing
from brolly.remote.dialect import Listed
from brolly.remote.listing import cached, hint, keep, models, reference_of, source_of
from brolly.remote.target import parse
from tests.remote import more
from tests.remote.fakes import KEY
from tests.remote.fakes.anthropic import MODELS as CLAUDES
from tests.remote.fakes.anthropic import FakeAnthropic
from tests.remote.fakes.gemini import MODELS as GEMINIS
from tests.remote.fakes.gemini import FakeGemini
from tests.remote.fakes.openai import MODELS as GPTS
from tests.remote.fakes.openai import FakeOpenAI
from tests.remote.fakes.server import Fake, Reply, Request

openai = more.fake  # a fixture


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_a_vendors_models_are_listed_and_kept(openai: FakeOpenAI) -> None:
    source = source_of("openai:")
    found = models(source)
    assert {row.id for row in found} == set(GPTS) and [row.id for row in found] == sorted(GPTS)
    assert models(source) == found == cached(source)
    assert len(openai.requests) == 1
    assert models(source, refresh=True) == found and len(openai.requests) == 2


def test_every_page_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeAnthropic(page=2) as fake:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", fake.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
        found = models(source_of("anthropic"))
        assert {row.id for row in found} == {row[0] for row in CLAUDES} and len(fake.requests) > 1
    with FakeGemini() as fake:
        monkeypatch.setenv("GEMINI_BASE_URL", f"{fake.url}/v1")
        monkeypatch.setenv("GEMINI_API_KEY", KEY)
        found = models(source_of("gemini:"))
        assert {row.id for row in found} == {row["name"].removeprefix("models/") for row in GEMINIS}
        assert len(fake.requests) > 1 and any(row.context for row in found)


def test_an_address_is_listed_too(monkeypatch: pytest.MonkeyPatch, openai: FakeOpenAI) -> None:
    monkeypatch.setenv("BROLLY_KEYS", f"{openai.url}={openai.key}")
    source = source_of(f"{openai.url}/v1/")
    assert {row.id for row in models(source)} == set(GPTS)
    assert reference_of(source, "m") == f"{openai.url}/v1#m" and reference_of(source_of("openai"), "m") == "openai:m"
    assert source_of(f"{openai.url}/v1#gpt-5") == source


def test_traits_fill_what_a_vendor_does_not_tell(openai: FakeOpenAI) -> None:
    by_id = {row.id: row for row in models(source_of("openai:"))}
    told = next(row for row in by_id.values() if row.verbs)
    assert told.context


class Pages(Fake):
    """Pages of models without an end, or with the same one again."""

    same = False

    def answer(self, request: Request) -> Reply:
        n = len(self.requests)
        rows = [{"id": "again" if self.same else f"m{n}"}]
        return Reply(200, {"content-type": "application/json"}, json.dumps({"data": rows, "has_more": True}).encode())


def test_a_list_without_an_end_is_ended() -> None:
    with Pages() as fake, pytest.raises(BadAnswer, match="100 pages"):
        models(source_of(f"{fake.url}/v1"))
    with Pages() as fake:
        fake.same = True
        assert [row.id for row in models(source_of(f"{fake.url}/v1"))] == ["again"] and len(fake.requests) == 2


class Says(Fake):
    body: Any = None
    status = 200

    def answer(self, request: Request) -> Reply:
        return Reply(self.status, {"content-type": "application/json"}, json.dumps(self.body).encode())


@pytest.mark.parametrize("body", [None, 3, "x", {}, {"data": 5}, {"data": {"a": 1}}, {"models": []}])
def test_a_list_that_is_none_is_told(body: Any, own_cache: Path) -> None:
    with Says() as fake:
        fake.body = body
        with pytest.raises(BadAnswer):
            models(source_of(f"{fake.url}/v1"))
    assert not list(own_cache.rglob("*.json"))


def test_rows_that_are_none_are_left_out() -> None:
    with Says() as fake:
        fake.body = {
            "data": [{"id": "ok", "created": 1e400, "max_model_len": -1}, {"id": 5}, {}, None, {"id": "x" * 9999}]
        }
        found = models(source_of(f"{fake.url}/v1"))
    assert [row.id for row in found if len(row.id) < 300] == ["ok"] and found[0].context is None


def test_numbers_out_of_the_world_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    with Says() as fake:
        fake.body = {"data": [{"id": "a", "created": 10**30, "context_length": 10**30, "name": "x" * 9999}]}
        (row,) = models(source_of(f"{fake.url}/v1"))
        assert (row.created, row.context) == (None, None) and len(row.title) <= listing.NAME
        assert main(["list", f"{fake.url}/v1"]) == 0 and main(["identify", f"{fake.url}/v1#a"]) == 0


def test_an_address_without_a_list_is_told() -> None:
    with Says() as fake:
        fake.status, fake.body = 404, {"detail": "Not Found"}
        with pytest.raises(NotFound, match="no list of models"):
            models(source_of(f"{fake.url}/v1"))


def test_a_wrong_key_is_told(openai: FakeOpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-wrong-and-secret")
    with pytest.raises(KeyRefused) as error:
        models(source_of("openai:"))
    assert "sk-test-wrong" not in str(error.value)


@pytest.mark.parametrize("name", ["nobody:", "", "compatible:", "https://", "https://u:p@h/v1", "https://h/v1?key=1"])
def test_who_has_no_list_is_told(name: str) -> None:
    with pytest.raises(OptionError) as error:
        source_of(name)
    assert "u:p" not in str(error.value) and "key=1" not in str(error.value)


# ---- the cache


def test_a_list_is_believed_for_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    source, rows = source_of("openai:"), [Listed("a", "A", 1, 2, ("chat",)), Listed("b")]
    keep(source, rows)
    assert cached(source) == rows
    now = time.time()
    for later, there in ((listing.HOUR - 5, True), (listing.HOUR + 5, False), (-60, False)):
        monkeypatch.setattr(listing.time, "time", lambda later=later: now + later)
        assert (cached(source) is not None) == there
    monkeypatch.setattr(listing.time, "time", lambda: now + 1e6)
    assert cached(source, float("inf")) == rows


def test_a_list_is_of_its_vendor_and_address() -> None:
    keep(source_of("openai:"), [Listed("a")])
    assert cached(source_of("openai-responses:")) is None
    assert cached(source_of("https://api.openai.com/v1")) is None


@pytest.mark.parametrize(
    "spoilt",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"vendor": "openai"}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"vendor": "openai", "base": "https://api.openai.com/v1", "time": 9e99, "models": []}',
        b'{"vendor": "openai", "base": "https://api.openai.com/v1", "time": "x", "models": []}',
        b'{"vendor": "openai", "base": "https://api.openai.com/v1", "time": TIME, "models": [["a"]]}',
        b'{"vendor": "openai", "base": "https://api.openai.com/v1", "time": TIME, "models": [[1, "", null, null, []]]}',
        b'{"vendor": "openai", "base": "https://api.openai.com/v1", "time": TIME, "models": {"a": 1}}',
    ],
)
def test_a_spoilt_cache_is_no_list(spoilt: bytes, own_cache: Path, openai: FakeOpenAI) -> None:
    source = source_of("openai:")
    listing.folder().mkdir(parents=True)
    data = spoilt.replace(b"TIME", str(time.time()).encode()).replace(
        b"https://api.openai.com/v1", source.base.encode()
    )
    listing._file(source).write_bytes(data)
    assert cached(source) is None
    assert {row.id for row in models(source)} == set(GPTS)


def test_a_disk_that_cannot_be_written_keeps_nothing(own_cache: Path, openai: FakeOpenAI) -> None:
    (own_cache / "brolly").write_text("a file where the folder would be")
    assert {row.id for row in models(source_of("openai:"))} == set(GPTS)


def test_nothing_of_a_key_is_kept(own_cache: Path, openai: FakeOpenAI) -> None:
    models(source_of("openai:"))
    assert list(own_cache.rglob("*.json"))
    assert not any(openai.key.encode() in path.read_bytes() for path in own_cache.rglob("*") if path.is_file())


# ---- hints


def test_what_was_not_found_names_what_is_like_it() -> None:
    target = parse("openai:gpt5-mini")
    assert "brolly list openai:" in hint(target)
    keep(source_of("openai:"), [Listed("gpt-5-mini"), Listed("gpt-5"), Listed("whisper-1")])
    assert "openai:gpt-5-mini" in hint(target) and "whisper" not in hint(target)
    assert "https://h/v1" in hint(parse("https://h/v1#m"))
    keep(source_of("https://h/v1"), [Listed("mm")])
    assert "https://h/v1#mm" in hint(parse("https://h/v1#m"))


def test_the_hint_is_in_the_error(openai: FakeOpenAI) -> None:
    import brolly

    models(source_of("openai:"))
    n = len(openai.requests)
    with pytest.raises(NotFound, match="missing"):
        brolly.load("openai:missing").chat([{"role": "user", "content": "Hello"}])
    assert not [r for r in openai.requests[n:] if r.path.endswith("/models")]  # the cache alone is looked at


# ---- the command


def test_the_command_lists_as_a_table_and_as_json(openai: FakeOpenAI, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "openai:"]) == 0
    page = capsys.readouterr().out
    assert all(f"openai:{id}" in page for id in GPTS) and f"{len(GPTS)} models at 127.0.0.1" in page
    assert main(["list", "openai", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["model"] for row in rows} == {f"openai:{id}" for id in GPTS}
    assert set(rows[0]) == {"model", "id", "title", "created", "context", "verbs"}
    assert len(openai.requests) == 1
    assert main(["list", "openai:", "--refresh"]) == 0 and len(openai.requests) == 2


def test_names_that_a_terminal_would_obey_are_cleaned(capsys: pytest.CaptureFixture[str]) -> None:
    with Says() as fake:
        fake.body = {"data": [{"id": "a\x1b[31mred\x07"}]}
        assert main(["list", f"{fake.url}/v1"]) == 0
    assert "\x1b" not in (out := capsys.readouterr().out) and "\x07" not in out


def test_without_a_vendor_it_lists_this_disk(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0 and "mini-llm" in capsys.readouterr().out
    assert main(["list", "--json"]) == 0 and json.loads(capsys.readouterr().out)
    assert main(["list", "--refresh"]) == 2
