"""A Llama's or a GPT-2's weights as C sees them: network.h's structs, filled with the places of torch's tensors."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from ctypes import c_float, c_int64, c_void_p
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

MATRICES = ("q", "k", "v", "o", "gate", "up", "down")
VECTORS = ("norm1", "norm1_b", "norm2", "norm2_b", "q_norm", "k_norm")
BIASES = ("q_b", "k_b", "v_b", "o_b", "gate_b", "up_b", "down_b")
SIZES = ("vocab_size", "dim", "n_layers", "n_heads", "n_kv_heads", "head_dim", "hidden_dim")
TABLES = ("embed", "places", "head", "norm", "norm_b")


class LayerStruct(ctypes.Structure):
    _fields_ = [(name, c_void_p) for name in MATRICES + VECTORS + BIASES] + [("window", c_int64)]


class NetworkStruct(ctypes.Structure):
    _fields_ = [
        *((name, c_int64) for name in ("bf16", "layer_norm", *SIZES)),
        *((name, c_float) for name in ("eps", "rope_scale")),
        *((name, c_void_p) for name in (*TABLES, "inv_freq")),
        ("layers", ctypes.POINTER(LayerStruct)),
    ]


@dataclass
class Weights:
    """What a kernel reads: `tables` by TABLES, and a dict a layer by MATRICES, VECTORS, BIASES; absent: unused."""

    sizes: dict[str, int]
    eps: float
    layer_norm: bool
    tables: Mapping[str, Tensor]
    layers: Sequence[Mapping[str, Tensor]]
    windows: Sequence[int | None]
    inv_freq: Tensor | None = None  # (D/2) float32
    rope_scale: float = 1.0


class Pointers:
    """The struct `network` of some weights, which it keeps alive. Raises ValueError at weights of several kinds."""

    def __init__(self, weights: Weights) -> None:
        self.dtype = weights.tables["embed"].dtype
        self._held: list[Tensor] = []
        self._layers = (LayerStruct * weights.sizes["n_layers"])()
        for layer, tensors, window in zip(self._layers, weights.layers, weights.windows, strict=True):
            for name, tensor in tensors.items():
                setattr(layer, name, self._pointer(tensor))
            layer.window = window or 0
        numbers = {"bf16": self.dtype == torch.bfloat16, "layer_norm": weights.layer_norm, **weights.sizes}
        self.network = NetworkStruct(**numbers, eps=weights.eps, rope_scale=weights.rope_scale)
        for name, tensor in weights.tables.items():
            setattr(self.network, name, self._pointer(tensor))
        if weights.inv_freq is not None:
            assert weights.inv_freq.dtype == torch.float32
            self.network.inv_freq = weights.inv_freq.data_ptr()
            self._held.append(weights.inv_freq)
        self.network.layers = ctypes.cast(self._layers, ctypes.POINTER(LayerStruct))

    def move(self, old: Tensor, new: Tensor) -> None:
        """Read `new`, of the same numbers, where `old` was read; no pass may be running."""
        structs = [(self.network, TABLES), *((layer, MATRICES + VECTORS + BIASES) for layer in self._layers)]
        self._held = moved(structs, self._held, old, new)

    def _pointer(self, tensor: Tensor) -> int:
        if tensor.dtype != self.dtype or not tensor.is_contiguous() or tensor.device.type != "cpu":
            raise ValueError("weights of several kinds")
        self._held.append(tensor.detach())
        return tensor.data_ptr()


def moved(structs: Sequence[tuple[Any, Sequence[str]]], held: list[Tensor], old: Tensor, new: Tensor) -> list[Tensor]:
    """Let the pointers (a struct and their names there) into `old` point into `new`; what is to be held from now on."""
    first, n_bytes, shift = old.data_ptr(), old.nbytes, new.data_ptr() - old.data_ptr()
    for struct, names in structs:
        for name in names:
            pointer = getattr(struct, name)
            if pointer is not None and first <= pointer < first + n_bytes:
                setattr(struct, name, pointer + shift)
    return [*(t for t in held if not first <= t.data_ptr() < first + n_bytes), new]
