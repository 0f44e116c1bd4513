"""How published quantisations store a linear layer: each turns `x.weight` into what its own files have."""

from __future__ import annotations

import re
from collections.abc import Callable

from tests.identity.real.decoders import Tensors

Matrix = tuple[str, int, int]  # of x.weight: "x", rows (out), columns (in)


def packed(tensors: Tensors, how: Callable[[str, int, int], Tensors], only: str) -> Tensors:
    """The tensors, with each matrix whose module's name matches `only` packed."""
    out: Tensors = {}
    pattern = re.compile(only)
    for name, (dtype, shape) in tensors.items():
        module = name.removesuffix(".weight")
        if name.endswith(".weight") and len(shape) == 2 and pattern.search(module):
            out |= how(module, *shape)
        else:
            out[name] = dtype, shape
    return out


def cast(tensors: Tensors, dtype: str) -> Tensors:
    return {name: (dtype if kind == "BF16" else kind, shape) for name, (kind, shape) in tensors.items()}


def gptq(at: str, rows: int, columns: int) -> Tensors:
    """AutoGPTQ, 4 bits, groups of 128; it writes a bias for every layer, whether the model has one or not."""
    return {
        f"{at}.qweight": ("I32", (columns // 8, rows)), f"{at}.qzeros": ("I32", (columns // 128, rows // 8)),
        f"{at}.scales": ("F16", (columns // 128, rows)), f"{at}.g_idx": ("I32", (columns,)),
        f"{at}.bias": ("F16", (rows,)),
    }  # fmt: skip


def gptq_plain(at: str, rows: int, columns: int) -> Tensors:
    """GPTQModel and Qwen's own: without such a bias."""
    found = gptq(at, rows, columns)
    del found[f"{at}.bias"]
    return found


def awq(at: str, rows: int, columns: int) -> Tensors:
    """AutoAWQ's GEMM layout, 4 bits, groups of 128."""
    return {
        f"{at}.qweight": ("I32", (columns, rows // 8)), f"{at}.qzeros": ("I32", (columns // 128, rows // 8)),
        f"{at}.scales": ("F16", (columns // 128, rows)),
    }  # fmt: skip


def bnb4(at: str, rows: int, columns: int) -> Tensors:
    """bitsandbytes' NF4 with double quantisation: blocks of 64, their maxima in blocks of 256."""
    n = rows * columns
    return {
        f"{at}.weight": ("U8", (n // 2, 1)), f"{at}.weight.absmax": ("U8", (n // 64,)),
        f"{at}.weight.quant_map": ("F32", (16,)), f"{at}.weight.nested_absmax": ("F32", (n // 64 // 256,)),
        f"{at}.weight.nested_quant_map": ("F32", (256,)),
        f"{at}.weight.quant_state.bitsandbytes__nf4": ("U8", (166,)),
    }  # fmt: skip


def pack_quantized(at: str, rows: int, columns: int) -> Tensors:
    """compressed-tensors, 4 bits in I32, groups of 128, with act-order's permutation."""
    return {
        f"{at}.weight_packed": ("I32", (rows, columns // 8)), f"{at}.weight_scale": ("BF16", (rows, columns // 128)),
        f"{at}.weight_shape": ("I64", (2,)), f"{at}.weight_g_idx": ("I32", (columns,)),
    }  # fmt: skip


def pack_kimi(at: str, rows: int, columns: int) -> Tensors:
    """Kimi K2.5's experts: 4 bits in I32, groups of 32."""
    return {
        f"{at}.weight_packed": ("I32", (rows, columns // 8)), f"{at}.weight_scale": ("BF16", (rows, columns // 32)),
        f"{at}.weight_shape": ("I32", (2,)),
    }  # fmt: skip


def fp8_block(at: str, rows: int, columns: int) -> Tensors:
    """DeepSeek's FP8: a scale for each block of 128 × 128."""
    scales = (-(-rows // 128), -(-columns // 128))
    return {f"{at}.weight": ("F8_E4M3", (rows, columns)), f"{at}.weight_scale_inv": ("F32", scales)}


def fp8_tensor(at: str, rows: int, columns: int) -> Tensors:
    """compressed-tensors' FP8 with one scale a tensor and static activations."""
    return {
        f"{at}.weight": ("F8_E4M3", (rows, columns)), f"{at}.weight_scale": ("BF16", (1,)),
        f"{at}.input_scale": ("BF16", (1,)),
    }  # fmt: skip


def nvfp4(at: str, rows: int, columns: int) -> Tensors:
    """ModelOpt's NVFP4: two numbers a byte, an FP8 scale for 16 of them, a scale of the scales."""
    return {
        f"{at}.weight": ("U8", (rows, columns // 2)), f"{at}.weight_scale": ("F8_E4M3", (rows, columns // 16)),
        f"{at}.weight_scale_2": ("F32", ()), f"{at}.input_scale": ("F32", ()),
    }  # fmt: skip


def mlx4(at: str, rows: int, columns: int) -> Tensors:
    """MLX, 4 bits in U32, groups of 64: a scale and a bias for each."""
    return {
        f"{at}.weight": ("U32", (rows, columns // 8)), f"{at}.scales": ("BF16", (rows, columns // 64)),
        f"{at}.biases": ("BF16", (rows, columns // 64)),
    }  # fmt: skip


def mlx8(at: str, rows: int, columns: int) -> Tensors:
    return mlx4(at, rows, columns) | {f"{at}.weight": ("U32", (rows, columns // 4))}


LINEAR = r"layers\.\d+\.(self_attn|mlp)\.\w+_proj$"  # every linear layer of a dense Llama's blocks
PACKINGS: dict[str, tuple[Callable[[str, int, int], Tensors], str]] = {
    "awq": (awq, LINEAR), "bnb4": (bnb4, LINEAR), "fp8_tensor": (fp8_tensor, LINEAR),
    "fp8_block": (fp8_block, r"layers\.\d+\.(self_attn|mlp)\.(experts\.\d+\.|shared_experts\.)?\w+_proj(_with_mqa)?$"),
    "gptq": (gptq, LINEAR), "gptq_plain": (gptq_plain, LINEAR),
    "mlx4": (mlx4, LINEAR + r"|embed_tokens$|lm_head$"), "mlx8": (mlx8, LINEAR + r"|embed_tokens$|lm_head$"),
    "nvfp4": (nvfp4, LINEAR), "pack_quantized": (pack_quantized, LINEAR), "pack_kimi": (pack_kimi, r"mlp\.experts\."),
    "pack_nemotron": (pack_quantized, r"mixer\.(up|down|in|out|q|k|v|o)_proj$"),
}  # fmt: skip
