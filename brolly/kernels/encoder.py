"""Binds encoder.c: all blocks of a Stack over sequences of any lengths, bfloat16, in one call."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from ctypes import c_float, c_int64, c_void_p
from dataclasses import dataclass
from threading import Lock

import torch
from torch import Tensor

from brolly.kernels.build import library as build

MATRICES = ("q", "k", "v", "o", "fc1", "gate", "fc2")
VECTORS = ("norm1", "norm1_b", "norm2", "norm2_b", "scale1", "scale2")
BIASES = ("q_b", "k_b", "v_b", "o_b", "fc1_b", "gate_b", "fc2_b")
NAMES = MATRICES + VECTORS + BIASES
SIZES = ("dim", "n_layers", "n_heads", "head_dim", "hidden_dim")
ACTS = ("gelu", "gelu_tanh", "quick_gelu", "relu", "silu")
FAR = 2**31 - 1


class _Layer(ctypes.Structure):
    _fields_ = [*((name, c_void_p) for name in (*NAMES, "turns")), ("window", c_int64)]


class _Network(ctypes.Structure):
    _fields_ = [
        *((name, c_int64) for name in (*SIZES, "act", "post_norm", "causal")),
        ("eps", c_float),
        ("layers", ctypes.POINTER(_Layer)),
    ]


@dataclass
class Blocks:
    """What the kernel reads: a dict a layer by NAMES (absent: unused), and which of `turns` each layer rotates by."""

    sizes: Mapping[str, int]
    act: str
    post_norm: bool
    causal: bool
    eps: float
    layers: Sequence[Mapping[str, Tensor]]
    windows: Sequence[int | None]


def library() -> ctypes.CDLL | str:
    """The compiled kernel, or why there is none."""
    lib = build("encoder")
    if isinstance(lib, str):
        return lib
    if lib.brolly_encodes.argtypes is None:
        lib.brolly_encodes.argtypes, lib.brolly_encodes.restype = [], c_int64
        if lib.brolly_encodes():
            network = ctypes.POINTER(_Network)
            lib.brolly_max_head.restype = lib.brolly_encode_space.restype = c_int64
            lib.brolly_encode_space.argtypes = [network, c_void_p, c_int64]
            lib.brolly_encode.argtypes = [network, c_void_p, c_int64, c_void_p, c_void_p, c_void_p, c_int64]
            lib.brolly_encode.restype = None
    return lib if lib.brolly_encodes() else "this processor multiplies no bfloat16 (AMX or AVX-512 BF16)"


class Encoder:
    """One Stack's weights as the kernel sees them; it keeps them alive. One pass at a time, whoever asks.

    Raises ValueError where the kernel does not serve them.
    """

    def __init__(self, blocks: Blocks) -> None:
        held = [tensor.detach() for tensors in blocks.layers for tensor in tensors.values()]
        if kinds := {(t.dtype, t.device.type) for t in held} - {(torch.bfloat16, "cpu")}:
            dtype, device = kinds.pop()
            raise ValueError(f"weights in {str(dtype).removeprefix('torch.')} on {device}")
        if not all(t.is_contiguous() for t in held):
            raise ValueError("weights that do not lie row by row")
        if isinstance(lib := library(), str):
            raise ValueError(lib)
        sizes = blocks.sizes
        if sizes["head_dim"] % 8 or not 16 <= sizes["head_dim"] <= lib.brolly_max_head():
            raise ValueError(f"heads of {sizes['head_dim']} dimensions")
        if sizes["dim"] % 32 or sizes["hidden_dim"] % 16:
            raise ValueError(f"{sizes['dim']} and {sizes['hidden_dim']} channels; multiples of 32 and 16 would do")
        self.lib, self.dim, self.head_dim, self._held = lib, sizes["dim"], sizes["head_dim"], held
        self._lock = Lock()
        self._layers = (_Layer * sizes["n_layers"])()
        for layer, tensors, window in zip(self._layers, blocks.layers, blocks.windows, strict=True):
            for name, tensor in tensors.items():
                setattr(layer, name, tensor.data_ptr())
            layer.window = FAR if window is None else window
        numbers = {"act": ACTS.index(blocks.act), "post_norm": blocks.post_norm, "causal": blocks.causal, **sizes}
        self._network = _Network(**numbers, eps=blocks.eps, layers=self._layers)
        self._space = torch.empty(0, dtype=torch.uint8)

    def __call__(self, x: Tensor, lengths: Sequence[int], turns: Sequence[Tensor | None]) -> Tensor:
        """x (N, C) of sequences of these lengths, in order, through all blocks: (N, C).

        `turns` has each layer's cosines and sines, (positions, D) float32, or None where it does not rotate.
        """
        lengths = [n for n in lengths if n]
        assert x.dtype == torch.bfloat16 and x.device.type == "cpu" and x.shape == (sum(lengths), self.dim)
        if not lengths:
            return x
        x = x.contiguous()
        out, sizes = torch.empty_like(x), (c_int64 * len(lengths))(*lengths)
        with self._lock:
            for layer, table in zip(self._layers, turns, strict=True):
                if table is not None:
                    assert table.dtype == torch.float32 and table.is_contiguous()
                    assert table.shape[1] == self.head_dim and len(table) >= max(lengths)
                layer.turns = None if table is None else table.data_ptr()
            space = self._room(self.lib.brolly_encode_space(self._network, sizes, len(lengths)))
            self.lib.brolly_encode(
                self._network, sizes, len(lengths), x.data_ptr(), out.data_ptr(), space, torch.get_num_threads()
            )
        return out

    def _room(self, n_bytes: int) -> int:
        """Where that many bytes begin, on a cache line."""
        if len(self._space) < n_bytes + 64:
            self._space = torch.empty(n_bytes * 5 // 4 + 64, dtype=torch.uint8)
        return (self._space.data_ptr() + 63) // 64 * 64
