"""SIGKILL at any point of a pull: no half file is ever read as whole, and the next pull goes on and completes."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from brolly import hub as hubs
from brolly.errors import NotFound, Offline
from tests.hub.conftest import read
from tests.hub.fake_hub import FakeHub, Repository, serve

FILES = {
    "config.json": b"{}" * 500,
    "model-1.safetensors": random.Random(1).randbytes(1_500_000),
    "model-2.safetensors": random.Random(2).randbytes(900_000),
    "model.safetensors.index.json": b'{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}',
}
TOTAL = sum(map(len, FILES.values()))
LIMIT = 300  # seconds after which a child hangs


def start(reference: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "brolly", "pull", reference], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def kill_when(child: subprocess.Popen[bytes], ready: Callable[[], bool]) -> bool:
    """SIGKILL a child once something is so; whether it was still alive."""
    end = time.monotonic() + LIMIT
    while not ready() and child.poll() is None:
        assert time.monotonic() < end, "the pull hangs"
        time.sleep(0.001)
    child.send_signal(signal.SIGKILL)
    child.communicate(timeout=LIMIT)
    return child.returncode == -signal.SIGKILL


def check_nothing_half(hub: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file that has a name is whole, and the model is found offline as a whole or not at all."""
    for folder in cache.glob("models--org--big/snapshots/*"):
        assert read(folder).items() <= FILES.items()
    with monkeypatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        for name in ("org/big", *(f"hf://org/big/{name}" for name in FILES)):
            try:
                found = hubs.pull(name)
            except Offline:
                continue
            assert found.read_bytes() == FILES[found.name] if found.is_file() else read(found) == FILES


@pytest.mark.parametrize("seed", range(3))
def test_killed_pulls_leave_nothing_half_and_the_next_goes_on(
    hub: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Killed three times on the way, each time once a random number of bytes more has been sent."""
    hub.repos["org/big"], hub.pause = Repository(FILES), 0.001
    chance = random.Random(seed)
    n_kills = 0
    for _ in range(3):
        goal = hub.sent("/resolve/") + chance.randrange(TOTAL // 3)
        n_kills += kill_when(start("org/big"), lambda goal=goal: hub.sent("/resolve/") >= goal)
        check_nothing_half(hub, cache, monkeypatch)
    assert n_kills
    hub.pause = 0
    kept = sum(p.stat().st_size for p in (cache / "models--org--big" / "blobs").glob("*"))
    n_asked = len(hub.log)  # answers to dead processes may still be on their way
    child = start("org/big")
    out, err = child.communicate(timeout=LIMIT)
    assert (child.returncode, err) == (0, b"")
    assert read(Path(out.decode().strip())) == FILES
    assert not list(cache.rglob("*.incomplete")), "no part is left behind"
    assert sum(r.sent for r in hub.log[n_asked:] if "/resolve/" in r.path) == TOTAL - kept, (
        "nothing that was on the disk was sent again"
    )


@pytest.mark.parametrize("step", ["record", "part", "blob", "link", "ref", "done"])
def test_kill_at_each_step_of_the_disk(hub: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Killed as soon as each kind of file first appears."""
    hub.repos["org/big"] = Repository(FILES)
    folder = cache / "models--org--big"
    pattern = {
        "record": "brolly/*", "part": "blobs/*.incomplete", "blob": "blobs/" + "[0-9a-f]" * 40,
        "link": "snapshots/*/config.json", "ref": "refs/*", "done": "snapshots/*/model-1.safetensors",
    }[step]  # fmt: skip
    kill_when(start("org/big"), lambda: any(folder.glob(pattern)))
    check_nothing_half(hub, cache, monkeypatch)
    assert read(hubs.pull("org/big")) == FILES


def test_killed_pull_of_a_url_goes_on(hub: FakeHub, cache: Path) -> None:
    data = FILES["model-1.safetensors"]
    with serve(FakeHub(plain={"/x.safetensors": data}, pause=0.005)) as elsewhere:
        url = f"{elsewhere.url}/x.safetensors"
        assert kill_when(start(url), lambda: any(p.stat().st_size > 400_000 for p in cache.parent.rglob("*.part")))
        assert not list(cache.parent.rglob("x.safetensors"))
        elsewhere.pause = 0
        assert hubs.pull(url).read_bytes() == data
        assert int(elsewhere.log[-1].headers["range"].removeprefix("bytes=").removesuffix("-")) >= 400_000


@pytest.mark.parametrize("tool", ["brolly", "huggingface_hub"])
def test_killed_removal_leaves_no_model_that_looks_whole(
    hub: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch, tool: str
) -> None:
    """Killed before its second, third, … file: the rest is never found, and removing again ends it."""
    from huggingface_hub import snapshot_download

    hub.repos["org/big"] = Repository({f"{i}.json": b"{}" for i in range(4)} | {"model.safetensors": b"x"})
    for last in range(1, 7):
        if tool == "brolly":
            hubs.pull("org/big")
        else:
            shutil.rmtree(cache / "models--org--big", ignore_errors=True)
            snapshot_download("org/big", cache_dir=cache, endpoint=hub.url)
        code = f"""
import os, sys
from brolly.cli import main
n, real = 0, os.unlink
def unlink(*args, **kwargs):
    global n
    n += 1
    if n > {last}:
        os.kill(os.getpid(), 9)
    real(*args, **kwargs)
os.unlink = unlink
main(["remove", "org/big"])
"""
        assert subprocess.run([sys.executable, "-c", code], timeout=LIMIT).returncode == -signal.SIGKILL
        with monkeypatch.context() as patch, pytest.raises(Offline):
            patch.setenv("HF_HUB_OFFLINE", "1")
            hubs.pull("org/big")
    hubs.remove("org/big")
    assert not (cache / "models--org--big").exists()
    with pytest.raises(NotFound):
        hubs.remove("org/big")
