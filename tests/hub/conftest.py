"""Fixtures of the hub's tests: a fake hub with one model, and an environment of its own."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub.fake_hub import FakeHub, Repository, serve

WEIGHTS = random.Random(0).randbytes(400_000)
NEEDED = {
    "config.json": b'{"dim": 8}',
    "tokenizer.json": b"{}",
    "LICENSE": b"Do as you like.",
    "README.md": b"# tiny",
    "model.safetensors": WEIGHTS,
}
NEEDLESS = {
    ".gitattributes": b"*.bin lfs",
    "pytorch_model.bin": b"pickle",
    "training_args.bin": b"pickle",
    "flax_model.msgpack": b"flax",
    "tf_model.h5": b"keras",
    "onnx/model.onnx": b"onnx",
    "onnx/config.json": b"{}",
    "picture.png": b"PNG",
    "original/consolidated.00.pth": b"pickle",
}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache; no token, proxy or switch of the person who runs the tests reaches them."""
    from huggingface_hub import close_session

    for name in ("HF_HUB_CACHE", "HF_ENDPOINT", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "home" / "token"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("brolly.hub.PAUSE", 0.01)
    close_session()
    yield tmp_path / "home" / "hub"
    close_session()


@pytest.fixture
def hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub that has org/tiny, at HF_ENDPOINT."""
    with serve(FakeHub(repos={"org/tiny": Repository(NEEDED | NEEDLESS, refs=("main", "v1", "refs/pr/1"))})) as fake:
        monkeypatch.setenv("HF_ENDPOINT", fake.url)
        yield fake


@pytest.fixture
def mini(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundled model, whether or not one comes with this version."""
    folder = tmp_path / "minis" / "mini-test"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    monkeypatch.setattr("brolly.hub.MINIS", folder.parent)
    return folder


def read(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by its name there."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
