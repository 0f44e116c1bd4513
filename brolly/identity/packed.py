"""How many numbers a tensor stands for, whatever it is packed in: scales, zero points and buffers are none of them.

One pass over the names, with what a quantiser wrote beside them; nothing of a tensor's bytes is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from math import prod
from typing import Any, NamedTuple

from brolly.card import TensorInfo

# of a quantiser, beside the weights: never numbers of the model
BESIDE = frozenset(
    """qzeros g_idx q_scale q_scale_max q_groups q_group_map q_invperm q_perm suh svh su sv mcg mul1
    absmax quant_map nested_absmax nested_quant_map SCB weight_format weight_shape weight_g_idx
    weight_zero_point input_zero_point output_zero_point qscale_weight
    weight_scale weight_scale_inv weight_scale_2 weight_scales weight_global_scale input_global_scale input_scale
    input_scale_2 output_scale activation_scale act_scale input_scale_ub pre_quant_scale k_scale v_scale kv_scale
    kv_cache_scaling_factor prob_scale weight_bias_correction _scale _shift _zeropoint qscale_act scale_weight
    scale_input weight_scale_second""".split()  # noqa: SIM905
)
SURE = frozenset(
    [
        "qzeros",
        "absmax",
        "quant_map",
        "nested_absmax",
        "nested_quant_map",
        "SCB",
        "weight_format",
        "weight_shape",
        "weight_g_idx",
    ]
)  # noqa: SIM905
BUFFERS = frozenset(
    """inv_freq position_ids masked_bias num_batches_tracked running_mean running_var cos_cached sin_cached freqs
    freqs_cis relative_position_index layer_scalar embed_scale token_type_ids attn_mask slope_rate exp_avg exp_avg_sq
    max_exp_avg_sq momentum_buffer causal_mask
    rope_freqs original_inv_freq""".split()  # noqa: SIM905
)
APART = ("optimizer.", "optimizer_state", "optimizer/", "rope_freqs.", "rope_factors_")
EMA = ("model_ema.", "ema_model.", "ema.", "ema/")
CERTAIN = {"BF16": "BF16", "F16": "F16", "F32": "F32", "F8_E4M3": "FP8_E4M3", "F8_E5M2": "FP8_E5M2"}  # weights as such
EIGHT = frozenset(("F8_E4M3", "F8_E5M2", "I8", "U8"))
PACKABLE = frozenset(("I32", "U32", "I16", "U8", "I8", "U16", "I64"))
WHOLE = frozenset(("I64", "I32", "I16", "U64", "U32", "U16", "BOOL", "U8"))  # without a packing, no weights
WORDS = {"F8_E4M3": "FP8_E4M3", "F8_E5M2": "FP8_E5M2", "F8_E4M3FNUZ": "FP8_E4M3", "I8": "INT8", "F4": "FP4"}
OPAQUE = ("aqlm", "quip", "quip#", "vptq", "spqr", "higgs", "fp_quant", "tequila", "fbgemm_int4")
FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS",
    21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S",
    29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4",
}  # fmt: skip
NEAR = ("weight", "qweight", "weight_packed", "q_weight", "trellis", "_data", "W_q", "B")
SETTINGS = ("quantize_config.json", "quant_config.json", "hf_quant_config.json", "quantization_config.json")


class Scheme(NamedTuple):
    """What a config says of its quantisation, and where. `bits` and `group` are None where it does not tell."""

    method: str = ""
    bits: float | None = None
    group: int | None = None
    file: str = ""
    key: str = ""
    said: Mapping[str, Any] = {}

    @property
    def opaque(self) -> bool:
        return self.method in OPAQUE


class Counted(NamedTuple):
    """A tensor, the numbers it stands for (0: none of the model's), their precision's word, and if that is sure."""

    info: TensorInfo
    n_params: int
    word: str
    sure: bool = True


def scheme_of(config: Mapping[str, Any], files: Mapping[str, Mapping[str, Any]] | None = None) -> Scheme:
    """The quantisation that a config, or one of the files beside it, declares; an empty Scheme where none does."""
    for key, place in declared(config):
        method = str(place.get("quant_method") or place.get("quant_type") or place.get("mode") or "").lower()
        if key.endswith("quantization") and "group_size" in place:
            method = "mlx" if method in ("", "affine", "mlx") else f"mlx-{method.removeprefix('mlx-')}"
        own = {} if "expert_dtype" in place else {k: config[k] for k in ("expert_dtype",) if k in config}
        found = _scheme(method, {**place, **own}, "config.json", key)  # DeepSeek-V4-Pro states it one level above
        if found.method:
            return found
    for name, place in (files or {}).items():
        inner = place.get("quantization") if isinstance(place.get("quantization"), Mapping) else place
        if isinstance(inner, Mapping) and inner:
            method = str(inner.get("quant_method") or inner.get("quant_algo") or "").lower()
            if not method and "desc_act" in inner:
                method = "gptq"
            if not method and ("q_group_size" in inner or "w_bit" in inner):
                method = "awq"
            if method:
                return _scheme(method, inner, name, "quantization" if inner is not place else "")
    return Scheme()


def declared(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every place of a config where a quantisation may stand, the outermost first."""
    for prefix, place in (("", config), *((f"{k}.", v) for k, v in config.items() if k.endswith("config"))):
        if not isinstance(place, Mapping):
            continue
        for key in ("quantization_config", "compression_config", "quantization"):
            inner = place.get(key)
            if isinstance(inner, Mapping) and inner:
                yield prefix + key, inner


def _scheme(method: str, said: Mapping[str, Any], file: str, key: str) -> Scheme:
    def number(*names: str) -> Any:
        for name in names:
            value = said.get(name)
            if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= 4096:
                return value
        return None

    bits, group = number("bits", "w_bit", "nbits", "num_bits"), number("group_size", "q_group_size")
    if method in ("bitsandbytes", "bnb", "bitsandbytes_4bit", "bitsandbytes_8bit"):
        bits = 4 if said.get("load_in_4bit") or said.get("_load_in_4bit") else 8
        method = "bitsandbytes"
    if method in ("compressed-tensors", "compressed_tensors"):
        method = "compressed-tensors"
        kinds = {k for g in groups(said) if (k := _whole(g.get("num_bits")))}
        bits = next(iter(kinds)) if len(kinds) == 1 else None
        group = next((n for g in groups(said) if (n := _whole(g.get("group_size")))), None)
    if method in ("modelopt", "modelopt_fp4", "nvfp4") and (algorithm := said.get("quant_algo")):
        method = str(algorithm).lower()
    if method == "hqq" and isinstance(inner := said.get("quant_config"), Mapping):
        inner = inner.get("weight_quant_params")
        if isinstance(inner, Mapping):
            bits, group = _whole(inner.get("nbits")), _whole(inner.get("group_size"))
    if method == "quanto":
        bits = {"int4": 4, "int2": 2, "int8": 8, "float8": 8}.get(str(said.get("weights")))
    return Scheme(method, bits, int(group) if group else None, file, key, said)


def _whole(value: Any) -> int | None:
    return value if type(value) is int and 0 < value <= 4096 else None


def groups(said: Mapping[str, Any]) -> list[dict[str, Any]]:
    """compressed-tensors' groups: what each does to weights, and which modules it is for."""
    found = said.get("config_groups")
    out = []
    for group in list(found.values())[:64] if isinstance(found, Mapping) else []:
        if isinstance(group, Mapping) and isinstance(weights := group.get("weights"), Mapping):
            out.append({**weights, "targets": group.get("targets"), "format": group.get("format")})
    return out


def count(
    tensors: Mapping[str, TensorInfo],
    scheme: Scheme | None = None,
    marked: Mapping[str, tuple[int, str, bool]] | None = None,
) -> Iterator[Counted]:
    """Every tensor with the numbers it stands for; `marked` are those of which the format's reader told."""
    scheme = scheme or Scheme()
    rule = Packing(tensors, scheme)
    ema = any(name.startswith(EMA) for name in tensors) and any(
        not name.startswith((*EMA, *APART)) and (not marked or marked.get(name, (1,))[0]) for name in tensors
    )
    buffers, beside, plain, whole, certain = BUFFERS, BESIDE, rule.plain, WHOLE, CERTAIN
    for name, info in tensors.items():
        suffix = name.rpartition(".")[2]
        if marked and name in marked:
            yield Counted(info, *marked[name])
        elif suffix in buffers or name.startswith(APART) or (ema and name.startswith(EMA)):
            yield Counted(info, 0, "")
        elif info.shards:
            yield Counted(info, joined(info), WORDS.get(info.dtype, info.dtype))
        elif suffix in beside and rule.is_beside(name, suffix):
            yield Counted(info, 0, "")
        elif suffix == "weight" and (word := certain.get(info.dtype)):
            yield Counted(info, prod(info.shape), word)
        elif info.dtype in plain and suffix not in rule.suspects and "_scale" not in suffix:
            yield Counted(info, prod(info.shape), info.dtype)
        else:
            yield rule.count(name, suffix, info, whole)


def joined(info: TensorInfo) -> int:
    """Of model-parallel pieces: vectors are copies of each other, matrices are cut."""
    return info.n_elements if len(info.shape) < 2 else sum(piece.n_elements for piece in info.shards)


class Packing:
    """The rules for one checkpoint: what its quantiser calls things, and what stands beside what."""

    plain = frozenset(("F32", "F16", "BF16", "F64"))
    suspects = frozenset(
        "bias scales biases scale s codebooks zero zeros lookup_table weights Wscale centroids".split()  # noqa: SIM905
    )

    def __init__(self, tensors: Mapping[str, TensorInfo], scheme: Scheme) -> None:
        self.tensors, self.scheme = tensors, scheme
        self.memo: dict[str, Any] = {}

    def is_beside(self, name: str, suffix: str) -> bool:
        """Whether a quantiser's word stands beside a weight, or in a checkpoint that is quantised."""
        if suffix in SURE or self.scheme.method:
            return True
        stem = name[: -len(suffix)]
        return any(stem + other in self.tensors for other in NEAR)

    def count(self, name: str, suffix: str, info: TensorInfo, whole: frozenset[str]) -> Counted:
        n, dtype, tensors, stem = info.n_elements, info.dtype, self.tensors, name[: len(name) - len(suffix)]
        if suffix == "bias" and dtype in self.plain | {"BOOL", "U8"}:
            mask = len(info.shape) == 4 and info.shape[:2] == (1, 1) and info.shape[2] == info.shape[3] > 1
            return Counted(info, 0 if mask and "att" in name else n, WORDS.get(dtype, dtype))
        if suffix in ("scales", "biases") and any(stem + w in tensors for w in ("qweight", "weight")):
            beside = stem + "qweight" in tensors or tensors[stem + "weight"].dtype in ("U32", "I8", "U8")
            return Counted(info, 0 if beside else n, "" if beside else dtype)
        if suffix in ("scale", "zero", "zeros", "s") and any(
            stem + w in tensors for w in ("W_q", "B", "weight_packed")
        ):
            return Counted(info, 0, "")
        if suffix == "scale" and (weight := tensors.get(stem + "weight")) and weight.dtype in EIGHT:
            return Counted(info, 0, "")
        if suffix == "weights" and name.endswith("embed_positions.weights"):
            return Counted(info, 0, "")  # sinusoids
        if suffix in ("codebooks", "centroids", "lookup_table", "Wscale"):
            return Counted(info, 0 if self.scheme.opaque else n, dtype, not self.scheme.opaque)
        if ".quant_state." in name or suffix in ("indices", "codes", "Qidxs", "res_indices"):
            return Counted(info, 0, "", not self.scheme.opaque)
        if dtype == "F8_E8M0" or self.has_weight(name):
            return Counted(info, 0, "")
        if dtype in PACKABLE and (found := self.unpacked(name, suffix, stem, info)):
            return found
        if dtype in whole:
            # a U8 weight that nobody explains may hold two numbers a byte, or one
            unclear = dtype in ("U8", "U32", "I32") and suffix.endswith(("weight", "qweight")) and len(info.shape) > 1
            return Counted(info, n if unclear else 0, WORDS.get(dtype, dtype) if unclear else "", not unclear)
        return Counted(info, n, WORDS.get(dtype, dtype))

    def has_weight(self, name: str) -> bool:
        for ending in ("_scale_inv", "_scales", "_scale_2", "_zero_point", "_input_scale", "_weight_scale", "_scale"):
            if name.endswith(ending):
                stem = name[: -len(ending)]
                if any(stem + more in self.tensors for more in ("", "_blocks", "_packed", ".weight", "_weight")):
                    return True
        return False

    def unpacked(self, name: str, suffix: str, stem: str, info: TensorInfo) -> Counted | None:
        """The numbers behind packed integers; None where nothing says that they are packed."""
        tensors, scheme, n, dtype = self.tensors, self.scheme, info.n_elements, info.dtype
        if suffix == "qweight":
            return self.qweight(stem, info)
        if (
            suffix == "q_weight"
            and info.shape
            and (order := tensors.get(stem + "q_invperm") or tensors.get(stem + "q_perm"))
        ):
            return Counted(info, order.n_elements * info.shape[-1], "EXL2")
        if suffix == "trellis" and stem + "suh" in tensors and stem + "svh" in tensors:
            return Counted(info, tensors[stem + "suh"].n_elements * tensors[stem + "svh"].n_elements, "EXL3")
        if suffix == "B" and stem + "s" in tensors and dtype == "I32":
            return Counted(info, n * 8, "INT4")  # Marlin
        if suffix.endswith("_blocks") and dtype == "U8":
            return Counted(info, n * 2, "MXFP4")
        if suffix == "weight_packed" or suffix.endswith("_packed"):
            return self.compressed(name, stem, info)
        if suffix == "W_q":
            bits = scheme.bits or 4
            return Counted(info, int(n * 8 // bits), f"INT{bits:g}", scheme.bits in (1, 2, 4, 8) and dtype == "U8")
        if suffix.endswith("qdata"):  # torchao
            return Counted(info, n * 2 if dtype == "U8" else n, "INT4" if dtype == "U8" else "INT8", dtype == "I8")
        if suffix == "_data":
            bits = scheme.bits or (8 if dtype == "I8" else 4)
            return Counted(info, int(n * (8 // bits)) if dtype == "U8" else n, f"INT{bits:g}", scheme.bits is not None)
        if dtype == "U32" and (scales := tensors.get(stem + "scales")):
            return self.mlx(stem, info, scales)
        if dtype == "U8" and (suffix == "weight" or suffix.endswith(("_proj", "weight"))):
            state = next((w for w in ("nf4", "fp4") if f"{name}.quant_state.bitsandbytes__{w}" in tensors), None)
            if state or f"{name}.absmax" in tensors:
                return Counted(info, n * 2, (state or "nf4").upper())
            if f"{name}_scale" in tensors or stem + "weight_scale" in tensors or f"{name}_scale_inv" in tensors:
                return self.bytes_with_scale(name, info)
            if scheme.method == "bitsandbytes" and scheme.bits == 4 and info.shape[-1:] == (1,):
                return Counted(info, n * 2, "NF4")
        if dtype in ("I8", "F8_E4M3"):
            method = scheme.method
            kinds = f"{method} {scheme.said.get('expert_dtype', '')}"
            four = dtype == "I8" and ".experts." in name and "fp4" in kinds
            return Counted(info, n * 2, "MXFP4") if four else Counted(info, n, WORDS.get(dtype, dtype))
        return None

    def bytes_with_scale(self, name: str, info: TensorInfo) -> Counted:
        """U8 with a scale: two FP4 numbers a byte (NVFP4 has a second scale, MXFP4 none), or four of BitNet's trits."""
        method, n = self.scheme.method, info.n_elements
        if method == "bitnet":
            return Counted(info, n * 4, "INT2")
        scale = self.tensors.get(f"{name}_scale")
        two = f"{name}_scale_2" in self.tensors or "fp4" in method
        if two or (scale and scale.dtype in ("F8_E4M3", "U8", "F8_E8M0") and len(scale.shape) > 1):
            return Counted(info, n * 2, "NVFP4" if two and "mxfp4" not in method else "MXFP4")
        return Counted(info, n, "INT8", False)

    def qweight(self, stem: str, info: TensorInfo) -> Counted:
        """GPTQ packs rows, AWQ columns; what stands beside them says how many numbers there were."""
        tensors, bits = self.tensors, self.scheme.bits
        order, scales, n = tensors.get(stem + "g_idx"), tensors.get(stem + "scales"), info.n_elements
        width = {"I32": 32, "I16": 16, "U8": 8, "I8": 8}.get(info.dtype, 32)
        if len(info.shape) == 2:
            rows, columns = info.shape
            if order and order.n_elements >= rows and rows and columns:
                packed = rows * width / order.n_elements
                if 1 <= packed <= 8:
                    return Counted(info, order.n_elements * columns, f"INT{round(packed)}")
            if scales and len(scales.shape) == 2 and bits and scales.shape[1] * bits == columns * width:
                return Counted(info, rows * scales.shape[1], f"INT{bits:g}")
            if scales and len(scales.shape) == 2 and not bits and scales.shape[1] > columns:
                return Counted(info, rows * scales.shape[1], f"INT{round(columns * width / scales.shape[1])}")
        sure = bits is not None
        bits = bits or 4
        return Counted(info, int(n * width // bits), f"INT{bits:g}", sure)

    def compressed(self, name: str, stem: str, info: TensorInfo) -> Counted:
        """compressed-tensors: words of several integers, or bytes of two FP4 numbers."""
        n = info.n_elements
        if info.dtype == "U8":
            mx = self.tensors.get(stem + "weight_scale")
            return Counted(info, n * 2, "MXFP4" if mx and mx.dtype in ("U8", "F8_E8M0") else "NVFP4")
        bits = self.bits_for(stem.rstrip("."))
        return Counted(info, int(n * 32 // (bits or 4)), f"INT{bits or 4:g}", bits is not None)

    def bits_for(self, module: str) -> float | None:
        """The bits of the group whose targets name the module."""
        if self.scheme.bits:
            return self.scheme.bits
        kin = re.sub(r"\d+", "0", module)
        if kin not in self.memo:
            self.memo[kin] = next((g.get("num_bits") for g in groups(self.scheme.said) if targets(g, module)), None)
        return self.memo[kin]

    def mlx(self, stem: str, info: TensorInfo, scales: TensorInfo) -> Counted:
        """MLX: 32-bit words of any bits, one scale for a group; the scales' shape says how many numbers there were."""
        said = self.scheme.said
        own = said.get(stem.rstrip(".")) if isinstance(said.get(stem.rstrip(".")), Mapping) else {}
        group = _whole(own.get("group_size")) or self.scheme.group if isinstance(own, Mapping) else self.scheme.group
        if group and scales.n_elements and info.n_elements:
            n = scales.n_elements * group
            bits = info.n_elements * 32 / n
            if bits in (2, 3, 4, 5, 6, 8):
                word = "MXFP4" if scales.dtype == "U8" and bits == 4 else f"INT{bits:g}"
                return Counted(info, n, word)
        width = (_whole(own.get("bits")) if isinstance(own, Mapping) else None) or self.scheme.bits
        return Counted(info, int(info.n_elements * 32 // (width or 4)), f"INT{width or 4:g}", width is not None)


def targets(group: Mapping[str, Any], module: str) -> bool:
    """Whether a group's targets ("Linear", a module's name, or "re:" and a pattern) name a module."""
    for target in group.get("targets") or ():
        if not isinstance(target, str):
            continue
        if target in ("Linear", module) or module.endswith("." + target):
            return True
        pattern = target[3:] if target.startswith("re:") else ""
        # patterns come from the file: only short ones, and none that could go back and forth for ever
        tame = 0 < len(pattern) <= 200 and len(module) <= 300 and pattern.count("*") + pattern.count("+") <= 4
        if tame and not re.search(r"\)[*+{?]|\\\d", pattern):
            try:
                if re.match(pattern, module):
                    return True
            except (re.error, RecursionError, OverflowError):
                continue
    return False


NAMES = {
    "gptq": "GPTQ", "awq": "AWQ", "mlx": "MLX", "hqq": "HQQ", "eetq": "EETQ", "aqlm": "AQLM", "vptq": "VPTQ",
    "exl3": "EXL3",
    "auto-round": "AutoRound", "intel/auto-round": "AutoRound", "quip": "QuIP#", "exl2": "EXL2",
}  # fmt: skip


def described(scheme: Scheme, words: Mapping[str, float], metadata: Mapping[str, Any], form: str) -> str | None:
    """The quantisation in words for a person; None for a checkpoint that is not quantised."""
    main = max(words, key=lambda w: words[w]) if words else ""
    if form == "gguf" or "general.file_type" in metadata:
        said = metadata.get("general.file_type")
        name = FILE_TYPES.get(said, "") if type(said) is int else ""
        name = name or main
        return f"GGUF {name}" if name and name not in ("F32", "F16", "BF16") else None
    method, bits, group, said = scheme.method, scheme.bits, scheme.group, scheme.said
    packed = next((w for w in words if w not in ("F32", "F16", "BF16", "F64")), "")
    if not method and not packed:
        return None
    in_groups = f", groups of {group}" if group and group > 0 else ""
    if "mxfp4" in method or (method in ("", "mlx-mxfp4") and "MXFP4" in words):
        return "MXFP4"
    if "nvfp4" in method or "NVFP4" in words:
        return "NVFP4"
    if method == "bitsandbytes":
        kind = str(said.get("bnb_4bit_quant_type") or "nf4").upper()
        return f"bitsandbytes {kind} 4-bit" if bits == 4 else "bitsandbytes LLM.int8() 8-bit"
    if method in ("fp8", "fbgemm_fp8", "finegrained_fp8", "float8", "fp8_e4m3") or not method and packed[:3] == "FP8":
        block = said.get("weight_block_size")
        blocks = f", blocks of {'×'.join(str(b) for b in block)}" if isinstance(block, list) and len(block) == 2 else ""
        return f"FP8 ({'E5M2' if 'FP8_E5M2' in words else 'E4M3'}){blocks}"
    if method == "compressed-tensors":
        form = str(said.get("format") or "")
        if packed.startswith("FP8"):
            return "compressed-tensors FP8 (E4M3)"
        kinds = sorted({k for g in groups(said) if (k := _whole(g.get("num_bits")))})
        many = " and ".join(f"{k}-bit" for k in kinds)
        return f"compressed-tensors {many or form}{in_groups}".rstrip()
    name = NAMES.get(method, method or packed)
    if method == "bitnet":
        return "BitNet, three values a weight"
    width = f" {bits:g}-bit" if bits else ""
    return f"{name}{width}{in_groups}"
