"""A hub that lies about names, tags and commits writes nothing outside of the cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from brolly import hub as hubs
from brolly.errors import HubError
from tests.hub.conftest import NEEDED, read
from tests.hub.fake_hub import FakeHub, Repository

NAMES = [
    "../../x.json",
    "/x.json",
    "a/../../../../x.json",
    "..\\..\\x.json",
    "\\x.json",
    "a/..",
    "x\0.json",
    "",
    "../x.safetensors",
]


def strangers(tmp_path: Path, cache: Path) -> list[Path]:
    """Files that lie outside of the cache."""
    return [p for p in tmp_path.rglob("*") if p.is_file() and not p.is_relative_to(cache)]


@pytest.mark.parametrize("name", NAMES)
def test_file_name_that_climbs_is_passed_over(hub: FakeHub, cache: Path, tmp_path: Path, name: str) -> None:
    hub.repos["org/evil"] = Repository(NEEDED | {name: b"evil"})
    assert read(hubs.pull("org/evil")) == NEEDED
    assert strangers(tmp_path, cache) == []


@pytest.mark.parametrize("name", [n for n in NAMES if n] + ["%2e%2e/x.json"])
def test_file_name_that_climbs_is_not_fetched_alone(hub: FakeHub, cache: Path, tmp_path: Path, name: str) -> None:
    hub.repos["org/evil"] = Repository(NEEDED | {name: b"evil"})
    for reference in (f"hf://org/evil/{name}", f"{hub.url}/org/evil/resolve/main/{name}"):
        try:
            path = hubs.pull(reference)
        except (hubs.OptionError, HubError):
            continue
        assert path.resolve().is_relative_to(cache)
    assert strangers(tmp_path, cache) == []


@pytest.mark.parametrize("commit", ["../../../../x", "/x", "main", "", "A" * 40, "a" * 39, "." * 40])
def test_commit_that_is_none_is_refused(hub: FakeHub, cache: Path, tmp_path: Path, commit: str) -> None:
    hub.repos["org/evil"] = Repository(NEEDED, commit=commit)
    with pytest.raises(HubError, match="names no commit for org/evil; check HF_ENDPOINT"):
        hubs.pull("org/evil")
    assert not (cache / "models--org--evil").exists()
    assert strangers(tmp_path, cache) == []


@pytest.mark.parametrize("tag", ["../../../../x", "/x", "a" * 300])
def test_hash_or_tag_that_is_a_path_names_nothing(hub: FakeHub, cache: Path, tmp_path: Path, tag: str) -> None:
    hub.etags = dict.fromkeys(NEEDED, tag)
    hub.digests = dict.fromkeys(NEEDED, tag)
    assert read(hubs.pull("org/tiny")) == NEEDED
    assert strangers(tmp_path, cache) == []


@pytest.mark.parametrize(
    "name", ["[a]*.json", "a b.json", "ä.json", "a%2Fb.json", "a#b?.json", "--x.json", "a'\"\n.json"]
)
def test_odd_names_are_only_names(hub: FakeHub, name: str) -> None:
    hub.repos["org/odd"] = Repository({name: b"odd", "a.json": b"a", "model.gguf": b"g"})
    assert read(hubs.pull("org/odd")) == {name: b"odd", "a.json": b"a", "model.gguf": b"g"}


def test_names_that_cannot_be_together_are_one_clear_error(hub: FakeHub) -> None:
    hub.repos["org/odd"] = Repository({"additional_chat_templates": b"", "additional_chat_templates/a.jinja": b"a"})
    hub.repos["org/odd"].files |= {"a.json": b"a", "a.json/b.json": b"b"}
    with pytest.raises(HubError, match="cannot be written"):
        hubs.pull("org/odd")


def test_endless_body_is_cut_off(hub: FakeHub) -> None:
    hub.repos["org/tiny"].files["config.json"] = b" " * 50_000_000
    hub.sizes["config.json"] = 100
    with pytest.raises(HubError, match="config.json has .* the hub says 100"):
        hubs.pull("org/tiny")
    assert hub.sent("config.json") < 20_000_000


@pytest.mark.parametrize("answer", ["[]", "{}", "null", '{"sha": 1}', "<html>", '{"siblings": 1}'])
def test_answer_that_is_no_model_is_one_clear_error(hub: FakeHub, answer: str) -> None:
    hub.plain["/api/models/org/tiny/revision/main"] = answer.encode()
    with pytest.raises(HubError, match="org/tiny"):
        hubs.pull("org/tiny")
