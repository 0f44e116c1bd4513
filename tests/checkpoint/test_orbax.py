"""Orbax folders, written by Orbax and by hand after the published formats, and their damage."""

from __future__ import annotations

import json
import random
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from brolly.checkpoint.ocdbt import Ocdbt
from brolly.checkpoint.orbax import read_orbax
from brolly.checkpoint.zstd import unzstd
from brolly.errors import CheckpointError
from tests.checkpoint.spoilt import only_our_errors, spoilt

DATA = Path(__file__).parent / "data"

LEAVES = {("params", "dense", "kernel"): "jax.Array", ("params", "dense", "bias"): "jax.Array", ("step",): "scalar"}


def tree(leaves: dict[tuple[str, ...], str] | None = None, **more: Any) -> str:
    rows = {}
    for keys, kind in (leaves or LEAVES).items():
        path = [{"key": k, "key_type": 2} for k in keys]
        rows[str(keys)] = {
            "key_metadata": path,
            "value_metadata": {"value_type": kind, "skip_deserialize": kind == "None"},
        }
    return json.dumps({"tree_metadata": rows, "use_zarr3": False, "custom_metadata": None} | more)


def zarr(folder: Path, name: str, dtype: str, shape: list[int], three: bool = False) -> None:
    inner = folder / name
    inner.mkdir(parents=True)
    if three:
        said: dict[str, Any] = {"zarr_format": 3, "node_type": "array", "shape": shape, "data_type": dtype}
    else:
        said = {"zarr_format": 2, "shape": shape, "chunks": shape, "dtype": dtype, "compressor": {"id": "zstd"}}
    (inner / ("zarr.json" if three else ".zarray")).write_text(json.dumps(said))
    (inner / "0.0").write_bytes(b"compressed")


def test_arrays_in_folders_of_their_own_are_told_in_full(tmp_path: Path) -> None:
    (tmp_path / "_METADATA").write_text(tree({**LEAVES, ("empty",): "None"}))
    zarr(tmp_path, "params.dense.kernel", "<f4", [3, 5])
    zarr(tmp_path, "params.dense.bias", "bfloat16", [5])
    header = read_orbax(tmp_path)
    assert header.format == "orbax"
    assert {k: (t.dtype, t.shape, t.nbytes, t.offset) for k, t in header.tensors.items()} == {
        "params.dense.bias": ("BF16", (5,), 10, -1), "params.dense.kernel": ("F32", (3, 5), 60, -1),
    }  # fmt: skip
    says = header.metadata
    assert says["names"] == ["params.dense.kernel", "params.dense.bias", "step"] and says["layout"] == "zarr"
    assert says["told"] and says["training_state"] == ["step"] and says["faults"] == []


def test_zarr_3_and_nested_folders_are_read(tmp_path: Path) -> None:
    zarr(tmp_path / "target", "decoder/kernel", "float16", [2, 2], three=True)
    zarr(tmp_path / "target", "decoder.bias", "int8", [2], three=True)
    (tmp_path / "target" / "_METADATA").write_text(tree({("decoder", "kernel"): "np.ndarray"}))
    header = read_orbax(tmp_path)
    assert {k: t.dtype for k, t in header.tensors.items()} == {"decoder.bias": "I8", "decoder.kernel": "F16"}
    assert header.metadata["layout"] == "zarr3" and header.metadata["items"] == ["target"]


def test_the_newest_step_is_read_with_its_items(tmp_path: Path) -> None:
    for step in (900, 1000):
        for item in ("params", "opt_state"):
            zarr(tmp_path / str(step) / item, "w", "<f4", [step])
            (tmp_path / str(step) / item / "_METADATA").write_text(tree({("w",): "jax.Array"}))
        (tmp_path / str(step) / "_CHECKPOINT_METADATA").write_text(json.dumps({"item_handlers": {"params": "H"}}))
    (tmp_path / "2000.orbax-checkpoint-tmp-1").mkdir()
    header = read_orbax(tmp_path)
    assert header.metadata["step"] == 1000 and header.metadata["items"] == ["opt_state", "params"]
    assert {k: t.shape for k, t in header.tensors.items()} == {"opt_state.w": (1000,), "params.w": (1000,)}
    assert header.metadata["training_state"] == ["opt_state.w"] and header.metadata["handlers"] == {"params": "H"}


def unpacked(name: str, folder: Path) -> Path:
    with zipfile.ZipFile(DATA / name) as archive:
        archive.extractall(folder)
    return folder


def test_what_orbax_wrote_is_told_in_full(tmp_path: Path) -> None:
    """data/orbax.zip: orbax-checkpoint 0.12.8, CheckpointManager, step 20, items params and opt, each an OCDBT."""
    header = read_orbax(unpacked("orbax.zip", tmp_path))
    layers = {f"params.layers.{i}.kernel": ("BF16", (8, 16)) for i in range(12)}
    layers |= {f"params.layers.{i}.bias": ("F32", (16,)) for i in range(12)}
    layers |= {"params.emb.table": ("F8_E4M3", (100, 8)), "params.ids": ("I32", (5,)), "opt.mu": ("F32", (3, 4))}
    assert {k: (t.dtype, t.shape) for k, t in header.tensors.items()} == layers
    says = header.metadata
    assert says["told"] and says["step"] == 20 and says["layout"] == "ocdbt" and says["faults"] == []
    assert set(says["names"]) == set(layers) and says["training_state"] == ["opt.mu"]


def test_a_tree_of_several_levels_is_walked_past_the_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """data/ocdbt.zip: tensorstore 0.1.86, nodes of 600 bytes, 60 arrays of 12 chunks."""
    visits = []
    walk = Ocdbt._walk
    monkeypatch.setattr(Ocdbt, "_walk", lambda self, *a: visits.append(a[3]) or walk(self, *a))
    header = read_orbax(unpacked("ocdbt.zip", tmp_path))
    assert {k: t.shape for k, t in header.tensors.items()} == {f"layer{i:02d}.w": (i + 1, 3) for i in range(60)}
    assert max(visits) >= 1


def test_an_ocdbt_that_cannot_be_read_still_tells_names(tmp_path: Path) -> None:
    folder = unpacked("orbax.zip", tmp_path) / "20" / "params"
    (folder / "manifest.ocdbt").write_bytes(b"\x0c\xdb\x3a\x2a" + bytes(40))
    header = read_orbax(folder)
    says = header.metadata
    assert dict(header.tensors) == {} and says["told"] is False and "OCDBT" in says["faults"][0]
    assert "layers.3.kernel" in says["names"] and says["write_shapes"]["layers.3.kernel"] == [8, 16]


def test_zstandard_agrees_with_the_library() -> None:
    cramjam = pytest.importorskip("cramjam", reason="cramjam compresses what is decompressed here")
    dice = random.Random(0)
    texts = [b"", b"a", b"a" * 100_000, Path(__file__).read_bytes() * 3, dice.randbytes(3000)]
    texts.append(bytes(int(dice.gauss(100, 12)) & 255 for _ in range(30_000)))
    texts.append(b"".join(b"params.layers_%d.kernel/.zarray" % i for i in range(3000)))
    for raw in texts:
        for level in (1, 3, 9, 19):
            packed = bytes(cramjam.zstd.compress(raw, level))
            assert unzstd(packed, len(raw)) == raw
            if raw:
                with pytest.raises(ValueError):
                    unzstd(packed, len(raw) - 1)
        for bad in spoilt(packed, 60):
            with suppress(ValueError, IndexError):
                assert len(unzstd(bad, 2**20)) <= 2**20


def test_a_missing_array_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "_METADATA").write_text(tree())
    zarr(tmp_path, "params.dense.kernel", "<f4", [3, 5])
    assert "lacks 1 of its 3 arrays ('params.dense.bias'" in read_orbax(tmp_path).metadata["faults"][0]


@pytest.mark.parametrize("text", ["{}", "[]", "{", '{"dtype": "<f4", "shape": [-1]}', '{"dtype": "|O", "shape": [1]}'])
def test_an_array_that_is_none_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / ".zarray").write_text(text)
    with pytest.raises(CheckpointError, match=".zarray"):
        read_orbax(tmp_path)


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="Orbax"):
        read_orbax(tmp_path)


def test_damage_is_met_with_our_errors_alone(tmp_path: Path) -> None:
    zarr(tmp_path / "item", "w", "<f4", [2])
    (tmp_path / "item" / "_METADATA").write_text(tree())
    for name in ("_METADATA", "w/.zarray"):
        file = tmp_path / "item" / name
        assert only_our_errors(read_orbax, file, file.read_bytes(), 300, tmp_path) > 50
    folder = unpacked("orbax.zip", tmp_path / "db") / "20" / "params"
    files = [p for p in folder.rglob("*") if p.is_file() and p.stat().st_size < 2000]
    for file in files:
        only_our_errors(read_orbax, file, file.read_bytes(), 60, folder)


def test_a_checkpoint_in_an_archive_is_told_as_on_the_disk(tmp_path: Path) -> None:
    from brolly.checkpoint.archives import open_archive

    inside, unpacked_ = read_orbax(open_archive(DATA / "orbax.zip")), read_orbax(unpacked("orbax.zip", tmp_path))
    assert {k: t.shape for k, t in inside.tensors.items()} == {k: t.shape for k, t in unpacked_.tensors.items()}
    assert inside.metadata == unpacked_.metadata and len(inside.tensors) == 27
