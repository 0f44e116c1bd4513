"""True counts: a model has as many parameters as before, whatever a quantiser packed them in.

Several are the mistakes of other tools (huggingface.js #1770, #2003, #2321, #2323; hub-docs #2704; llmfit #622;
huggingface_hub #4221; oMLX #3489).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from brolly.identity.packed import FILE_TYPES, Scheme, count, scheme_of, targets
from brolly.identity.sizes import parameters_of
from tests.identity.published import TEXT, TOTALS
from tests.identity.published import llama as config_of
from tests.identity.shaped import llama, packed_linear, subject_of, tensors_of

CONFIG = config_of(512, 2, 8, 2, 1024, 3000)
PLAIN = llama(512, 2, 128, 1024, 3000)
TRUE = sum(a * (b[0] if (b := s[1:]) else 1) for _, s in PLAIN.values() for a in s[:1])
GROUP = 128


def gptq(bits: int) -> Any:
    def pack(stem: str, out: int, into: int) -> dict[str, Any]:
        return {
            f"{stem}.qweight": ("I32", (into * bits // 32, out)), f"{stem}.g_idx": ("I32", (into,)),
            f"{stem}.qzeros": ("I32", (into // GROUP, out * bits // 32)),
            f"{stem}.scales": ("F16", (into // GROUP, out)),
        }  # fmt: skip

    return pack


def awq(stem: str, out: int, into: int) -> dict[str, Any]:
    return {
        f"{stem}.qweight": ("I32", (into, out // 8)), f"{stem}.qzeros": ("I32", (into // GROUP, out // 8)),
        f"{stem}.scales": ("F16", (into // GROUP, out)),
    }  # fmt: skip


def awq_gemv(stem: str, out: int, into: int) -> dict[str, Any]:
    return {
        f"{stem}.qweight": ("I32", (out, into // 8)), f"{stem}.qzeros": ("I32", (out, into // GROUP // 4)),
        f"{stem}.scales": ("F16", (out, into // GROUP)),
    }  # fmt: skip


def nf4(stem: str, out: int, into: int) -> dict[str, Any]:
    n = out * into
    return {
        f"{stem}.weight": ("U8", (n // 2, 1)), f"{stem}.weight.absmax": ("U8", (n // 64,)),
        f"{stem}.weight.quant_map": ("F32", (16,)), f"{stem}.weight.nested_absmax": ("F32", (n // 64 // 256 + 1,)),
        f"{stem}.weight.nested_quant_map": ("F32", (256,)),
        f"{stem}.weight.quant_state.bitsandbytes__nf4": ("U8", (80,)),
    }  # fmt: skip


def int8(stem: str, out: int, into: int) -> dict[str, Any]:
    return {f"{stem}.weight": ("I8", (out, into)), f"{stem}.SCB": ("F32", (out,)), f"{stem}.weight_format": ("U8", ())}


def nvfp4(stem: str, out: int, into: int) -> dict[str, Any]:
    return {
        f"{stem}.weight": ("U8", (out, into // 2)), f"{stem}.weight_scale": ("F8_E4M3", (out, into // 16)),
        f"{stem}.weight_scale_2": ("F32", ()), f"{stem}.input_scale": ("F32", ()),
    }  # fmt: skip


def nvfp4_compressed(stem: str, out: int, into: int) -> dict[str, Any]:
    return {
        f"{stem}.weight_packed": ("U8", (out, into // 2)), f"{stem}.weight_scale": ("F8_E4M3", (out, into // 16)),
        f"{stem}.weight_global_scale": ("F32", (1,)), f"{stem}.input_global_scale": ("F32", (1,)),
    }  # fmt: skip


def compressed(bits: int) -> Any:
    def pack(stem: str, out: int, into: int) -> dict[str, Any]:
        return {
            f"{stem}.weight_packed": ("I32", (out, into * bits // 32)), f"{stem}.weight_shape": ("I64", (2,)),
            f"{stem}.weight_scale": ("BF16", (out, into // GROUP)), f"{stem}.weight_g_idx": ("I32", (into,)),
            f"{stem}.weight_zero_point": ("I32", (out // 8, into // GROUP)),
        }  # fmt: skip

    return pack


def fp8_blocks(stem: str, out: int, into: int) -> dict[str, Any]:
    blocks = (-(-out // 128), -(-into // 128))
    return {f"{stem}.weight": ("F8_E4M3", (out, into)), f"{stem}.weight_scale_inv": ("F32", blocks)}


def fp8_rows(stem: str, out: int, into: int) -> dict[str, Any]:
    return {f"{stem}.weight": ("F8_E4M3", (out, into)), f"{stem}.weight_scale": ("F32", (out, 1)),
            f"{stem}.input_scale_ub": ("F32", (1,)), f"{stem}.k_scale": ("F32", ())}  # fmt: skip


def hqq(stem: str, out: int, into: int) -> dict[str, Any]:
    return {f"{stem}.W_q": ("U8", (out * into // 64 // 2, 64)), f"{stem}.scale": ("F16", (out * into // 64, 1)),
            f"{stem}.zero": ("F16", (out * into // 64, 1))}  # fmt: skip


def eetq(stem: str, out: int, into: int) -> dict[str, Any]:
    return {f"{stem}.weight": ("I8", (into, out)), f"{stem}.weight_scales": ("F16", (out,))}


def quanto(stem: str, out: int, into: int) -> dict[str, Any]:
    return {f"{stem}.weight._data": ("I8", (out, into)), f"{stem}.weight._scale": ("BF16", (out, 1)),
            f"{stem}.input_scale": ("BF16", ()), f"{stem}.output_scale": ("BF16", ())}  # fmt: skip


def bitnet(stem: str, out: int, into: int) -> dict[str, Any]:
    return {f"{stem}.weight": ("U8", (out // 4, into)), f"{stem}.weight_scale": ("BF16", (1,))}


def exl2(stem: str, out: int, into: int) -> dict[str, Any]:
    return {f"{stem}.q_weight": ("I32", (into * 5 // 32, out)), f"{stem}.q_invperm": ("I16", (into,)),
            f"{stem}.q_scale": ("I32", (4, out // 8)), f"{stem}.q_scale_max": ("F16", (4,)),
            f"{stem}.q_groups": ("I16", (8,))}  # fmt: skip


def mlx(bits: int, group: int = 64) -> Any:
    def pack(stem: str, out: int, into: int) -> dict[str, Any]:
        return {f"{stem}.weight": ("U32", (out, into * bits // 32)), f"{stem}.scales": ("BF16", (out, into // group)),
                f"{stem}.biases": ("BF16", (out, into // group))}  # fmt: skip

    return pack


def said(method: str, **more: Any) -> dict[str, Any]:
    return {"quantization_config": {"quant_method": method, **more}}


PACKERS: list[tuple[str, Any, dict[str, Any], str, str]] = [
    ("GPTQ 4-bit", gptq(4), said("gptq", bits=4, group_size=128), "INT4", "GPTQ 4-bit, groups of 128"),
    ("GPTQ 3-bit", gptq(3), said("gptq", bits=3, group_size=128), "INT3", "GPTQ 3-bit, groups of 128"),
    ("GPTQ 8-bit", gptq(8), said("gptq", bits=8, group_size=128), "INT8", "GPTQ 8-bit, groups of 128"),
    ("AWQ", awq, said("awq", bits=4, group_size=128, version="gemm"), "INT4", "AWQ 4-bit, groups of 128"),
    ("AWQ gemv", awq_gemv, said("awq", bits=4, group_size=128, version="gemv"), "INT4", "AWQ 4-bit, groups of 128"),
    ("bitsandbytes", nf4, said("bitsandbytes", load_in_4bit=True, bnb_4bit_quant_type="nf4"), "NF4",
     "bitsandbytes NF4 4-bit"),
    ("LLM.int8()", int8, said("bitsandbytes", load_in_8bit=True), "INT8", "bitsandbytes LLM.int8() 8-bit"),
    ("NVFP4 of modelopt", nvfp4, said("modelopt", quant_algo="NVFP4"), "NVFP4", "NVFP4"),
    ("NVFP4 of compressed-tensors", nvfp4_compressed,
     said("compressed-tensors", format="nvfp4-pack-quantized",
          config_groups={"group_0": {"weights": {"num_bits": 4, "type": "float"}, "targets": ["Linear"]}}),
     "NVFP4", "NVFP4"),
    ("compressed-tensors", compressed(4),
     said("compressed-tensors", format="pack-quantized",
          config_groups={"group_0": {"weights": {"num_bits": 4, "group_size": 128}, "targets": ["Linear"]}}),
     "INT4", "compressed-tensors 4-bit, groups of 128"),
    ("FP8 in blocks", fp8_blocks, said("fp8", weight_block_size=[128, 128]), "FP8_E4M3",
     "FP8 (E4M3), blocks of 128×128"),
    ("FP8 in rows", fp8_rows, said("fbgemm_fp8"), "FP8_E4M3", "FP8 (E4M3)"),
    ("HQQ", hqq, said("hqq", quant_config={"weight_quant_params": {"nbits": 4, "group_size": 64}}), "INT4",
     "HQQ 4-bit, groups of 64"),
    ("EETQ", eetq, said("eetq"), "INT8", "EETQ"),
    ("quanto", quanto, said("quanto", weights="int8"), "INT8", "quanto 8-bit"),
    ("BitNet", bitnet, said("bitnet"), "INT2", "BitNet, three values a weight"),
    ("EXL2", exl2, said("exl2", bits=5.0), "EXL2", "EXL2 5-bit"),
    ("MLX 4-bit", mlx(4), {"quantization": {"bits": 4, "group_size": 64}}, "INT4", "MLX 4-bit, groups of 64"),
    ("MLX 3-bit", mlx(3), {"quantization": {"bits": 3, "group_size": 64}}, "INT3", "MLX 3-bit, groups of 64"),
]  # fmt: skip


@pytest.mark.parametrize("name,pack,config,word,text", PACKERS, ids=[p[0] for p in PACKERS])
def test_a_packed_model_has_as_many_parameters_as_before(
    tmp_path: Path, name: str, pack: Any, config: dict[str, Any], word: str, text: str
) -> None:
    found = parameters_of(subject_of(tmp_path, {**CONFIG, **config}, packed_linear(PLAIN, pack)))
    assert found.total == TRUE and found.exact and found.source == "tensors"
    assert word in found.shares and found.quantization == text
    linear = sum(s[0] * s[1] for n, (_, s) in PLAIN.items() if "_proj" in n)
    assert found.shares[word] == pytest.approx(linear / TRUE)


@pytest.mark.parametrize(
    "pack", [gptq(4), awq, nf4, int8, nvfp4, mlx(4), fp8_blocks, exl2], ids=lambda p: p.__qualname__
)
def test_packing_is_recognised_without_a_config(tmp_path: Path, pack: Any) -> None:
    shapes = packed_linear(PLAIN, pack)
    n = sum(c.n_params for c in count(tensors_of(shapes)))
    assert n == TRUE


def test_gptq_of_mixed_bits_is_counted_by_its_order_of_rows(tmp_path: Path) -> None:
    """GPTQModel's dynamic rules give single modules other bits than the config's."""
    shapes = packed_linear(PLAIN, lambda stem, out, into: gptq(8 if "down" in stem else 4)(stem, out, into))
    found = parameters_of(subject_of(tmp_path, {**CONFIG, **said("gptq", bits=4, group_size=128)}, shapes))
    assert found.total == TRUE and found.exact and set(found.shares) >= {"INT4", "INT8", "BF16"}


def test_settings_beside_the_config_count_too(tmp_path: Path) -> None:
    beside = {"quantize_config": {"bits": 4, "group_size": 128, "desc_act": False}}
    found = parameters_of(subject_of(tmp_path, CONFIG, packed_linear(PLAIN, gptq(4)), **beside))
    assert (found.total, found.quantization) == (TRUE, "GPTQ 4-bit, groups of 128")
    modelopt = {"hf_quant_config": {"quantization": {"quant_algo": "NVFP4", "group_size": 16}}}
    other = tmp_path / "other"
    other.mkdir()
    found = parameters_of(subject_of(other, CONFIG, packed_linear(PLAIN, nvfp4), **modelopt))
    assert (found.total, found.quantization) == (TRUE, "NVFP4")


def test_a_quantisation_may_be_nested_in_the_text_part(tmp_path: Path) -> None:
    """Kimi K2.5 was shown as 170 B instead of 1.06 T (huggingface.js #2003): its groups stand in text_config."""
    groups = {"group_0": {"weights": {"num_bits": 4, "group_size": 32}, "targets": ["Linear"]}}
    inner = {**CONFIG, **said("compressed-tensors", format="pack-quantized", config_groups=groups)}
    assert scheme_of({"model_type": "kimi_k25", "text_config": inner}).bits == 4
    shapes = {f"language_{n}": v for n, v in packed_linear(PLAIN, compressed(4)).items()}
    found = parameters_of(subject_of(tmp_path, {"model_type": "kimi_k25", "text_config": inner}, shapes))
    assert found.total == TRUE


def test_groups_of_compressed_tensors_have_their_own_bits(tmp_path: Path) -> None:
    groups = {
        "group_0": {"weights": {"num_bits": 4, "group_size": 128}, "targets": ["re:.*(gate|up|q|k|v|o)_proj"]},
        "group_1": {"weights": {"num_bits": 8, "group_size": 128}, "targets": [r"re:.*mlp\.down_proj$"]},
    }
    config = {**CONFIG, **said("compressed-tensors", format="pack-quantized", config_groups=groups)}
    shapes = packed_linear(PLAIN, lambda stem, o, i: compressed(8 if "down" in stem else 4)(stem, o, i))
    found = parameters_of(subject_of(tmp_path, config, shapes))
    assert found.total == TRUE and found.exact


def test_a_hostile_pattern_of_targets_is_not_run() -> None:
    import time

    start = time.perf_counter()
    group = {"targets": ["re:(a*)*b", "re:(a|a)+$", "re:a*a*a*a*a*a*b", "re:((a+)+)+b", "re:[", 7, "re:" + "a" * 9999]}
    assert not targets(group, "a" * 250)
    assert time.perf_counter() - start < 0.05


def test_mlx_words_are_not_eight_times_as_many_numbers(tmp_path: Path) -> None:
    """oMLX #3489: 32-bit words were multiplied again; and modules may have their own bits and groups."""
    own = {"bits": 4, "group_size": 64, "model.layers.0.mlp.down_proj": {"bits": 8, "group_size": 32}}
    shapes = packed_linear(
        PLAIN, lambda s, o, i: mlx(8, 32)(s, o, i) if s == "model.layers.0.mlp.down_proj" else mlx(4)(s, o, i)
    )
    found = parameters_of(subject_of(tmp_path, {**CONFIG, "quantization": own}, shapes))
    assert found.total == TRUE and found.exact


def gpt_oss(layers: int, experts: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """gpt-oss as published: expert matrices in blocks of MXFP4."""
    d, q, kv = 2880, 4096, 512
    out: dict[str, tuple[str, tuple[int, ...]]] = {"model.embed_tokens.weight": ("BF16", (201088, d))}
    for i in range(layers):
        p = f"model.layers.{i}."
        for name, rows in (("q", q), ("k", kv), ("v", kv)):
            out |= {
                f"{p}self_attn.{name}_proj.weight": ("BF16", (rows, d)),
                f"{p}self_attn.{name}_proj.bias": ("BF16", (rows,)),
            }
        out |= {
            f"{p}self_attn.o_proj.weight": ("BF16", (d, q)), f"{p}self_attn.o_proj.bias": ("BF16", (d,)),
            f"{p}self_attn.sinks": ("BF16", (64,)), f"{p}input_layernorm.weight": ("BF16", (d,)),
            f"{p}post_attention_layernorm.weight": ("BF16", (d,)), f"{p}mlp.router.weight": ("BF16", (experts, d)),
            f"{p}mlp.router.bias": ("BF16", (experts,)),
            f"{p}mlp.experts.gate_up_proj_blocks": ("U8", (experts, 2 * d, 90, 16)),
            f"{p}mlp.experts.gate_up_proj_scales": ("U8", (experts, 2 * d, 90)),
            f"{p}mlp.experts.gate_up_proj_bias": ("BF16", (experts, 2 * d)),
            f"{p}mlp.experts.down_proj_blocks": ("U8", (experts, d, 90, 16)),
            f"{p}mlp.experts.down_proj_scales": ("U8", (experts, d, 90)),
            f"{p}mlp.experts.down_proj_bias": ("BF16", (experts, d)),
        }  # fmt: skip
    return out | {"model.norm.weight": ("BF16", (d,)), "lm_head.weight": ("BF16", (201088, d))}


@pytest.mark.parametrize("name,layers,experts,active", [
    ("gpt-oss-20b", 24, 32, 3_608_307_264), ("gpt-oss-120b", 36, 128, 5_132_849_472),
])  # fmt: skip
def test_mxfp4_blocks_hold_two_numbers_a_byte(
    tmp_path: Path, name: str, layers: int, experts: int, active: int
) -> None:
    """huggingface.js #2321: gpt-oss was shown with half of its experts and with their scales."""
    config = {**TEXT[name], **said("mxfp4")}
    found = parameters_of(subject_of(tmp_path, config, gpt_oss(layers, experts)))
    assert found.total == TOTALS[name] and found.exact
    assert found.activated_without_embeddings == active
    assert found.precision == "MXFP4" and found.quantization == "MXFP4"


def deepseek(layers: range, mtp: bool) -> dict[str, tuple[str, tuple[int, ...]]]:
    """DeepSeek-V3 as published: FP8 with scales for blocks, the multi-token-prediction layer at the end."""
    out: dict[str, tuple[str, tuple[int, ...]]] = {"model.embed_tokens.weight": ("BF16", (129280, 7168))}

    def matrix(name: str, rows: int, columns: int) -> None:
        out[f"{name}.weight"] = ("F8_E4M3", (rows, columns))
        out[f"{name}.weight_scale_inv"] = ("F32", (-(-rows // 128), -(-columns // 128)))

    for i in layers:
        p = f"model.layers.{i}."
        for name, rows, columns in (("q_a_proj", 1536, 7168), ("q_b_proj", 24576, 1536), ("kv_b_proj", 32768, 512),
                                    ("kv_a_proj_with_mqa", 576, 7168), ("o_proj", 7168, 16384)):  # fmt: skip
            matrix(f"{p}self_attn.{name}", rows, columns)
        for name, size in (("self_attn.q_a_layernorm", 1536), ("self_attn.kv_a_layernorm", 512),
                           ("input_layernorm", 7168), ("post_attention_layernorm", 7168)):  # fmt: skip
            out[f"{p}{name}.weight"] = ("BF16", (size,))
        stems = [(f"{p}mlp", 18432)] if i < 3 else [(f"{p}mlp.experts.{e}", 2048) for e in range(256)]
        stems += [] if i < 3 else [(f"{p}mlp.shared_experts", 2048)]
        for stem, hidden in stems:
            matrix(f"{stem}.gate_proj", hidden, 7168)
            matrix(f"{stem}.up_proj", hidden, 7168)
            matrix(f"{stem}.down_proj", 7168, hidden)
        if i >= 3:
            out |= {
                f"{p}mlp.gate.weight": ("BF16", (256, 7168)),
                f"{p}mlp.gate.e_score_correction_bias": ("F32", (256,)),
            }
        if i == 61 and mtp:
            out |= {f"{p}embed_tokens.weight": ("BF16", (129280, 7168)), f"{p}eh_proj.weight": ("BF16", (7168, 14336)),
                    f"{p}enorm.weight": ("BF16", (7168,)), f"{p}hnorm.weight": ("BF16", (7168,)),
                    f"{p}shared_head.norm.weight": ("BF16", (7168,)),
                    f"{p}shared_head.head.weight": ("BF16", (129280, 7168))}  # fmt: skip
    return out | {"model.norm.weight": ("BF16", (7168,)), "lm_head.weight": ("BF16", (129280, 7168))}


def test_deepseek_is_counted_without_its_prediction_layer_and_in_time(tmp_path: Path) -> None:
    """671 B, of 684.5 B in the files (llmfit #622 saw 29.6 B); 91,000 tensors."""
    import time

    shapes = deepseek(range(62), True)
    config = {**TEXT["deepseek-r1"], **said("fp8", weight_block_size=[128, 128])}
    subject = subject_of(tmp_path, config, shapes)
    start = time.perf_counter()
    found = parameters_of(subject)
    took = time.perf_counter() - start
    assert len(shapes) > 90_000 and took < 1.5  # 0.2 s on a quiet machine
    assert found.total == TOTALS["deepseek-r1"] and found.exact
    assert found.total + found.components["mtp"] == pytest.approx(684.53e9, rel=1e-4)
    assert found.activated and abs(found.activated - 37.55e9) < 0.01e9
    assert found.quantization == "FP8 (E4M3), blocks of 128×128" and found.precision == "FP8_E4M3"


def test_a_mixture_of_packed_experts_is_whole(tmp_path: Path) -> None:
    """hub-docs #2704: a mixture of 314 B was shown as 89 B; experts in 4-bit words count each."""
    d, hidden, experts = 256, 512, 8
    shapes: dict[str, Any] = llama(d, 1, 128, hidden, 1000)
    shapes = {n: v for n, v in shapes.items() if ".mlp." not in n}
    shapes["model.layers.0.block_sparse_moe.gate.weight"] = ("BF16", (experts, d))
    for e in range(experts):
        for name, out, into in (("w1", hidden, d), ("w3", hidden, d), ("w2", d, hidden)):
            shapes |= gptq(4)(f"model.layers.0.block_sparse_moe.experts.{e}.{name}", out, into)
    config = config_of(d, 1, 4, 2, hidden, 1000, "mixtral", num_local_experts=8, num_experts_per_tok=2)
    found = parameters_of(subject_of(tmp_path, {**config, **said("gptq", bits=4, group_size=128)}, shapes))
    experts_alone = 8 * 3 * d * hidden
    assert found.components["experts"] == experts_alone
    assert found.total == experts_alone + experts * d + 2 * 1000 * d + 3 * d + 2 * d * d + 2 * 128 * d
    assert found.activated == found.total - experts_alone * 6 // 8


def test_declared_metadata_is_not_believed(tmp_path: Path) -> None:
    """huggingface_hub #4221: 7.6 B was shown as 333 k, which the file's metadata declares."""
    subject = subject_of(tmp_path, CONFIG, PLAIN, metadata={"total_parameters": "333000"})
    assert parameters_of(subject).total == TRUE


def test_a_tied_head_counts_once(tmp_path: Path) -> None:
    config = {**CONFIG, "tie_word_embeddings": True}
    stored_once = parameters_of(subject_of(tmp_path, config, llama(512, 2, 128, 1024, 3000, tied=True)))
    stored_twice = parameters_of(subject_of(tmp_path, config, PLAIN))
    head_first = {"lm_head.weight": PLAIN["lm_head.weight"], **PLAIN}
    assert stored_once.total == stored_twice.total == TRUE - 3000 * 512
    assert parameters_of(subject_of(tmp_path, config, head_first)).total == stored_once.total
    assert stored_once.activated_without_embeddings == stored_twice.activated_without_embeddings == stored_once.total
    untied = parameters_of(subject_of(tmp_path, CONFIG, PLAIN))
    assert untied.activated_without_embeddings == TRUE - 3000 * 512


def test_two_names_of_one_place_in_a_torch_file_count_once(tmp_path: Path) -> None:
    subject = subject_of(tmp_path, {}, {"a.weight": ("F32", (10, 10)), "b.weight": ("F32", (3, 3))}, "torch")
    tensors = dict(subject.header.tensors)
    tensors["c.weight"] = tensors["a.weight"]._replace(name="c.weight")
    subject.header = subject.header._replace(tensors=tensors)
    assert parameters_of(subject).total == 109


def test_buffers_are_no_parameters(tmp_path: Path) -> None:
    extra = {
        "model.layers.0.self_attn.rotary_emb.inv_freq": ("F32", (32,)), "h.0.attn.bias": ("F32", (1, 1, 64, 64)),
        "h.0.attn.masked_bias": ("F32", ()), "embeddings.position_ids": ("I64", (1, 512)),
        "bn.running_mean": ("F32", (8,)), "bn.running_var": ("F32", (8,)), "bn.num_batches_tracked": ("I64", ()),
    }  # fmt: skip
    assert parameters_of(subject_of(tmp_path, CONFIG, {**PLAIN, **extra})).total == TRUE
    assert parameters_of(subject_of(tmp_path, {}, {"logit_scale": ("F32", ()), "x.scale": ("F32", (7,))})).total == 8


def test_optimizer_states_and_averages_are_no_parameters() -> None:
    shapes = {
        **PLAIN,
        **{f"model_ema.{n}": v for n, v in PLAIN.items()},
        "optimizer.state.0.exp_avg": ("F32", (512, 9)),
    }
    assert sum(c.n_params for c in count(tensors_of(shapes))) == TRUE
    averages = {f"model_ema.{n}": v for n, v in PLAIN.items()}
    assert sum(c.n_params for c in count(tensors_of(averages))) == TRUE


def test_model_parallel_pieces_are_put_together() -> None:
    piece = tensors_of({"w.weight": ("BF16", (100, 40)), "norm.weight": ("BF16", (40,))})
    joined = {n: t._replace(shards=(t, t)) for n, t in piece.items()}
    assert sum(c.n_params for c in count(joined)) == 8000 + 40


def test_an_adapter_counts_itself(tmp_path: Path) -> None:
    shapes = {f"base_model.model.model.layers.{i}.self_attn.q_proj.lora_{ab}.weight": ("F32", (16, 4096))
              for i in range(2) for ab in "AB"}  # fmt: skip
    shapes["base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector"] = ("F32", (4096,))
    found = parameters_of(subject_of(tmp_path, {"peft_type": "LORA", "r": 16}, shapes))
    assert found.total == 4 * 16 * 4096 + 4096 and found.exact


def test_bytes_that_nobody_explains_are_not_exact(tmp_path: Path) -> None:
    found = parameters_of(subject_of(tmp_path, {}, {"x.weight": ("U8", (64, 64)), "y.weight": ("F32", (2, 2))}))
    assert not found.exact


def test_a_packing_that_hides_its_numbers_is_counted_from_the_config(tmp_path: Path) -> None:
    pack = {
        "q_proj.codes": ("I8", (64, 8, 2)),
        "q_proj.codebooks": ("F16", (2, 65536, 1, 8)),
        "q_proj.scales": ("F16", (64, 1, 1, 1)),
    }
    found = parameters_of(subject_of(tmp_path, {**TEXT["llama-2-7b"], **said("aqlm")}, pack))
    assert (found.total, found.exact, found.source) == (TOTALS["llama-2-7b"], True, "config")
    unknown = parameters_of(subject_of(tmp_path, {"model_type": "never_heard_of", **said("aqlm")}, pack))
    assert not unknown.exact


def test_file_types_of_gguf_are_the_ones_of_its_package() -> None:
    gguf = pytest.importorskip("gguf")
    for number, name in FILE_TYPES.items():
        said = gguf.LlamaFileType(number).name.removeprefix("MOSTLY_").removeprefix("ALL_")
        assert said.removesuffix("_MOE") == name


def test_gguf_shapes_are_true_and_its_type_is_told(tmp_path: Path) -> None:
    shapes = {"token_embd.weight": ("Q6_K", (32000, 256)), "blk.0.attn_q.weight": ("Q4_K", (256, 256)),
              "blk.0.ffn_down_exps.weight": ("Q4_K", (8, 256, 512)), "rope_freqs.weight": ("F32", (64,))}  # fmt: skip
    metadata = {"general.architecture": "llama", "general.file_type": 15, "llama.block_count": 1,
                "llama.embedding_length": 256, "llama.attention.head_count": 4, "llama.expert_count": 8,
                "llama.expert_used_count": 2, "llama.context_length": 4096}  # fmt: skip
    found = parameters_of(subject_of(tmp_path, {}, shapes, "gguf", metadata))
    experts = 8 * 256 * 512
    assert found.total == 32000 * 256 + 256 * 256 + experts and found.quantization == "GGUF Q4_K_M"
    assert found.activated == found.total - experts * 6 // 8 and found.precision == "Q6_K"
    assert Scheme().method == ""
