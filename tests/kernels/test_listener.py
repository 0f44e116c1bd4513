"""Whisper's fused decoder against the same network run by torch, in float32 and no worse than torch's in bfloat16."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from brolly import models
from brolly.configs import StackConfig, WhisperConfig
from brolly.engine.listen import Listener
from brolly.kernels.listener import Listening, library
from tests.kernels.test_decoder import filled

LIBRARY = library()
compiled = pytest.mark.skipif(isinstance(LIBRARY, str), reason=f"no kernels: {LIBRARY}")
VOCABULARY = 151  # not a multiple of the rows that a product takes at once


def whisper(
    dim: int = 128, n_heads: int = 2, hidden_dim: int = 320, places: int = 75, tied_head: bool = True
) -> nn.Module:
    encoder = StackConfig(dim=dim, n_layers=1, n_heads=n_heads, hidden_dim=64, act="gelu", norm_eps=1e-5)
    return filled(
        models.build(WhisperConfig(encoder, 20, places, VOCABULARY, 120, 3, n_heads, hidden_dim, tied_head=tied_head))
    )


def written(network: nn.Module, fused: bool, *, windows: int, rows: int, prompt: int, steps: int = 6) -> Tensor:
    """Logits of a prompt and of steps behind it, with rows that change places, one that grows the cache and a fork."""
    draw = torch.Generator().manual_seed(windows + rows)
    listener = Listener(network)
    if fused:
        assert isinstance(listener.fused, Listening), listener.fused
    else:
        listener.__dict__["fused"] = "not in this test"
    config = network.config
    mels = torch.randn(windows, config.n_mels, 2 * config.audio_context, generator=draw)
    ids = torch.randint(VOCABULARY, (windows, prompt), generator=draw)
    writing = listener.begin(listener.hear(mels), ids.tolist(), rows)
    told = [writing.prompt_logits(), writing.prompt_logits(0)]
    for _ in range(steps):
        told.append(writing.step(torch.randint(VOCABULARY, (windows * rows,), generator=draw)))
        order = torch.randint(rows, (windows, rows), generator=draw) + rows * torch.arange(windows)[:, None]
        writing.reorder(order.flatten().tolist())
    if windows > 1:
        writing.keep(range(1, windows))
        told.append(writing.step(torch.randint(VOCABULARY, ((windows - 1) * rows,), generator=draw)))
    return torch.cat(told)


SHAPES = {
    "greedy": dict(windows=1, rows=1, prompt=4),
    "five beams": dict(windows=1, rows=5, prompt=4),
    "windows of beams": dict(windows=3, rows=5, prompt=3),
    "more rows than registers": dict(windows=2, rows=7, prompt=2),
    "a long prompt": dict(windows=2, rows=2, prompt=70, steps=40),
}
NETWORKS = {
    "plain": dict(),
    "heads of 32": dict(dim=96, n_heads=3),
    "heads of 128, own head": dict(dim=128, n_heads=1, tied_head=False),
    "one place": dict(places=1),
}


@compiled
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", NETWORKS)
def test_float32_equals_torch(name: str, shape: str, threads: int = 1) -> None:
    network = whisper(**NETWORKS[name])
    expected = written(network, False, **SHAPES[shape])
    torch.set_num_threads(threads)
    torch.testing.assert_close(written(network, True, **SHAPES[shape]), expected, atol=2e-5, rtol=1e-4)


@compiled
def test_threads_share_the_work() -> None:
    for threads in (2, 3):
        test_float32_equals_torch("plain", "windows of beams", threads)


@compiled
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", NETWORKS)
def test_bfloat16_is_no_worse_than_torch(name: str, shape: str) -> None:
    halves = whisper(**NETWORKS[name]).to(torch.bfloat16)
    exact = written(copy.deepcopy(halves).float(), False, **SHAPES[shape])
    ours, torchs = ((written(halves, fused, **SHAPES[shape]) - exact).abs() for fused in (True, False))
    assert ours.mean() <= 1.1 * torchs.mean() and ours.max() <= 1.5 * torchs.max()


@compiled
def test_rows_of_a_batch_are_as_alone() -> None:
    """Sums do not depend on who else is there, so that a beam's text does not depend on the batch."""
    for network in (whisper(), whisper().to(torch.bfloat16)):
        listener = Listener(network)
        heard = listener.hear(torch.randn(4, 20, 150))
        together = listener.begin(heard, [1, 2, 3])
        logits = together.step(torch.tensor([5, 6, 7, 8]))
        for i in range(4):
            alone = listener.begin(heard.keep([i]), [1, 2, 3])
            assert torch.equal(alone.step(torch.tensor([5 + i]))[0], logits[i])


@compiled
def test_moved_weights_give_the_same() -> None:
    network = whisper()
    fused = Listener(network).fused
    before = fused.logits(torch.ones(2, 128))
    old = network.decoder.embed_tokens.weight.data
    new = old.clone()
    fused.move(old, new)
    old.zero_()
    assert torch.equal(fused.logits(torch.ones(2, 128)), before)


@compiled
def test_what_the_kernel_does_not_take_runs_by_torch() -> None:
    for network, reason in (
        (whisper(dim=80, n_heads=5), "multiples of 32"),
        (whisper().half(), "float16"),
        (whisper(dim=160, n_heads=1), "160 dimensions"),
    ):
        listener = Listener(network)
        assert reason in listener.fused
        assert listener.begin(listener.hear(torch.randn(1, 20, 150)), [1, 2]).step(torch.tensor([3])).shape == (
            1,
            VOCABULARY,
        )


@compiled
def test_a_token_outside_the_vocabulary_is_refused() -> None:
    listener = Listener(whisper())
    for token in (-1, VOCABULARY):
        with pytest.raises(IndexError, match="outside the vocabulary"):
            listener.begin(listener.hear(torch.randn(1, 20, 150)), [token])
