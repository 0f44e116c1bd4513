"""The fused Stack against the Stack in float32, same weights: no worse than torch's bfloat16, and within bounds."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from ctypes import c_int64
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from brolly.configs import Rope, StackConfig
from brolly.engine.encode import FusedStack, accelerate
from brolly.kernels.encoder import library
from brolly.layers.transformer import Spans, Stack

LIBRARY = library()
compiled = pytest.mark.skipif(isinstance(LIBRARY, str), reason=f"no kernel: {LIBRARY}")

PLAIN = StackConfig(96, 2, 3, 160, 1e-5, "gelu")
CONFIGS = {
    "CLIP's": PLAIN._replace(act="quick_gelu"),
    "a causal text's": PLAIN._replace(dim=192, act="gelu_tanh", causal=True),
    "BERT's": PLAIN._replace(post_norm=True),
    "DINOv2's": PLAIN._replace(layer_scale=True, gated=True, act="silu", k_bias=False),
    "ModernBERT's": PLAIN._replace(
        ropes=(Rope(), Rope(theta=160000.0)), windows=(None, 5), first_norm=False, norm_bias=False, mlp_bias=False,
        gated=True, q_bias=False, v_bias=False, o_bias=False,
    ),
    "past windows": PLAIN._replace(act="relu", causal=True, windows=(7, 33), n_heads=6, ropes=(Rope(), None)),
    "SigLIP so400m's heads": PLAIN._replace(dim=288, n_heads=4, hidden_dim=304, act="gelu_tanh"),
    "heads of 80": PLAIN._replace(dim=160, n_heads=2),
    "heads of 128": PLAIN._replace(dim=256, n_heads=2, windows=(300, None)),
}  # fmt: skip
MIXED = (5, 9, 1, 33, 64, 17, 2, 300, 7, 7, 7, 900, 3)
LENGTHS = [(1,), (2,), (31,), (33,), (50,), (197,), (257,), (1500,), MIXED, (50,) * 20, (3,) * 40]


def filled(config: StackConfig) -> Stack:
    """Random numbers in every parameter, in bfloat16; matrices keep a token's size about as it was."""
    draw, stack = torch.Generator().manual_seed(7), Stack(config)
    for name, parameter in stack.named_parameters():
        noise = torch.randn(parameter.shape, generator=draw)
        scaled = noise * parameter.shape[-1] ** -0.5 if parameter.dim() > 1 else 0.3 * noise
        parameter.data = (scaled + ("norm" in name and "weight" in name)).to(torch.bfloat16)
    return stack.eval().requires_grad_(False)


def tokens(n: int, dim: int) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(n)).to(torch.bfloat16)


@torch.inference_mode()
def check(config: StackConfig, lengths: tuple[int, ...]) -> None:
    """The kernel rounds less often than torch does, so its mean error is below torch's; a single one may be unlucky."""
    stack, x, spans = filled(config), tokens(sum(lengths), config.dim), Spans(lengths)
    exact = copy.deepcopy(stack).float()(x.float(), spans)
    ours, torchs = ((path(x, spans).float() - exact).abs() for path in (FusedStack(stack), stack))
    assert ours.mean() <= torchs.mean() and ours.max() <= 1.3 * torchs.max()


@compiled
@pytest.mark.parametrize("name", CONFIGS)
def test_a_fused_stack_is_no_worse_than_torch(name: str) -> None:
    for lengths in LENGTHS:
        check(CONFIGS[name], lengths)


@compiled
@pytest.mark.parametrize("threads", [2, 3])
def test_threads_share_the_work(threads: int) -> None:
    stack, x, spans = filled(CONFIGS["ModernBERT's"]), tokens(sum(MIXED), 96), Spans(MIXED)
    before, fused = torch.get_num_threads(), FusedStack(stack)
    try:
        torch.set_num_threads(1)
        alone = fused(x, spans)
        torch.set_num_threads(threads)
        assert torch.equal(fused(x, spans), alone)
    finally:
        torch.set_num_threads(before)


@compiled
@torch.inference_mode()
def test_sequences_know_nothing_of_each_other() -> None:
    """Beside an endless token: its sequence is lost, the others are bit for bit what they were."""
    for config in (PLAIN, PLAIN._replace(causal=True, windows=(4, None))):
        fused, lengths = FusedStack(filled(config)), (20, 40, 9)
        x, spans = tokens(sum(lengths), config.dim), Spans(lengths)
        broken = x.clone()
        broken[30] = torch.nan
        before, after = fused(x, spans), fused(broken, spans)
        assert torch.equal(before[:20], after[:20]) and torch.equal(before[60:], after[60:])
        assert after[59].isnan().all()


def among_nans(tensor: Tensor) -> Tensor:
    """The same numbers with NaN before and behind them."""
    around = torch.full((tensor.numel() + 4096,), torch.nan, dtype=tensor.dtype)
    middle = around[2048:-2048].view(tensor.shape)
    middle.copy_(tensor)
    return middle


@compiled
@pytest.mark.parametrize("lengths", [(1,), (50,), (33, 16, 7), (257,)], ids=str)
@pytest.mark.parametrize("name", CONFIGS)
@torch.inference_mode()
def test_nothing_is_read_or_written_outside(
    name: str, lengths: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    stack, x, spans = filled(CONFIGS[name]), tokens(sum(lengths), CONFIGS[name].dim), Spans(lengths)
    expected = FusedStack(stack)(x, spans)
    for parameter in stack.parameters():
        parameter.data = among_nans(parameter.data)
    fused, out = FusedStack(stack), among_nans(x)
    n_bytes = fused.encoder.lib.brolly_encode_space(
        fused.encoder._network, (c_int64 * len(lengths))(*lengths), len(lengths)
    )
    space = fused.encoder._space = torch.full((n_bytes + 4096,), 255, dtype=torch.uint8)  # all NaN
    monkeypatch.setattr(torch, "empty_like", lambda _: out)
    assert torch.equal(fused(among_nans(x), spans), expected)
    assert fused.encoder._space is space and (space[-4032:] == 255).all()
    whole = torch.tensor([]).new_empty(0, dtype=torch.bfloat16).set_(out.untyped_storage())
    assert whole[:2048].isnan().all() and whole[-2048:].isnan().all()


@compiled
@torch.inference_mode()
def test_several_callers_share_one_stack() -> None:
    fused = FusedStack(filled(PLAIN))
    given = [(tokens(n, 96), Spans([n])) for n in (20, 25, 130, 35)]
    alone = [fused(x, spans) for x, spans in given]
    with ThreadPoolExecutor(4) as pool:
        assert all(map(torch.equal, alone, pool.map(lambda pair: fused(*pair), given)))


@compiled
@torch.inference_mode()
def test_weights_that_moved_are_read_where_they_are() -> None:
    stack, x, spans = filled(PLAIN), tokens(40, 96), Spans([40])
    fused = FusedStack(stack)
    before = fused(x, spans)
    for parameter in stack.parameters():
        parameter.data, old = parameter.data.clone(), parameter.data
        old.fill_(torch.nan)
    assert torch.equal(fused(x, spans), before)


@compiled
def test_what_the_kernel_does_not_take_runs_by_torch() -> None:
    stack, x, spans = filled(PLAIN), tokens(40, 96), Spans([10, 30])
    fused, leaf = FusedStack(stack), x.clone().requires_grad_()

    def bias(n: int) -> Tensor:
        return torch.ones(3, n, n, dtype=torch.bfloat16).tril()

    with torch.inference_mode():
        assert torch.equal(fused(x, spans, bias), stack(x, spans, bias))
        assert torch.equal(fused(x[:0], Spans([])), x[:0])
    fused(leaf, spans).sum().backward()
    assert leaf.grad is not None


@compiled
def test_networks_keep_their_names_and_say_which_path_they_take() -> None:
    network = nn.ModuleDict({"eye": filled(PLAIN), "text": filled(PLAIN._replace(dim=48, n_heads=6))})
    names = [name for name, _ in network.named_parameters()]
    assert accelerate(network) == "fused C for the blocks, torch (heads of 8 dimensions)"
    assert isinstance(network["eye"], FusedStack) and not isinstance(network["text"], FusedStack)
    assert [name for name, _ in network.named_parameters()] == names
    network["eye"] = filled(PLAIN).float()
    assert "torch (weights in float32" in accelerate(network)


@compiled
def test_amx_tiles_compute_the_same_as_dot_products(tmp_path: Path) -> None:
    """Both kernels, compiled as for AMX, with its tiles modelled in C."""
    here = Path(__file__)
    compiler = tmp_path / "cc"
    compiler.write_text(f'#!/bin/sh\nexec gcc -include {here.with_name("tiles_by_hand.h")} "$@"\n')
    compiler.chmod(0o755)
    code = (
        "from brolly.kernels import decoder\n"
        "from tests.kernels.test_encoder import CONFIGS, LENGTHS, check\n"
        "from tests.kernels.test_decoder import NETWORKS, test_blocks_are_no_worse_than_torch as blocks\n"
        "assert decoder.library().brolly_amx()\n"
        "for config in CONFIGS.values():\n"
        "    for lengths in ((1,), (257,), (5, 9, 1, 33, 64, 17, 2)):\n"
        "        check(config, lengths)\n"
        "for name in NETWORKS:\n"
        "    blocks(name, [0, 16, 65])\n"
    )
    around = os.environ | {"XDG_CACHE_HOME": str(tmp_path), "CC": str(compiler)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=here.parents[2], env=around, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
