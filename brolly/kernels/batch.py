"""Binds batch.c: tokens of many sequences, answers' next ones and pieces of prompts, through a network in one call."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Sequence
from ctypes import c_int64, c_void_p
from threading import Lock
from typing import Protocol

import torch
from torch import Tensor

from brolly.kernels.build import library as build
from brolly.kernels.weights import NetworkStruct, Pointers, Weights

BLOCK = 32  # tokens of a block, PAGE in batch.c
FAULTS = {
    1: "a row has no tokens, or stands outside the context",
    2: "a token is outside the vocabulary",
    3: "a row has fewer blocks than it needs",
    4: "a block in sight was freed, or is none of the memory's",
}


class Stretch(Protocol):
    """engine.pages.Stretch."""

    @property
    def tokens(self) -> Sequence[int]: ...
    @property
    def start(self) -> int: ...
    @property
    def blocks(self) -> Sequence[int]: ...
    @property
    def logits(self) -> bool: ...


def library() -> ctypes.CDLL | str:
    """The compiled kernel, or why there is none."""
    lib = build("batch")
    if isinstance(lib, str):
        return lib
    if lib.brolly_batches.argtypes is None:
        lib.brolly_batches.argtypes, lib.brolly_batches.restype = [], c_int64
        if lib.brolly_batches():
            network = ctypes.POINTER(NetworkStruct)
            lib.brolly_max_head.restype = lib.brolly_batch_space.restype = lib.brolly_batch.restype = c_int64
            lib.brolly_batch_space.argtypes = [network, c_void_p, c_int64, c_int64]
            lib.brolly_batch.argtypes = [
                network, c_void_p, c_int64, c_void_p, c_void_p, c_void_p, c_int64, c_int64, c_void_p, c_void_p,
                c_void_p, c_int64,
            ]  # fmt: skip
    return lib if lib.brolly_batches() else "this processor multiplies no bfloat16 (AMX or AVX-512 BF16)"


class Batch:
    """One network's weights as the kernel sees them; it keeps them alive. One pass at a time, whoever asks.

    A token's logits are the same bits alone and in any batch, and however a prompt was cut, on one machine and with
    any number of threads. Raises ValueError where the kernel does not serve the weights.
    """

    def __init__(self, weights: Weights, context: int) -> None:
        sizes = weights.sizes
        if isinstance(lib := library(), str):
            raise ValueError(lib)
        if (dtype := weights.tables["embed"].dtype) != torch.bfloat16:
            raise ValueError(f"weights in {str(dtype).removeprefix('torch.')}")
        if sizes["head_dim"] % 16 or not 16 <= sizes["head_dim"] <= lib.brolly_max_head():
            raise ValueError(f"heads of {sizes['head_dim']} dimensions")
        if sizes["dim"] % 32 or sizes["hidden_dim"] % 16 or sizes["n_heads"] * sizes["head_dim"] % 32:
            raise ValueError(f"{sizes['dim']} and {sizes['hidden_dim']} channels; multiples of 32 and 16 would do")
        if sizes["vocab_size"] < 32:
            raise ValueError(f"{sizes['vocab_size']} tokens")
        self.lib, self.vocab_size, self.context = lib, sizes["vocab_size"], context
        self._pointers, self._lock = Pointers(weights), Lock()
        self._space = torch.empty(0, dtype=torch.uint8)

    def __call__(self, stretches: Sequence[Stretch], keys: Tensor, values: Tensor) -> tuple[Tensor, list[int]]:
        """Logits (n, V) float32 behind each stretch that wants some, and their likeliest tokens.

        keys: (L, KV, blocks, BLOCK, D), values: (L, KV, blocks, D, BLOCK). Raises IndexError at what is out of bounds.
        """
        assert keys.dtype == values.dtype == torch.bfloat16 and keys.is_contiguous() and values.is_contiguous()
        rows, tokens, held, n = array("q"), array("i"), [], 0
        for stretch in stretches:
            blocks = stretch.blocks
            if not isinstance(blocks, array) or blocks.typecode != "i":
                blocks = array("i", blocks)
                held.append(blocks)
            place, n_blocks = blocks.buffer_info()
            rows.extend((stretch.start, len(stretch.tokens), stretch.logits, place, n_blocks))
            tokens.extend(stretch.tokens)
            n += stretch.logits
        logits, likeliest, threads = torch.empty(n, self.vocab_size), array("i", bytes(4 * n)), torch.get_num_threads()
        at, count, network = rows.buffer_info()[0], len(stretches), self._pointers.network
        with self._lock:
            space = self._room(self.lib.brolly_batch_space(network, at, count, threads))
            fault = self.lib.brolly_batch(
                network, at, count, tokens.buffer_info()[0], keys.data_ptr(), values.data_ptr(), keys.shape[2],
                self.context, space, logits.data_ptr(), likeliest.buffer_info()[0], threads,
            )  # fmt: skip
        if fault:
            raise IndexError(FAULTS[fault])
        return logits, likeliest.tolist()

    def move(self, old: Tensor, new: Tensor) -> None:
        """Between two passes, read `new`, of the same numbers, where `old` was read."""
        with self._lock:
            self._pointers.move(old, new)

    def _room(self, n_bytes: int) -> int:
        """Where that many bytes begin, on a cache line."""
        if len(self._space) < n_bytes + 64:
            self._space = torch.empty(n_bytes * 5 // 4 + 64, dtype=torch.uint8)
        return (self._space.data_ptr() + 63) // 64 * 64
