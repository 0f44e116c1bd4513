"""Base and adapter in one: the same logits, in the base's layout, read by transformers; and as llama.cpp's file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from brolly.checkpoint import read_header
from brolly.errors import CheckpointError, OptionError, RecipeError
from brolly.loader import load
from brolly.train.tuning import layout, merge
from brolly.train.tuning.gguf import write_gguf
from brolly.train.tuning.layout import write_adapter
from brolly.train.tuning.lora import put_in
from brolly.train.tuning.merge import rounding
from brolly.verbs import Lora
from tests.train.tuning.bases import WRITE

IDS = torch.tensor([[5, 17, 260, 3, 99, 41, 7]])
KINDS = {
    "llama": Lora(rank=4),
    "tied llama": Lora(rank=3, dora=True),
    "qwen2": Lora(rank=2, rslora=True),
    "gpt2": Lora(rank=4),
}


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path, Any]]:
    """A base, a random adapter, and the logits of both together."""
    pytest.importorskip("transformers")
    folder, found = tmp_path_factory.mktemp("adapted"), {}
    for name, lora in KINDS.items():
        WRITE[name](folder / name)
        model = load(folder / name, device="cpu", dtype="float32", fused=False)
        put_in(model.network, lora)
        torch.manual_seed(0)
        for parameter in model.network.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.1) if parameter.dim() > 1 else parameter.data.mul_(1.2)
        write_adapter(folder / f"{name} a", model.card.recognised, name, lora, model.network, "next-token")
        with torch.no_grad():
            found[name] = folder / name, folder / f"{name} a", logits(model)
    return found


def logits(model: Any) -> torch.Tensor:
    from brolly.engine.cache import Causal

    network = model.network
    return network.logits(network(IDS, torch.arange(IDS.shape[1])[None], Causal(network.config)))


@pytest.mark.parametrize("name", KINDS)
def test_merged_equals_base_and_adapter(adapted: dict[str, Any], name: str, tmp_path: Path) -> None:
    import transformers as T

    base, adapter, expected = adapted[name]
    out = merge(base, adapter, out=tmp_path / "m")
    merged = load(out, device="cpu", dtype="float32")
    with torch.inference_mode():
        torch.testing.assert_close(logits(merged), expected, rtol=1e-5, atol=1e-4)
        reference = T.AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
        torch.testing.assert_close(reference(IDS).logits, expected, rtol=1e-5, atol=1e-4)
    merged.close()
    assert read_header(out).tensors.keys() <= read_header(base).tensors.keys()
    assert (out / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    assert rounding(out) == ""


def test_a_base_in_few_bits_says_that_it_rounds_and_float32_keeps(adapted: dict[str, Any], tmp_path: Path) -> None:
    base, adapter, _ = adapted["llama"]
    few = merge(base, adapter, out=tmp_path / "few", dtype="bfloat16")
    assert "rounded to BF16" in rounding(few) and "--dtype float32" in rounding(few)
    assert {t.dtype for t in read_header(few).tensors.values()} == {"BF16"}
    assert json.loads((few / "config.json").read_text())["dtype"] == "bfloat16"


def test_a_large_model_is_written_in_shards(
    adapted: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, adapter, expected = adapted["llama"]
    monkeypatch.setattr(layout, "SHARD", 60_000)
    out = merge(base, adapter, out=tmp_path / "m")
    assert len(list(out.glob("model-*-of-*.safetensors"))) > 3
    assert not (out / "model.safetensors").exists()
    merged = load(out, device="cpu", dtype="float32")
    with torch.inference_mode():
        torch.testing.assert_close(logits(merged), expected, rtol=1e-5, atol=1e-4)
    merged.close()


def test_cards_stand_beside_the_sum(adapted: dict[str, Any], tmp_path: Path) -> None:
    base, adapter, _ = adapted["qwen2"]
    (base / "README.md").write_text("of the base")
    (adapter / "README.md").write_text("of the adapter")
    (adapter / "generation_config.json").write_text('{"do_sample": false}')
    out = merge(base, adapter, out=tmp_path / "m")
    assert (out / "README.md").read_text() == "of the adapter" and (out / "BASE.md").read_text() == "of the base"
    assert json.loads((out / "generation_config.json").read_text()) == {"do_sample": False}


def test_what_cannot_be_merged_is_told(adapted: dict[str, Any], tmp_path: Path) -> None:
    base, adapter, _ = adapted["llama"]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(RecipeError, match="is not empty"):
        merge(base, adapter, out=tmp_path / "full")
    with pytest.raises(OptionError, match="float64"):
        merge(base, adapter, out=tmp_path / "m", dtype="float64")
    with pytest.raises(CheckpointError, match=r"gpt2 a.*changes 'transformer.h.0.*of .*llama"):
        merge(base, adapted["gpt2"][1], out=tmp_path / "m")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt2"])
def test_gguf_adapters_hold_the_same_products(adapted: dict[str, Any], name: str, tmp_path: Path) -> None:
    """Read by the gguf package: alpha / rank · B A is what is added to each weight, in llama.cpp's order of rows."""
    gguf = pytest.importorskip("gguf")
    from safetensors.torch import load_file

    base, adapter, _ = adapted[name]
    file = gguf.GGUFReader(write_gguf(base, adapter, out=tmp_path / "a.gguf"))
    said = {key: field.contents() for key, field in file.fields.items()}
    assert (said["general.type"], said["adapter.type"]) == ("adapter", "lora")
    assert said["general.architecture"] == name
    found = {t.name: torch.from_numpy(t.data.copy()) for t in file.tensors}
    held = load_file(adapter / "adapter_model.safetensors")
    lora = KINDS[name]
    places = {
        "llama": ("blk.1.attn_q", "base_model.model.model.layers.1.self_attn.q_proj"),
        "qwen2": ("blk.1.attn_q", "base_model.model.model.layers.1.self_attn.q_proj"),
        "gpt2": ("blk.0.attn_qkv", "base_model.model.transformer.h.0.attn.c_attn"),
    }
    ours, theirs = places[name]
    b, a = found[f"{ours}.weight.lora_b"], found[f"{ours}.weight.lora_a"]
    product = said["adapter.lora.alpha"] / lora.rank * b @ a
    expected = lora.scale * held[f"{theirs}.lora_B.weight"] @ held[f"{theirs}.lora_A.weight"]
    if name == "llama":
        from tests.families.layouts import interleave

        expected = interleave(expected, 16)
    torch.testing.assert_close(product, expected, rtol=1e-5, atol=1e-6)
    assert len(found) == len(held)


def test_a_dora_is_no_gguf_adapter(adapted: dict[str, Any], tmp_path: Path) -> None:
    base, adapter, _ = adapted["tied llama"]
    with pytest.raises(CheckpointError, match="DoRA"):
        write_gguf(base, adapter, out=tmp_path / "a.gguf")
    assert not list(tmp_path.iterdir())
