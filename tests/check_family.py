"""What every family must show: written in a publisher's layout it is recognised, loads strictly and computes the same.

`check_language_model` is the shared check for causal language models; a new family calls it with its reference network.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from brolly.checkpoint import Mapped, read_header
from brolly.engine.cache import Causal
from brolly.engine.runner import Runner
from brolly.families import families, recognise
from brolly.fill import fill

CPU = torch.device("cpu")


def check_language_model(
    folder: Path, family: str, reference: Any, *, tolerance: float = 1e-4, n_greedy: int = 64
) -> Any:
    """A checkpoint against its reference in float32: recognition, logits, cache, batch, greedy. Returns our network."""
    header = read_header(folder)
    card = recognise(header)
    assert card.family.name == family
    others = [f.name for f in families() if f.match(header) and f is not card.family and f is not card.family.narrows]
    assert others == [], f"{folder} is also a {others}"

    network, _ = fill(card, Mapped(header), CPU, torch.float32)
    ids = torch.arange(3, 15)[None] % card.config.vocab_size
    positions = torch.arange(ids.shape[1])[None]
    expected = reference(ids).logits
    with torch.inference_mode():
        logits = network.logits(network(ids, positions, Causal(card.config)))
    assert (logits - expected).abs().max() < tolerance

    assert_cached_equals_uncached(network, ids, logits)
    assert_batch_equals_one_by_one(network)
    n_new = min(n_greedy, card.config.context - ids.shape[1])
    theirs = reference.generate(ids, max_new_tokens=n_new, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert greedy(network, ids, n_new) == theirs[0, ids.shape[1] :].tolist()
    return network


def assert_cached_equals_uncached(network: Any, ids: Tensor, logits: Tensor) -> None:
    """The last logits of growing pieces equal those of one pass."""
    runner = Runner(network)
    cache = runner.new_cache(1, 4)
    for start, end in ((0, 5), (5, 6), (6, 7), (7, ids.shape[1])):
        last = runner.forward(ids[:, start:end], torch.arange(start, end)[None], cache)
        assert (last - logits[:, end - 1]).abs().max() < 1e-4


def assert_batch_equals_one_by_one(network: Any) -> None:
    """Rows of different lengths, padded on the right and then continued, equal each row alone."""
    runner, vocab = Runner(network), network.config.vocab_size
    rows = [[5, 6, 7, 8, 9], [11, 12], [20, 21, 22]]
    longest = max(map(len, rows))
    padded = torch.tensor([row + [0] * (longest - len(row)) for row in rows]) % vocab
    cache = runner.new_cache(len(rows), 4)
    places = torch.arange(longest).expand(len(rows), -1)
    with torch.inference_mode():
        cache.begin(places)
        hidden = network(padded, places, cache)
    together = [network.logits(hidden[i, len(row) - 1]) for i, row in enumerate(rows)]
    new = torch.tensor([[30], [31], [32]]) % vocab
    after = runner.forward(new, torch.tensor([[len(row)] for row in rows]), cache).clone()
    for i, row in enumerate(rows):
        alone = runner.new_cache(1, 4)
        first = runner.forward(torch.tensor([row]) % vocab, torch.arange(len(row))[None], alone).clone()
        second = runner.forward(new[i : i + 1], torch.tensor([[len(row)]]), alone)
        assert (together[i] - first[0]).abs().max() < 1e-4
        assert (after[i] - second[0]).abs().max() < 1e-4


def greedy(network: Any, ids: Tensor, n_new: int) -> list[int]:
    """The likeliest continuation through the runner."""
    runner = Runner(network)
    cache, written = runner.new_cache(1, 8), []
    positions = torch.arange(ids.shape[1])[None]
    for _ in range(n_new):
        token = int(runner.forward(ids, positions, cache).argmax())
        written.append(token)
        ids, positions = torch.tensor([[token]]), positions[:, -1:] + 1
    return written
