"""Many models below a folder, and two beside each other."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from random import Random

import pytest

from brolly.checkpoint import write_safetensors
from brolly.errors import NotFound
from brolly.identity import identify
from brolly.identity.compare import compare, show_comparison
from brolly.identity.tree import models_below, show_tree, survey
from tests.identity.hollow import hollow_files, llama_gguf, llama_shapes, write_hollow
from tests.identity.samples import torch_zip

SHAPES = llama_shapes(64, 2, 32, 128, 100)
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32, "intermediate_size": 128, "vocab_size": 100,
    "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 1e4, "tie_word_embeddings": False,
}  # fmt: skip


def numbers(seed: int) -> dict[str, list[float]]:
    """Weights as training leaves them: norms near one, matrices near nought."""
    rng = Random(seed)
    sizes = {name: shape[0] * (shape[1] if len(shape) > 1 else 1) for name, shape in SHAPES.items()}
    return {
        name: [rng.gauss(0, 0.02) if len(SHAPES[name]) > 1 else 1 + rng.gauss(0, 0.1) for _ in range(size)]
        for name, size in sizes.items()
    }


def write_model(folder: Path, values: dict[str, list[float]], dtype: str = "F32") -> Path:
    folder.mkdir(parents=True)

    def packed(row: list[float]) -> bytes:
        wide = struct.pack(f"<{len(row)}f", *row)
        return wide if dtype == "F32" else b"".join(wide[i + 2 : i + 4] for i in range(0, len(wide), 4))

    write_safetensors(folder / "model.safetensors", [(n, dtype, SHAPES[n], packed(v)) for n, v in values.items()])
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def nudged(values: dict[str, list[float]], by: float, seed: int = 9) -> dict[str, list[float]]:
    rng = Random(seed)
    return {name: [v + rng.gauss(0, by) for v in row] for name, row in values.items()}


def relation(a: Path, b: Path) -> str:
    found = compare(identify(a), identify(b))
    assert json.dumps(found) and show_comparison(found).strip()
    return str(found["relation"])


def test_every_model_is_found_once_and_twins_are_told(tmp_path: Path) -> None:
    write_hollow(tmp_path / "org" / "one", hollow_files(SHAPES, 3, CONFIG))
    write_hollow(tmp_path / "org" / "two", hollow_files(SHAPES, 3, CONFIG))
    (tmp_path / "loose").mkdir()
    llama_gguf(tmp_path / "loose" / "a.gguf", n_vocab=50, n_merges=5)
    torch_zip(tmp_path / "loose" / "b.pt")
    (tmp_path / "loose" / "broken.safetensors").write_bytes(b"no header")
    (tmp_path / "loose" / "notes.txt").write_text("no model")
    rows = survey(str(tmp_path))
    names = [Path(row.path).name for row in rows]
    assert names == ["a.gguf", "b.pt", "broken.safetensors", "one", "two"]
    by_name = dict(zip(names, rows, strict=True))
    assert by_name["two"].duplicate_of == by_name["one"].path and by_name["one"].duplicate_of is None
    assert by_name["broken.safetensors"].error
    assert [f["id"] for f in by_name["broken.safetensors"].json["findings"]] == ["broken-file"]
    text = show_tree(rows)
    assert "5 models" in text and "1 duplicates" in text and "1 with problems" in text


def test_the_rows_of_many_models_come_in_order_from_several_processes(tmp_path: Path) -> None:
    for number in range(40):
        write_hollow(tmp_path / f"m{number:02d}", hollow_files(SHAPES, 1, CONFIG | {"pad_token_id": number}))
    rows = survey(str(tmp_path))
    assert [Path(row.path).name for row in rows] == [f"m{n:02d}" for n in range(40)]
    assert all(row.json["kind"] == "llm" for row in rows)


def test_parts_of_a_model_are_no_models(tmp_path: Path) -> None:
    folder = write_hollow(tmp_path / "m", hollow_files(SHAPES, 3, CONFIG))
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"")
    for name in ("x-00001-of-00002.gguf", "x-00002-of-00002.gguf", "training_args.bin", "net.xml", "net.bin"):
        (tmp_path / name).write_bytes(b"GGUF")
    assert sorted(Path(p).name for p in models_below(tmp_path)) == ["m", "x-00001-of-00002.gguf"]


def test_a_cache_is_its_snapshots(tmp_path: Path) -> None:
    repo = tmp_path / "models--org--name"
    snapshot = write_hollow(repo / "snapshots" / ("a" * 40), hollow_files(SHAPES, 1, CONFIG))
    (repo / "blobs").mkdir()
    (repo / "blobs" / "abc").write_bytes(b"GGUF")
    (row,) = survey(str(tmp_path))
    assert row.path == str(snapshot) and row.json["name"] == "org/name"


def test_a_tree_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="expected a folder that holds models"):
        survey(str(tmp_path / "none"))
    assert survey(str(tmp_path)) == []


def test_what_two_models_are_to_each_other(tmp_path: Path) -> None:
    values = numbers(1)
    base = write_model(tmp_path / "base", values)
    assert relation(base, write_model(tmp_path / "copy", values)) == "identical"
    assert relation(base, write_model(tmp_path / "bf16", values, "BF16")) == "same-weights"
    assert relation(base, write_model(tmp_path / "tuned", nudged(values, 0.004))) == "finetune"
    assert relation(base, write_model(tmp_path / "other", numbers(2))) == "same-architecture"


def test_a_quantisation_keeps_the_norms(tmp_path: Path) -> None:
    values = numbers(1)
    base = write_model(tmp_path / "base", values)
    folder = tmp_path / "gptq"
    folder.mkdir()
    rows: list[tuple[str, str, tuple[int, ...], bytes]] = []
    for name, row in values.items():
        shape = SHAPES[name]
        if "proj" not in name:
            rows.append((name, "F32", shape, struct.pack(f"<{len(row)}f", *row)))
            continue
        stem, (out, into) = name.removesuffix(".weight"), shape
        rows.append((f"{stem}.qweight", "I32", (into // 8, out), bytes(into * out // 2)))
        rows.append((f"{stem}.scales", "F16", (1, out), bytes(2 * out)))
        rows.append((f"{stem}.qzeros", "I32", (1, out // 8), bytes(out // 2)))
        rows.append((f"{stem}.g_idx", "I32", (into,), bytes(4 * into)))
    write_safetensors(folder / "model.safetensors", rows)
    quantised = CONFIG | {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 64}}
    (folder / "config.json").write_text(json.dumps(quantised))
    cards = identify(base), identify(folder)
    assert cards[0].parameters.total == cards[1].parameters.total, "packed numbers are counted as numbers"
    assert relation(base, folder) == "quantized"


def test_an_adapter_fits_its_base_or_not(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", numbers(1))

    def adapter(name: str, width: int) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        stem = "base_model.model.model.layers.0.self_attn.q_proj"
        rows = [(f"{stem}.lora_A.weight", "F32", (4, width), bytes(16 * width))]
        rows.append((f"{stem}.lora_B.weight", "F32", (64, 4), bytes(1024)))
        write_safetensors(folder / "adapter_model.safetensors", rows)
        config = {"peft_type": "LORA", "r": 4, "base_model_name_or_path": "org/base", "target_modules": ["q_proj"]}
        (folder / "adapter_config.json").write_text(json.dumps(config))
        return folder

    assert relation(base, adapter("good", 64)) == "adapter"
    assert relation(base, adapter("bad", 96)) == "unrelated"


def test_without_weights_nothing_is_claimed(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(CONFIG))
    assert relation(tmp_path / "a", tmp_path / "b") == "cannot-tell"
