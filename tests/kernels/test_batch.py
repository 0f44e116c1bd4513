"""Fused batches against the same network run by torch in float32, on the same weights, and against themselves."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from array import array
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from brolly.engine import settle
from brolly.engine.fuse import batched
from brolly.engine.pages import BLOCK, Pages, Stretch
from brolly.engine.runner import Runner
from brolly.kernels.batch import Batch, library
from tests.engine.test_pages import Sequences, alone, texts
from tests.kernels.test_decoder import NETWORKS, VOCABULARY, gpt2, llama, logits, some_ids
from tests.kernels.test_encoder import among_nans

LIBRARY = library()
compiled = pytest.mark.skipif(isinstance(LIBRARY, str), reason=f"no kernel: {LIBRARY}")
SHAPES = NETWORKS | {
    "heads of 80": lambda: llama(head_dim=80, n_heads=6, n_kv_heads=2),
    "heads of 128, one of them wide": lambda: llama(head_dim=128, n_heads=3, n_kv_heads=1, hidden_dim=176),
    "short windows": lambda: llama(windows=(1, 33)),
}


def pages_of(network: nn.Module, n_blocks: int = 16) -> Pages:
    pages = Pages(network, n_blocks)
    assert isinstance(pages.fused, Batch), pages.fused
    return pages


def passed(pages: Pages, given: Sequence[Sequence[int]], most: int, seed: int) -> dict[tuple[int, int], Tensor]:
    """The logits that were wanted, by text and position."""
    found: dict[tuple[int, int], Tensor] = {}
    Sequences(pages, given, seed).run(most, lambda i, at, row: found.__setitem__((i, at), row))
    return found


def check(network: nn.Module, given: Sequence[Sequence[int]], most: int) -> None:
    """The kernel rounds less often than torch does, so its mean error is below torch's."""
    halves = copy.deepcopy(network).to(torch.bfloat16)
    exact, by_torch = ([alone(n, ids) for ids in given] for n in (copy.deepcopy(halves).float(), halves))
    found = passed(pages_of(halves), given, most, 1)
    ours = torch.stack([row - exact[i][at] for (i, at), row in found.items()]).abs()
    torchs = torch.stack([by_torch[i][at] - exact[i][at] for i, at in found]).abs()
    assert ours.mean() <= torchs.mean() and ours.max() <= 1.3 * torchs.max()


@compiled
@pytest.mark.parametrize("name", SHAPES)
def test_batches_are_no_worse_than_torch(name: str) -> None:
    network = SHAPES[name]()
    check(network, texts(1, 70, 33, 130, 64, 5), 50)
    check(network, texts(3, 300), 250)


def same_bits(network: nn.Module, given: Sequence[Sequence[int]]) -> None:
    """However prompts are cut, whoever stands beside, however many threads there are."""
    network = network.to(torch.bfloat16)
    expected = {}
    for i, ids in enumerate(given):
        rows = passed(pages_of(network), [ids], 1, 0) | passed(pages_of(network), [ids], 1, 3)
        expected |= {(i, at): row for (_, at), row in rows.items()}
    before, compared = torch.get_num_threads(), 0
    try:
        for threads, most, seed in ((1, 50, 1), (2, 9, 2), (3, 200, 3)):
            torch.set_num_threads(threads)
            for key, row in passed(pages_of(network, 24), given, most, seed).items():
                if key in expected:
                    assert torch.equal(row, expected[key]), key
                    compared += 1
    finally:
        torch.set_num_threads(before)
    assert compared > 10


@compiled
@pytest.mark.parametrize("name", SHAPES)
def test_a_token_is_the_same_bits_alone_and_in_any_batch(name: str) -> None:
    same_bits(SHAPES[name](), texts(1, 70, 33, 130, 64, 5, 20, 20, 20, 20))


@compiled
@pytest.mark.parametrize("count", [*range(1, 19), 31, 32, 33, 48, 49])
def test_any_number_of_rows(count: int) -> None:
    network = llama(windows=(None, 20)).to(torch.bfloat16)
    given, pages = texts(*(2 + i % 40 for i in range(count))), pages_of(network, 2 * count)
    blocks = [array("i", [2 * i + 1, 2 * i]) for i in range(count)]
    pages.forward([Stretch(ids[:-1], 0, blocks[i], logits=False) for i, ids in enumerate(given)])
    rows = pages.forward([Stretch(ids[-1:], len(ids) - 1, blocks[i]) for i, ids in enumerate(given)])
    assert list(pages.likeliest) == rows.argmax(-1).tolist()
    first, last = (pages_of(network, 2).forward([Stretch(given[i], 0, [1, 0])])[0] for i in (0, -1))
    assert torch.equal(rows[0], first) and torch.equal(rows[-1], last)


@compiled
def test_a_broken_sequence_touches_nobody() -> None:
    network, given = llama(windows=(40, None)).to(torch.bfloat16), texts(45, 45, 20)
    pages = pages_of(network, 6)
    expected = pages.forward([Stretch(given[1], 0, [0, 1]), Stretch(given[2], 0, [2])])
    table = network.model.embed_tokens.weight
    table.data[given[0][3]] = torch.nan
    mixed = [i for i in range(1, 3) if given[0][3] not in given[i]]
    assert mixed, "another text should be drawn"
    rows = pages.forward([Stretch(given[0], 0, [3, 4]), Stretch(given[1], 0, [0, 1]), Stretch(given[2], 0, [2])])
    assert rows[0].isnan().all()
    for i in mixed:
        assert torch.equal(rows[i], expected[i - 1])
        again = pages.forward([Stretch(given[i], 0, [4, 3])])[0]
        assert torch.equal(again, expected[i - 1])


@compiled
def test_what_is_out_of_bounds_is_refused() -> None:
    pages = pages_of(llama(windows=(40, 8), context=256).to(torch.bfloat16), 4)
    for stretch, words in (
        (Stretch([], 0, [0]), "no tokens"),
        (Stretch([1] * 2, 255, [0] * 9), "context"),
        (Stretch([VOCABULARY], 0, [0]), "vocabulary"),
        (Stretch([-1], 0, [0]), "vocabulary"),
        (Stretch([1, 2], 31, [0]), "fewer blocks"),
        (Stretch([1], 0, [4]), "none of the memory"),
        (Stretch([1], 70, [-1, -1, 0]), "freed"),
    ):
        with pytest.raises(IndexError, match=words):
            pages.forward([stretch])
    assert pages.forward([Stretch([1], 72, [-1, 1, 0])]).isfinite().all()
    assert pages.forward([]).shape == (0, VOCABULARY)
    assert pages.forward([Stretch([1, 2], 0, [0], logits=False)]).shape == (0, VOCABULARY)


@compiled
@pytest.mark.parametrize("name", SHAPES)
@torch.inference_mode()
def test_nothing_is_read_or_written_outside(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, given = SHAPES[name]().to(torch.bfloat16), texts(70, 20, 33)
    blocks = ([1, 5, 0], [4], [2, 3])

    def both(pages: Pages) -> Tensor:
        starts = [Stretch(ids[:-1], 0, blocks[i]) for i, ids in enumerate(given)]
        ends = [Stretch(ids[-1:], len(ids) - 1, blocks[i]) for i, ids in enumerate(given)]
        return torch.cat([pages.forward(starts), pages.forward(ends)])

    expected = both(pages_of(network, 6))
    for parameter in network.parameters():
        parameter.data = among_nans(parameter.data)
    pages = pages_of(network, 6)
    pages.keys, pages.values = among_nans(pages.keys), among_nans(pages.values)
    assert isinstance(pages.fused, Batch)
    real, asked = pages.fused.lib.brolly_batch_space, []

    def space(*given: object) -> int:
        asked.append(real(*given))
        pages.fused._space = torch.full((asked[-1] + 4096,), 255, dtype=torch.uint8)
        return asked[-1]

    monkeypatch.setattr(pages.fused, "lib", type("Lib", (), {
        "brolly_batch_space": staticmethod(space), "brolly_batch": pages.fused.lib.brolly_batch,
    }))  # fmt: skip
    assert torch.equal(both(pages), expected)
    assert asked and (pages.fused._space[-4032:] == 255).all()
    for memory in (pages.keys, pages.values):
        whole = memory.new_empty(0).set_(memory.untyped_storage())
        assert whole[:2048].isnan().all() and whole[-2048:].isnan().all() and memory.isfinite().all()


@compiled
def test_one_move_serves_steps_and_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settle, "LEAST", 0)
    for network in (llama(tied_head=True).to(torch.bfloat16), gpt2().to(torch.bfloat16)):
        (ids,) = texts(40)
        expected = pages_of(copy.deepcopy(network), 4).forward([Stretch(ids, 0, [0, 1])])
        steps = logits(copy.deepcopy(network), some_ids(40), list(range(41)))
        released: list[str] = []
        runner = Runner(network, released.append)
        pages = Pages(network, 4, runner.settling)
        pages.forward([Stretch(ids[:1], 0, [2])])
        cache = runner.new_cache(1, 64)
        ours = [runner.forward(i[None, None], torch.tensor([[n]]), cache) for n, i in enumerate(some_ids(40))]
        assert runner.settler is not None
        runner.settler.join(20)
        assert sorted(released) == sorted(name for name, _ in network.named_parameters())
        torch.testing.assert_close(torch.cat(ours), steps, atol=0, rtol=0)
        assert torch.equal(pages.forward([Stretch(ids, 0, [0, 1])]), expected)
        late = Pages(network, 4, runner.settling)
        assert torch.equal(late.forward([Stretch(ids, 0, [0, 1])]), expected)


def test_where_the_kernel_does_not_serve_torch_does_and_says_why() -> None:
    for network, words in (
        (llama(), "float32"),
        (llama(dim=50, head_dim=10, n_heads=3, n_kv_heads=1).to(torch.bfloat16), "heads of 10 dimensions"),
        (llama(dim=80, hidden_dim=100).to(torch.bfloat16), "80 and 100 channels"),
    ):
        pages = Pages(network, 4)
        assert "torch (" in pages.describe()
        assert words in pages.describe() or isinstance(LIBRARY, str)
        assert pages.forward([Stretch([1, 2, 3], 0, [1])]).shape == (1, VOCABULARY)
    with pytest.raises(ValueError, match="float32"):
        batched(llama())


@compiled
def test_amx_tiles_compute_batches_too(tmp_path: Path) -> None:
    """The kernel compiled as for AMX, with its tiles modelled in C."""
    here = Path(__file__)
    compiler = tmp_path / "cc"
    compiler.write_text(f'#!/bin/sh\nexec gcc -include {here.with_name("tiles_by_hand.h")} "$@"\n')
    compiler.chmod(0o755)
    code = (
        "from brolly.kernels.batch import library\n"
        "from tests.engine.test_pages import texts\n"
        "from tests.kernels.test_batch import SHAPES, check, same_bits\n"
        "assert library().brolly_batches()\n"
        "for name in ('every head its key', 'windows', 'biases and head norms', 'gpt2', 'heads of 80'):\n"
        "    check(SHAPES[name](), texts(3, 40, 60), 40)\n"
        "same_bits(SHAPES['windows'](), texts(1, 20, 40))\n"
    )
    around = os.environ | {"XDG_CACHE_HOME": str(tmp_path), "CC": str(compiler)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=here.parents[2], env=around, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_blocks_are_as_long_for_all() -> None:
    from brolly.engine.cache import BLOCK as cached
    from brolly.kernels.batch import BLOCK as fused

    assert BLOCK == cached == fused
