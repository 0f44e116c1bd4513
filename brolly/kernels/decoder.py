"""Binds decoder.c: a Llama's or a GPT-2's next logits in one call, from one token or (with AMX) a block of them."""

from __future__ import annotations

import ctypes
from ctypes import c_int64, c_void_p
from threading import Lock

import torch
from torch import Tensor

from brolly.kernels.build import library as build
from brolly.kernels.weights import NetworkStruct, Pointers, Weights


def library() -> ctypes.CDLL | str:
    """The compiled kernel, or why there is none."""
    lib = build("decoder")
    if not isinstance(lib, str) and lib.brolly_step.argtypes is None:
        network = ctypes.POINTER(NetworkStruct)
        lib.brolly_step.argtypes = [
            network,
            c_int64,
            c_int64,
            c_void_p,
            c_void_p,
            c_int64,
            c_int64,
            c_void_p,
            c_void_p,
            c_int64,
        ]
        lib.brolly_step.restype = None
        lib.brolly_step_space.argtypes = [network, c_int64, c_int64]
        lib.brolly_step_space.restype = lib.brolly_max_head.restype = lib.brolly_lanes.restype = c_int64
        lib.brolly_amx.restype = c_int64
        if lib.brolly_amx():
            lib.brolly_prompt.argtypes = [
                network, c_void_p, c_int64, c_int64, c_void_p, c_void_p, c_int64, c_int64, c_void_p, c_void_p, c_int64,
            ]  # fmt: skip
            lib.brolly_prompt.restype = None
            lib.brolly_prompt_space.argtypes = [network, c_int64, c_int64, c_int64]
            lib.brolly_prompt_space.restype = c_int64
    return lib


class Decoder:
    """One network's weights as the kernel sees them; it keeps them alive. One step at a time, whoever asks.

    Raises ValueError where the kernel does not serve them.
    """

    def __init__(self, weights: Weights) -> None:
        lib = library()
        if isinstance(lib, str):
            raise ValueError(lib)
        self.lib, self.sizes = lib, weights.sizes
        self.dtype, self.vocab_size = weights.tables["embed"].dtype, weights.sizes["vocab_size"]
        self.context = len(weights.tables["places"]) if "places" in weights.tables else None
        if self.dtype not in (torch.float32, torch.bfloat16):
            raise ValueError(f"weights in {self.dtype}")
        if self.sizes["head_dim"] > lib.brolly_max_head() or self.sizes["head_dim"] % 2:
            raise ValueError(f"heads of {self.sizes['head_dim']} dimensions")
        self._lock = Lock()
        self._pointers = Pointers(weights)
        self._network = self._pointers.network
        self._space = torch.empty(0, dtype=torch.uint8)
        self.takes_blocks = bool(lib.brolly_amx()) and self.dtype == torch.bfloat16 and self._tiles()

    def step(self, token: int, position: int, keys: Tensor, values: Tensor) -> Tensor:
        """Logits (V,) float32 after one token; keys, values: (L, 1, KV, capacity, D), written at `position`."""
        threads, capacity = torch.get_num_threads(), self._checked(position + 1, keys, values)
        self._known(token)
        logits = torch.empty(self.vocab_size)
        with self._lock:
            space = self._room(self.lib.brolly_step_space(self._network, capacity, threads))
            self.lib.brolly_step(
                self._network, token, position, keys.data_ptr(), values.data_ptr(), capacity, keys.stride(0),
                space, logits.data_ptr(), threads,
            )  # fmt: skip
        return logits

    def block(self, tokens: Tensor, position: int, keys: Tensor, values: Tensor) -> Tensor:
        """The same after tokens (T,), of which the first stands at `position`; capacity is a multiple of 32."""
        threads, capacity = torch.get_num_threads(), self._checked(position + len(tokens), keys, values)
        assert self.takes_blocks and capacity % 32 == 0
        self._known(int(tokens.min()))
        self._known(int(tokens.max()))
        tokens = tokens.to(torch.int32).contiguous()
        logits = torch.empty(self.vocab_size)
        with self._lock:
            space = self._room(self.lib.brolly_prompt_space(self._network, position, len(tokens), threads))
            self.lib.brolly_prompt(
                self._network, tokens.data_ptr(), len(tokens), position, keys.data_ptr(), values.data_ptr(), capacity,
                keys.stride(0), space, logits.data_ptr(), threads,
            )  # fmt: skip
        return logits

    def move(self, old: Tensor, new: Tensor) -> None:
        """Between two steps, read `new`, of the same numbers, where `old` was read."""
        with self._lock:
            self._pointers.move(old, new)

    def _checked(self, end: int, keys: Tensor, values: Tensor) -> int:
        n_layers, batch, n_kv_heads, capacity, head_dim = keys.shape
        sizes = self.sizes
        assert (n_layers, batch, n_kv_heads, head_dim) == (sizes["n_layers"], 1, sizes["n_kv_heads"], sizes["head_dim"])
        assert keys.dtype == values.dtype == self.dtype and keys.is_contiguous() and values.is_contiguous()
        assert 0 < end <= capacity and keys.shape == values.shape
        assert self.context is None or end <= self.context
        return capacity

    def _known(self, token: int) -> None:
        if not 0 <= token < self.vocab_size:
            raise IndexError(f"token {token} is outside the vocabulary of {self.vocab_size}")

    def _room(self, n_bytes: int) -> int:
        if self._space.numel() < n_bytes:
            self._space = torch.empty(n_bytes * 5 // 4, dtype=torch.uint8)
        return self._space.data_ptr()

    def _tiles(self) -> bool:
        s = self.sizes
        widths = (s["dim"], s["hidden_dim"], s["head_dim"], s["n_kv_heads"] * s["head_dim"])
        return all(width % 32 == 0 for width in widths)
