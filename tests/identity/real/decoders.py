"""Every tensor of published decoders, from their configs: names, dtypes and shapes as their files have them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Config = dict[str, Any]
Tensors = dict[str, tuple[str, tuple[int, ...]]]  # name → dtype, shape


def linear(name: str, out: int, into: int, bias: bool = False, dtype: str = "BF16") -> Tensors:
    found: Tensors = {f"{name}.weight": (dtype, (out, into))}
    return found | ({f"{name}.bias": (dtype, (out,))} if bias else {})


def norm(name: str, width: int, bias: bool = False, dtype: str = "BF16") -> Tensors:
    found: Tensors = {f"{name}.weight": (dtype, (width,))}
    return found | ({f"{name}.bias": (dtype, (width,))} if bias else {})


def attention(at: str, c: Config) -> Tensors:
    d, heads = c["hidden_size"], c["num_attention_heads"]
    kv, size = c.get("num_key_value_heads", heads), c.get("head_dim") or d // heads
    kind = c["model_type"]
    bias = kind in ("qwen2", "qwen2_moe", "qwen2_5_vl") or bool(c.get("attention_bias"))
    out: Tensors = {}
    for part, width in (("q", heads * size), ("k", kv * size), ("v", kv * size)):
        out |= linear(f"{at}.{part}_proj", width, d, bias)
    out |= linear(f"{at}.o_proj", d, heads * size, bias and kind in ("gpt_oss",))
    if kind.startswith(("qwen3", "gemma3")):
        out |= norm(f"{at}.q_norm", size) | norm(f"{at}.k_norm", size)
    if kind in ("olmoe", "olmo2"):
        out |= norm(f"{at}.q_norm", heads * size) | norm(f"{at}.k_norm", kv * size)
    return out


def latent_attention(at: str, c: Config) -> Tensors:
    """DeepSeek's MLA."""
    d, heads, rank, rope = c["hidden_size"], c["num_attention_heads"], c["kv_lora_rank"], c["qk_rope_head_dim"]
    query = heads * (c["qk_nope_head_dim"] + rope)
    out: Tensors = {}
    if c.get("q_lora_rank"):
        out |= linear(f"{at}.q_a_proj", c["q_lora_rank"], d) | norm(f"{at}.q_a_layernorm", c["q_lora_rank"])
        out |= linear(f"{at}.q_b_proj", query, c["q_lora_rank"])
    else:
        out |= linear(f"{at}.q_proj", query, d)
    out |= linear(f"{at}.kv_a_proj_with_mqa", rank + rope, d) | norm(f"{at}.kv_a_layernorm", rank)
    out |= linear(f"{at}.kv_b_proj", heads * (c["qk_nope_head_dim"] + c["v_head_dim"]), rank)
    return out | linear(f"{at}.o_proj", d, heads * c["v_head_dim"])


def gated(at: str, d: int, hidden: int, names: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj")) -> Tensors:
    gate, up, down = names
    return linear(f"{at}.{gate}", hidden, d) | linear(f"{at}.{up}", hidden, d) | linear(f"{at}.{down}", d, hidden)


def experts(at: str, c: Config, n: int, hidden: int) -> Tensors:
    out: Tensors = {}
    for i in range(n):
        out |= gated(f"{at}.experts.{i}", c["hidden_size"], hidden)
    return out


def feed_forward(layer: str, i: int, c: Config) -> Tensors:
    d, kind, at = c["hidden_size"], c["model_type"], f"{layer}.mlp"
    if kind == "mixtral":
        out = linear(f"{layer}.block_sparse_moe.gate", c["num_local_experts"], d)
        for e in range(c["num_local_experts"]):
            name = f"{layer}.block_sparse_moe.experts.{e}"
            out |= gated(name, d, c["intermediate_size"], ("w1", "w3", "w2"))
        return out
    if kind in ("qwen3_moe", "olmoe", "qwen2_moe"):
        n, hidden = c["num_experts"], c.get("moe_intermediate_size") or c["intermediate_size"]
        out = linear(f"{at}.gate", n, d) | experts(at, c, n, hidden)
        if kind == "qwen2_moe":
            out |= gated(f"{at}.shared_expert", d, c["shared_expert_intermediate_size"])
            out |= linear(f"{at}.shared_expert_gate", 1, d)
        return out
    if "n_routed_experts" in c and i >= c["first_k_dense_replace"]:
        n, hidden = c["n_routed_experts"], c["moe_intermediate_size"]
        out = linear(f"{at}.gate", n, d) | experts(at, c, n, hidden)
        if c.get("topk_method") == "noaux_tc":
            out |= {f"{at}.gate.e_score_correction_bias": ("F32", (n,))}
        return out | gated(f"{at}.shared_experts", d, hidden * c["n_shared_experts"])
    if kind == "phi3":
        both = linear(f"{at}.gate_up_proj", 2 * c["intermediate_size"], d)
        return both | linear(f"{at}.down_proj", d, c["intermediate_size"])
    return gated(at, d, c["intermediate_size"])


def decoder(c: Config, at: str = "model.", head: str = "lm_head") -> Tensors:
    """Llama and its many kin, in transformers' names."""
    d, kind = c["hidden_size"], c["model_type"]
    out = linear(f"{at}embed_tokens", c["vocab_size"], d)
    norms = ["input_layernorm", "post_attention_layernorm"]
    if kind.startswith(("gemma2", "gemma3")):
        norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
    if kind == "olmo2":
        norms = ["post_attention_layernorm", "post_feedforward_layernorm"]
    for i in range(c["num_hidden_layers"]):
        layer = f"{at}layers.{i}"
        for name in norms:
            out |= norm(f"{layer}.{name}", d)
        if "kv_lora_rank" in c:
            out |= latent_attention(f"{layer}.self_attn", c)
        elif kind == "phi3":
            size = d // c["num_attention_heads"]
            width = (c["num_attention_heads"] + 2 * c["num_key_value_heads"]) * size
            out |= linear(f"{layer}.self_attn.qkv_proj", width, d) | linear(f"{layer}.self_attn.o_proj", d, d)
        else:
            out |= attention(f"{layer}.self_attn", c)
        out |= feed_forward(layer, i, c)
    out |= norm(f"{at}norm", d)
    if not c.get("tie_word_embeddings") and not kind.startswith("gemma") and head:
        out |= linear(head, c["vocab_size"], d)
    return out


def deepseek(c: Config) -> Tensors:
    """DeepSeek-V3 and R1: the decoder, and a layer of multi-token prediction behind the last."""
    out, d = decoder(c), c["hidden_size"]
    for i in range(c["num_hidden_layers"], c["num_hidden_layers"] + c.get("num_nextn_predict_layers", 0)):
        layer = f"model.layers.{i}"
        out |= norm(f"{layer}.input_layernorm", d) | norm(f"{layer}.post_attention_layernorm", d)
        out |= latent_attention(f"{layer}.self_attn", c) | feed_forward(layer, i, c)
        out |= norm(f"{layer}.enorm", d) | norm(f"{layer}.hnorm", d) | linear(f"{layer}.eh_proj", d, 2 * d)
        out |= linear(f"{layer}.embed_tokens", c["vocab_size"], d)
        out |= norm(f"{layer}.shared_head.norm", d) | linear(f"{layer}.shared_head.head", c["vocab_size"], d)
    return out


def gpt_oss(c: Config) -> Tensors:
    """gpt-oss as OpenAI published it: experts in MXFP4 blocks of 32, a byte of exponent beside each."""
    d, n, hidden = c["hidden_size"], c["num_local_experts"], c["intermediate_size"]
    out = linear("model.embed_tokens", c["vocab_size"], d) | linear("lm_head", c["vocab_size"], d)
    for i in range(c["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        out |= norm(f"{layer}.input_layernorm", d) | norm(f"{layer}.post_attention_layernorm", d)
        out |= attention(f"{layer}.self_attn", c)
        out |= {f"{layer}.self_attn.sinks": ("BF16", (c["num_attention_heads"],))}
        out |= linear(f"{layer}.mlp.router", n, d, True)
        for name, rows, columns in (("gate_up_proj", 2 * hidden, d), ("down_proj", d, hidden)):
            at = f"{layer}.mlp.experts.{name}"
            out[f"{at}_blocks"] = ("U8", (n, rows, columns // 32, 16))
            out[f"{at}_scales"] = ("U8", (n, rows, columns // 32))
            out[f"{at}_bias"] = ("BF16", (n, rows))
    return out | norm("model.norm", d)


def gpt2(c: Config) -> Tensors:
    """GPT-2 as first published: without a prefix, with a causal mask in each layer, F32."""
    d, n = c["n_embd"], c["n_positions"]
    out: Tensors = {"wte.weight": ("F32", (c["vocab_size"], d)), "wpe.weight": ("F32", (n, d))}
    for i in range(c["n_layer"]):
        at = f"h.{i}"
        out |= {f"{at}.attn.bias": ("F32", (1, 1, n, n))}
        for name, into, width in (
            ("attn.c_attn", d, 3 * d), ("attn.c_proj", d, d), ("mlp.c_fc", d, 4 * d), ("mlp.c_proj", 4 * d, d),
        ):  # fmt: skip
            out |= {f"{at}.{name}.weight": ("F32", (into, width)), f"{at}.{name}.bias": ("F32", (width,))}
        out |= norm(f"{at}.ln_1", d, True, "F32") | norm(f"{at}.ln_2", d, True, "F32")
    return out | norm("ln_f", d, True, "F32")


def bloom(c: Config) -> Tensors:
    d = c["hidden_size"]
    out = linear("word_embeddings", c["vocab_size"], d) | norm("word_embeddings_layernorm", d, True)
    for i in range(c["n_layer"]):
        at = f"h.{i}"
        out |= norm(f"{at}.input_layernorm", d, True) | norm(f"{at}.post_attention_layernorm", d, True)
        out |= linear(f"{at}.self_attention.query_key_value", 3 * d, d, True)
        out |= linear(f"{at}.self_attention.dense", d, d, True)
        out |= linear(f"{at}.mlp.dense_h_to_4h", 4 * d, d, True) | linear(f"{at}.mlp.dense_4h_to_h", d, 4 * d, True)
    return out | norm("ln_f", d, True)


def falcon(c: Config) -> Tensors:
    """Falcon-7B: one key and value head for all, and a head that repeats the embedding."""
    d, size = c["hidden_size"], c["hidden_size"] // c["num_attention_heads"]
    out = linear("transformer.word_embeddings", c["vocab_size"], d) | linear("lm_head", c["vocab_size"], d)
    for i in range(c["num_hidden_layers"]):
        at = f"transformer.h.{i}"
        out |= norm(f"{at}.input_layernorm", d, True) | linear(f"{at}.self_attention.query_key_value", d + 2 * size, d)
        out |= linear(f"{at}.self_attention.dense", d, d)
        out |= linear(f"{at}.mlp.dense_h_to_4h", 4 * d, d) | linear(f"{at}.mlp.dense_4h_to_h", d, 4 * d)
    return out | norm("transformer.ln_f", d, True)


def mamba(c: Config) -> Tensors:
    d, inner, n, rank = c["hidden_size"], c["intermediate_size"], c["state_size"], c["time_step_rank"]
    out = linear("backbone.embeddings", c["vocab_size"], d) | norm("backbone.norm_f", d)
    for i in range(c["num_hidden_layers"]):
        at = f"backbone.layers.{i}"
        out |= norm(f"{at}.norm", d) | linear(f"{at}.mixer.in_proj", 2 * inner, d)
        out |= {f"{at}.mixer.A_log": ("BF16", (inner, n)), f"{at}.mixer.D": ("BF16", (inner,))}
        out |= {f"{at}.mixer.conv1d.weight": ("BF16", (inner, 1, c["conv_kernel"]))}
        out |= {f"{at}.mixer.conv1d.bias": ("BF16", (inner,))}
        out |= linear(f"{at}.mixer.x_proj", rank + 2 * n, inner) | linear(f"{at}.mixer.dt_proj", inner, rank, True)
        out |= linear(f"{at}.mixer.out_proj", d, inner)
    return out


def nemotron_h(c: Config) -> Tensors:
    """Nemotron-H: Mamba-2, squared-ReLU MLPs and a few attention layers, one after the other as its pattern says."""
    d, heads, size, n = c["hidden_size"], c["mamba_num_heads"], c["mamba_head_dim"], c["ssm_state_size"]
    inner, groups = heads * size, c["n_groups"]
    conv = inner + 2 * groups * n
    out = linear("backbone.embeddings", c["vocab_size"], d) | norm("backbone.norm_f", d)
    for i, letter in enumerate(c["hybrid_override_pattern"]):
        at = f"backbone.layers.{i}"
        out |= norm(f"{at}.norm", d)
        if letter == "M":
            out |= linear(f"{at}.mixer.in_proj", inner + conv + heads, d) | linear(f"{at}.mixer.out_proj", d, inner)
            out |= {f"{at}.mixer.conv1d.weight": ("BF16", (conv, 1, c["conv_kernel"]))}
            out |= {f"{at}.mixer.conv1d.bias": ("BF16", (conv,))} | norm(f"{at}.mixer.norm", inner)
            out |= {f"{at}.mixer.{part}": ("BF16", (heads,)) for part in ("A_log", "D", "dt_bias")}
        elif letter == "-":
            out |= linear(f"{at}.mixer.up_proj", c["intermediate_size"], d)
            out |= linear(f"{at}.mixer.down_proj", d, c["intermediate_size"])
        else:
            kv, width = c["num_key_value_heads"] * c["head_dim"], c["num_attention_heads"] * c["head_dim"]
            for part, rows, columns in (("q", width, d), ("k", kv, d), ("v", kv, d), ("o", d, width)):
                out |= linear(f"{at}.mixer.{part}_proj", rows, columns)
    return out | linear("lm_head", c["vocab_size"], d)


def scored(c: Config) -> Tensors:
    """A decoder with one score for a head."""
    return decoder(c, head="") | linear("score", 1, c["hidden_size"])


def embedder(c: Config) -> Tensors:
    """A decoder without prefix and head, for embeddings (Qwen3-Embedding)."""
    return decoder(c, at="", head="")


def eagle3(c: Config) -> Tensors:
    """EAGLE-3's head of one layer: it joins three of the target's hidden states, and speaks 32,000 of its tokens."""
    d, kv = c["hidden_size"], c["num_key_value_heads"] * c["hidden_size"] // c["num_attention_heads"]
    out: Tensors = {"d2t": ("I64", (c["draft_vocab_size"],)), "t2d": ("BOOL", (c["vocab_size"],))}
    out |= linear("fc", d, 3 * d) | linear("lm_head", c["draft_vocab_size"], d) | norm("norm", d)
    for part, rows, columns in (("q", d, 2 * d), ("k", kv, 2 * d), ("v", kv, 2 * d), ("o", d, d)):
        out |= linear(f"midlayer.self_attn.{part}_proj", rows, columns)
    out |= gated("midlayer.mlp", d, c["intermediate_size"])
    for name in ("hidden_norm", "input_layernorm", "post_attention_layernorm"):
        out |= norm(f"midlayer.{name}", d)
    return out


def lora(c: Config) -> Tensors:
    """PEFT's LoRA over a Llama's projections: `targets` as name → (out, in)."""
    out: Tensors = {}
    for i in range(c["layers"]):
        for name, (rows, columns) in c["targets"].items():
            at = f"base_model.model.model.layers.{i}.{name}"
            out[f"{at}.lora_A.weight"] = (c["dtype"], (c["r"], columns))
            out[f"{at}.lora_B.weight"] = (c["dtype"], (rows, c["r"]))
    return out


LAYOUTS: dict[str, Callable[[Config], Tensors]] = {
    "bloom": bloom, "decoder": decoder, "deepseek": deepseek, "eagle3": eagle3, "embedder": embedder, "falcon": falcon,
    "gpt2": gpt2, "gpt_oss": gpt_oss, "lora": lora, "mamba": mamba, "nemotron_h": nemotron_h, "scored": scored,
}  # fmt: skip
