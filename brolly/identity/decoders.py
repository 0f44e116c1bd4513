"""What some decoders do beyond their rows of data/decoders.json: layers of several sizes, shared blocks, odd keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from brolly.identity.anatomy import FULL, SLIDING, Anatomy, Layer, assemble, context_of, is_tied, kinds_of, rows
from brolly.identity.mixers import MIXERS, Mix, Settings, Untold, attention, linear


def _falcon(s: Settings, name: str) -> Anatomy:
    new = bool(s.get("new_decoder_architecture")) or s.config.get("model_type") == "RefinedWeb"
    h, multi = s.n_heads, bool(s.get("multi_query"))
    kv = s.number("num_kv_heads", "n_head_kv", default=h) if new or not multi else 1
    norms = s.get("num_ln_in_parallel_attn")
    parallel = bool(s.get("parallel_attn"))
    norms = (2 if norms is None else int(norms)) if new else 1 if parallel else 2
    norms = 1 if not new and parallel else norms
    bias = bool(s.get("bias"))
    row = {
        "norm": "layer",
        "norms": norms,
        "qkv_bias": bias,
        "o_bias": bias,
        "mlp": "plain",
        "mlp_bias": bias,
        "tied": True,
    }
    fixed = Settings({**s.config, "num_key_value_heads": kv, "num_local_experts": 0}, s.defaults)
    return assemble(fixed, row, name, [FULL] * s.n_layers)


def _mpt(s: Settings, row: dict[str, Any]) -> dict[str, Any]:
    if not s.get("no_bias") or s.get("attn_config.alibi") is False or s.get("attn_config.qk_ln"):
        raise Untold("an MPT with biases or learned positions")
    ratio = s.number("expansion_ratio", default=4)
    return {**row, "hidden": ratio}


def _opt(s: Settings, row: dict[str, Any]) -> dict[str, Any]:
    narrow = s.number("word_embed_proj_dim", default=s.dim)
    extra = {"embedding": 2 * narrow * s.dim} if narrow != s.dim else {}
    last = bool(s.get("do_layer_norm_before")) and not s.get("_remove_final_layer_norm")
    before = s.get("enable_bias")
    return {**row, "extra": extra, "final": 1 if last else 0} | (
        {"qkv_bias": False, "o_bias": False, "mlp_bias": False} if before is False else {}
    )


def _lfm2(s: Settings, row: dict[str, Any]) -> dict[str, Any]:
    hidden = s.number("block_ff_dim", "intermediate_size", default=4 * s.dim)
    if s.get("block_auto_adjust_ff_dim"):
        hidden = int(2 * hidden / 3)
        multiple = max(s.number("block_multiple_of", default=1), 1)
        hidden = multiple * -(-int(s.ratio("block_ffn_dim_multiplier") * hidden) // multiple)
    s.config = {**s.config, "adjusted_ff_dim": hidden}
    return {**row, "dense_key": "adjusted_ff_dim"}


def _llama4(s: Settings, row: dict[str, Any]) -> dict[str, Any]:
    s.config = {**s.config, "shared_expert_intermediate_size": s.number("intermediate_size")}
    return {**row, "dense_key": "intermediate_size_mlp"}


def _stablelm(s: Settings, row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "norms": 1 if s.get("use_parallel_residual") else 2}


def _gpt_bigcode(s: Settings, row: dict[str, Any]) -> dict[str, Any]:
    if s.get("multi_query"):
        s.config = {**s.config, "num_key_value_heads": 1}
        s._seen.clear()
    return row


def _nemotron_h(s: Settings, row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "one_part": True}


def _gpt_neox_japanese(s: Settings, row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "extra": {"attention": s.dim}}


def _per_layer(s: Settings) -> tuple[dict[str, int], int]:
    """Gemma 3n's and 4's per-layer embeddings: numbers of the whole by part, and of each layer."""
    d, width, n = s.dim, s.number("hidden_size_per_layer_input", default=0), s.n_layers
    if not width:
        return {}, 0
    table = s.number("vocab_size_per_layer_input", default=s.vocab)
    whole = {"per-layer embedding": table * n * width, "mlp": d * n * width, "norms": width}
    return whole, 2 * d * width + d


def _gemma3n(s: Settings, row: dict[str, Any]) -> dict[str, Any]:
    whole, each = _per_layer(s)
    d, n, rank = s.dim, s.number("altup_num_inputs"), s.number("laurel_rank")
    extra = {**whole, "mlp": whole.get("mlp", 0) + 2 * (n - 1) * d * d}
    altup = n * n + n**3 + n * d + d + d
    first_shared = s.n_layers - s.number("num_kv_shared_layers", default=0)
    shared = ["kv-shared" if i >= first_shared else k for i, k in enumerate(row["kinds_found"])]
    row["kinds_found"][:] = row["kinds_found"]
    return {
        **row, "extra": extra, "layer_extra": {"mlp": each + altup + 2 * d * rank + d},
        "mixers": {FULL: "gemma3n", SLIDING: "gemma3n"}, "shared": shared, "exact": False,
    }  # fmt: skip


def _gemma3n_mixer(s: Settings, row: Mapping[str, Any], layer: int) -> Mix:
    shared = row["shared"][layer] == "kv-shared"
    return attention(s, row, s.n_heads, s.n_kv_heads, s.head_dim, s.head_dim, shared=shared)


MIXERS["gemma3n"] = _gemma3n_mixer


def _gemma4(s: Settings, row: dict[str, Any]) -> dict[str, Any]:
    row["kinds_found"][-1:] = [FULL]
    whole, each = _per_layer(s)
    d, shared = s.dim, s.number("num_kv_shared_layers", default=0)
    extra = {"mlp": each}
    if s.get("enable_moe_block"):  # a mixture beside the dense network, with norms of its own
        extra = {"mlp": each + 3 * d * s.hidden(0), "norms": 3 * d, "router": d + s.number("num_experts")}
    elif s.get("use_double_wide_mlp"):
        whole = {**whole, "mlp": whole.get("mlp", 0) + shared * 3 * d * s.hidden(0)}
    return {**row, "extra": whole, "layer_extra": extra, "exact": not shared}


def _mllama(s: Settings, name: str) -> Anatomy:
    """Llama 3.2 Vision: some layers attend to the picture instead, whose keys are not a context's."""
    d, k = s.dim, s.head_dim
    crossing = s.get("cross_attention_layers")
    if not isinstance(crossing, list) or not crossing:
        raise Untold("cross_attention_layers")
    kinds = ["cross" if i in crossing else FULL for i in range(s.n_layers)]
    n = kinds.count("cross")
    row = {**rows()["llama"], "mixers": {FULL: "gqa", "cross": "gqa"}, "extra": {
        "embedding": 8 * d,  # of special tokens, which have no row in the head
        "attention": n * (2 * k + 2),  # norms of queries and keys, two gates
    }}  # fmt: skip
    found = assemble(s, row, name, kinds)
    layers = tuple(x._replace(cached=0) if x.mixer == "cross" else x for x in found.layers)
    return found._replace(layers=layers)


def _openelm(s: Settings, name: str) -> Anatomy:
    """Apple's OpenELM: every layer has its own heads and hidden size."""
    d, k, n = s.dim, s.number("head_dim"), s.n_layers
    factors, divisor = s.get("ffn_multipliers"), s.number("ffn_dim_divisor", default=256)
    layers, attended, mlp, norms = [], 0, 0, d
    for i in range(n):
        raw = float(factors[i]) * d
        hidden = max(divisor, int(raw + divisor / 2) // divisor * divisor)
        hidden += divisor if hidden < 0.9 * raw else 0
        heads, kv = s.number("num_query_heads", at=i), s.number("num_kv_heads", at=i)
        attended += d * (heads + 2 * kv) * k + heads * k * d + (2 * k if s.get("normalize_qk_projections") else 0)
        mlp += 3 * d * hidden
        norms += 2 * d
        layers.append(Layer(FULL, heads, kv, k, k, None, 2 * kv * k, 0, "dense", hidden))
    tied = bool(s.get("share_input_output_layers"))
    parts = {"embedding": s.vocab * d, "attention": attended, "mlp": mlp, "norms": norms}
    parts |= {} if tied else {"lm_head": s.vocab * d}
    return Anatomy(name, d, s.vocab, context_of(s), tied, tuple(layers), parts)


def _rwkv(s: Settings, name: str) -> Anatomy:
    """RWKV-4."""
    d, n = s.dim, s.n_layers
    wide, hidden = s.number("attention_hidden_size", default=d), s.number("intermediate_size", default=4 * d)
    mixing, channel = 2 * wide + 3 * d + 4 * d * wide, 2 * d + d * hidden + d * d + hidden * d
    parts = {"embedding": s.vocab * d, "mixer": n * mixing, "mlp": n * channel, "norms": 4 * d * n + 4 * d}
    tied = is_tied(s, {})
    parts |= {} if tied else {"lm_head": s.vocab * d}
    layer = Layer("linear", 0, 0, 0, 0, None, 0, 5 * d, "dense", hidden)
    return Anatomy(name, d, s.vocab, context_of(s), tied, (layer,) * n, parts)


def _zamba2(s: Settings, name: str) -> Anatomy:
    """Mamba-2 layers, some with one of a few shared transformer blocks before them."""
    d, n = s.dim, s.n_layers
    kinds = kinds_of(s, {"kinds": "listed", "mixers": {"ssm": ""}})
    hybrid = [i for i, k in enumerate(kinds) if k == "full+ssm"]
    blocks = min(s.number("num_mem_blocks", default=1), len(hybrid))
    h, hidden, rank = s.n_heads, s.hidden(0), s.number("adapter_rank", default=128)
    kv, k = s.n_kv_heads, 2 * d // max(h, 1)
    bias = bool(s.get("add_bias_linear"))
    block = linear(2 * d, h * k) + 2 * linear(2 * d, kv * k) + linear(h * k, d)
    mlp = linear(d, 2 * hidden, bias) + linear(hidden, d, bias)
    adapters = (
        d * rank + rank * 2 * hidden if s.get("use_shared_mlp_adapter", "use_shared_block_adapter") is not False else 0
    )
    if s.get("use_shared_attention_adapter"):
        adapters += 3 * (2 * d * rank + rank * h * k)
    row = {**rows()["zamba2"], "extra": {
        "attention": blocks * block, "mlp": blocks * mlp + len(hybrid) * adapters, "norms": blocks * 3 * d,
        "mixer": len(hybrid) * d * d,
    }}  # fmt: skip
    found = assemble(s, row, name, kinds[:n])
    layers = tuple(
        x._replace(n_heads=h, n_kv_heads=kv, k_dim=k, v_dim=k, cached=2 * kv * k) if x.mixer == "full+ssm" else x
        for x in found.layers
    )
    parts = found.parts
    return found._replace(layers=layers, parts=parts, reused=(len(hybrid) - blocks) * (block + mlp))


def _longcat(s: Settings, name: str) -> Anatomy:
    """LongCat-Flash: two attentions and two dense networks a layer, and experts of which some do nothing."""
    n, d = s.number("num_layers"), s.dim
    one = MIXERS["mla"](s, {}, 0)
    experts, idle, width = (
        s.number("n_routed_experts"),
        s.number("zero_expert_num", default=0),
        s.number("expert_ffn_hidden_size"),
    )
    parts = {
        "embedding": s.vocab * d, "attention": 2 * n * one.n_params, "mlp": 2 * n * 3 * d * s.number("ffn_hidden_size"),
        "experts": n * experts * 3 * d * width, "router": n * (d + 1) * (experts + idle), "norms": (4 * n + 1) * d,
        "lm_head": s.vocab * d,
    }  # fmt: skip
    layer = Layer(FULL, *one[1:5], None, 2 * one.cached, 0, "moe", width, experts, s.number("moe_topk"), 3 * d * width)
    return Anatomy(name, d, s.vocab, context_of(s), False, (layer,) * n, parts, mla=True)


WHOLE: dict[str, Callable[[Settings, str], Anatomy]] = {
    "falcon": _falcon, "openelm": _openelm, "rwkv": _rwkv,
    "mllama": _mllama, "zamba2": _zamba2, "longcat": _longcat,
}  # fmt: skip
CHANGES: dict[str, Callable[[Settings, dict[str, Any]], dict[str, Any]]] = {
    "mpt": _mpt, "opt": _opt, "lfm2": _lfm2, "llama4": _llama4, "stablelm": _stablelm, "nemotron_h": _nemotron_h,
    "gpt_bigcode": _gpt_bigcode,
    "gpt_neox_japanese": _gpt_neox_japanese, "gemma3n": _gemma3n, "gemma4": _gemma4,
}  # fmt: skip
