"""A decoder-only text network taken apart: layer by layer, from its config alone, exact to the last bias.

Rows of data/decoders.json say what a model type's layers are made of; a type without a row has no anatomy here.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

from brolly.identity.mixers import MIXERS, Mix, Settings, Untold, linear
from brolly.identity.tables import table

TEXT_PARTS = ("text_config", "llm_config", "language_config", "thinker_config", "talker_config", "text_model_config")
FULL, SLIDING, CHUNKED = "full", "sliding", "chunked"
WORDS = {
    "full_attention": FULL, "attention": FULL, "*": FULL, "sliding_attention": SLIDING, "chunked_attention": CHUNKED,
    "linear_attention": "linear", "conv": "conv", "mamba": "ssm", "M": "ssm", "recurrent": "recurrent",
    "hybrid": "full+ssm", "moe": "moe", "E": "moe", "mlp": "dense", "-": "dense", "deepseek_sparse_attention": FULL,
    "indexed_attention": FULL, "minimax_m3_sparse": FULL,
}  # fmt: skip
# a config's own word for a model type → the row that counts it
OTHER_NAMES = {
    "kimi_k2": "deepseek_v3", "kimi_k25": "deepseek_v3", "Yi": "llama", "RefinedWebModel": "falcon",
    "RefinedWeb": "falcon",
    "gemma3": "gemma3_text", "gemma3n": "gemma3n_text", "gemma4": "gemma4_text", "llama4": "llama4_text",
    "qwen2_vl": "qwen2", "qwen2_vl_text": "qwen2", "qwen2_5_vl": "qwen2", "qwen2_5_vl_text": "qwen2",
    "qwen2_audio": "qwen2",
    "qwen2_5_omni_text": "qwen2", "qwen3_vl": "qwen3", "qwen3_vl_text": "qwen3", "qwen3_vl_moe": "qwen3_moe",
    "qwen3_vl_moe_text": "qwen3_moe", "qwen3_omni_moe_text": "qwen3_moe", "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text", "mllama": "mllama_text_model", "llava": "llama", "llava_llama": "llama",
    "paligemma": "gemma", "idefics2": "mistral", "smolvlm": "llama", "idefics3": "llama", "mistral3": "mistral",
    "deepseek_vl_v2": "deepseek_v2", "hunyuan": "hunyuan_v1_moe", "xgen": "llama", "minimax_text_01": "minimax",
    "ernie4_5_moe_vl": "ernie4_5_moe", "internlm": "internlm", "GPT2": "gpt2", "llava_mistral": "mistral",
    "llava_qwen": "qwen2", "llava_next": "llama", "phi3_v": "phi3", "minicpmv": "qwen2",
}  # fmt: skip


STATED = (
    "hidden_size",
    "n_embd",
    "d_model",
    "dim",
    "model_dim",
    "vocab_size",
    "num_hidden_layers",
    "num_layers",
    "n_layer",
)


class Layer(NamedTuple):
    """One layer. `mixer`: full, sliding, chunked, linear, ssm, conv, recurrent, full+ssm; `mlp`: dense, moe, none.

    `cached`: numbers kept for each token (at most `window` tokens of them); `state`: numbers kept once for a sequence.
    """

    mixer: str
    n_heads: int
    n_kv_heads: int
    k_dim: int
    v_dim: int
    window: int | None
    cached: int
    state: int
    mlp: str
    hidden: int = 0
    n_experts: int = 0
    n_active: int = 0
    expert_params: int = 0  # of one expert


class Anatomy(NamedTuple):
    """A decoder's layers, and its numbers by part: embedding, positions, attention, mlp, experts, router, lm_head …

    A tied head has no entry of its own. `reused`: numbers that a token meets more than once, on top of `activated`.
    `exact` is False where the published files are known to hold more or less than the config says.
    """

    model_type: str
    dim: int
    vocab: int
    context: int | None
    tied: bool
    layers: tuple[Layer, ...]
    parts: Mapping[str, int] = {}
    reused: int = 0
    exact: bool = True
    mla: bool = False

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    @property
    def idle(self) -> int:
        """Numbers of the experts that a token does not visit."""
        return sum((x.n_experts - x.n_active) * x.expert_params for x in self.layers)

    @property
    def activated(self) -> int:
        return self.total - self.idle

    @property
    def lookups(self) -> int:
        """Numbers of tables of which a token reads one row: the input embedding, unless it is the head too."""
        own = 0 if self.tied else self.parts.get("embedding", 0)
        return own + self.parts.get("per-layer embedding", 0)

    @property
    def activated_without_embeddings(self) -> int:
        return self.activated - self.lookups

    @property
    def share_idle(self) -> tuple[int, int]:
        """(experts that a token visits, experts) of the first layer that has them; (1, 1) without."""
        return next(((x.n_active, x.n_experts) for x in self.layers if x.n_experts), (1, 1))

    def cache(self, n_tokens: int, bits: int = 16) -> int:
        """Bytes of keys and values of a sequence of `n_tokens`; a window holds no more than itself."""
        kept = sum(x.cached * min(n_tokens, x.window or n_tokens) for x in self.layers)
        return kept * bits // 8

    @property
    def state(self) -> int:
        """Numbers that linear, convolutional and state-space layers keep for a sequence, however long."""
        return sum(x.state for x in self.layers)

    def attention_flop(self, n_tokens: int) -> int:
        """FLOP of one token's products with `n_tokens` keys and values."""
        return sum(
            2 * x.n_heads * (x.k_dim + x.v_dim) * min(n_tokens, x.window or n_tokens) for x in self.layers if x.cached
        )


@functools.cache
def rows() -> dict[str, dict[str, Any]]:
    """The table of model types, each with what it inherits."""
    told = table("decoders.json")

    def whole(name: str) -> dict[str, Any]:
        row = told[name]
        return {**whole(row["like"]), **row} if "like" in row else row

    return {name: whole(name) for name in told}


@functools.cache
def defaults() -> dict[str, dict[str, Any]]:
    """What transformers' config classes assume where a config.json says nothing: model type → key → value."""
    found: dict[str, dict[str, Any]] = table("config_defaults.json")["types"]
    return found


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The language model's own part of a config that has several; what it lacks of a head's tie is the whole's."""
    for part in TEXT_PARTS:
        inner = config.get(part)
        if isinstance(inner, Mapping) and inner:
            inner = text_config(inner)
            said = {k: config[k] for k in ("tie_word_embeddings", "quantization_config") if k in config}
            if "model_type" not in inner and isinstance(config.get("model_type"), str):
                said["model_type"] = config["model_type"]
            return {**said, **inner}
    return config


def anatomy_of(
    config: Mapping[str, Any], tensors: Any = None, gguf_metadata: Mapping[str, Any] | None = None
) -> Anatomy | None:
    """The anatomy of a config.json (of any age), a params.json, or GGUF's key-values; None where it is not known.

    `tensors` (names → TensorInfo) settle what Meta's params.json leaves open. A GGUF file's anatomy has no `parts`.
    """
    try:
        if gguf_metadata and "general.architecture" in gguf_metadata:
            return _from_gguf(gguf_metadata)
        own = text_config(config)
        if "model_type" not in own and ("dim" in own and ("n_layers" in own)):
            own = _from_params(own, tensors)
        if "model_type" not in own and "d_model" in own and isinstance(own.get("ssm_cfg"), Mapping):
            own = _from_state_spaces(own)
        return _build(own)
    except (Untold, ArithmeticError, KeyError, TypeError, ValueError, IndexError, AttributeError):
        return None  # a config that does not say enough, or says what no decoder can be


def _from_state_spaces(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Mamba's own config.json, in transformers' words; what its ssm_cfg does not say is that code's default."""
    said, multiple, hidden = config["ssm_cfg"], config.get("pad_vocab_size_multiple", 8), config["d_model"]
    if config.get("attn_layer_idx") or config.get("d_intermediate") or set(said) - {"layer"}:
        raise Untold("a state-space model with more than its usual layers")
    second = said.get("layer") == "Mamba2"
    inner = {"state_size": 128, "num_heads": hidden // 32, "head_dim": 64, "n_groups": 1} if second else {}
    return {
        "model_type": "mamba2" if second else "mamba", "hidden_size": hidden, "num_hidden_layers": config["n_layer"],
        "vocab_size": -(-config["vocab_size"] // multiple) * multiple, "expand": 2, "conv_kernel": 4, **inner,
        "tie_word_embeddings": config.get("tie_embeddings", True),
    }  # fmt: skip


def _build(config: Mapping[str, Any]) -> Anatomy | None:
    said = config.get("model_type")
    name = said if isinstance(said, str) else ""
    if config.get("architectures") == ["MiniMaxM2ForCausalLM"]:  # whose published config says that it is a MiniMax-01
        name = "minimax_m2"
    name = name if name in rows() else OTHER_NAMES.get(name, "")
    row = rows().get(name)
    if row is None or not all(key in config for key in row.get("needs", ())):
        return None
    if not any(key in config for key in STATED):
        return None  # nothing but defaults
    if config.get("per_layer_config") and "gemma4" not in row.get("mixers", {}).values():
        return None
    s = Settings(
        config,
        {
            **(defaults().get(name if name == "minimax_m2" else str(said)) or defaults().get(name) or {}),
            **row.get("defaults", {}),
        },
    )
    special = row.get("special")
    if special:
        from brolly.identity.decoders import CHANGES, WHOLE

    if special and special in WHOLE:
        return WHOLE[special](s, name)
    kinds = kinds_of(s, row)
    row = {**row, "kinds_found": kinds}
    if special:
        row = CHANGES[special](s, row)
    return assemble(s, row, name, kinds)


def assemble(s: Settings, row: Mapping[str, Any], name: str, kinds: list[str]) -> Anatomy:
    """Layers and parts by the row's rules."""
    d, per_norm = s.dim, {"rms": 1, "layer": 2, "none": 0}[row["norm"]]
    mixers = row.get("mixers", {})
    parts: dict[str, int] = {}
    layers: list[Layer] = []

    def add(part: str, n: int) -> None:
        if n:
            parts[part] = parts.get(part, 0) + n

    tied = is_tied(s, row)
    add("embedding", s.vocab * s.number("word_embed_proj_dim", default=d))
    if "positions" in row:
        add("positions", (s.number(*CONTEXT) + row["positions"]) * d)
    add("norms", per_norm * d * (row.get("final", 1) + (1 if row.get("embed_norm") else 0)))
    add("lm_head", 0 if tied else s.vocab * s.number("word_embed_proj_dim", default=d))
    add("lm_head", s.vocab if s.flag(row.get("head_bias")) else 0)
    for part, n in row.get("extra", {}).items():
        add(part, n)
    window = window_of(s)
    chunk = s.number("attention_chunk_size", default=0) or None
    alike = not row.get("special") and not any(isinstance(s.get(key), list) for key in BY_LAYER)
    seen: dict[tuple[str, bool], tuple[Layer, dict[str, int]]] = {}
    for i, kind in enumerate(kinds):
        key = kind, alike and has_experts(s, i)
        if not alike or key not in seen:
            limit = {SLIDING: window, CHUNKED: chunk}.get(kind)
            seen[key] = one_layer(s, row, i, kind, limit, per_norm * d * row.get("norms", 2))
        layer, numbers = seen[key]
        layers.append(layer)
        for part, n in numbers.items():
            add(part, n)
    return Anatomy(
        name, d, s.vocab, context_of(s), tied, tuple(layers), parts, exact=row.get("exact", True),
        mla=mixers.get(FULL) in ("mla", "dsa"),
    )  # fmt: skip


def one_layer(
    s: Settings, row: Mapping[str, Any], i: int, kind: str, limit: int | None, norms: int
) -> tuple[Layer, dict[str, int]]:
    """A layer, and its numbers by part."""
    mixers, mix = row.get("mixers", {}), Mix(0)
    if kind not in ("dense", "moe"):
        rule = mixers.get(kind, mixers.get(FULL, "gqa") if kind in (FULL, SLIDING, CHUNKED) else "")
        mix = MIXERS[rule](s, row, i)
    mlp = mlp_of(s, row, i, kind)
    place = "attention" if mix.cached or kind in (FULL, SLIDING, CHUNKED) else "mixer"
    numbers = {place: mix.n_params, "norms": norms}
    for more in (row.get("layer_extra", {}), mlp[4]):
        for part, n in more.items():
            numbers[part] = numbers.get(part, 0) + n
    return Layer(kind, *mix[1:5], limit, mix.cached, mix.state, *mlp[:4], mlp[5]), numbers


# of these a config may have one for each layer
BY_LAYER = ("intermediate_size", "moe_intermediate_size", "num_experts", "moe_num_experts", "moe_topk", "moe_k",
            "num_shared_expert", "head_dim", "num_key_value_heads")  # fmt: skip
CONTEXT = (
    "max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "seq_length", "model_max_length",
    "max_context_length", "n_ctx", "context_length",
)  # fmt: skip


def context_of(s: Settings) -> int | None:
    value = s.get(*CONTEXT)
    return value if type(value) is int and 0 < value < 2**40 else None


def window_of(s: Settings) -> int | None:
    value = s.get("sliding_window", "attention_window_size", "window_size", "sliding_window_size")
    return value if type(value) is int and value > 0 else None


def is_tied(s: Settings, row: Mapping[str, Any]) -> bool:
    value = s.get("tie_word_embeddings", "tie_embedding", "share_embeddings")
    return bool(row.get("tied")) if value is None else bool(value)


def kinds_of(s: Settings, row: Mapping[str, Any]) -> list[str]:
    """The mixer of each layer, by the config's own list or the type's habit."""
    n = s.n_layers if s.get("num_hidden_layers", "n_layer", "n_layers", "num_layers") is not None else 0
    listed = s.texts("layer_types", "layers_block_type")
    pattern = s.get("hybrid_override_pattern")
    if isinstance(pattern, str) and not listed:
        listed = list(pattern)
    rule = row.get("kinds")
    if listed and rule not in ("multi_query", "ssm", "falcon_h1", "block_types") and (len(listed) >= n or not n):
        kinds = [WORDS[w] for w in listed[: n or len(listed)]]
        if "ssm" in row.get("mixers", {}):  # transformers 5 calls a state space a linear attention too
            kinds = ["ssm" if k == "linear" else k for k in kinds]
        return kinds
    if rule == "listed":
        raise Untold("the layers' kinds are not listed")
    if rule == "ssm":
        return ["ssm"] * n
    if rule == "falcon_h1":
        return ["full+ssm"] * n
    if rule == "full_attention_interval":
        every = max(s.number("full_attention_interval", default=4), 1)
        return [FULL if (i + 1) % every == 0 else "linear" for i in range(n)]
    if rule == "attn_layer_period":
        period, offset = max(s.number("attn_layer_period"), 1), s.number("attn_layer_offset")
        return [FULL if i % period == offset else "ssm" for i in range(n)]
    if rule == "attn_layer_indices":
        chosen = s.get("attn_layer_indices") or ()
        return [FULL if i in chosen else "ssm" for i in range(n)]
    if rule == "minimax":
        chosen = s.get("attn_type_list")
        if isinstance(chosen, list) and len(chosen) >= n:
            return [FULL if chosen[i] else "linear" for i in range(n)]
        return [FULL if (i + 1) % 2 else "linear" for i in range(n)]
    if rule == "kimi_linear":
        chosen = s.get("linear_attn_config.full_attn_layers") or range(5, n + 1, 4)
        return [FULL if i + 1 in chosen else "linear" for i in range(n)]
    if rule == "block_types":
        listed = s.texts("block_types", "_block_types") or ["recurrent", "recurrent", "attention"]
        return [SLIDING if listed[i % len(listed)] == "attention" else "recurrent" for i in range(n)]
    if row.get("mixers", {}).get("ssm"):
        return ["ssm"] * n
    if "conv" in row.get("mixers", {}):
        chosen = s.get("full_attn_idxs")
        return [FULL if chosen is None or i in chosen else "conv" for i in range(n)]
    return windows(s, row, n)


def windows(s: Settings, row: Mapping[str, Any], n: int) -> list[str]:
    """Which layers see a window only."""
    rule = row.get("window")
    window = window_of(s)
    if rule == "gpt_neo":
        listed = s.texts("attention_layers")
        return [
            SLIDING if i < len(listed) and listed[i] == "local" or (not listed and i % 2) else FULL for i in range(n)
        ]
    if rule == "llama4":
        chunk, no_rope = s.get("attention_chunk_size"), s.get("no_rope_layers")
        every = max(s.number("no_rope_layer_interval", default=4), 1)
        roped = no_rope if isinstance(no_rope, list) and len(no_rope) >= n else [(i + 1) % every for i in range(n)]
        return [CHUNKED if chunk and roped[i] else FULL for i in range(n)]
    if not window or not rule:
        return [FULL] * n
    if rule == "all":
        return [SLIDING] * n
    if rule == "alternate":
        return [FULL if i % 2 else SLIDING for i in range(n)]
    if rule == "max_window_layers":
        first = s.number("max_window_layers", default=n) if s.get("use_sliding_window") else n
        return [SLIDING if i >= first else FULL for i in range(n)]
    if rule == "exaone4":
        said = s.get("sliding_window_pattern")
        if isinstance(said, str) and said:
            return [SLIDING if said[i % len(said)] == "L" else FULL for i in range(n)]
        every = s.number("sliding_window_pattern", default=4)
        return [SLIDING if every and (i + 1) % every else FULL for i in range(n)]
    key, usual = row["pattern"]
    every = max(s.number(key, default=usual) if key else usual, 1)
    return [SLIDING if (i + 1) % every else FULL for i in range(n)]


def has_experts(s: Settings, layer: int) -> bool:
    """Whether a layer's feed-forward part is a mixture, by whichever of the habits the config has."""
    if listed := s.texts("mlp_layer_types"):
        return layer < len(listed) and listed[layer] == "sparse"
    chosen = s.get("moe_layers")
    if isinstance(chosen, (list, tuple)):
        return layer in chosen
    if (step := s.get("interleave_moe_layer_step")) is not None:
        return bool(step) and (layer + 1) % step == 0
    if s.get("expert_layer_period") is not None:
        return layer % max(s.number("expert_layer_period"), 1) == s.number("expert_layer_offset")
    if s.get("moe_layer_start_index") is not None:
        first, last = s.number("moe_layer_start_index", at=0), s.get("moe_layer_end_index")
        last = s.n_layers - 1 if last in (None, -1) else s.number("moe_layer_end_index", at=0)
        return first <= layer <= last and (layer + 1) % max(s.number("moe_layer_interval", default=1), 1) == 0
    only = s.get("mlp_only_layers") or ()
    if layer in only or (layer + 1) % max(s.number("decoder_sparse_step", default=1), 1):
        return False
    if layer < s.number("first_k_dense_replace", "num_dense_layers", "moe_first_k_dense", "first_k_dense", default=0):
        return False
    often = s.get("moe_layer_freq")
    if isinstance(often, list):
        return layer < len(often) and bool(often[layer])
    return not often or layer % max(s.number("moe_layer_freq"), 1) == 0


EXPERTS = (
    "num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts", "num_routed_experts",
    "ffn_config.moe_num_experts",
)  # fmt: skip
VISITED = (
    "num_experts_per_tok", "num_experts_per_token", "moe_k", "moe_topk", "moe_top_k", "top_k_experts",
    "num_selected_experts", "ffn_config.moe_top_k",
)  # fmt: skip
Mlp = tuple[str, int, int, int, dict[str, int], int]


def mlp_of(s: Settings, row: Mapping[str, Any], layer: int, kind: str) -> Mlp:
    """(kind, hidden size, experts, experts a token visits, numbers by part, numbers of one expert)."""
    d, form = s.dim, row.get("mlp", "gated")
    alone = "dense" in kind or "moe" in kind or row.get("one_part")
    if form == "none" or (row.get("one_part") and kind not in ("dense", "moe")):
        return "none", 0, 0, 0, {}, 0
    bias = s.flag(row.get("mlp_bias"))
    n_experts = s.number(*EXPERTS, default=0, at=layer)

    def dense(width: int, bias: bool = bias) -> int:
        return (2 if form == "gated" else 1) * linear(d, width, bias) + linear(width, d, bias)

    mixture = n_experts > 1 or bool(n_experts and row.get("moe_always"))
    if row.get("special") == "gemma4":
        mixture = mixture and bool(s.get("enable_moe_block"))
    if not mixture or (kind == "dense" if alone else not has_experts(s, layer)):
        width = s.number(row["dense_key"]) if row.get("dense_key") else s.hidden(layer)
        width = width // row.get("hidden_divided_by", 1)
        extra = width if row.get("sub_norms") else 0
        return "dense", width, 0, 0, {"mlp": dense(width) + extra + row.get("mlp_extra", 0)}, 0
    width = s.number("moe_intermediate_size", "expert_dim", default=s.hidden(layer), at=layer)
    latent = s.number("moe_latent_size", default=0)
    one = dense(width, bool(row.get("expert_bias"))) if not latent else 2 * latent * width
    n_active = s.number(*VISITED, at=layer)
    if n_active > n_experts:
        raise Untold(f"{n_active} of {n_experts} experts")
    parts = {"experts": n_experts * one, "router": linear(d, n_experts, bool(row.get("router_bias")))}
    parts["router"] += n_experts if s.flag(row.get("router_correction")) else 0
    if latent:
        parts["router"] += 2 * d * latent
    shared = shared_width(s, layer, width)
    if shared:
        parts["shared experts"] = dense(shared) + (d if row.get("shared_gate") else 0)
    return "moe", width, n_experts, n_active, parts, one


def shared_width(s: Settings, layer: int, width: int) -> int:
    """The hidden size of the experts that every token visits, together."""
    for name in ("shared_expert_intermediate_size", "shared_intermediate_size"):
        if s.get(name) is not None:
            return s.number(name)
    n = s.number(
        "n_shared_experts", "num_shared_experts", "moe_num_shared_experts", "num_shared_expert", default=0, at=layer
    )
    if n and s.get("moe_shared_expert_intermediate_size") is not None:
        return n * s.number("moe_shared_expert_intermediate_size")
    return n * width


def _from_params(config: Mapping[str, Any], tensors: Any) -> dict[str, Any]:
    """Meta's and Mistral's params.json in transformers' words; Meta's hidden size follows from two of its numbers."""
    d, own = config["dim"], dict(config)
    hidden = config.get("hidden_dim")
    if hidden is None:
        hidden = int(2 * 4 * d / 3)
        hidden = int(Settings(config, {}).ratio("ffn_dim_multiplier") * hidden)
        multiple = config.get("multiple_of", 256)
        hidden = multiple * -(-hidden // multiple)
    vocab = config.get("vocab_size", -1)
    table = next((tensors[n] for n in ("tok_embeddings.weight", "output.weight") if tensors and n in tensors), None)
    if type(vocab) is not int or vocab <= 0:
        if table is None or len(table.shape) != 2:
            raise Untold("vocab_size")
        pieces = table.shards or (table,)
        vocab = pieces[0].shape[0] if pieces[0].shape[1] != d else sum(p.shape[0] for p in pieces)
    moe = config.get("moe")
    if isinstance(moe, Mapping):
        own |= {"num_local_experts": moe.get("num_experts"), "num_experts_per_tok": moe.get("num_experts_per_tok")}
    tied = bool(config.get("tied_embeddings")) or bool(tensors and "output.weight" not in tensors and table is not None)
    kind = "mixtral" if isinstance(moe, Mapping) else "mistral" if "hidden_dim" in config else "llama"
    return own | {
        "model_type": kind, "intermediate_size": hidden, "vocab_size": vocab, "tie_word_embeddings": tied,
        "sliding_window": config.get("sliding_window"), "max_position_embeddings": config.get("max_seq_len"),
    }  # fmt: skip


def _from_gguf(said: Mapping[str, Any]) -> Anatomy | None:
    """Layers and what they cache, from GGUF's key-values."""
    from brolly.identity.gguf_anatomy import anatomy

    return anatomy(said)
