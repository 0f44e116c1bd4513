"""Blocks by hand against the blocks themselves: outputs and every gradient, in float32 and in bfloat16."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from statistics import geometric_mean
from typing import Any

import pytest
import torch
from torch import Tensor

from brolly.configs import LlamaConfig, Rope
from brolly.engine.cache import Causal, DenseCache
from brolly.kernels import tuning
from brolly.layers.quantized import NF4Linear
from brolly.models.llama import Llama
from brolly.train.tuning.lora import LoraLinear, put_in
from brolly.train.tuning.packing import Packed, positions
from brolly.train.tuning.quick import LAYERS, QuickBlock, quicken
from brolly.verbs import Lora

LLAMA = LlamaConfig(
    97, 64, 2, 4, 2, 32, 96, 1e-5, 128, Rope(), (None, None), tied_head=True, qkv_bias=False, o_bias=False,
    mlp_bias=False, qk_norm=False,
)  # fmt: skip
CONFIGS = {
    "Llama's": LLAMA,
    "Qwen2's": LLAMA._replace(qkv_bias=True),
    "Qwen3's": LLAMA._replace(qk_norm=True, tied_head=False),
    "biases everywhere": LLAMA._replace(qkv_bias=True, o_bias=True, mlp_bias=True),
    "Mistral's": LLAMA._replace(windows=(9, None), n_kv_heads=4),
    "widths that fill no vector": LLAMA._replace(dim=60, n_heads=3, n_kv_heads=1, head_dim=20, hidden_dim=44),
}
LENGTHS = [40, 1, 17, 25]
TARGETS = {
    "all": (),
    "q and v": ("q_proj", "v_proj"),
    "down alone": ("down_proj",),
    "k, o and up": ("k_proj", "o_proj", "up_proj"),
}


def network(
    config: LlamaConfig, targets: Sequence[str] = (), dtype: torch.dtype = torch.float32, seed: int = 5, **lora: Any
) -> Llama:
    """Random weights, and a LoRA whose B is not zero."""
    draw, made = torch.Generator().manual_seed(seed), Llama(config)
    for name, p in made.named_parameters():
        noise = torch.randn(p.shape, generator=draw)
        p.data = 0.5 * noise * p.shape[-1] ** -0.5 if p.dim() > 1 else 0.3 * noise + ("norm" in name)
    put_in(made.to(dtype), Lora(rank=4, targets=tuple(targets), **lora))
    for layer in made.modules():
        if isinstance(layer, LoraLinear):
            layer.lora_A.data = 0.1 * torch.randn(layer.lora_A.shape, generator=draw)
            layer.lora_B.data = 0.1 * torch.randn(layer.lora_B.shape, generator=draw)
    return made.train()


def passed(made: Llama, batch: int = 0) -> dict[str, Tensor]:
    """Hidden states and the gradient of everything that trains; `batch`: rows of 30 tokens instead of a packed one."""
    draw, n = torch.Generator().manual_seed(6), sum(LENGTHS)
    shape = (batch, 30) if batch else (1, n)
    ids = torch.randint(made.config.vocab_size, shape, generator=draw)
    places = torch.arange(30).expand(batch, -1) if batch else positions(LENGTHS)
    out = made(ids, places, Causal(made.config) if batch else Packed(made.config, LENGTHS))
    trained = {name: p for name, p in made.named_parameters() if p.requires_grad}
    grads = torch.autograd.grad(out, list(trained.values()), torch.randn(out.shape, generator=draw).to(out.dtype))
    return {"hidden": out.detach(), **dict(zip(trained, grads, strict=True))}


def off(found: dict[str, Tensor], exact: dict[str, Tensor]) -> dict[str, float]:
    """How far each tensor is from what it should be, over that one's size."""
    assert list(found) == list(exact)
    return {n: float((found[n].double() - exact[n].double()).norm() / exact[n].double().norm()) for n in exact}


def check(made: Llama, batch: int = 0, checkpoint: bool = False) -> None:
    """Both are as far from float64 as float32 puts them: about 1e-6."""
    exact, plain = passed(copy.deepcopy(made).double(), batch), passed(made, batch)
    assert quicken(made, checkpoint).startswith("blocks by hand")
    ours, theirs = off(passed(made, batch), exact), off(plain, exact)
    assert max(ours.values()) < 1e-5 and sum(ours.values()) < 1.6 * sum(theirs.values()), (ours, theirs)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_every_gradient_is_the_blocks_own_in_float32(config: LlamaConfig) -> None:
    check(network(config))


@pytest.mark.parametrize("targets", TARGETS.values(), ids=TARGETS)
def test_any_layers_may_be_adapted(targets: tuple[str, ...]) -> None:
    check(network(LLAMA, targets))


def test_a_block_that_keeps_its_input_alone_gives_the_same_gradients() -> None:
    check(network(CONFIGS["Qwen3's"]), checkpoint=True)


def test_a_base_in_four_bits_is_unpacked_as_it_is_needed() -> None:
    made = network(LLAMA)
    for layer in [m for m in made.modules() if isinstance(m, LoraLinear)]:
        layer.base = NF4Linear.of(layer.base)
    plain = passed(made)
    assert quicken(made).startswith("blocks by hand")
    far = off(passed(made), plain)
    assert max(far.values()) < 1e-5, far


def test_rows_side_by_side_train_as_before() -> None:
    check(network(LLAMA), batch=3)


def test_without_the_kernel_torch_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "library", lambda: "none here")
    check(network(CONFIGS["Qwen3's"]))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_bfloat16_is_as_near_to_float32_as_the_blocks_themselves(config: LlamaConfig) -> None:
    ratios = []
    for seed in range(4):
        made = network(config, dtype=torch.bfloat16, seed=seed)
        exact = passed(copy.deepcopy(made).float())
        theirs = off(passed(made), exact)
        quicken(made)
        ratios += [a / b for a, b in zip(off(passed(made), exact).values(), theirs.values(), strict=True)]
    assert geometric_mean(ratios) < 1.1  # a single draw may be unlucky; 0.9 is the rule


@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_rerun_on_two_threads_gives_the_same_bits(checkpoint: bool) -> None:
    made, before = network(LLAMA, dtype=torch.bfloat16), torch.get_num_threads()
    kept = network(LLAMA, dtype=torch.bfloat16)
    quicken(made, checkpoint), quicken(kept)
    torch.set_num_threads(2)
    try:
        first = passed(kept)
        assert all(map(torch.equal, passed(made).values(), first.values()))
    finally:
        torch.set_num_threads(before)


def test_names_stay_as_they_were_and_a_layer_that_rests_adds_nothing() -> None:
    made = network(LLAMA)
    names = list(dict(made.named_parameters()))
    quicken(made)
    assert list(dict(made.named_parameters())) == names
    for layer in made.modules():
        if isinstance(layer, LoraLinear):
            layer.active = False
    ids, where = torch.arange(9)[None], (torch.arange(9)[None], Causal(LLAMA))
    found, base = made(ids, *where), Llama(LLAMA)
    base.load_state_dict({n.replace(".base", ""): p for n, p in made.state_dict().items() if "lora" not in n})
    torch.testing.assert_close(found, base(ids, *where), rtol=1e-5, atol=1e-5)


def test_a_network_that_writes_meanwhile_passes_as_before() -> None:
    made, ids = network(LLAMA), torch.arange(9)[None]
    expected = made(ids, torch.arange(9)[None], Causal(LLAMA))
    quicken(made)
    cache = DenseCache(LLAMA, 1, 16, torch.float32, torch.device("cpu"))
    cache.begin(torch.arange(9)[None])
    torch.testing.assert_close(made(ids, torch.arange(9)[None], cache), expected, rtol=1e-5, atol=1e-5)


def test_autocast_is_left_to_the_blocks_themselves() -> None:
    made = network(LLAMA)
    with torch.autocast("cpu", torch.bfloat16):
        plain = passed(made)
        quicken(made)
        assert all(map(torch.equal, passed(made).values(), plain.values()))


@pytest.mark.parametrize(
    ("lora", "why"), [({"dora": True}, "DoRA"), ({"dropout": 0.1}, "dropout")], ids=["DoRA", "dropout"]
)
def test_what_trains_otherwise_is_said_and_left_alone(lora: dict[str, Any], why: str) -> None:
    made = network(LLAMA, **lora)
    assert why in (told := quicken(made)) and told.startswith("torch")
    assert not any(isinstance(module, QuickBlock) for module in made.modules())


def test_full_tuning_is_left_to_torch_even_if_it_begins_later() -> None:
    made = network(LLAMA)
    quicken(made)
    made.model.layers[1].mlp.up_proj.base.weight.requires_grad_(True)
    found = passed(made)
    assert found["model.layers.1.mlp.up_proj.base.weight"].any()
    assert quicken(made) == "torch: weights of the base train too"


def test_a_network_of_another_kind_is_told() -> None:
    assert "Linear" in quicken(torch.nn.Linear(2, 2))
    assert len(LAYERS) == 7
