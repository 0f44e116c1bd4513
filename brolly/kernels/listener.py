"""Binds listener.c: Whisper's decoder over all rows in one call, and the logits of what it returns."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from ctypes import c_float, c_int64, c_void_p
from dataclasses import dataclass
from threading import Lock

import torch
from torch import Tensor

from brolly.kernels.build import library as build
from brolly.kernels.weights import moved

MATRICES = ("q", "k", "v", "o", "cross_q", "cross_o", "fc1", "fc2")
VECTORS = ("norm1", "norm1_b", "norm2", "norm2_b", "norm3", "norm3_b")
BIASES = ("q_b", "v_b", "o_b", "cross_q_b", "cross_o_b", "fc1_b", "fc2_b")
NAMES = MATRICES + VECTORS + BIASES
SIZES = ("vocab_size", "dim", "n_layers", "n_heads", "head_dim", "hidden_dim")
TABLES = ("embed", "places", "head", "norm", "norm_b")
UNIT = 32  # channels that a product takes at once


class _Layer(ctypes.Structure):
    _fields_ = [(name, c_void_p) for name in NAMES]


class _Network(ctypes.Structure):
    _fields_ = [
        *((name, c_int64) for name in ("bf16", *SIZES)),
        ("eps", c_float),
        *((name, c_void_p) for name in TABLES),
        ("layers", ctypes.POINTER(_Layer)),
    ]


@dataclass
class Texts:
    """What the kernel reads: `tables` by TABLES, and a dict a layer by NAMES."""

    sizes: Mapping[str, int]
    eps: float
    tables: Mapping[str, Tensor]
    layers: Sequence[Mapping[str, Tensor]]


def library() -> ctypes.CDLL | str:
    """The compiled kernel, or why there is none."""
    lib = build("listener")
    if isinstance(lib, str):
        return lib
    if lib.brolly_listen.argtypes is None:
        network = ctypes.POINTER(_Network)
        lib.brolly_max_head.restype = lib.brolly_halves.restype = lib.brolly_listen_space.restype = c_int64
        lib.brolly_listen_space.argtypes = [network, *[c_int64] * 5]
        lib.brolly_listen.restype = lib.brolly_tell.restype = None
        lib.brolly_listen.argtypes = [
            network, c_void_p, c_int64, c_int64, c_int64, c_void_p, c_void_p, c_int64, c_void_p, c_void_p, c_int64,
            c_int64, c_void_p, c_void_p, c_int64,
        ]  # fmt: skip
        lib.brolly_tell.argtypes = [network, c_void_p, c_int64, c_void_p, c_void_p, c_int64]
    return lib


class Listening:
    """A Whisper decoder's weights as the kernel sees them; it keeps them alive. One pass at a time, whoever asks.

    Raises ValueError where the kernel does not serve them.
    """

    def __init__(self, texts: Texts) -> None:
        lib = library()
        if isinstance(lib, str):
            raise ValueError(lib)
        self.lib, self.sizes = lib, texts.sizes
        self.dtype, self.context = texts.tables["embed"].dtype, len(texts.tables["places"])
        if self.dtype not in (torch.float32, torch.bfloat16):
            raise ValueError(f"weights in {str(self.dtype).removeprefix('torch.')}")
        if texts.sizes["head_dim"] > lib.brolly_max_head():
            raise ValueError(f"heads of {texts.sizes['head_dim']} dimensions")
        if any(texts.sizes[name] % UNIT for name in ("dim", "head_dim", "hidden_dim")):
            raise ValueError(f"widths that are no multiples of {UNIT}")
        self._lock = Lock()
        self._held: list[Tensor] = []
        self._layers = (_Layer * texts.sizes["n_layers"])()
        for layer, tensors in zip(self._layers, texts.layers, strict=True):
            for name in NAMES:
                setattr(layer, name, self._pointer(tensors[name]))
        self._network = _Network(bf16=self.dtype == torch.bfloat16, eps=texts.eps, layers=self._layers, **texts.sizes)
        for name in TABLES:
            setattr(self._network, name, self._pointer(texts.tables[name]))
        self._space = torch.empty(0, dtype=torch.uint8)

    def listen(
        self, ids: Tensor, place: int, keys: Tensor, values: Tensor, cross: Sequence[tuple[Tensor, Tensor]]
    ) -> Tensor:
        """Hidden states (R, T, C) float32 of tokens (R, T) from `place` on; R is a multiple of the windows W.

        keys, values: (L, R, H, capacity, D), written at those places. `cross`: each layer's (W, H, S, D).
        """
        n_rows, length = ids.shape
        sizes, threads, capacity = self.sizes, torch.get_num_threads(), keys.shape[3]
        n_windows, n_heads, n_places, head_dim = cross[0][0].shape
        assert keys.shape == values.shape == (sizes["n_layers"], n_rows, n_heads, capacity, head_dim)
        assert 0 < place + length <= min(capacity, self.context) and n_rows % n_windows == 0 and n_places
        assert (n_heads, head_dim) == (sizes["n_heads"], sizes["head_dim"]) and len(cross) == sizes["n_layers"]
        cross = [(k.contiguous(), v.contiguous()) for k, v in cross]
        for tensor in (keys, values, *(t for pair in cross for t in pair)):
            assert tensor.dtype == self.dtype and tensor.is_contiguous() and tensor.device.type == "cpu"
        assert all(k.shape == v.shape == cross[0][0].shape for k, v in cross)
        tokens = ids.to(torch.int32).contiguous()
        if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < sizes["vocab_size"]:
            raise IndexError(f"a token is outside the vocabulary of {sizes['vocab_size']}")
        out = torch.empty(n_rows, length, sizes["dim"])
        pointers = [(c_void_p * len(cross))(*(pair[i].data_ptr() for pair in cross)) for i in range(2)]
        with self._lock:
            n_bytes = self.lib.brolly_listen_space(self._network, n_rows, length, capacity, n_places, threads)
            self.lib.brolly_listen(
                self._network, tokens.data_ptr(), n_rows, length, place, keys.data_ptr(), values.data_ptr(), capacity,
                *pointers, n_windows, n_places, self._room(n_bytes), out.data_ptr(), threads,
            )  # fmt: skip
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        """(…, C) → (…, V), float32."""
        given = hidden.reshape(-1, self.sizes["dim"]).float().contiguous()
        out = torch.empty(len(given), self.sizes["vocab_size"])
        with self._lock:
            self.lib.brolly_tell(
                self._network, given.data_ptr(), len(given), self._room(given.nbytes), out.data_ptr(),
                torch.get_num_threads(),
            )  # fmt: skip
        return out.view(*hidden.shape[:-1], -1)

    def move(self, old: Tensor, new: Tensor) -> None:
        """Between two passes, read `new`, of the same numbers, where `old` was read."""
        structs = [(self._network, TABLES), *((layer, NAMES) for layer in self._layers)]
        with self._lock:
            self._held = moved(structs, self._held, old, new)

    def _room(self, n_bytes: int) -> int:
        """Where that many bytes begin, on a cache line."""
        if len(self._space) < n_bytes + 64:
            self._space = torch.empty(n_bytes * 5 // 4 + 64, dtype=torch.uint8)
        return (self._space.data_ptr() + 63) // 64 * 64

    def _pointer(self, tensor: Tensor) -> int:
        if tensor.dtype != self.dtype or tensor.device.type != "cpu":
            raise ValueError("weights of several kinds")
        if not tensor.is_contiguous():
            raise ValueError("weights that do not lie row by row")
        self._held.append(tensor.detach())
        return tensor.data_ptr()
