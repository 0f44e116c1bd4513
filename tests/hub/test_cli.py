"""pull, list and remove on the command line: what they print, and each failure as one sentence with exit code 2."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from brolly import hub as hubs
from brolly.cli import main
from tests.hub.conftest import NEEDED, WEIGHTS, read
from tests.hub.fake_hub import FakeHub, Repository, serve, sha256

SIZE = sum(map(len, NEEDED.values()))


def brolly(*args: str, prelude: str = "") -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    code = f"{prelude}\nimport sys\nfrom brolly.cli import main\nsys.exit(main(sys.argv[1:]))"
    return subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, timeout=300)


def test_pull_prints_the_folder_and_nothing_else(hub: FakeHub) -> None:
    done = brolly("pull", "org/tiny")
    assert (done.returncode, done.stderr) == (0, "")
    assert read(Path(done.stdout.rstrip("\n"))) == NEEDED


def test_pull_of_what_is_here_prints_its_path(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.gguf").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    for reference in (".", "model.gguf", str(tmp_path)):
        assert main(["pull", reference]) == 0
        assert capsys.readouterr().out == f"{reference}\n"
    assert hub.log == []


@pytest.mark.parametrize(
    ("reference", "setup", "expected"),
    [
        ("org/absent", "", r"org/absent is not on {url}, and no such path is here; if it is private, set HF_TOKEN\."),
        ("org/tny", "pulled", r"org/tny is not on {url}, .*; did you mean org/tiny\?"),
        ("org/tiny@v9", "", r"org/tiny exists, and has no revision 'v9'; look at {url}/org/tiny\."),
        ("{url}/org/tiny/tree/v9", "", r"org/tiny exists, and has no revision 'v9'; look at {url}/org/tiny\."),
        ("hf://org/tiny/a.json", "", r"org/tiny has no file 'a.json'; it has .*config\.json.*"),
        ("./absent", "", r"\./absent does not exist; expected a folder or a file, or a hub name like org/name\."),
        ("a b", "", r"'a b' is neither a path here nor a hub name; expected org/name or org/name@revision\."),
        ("org/tiny", "gated", r"org/tiny is gated: agree to its terms at {url}/org/tiny, then set HF_TOKEN .*"),
        ("org/tiny", "gated, stranger", r"org/tiny is gated: agree to its terms at {url}/org/tiny, then set .*"),
        ("org/tiny", "private", r"org/tiny is not on {url}, .*; if it is private, set HF_TOKEN\."),
        ("org/tiny", "bad token", r"{url} refuses the token for org/tiny; set HF_TOKEN to a valid one, or unset it\."),
        ("org/tiny", "offline", r"org/tiny is not in the cache \(.*\), and HF_HUB_OFFLINE is set; .*"),
        ("http://x.invalid/a.gguf", "offline", r"http://x.invalid/a.gguf is not in the cache, and HF_HUB_OFFLINE .*"),
        ("org/tiny", "unreachable", r"http://127.0.0.1:9 could not be reached \(ConnectError\) for org/tiny; .*"),
        ("org/tiny", "broken", r"{url} answered 500 for org/tiny; .* try again.*"),
        ("org/tiny", "huge", r"org/tiny needs 1000000\.00 GB, and .* has .* GB free; make room\."),
        ("org/tiny", "corrupt", r"model.safetensors does not have the hash that the hub says; .* Pull it again\."),
        ("org/tiny", "no folder", r".*/home/hub.* cannot be written \(.*\); set HF_HOME to a folder that can\."),
        ("org/empty", "", r"org/empty has no file that brolly reads; expected .safetensors, .*"),
        ("http://x.invalid/a.zip", "", r"http://x.invalid/a.zip does not name a model file; .*\.safetensors, .*"),
        ("http://127.0.0.1:9/a.gguf", "", r"127.0.0.1:9 could not be reached .*try again.*"),
    ],
)  # fmt: skip
def test_each_failure_is_one_sentence_that_says_what_to_do(
    hub: FakeHub,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    reference: str,
    setup: str,
    expected: str,
) -> None:
    hub.repos["org/empty"] = Repository({"a.zip": b"zip"})
    repo, url = hub.repos["org/tiny"], hub.url
    repo.gated, repo.private = "gated" in setup, setup == "private"
    if setup == "pulled":
        hubs.pull("org/tiny")
    elif setup == "offline":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    elif setup == "unreachable":
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    elif setup == "broken":
        hub.statuses["/api"] = [500] * 9
    elif setup == "huge":
        hub.sizes["model.safetensors"] = 10**15
    elif setup == "corrupt":
        hub.corrupt.add("model.safetensors")
    elif setup == "no folder":
        cache.parent.mkdir(parents=True)
        cache.write_text("a file where the cache should be")
    elif setup:
        monkeypatch.setenv("HF_TOKEN", {"bad token": "hf_wrong"}.get(setup, hub.stranger))
    assert main(["pull", reference.format(url=url)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(f"brolly: {expected.format(url=re.escape(url))}\n", err), err
    assert err.count("\n") == 1


def test_file_size_limit_is_told_as_a_full_disk(hub: FakeHub, cache: Path) -> None:
    """RLIMIT_FSIZE makes the kernel refuse (EFBIG) every byte beyond the limit, as a quota would."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))"
    done = brolly("pull", "org/tiny", prelude=limit)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(
        r"brolly: .* is full \(File too large\); what was fetched is kept, make room and pull again\.\n", done.stderr
    )
    part = cache / "models--org--tiny" / "blobs" / f"{sha256(WEIGHTS)}.incomplete"
    kept = part.read_bytes()
    assert 100_000 < len(kept) <= 200_000
    assert kept == WEIGHTS[: len(kept)]
    hub.log.clear()
    assert brolly("pull", "org/tiny").returncode == 0
    assert hub.sent("model.safetensors") == len(WEIGHTS) - len(kept)


def test_failure_shows_no_traceback_unless_asked(hub: FakeHub) -> None:
    done = brolly("pull", "org/absent")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "Traceback" in brolly("pull", "org/absent", "--debug").stderr


def test_interrupt_ends_a_pull_quickly_and_quietly(hub: FakeHub) -> None:
    hub.pause = 0.2
    code = "import sys\nfrom brolly.cli import main\nsys.exit(main(sys.argv[1:]))"
    child = subprocess.Popen([sys.executable, "-c", code, "pull", "org/tiny"], stderr=subprocess.PIPE, text=True)
    while not hub.sent("model.safetensors"):
        assert child.poll() is None
    child.send_signal(2)
    assert child.wait(300) == 130
    assert child.stderr and child.stderr.read() == "\n"
    assert hub.sent("model.safetensors") < len(WEIGHTS)


def listed(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, object]]:
    capsys.readouterr()
    assert main(["list", "--json"]) == 0
    return {m["name"]: m for m in json.loads(capsys.readouterr().out) if not m["bundled"]}


def test_list_shows_what_was_pulled(hub: FakeHub, cache: Path, mini: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert listed(capsys) == {}
    root = hubs.pull("org/tiny")
    hub.repos["solo"] = Repository({"model.gguf": b"g" * 1_500_000})
    hubs.pull("solo")
    with serve(FakeHub(plain={"/x.gguf": b"x" * 2_000_000})) as elsewhere:
        url = f"{elsewhere.url}/x.gguf"
        hubs.pull(url)
    models = listed(capsys)
    assert models["org/tiny"] == {
        "name": "org/tiny", "revision": "a" * 12, "n_bytes": SIZE, "path": str(root), "complete": True,
        "bundled": False,
    }  # fmt: skip
    assert {name: m["n_bytes"] for name, m in models.items()} == {"org/tiny": SIZE, "solo": 1_500_000, url: 2_000_000}
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^org/tiny +a{12} +0\.4 MB$", out, re.M)
    assert re.search(r"^solo +a{12} +1\.5 MB$", out, re.M)
    assert re.search(rf"^{re.escape(url)} +url +2\.0 MB$", out, re.M)
    assert re.search(r"^mini-test +bundled +0\.0 MB$", out, re.M)


def test_list_needs_no_hub_and_tells_an_incomplete_model(hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    hub.corrupt.add("model.safetensors")
    assert main(["pull", "org/tiny"]) == 2
    hub.log.clear()
    assert not any(m["complete"] for m in listed(capsys).values())
    hub.corrupt.clear()
    root = hubs.pull("org/tiny")
    (root / "config.json").unlink()
    hub.log.clear()
    assert listed(capsys)["org/tiny"]["complete"] is False
    assert main(["list"]) == 0
    assert re.search(r"^org/tiny .* MB  incomplete: pull it again$", capsys.readouterr().out, re.M)
    assert hub.log == []


def test_remove_deletes_one_model_and_says_what_it_freed(
    hub: FakeHub, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.repos["org/other"] = Repository({"model.gguf": b"g"})
    hub.repos["org/big"] = Repository({"model.gguf": b"g" * 2_500_000})
    for name in ("org/tiny", "org/other", "org/big"):
        hubs.pull(name)
    used = sum(p.stat().st_size for p in cache.rglob("*") if p.is_file() and not p.is_symlink())
    assert main(["remove", "org/big"]) == 0
    assert capsys.readouterr().out == "org/big is gone; 2.5 MB are free again.\n"
    assert listed(capsys).keys() == {"org/tiny", "org/other"}
    freed = hubs.remove("org/tiny")
    assert freed >= SIZE
    left = sum(p.stat().st_size for p in cache.rglob("*") if p.is_file() and not p.is_symlink())
    assert used - left >= freed + 2_500_000
    hub.log.clear()
    assert read(hubs.pull("org/tiny")) == NEEDED
    assert hub.fetched() == set(NEEDED)


def test_remove_takes_a_url(hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    with serve(FakeHub(plain={"/x.gguf": b"x" * 2_000_000})) as elsewhere:
        path = hubs.pull(f"{elsewhere.url}/x.gguf")
        assert main(["remove", f"{elsewhere.url}/x.gguf"]) == 0
    assert capsys.readouterr().out.endswith("is gone; 2.0 MB are free again.\n")
    assert not path.exists()
    assert listed(capsys) == {}


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("org/absent", r"org/absent is not in the cache; here are .*org/tiny.*"),
        ("http://x.invalid/a.gguf", r"http://x.invalid/a.gguf is not in the cache; here are .*"),
        ("org/tiny@main", r"every revision of a model is removed at once; say `brolly remove org/tiny`\."),
        ("hf://org/tiny/config.json", r"every revision of a model is removed at once; say `brolly remove org/tiny`\."),
        ("../models--org--tiny", r"'../models--org--tiny' is neither a path here nor a hub name; .*"),
        ("..", r"'..' is neither a path here nor a hub name; .*"),
        ("/", r"'/' is neither a path here nor a hub name; .*"),
        ("mini-test", r"mini-test comes with brolly and cannot be removed\."),
    ],
)
def test_remove_refuses_what_it_does_not_know(
    hub: FakeHub, mini: Path, capsys: pytest.CaptureFixture[str], reference: str, expected: str
) -> None:
    root = hubs.pull("org/tiny")
    assert main(["remove", reference]) == 2
    assert re.fullmatch(f"brolly: {expected}\n", capsys.readouterr().err)
    assert read(root) == NEEDED
    assert (mini / "config.json").exists()


def test_remove_follows_no_link_out_of_the_cache(hub: FakeHub, cache: Path, tmp_path: Path) -> None:
    root = hubs.pull("org/tiny")
    treasure = tmp_path / "treasure"
    treasure.mkdir()
    (treasure / "x.safetensors").write_bytes(b"x" * 9_000_000)
    (root / "linked").symlink_to(treasure)
    (root / "x.safetensors").symlink_to(treasure / "x.safetensors")
    os.symlink(treasure, cache / "models--org--link")
    assert hubs.remove("org/tiny") < 1_000_000
    with pytest.raises(hubs.NotFound):
        hubs.remove("org/link")
    assert (treasure / "x.safetensors").stat().st_size == 9_000_000
