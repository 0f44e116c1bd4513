"""Weights in 4 bits: NF4 (Dettmers et al. 2023), in bitsandbytes' layout. Frozen: gradients pass, none stay.

Numbers go in runs of 64, row after row; each run is divided by its largest magnitude, and each number becomes the
nearest of sixteen levels at which a normal distribution has equal shares. With `double`, those magnitudes are in 8 bits
themselves: less their mean, in runs of 256, by the dynamic levels of Dettmers et al. 2021. n numbers, R runs, (O, I) a
weight.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brolly.kernels import nf4 as kernel

LEVELS = (  # quantiles of N(0, 1), scaled to [-1, 1], with an exact 0: table of appendix E
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
RUN, RUNS = 64, 256  # numbers that share a magnitude, magnitudes that share one
CHUNK = 2**22  # numbers that are packed together, of which there is a copy in float32


class NF4(NamedTuple):
    """A packed tensor: two numbers a byte, the first in the high bits."""

    codes: Tensor  # (n / 2,) uint8
    magnitudes: Tensor  # (R,) float32, or uint8 codes of them
    shape: tuple[int, ...]
    levels: Tensor  # (16,) float32
    outer: Tensor | None = None  # (R / 256,) float32: what the codes of magnitudes are multiplied by
    outer_levels: Tensor | None = None  # (256,) float32
    offset: float = 0.0  # and what is added then
    run: int = RUN
    runs: int = RUNS

    @property
    def n_bytes(self) -> int:
        return sum(t.nbytes for t in (self.codes, self.magnitudes, self.outer) if t is not None)

    def to(self, device: torch.device) -> NF4:
        moved: dict[str, Any] = {k: t.to(device) for k, t in self._asdict().items() if isinstance(t, Tensor)}
        return self._replace(**moved)


@lru_cache(1)
def dynamic_levels() -> Tensor:
    """The 256 levels of a signed dynamic 8-bit number, rising: ever finer towards 0 (Dettmers et al. 2021)."""
    found = [0.0, 1.0]
    for exponent in range(7):
        edges = torch.linspace(0.1, 1, 2**exponent + 1, dtype=torch.float32)
        middles = (edges[:-1] + edges[1:]) / 2 * 10 ** (exponent - 6)
        found += middles.tolist() + (-middles).tolist()
    return torch.tensor(sorted(found), dtype=torch.float32)


def nearest(x: Tensor, levels: Tensor) -> Tensor:
    """The index of the level that each number is nearest to, as uint8."""
    middles = (levels[:-1] + levels[1:]) / 2
    if len(levels) > 16:
        return torch.bucketize(x, middles).to(torch.uint8)
    found = torch.zeros_like(x, dtype=torch.uint8)
    for middle in middles:  # a few comparisons of all are faster than a search for each
        found += x > middle
    return found


def pack(weight: Tensor, *, double: bool = True) -> NF4:
    """A weight with an even number of numbers in 4 bits each."""
    n = weight.numel()
    assert n % 2 == 0, f"{tuple(weight.shape)} has an odd number of numbers"
    levels = torch.tensor(LEVELS, device=weight.device)
    found = [coded(some.float(), levels) for some in weight.detach().flatten().split(CHUNK)]
    pairs, magnitudes = (torch.cat(some) for some in zip(*found, strict=True))
    if not double:
        return NF4(pairs, magnitudes, tuple(weight.shape), levels)
    offset, outer_levels = float(magnitudes.mean()), dynamic_levels().to(weight.device)
    rest = F.pad(magnitudes - offset, (0, -len(magnitudes) % RUNS)).view(-1, RUNS)
    outer = rest.abs().amax(1)
    small = nearest(rest * (1 / outer.clamp_min(1e-38))[:, None], outer_levels).flatten()[: len(magnitudes)]
    return NF4(pairs, small, tuple(weight.shape), levels, outer, outer_levels, offset)


def coded(numbers: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
    """Codes, two a byte, and the magnitudes of runs, of some numbers (n,)."""
    if (found := kernel.pack(numbers, (levels[:-1] + levels[1:]) / 2, RUN)) is not None:
        return found
    n = len(numbers)
    runs = F.pad(numbers, (0, -n % RUN)).view(-1, RUN)  # (R, 64)
    magnitudes = runs.abs().amax(1)
    codes = nearest(runs * (1 / magnitudes.clamp_min(1e-38))[:, None], levels).flatten()[:n]
    return codes[0::2] << 4 | codes[1::2], magnitudes


def unpack(packed: NF4, dtype: torch.dtype = torch.float32) -> Tensor:
    """The numbers again."""
    magnitudes = packed.magnitudes
    if packed.outer is not None and packed.outer_levels is not None:
        scale = packed.outer.repeat_interleave(packed.runs)[: len(magnitudes)]
        magnitudes = packed.outer_levels[magnitudes.int()] * scale + packed.offset
    n = packed.codes.numel() * 2
    if (found := kernel.unpack(packed.codes, magnitudes, packed.levels, n, packed.run, dtype)) is not None:
        return found.view(packed.shape)
    # one look-up of a byte gives both numbers
    pairs = torch.stack([packed.levels.repeat_interleave(16), packed.levels.repeat(16)], dim=1)  # (256, 2)
    numbers = F.embedding(packed.codes.int(), pairs).flatten()  # (n,)
    whole = len(numbers) // packed.run * packed.run
    numbers[:whole].view(-1, packed.run).mul_(magnitudes[: whole // packed.run, None])
    if whole < len(numbers):
        numbers[whole:] *= magnitudes[-1]
    return numbers.view(packed.shape).to(dtype)


class NF4Linear(nn.Linear):
    """A frozen linear layer whose weight is kept in 4 bits and unpacked whenever it is needed."""

    def __init__(self, packed: NF4, bias: Tensor | None, dtype: torch.dtype) -> None:
        nn.Module.__init__(self)
        self.out_features, self.in_features = packed.shape
        self.packed, self.dtype = packed, dtype
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)  # type: ignore[assignment]

    @classmethod
    def of(
        cls, layer: nn.Linear, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> NF4Linear:  # fmt: skip
        """A linear layer's frozen twin in 4 bits, that computes where and as that one does, unless it is said."""
        weight, dtype = layer.weight.detach().to(device), dtype or layer.weight.dtype
        bias = None if layer.bias is None else layer.bias.detach().to(device, dtype)
        return cls(pack(weight), bias, dtype)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """Unpacked, (O, I), for whoever must look at it."""
        return unpack(self.packed, self.dtype)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _Product.apply(x, self.packed)
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, nf4"


class _Product(torch.autograd.Function):
    """x Wᵀ, whose gradient unpacks W again instead of keeping it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, packed: NF4) -> Tensor:
        ctx.packed = packed
        return F.linear(x, unpack(packed, x.dtype))

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        return dy @ unpack(ctx.packed, dy.dtype), None


# bitsandbytes' own layout, by what each tensor's name adds to the weight's.


def to_parts(packed: NF4, dtype: torch.dtype) -> dict[str, Tensor]:
    """What a file holds of a packed weight whose numbers were of `dtype`."""
    said: dict[str, Any] = {
        "quant_type": "nf4", "blocksize": packed.run, "dtype": str(dtype).removeprefix("torch."),
        "shape": list(packed.shape),
    }  # fmt: skip
    found = {"": packed.codes[:, None], ".absmax": packed.magnitudes, ".quant_map": packed.levels}
    if packed.outer is not None and packed.outer_levels is not None:
        found |= {".nested_absmax": packed.outer, ".nested_quant_map": packed.outer_levels}
        said |= {"nested_blocksize": packed.runs, "nested_dtype": "float32", "nested_offset": packed.offset}
    state = torch.frombuffer(bytearray(json.dumps(said).encode()), dtype=torch.uint8)
    return found | {".quant_state.bitsandbytes__nf4": state}


def from_parts(parts: Mapping[str, Tensor]) -> NF4:
    """The packed weight of such tensors. Raises ValueError where they do not fit each other."""
    try:
        said = json.loads(bytes(parts[".quant_state.bitsandbytes__nf4"].tolist()))
    except RecursionError:
        raise ValueError("its quant_state is nested too deeply") from None
    if not isinstance(said, dict):
        raise ValueError("its quant_state is no object")
    codes, magnitudes, levels = parts[""].flatten(), parts[".absmax"], parts[".quant_map"]
    outer, outer_levels = parts.get(".nested_absmax"), parts.get(".nested_quant_map")
    shape, run, runs = said.get("shape"), said.get("blocksize"), said.get("nested_blocksize", RUNS)
    offset, n = said.get("nested_offset", 0.0), 2 * len(codes)
    if not isinstance(shape, list) or len(shape) != 2 or any(type(one) is not int or one < 1 for one in shape):
        raise ValueError(f"its shape is {shape!r:.60}; expected two whole numbers")
    if type(run) is not int or type(runs) is not int or run < 2 or run % 2 or runs < 1:
        raise ValueError(f"its numbers share magnitudes by {run!r:.20} and {runs!r:.20}; expected whole numbers")
    if type(offset) is not float or not math.isfinite(offset):
        raise ValueError(f"its nested_offset is {offset!r:.20}; expected a number")
    expected = {
        "codes": (n, math.prod(shape)),
        "absmax": (len(magnitudes), -(-n // run)),
        "quant_map": (len(levels), 16),
    }
    if outer is not None and outer_levels is not None:
        expected |= {"nested_absmax": (len(outer), -(-len(magnitudes) // runs))}
        expected |= {"nested_quant_map": (len(outer_levels), 256)}
    for what, (found, wanted) in expected.items():
        if found != wanted:
            raise ValueError(f"its {what} holds {found:,} numbers; expected {wanted:,}")
    if not all(
        bool(t.isfinite().all()) for t in (magnitudes, levels, outer) if t is not None and t.is_floating_point()
    ):
        raise ValueError("its magnitudes are not finite")
    return NF4(codes, magnitudes, tuple(shape), levels, outer, outer_levels, offset, run, runs)
