"""Headers behind HTTP: few bytes, whatever the server does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from brolly import hub as hubs
from brolly.checkpoint import read_header
from brolly.errors import CheckpointError, HubError, NotFound, Offline
from brolly.place import Place
from brolly.ranges import Ranged, remote
from tests.identity.hollow import HollowHub, hollow_files, llama_gguf, llama_shapes, serve_hollow

CONFIG = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 16384, "num_hidden_layers": 126,
    "num_attention_heads": 128, "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 53248,
    "vocab_size": 128256, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 5e5,
}  # fmt: skip
LARGE = hollow_files(llama_shapes(16384, 126, 1024, 53248, 128256), 191, CONFIG)
SMALL = hollow_files(llama_shapes(64, 2, 32, 128, 100), 1, CONFIG)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HollowHub]:
    with serve_hollow(HollowHub(repos={"org/large": LARGE, "org/small": SMALL})) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        yield served


def place_of(text: str) -> Place:
    return remote(hubs.parse(text))[0]


def test_a_repository_of_800_gb_costs_under_two_megabytes(hub: HollowHub) -> None:
    faults: list[CheckpointError] = []
    header = read_header(place_of("org/large"), faults)
    assert (header.n_params, len(header.tensors), faults) == (405_853_388_800, 1137, [])
    assert sum(size for _, size in LARGE.values()) > 800e9
    assert hub.n_sent < 2e6
    assert len(hub.asked) < 191 + 10, "a request a shard, and few more"


def test_nothing_is_left_in_the_cache(hub: HollowHub, tmp_path: Path) -> None:
    read_header(place_of("org/small"))
    assert not (tmp_path / "cache").exists()


def test_one_file_of_a_repository_is_read_alone(hub: HollowHub) -> None:
    header = read_header(place_of("hf://org/large/model-00002-of-00191.safetensors"))
    assert 0 < len(header.tensors) < 20
    assert hub.n_sent < 1e6
    with pytest.raises(NotFound, match=r"no file 'none\.bin'"):
        place_of("hf://org/large/none.bin")


def test_a_url_is_read_by_its_beginning(hub: HollowHub) -> None:
    hub.repos[""] = {"m.safetensors": LARGE["model-00001-of-00191.safetensors"]}
    place, name = remote(f"{hub.url}/m.safetensors")
    assert name is None
    assert len(read_header(place).tensors) > 1
    assert hub.n_sent < 1e5


def test_a_gguf_is_read_as_far_as_its_header_goes(hub: HollowHub, tmp_path: Path) -> None:
    path = llama_gguf(tmp_path / "m.gguf", n_vocab=32000, n_merges=60000)
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(2**23)
    hub.repos[""] = {"m.gguf": (head, size)}
    header = read_header(remote(f"{hub.url}/m.gguf")[0])
    assert header.metadata["general.architecture"] == "llama"
    assert len(header.tensors) == 292
    assert hub.n_sent < 8e6 < size


def test_a_server_without_ranges_is_read_and_left(hub: HollowHub) -> None:
    hub.ignores_range = True
    hub.repos[""] = {"m.safetensors": LARGE["model-00001-of-00191.safetensors"]}
    place, _ = remote(f"{hub.url}/m.safetensors")
    assert len(read_header(place).tensors) > 1
    store = place.store
    assert isinstance(store, Ranged) and store.n_fetched < 2e6
    with pytest.raises(HubError, match="does not answer ranges"):
        store.fetch("m.safetensors", 2**30, 2**30 + 10)


def test_what_is_not_there_and_what_may_not_be_asked(hub: HollowHub, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFound):
        place_of("org/none")
    with pytest.raises(NotFound):
        remote(f"{hub.url}/none.safetensors")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(Offline, match="HF_HUB_OFFLINE"):
        place_of("org/large")


def test_a_header_that_lies_about_its_length_fetches_no_more_than_a_header_may_have(hub: HollowHub) -> None:
    head = (2**40).to_bytes(8, "little") + b"{"
    hub.repos[""] = {"m.safetensors": (head, 2**41)}
    with pytest.raises(CheckpointError, match="claims"):
        read_header(remote(f"{hub.url}/m.safetensors")[0])
    assert hub.n_sent < 1e5
