"""Binds decoder.c: a Llama's or a GPT-2's next logits in one call, from one token or (with AMX) a block of them."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from ctypes import c_float, c_int64, c_void_p
from dataclasses import dataclass
from threading import Lock

import torch
from torch import Tensor

from brolly.kernels.build import library as build

MATRICES = ("q", "k", "v", "o", "gate", "up", "down")
VECTORS = ("norm1", "norm1_b", "norm2", "norm2_b", "q_norm", "k_norm")
BIASES = ("q_b", "k_b", "v_b", "o_b", "gate_b", "up_b", "down_b")


class _Layer(ctypes.Structure):
    _fields_ = [(name, c_void_p) for name in MATRICES + VECTORS + BIASES] + [("window", c_int64)]


SIZES = ("vocab_size", "dim", "n_layers", "n_heads", "n_kv_heads", "head_dim", "hidden_dim")
TABLES = ("embed", "places", "head", "norm", "norm_b")


class _Network(ctypes.Structure):
    _fields_ = [
        *((name, c_int64) for name in ("bf16", "layer_norm", *SIZES)),
        *((name, c_float) for name in ("eps", "rope_scale")),
        *((name, c_void_p) for name in (*TABLES, "inv_freq")),
        ("layers", ctypes.POINTER(_Layer)),
    ]


@dataclass
class Weights:
    """What the kernel reads: `tables` by TABLES, and a dict a layer by MATRICES, VECTORS, BIASES; absent: unused."""

    sizes: dict[str, int]
    eps: float
    layer_norm: bool
    tables: Mapping[str, Tensor]
    layers: Sequence[Mapping[str, Tensor]]
    windows: Sequence[int | None]
    inv_freq: Tensor | None = None  # (D/2) float32
    rope_scale: float = 1.0


def library() -> ctypes.CDLL | str:
    """The compiled kernel, or why there is none."""
    lib = build("decoder")
    if not isinstance(lib, str) and lib.brolly_step.argtypes is None:
        network = ctypes.POINTER(_Network)
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
        self._held: list[Tensor] = []
        self._layers = (_Layer * self.sizes["n_layers"])()
        for layer, tensors, window in zip(self._layers, weights.layers, weights.windows, strict=True):
            for name, tensor in tensors.items():
                setattr(layer, name, self._pointer(tensor))
            layer.window = window or 0
        numbers = {"bf16": self.dtype == torch.bfloat16, "layer_norm": weights.layer_norm, **self.sizes}
        self._network = _Network(**numbers, eps=weights.eps, rope_scale=weights.rope_scale)
        for name, tensor in weights.tables.items():
            setattr(self._network, name, self._pointer(tensor))
        if weights.inv_freq is not None:
            assert weights.inv_freq.dtype == torch.float32
            self._network.inv_freq = weights.inv_freq.data_ptr()
            self._held.append(weights.inv_freq)
        self._network.layers = ctypes.cast(self._layers, ctypes.POINTER(_Layer))
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
        first, n_bytes, shift = old.data_ptr(), old.nbytes, new.data_ptr() - old.data_ptr()
        structs = [(self._network, TABLES), *((layer, MATRICES + VECTORS + BIASES) for layer in self._layers)]
        with self._lock:
            for struct, names in structs:
                for name in names:
                    pointer = getattr(struct, name)
                    if pointer is not None and first <= pointer < first + n_bytes:
                        setattr(struct, name, pointer + shift)
            self._held = [t for t in self._held if not first <= t.data_ptr() < first + n_bytes]
            self._held.append(new)

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

    def _pointer(self, tensor: Tensor) -> int:
        if tensor.dtype != self.dtype or not tensor.is_contiguous() or tensor.device.type != "cpu":
            raise ValueError("weights of several kinds")
        self._held.append(tensor.detach())
        return tensor.data_ptr()

    def _tiles(self) -> bool:
        s = self.sizes
        widths = (s["dim"], s["hidden_dim"], s["head_dim"], s["n_kv_heads"] * s["head_dim"])
        return all(width % 32 == 0 for width in widths)
