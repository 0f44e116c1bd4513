"""Batches over blocks against each sequence alone."""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from brolly.configs import Rope
from brolly.engine.cache import Causal
from brolly.engine.pages import BLOCK, Pages, Stretch
from tests.kernels.test_decoder import NETWORKS, VOCABULARY, llama

MIXED = {
    **NETWORKS,
    "llama3": lambda: llama(rope=Rope(kind="llama3", factor=8.0, original_context=64)),
    "linear": lambda: llama(rope=Rope(kind="linear", factor=2.0)),
}
WINDOWS = {"all layers": (40, 33), "short": (1, 7)}


def texts(*lengths: int) -> list[list[int]]:
    draw = random.Random(sum(lengths))
    return [[draw.randrange(VOCABULARY) for _ in range(n)] for n in lengths]


def alone(network: nn.Module, ids: Sequence[int]) -> Tensor:
    """Logits (T, V) of a whole text, by torch with nothing kept."""
    given = torch.tensor([ids])
    with torch.inference_mode():
        return network.logits(network(given, torch.arange(len(ids))[None], Causal(network.config)))[0].float()


class Sequences:
    """Texts that pass through Pages in pieces, each in blocks drawn at random."""

    def __init__(self, pages: Pages, given: Sequence[Sequence[int]], seed: int = 0) -> None:
        self.pages, self.texts, self.at = pages, given, [0] * len(given)
        self.draw = random.Random(seed)
        self.free = list(range(pages.n_blocks))
        self.draw.shuffle(self.free)
        self.blocks: list[list[int]] = [[] for _ in given]

    def stretch(self, i: int, n: int, *, logits: bool = True) -> Stretch:
        start, self.at[i] = self.at[i], self.at[i] + n
        while len(self.blocks[i]) * BLOCK < self.at[i]:
            self.blocks[i].append(self.free.pop())
        return Stretch(self.texts[i][start : start + n], start, self.blocks[i], logits)

    def run(self, most: int, check: Callable[[int, int, Tensor], None]) -> None:
        """Everything, in passes that mix prompts' pieces of up to `most` tokens and single tokens."""
        while any(a < len(t) for a, t in zip(self.at, self.texts, strict=True)):
            part, rows = [], []
            for i, text in enumerate(self.texts):
                left = len(text) - self.at[i]
                if left and self.draw.random() < 0.8:
                    n = 1 if self.draw.random() < 0.5 else min(left, self.draw.randint(1, most))
                    wants = self.draw.random() < 0.7
                    part.append(self.stretch(i, n, logits=wants))
                    rows += [(i, self.at[i] - 1)] * wants
            if part:
                logits = self.pages.forward(part)
                assert logits.shape == (len(rows), VOCABULARY) and logits.dtype == torch.float32
                assert list(self.pages.likeliest) == logits.argmax(-1).tolist()
                for (i, position), row in zip(rows, logits, strict=True):
                    check(i, position, row)


@pytest.mark.parametrize("name", MIXED)
def test_batches_equal_each_sequence_alone(name: str) -> None:
    network, given = MIXED[name](), texts(1, 70, 33, 130, 64, 5)
    expected = [alone(network, ids) for ids in given]

    def check(i: int, position: int, row: Tensor) -> None:
        torch.testing.assert_close(row, expected[i][position], atol=1e-5, rtol=1e-4)

    Sequences(Pages(network, 16), given).run(50, check)


@pytest.mark.parametrize("windows", WINDOWS.values(), ids=WINDOWS)
def test_blocks_behind_every_window_may_be_gone(windows: tuple[int, int]) -> None:
    network, (ids,) = llama(windows=windows), texts(200)
    expected, pages = alone(network, ids), Pages(network, 8)
    each = Sequences(pages, [ids])
    for n in (60, 1, 1, 38, *[1] * 30, 40, 30):
        stretch = each.stretch(0, n)
        gone = max(0, stretch.start + 1 - max(windows)) // BLOCK
        for i in range(gone):
            if (block := stretch.blocks[i]) >= 0:
                pages.keys[:, :, block] = pages.values[:, :, block] = 1e4  # another's by now
                stretch.blocks[i] = -1
        row = pages.forward([stretch])[0]
        torch.testing.assert_close(row, expected[each.at[0] - 1], atol=1e-5, rtol=1e-4)


def test_dynamic_rope_goes_by_each_sequences_own_length() -> None:
    network = llama(rope=Rope(kind="dynamic", factor=2.0, original_context=16))
    given = texts(10, 40, 25)
    each = Sequences(Pages(network, 8), given)
    ours = each.pages.forward([each.stretch(i, len(ids)) for i, ids in enumerate(given)])
    expected = torch.stack([alone(network, ids)[-1] for ids in given])
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-4)


def test_a_broken_sequence_stays_broken_and_does_not_touch_the_next_in_its_blocks() -> None:
    network, given = llama(windows=(40, None)), texts(45, 45, 20)
    given[0][3], given[1], given[2] = 149, [i % 149 for i in given[1]], [i % 149 for i in given[2]]
    expected = [alone(network, ids) for ids in given]
    pages = Pages(network, 4)
    network.model.embed_tokens.weight.data[149] = torch.nan
    for blocks in ([0, 1], [2, 3]):
        rows = pages.forward([Stretch(given[0][:44], 0, blocks)])
        assert rows.isnan().all()
        assert pages.forward([Stretch(given[0][44:], 44, blocks)]).isnan().all()
    for n in (40, 1, 4):
        start = {40: 0, 1: 40, 4: 41}[n]
        row = pages.forward([Stretch(given[1][start : start + n], start, [3, 0]), Stretch(given[2][:5], 0, [1])])[0]
        torch.testing.assert_close(row, expected[1][start + n - 1], atol=1e-5, rtol=1e-4)


def test_a_copied_block_goes_its_own_way() -> None:
    network, (first, other) = llama(), texts(40, 50)
    other[:36] = first[:36]
    pages = Pages(network, 8)
    pages.forward([Stretch(first, 0, [5, 2])])
    pages.copy([(2, 7)])
    both = pages.forward([Stretch(other[36:], 36, [5, 7]), Stretch(first[39:], 39, array("i", [5, 2]))])
    expected = torch.stack([alone(network, other)[-1], alone(network, first)[-1]])
    torch.testing.assert_close(both, expected, atol=1e-5, rtol=1e-4)


def test_a_block_takes_what_is_told() -> None:
    network = llama()
    pages = Pages(network, 8)
    assert Pages.block_bytes(network) * 8 == pages.keys.nbytes + pages.values.nbytes
