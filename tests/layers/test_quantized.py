"""Weights in 4 bits: equal to bitsandbytes, in numbers and in files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import brolly
from brolly.checkpoint import write_safetensors
from brolly.errors import CheckpointError
from brolly.kernels import nf4 as kernel
from brolly.layers.quantized import NF4Linear, dynamic_levels, from_parts, pack, to_parts, unpack

SHAPES = [(96, 128), (7, 10), (333, 100)]


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_numbers_are_bitsandbytes(shape: tuple[int, int], double: bool) -> None:
    bnb: Any = pytest.importorskip("bitsandbytes.functional", reason="bitsandbytes is not installed")
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 0.02
    theirs, state = bnb.quantize_4bit(weight, quant_type="nf4", compress_statistics=double)
    ours = pack(weight, double=double)
    assert torch.equal(ours.codes, theirs.flatten()[: len(ours.codes)])
    exact = torch.equal(ours.magnitudes, state.absmax)
    # a magnitude that lies between two of 256 levels may fall to either side: both are as near
    torch.testing.assert_close(unpack(ours), bnb.dequantize_4bit(theirs, state), rtol=0, atol=0 if exact else 1e-3)
    if double:
        assert torch.equal(dynamic_levels(), state.state2.code)
        assert float(state.offset) == pytest.approx(ours.offset, rel=1e-6)
        same = ours._replace(magnitudes=state.absmax, outer=state.state2.absmax, offset=float(state.offset))
        torch.testing.assert_close(unpack(same), bnb.dequantize_4bit(theirs, state), rtol=0, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [*SHAPES, (256, 512)])
def test_the_kernel_unpacks_as_torch(shape: tuple[int, int], dtype: torch.dtype, monkeypatch: Any) -> None:
    packed = pack(torch.randn(shape))
    by_kernel = unpack(packed, dtype)
    monkeypatch.setattr(kernel, "unpack", lambda *_: None)
    assert torch.equal(by_kernel, unpack(packed, dtype))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_kernel_packs_as_torch(shape: tuple[int, int], monkeypatch: Any) -> None:
    weight = torch.randn(shape).bfloat16()
    weight[0] = 0
    by_kernel = pack(weight)
    monkeypatch.setattr(kernel, "pack", lambda *_: None)
    by_torch = pack(weight)
    assert torch.equal(by_kernel.codes, by_torch.codes) and torch.equal(by_kernel.magnitudes, by_torch.magnitudes)
    monkeypatch.setattr("brolly.layers.quantized.CHUNK", 64)
    assert torch.equal(pack(weight).codes, by_torch.codes)


def test_zeros_stay_zeros() -> None:
    assert torch.equal(unpack(pack(torch.zeros(4, 32), double=False)), torch.zeros(4, 32))


def test_gradients_pass_and_the_weight_has_none() -> None:
    layer = nn.Linear(64, 32)
    four: Any = NF4Linear.of(layer)
    assert isinstance(four, NF4Linear) and not any(p.requires_grad for p in four.parameters())
    x = torch.randn(5, 64, requires_grad=True)
    four(x).square().sum().backward()
    plain = torch.nn.functional.linear(y := x.detach().clone().requires_grad_(), four.weight, four.bias)
    plain.square().sum().backward()
    assert x.grad is not None and y.grad is not None
    torch.testing.assert_close(x.grad, y.grad)


def test_parts_come_back_whole() -> None:
    packed = pack(torch.randn(20, 100))
    again = from_parts(to_parts(packed, torch.bfloat16))
    assert torch.equal(unpack(again), unpack(packed)) and again.shape == (20, 100)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"shape": [20, 101]}, "codes"), ({"shape": [-1, -1]}, "shape"), ({"blocksize": 0}, "share"),
        ({"blocksize": 32}, "absmax"), ({"nested_offset": float("nan")}, "offset"), ({"nested_blocksize": 1}, "nested"),
    ],
)  # fmt: skip
def test_parts_that_do_not_fit_are_told(change: dict[str, Any], told: str) -> None:
    parts = to_parts(pack(torch.randn(20, 100)), torch.bfloat16)
    state = ".quant_state.bitsandbytes__nf4"
    said = json.loads(bytes(parts[state].tolist())) | change
    parts[state] = torch.frombuffer(bytearray(json.dumps(said).encode()), dtype=torch.uint8)
    with pytest.raises(ValueError, match=told):
        from_parts(parts)


@pytest.fixture(scope="module")
def packed_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Qwen2 that transformers packed by bitsandbytes and saved."""
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=128, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=False,
    )  # fmt: skip
    whole, packed = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("packed")
    network = Qwen2ForCausalLM(config)
    for p in network.parameters():
        p.data.add_(torch.randn_like(p) * 0.05)
    network.to(torch.float32).save_pretrained(whole)
    asked = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    AutoModelForCausalLM.from_pretrained(whole, quantization_config=asked, dtype=torch.float32).save_pretrained(packed)
    return packed


def test_a_checkpoint_in_4_bits_loads_and_computes_as_transformers(packed_model: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = brolly.load(packed_model, dtype="float32")
    ids = list(range(3, 40))
    theirs = AutoModelForCausalLM.from_pretrained(packed_model, dtype=torch.float32)
    theirs = theirs.dequantize().float()  # its own product on a CPU rounds magnitudes to bfloat16
    with torch.no_grad():
        expected = theirs(torch.tensor([ids])).logits[0].log_softmax(-1)
        positions = torch.arange(len(ids))[None]
        from brolly.engine.cache import Causal

        network: Any = model.network
        found = network.logits(network(torch.tensor([ids]), positions, Causal(network.config)))[0].log_softmax(-1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert "torch" in model.describe()  # no kernel takes what it cannot read
    assert brolly.identify(packed_model).parameters.total == sum(p.numel() for p in theirs.parameters())


def test_a_checkpoint_with_a_part_missing_is_told(packed_model: Path, tmp_path: Path) -> None:
    from brolly.checkpoint import Mapped, read_header

    header = read_header(packed_model)
    with Mapped(header) as mapped:
        rows = [
            (name, info.dtype, info.shape, bytes(mapped.buffer(info)))
            for name, info in header.tensors.items()
            if not name.endswith("mlp.up_proj.weight.absmax")
        ]
    write_safetensors(tmp_path / "model.safetensors", rows)
    (tmp_path / "config.json").write_text((packed_model / "config.json").read_text())
    with pytest.raises(CheckpointError, match="4-bit parts of 'model.layers.0.mlp.up_proj.weight'"):
        brolly.load(tmp_path)
