"""Small checkpoints of every format, each written by the format's own library or by hand, and a way to read them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from pathlib import Path

import gguf
import torch
from safetensors.torch import save_file
from torch import Tensor

from brolly.card import Header, TensorInfo
from brolly.checkpoint import Mapped

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U64": torch.uint64,
    "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8, "BOOL": torch.bool, "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
WORDS = {dtype: word for word, dtype in DTYPES.items()}
# safetensors knows them all; numpy, and so gguf's writer, only these
GGUF_KINDS = {"F32": "<f4", "F16": "<f2", "F64": "<f8", "I8": "i1", "I16": "<i2", "I32": "<i4", "I64": "<i8"}


def numbers(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Seeded numbers of any dtype."""
    chosen = torch.randint(-100, 100, shape, generator=torch.Generator().manual_seed(seed))
    return (chosen % 2 == 0) if dtype == torch.bool else (chosen.abs() if "uint" in str(dtype) else chosen).to(dtype)


def some_tensors(dtypes: Iterable[str] = DTYPES) -> dict[str, Tensor]:
    """A matrix, a row and a scalar of each dtype, and an empty tensor; a name may hold any letter."""
    found = {}
    for seed, word in enumerate(dtypes):
        for shape in ((3, 5), (7,), ()):
            found[f"layers.{word}.{len(shape)} é☂"] = numbers(*shape, dtype=DTYPES[word], seed=seed)
    return found | {"empty": torch.empty(0, 4)}


def raw_bytes(tensor: Tensor) -> bytes:
    return bytes(tensor.contiguous().flatten().view(torch.uint8).tolist()) if tensor.numel() else b""


def read_tensor(mapped: Mapped, info: TensorInfo) -> Tensor:
    """One tensor out of the file, straight from what its description says."""
    if info.n_elements == 0:
        return torch.empty(info.shape, dtype=DTYPES[info.dtype])
    flat = torch.frombuffer(bytearray(mapped.buffer(info)), dtype=DTYPES[info.dtype])
    return flat.view(info.shape) if info.strides is None else flat.as_strided(info.shape, info.strides)


def read_all(header: Header) -> dict[str, Tensor]:
    with Mapped(header) as mapped:
        return {name: read_tensor(mapped, info) for name, info in header.tensors.items()}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """The same names, and under each the same dtype, shape and bits."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape), name
        assert raw_bytes(found[name]) == raw_bytes(tensor), name


def write_gguf(path: Path, tensors: dict[str, Tensor], alignment: int = 32) -> Path:
    """GGUF version 3 with key-values of every type."""
    writer = gguf.GGUFWriter(path, "llama")
    if alignment != 32:
        writer.add_custom_alignment(alignment)
    writer.add_uint8("k.u8", 200)
    writer.add_int8("k.i8", -2)
    writer.add_uint16("k.u16", 60_000)
    writer.add_int16("k.i16", -300)
    writer.add_uint32("k.u32", 4_000_000_000)
    writer.add_int32("k.i32", -70_000)
    writer.add_uint64("k.u64", 2**63)
    writer.add_int64("k.i64", -(2**40))
    writer.add_float32("k.f32", 0.5)
    writer.add_float64("k.f64", 0.1)
    writer.add_bool("k.bool", True)
    writer.add_string("k.text", "umbrella ☂")
    writer.add_array("k.texts", ["a", "", "é"])
    writer.add_array("k.numbers", [1, -2, 3])
    writer.add_array("k.floats", [0.5, 1.5])
    for name, tensor in tensors.items():
        if tensor.dtype == torch.bfloat16:
            kind = gguf.GGMLQuantizationType.BF16
            writer.add_tensor(name, tensor.contiguous().view(torch.uint8).numpy(), raw_dtype=kind)
        else:
            writer.add_tensor(name, tensor.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_llama2c(path: Path, tied: bool = True, dim: int = 8, n_layers: int = 2) -> dict[str, Tensor]:
    """A `.bin` as llama2.c's export.py lays it out, by hand; and what it holds under Meta's names."""
    hidden, n_heads, n_kv, vocab, seq = 12, 4, 2, 10, 6
    kv = dim // n_heads * n_kv
    head = struct.pack("<7i", dim, hidden, n_layers, n_heads, n_kv, vocab if tied else -vocab, seq)
    layer = {
        "attention_norm": (dim,), "attention.wq": (dim, dim), "attention.wk": (kv, dim), "attention.wv": (kv, dim),
        "attention.wo": (dim, dim), "ffn_norm": (dim,), "feed_forward.w1": (hidden, dim),
        "feed_forward.w2": (dim, hidden), "feed_forward.w3": (hidden, dim),
    }  # fmt: skip
    found = {"tok_embeddings.weight": numbers(vocab, dim, seed=1)}
    for seed, (part, shape) in enumerate(layer.items()):
        for i in range(n_layers):
            found[f"layers.{i}.{part}.weight"] = numbers(*shape, seed=10 * seed + i)
    found["norm.weight"] = numbers(dim, seed=2)
    body = b"".join(map(raw_bytes, found.values()))
    body += raw_bytes(numbers(2 * seq, dim // n_heads // 2))  # two rotary tables, which nobody reads
    if not tied:
        found["output.weight"] = numbers(vocab, dim, seed=3)
        body += raw_bytes(found["output.weight"])
    path.write_bytes(head + body)
    return found


def _write_safetensors(path: Path) -> None:
    save_file(some_tensors(["F32", "BF16"]), path, metadata={"format": "pt"})


def _write_zip(path: Path) -> None:
    torch.save(some_tensors(["F32", "BF16"]), path)


def _write_legacy(path: Path) -> None:
    torch.save(some_tensors(["F32", "BF16"]), path, _use_new_zipfile_serialization=False)


def _write_gguf(path: Path) -> None:
    write_gguf(path, {"a": numbers(3, 4), "b": numbers(16, dtype=torch.bfloat16)})


def _write_llama2c(path: Path) -> None:
    write_llama2c(path)


# one small file of every format, by the name that it goes under
WRITERS: dict[str, Callable[[Path], None]] = {
    "model.safetensors": _write_safetensors,
    "model.pt": _write_zip,
    "legacy.pt": _write_legacy,
    "model.gguf": _write_gguf,
    "model.bin": _write_llama2c,
}
