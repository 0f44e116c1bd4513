"""Folders: which files are the model, what is missing or broken, and how far one can still tell."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from brolly.checkpoint import read_header, write_safetensors
from brolly.errors import CheckpointError, NotFound, UnsafeCheckpoint
from tests.identity.hollow import hollow_files, llama_gguf, llama_shapes, write_hollow

SHAPES = llama_shapes(64, 4, 32, 128, 100)
CONFIG = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 4}


def tensors(path: Path, *names: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_safetensors(path, [(name, "F32", (2, 2), bytes(16)) for name in names])


def faults_of(path: Path) -> tuple[dict[str, str], int]:
    """Finding → file, and how many tensors were still told."""
    faults: list[CheckpointError] = []
    header = read_header(path, faults)
    return {fault.finding: fault.file for fault in faults}, len(header.tensors)


def test_a_whole_folder_has_no_faults(tmp_path: Path) -> None:
    folder = write_hollow(tmp_path / "m", hollow_files(SHAPES, 3, CONFIG))
    assert faults_of(folder) == ({}, len(SHAPES))


def test_a_missing_shard_is_named_and_the_rest_is_told(tmp_path: Path) -> None:
    folder = write_hollow(tmp_path / "m", hollow_files(SHAPES, 3, CONFIG))
    (folder / "model-00002-of-00003.safetensors").unlink()
    found, count = faults_of(folder)
    assert found == {"missing-shards": "model-00002-of-00003.safetensors"} and 0 < count < len(SHAPES)
    with pytest.raises(CheckpointError, match="lacks 1 of its 3 files"):
        read_header(folder)


def test_a_missing_shard_is_seen_without_an_index(tmp_path: Path) -> None:
    folder = write_hollow(tmp_path / "m", hollow_files(SHAPES, 3, CONFIG))
    (folder / "model.safetensors.index.json").unlink()
    (folder / "model-00003-of-00003.safetensors").unlink()
    assert "missing-shards" in faults_of(folder)[0]
    with pytest.raises(CheckpointError, match="lacks 1 of its 3 files"):
        read_header(folder)


def test_a_shard_cut_short_and_one_that_is_noise(tmp_path: Path) -> None:
    folder = write_hollow(tmp_path / "m", hollow_files(SHAPES, 3, CONFIG))
    with (folder / "model-00001-of-00003.safetensors").open("r+b") as file:
        file.truncate(file.seek(0, 2) - 10)
    found, count = faults_of(folder)
    assert found == {"broken-file": "model-00001-of-00003.safetensors"} and count == len(SHAPES)
    (folder / "model-00002-of-00003.safetensors").write_bytes(b"noise, and no header")
    assert faults_of(folder)[1] < len(SHAPES)


def test_an_index_that_promises_what_no_shard_holds(tmp_path: Path) -> None:
    folder = write_hollow(tmp_path / "m", hollow_files(SHAPES, 2, CONFIG))
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    index["weight_map"]["model.extra.weight"] = "model-00001-of-00002.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert set(faults_of(folder)[0]) == {"index-mismatch"}


def test_an_index_may_not_point_elsewhere(tmp_path: Path) -> None:
    folder = write_hollow(tmp_path / "m", hollow_files(SHAPES, 2, CONFIG))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../../secret.safetensors"}}))
    with pytest.raises(UnsafeCheckpoint, match="must be a file beside its index"):
        read_header(folder, [])


def test_a_config_alone_is_told_and_not_loaded(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    faults: list[CheckpointError] = []
    header = read_header(tmp_path, faults)
    assert (header.format, header.config, [f.finding for f in faults]) == ("config", CONFIG, [""])
    with pytest.raises(CheckpointError, match="no weights"):
        read_header(tmp_path)


def test_an_index_alone_says_what_is_missing(tmp_path: Path) -> None:
    files = {n: f for n, f in hollow_files(SHAPES, 3, CONFIG).items() if n.endswith(".json")}
    assert faults_of(write_hollow(tmp_path / "m", files)) == ({"missing-shards": "model.safetensors.index.json"}, 0)


def test_a_tokenizer_alone(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    assert read_header(tmp_path, []).format == "tokenizer"


def test_an_adapter_alone_and_beside_a_model(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    tensors(tmp_path / "adapter_model.safetensors", "base_model.model.a.lora_A.weight")
    assert list(read_header(tmp_path).tensors) == ["base_model.model.a.lora_A.weight"]
    tensors(tmp_path / "model.safetensors", "a.weight")
    assert list(read_header(tmp_path).tensors) == ["a.weight"]


def test_variants_beside_the_plain_weights_are_left_out(tmp_path: Path) -> None:
    for name in ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors"):
        tensors(tmp_path / name, "conv_in.weight")
    assert len(read_header(tmp_path).files) == 1
    (tmp_path / "diffusion_pytorch_model.safetensors").unlink()
    assert read_header(tmp_path).files[0].name == "diffusion_pytorch_model.fp16.safetensors"


def test_a_diffusers_folder_is_its_components(tmp_path: Path) -> None:
    index = {
        "_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"], "scheduler": ["diffusers", "PNDMScheduler"],
        "safety_checker": [None, None], "../x": ["diffusers", "UNet2DModel"],
    }  # fmt: skip
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    tensors(tmp_path / "unet" / "diffusion_pytorch_model.safetensors", "conv_in.weight")
    tensors(tmp_path / "vae" / "diffusion_pytorch_model.safetensors", "encoder.conv_in.weight")
    (tmp_path / "unet" / "config.json").write_text('{"_class_name": "UNet2DConditionModel"}')
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "scheduler_config.json").write_text("{}")
    header = read_header(tmp_path)
    assert set(header.tensors) == {"unet/conv_in.weight", "vae/encoder.conv_in.weight"}
    assert header.config["components"] == {"unet": {"_class_name": "UNet2DConditionModel"}}
    assert header.format == "diffusers"


def test_a_modelfile_names_the_model_beside_it(tmp_path: Path) -> None:
    llama_gguf(tmp_path / "m.gguf", n_vocab=100, n_merges=10)
    modelfile = tmp_path / "Modelfile"
    modelfile.write_text('FROM ./m.gguf\nSYSTEM "You are kind."\nPARAMETER temperature 1\n')
    header = read_header(modelfile)
    assert header.format == "gguf" and header.metadata["modelfile"]["system"] == "You are kind."
    modelfile.write_text("FROM ../../etc/passwd\n")
    with pytest.raises(UnsafeCheckpoint, match="outside its folder"):
        read_header(modelfile)
    modelfile.write_text("FROM llama3.2\n")
    with pytest.raises(NotFound, match="'llama3.2', which is not beside it"):
        read_header(modelfile)


@pytest.mark.parametrize("layout", ["oci", "ollama"])
def test_an_image_holds_a_model(tmp_path: Path, layout: str) -> None:
    """An OCI layout with an index, and Ollama's store, whose blobs lie above the manifest."""
    path = llama_gguf(tmp_path / "m.gguf", n_vocab=100, n_merges=10)
    blobs = tmp_path / "store" / "blobs" / ("sha256" if layout == "oci" else "")
    blobs.mkdir(parents=True)

    def blob(data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / (digest if layout == "oci" else f"sha256-{digest}")).write_bytes(data)
        return f"sha256:{digest}"

    with path.open("rb") as file:
        head = file.read(60000)
    name = "0" * 64
    model = blobs / (name if layout == "oci" else f"sha256-{name}")
    path.rename(model)
    assert head
    layers = [
        {"mediaType": "application/vnd.ollama.image.license", "digest": blob(b"MIT License")},
        {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{name}"},
    ]
    manifest = {"schemaVersion": 2, "config": {"digest": blob(b'{"model_family": "llama"}')}, "layers": layers}
    manifest["mediaType"] = "application/vnd.oci.image.manifest.v1+json"
    if layout == "oci":
        (tmp_path / "store" / "oci-layout").write_text("{}")
        index = {"manifests": [{"digest": blob(json.dumps(manifest).encode())}]}
        (tmp_path / "store" / "index.json").write_text(json.dumps(index))
        header = read_header(tmp_path / "store")
    else:
        place = tmp_path / "store" / "manifests" / "registry.ollama.ai" / "library" / "llama3.1"
        place.mkdir(parents=True)
        (place / "8b").write_text(json.dumps(manifest))
        header = read_header(place / "8b")
    assert header.format == "gguf" and len(header.tensors) == 292
    assert header.metadata["oci"] == {"config": {"model_family": "llama"}, "license": "MIT License"}


def test_a_manifest_cannot_reach_outside_its_blobs(tmp_path: Path) -> None:
    layers = [{"mediaType": "application/vnd.ollama.image.model", "digest": "../../../etc/passwd"}]
    (tmp_path / "oci-layout").write_text("{}")
    (tmp_path / "index.json").write_text(json.dumps({"layers": layers}))
    with pytest.raises(CheckpointError, match="expected sha256 and 64 hexadecimal digits"):
        read_header(tmp_path)
