"""Decoders counted from their configs alone: held against published counts, and against transformers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from brolly.identity import tables
from brolly.identity.anatomy import OTHER_NAMES, anatomy_of, defaults, rows
from tests.identity.published import TEXT, TOTALS, llama
from tests.identity.shaped import tensors_of

HERE = Path(__file__).parent
# what transformers' class cannot be built from, or counts otherwise than the published files
UNLIKE = {
    "deepseek_v2",  # its defaults do not say how many experts a token visits
    "longcat_flash",  # transformers gives the experts that do nothing a matrix
    "dbrx", "dots1", "hunyuan_v1_dense", "hunyuan_v1_moe", "lfm2_moe", "ministral", "mistral4",
    "nemotron",  # no defaults
    "nemotron_h", "zamba2",  # the layers' kinds must be listed
    "mllama_text_model",  # its layers of cross-attention must be listed
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(TOTALS))
def test_a_config_alone_gives_the_published_count(name: str) -> None:
    found = anatomy_of(TEXT[name])
    assert found is not None and found.total == TOTALS[name] and found.exact
    assert found.total == sum(found.parts.values())


@pytest.mark.parametrize("name,activated,without", [
    ("mixtral-8x7b", 12_879_925_248, 12_748_853_248), ("gpt-oss-120b", 5_711_982_592, 5_132_849_472),
    ("gpt-oss-20b", 4_187_440_384, 3_608_307_264), ("deepseek-r1", 37_552_297_472, 36_625_618_432),
    ("qwen3-30b-a3b", 3_353_032_704, 3_041_867_776), ("kimi-k2", 32_861_607_936, 31_687_095_808),
    ("gemma-7b", 8_537_680_896, 8_537_680_896),
])  # fmt: skip
def test_both_conventions_of_activated_parameters(name: str, activated: int, without: int) -> None:
    """12.9 B of Mixtral and 22 B of Qwen3 include embeddings; gpt-oss's 5.1 B and 3.6 B do not."""
    found = anatomy_of(TEXT[name])
    assert found and found.activated_without_embeddings == without
    assert abs(found.activated - activated) < 1e-3 * activated


def parameters(network: Any) -> int:
    """transformers keeps the routers' correction biases as buffers; the published files hold them as tensors."""
    learnt = (b.numel() for n, b in network.named_buffers() if re.search("correction_bias|expert_bias", n))
    return int(network.num_parameters() + sum(learnt))


def built(kind: str, config: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    transformers.logging.set_verbosity_error()
    full = CONFIG_MAPPING[kind](**{k: v for k, v in config.items() if k not in ("model_type", "rope_scaling")})
    with torch.device("meta"):
        return transformers.AutoModelForCausalLM.from_config(full), full.to_dict()


def known_to_transformers() -> set[str]:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return set(CONFIG_MAPPING.keys())


@pytest.mark.parametrize(
    "name", sorted(set(TEXT) - set(TOTALS) | {"llama-3.2-1b", "deepseek-r1", "dbrx", "gemma-2-9b"})
)
def test_published_configs_have_the_parameters_of_transformers(name: str) -> None:
    pytest.importorskip("transformers")
    kind = TEXT[name]["model_type"]
    if kind not in known_to_transformers():
        pytest.skip(f"transformers has no {kind}")
    network, saved = built(kind, TEXT[name])
    one, other = anatomy_of(TEXT[name]), anatomy_of(saved)
    assert one and other and one.total == parameters(network) == other.total  # as published, and as version 5 saves it
    assert one.cache(1) == other.cache(1)


@pytest.mark.parametrize("kind", sorted(set(rows()) - UNLIKE))
def test_every_row_counts_what_transformers_builds(kind: str) -> None:
    pytest.importorskip("transformers")
    if kind not in known_to_transformers():
        pytest.skip(f"transformers has no {kind}")
    layers = {"num_hidden_layers": 12} if "num_hidden_layers" in defaults()[kind] else {}
    if kind in ("gemma3n_text", "laguna", "kolibri1", "mllama_text_model"):
        layers = {}  # lists of as many entries as layers by default
    small = {"vocab_size": defaults()[kind]["vocab_size"], **layers}
    network, saved = built(kind, small)
    found = anatomy_of({"model_type": kind, **small})
    assert found is not None and found.total == parameters(network)
    again = anatomy_of(saved)
    assert again is not None and again.total == found.total


@pytest.mark.parametrize("kind,change", [
    ("llama", {"attention_bias": True}), ("llama", {"mlp_bias": True}), ("llama", {"tie_word_embeddings": True}),
    ("gpt_neox", {"attention_bias": False}), ("phi", {"qk_layernorm": True}), ("qwen3_next", {"attention_bias": True}),
    ("ernie4_5_moe", {"use_bias": True}), ("falcon_h1", {"mamba_proj_bias": True}), ("cohere", {"use_qk_norm": True}),
    ("stablelm", {"use_parallel_residual": True}), ("falcon", {"multi_query": False}), ("mixtral", {"head_dim": 96}),
    ("gemma4_text", {"attention_k_eq_v": True, "num_global_key_value_heads": 2}),
    ("gemma4_text", {"num_kv_shared_layers": 10, "use_double_wide_mlp": True}),
    ("gemma4_text", {"enable_moe_block": True, "num_experts": 8, "top_k_experts": 2, "moe_intermediate_size": 704}),
    ("opt", {"word_embed_proj_dim": 512}), ("gpt_bigcode", {"multi_query": False}),
    ("nemotron_h", {"layer_types": ["linear_attention", "mlp", "full_attention", "moe"], "mlp_bias": True}),
    ("nemotron_h", {"layer_types": ["linear_attention", "moe"], "moe_latent_size": 512}),
    ("zamba2", {"num_mem_blocks": 2}), ("zamba2", {"use_shared_attention_adapter": True}),
])  # fmt: skip
def test_flags_change_the_count_as_in_transformers(kind: str, change: dict[str, Any]) -> None:
    network, saved = built(kind, {"vocab_size": 1008, **change})
    found = anatomy_of(saved)
    assert found is not None and found.total == parameters(network)


def test_old_and_new_spellings_of_nemotron_h_are_one() -> None:
    """hybrid_override_pattern of the published Nemotron-H, and the list that transformers 5 writes."""
    pattern = "M-M-M-MM-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-"
    config = llama(4096, 52, 32, 8, 21504, 131072, "nemotron_h", hybrid_override_pattern=pattern, mamba_num_heads=128,
                   mamba_head_dim=64, ssm_state_size=128, n_groups=8, conv_kernel=4, head_dim=128,
                   use_conv_bias=True, tie_word_embeddings=False)  # fmt: skip
    words = {"M": "linear_attention", "-": "mlp", "*": "full_attention"}
    listed = {k: v for k, v in config.items() if k != "hybrid_override_pattern"}
    listed["layer_types"] = [words[letter] for letter in pattern[:52]]
    one, other = anatomy_of(config), anatomy_of(listed)
    assert one and other and one.total == other.total and 8.0e9 < one.total < 8.2e9
    assert sum(layer.cached > 0 for layer in one.layers) == 4


@pytest.mark.parametrize("name,kv", [
    ("llama-3.1-8b", 131_072), ("deepseek-r1", 70_272), ("kimi-k2", 70_272), ("qwen3.5-27b", 65_536),
    ("qwen3-next-80b", 24_576), ("jamba-v0.1", 16_384), ("gpt-oss-120b", 73_728), ("falcon-7b", 8_192),
    ("mamba-2.8b", 0), ("gemma-3-27b", 507_904), ("lfm2-1.2b", 12_288),
])  # fmt: skip
def test_bytes_of_a_token_in_the_cache(name: str, kv: int) -> None:
    found = anatomy_of(TEXT[name])
    assert found and found.cache(1) == kv


def test_a_hybrid_caches_in_a_quarter_of_its_layers() -> None:
    """LM Studio #1862: 16 of 64 layers; 16,384 MiB for 262,144 tokens."""
    found = anatomy_of(TEXT["qwen3.5-27b"])
    assert found and sum(layer.cached > 0 for layer in found.layers) == 16
    assert found.cache(262_144) == 16_384 * 2**20 and found.state > 0


def test_a_window_caches_no_more_than_itself() -> None:
    found = anatomy_of(TEXT["mistral-7b"])
    assert found and found.cache(32768) == 131_072 * 4096
    gemma = anatomy_of(TEXT["gemma-3-27b"])
    assert gemma and sum(layer.mixer == "full" for layer in gemma.layers) == 10
    assert gemma.cache(131072) == 2 * 2 * 16 * 128 * (10 * 131072 + 52 * 1024)
    oss = anatomy_of(TEXT["gpt-oss-20b"])
    assert oss and oss.cache(131072) == 2 * 2 * 8 * 64 * (12 * 131072 + 12 * 128)
    scout = anatomy_of(TEXT["llama-4-scout"])
    assert scout and [x.mixer for x in scout.layers[:4]] == ["chunked"] * 3 + ["full"]
    assert scout.layers[0].window == 8192
    command = anatomy_of(TEXT["command-r7b"])
    assert command and sum(x.mixer == "full" for x in command.layers) == 8


def test_layers_that_see_a_picture_cache_none_of_the_context() -> None:
    """Llama 3.2 Vision: 9,775,192,080 in its text part, 8 of 40 layers of cross-attention."""
    config = llama(4096, 40, 32, 8, 14336, 128256, cross_attention_layers=[3, 8, 13, 18, 23, 28, 33, 38])
    found = anatomy_of({"model_type": "mllama", "text_config": {**config, "model_type": "mllama_text_model"}})
    assert found and found.total == 9_775_192_080 and found.cache(1) == 32 * 2 * 2 * 8 * 128


def test_kv_shared_layers_cache_nothing() -> None:
    config = {"model_type": "gemma3n_text", "hidden_size": 2048, "num_kv_shared_layers": 15}
    found = anatomy_of(config)
    assert found and sum(x.cached > 0 for x in found.layers) == 20 and not found.exact


def test_text_parts_of_larger_configs_are_found() -> None:
    inner = TEXT["qwen2.5-7b"]
    for outer in (
        {"model_type": "llava", "text_config": inner}, {"model_type": "internvl_chat", "llm_config": inner},
        {"model_type": "deepseek_vl_v2", "language_config": inner},
        {"model_type": "qwen2_5_omni", "thinker_config": {"text_config": inner}},
        {**inner, "model_type": "qwen2_5_vl", "vision_config": {"depth": 32}},
    ):  # fmt: skip
        found = anatomy_of(outer)
        assert found and found.total == TOTALS["qwen2.5-7b"]


def test_a_tie_said_outside_of_the_text_part_counts() -> None:
    inner = {k: v for k, v in TEXT["qwen2.5-0.5b"].items() if k != "tie_word_embeddings"}
    found = anatomy_of({"model_type": "llava", "tie_word_embeddings": True, "text_config": inner})
    assert found and found.tied and found.total == TOTALS["qwen2.5-0.5b"]


def test_sparse_configs_take_what_the_class_assumes() -> None:
    """LLaVA 1.5 says of its Vicuna only what differs from a Llama's defaults."""
    config = {"model_type": "llava", "text_config": {"model_type": "llama", "vocab_size": 32064}}
    found = anatomy_of(config)
    assert found and found.total == TOTALS["llama-2-7b"] + 2 * 64 * 4096
    assert anatomy_of({"model_type": "llama"}) is None  # says nothing at all


def test_meta_and_mistral_params_are_read() -> None:
    meta = {"dim": 4096, "n_layers": 32, "n_heads": 32, "n_kv_heads": 8, "vocab_size": 128256, "multiple_of": 1024,
            "ffn_dim_multiplier": 1.3, "norm_eps": 1e-05, "rope_theta": 500000.0}  # fmt: skip
    found = anatomy_of(meta)
    assert found and found.total == TOTALS["llama-3.1-8b"]
    old = {"dim": 4096, "multiple_of": 256, "n_heads": 32, "n_layers": 32, "norm_eps": 1e-06, "vocab_size": -1}
    shapes = tensors_of({"tok_embeddings.weight": ("F16", (32000, 4096)), "output.weight": ("F16", (32000, 4096))})
    found = anatomy_of(old, shapes)
    assert found and found.total == TOTALS["llama-2-7b"] and anatomy_of(old) is None
    mistral = {"dim": 4096, "n_layers": 32, "head_dim": 128, "hidden_dim": 14336, "n_heads": 32, "n_kv_heads": 8,
               "norm_eps": 1e-05, "vocab_size": 32000, "moe": {"num_experts_per_tok": 2, "num_experts": 8}}  # fmt: skip
    found = anatomy_of(mistral)
    assert found and found.total == TOTALS["mixtral-8x7b"]


def test_gguf_tells_heads_windows_and_experts() -> None:
    said: dict[str, Any] = {
        "general.architecture": "deepseek2", "deepseek2.block_count": 61, "deepseek2.embedding_length": 7168,
        "deepseek2.attention.head_count": 128, "deepseek2.attention.head_count_kv": 1,
        "deepseek2.attention.kv_lora_rank": 512, "deepseek2.rope.dimension_count": 64, "deepseek2.expert_count": 256,
        "deepseek2.expert_used_count": 8, "deepseek2.leading_dense_block_count": 3, "deepseek2.context_length": 163840,
    }  # fmt: skip
    found = anatomy_of({}, None, said)
    assert found and found.cache(1) == 70_272 and found.share_idle == (8, 256) and found.context == 163840
    said = {"general.architecture": "gemma3", "gemma3.block_count": 12, "gemma3.embedding_length": 1152,
            "gemma3.attention.head_count": 4, "gemma3.attention.head_count_kv": 1, "gemma3.attention.key_length": 256,
            "gemma3.attention.value_length": 256, "gemma3.attention.sliding_window": 512}  # fmt: skip
    found = anatomy_of({}, None, said)
    assert found and [x.window for x in found.layers] == [512] * 5 + [None] + [512] * 5 + [None]
    said = {"general.architecture": "qwen35", "qwen35.block_count": 64, "qwen35.embedding_length": 5120,
            "qwen35.attention.head_count": 24, "qwen35.attention.head_count_kv": 4,
            "qwen35.attention.key_length": 256, "qwen35.attention.value_length": 256,
            "qwen35.full_attention_interval": 4}  # fmt: skip
    found = anatomy_of({}, None, said)
    assert found and found.cache(1) == 65_536
    assert anatomy_of({}, None, {"general.architecture": "bert", "bert.block_count": 12}) is None


HOSTILE: list[Any] = [
    {"num_hidden_layers": 10**9}, {"num_hidden_layers": -1}, {"hidden_size": "4096"}, {"hidden_size": 2**70},
    {"num_attention_heads": 0}, {"num_attention_heads": []}, {"vocab_size": None}, {"vocab_size": 1.5},
    {"layer_types": ["full_attention"] * 3}, {"layer_types": [["x"]] * 64}, {"layer_types": "full_attention"},
    {"num_local_experts": 8, "num_experts_per_tok": 99}, {"intermediate_size": float("nan")},
    {"intermediate_size": float("inf")}, {"head_dim": {}}, {"model_type": ["llama"]}, {"model_type": None},
]  # fmt: skip


@pytest.mark.parametrize("change", HOSTILE, ids=str)
@pytest.mark.parametrize("name", ["llama-3.1-8b", "mixtral-8x7b", "qwen3-next-80b", "deepseek-r1", "jamba-v0.1"])
def test_no_config_breaks_the_anatomy(name: str, change: dict[str, Any]) -> None:
    start = time.perf_counter()
    anatomy_of({**TEXT[name], **change})
    anatomy_of({"text_config": {"text_config": {**TEXT[name], **change}}})
    assert time.perf_counter() - start < 0.5


def test_deep_nests_end() -> None:
    config: dict[str, Any] = {}
    for _ in range(64):
        config = {"text_config": config, "x": 1}
    assert anatomy_of(config) is None


def test_the_tables_hold_together() -> None:
    table = json.loads((tables.DATA / "decoders.json").read_bytes())
    assert list(table) == sorted(table) and set(OTHER_NAMES.values()) <= set(table)
    written = json.loads((tables.DATA / "config_defaults.json").read_bytes())
    assert written["source"].startswith("transformers ") and re.fullmatch(r"\d{4}-\d\d-\d\d", written["date"])
    assert (tables.DATA / "config_defaults.json").stat().st_size < 100_000


def test_counting_imports_nothing_heavy() -> None:
    code = (
        "import sys; import brolly.identity.sizes, brolly.identity.needs;"
        "assert not {'torch', 'numpy', 'transformers', 'urllib.request', 'subprocess'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=HERE.parent.parent)
