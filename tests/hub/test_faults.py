"""Broken connections go on where they broke, and wrong bytes get no name in the cache."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from brolly import hub as hubs
from brolly.errors import DiskFull, HubError, NotFound, Offline
from tests.hub.conftest import NEEDED, WEIGHTS, read
from tests.hub.fake_hub import FakeHub, git_sha1, serve, sha256

MODEL = "model.safetensors"


def blobs(cache: Path) -> dict[str, bytes]:
    return read(cache / "models--org--tiny" / "blobs")


@pytest.mark.parametrize("drops", [[1], [100_000], [399_999], [100_000, 1, 150_000], [0, 70_000, 0, 70_000]])
def test_broken_connection_goes_on_where_it_broke(hub: FakeHub, drops: list[int]) -> None:
    hub.drops[MODEL] = list(drops)
    assert read(hubs.pull("org/tiny")) == NEEDED
    assert hub.sent(MODEL) == len(WEIGHTS), "no byte was sent twice"
    starts = [r.headers.get("range") for r in hub.asked(MODEL)]
    sums = [sum(drops[:i]) for i in range(len(drops) + 1)]
    assert starts == [f"bytes={n}-" if n else None for n in sums]


def test_next_pull_goes_on_where_the_last_gave_up(hub: FakeHub, cache: Path) -> None:
    hub.drops[MODEL] = [100_000, 0, 0, 0]
    with pytest.raises(Offline, match="what was fetched is kept, try again"):
        hubs.pull("org/tiny")
    assert blobs(cache)[f"{sha256(WEIGHTS)}.incomplete"] == WEIGHTS[:100_000]
    hub.log.clear()
    assert read(hubs.pull("org/tiny")) == NEEDED
    assert hub.sent(MODEL) == len(WEIGHTS) - 100_000
    assert not any(name.endswith(".incomplete") for name in blobs(cache))


def test_interrupted_model_is_not_found_offline(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.drops[MODEL] = [100_000, 0, 0, 0]
    with pytest.raises(Offline):
        hubs.pull("org/tiny")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for reference in ("org/tiny", "org/tiny@" + "a" * 40, f"hf://org/tiny/{MODEL}"):
        with pytest.raises(Offline, match="is not in the cache"):
            hubs.pull(reference)


def test_hub_without_ranges_starts_over(hub: FakeHub) -> None:
    hub.drops[MODEL], hub.ignores_range = [100_000], True
    assert read(hubs.pull("org/tiny")) == NEEDED
    assert hub.sent(MODEL) == len(WEIGHTS) + 100_000


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_bad_moment_of_the_hub_is_waited_out(hub: FakeHub, status: int) -> None:
    hub.statuses[f"/org/tiny/resolve/{'a' * 40}/{MODEL}"] = [status]
    assert read(hubs.pull("org/tiny")) == NEEDED


@pytest.mark.parametrize("name", [MODEL, "config.json"])
@pytest.mark.parametrize("fault", ["corrupt", "short"])
def test_wrong_bytes_are_refused_and_leave_nothing(
    hub: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch, name: str, fault: str
) -> None:
    getattr(hub, fault).add(name)
    words = "does not have the hash that the hub says" if fault == "corrupt" else r"has \d+ bytes; the hub says \d+"
    with pytest.raises(HubError, match=f"{name} {words}; it was deleted. Pull it again"):
        hubs.pull("org/tiny")
    right = {sha256(NEEDED[n]) if n == MODEL else git_sha1(NEEDED[n]): NEEDED[n] for n in NEEDED if n != name}
    assert {n: b for n, b in blobs(cache).items() if not n.endswith(".incomplete")}.items() <= right.items()
    snapshot = cache / "models--org--tiny" / "snapshots" / ("a" * 40)
    assert read(snapshot).items() <= NEEDED.items() - {(name, NEEDED[name])}
    with monkeypatch.context() as patch, pytest.raises(Offline):
        patch.setenv("HF_HUB_OFFLINE", "1")
        hubs.pull("org/tiny")
    getattr(hub, fault).clear()
    assert read(hubs.pull("org/tiny")) == NEEDED


@pytest.mark.parametrize(("field", "value"), [("sizes", 7), ("digests", "0" * 64)])
def test_file_that_is_not_what_the_hub_announced_is_refused(
    hub: FakeHub, cache: Path, field: str, value: int | str
) -> None:
    getattr(hub, field)[MODEL] = value
    with pytest.raises(HubError, match=f"{MODEL} .* the hub says"):
        hubs.pull("org/tiny")
    assert WEIGHTS not in blobs(cache).values()


def test_wrong_part_is_found_out(hub: FakeHub, cache: Path) -> None:
    part = cache / "models--org--tiny" / "blobs" / f"{sha256(WEIGHTS)}.incomplete"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 100_000)
    with pytest.raises(HubError, match="does not have the hash"):
        hubs.pull("org/tiny")
    assert not part.exists()
    assert read(hubs.pull("org/tiny")) == NEEDED


@pytest.mark.parametrize("n_bytes", [len(WEIGHTS), len(WEIGHTS) + 1])
def test_part_of_full_length_or_more(hub: FakeHub, cache: Path, n_bytes: int) -> None:
    part = cache / "models--org--tiny" / "blobs" / f"{sha256(WEIGHTS)}.incomplete"
    part.parent.mkdir(parents=True)
    part.write_bytes((WEIGHTS + b"x")[:n_bytes])
    assert read(hubs.pull("org/tiny")) == NEEDED
    assert hub.sent(MODEL) == (0 if n_bytes == len(WEIGHTS) else len(WEIGHTS))


@pytest.mark.parametrize("damage", ["deleted", "emptied", "changed"])
def test_what_another_tool_left_is_checked_once(hub: FakeHub, cache: Path, damage: str) -> None:
    from huggingface_hub import snapshot_download

    root = Path(snapshot_download("org/tiny", cache_dir=cache, endpoint=hub.url))
    blob = (root / MODEL).resolve()
    blob.unlink() if damage == "deleted" else blob.write_bytes(b"" if damage == "emptied" else WEIGHTS[:-1] + b"x")
    hub.log.clear()
    assert read(hubs.pull("org/tiny")).items() >= NEEDED.items()
    assert hub.fetched() == {MODEL}


def test_unchecked_file_is_not_found_offline(hub: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state of the disk after a pull that was killed before it had checked what another tool left."""
    from huggingface_hub import snapshot_download

    root = Path(snapshot_download("org/tiny", cache_dir=cache, endpoint=hub.url))
    record = root.parent.parent / "brolly" / root.name
    record.parent.mkdir()
    record.write_text(json.dumps({"wanted": sorted(NEEDED), "verified": ["config.json"], "whole": True}))
    with monkeypatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        assert hubs.pull("hf://org/tiny/config.json") == root / "config.json"
        for reference in ("org/tiny", f"hf://org/tiny/{MODEL}"):
            with pytest.raises(Offline):
                hubs.pull(reference)
    assert hubs.pull("org/tiny") == root


@pytest.mark.parametrize("text", ["", "{", "[]", '{"wanted": 1, "other": 2}', "config.json"])
def test_broken_record_is_no_record(hub: FakeHub, text: str) -> None:
    root = hubs.pull("org/tiny")
    (root.parent.parent / "brolly" / root.name).write_text(text)
    assert hubs.cached()[-1].complete
    assert read(hubs.pull("org/tiny")) == NEEDED


def test_deleted_file_is_fetched_again_alone(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    root = hubs.pull("org/tiny")
    (root / MODEL).resolve().unlink()
    with monkeypatch.context() as patch, pytest.raises(Offline):
        patch.setenv("HF_HUB_OFFLINE", "1")
        hubs.pull("org/tiny")
    hub.log.clear()
    assert read(hubs.pull("org/tiny")) == NEEDED
    assert hub.fetched() == {MODEL}


def test_pulls_at_the_same_time_fetch_each_file_once(hub: FakeHub) -> None:
    hub.pause = 0.002
    found: list[dict[str, bytes]] = []
    threads = [threading.Thread(target=lambda: found.append(read(hubs.pull("org/tiny")))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert found == [NEEDED] * 3
    assert hub.sent(MODEL) == len(WEIGHTS)


def test_threads_that_write_the_same_record_do_not_collide(tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def write() -> None:
        try:
            for n in range(300):
                hubs._atomic(tmp_path / "record", str(n))
        except OSError as error:
            failures.append(error)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert failures == []
    assert [p.name for p in tmp_path.iterdir()] == ["record"]


def test_model_that_cannot_fit_is_refused_before_it_is_fetched(hub: FakeHub) -> None:
    hub.sizes[MODEL] = 10**15
    with pytest.raises(DiskFull, match=r"org/tiny needs 1000000\.\d\d GB, and .* GB free; make room"):
        hubs.pull("org/tiny")
    assert hub.asked("/resolve/") == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_full_disk_is_told_and_the_next_pull_goes_on(hub: FakeHub, cache: Path) -> None:
    """The part is a link to /dev/full, so that the kernel itself answers ENOSPC to the first write."""
    part = cache / "models--org--tiny" / "blobs" / f"{sha256(WEIGHTS)}.incomplete"
    part.parent.mkdir(parents=True)
    part.symlink_to("/dev/full")
    with pytest.raises(DiskFull, match=r"is full \(No space left on device\).* make room and pull again"):
        hubs.pull("org/tiny")
    part.unlink()
    assert read(hubs.pull("org/tiny")) == NEEDED


def test_broken_url_goes_on_where_it_broke(hub: FakeHub) -> None:
    with serve(FakeHub(plain={"/x.safetensors": WEIGHTS}, drops={"/x.safetensors": [100_000, 50_000]})) as elsewhere:
        path = hubs.pull(f"{elsewhere.url}/x.safetensors")
    assert path.read_bytes() == WEIGHTS
    assert elsewhere.sent() == len(WEIGHTS)
    assert [r.headers.get("range") for r in elsewhere.log] == [None, "bytes=100000-", "bytes=150000-"]
    assert {r.headers.get("if-range") for r in elsewhere.log[1:]} == {f'"{sha256(WEIGHTS)}"'}


def test_url_without_a_version_starts_over(hub: FakeHub) -> None:
    with serve(FakeHub(plain={"/x.gguf": WEIGHTS}, drops={"/x.gguf": [100_000]}, tagless=True)) as elsewhere:
        assert hubs.pull(f"{elsewhere.url}/x.gguf").read_bytes() == WEIGHTS
    assert [r.headers.get("range") for r in elsewhere.log] == [None, None]


def test_url_that_sends_another_range_is_refused(hub: FakeHub, cache: Path) -> None:
    with serve(FakeHub(plain={"/x.gguf": WEIGHTS}, drops={"/x.gguf": [100_000]}, shifts_range=True)) as elsewhere:
        with pytest.raises(HubError, match="sent another range than asked; try again"):
            hubs.pull(f"{elsewhere.url}/x.gguf")
        assert not list(cache.parent.rglob("x.gguf"))


def test_url_that_changed_meanwhile_is_not_mixed(hub: FakeHub) -> None:
    with serve(FakeHub(plain={"/x.gguf": WEIGHTS}, drops={"/x.gguf": [100_000, 0, 0, 0]})) as elsewhere:
        with pytest.raises(Offline):
            hubs.pull(f"{elsewhere.url}/x.gguf")
        elsewhere.plain["/x.gguf"] = newer = bytes(reversed(WEIGHTS))
        assert hubs.pull(f"{elsewhere.url}/x.gguf").read_bytes() == newer


def test_url_of_unknown_length_is_refused(hub: FakeHub, cache: Path) -> None:
    with (
        serve(FakeHub(plain={"/x.gguf": WEIGHTS}, lengthless=True)) as elsewhere,
        pytest.raises(HubError, match="does not say how long it is; download it by hand"),
    ):
        hubs.pull(f"{elsewhere.url}/x.gguf")
    assert not list(cache.parent.rglob("x.gguf"))


@pytest.mark.parametrize(
    ("status", "kind", "words"), [(404, NotFound, "is not there"), (403, HubError, "asks for a login")]
)
def test_url_that_is_refused(hub: FakeHub, cache: Path, status: int, kind: type[HubError], words: str) -> None:
    with serve(FakeHub(statuses={"/": [status]})) as elsewhere, pytest.raises(kind, match=words):
        hubs.pull(f"{elsewhere.url}/x.gguf")
    assert not list(cache.parent.rglob("x.gguf"))
