"""Every language family in every layout, against transformers on the same float32 weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.check_family import check_language_model
from tests.families import layouts

T = pytest.importorskip("transformers")

SMALL = dict(
    vocab_size=128, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=256,
)  # fmt: skip
THETA = dict(rope_theta=10000.0)
ROPES = {
    "default": dict(rope_type="default", **THETA),
    "linear": dict(rope_type="linear", factor=4.0, **THETA),
    "dynamic": dict(rope_type="dynamic", factor=2.0, **THETA),
    "llama3": dict(
        rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
        original_max_position_embeddings=64, rope_theta=500000.0,
    ),
    "yarn": dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=64, **THETA),
}  # fmt: skip


def noisy(model):
    """Evaluation mode, and every parameter moved off its initial zero or one."""
    torch.manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.05)
    return model.eval()


def llama(**changes):
    torch.manual_seed(0)
    return noisy(T.LlamaForCausalLM(T.LlamaConfig(**(SMALL | changes))))


def mistral(**changes):
    torch.manual_seed(0)
    return noisy(T.MistralForCausalLM(T.MistralConfig(**(SMALL | dict(head_dim=32, sliding_window=None) | changes))))


def qwen2(**changes):
    torch.manual_seed(0)
    return noisy(T.Qwen2ForCausalLM(T.Qwen2Config(**(SMALL | changes))))


def qwen3(**changes):
    torch.manual_seed(0)
    return noisy(T.Qwen3ForCausalLM(T.Qwen3Config(**(SMALL | dict(head_dim=32) | changes))))


def gpt2(**changes):
    torch.manual_seed(0)
    sizes = dict(vocab_size=128, n_embd=64, n_layer=2, n_head=4, n_positions=128)
    return noisy(T.GPT2LMHeadModel(T.GPT2Config(**(sizes | changes))))


CASES = {
    **{f"llama-{kind}": ("Llama", lambda rope=rope: llama(rope_parameters=dict(rope))) for kind, rope in ROPES.items()},
    "llama-tied": ("Llama", lambda: llama(tie_word_embeddings=True)),
    "llama-biased": ("Llama", lambda: llama(attention_bias=True, mlp_bias=True)),
    "llama-multi-head": ("Llama", lambda: llama(num_key_value_heads=4)),
    "mistral-window": ("Mistral", lambda: mistral(sliding_window=8)),
    "mistral-head-dim": ("Mistral", lambda: mistral()),
    "qwen2": ("Qwen2", lambda: qwen2()),
    "qwen2-window": ("Qwen2", lambda: qwen2(use_sliding_window=True, sliding_window=6, max_window_layers=1)),
    "qwen2-tied-yarn": ("Qwen2", lambda: qwen2(tie_word_embeddings=True, rope_parameters=dict(ROPES["yarn"]))),
    "qwen3": ("Qwen3", lambda: qwen3()),
    "gpt2": ("GPT-2", lambda: gpt2()),
    "gpt2-untied": ("GPT-2", lambda: gpt2(tie_word_embeddings=False)),
}


@pytest.mark.parametrize("spelling", ["v5", "v4"])
@pytest.mark.parametrize("case", CASES)
def test_saved_by_transformers(tmp_path: Path, case: str, spelling: str) -> None:
    family, make = CASES[case]
    reference = make()
    reference.save_pretrained(tmp_path)
    if spelling == "v4":
        layouts.older_spelling(tmp_path)
    check_language_model(tmp_path, family, reference)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("case", ["llama-llama3", "qwen3", "gpt2"])
def test_half_precision_files_computed_in_float32(tmp_path: Path, case: str, dtype: torch.dtype) -> None:
    family, make = CASES[case]
    half = make().to(dtype)
    half.save_pretrained(tmp_path)
    check_language_model(tmp_path, family, type(half).from_pretrained(tmp_path, dtype=torch.float32).eval())


def test_sharded_by_index(tmp_path: Path) -> None:
    reference = llama()
    reference.save_pretrained(tmp_path, max_shard_size="60KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    check_language_model(tmp_path, "Llama", reference)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("case", ["llama-default", "gpt2"])
def test_pytorch_bin(tmp_path: Path, case: str, zipped: bool) -> None:
    family, make = CASES[case]
    reference = make()
    reference.config.save_pretrained(tmp_path)
    state = layouts.weights(reference)
    torch.save(state, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    check_language_model(tmp_path, family, reference)


@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_gpt2_hub_names_and_old_buffers(tmp_path: Path, prefix: str) -> None:
    from safetensors.torch import save_file

    reference = gpt2()
    reference.config.save_pretrained(tmp_path)
    state = {prefix + k.removeprefix("transformer."): v.contiguous() for k, v in layouts.weights(reference).items()}
    state[prefix + "h.0.attn.bias"] = torch.ones(1, 1, 128, 128).tril()
    save_file(state, tmp_path / "model.safetensors")
    check_language_model(tmp_path, "GPT-2", reference)


@pytest.mark.parametrize(("n_ranks", "by_column"), [(1, True), (2, True), (2, False)])
def test_meta_consolidated(tmp_path: Path, n_ranks: int, by_column: bool) -> None:
    rope = dict(rope_type="default", rope_theta=500000.0)
    reference = llama(rope_parameters=rope, rms_norm_eps=1e-5, max_position_embeddings=8192)
    params = dict(dim=64, n_layers=2, n_heads=4, n_kv_heads=2, vocab_size=-1, multiple_of=32, norm_eps=1e-5)
    layouts.write_meta(tmp_path, reference, params | dict(rope_theta=500000.0), 16, n_ranks, by_column)
    network = check_language_model(tmp_path, "Llama", reference)
    assert network.config.context == 8192


def test_meta_scaled_rope(tmp_path: Path) -> None:
    rope = ROPES["llama3"] | dict(factor=32.0, original_max_position_embeddings=8192)
    reference = llama(rope_parameters=rope, rms_norm_eps=1e-5, max_position_embeddings=131072)
    params = dict(dim=64, n_layers=2, n_heads=4, n_kv_heads=2, vocab_size=128, norm_eps=1e-5, rope_theta=500000.0)
    layouts.write_meta(tmp_path, reference, params | dict(use_scaled_rope=True, rope_scaling_factor=32), 16, 1, False)
    check_language_model(tmp_path, "Llama", reference)


@pytest.mark.parametrize("window", [None, 8])
def test_mistral_own_layout(tmp_path: Path, window: int | None) -> None:
    reference = mistral(sliding_window=window, rms_norm_eps=1e-5)
    params = dict(
        dim=64, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=32, hidden_dim=96, vocab_size=128, norm_eps=1e-5,
        sliding_window=window, max_seq_len=256,
    )  # fmt: skip
    layouts.write_mistral(tmp_path, reference, params, 32)
    check_language_model(tmp_path, "Mistral", reference)


@pytest.mark.parametrize("dtype", ["F32", "F16"])
@pytest.mark.parametrize(
    ("family", "arch", "make"), [("Llama", "llama", llama), ("Qwen2", "qwen2", qwen2), ("Qwen3", "qwen3", qwen3)]
)
def test_gguf(tmp_path: Path, family: str, arch: str, make, dtype: str) -> None:
    pytest.importorskip("gguf")
    reference = make()
    if dtype == "F16":
        with torch.no_grad():
            for p in reference.parameters():
                p.copy_(p.half().float() if p.dim() == 2 else p)
    layouts.write_gguf(tmp_path / "model.gguf", reference, arch, 32 if arch == "qwen3" else 16, dtype)
    check_language_model(tmp_path / "model.gguf", family, reference)


@pytest.mark.parametrize(
    ("shape", "family"), [((2048, 22, 4, 5632, 32000, 32), "TinyLlama"), ((576, 30, 3, 1536, 49152, 9), "SmolLM")]
)
def test_small_lineages_are_told_by_shape(tmp_path: Path, shape: tuple[int, ...], family: str) -> None:
    from brolly.card import Header, TensorInfo
    from brolly.families import recognise

    dim, n_layers, n_kv, hidden, vocab, n_heads = shape
    config = dict(
        model_type="llama", hidden_size=dim, num_hidden_layers=n_layers, num_key_value_heads=n_kv, vocab_size=vocab,
        intermediate_size=hidden, num_attention_heads=n_heads, max_position_embeddings=2048,
    )  # fmt: skip
    name = "model.layers.0.self_attn.q_proj.weight"
    tensors = {name: TensorInfo(name, "BF16", (dim, dim), tmp_path, 0, 2 * dim * dim)}
    assert recognise(Header(tmp_path, "safetensors", tensors, json.loads(json.dumps(config)))).family.name == family
