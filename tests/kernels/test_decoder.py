"""The fused steps against the same network run by torch; tiles against float32, and no worse than torch's bfloat16."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from brolly import kernels, models
from brolly.configs import GPT2Config, LlamaConfig, Rope
from brolly.engine import settle
from brolly.engine.cache import DenseCache
from brolly.engine.runner import Runner
from brolly.kernels.decoder import Decoder, library

LIBRARY = library()
compiled = pytest.mark.skipif(isinstance(LIBRARY, str), reason=f"no kernels: {LIBRARY}")
tiles = pytest.mark.skipif(isinstance(LIBRARY, str) or not LIBRARY.brolly_amx(), reason="this processor has no AMX")
VOCABULARY = 150


def llama(**changes: object) -> nn.Module:
    given = dict(
        vocab_size=VOCABULARY, dim=96, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=32, hidden_dim=160, norm_eps=1e-5,
        context=1024, rope=Rope(), windows=(None, None), tied_head=False, qkv_bias=False, o_bias=False,
        mlp_bias=False, qk_norm=False,
    )  # fmt: skip
    return filled(models.build(LlamaConfig(**(given | changes))))


def gpt2(**changes: object) -> nn.Module:
    given = dict(
        vocab_size=VOCABULARY, dim=96, n_layers=2, n_heads=3, head_dim=32, hidden_dim=160, norm_eps=1e-5, context=1024,
        tied_head=True,
    )  # fmt: skip
    return filled(models.build(GPT2Config(**(given | changes))))


def filled(network: nn.Module) -> nn.Module:
    draw = torch.Generator().manual_seed(5)
    for parameter in network.parameters():
        noise = torch.randn(parameter.shape, generator=draw)
        parameter.data = noise * 0.1 if parameter.dim() > 1 else 1 + 0.1 * noise
        parameter.requires_grad_(False)
    return network.eval()


NETWORKS = {
    "plain": lambda: llama(),
    "one key head": lambda: llama(n_kv_heads=1),
    "every head its key": lambda: llama(n_kv_heads=4),
    "windows": lambda: llama(windows=(7, 40)),
    "biases and head norms": lambda: llama(qkv_bias=True, o_bias=True, mlp_bias=True, qk_norm=True),
    "wide heads, tied": lambda: llama(head_dim=64, tied_head=True),
    "yarn": lambda: llama(rope=Rope(kind="yarn", factor=4.0, original_context=64)),
    "gpt2": lambda: gpt2(),
}
ODD = NETWORKS | {"odd sizes": lambda: llama(dim=50, head_dim=10, hidden_dim=33, n_heads=3, n_kv_heads=1)}


def logits(network: nn.Module, ids: Tensor, cuts: list[int], *, fused: bool = True) -> Tensor:
    """Logits after each part of ids (T,) between two cuts: (parts, V)."""
    runner = Runner(network)
    if fused:
        assert isinstance(runner.fused, Decoder), runner.fused
    else:
        runner.fused = "not in this test"
    cache, positions = runner.new_cache(1, 32), torch.arange(len(ids))[None]
    pairs = zip(cuts, cuts[1:], strict=False)
    return torch.cat([runner.forward(ids[None, a:b], positions[:, a:b], cache) for a, b in pairs])


def some_ids(n: int) -> Tensor:
    return torch.randint(0, VOCABULARY, (n,), generator=torch.Generator().manual_seed(n))


@compiled
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("name", ODD)
def test_steps_equal_torch(name: str, threads: int) -> None:
    network, ids, cuts = ODD[name](), some_ids(60), [0, 9, *range(10, 61)]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        ours = logits(network, ids, cuts)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(ours, logits(network, ids, cuts, fused=False), atol=1e-5, rtol=1e-4)


def error(network: nn.Module, ids: Tensor, cuts: list[int], *, fused: bool) -> tuple[float, float]:
    """Mean and largest distance of bfloat16 from float32 with the same weights."""
    halves = copy.deepcopy(network).to(torch.bfloat16)
    exact = logits(copy.deepcopy(halves).float(), ids, cuts, fused=False)
    off = (logits(halves, ids, cuts, fused=fused) - exact).abs()
    return float(off.mean()), float(off.max())


@compiled
@pytest.mark.parametrize("name", ODD)
def test_bfloat16_steps_are_no_worse_than_torch(name: str) -> None:
    network, ids = ODD[name](), some_ids(40)
    ours, torchs = (error(network, ids, list(range(41)), fused=fused) for fused in (True, False))
    assert ours[0] <= torchs[0] and ours[1] <= 1.5 * torchs[1]


@tiles
@pytest.mark.parametrize("cuts", [[0, 2], [0, 33], [0, 16, 64, 65, 100], [0, 300, 301, 517, 800]], ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_blocks_are_no_worse_than_torch(name: str, cuts: list[int]) -> None:
    network, ids = NETWORKS[name](), some_ids(cuts[-1])
    assert Runner(copy.deepcopy(network).to(torch.bfloat16)).fused.takes_blocks
    ours, torchs = (error(network, ids, cuts, fused=fused) for fused in (True, False))
    assert ours[0] <= 1.2 * torchs[0] and ours[1] <= 1.5 * torchs[1]


@compiled
def test_several_callers_share_one_kernel() -> None:
    network, texts = llama(), [some_ids(n) for n in (20, 25, 30, 35)]
    runner = Runner(network)

    def last(ids: Tensor) -> Tensor:
        cache = runner.new_cache(1, 64)
        for i in range(len(ids)):
            out = runner.forward(ids[None, i : i + 1], torch.tensor([[i]]), cache)
        return out

    alone = [last(ids) for ids in texts]
    with ThreadPoolExecutor(4) as pool:
        assert all(map(torch.equal, alone, pool.map(last, texts)))


@compiled
def test_moved_weights_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settle, "LEAST", 0)
    for network in (llama(tied_head=True), gpt2()):
        given = {name: p.data_ptr() for name, p in network.named_parameters()}
        released: list[str] = []
        runner = Runner(network, released.append)
        cache = runner.new_cache(1, 64)
        expected = logits(copy.deepcopy(network), some_ids(40), list(range(41)))
        ours = [runner.forward(i[None, None], torch.tensor([[n]]), cache) for n, i in enumerate(some_ids(40))]
        mover = runner.settler
        assert mover is not None
        mover.join(20)
        torch.testing.assert_close(torch.cat(ours), expected, atol=0, rtol=0)
        assert set(released) == given.keys()
        assert all(p.data_ptr() != given[name] for name, p in network.named_parameters())
        fresh = runner.new_cache(1, 64)
        ours = [runner.forward(i[None, None], torch.tensor([[n]]), fresh) for n, i in enumerate(some_ids(40))]
        torch.testing.assert_close(torch.cat(ours), expected, atol=0, rtol=0)


@compiled
def test_a_token_outside_the_vocabulary_is_refused() -> None:
    runner = Runner(llama())
    for token in (-1, VOCABULARY):
        with pytest.raises(IndexError, match="outside the vocabulary"):
            runner.forward(torch.tensor([[token]]), torch.tensor([[0]]), runner.new_cache())


@compiled
def test_steps_go_on_after_a_fork() -> None:
    """A child of fork has none of its parent's threads; the team must be raised anew."""
    code = (
        "import os, sys, torch\n"
        "from tests.kernels.test_decoder import llama, logits, some_ids\n"
        "torch.set_num_threads(2)\n"
        "here = logits(llama(), some_ids(12), [*range(13)])\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os._exit(0 if torch.equal(here, logits(llama(), some_ids(12), [*range(13)])) else 3)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, timeout=60).returncode == 0


@pytest.mark.parametrize("change", [{"BROLLY_NO_KERNELS": "1"}, {"CC": "/bin/false"}, {"PATH": "/nowhere", "CC": ""}])
def test_without_a_kernel_torch_does_the_work(change: dict[str, str], tmp_path: Path) -> None:
    code = (
        "from brolly import kernels\n"
        "from brolly.engine.runner import Runner\n"
        "from tests.kernels.test_decoder import llama, logits, some_ids\n"
        "print(kernels.status(), '|', Runner(llama()).describe())\n"
        "print(float(logits(llama(), some_ids(5), [0, 3, 4, 5], fused=False).sum()))\n"
    )
    around = os.environ | {"XDG_CACHE_HOME": str(tmp_path)} | change
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=around, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("none: ") and "torch" in first
    expected = float(logits(llama(), some_ids(5), [0, 3, 4, 5], fused=False).sum())
    assert float(second) == pytest.approx(expected, rel=1e-4)


def test_a_folder_that_others_can_write_to_is_not_loaded_from(tmp_path: Path) -> None:
    folder = tmp_path / "brolly" / "kernels"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    code = "from brolly import kernels; print(kernels.status())"
    around = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=around, capture_output=True, text=True, timeout=60)
    assert "written by others" in done.stdout or "no C compiler" in done.stdout
    assert list(folder.iterdir()) == []


def test_the_status_is_one_line() -> None:
    assert kernels.status() and "\n" not in kernels.status()


def test_the_cache_is_read_where_the_kernel_wrote() -> None:
    """A prompt by torch, steps by the kernel, then torch again: one cache serves both."""
    network, ids = llama(), some_ids(30)
    runner, plain = Runner(network), Runner(network)
    plain.fused = "not in this test"
    positions = torch.arange(30)[None]
    cache: DenseCache = runner.new_cache(1, 32)
    for start, end, path in ((0, 10, plain), (10, 11, runner), (11, 12, runner), (12, 29, plain), (29, 30, runner)):
        ours = path.forward(ids[None, start:end], positions[:, start:end], cache)
    expected = logits(network, ids, [0, 30], fused=False)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-4)
