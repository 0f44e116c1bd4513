"""Rotary position embedding in half-split order, and the published ways to stretch it to longer contexts.

B batch, H heads, T tokens, D head_dim. Interleaved checkpoints are permuted to this order when they are loaded.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from brolly.configs import Rope


def frequencies(rope: Rope, head_dim: int, length: int = 0, device: torch.device | None = None) -> tuple[Tensor, float]:
    """Angles per position step (D/2, float32) and the factor that cos and sin are scaled by.

    `length` is the longest position in use plus one; only "dynamic" looks at it.
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim
    plain = 1.0 / rope.theta**exponents
    match rope.kind:
        case "default":
            return plain, 1.0
        case "linear":
            return plain / rope.factor, 1.0
        case "dynamic":
            stretch = max(length, rope.original_context) / rope.original_context
            theta = rope.theta * (rope.factor * stretch - (rope.factor - 1)) ** (head_dim / (head_dim - 2))
            return 1.0 / theta**exponents, 1.0
        case "llama3":
            return _llama3(plain, rope), 1.0
        case "yarn":
            return _yarn(plain, rope, head_dim), _yarn_scale(rope)
    raise AssertionError(f"unknown rope kind {rope.kind}")


def _llama3(plain: Tensor, rope: Rope) -> Tensor:
    """Slow waves are stretched by `factor`, fast ones kept, and those between blended (Llama 3.1 report)."""
    turns = rope.original_context * plain / (2 * math.pi)  # full turns within the original context
    blend = ((turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)).clamp(0, 1)
    return plain * blend + plain / rope.factor * (1 - blend)


def _yarn(plain: Tensor, rope: Rope, head_dim: int) -> Tensor:
    """NTK-by-parts (Peng et al. 2023, section 3.2): a ramp over the dimensions from kept to stretched."""

    def dimension(turns: float) -> float:
        return head_dim * math.log(rope.original_context / (turns * 2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = dimension(rope.beta_fast), dimension(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    steps = torch.arange(head_dim // 2, dtype=torch.float32, device=plain.device)
    stretched = ((steps - low) / max(high - low, 0.001)).clamp(0, 1)
    return plain / rope.factor * stretched + plain * (1 - stretched)


def _yarn_scale(rope: Rope) -> float:
    """YaRN's attention temperature, folded into cos and sin."""

    def mscale(weight: float) -> float:
        return 0.1 * weight * math.log(rope.factor) + 1.0 if rope.factor > 1 else 1.0

    if rope.attention_factor is not None:
        return rope.attention_factor
    if rope.mscale and rope.mscale_all_dim:
        return mscale(rope.mscale) / mscale(rope.mscale_all_dim)
    return mscale(1.0)


def cos_sin(rope: Rope, head_dim: int, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines for `positions` (B, T): two tensors (B, 1, T, D/2), computed in float32."""
    length = int(positions.max()) + 1 if rope.kind == "dynamic" else 0
    steps, scale = frequencies(rope, head_dim, length, positions.device)
    angles = positions[:, None, :, None].float() * steps  # (B, 1, T, D/2)
    return (angles.cos() * scale).to(dtype), (angles.sin() * scale).to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (x[d], x[d + D/2]) by its angle. x: (B, H, T, D)."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)
