"""Held-out bits per byte of a pre-trained model beside an n-gram baseline on the same tokens.

python recipes/ngram.py recipes/mini-llm.toml runs/mini-llm/model

The baseline interpolates orders 1 to 5 as Witten and Bell (1991) do: P(w | h) = (c(hw) + t(h) P(w | h')) / (c(h) + t(h)),
where t(h) counts the different tokens seen after h, and order 0 is uniform. It is counted on all training tokens, each
source once; the model is asked with the context that it was trained with. Both see the same held-out windows.

Documents are held out by their own hash, but a tale may stand in two collections, or be quoted in a conversation. So
a window counts only if fewer than a tenth of its runs of eight tokens stand anywhere in the training text.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from torch import Tensor

import brolly
from brolly.engine.cache import Causal
from brolly.train.data import Tokens, prepare
from brolly.train.recipe import read_recipe

ORDER, BITS = 5, 12  # five tokens of twelve bits fit one 64-bit key
MOST = 400  # held-out windows a source
RUN, FAMILIAR = 8, 0.1  # tokens; share of a window's runs from which on it counts as seen


class NGram:
    """Counts of all runs of 1 to ORDER tokens."""

    def __init__(self, ids: Tensor) -> None:
        assert int(ids.max()) < 2**BITS
        self.tables = []
        for order in range(1, ORDER + 1):
            runs = keys(ids, order)
            grams, counts = runs.unique(return_counts=True)
            histories, at = (grams >> BITS).unique(return_inverse=True)
            after = torch.zeros(len(histories), dtype=torch.int64).index_add_(0, at, counts)
            kinds = torch.zeros(len(histories), dtype=torch.int64).index_add_(0, at, torch.ones_like(counts))
            self.tables.append((grams, counts, histories, after, kinds))

    def probabilities(self, ids: Tensor) -> Tensor:
        """P of each token of ids (T,) after the first ORDER - 1, given those before it."""
        n = len(ids) - ORDER + 1
        share = torch.full((n,), 2.0**-BITS, dtype=torch.float64)
        for order, (grams, counts, histories, after, kinds) in enumerate(self.tables, 1):
            runs = keys(ids, order)[-n:]
            seen, total, different = (
                find(grams, counts, runs), find(histories, after, runs >> BITS), find(histories, kinds, runs >> BITS),
            )  # fmt: skip
            known = total > 0
            share = torch.where(known, (seen + different * share) / (total + different).clamp(min=1), share)
        return share


def keys(ids: Tensor, order: int) -> Tensor:
    """Each run of `order` tokens as one number, the newest token lowest."""
    n = len(ids) - order + 1
    out = torch.zeros(n, dtype=torch.int64)
    for i in range(order):
        out = out << BITS | ids[i : i + n].long()
    return out


class Familiar:
    """All runs of RUN tokens of the training text, by hash."""

    def __init__(self, ids: Tensor) -> None:
        self.hashes = hashes(ids).unique()

    def share(self, ids: Tensor) -> float:
        found = hashes(ids)
        at = torch.searchsorted(self.hashes, found).clamp(max=len(self.hashes) - 1)
        return float((self.hashes[at] == found).double().mean())


def hashes(ids: Tensor) -> Tensor:
    n = len(ids) - RUN + 1
    out = torch.zeros(n, dtype=torch.int64)
    for i in range(RUN):
        out = out * 0x5851F42D4C957F2D + ids[i : i + n].long() + 1  # modulo 2**64
    return out


def find(table: Tensor, values: Tensor, wanted: Tensor) -> Tensor:
    at = torch.searchsorted(table, wanted).clamp(max=len(table) - 1)
    return torch.where(table[at] == wanted, values[at], 0).double()


@torch.inference_mode()
def model_bits(model: brolly.Model, ids: Tensor, length: int) -> float:
    """Bits that the model needs for tokens 1 … of windows (N, length + 1)."""
    network, total = model.network, 0.0
    places = torch.arange(length)[None]
    for window in ids:
        hidden = network(window[None, :-1], places, Causal(network.config))
        shares = network.logits(hidden)[0].float().log_softmax(-1)
        total -= float(shares.gather(-1, window[1:, None]).sum()) / math.log(2)
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("model", type=Path)
    given = parser.parse_args()
    recipe = read_recipe(given.recipe)
    tokens = Tokens(recipe, prepare(recipe))
    model = brolly.load(given.model, dtype="float32")
    everything = torch.cat([torch.as_tensor(ids).int() for ids in tokens.train.values()])
    counted, familiar = NGram(everything), Familiar(everything)
    length = recipe.model.context
    print(f"{'source':12} {'new windows':>12} {'bytes':>9} {'n-gram':>8} {'model':>8}   held-out bits per byte")
    for name, ids in tokens.held.items():
        n = (len(ids) - 1) // length
        if n < 1:
            continue
        windows = torch.stack([ids[i * length : (i + 1) * length + 1].long() for i in range(n)])
        new = torch.tensor([familiar.share(window) < FAMILIAR for window in windows])
        windows = windows[new][:MOST]
        n_bytes = int(tokens.n_bytes[windows[:, 1:]].sum())
        baseline = ours = math.nan
        if n_bytes:
            starts = windows[:, :1].expand(-1, ORDER - 1)  # the baseline, too, knows each window's first token
            baseline = -sum(
                float(counted.probabilities(torch.cat([start, window])).log2().sum())
                for start, window in zip(starts, windows[:, 1:], strict=True)
            )
            ours = model_bits(model, windows, length)
        of = f"{len(windows)} of {n}"
        print(
            f"{name:12} {of:>12} {n_bytes:9d} {baseline / (n_bytes or 1):8.3f} {ours / (n_bytes or 1):8.3f}", flush=True
        )


if __name__ == "__main__":
    main()
