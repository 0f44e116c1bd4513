"""What the formats' own libraries write, brolly reads bit for bit; what brolly writes, safetensors reads."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import gguf
import numpy as np
import pytest
import safetensors
import torch
from gguf.quants import dequantize, quantize
from safetensors.torch import load_file, save_file

from brolly.checkpoint import Mapped, read_header, read_index, write_safetensors
from brolly.errors import CheckpointError, NotFound, UnsafeCheckpoint
from tests.checkpoint.files import (
    DTYPES,
    GGUF_KINDS,
    WORDS,
    assert_same,
    numbers,
    raw_bytes,
    read_all,
    read_tensor,
    some_tensors,
    write_gguf,
    write_llama2c,
)  # fmt: skip


def test_safetensors_come_back(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(some_tensors(), path, metadata={"format": "pt", "note": "☂"})
    header = read_header(path)
    assert header.format == "safetensors"
    assert header.metadata == {"format": "pt", "note": "☂"}
    assert header.files == (path,)
    assert_same(read_all(header), some_tensors())


@pytest.mark.parametrize("lazily", [False, True])
def test_the_safetensors_library_reads_what_we_write(tmp_path: Path, lazily: bool) -> None:
    path = tmp_path / "model.safetensors"

    def row(name: str, tensor: torch.Tensor) -> tuple:
        data = raw_bytes(tensor)
        return name, WORDS[tensor.dtype], tuple(tensor.shape), (lambda: data) if lazily else data

    write_safetensors(path, (row(n, t) for n, t in some_tensors().items()), {"note": "é"})
    assert_same(load_file(path), some_tensors())
    assert_same(read_all(read_header(path)), some_tensors())
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata() == {"note": "é"}
    for info in read_header(path).tensors.values():
        assert info.offset % DTYPES[info.dtype].itemsize == 0, f"{info.name} is not aligned to its elements"
    assert os.listdir(tmp_path) == [path.name]


def test_written_files_have_the_rights_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_safetensors(tmp_path / "m.safetensors", [("w", "F32", (1,), bytes(4))])
    rights = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "m.safetensors")]
    assert rights[0] == rights[1]


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    write_safetensors(path, [("w", "U8", (3,), b"old")])

    def broken() -> bytes:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_safetensors(path, [("a", "F32", (1,), bytes(4)), ("w", "U8", (3,), broken)])
    assert raw_bytes(load_file(path)["w"]) == b"old"
    assert os.listdir(tmp_path) == [path.name]


def test_a_write_into_nowhere_names_the_target(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone/m\.safetensors cannot be written"):
        write_safetensors(tmp_path / "gone" / "m.safetensors", [("w", "U8", (1,), b"x")])


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt"])
def test_torch_files_come_back(tmp_path: Path, suffix: str, legacy: bool) -> None:
    path = tmp_path / f"model{suffix}"
    torch.save(some_tensors(), path, _use_new_zipfile_serialization=not legacy)
    header = read_header(path)
    assert header.format == "torch"
    assert_same(read_all(header), some_tensors())


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("legacy", [False, True])
def test_torch_files_of_every_pickle_protocol_come_back(tmp_path: Path, protocol: int, legacy: bool) -> None:
    path = tmp_path / "model.pt"
    expected = some_tensors(["F32", "I64"])
    torch.save(expected, path, pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy)
    assert_same(read_all(read_header(path)), expected)


@pytest.mark.parametrize("legacy", [False, True])
def test_nested_training_states_get_dotted_names(tmp_path: Path, legacy: bool) -> None:
    path = tmp_path / "state.pt"
    network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    optimizer = torch.optim.AdamW(network.parameters())
    network(numbers(4, 3)).sum().backward()
    optimizer.step()
    state = {"optimizer": optimizer.state_dict(), "weights": [network.state_dict(), {"epoch": 3}], "lr": 0.1}
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    found = read_all(read_header(path))
    assert_same(
        {n.removeprefix("weights.0."): t for n, t in found.items() if n.startswith("weights.")}, network.state_dict()
    )
    assert torch.equal(found["optimizer.state.0.exp_avg"], state["optimizer"]["state"][0]["exp_avg"])


@pytest.mark.parametrize("wrapper", ["model", "state_dict", "model_state_dict", "module"])
def test_a_wrapped_state_dict_is_unwrapped(tmp_path: Path, wrapper: str) -> None:
    network = torch.nn.Linear(3, 2)
    torch.save({wrapper: network.state_dict(), "epoch": 1}, tmp_path / "m.pt")
    assert_same(read_all(read_header(tmp_path / "m.pt")), network.state_dict())


def test_parameters_and_a_bare_tensor_come_back(tmp_path: Path) -> None:
    torch.save({"p": torch.nn.Parameter(numbers(2, 2))}, tmp_path / "p.pt")
    assert torch.equal(read_all(read_header(tmp_path / "p.pt"))["p"], numbers(2, 2))
    torch.save(numbers(2, 3), tmp_path / "bare.pt")
    assert torch.equal(read_all(read_header(tmp_path / "bare.pt"))["tensor"], numbers(2, 3))


@pytest.mark.parametrize("alignment", [32, 8, 256])
def test_gguf_comes_back(tmp_path: Path, alignment: int) -> None:
    expected = {n: t for n, t in some_tensors([*GGUF_KINDS, "BF16"]).items() if t.dim() and t.numel()}
    path = write_gguf(tmp_path / "model.gguf", expected, alignment)
    header = read_header(path)
    assert header.format == "gguf"
    assert_same(read_all(header), expected)
    said = {key[2:]: value for key, value in header.metadata.items() if key.startswith("k.")}
    assert said == {
        "u8": 200, "i8": -2, "u16": 60_000, "i16": -300, "u32": 4_000_000_000, "i32": -70_000, "u64": 2**63,
        "i64": -(2**40), "f32": 0.5, "f64": 0.1, "bool": True, "text": "umbrella ☂", "texts": ["a", "", "é"],
        "numbers": [1, -2, 3], "floats": [0.5, 1.5],
    }  # fmt: skip
    assert header.metadata["general.architecture"] == "llama"


QUANTISED = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "TQ1_0", "TQ2_0", "MXFP4"]


@pytest.mark.parametrize("word", QUANTISED)
def test_quantised_gguf_blocks_lie_where_the_header_says(tmp_path: Path, word: str) -> None:
    kind = gguf.GGMLQuantizationType[word]
    block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    rng = np.random.default_rng(0)
    try:
        rows = quantize(rng.standard_normal((3, 2 * block), dtype=np.float32), kind)
    except NotImplementedError:  # gguf reads these types and cannot write them: any bytes do
        rows = rng.integers(0, 60, (3, 2 * block_bytes), dtype=np.uint8)
    writer = gguf.GGUFWriter(tmp_path / "q.gguf", "llama")
    writer.add_tensor("before", np.ones(3, np.float32))
    writer.add_tensor("w", rows, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header = read_header(tmp_path / "q.gguf")
    info = header.tensors["w"]
    assert (info.dtype, info.shape, info.nbytes) == (word, (3, 2 * block), rows.nbytes)
    with Mapped(header) as mapped:
        found = np.frombuffer(bytes(mapped.buffer(info)), np.uint8).reshape(rows.shape)
    assert np.array_equal(dequantize(found, kind), dequantize(rows, kind), equal_nan=True)


def test_every_gguf_type_has_the_size_that_the_gguf_package_says() -> None:
    from brolly.checkpoint.gguf import TYPES

    theirs = {k.value: (k.name, *gguf.GGML_QUANT_SIZES[k]) for k in gguf.GGMLQuantizationType}
    assert {k: v for k, v in TYPES.items() if k in theirs} == {k: v for k, v in theirs.items() if k in TYPES}
    assert not theirs.keys() - TYPES.keys(), "types that the gguf package knows and we do not"


@pytest.mark.parametrize("tied", [True, False])
# 128, 384 and 640 begin with the byte of a pickle; 123 layers put a brace where safetensors has one
@pytest.mark.parametrize("dim, n_layers", [(8, 2), (128, 1), (384, 1), (640, 1), (8, 123)])
def test_llama2c_comes_back(tmp_path: Path, tied: bool, dim: int, n_layers: int) -> None:
    expected = write_llama2c(tmp_path / "stories.bin", tied, dim, n_layers)
    header = read_header(tmp_path / "stories.bin")
    assert header.format == "llama2c"
    assert_same(read_all(header), expected)
    assert (header.config["dim"], header.config["n_layers"], header.config["vocab_size"]) == (dim, n_layers, 10)


@pytest.mark.parametrize("n_ranks", [1, 2, 4])
def test_metas_ranks_come_back_in_order(tmp_path: Path, n_ranks: int) -> None:
    whole = {"tok_embeddings.weight": numbers(4, 8), "norm.weight": numbers(8, seed=1)}
    for rank in range(n_ranks):
        pieces = {
            "tok_embeddings.weight": whole["tok_embeddings.weight"].chunk(n_ranks, dim=1)[rank].clone(),
            "norm.weight": whole["norm.weight"],
        }
        torch.save(pieces, tmp_path / f"consolidated.{rank:02}.pth")
    (tmp_path / "params.json").write_text('{"dim": 8, "n_layers": 0}')
    header = read_header(tmp_path)
    assert (header.format, header.config, len(header.files)) == ("meta", {"dim": 8, "n_layers": 0}, n_ranks)
    info = header.tensors["tok_embeddings.weight"]
    assert [p.file.name for p in info.shards] == [f"consolidated.{r:02}.pth" for r in range(n_ranks) if n_ranks > 1]

    with Mapped(header) as mapped:
        pieces = [read_tensor(mapped, piece) for piece in info.shards or (info,)]
    assert torch.equal(torch.cat(pieces, dim=1), whole["tok_embeddings.weight"])


def sharded(folder: Path, form: str) -> dict[str, torch.Tensor]:
    """Two shards and an index, as transformers names them."""
    tensors = some_tensors(["F32", "BF16", "I64"])
    names = list(tensors)
    base, suffix = ("model", "safetensors") if form == "safetensors" else ("pytorch_model", "bin")
    weight_map = {}
    for i, part in enumerate((names[:4], names[4:]), start=1):
        file = f"{base}-{i:05}-of-00002.{suffix}"
        save = save_file if form == "safetensors" else torch.save
        save({n: tensors[n] for n in part}, folder / file)
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / f"{base}.{suffix}.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return tensors


@pytest.mark.parametrize("named", ["folder", "index"])
@pytest.mark.parametrize("form", ["safetensors", "torch"])
def test_shards_come_back_whole(tmp_path: Path, form: str, named: str) -> None:
    expected = sharded(tmp_path, form)
    index = next(tmp_path.glob("*.index.json"))
    header = read_header(tmp_path if named == "folder" else index)
    assert (header.format, header.config["model_type"], len(header.files)) == (form, "llama", 2)
    assert_same(read_all(header), expected)
    assert sorted(read_index(index)) == sorted(expected)


@pytest.mark.parametrize("form", ["safetensors", "torch"])
def test_a_missing_shard_is_named(tmp_path: Path, form: str) -> None:
    sharded(tmp_path, form)
    lost = next(iter(tmp_path.glob("*-00002-of-*")))
    lost.unlink()
    with pytest.raises(CheckpointError, match=lost.name):
        read_header(tmp_path)


def test_an_index_that_lies_about_a_shard_is_refused(tmp_path: Path) -> None:
    sharded(tmp_path, "safetensors")
    path = tmp_path / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["empty"] = "model-00001-of-00002.safetensors"
    path.write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"index\.json says that 'empty' is in model-00001"):
        read_header(tmp_path)


@pytest.mark.parametrize(
    "shard", ["../model.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", "x\0y", "a\nb", "é.safetensors"]
)
def test_an_index_may_only_point_beside_itself(tmp_path: Path, shard: str) -> None:
    save_file({"w": numbers(2)}, tmp_path / "model.safetensors")
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": shard}}))
    with pytest.raises(UnsafeCheckpoint, match=r"model\.safetensors\.index\.json points at"):
        read_header(inner / "model.safetensors.index.json")


def test_several_files_without_an_index_are_joined_and_may_not_repeat_a_tensor(tmp_path: Path) -> None:
    save_file({"a": numbers(2)}, tmp_path / "model-1.safetensors")
    save_file({"b": numbers(2)}, tmp_path / "model-2.safetensors")
    assert_same(read_all(read_header(tmp_path)), {"a": numbers(2), "b": numbers(2)})
    save_file({"a": numbers(2)}, tmp_path / "model-2.safetensors")
    with pytest.raises(CheckpointError, match=r"model-1\.safetensors and model-2\.safetensors both hold 'a'"):
        read_header(tmp_path)


PREFERRED = ["model.safetensors", "consolidated.safetensors", "consolidated.00.pth", "pytorch_model.bin", "m.gguf"]


@pytest.mark.parametrize("n_missing", range(len(PREFERRED)))
def test_a_folder_of_many_formats_is_read_in_order_of_preference(tmp_path: Path, n_missing: int) -> None:
    for name in PREFERRED[n_missing:]:
        if name.endswith(".safetensors"):
            save_file({"w": numbers(2)}, tmp_path / name)
        elif name.endswith(".gguf"):
            write_gguf(tmp_path / name, {"w": numbers(2)})
        else:
            torch.save({"w": numbers(2)}, tmp_path / name)
    header = read_header(tmp_path)
    assert [f.name for f in header.files] == PREFERRED[n_missing : n_missing + 1]
    assert_same(read_all(header), {"w": numbers(2)})


def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "link.safetensors").symlink_to(tmp_path / "gone")
    (tmp_path / "loop.safetensors").symlink_to(tmp_path / "loop.safetensors")
    for name in ("missing.gguf", "link.safetensors"):
        with pytest.raises(NotFound, match=name):
            read_header(tmp_path / name)
    with pytest.raises(CheckpointError, match="loop"):
        read_header(tmp_path / "loop.safetensors")


def test_folders_without_weights_say_what_they_hold(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is empty"):
        read_header(tmp_path)
    (tmp_path / "README.md").touch()
    with pytest.raises(CheckpointError, match=r"holds README\.md, and no weights"):
        read_header(tmp_path)


@pytest.mark.parametrize("name", ["pipe.safetensors", "pipe.gguf", "pipe.pt", "pipe.bin"])
def test_a_named_pipe_is_refused_at_once(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(CheckpointError, match=f"{name} is not a regular file"):
        read_header(tmp_path / name)
