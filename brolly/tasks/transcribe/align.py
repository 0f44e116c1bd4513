"""When each token is spoken: dynamic time warping (Sakoe and Chiba 1978) over where the attention looks.

H heads, T tokens, S places of sound (0.02 s each).
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

# compare and exchange until the fourth of seven is the median (Devillard 1998)
MEDIAN_OF_SEVEN = (
    (0, 5), (0, 3), (1, 6), (2, 4), (0, 1), (3, 5), (2, 6), (2, 3), (3, 6), (4, 5), (1, 4), (1, 3), (3, 4)
)  # fmt: skip


def sharpened(scores: Tensor) -> Tensor:
    """Attention scores (H, T, S) before their softmax → how much each place is each token's: (T, S)."""
    weights = scores.float().softmax(-1)
    std, mean = torch.std_mean(weights, dim=-2, keepdim=True, unbiased=False)
    return median(weights.sub_(mean).div_(std)).mean(0)


def median(x: Tensor) -> Tensor:
    """The median of seven neighbours in a row, the row mirrored at its ends: (H, T, S) → (H, T, S)."""
    n = x.shape[-1]
    if n <= 3:
        return x
    x = F.pad(x, (3, 3), mode="reflect")
    seven = [x[..., i : i + n] for i in range(7)]
    for a, b in MEDIAN_OF_SEVEN:
        seven[a], seven[b] = torch.minimum(seven[a], seven[b]), torch.maximum(seven[a], seven[b])
    return seven[3]


def first_places(likeness: Tensor) -> NDArray[np.int64]:
    """The place at which the best path through likeness (T, S) first comes to each token: (T,).

    Cells of a diagonal do not need one another, so each diagonal is one step. Costs are float32, as in openai-whisper.
    """
    n, m = likeness.shape
    padded = np.full((n, m + n), np.inf)
    padded[:, :m] = -likeness.double().cpu().numpy()
    diagonals = np.ascontiguousarray(padded.ravel()[: n * (m + n - 1)].reshape(n, -1).T)  # row i moved by i
    before = np.full(n + 1, np.inf, np.float32)
    last = before.copy()
    before[0] = 0
    steps = np.empty((len(diagonals), n), np.int8)  # 0 from the token and place before, 1 from the token, 2 the place
    for cost, step in zip(diagonals, steps, strict=True):
        both, token, place = before[:-1], last[:-1], last[1:]
        diagonal, up = (both < token) & (both < place), (token < both) & (token < place)
        step[:] = np.where(diagonal, 0, np.where(up, 1, 2))
        new = np.full(n + 1, np.inf, np.float32)
        new[1:] = cost + np.where(diagonal, both, np.where(up, token, place))
        before, last = last, new
    first = np.zeros(n, np.int64)
    i, j = n - 1, m - 1
    while i >= 0 and j >= 0:
        first[i] = j
        step = steps[i + j, i]
        i, j = i - (step != 2), j - (step != 1)
    return first
