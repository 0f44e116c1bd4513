"""Every spelling of a model becomes the right files, fetched once, and other tools' cache is ours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from brolly import hub as hubs
from brolly.errors import Gated, NotFound, Offline, OptionError
from tests.hub.conftest import NEEDED, WEIGHTS, read
from tests.hub.fake_hub import FakeHub, Repository, serve, sha256


@pytest.mark.parametrize(
    "reference",
    ["org/tiny", "org/tiny@main", "org/tiny@v1", "org/tiny@refs/pr/1", "org/tiny@" + "a" * 40]
    + ["hf://org/tiny", "hf://org/tiny@v1", "{url}/org/tiny", "{url}/org/tiny/tree/main", "{url}/org/tiny/tree/v1/"]
    + ["https://huggingface.co/org/tiny", "https://hf.co/org/tiny/tree/refs%2Fpr%2F1"],
)
def test_every_spelling_fetches_what_is_needed_and_nothing_else(hub: FakeHub, cache: Path, reference: str) -> None:
    root = hubs.pull(reference.format(url=hub.url))
    assert root == cache / "models--org--tiny" / "snapshots" / ("a" * 40)
    assert read(root) == NEEDED
    assert hub.fetched() == set(NEEDED)
    assert all(len(hub.asked(f"/{name}")) == 1 for name in NEEDED)


@pytest.mark.parametrize(
    "reference",
    ["hf://org/tiny/config.json", "hf://org/tiny@v1/config.json", "org/tiny/config.json", "org/tiny/config.json@main"]
    + ["{url}/org/tiny/resolve/main/config.json", "{url}/org/tiny/blob/v1/config.json?download=true"],
)
def test_one_file_is_one_file(hub: FakeHub, reference: str) -> None:
    assert hubs.pull(reference.format(url=hub.url)).read_bytes() == NEEDED["config.json"]
    assert hub.fetched() == {"config.json"}


def test_one_file_does_not_pass_for_the_whole_model(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    file = hubs.pull("hf://org/tiny/model.safetensors")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert hubs.pull("hf://org/tiny/model.safetensors") == file
    with pytest.raises(Offline, match="org/tiny is not in the cache"):
        hubs.pull("org/tiny")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert read(hubs.pull("org/tiny")) == NEEDED
    assert len(hub.asked("/model.safetensors")) == 1


def test_whole_model_stays_whole_when_one_file_is_asked(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    root = hubs.pull("org/tiny")
    assert hubs.pull("hf://org/tiny/picture.png") == root / "picture.png"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert hubs.pull("org/tiny") == root


def test_model_of_single_files_is_complete_with_all_of_them(hub: FakeHub) -> None:
    for name in ("config.json", "model.safetensors"):
        path = hubs.pull(f"hf://org/tiny/{name}")
    assert [m.complete for m in hubs.cached() if not m.bundled] == [True]
    (path.parent / "config.json").unlink()
    assert [m.complete for m in hubs.cached() if not m.bundled] == [False]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["model-00001-of-2.safetensors", "model-00002-of-2.safetensors", "model.safetensors.index.json"], "all"),
        (["model.safetensors", "model-00001-of-1.safetensors", "consolidated.safetensors"], ["model.safetensors"]),
        (["model.safetensors", "model.fp16.safetensors"], ["model.safetensors"]),
        (["consolidated.safetensors", "a.json", "consolidated.00.pth"], ["a.json", "consolidated.safetensors"]),
        (["pytorch_model.bin", "training_args.bin", "optimizer.bin"], ["pytorch_model.bin"]),
        (["tiny.Q4_K_M.gguf", "tiny.F16.gguf", "tiny.Q8_0.gguf"], ["tiny.F16.gguf"]),
        (["large-v3.pt", "README.md", "audio.mp3", "figure.jpg"], ["README.md", "large-v3.pt"]),
        (["model.safetensors", "runs/a/config.json", "metal/model.bin", "openvino/x.json"], ["model.safetensors"]),
        (["config.json", "additional_chat_templates/tool.jinja", "script.py", "a.zip"],
         ["additional_chat_templates/tool.jinja", "config.json"]),
    ],
)  # fmt: skip
def test_weights_are_fetched_in_one_format(files: list[str], expected: list[str] | str) -> None:
    assert hubs.needed(files) == (sorted(files) if expected == "all" else expected)


def test_second_pull_fetches_no_file_again(hub: FakeHub) -> None:
    first = hubs.pull("org/tiny")
    hub.log.clear()
    assert hubs.pull("org/tiny") == first
    assert [r.path for r in hub.log] == ["/api/models/org/tiny/revision/main"]


def test_second_pull_of_a_commit_asks_nothing(hub: FakeHub) -> None:
    first = hubs.pull("org/tiny")
    hub.log.clear()
    assert hubs.pull("org/tiny@" + "a" * 40) == first
    assert hub.log == []


@pytest.mark.parametrize("fault", ["gone", "offline", "status", "gated"])
def test_second_pull_needs_no_hub(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    first = hubs.pull("org/tiny")
    asked = len(hub.log)
    if fault == "gone":
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    elif fault == "offline":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    else:
        hub.statuses["/api/models"] = [503] if fault == "status" else [403]
    assert hubs.pull("org/tiny") == first
    assert read(first) == NEEDED
    assert len(hub.log) == asked + (fault in ("status", "gated"))


def test_moved_branch_is_followed_and_shares_what_is_the_same(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hubs.pull("org/tiny")
    hub.log.clear()
    hub.repos["org/tiny"] = Repository(NEEDED | {"config.json": b"{}"}, commit="b" * 40)
    second = hubs.pull("org/tiny")
    assert read(second) == NEEDED | {"config.json": b"{}"}
    assert hub.sent("model.safetensors") == 0
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert hubs.pull("org/tiny") == second
    assert hubs.pull("org/tiny@" + "a" * 40).name == "a" * 40


def test_plain_url_of_a_checkpoint(hub: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(FakeHub(plain={"/files/model one.safetensors": WEIGHTS})) as elsewhere:
        url = f"{elsewhere.url}/files/model%20one.safetensors?download=1"
        path = hubs.resolve(url)
        assert path.name == "model one.safetensors"
        assert path.read_bytes() == WEIGHTS
        assert path.is_relative_to(cache.parent)
        assert len(elsewhere.log) == 1
    assert hubs.resolve(url) == path, "the second pull needs no network"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert hubs.resolve(url) == path
    assert hub.log == []


@pytest.mark.parametrize("name", ["page.html", "model.safetensors.txt", "", "..%2F..%2Fmodel.safetensors", ".gguf"])
def test_url_of_anything_else_is_refused_before_it_is_asked(hub: FakeHub, name: str) -> None:
    with serve(FakeHub()) as elsewhere, pytest.raises(OptionError, match="does not name a model file"):
        hubs.pull(f"{elsewhere.url}/{name}")
    assert elsewhere.log == []


def test_local_folder_and_file_stay_where_they_are(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "org" / "tiny"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    for reference in (str(folder), folder, "./org/tiny", "org/tiny", "org/tiny/model.safetensors"):
        assert hubs.resolve(reference).samefile(folder / "model.safetensors" if "model" in str(reference) else folder)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert hubs.resolve("~/org/tiny").samefile(folder)
    assert hub.log == []


@pytest.mark.parametrize(
    "reference", ["./nothing", "/nothing/at/all", "~/nothing", "nothing.gguf", "../a/b.safetensors"]
)
def test_missing_path_is_told_without_asking_the_hub(hub: FakeHub, reference: str) -> None:
    with pytest.raises(NotFound, match="does not exist; expected a folder or a file"):
        hubs.resolve(reference)
    assert hub.log == []


@pytest.mark.parametrize(
    "reference",
    ["", "a/../b", "org/na me", "org/name@../../x", "org/name@-x", "hf://org/name/../../x", "hf://org/name//etc/passwd"]
    + [
        "org/name@/x",
        "org\\name",
        "ftp://x/model.gguf",
        "org/name\n",
        "a" * 200,
        "{url}/org/tiny/resolve/main/a/../../b",
    ],
)
def test_what_is_no_name_is_refused_before_the_hub_is_asked(hub: FakeHub, reference: str) -> None:
    with pytest.raises(OptionError, match="neither a path here nor a hub name; expected org/name"):
        hubs.pull(reference.format(url=hub.url))
    assert hub.log == []


def test_bundled_model_needs_no_hub(hub: FakeHub, mini: Path) -> None:
    assert hubs.resolve("mini-test") == hubs.pull("mini-test") == mini
    assert hub.log == []


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"HF_HUB_CACHE": "{tmp}/x"}, "x"),
        ({"HF_HOME": "{tmp}/y"}, "y/hub"),
        ({"HF_HOME": "{tmp}/y", "HF_HUB_CACHE": "{tmp}/x"}, "x"),
        ({"HF_HOME": "", "XDG_CACHE_HOME": "{tmp}/z"}, "z/huggingface/hub"),
        ({"HF_HOME": "", "XDG_CACHE_HOME": "", "HOME": "{tmp}"}, ".cache/huggingface/hub"),
    ],
)
def test_cache_is_where_the_ecosystem_says(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str
) -> None:
    for key, value in variables.items():
        monkeypatch.setenv(key, value.format(tmp=tmp_path))
    assert hubs.pull("org/tiny") == tmp_path / expected / "models--org--tiny" / "snapshots" / ("a" * 40)


def test_huggingface_hub_reads_what_brolly_fetched(hub: FakeHub, cache: Path) -> None:
    from huggingface_hub import scan_cache_dir, snapshot_download

    root = hubs.pull("org/tiny")
    assert snapshot_download("org/tiny", cache_dir=cache, local_files_only=True) == str(root)
    hub.log.clear()
    snapshot_download("org/tiny", cache_dir=cache, endpoint=hub.url, allow_patterns=["*.safetensors", "*.json"])
    assert hub.fetched() <= {"onnx/config.json"}
    scan = scan_cache_dir(cache)
    assert scan.warnings == []
    assert {r.repo_id for r in scan.repos} == {"org/tiny"}


def test_brolly_uses_what_huggingface_hub_fetched(hub: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import snapshot_download

    root = Path(snapshot_download("org/tiny", cache_dir=cache, endpoint=hub.url))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert hubs.pull("org/tiny") == root
    monkeypatch.delenv("HF_HUB_OFFLINE")
    hub.log.clear()
    assert hubs.pull("org/tiny") == root
    assert hub.fetched() == set()


def test_half_a_model_of_another_tool_is_not_taken_for_one(
    hub: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import snapshot_download

    index = b'{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}'
    shards = {"model-1.safetensors": b"one", "model-2.safetensors": b"two"}
    hub.repos["org/big"] = Repository(shards | {"model.safetensors.index.json": index})
    snapshot_download("org/big", cache_dir=cache, endpoint=hub.url, ignore_patterns=["model-2*"])
    with monkeypatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        with pytest.raises(Offline):
            hubs.pull("org/big")
    hub.log.clear()
    assert read(hubs.pull("org/big")).keys() == {*shards, "model.safetensors.index.json"}
    assert hub.fetched() == {"model-2.safetensors"}


@pytest.mark.parametrize("source", ["HF_TOKEN", "file"])
def test_token_opens_a_gated_model_and_goes_to_the_endpoint_alone(
    hub: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    hub.repos["org/tiny"].gated = True
    with pytest.raises(Gated):
        hubs.pull("org/tiny")
    if source == "file":
        cache.parent.mkdir(parents=True, exist_ok=True)
        (cache.parent / "token").write_text(hub.token + "\n")
    else:
        monkeypatch.setenv("HF_TOKEN", f" {hub.token}\n")
    with serve(FakeHub(plain={f"/{sha256(WEIGHTS)}": WEIGHTS, "/x.safetensors": WEIGHTS})) as elsewhere:
        hub.cdn = elsewhere.url.replace("127.0.0.1", "localhost")
        hub.log.clear()
        assert read(hubs.pull("org/tiny")) == NEEDED
        hubs.pull(f"{elsewhere.url}/x.safetensors")
        assert {r.headers.get("authorization") for r in hub.log} == {f"Bearer {hub.token}"}
        assert len(elsewhere.log) == 2
        assert not any("authorization" in r.headers for r in elsewhere.log)
        assert not any(hub.token in str(r.headers) for r in elsewhere.log)


def test_without_a_token_none_is_sent(hub: FakeHub) -> None:
    hubs.pull("org/tiny")
    assert hub.log
    assert not any("authorization" in r.headers for r in hub.log)


def test_cache_without_links_works(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("this file system has no links")

    monkeypatch.setattr(os, "symlink", refuse)
    root = hubs.pull("org/tiny")
    assert read(root) == NEEDED
    assert not any(p.is_symlink() for p in root.iterdir())
    hub.log.clear()
    assert hubs.pull("org/tiny") == root
    assert hub.fetched() == set()
