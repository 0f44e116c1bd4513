"""Binds adam8.c: a step of AdamW with moments in 8 bits. The reference is brolly.train.tuning.optimizers.by_torch."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import c_float, c_int64, c_void_p

import torch
from torch import Tensor

from brolly.kernels.build import library

KINDS = (torch.float32, torch.bfloat16)


def step(
    given: Sequence[Tensor], how: tuple[float, float, float, float], tables: Sequence[tuple[Tensor, Tensor, Tensor]],
    betas: tuple[float, float], block: int,
) -> bool:  # fmt: skip
    """Move p by its gradient, and its moments with it; False where it cannot.

    `given`: p and its gradient (R, C), codes of mean and square (R, C), magnitudes of both (R, B). `how`: the rate,
    what is kept of p, epsilon, and what both moments' quotient is multiplied by.
    """
    p, grad, mean, square, mean_most, square_most = given
    lib = library("adam8") if p.device.type == "cpu" else "elsewhere"
    if isinstance(lib, str) or p.dtype not in KINDS or grad.dtype not in KINDS:
        return False
    rows, columns = p.shape
    assert all(t.is_contiguous() for t in given) and block <= 256
    assert grad.shape == mean.shape == square.shape == p.shape
    assert mean_most.shape == square_most.shape == (rows, -(-columns // block))
    assert mean.dtype == square.dtype == torch.uint8 and mean_most.dtype == square_most.dtype == torch.float32
    if lib.brolly_adam8.argtypes is None:
        lib.brolly_adam8.argtypes, lib.brolly_adam8.restype = [c_void_p] * 3 + [c_int64] * 6, None
    rate, kept, eps, faded = how
    numbers = (c_float * 5)(rate * faded, kept, eps, *betas)
    pointers = (c_void_p * 6)(*(t.data_ptr() for t in given))
    looked = (c_void_p * 6)(*(t.data_ptr() for table in tables for t in table))
    kinds = (int(t.dtype == torch.bfloat16) for t in (p, grad))
    lib.brolly_adam8(pointers, numbers, looked, rows, columns, block, *kinds, torch.get_num_threads())
    return True
