"""Binds nf4.c: weights in 4 bits to numbers, and back."""

from __future__ import annotations

import ctypes
from ctypes import c_int64, c_void_p

import torch
from torch import Tensor

from brolly.kernels.build import library


def unpack(codes: Tensor, magnitudes: Tensor, levels: Tensor, n: int, run: int, dtype: torch.dtype) -> Tensor | None:
    """The `n` numbers of some codes (n / 2,) uint8, or None where the kernel does not serve."""
    lib = library("nf4") if codes.device.type == "cpu" and dtype in (torch.float32, torch.bfloat16) else "elsewhere"
    given = (codes, magnitudes, levels)
    if isinstance(lib, str) or run % 2 or not all(t.is_contiguous() for t in given):
        return None
    assert codes.numel() * 2 == n and magnitudes.numel() * run >= n and levels.numel() == 16
    assert (codes.dtype, magnitudes.dtype, levels.dtype) == (torch.uint8, torch.float32, torch.float32)
    if lib.brolly_nf4.argtypes is None:
        lib.brolly_nf4.argtypes, lib.brolly_nf4.restype = [c_void_p] * 4 + [c_int64] * 4, None
    out = torch.empty(n, dtype=dtype)
    places = (ctypes.c_void_p(t.data_ptr()) for t in (*given, out))
    lib.brolly_nf4(*places, n, run, int(dtype == torch.bfloat16), torch.get_num_threads())
    return out


def pack(numbers: Tensor, middles: Tensor, run: int) -> tuple[Tensor, Tensor] | None:
    """Codes (n / 2,) uint8 and magnitudes of some numbers (n,) float32, or None where the kernel does not serve."""
    lib = library("nf4") if numbers.device.type == "cpu" else "elsewhere"
    if isinstance(lib, str) or run % 2 or not numbers.is_contiguous():
        return None
    n = numbers.numel()
    assert (numbers.dtype, middles.dtype, middles.numel(), n % 2) == (torch.float32, torch.float32, 15, 0)
    if lib.brolly_nf4_pack.argtypes is None:
        lib.brolly_nf4_pack.argtypes, lib.brolly_nf4_pack.restype = [c_void_p] * 4 + [c_int64] * 3, None
    magnitudes, codes = torch.empty(-(-n // run)), torch.empty(n // 2, dtype=torch.uint8)
    places = (ctypes.c_void_p(t.data_ptr()) for t in (numbers, middles.contiguous(), magnitudes, codes))
    lib.brolly_nf4_pack(*places, n, run, torch.get_num_threads())
    return codes, magnitudes
