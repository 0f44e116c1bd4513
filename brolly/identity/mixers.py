"""What mixes tokens in a decoder's layer, and how many numbers it has: attentions, state spaces, recurrences.

Each function takes the config's numbers, the type's row of data/decoders.json and the layer's index.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

LIMIT = 2**40  # no number in a config is larger


class Untold(Exception):
    """The config does not say a number that is needed, or says an absurd one."""


def lookup(source: Mapping[str, Any], name: str) -> list[Any]:
    """What stands under a name, "a.b" looking inside a; empty where nothing does."""
    outer, _, inner = name.partition(".")
    if inner:
        source, outer = source.get(outer), inner  # type: ignore[assignment]
    return [source[outer]] if isinstance(source, Mapping) and outer in source else []


class Settings:
    """A config's values by any of their names; what it leaves out comes from the type's defaults."""

    def __init__(self, config: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
        self.config, self.defaults = config, defaults
        self._seen: dict[tuple[str, ...], Any] = {}

    def get(self, *names: str) -> Any:
        """The first value under any of the names ("a.b" looks inside a); a null in the config is an answer too."""
        if names not in self._seen:
            found = [v for name in names for v in lookup(self.config, name)]
            found = found or [v for name in names for v in lookup(self.defaults, name)]
            self._seen[names] = next((v for v in found if v is not None), None)
        return self._seen[names]

    def number(self, *names: str, default: int | None = None, at: int | None = None) -> int:
        """A whole number; of a list, that of layer `at`. Raises Untold."""
        value = self.get(*names)
        if isinstance(value, (list, tuple)) and at is not None:
            value = value[at] if at < len(value) else value[-1] if value else None
        if value is None:
            value = default
        if type(value) is float and value == int(value):
            value = int(value)
        if type(value) is not int or not 0 <= value < LIMIT:
            raise Untold(f"{names[0]} is {value!r:.60}")
        return value

    def flag(self, rule: Any) -> bool:
        """A rule of the table: itself where it is true or false, else the key that says so, "!key" its opposite."""
        if not isinstance(rule, str) or not rule:
            return bool(rule)
        return not self.get(rule[1:]) if rule[0] == "!" else bool(self.get(rule))

    def ratio(self, name: str, default: float = 1.0) -> float:
        """A factor that need not be whole. Raises Untold."""
        value = self.get(name)
        value = default if value is None else value
        if type(value) not in (int, float) or not 0 < value < LIMIT:
            raise Untold(f"{name} is {value!r:.60}")
        return float(value)

    def texts(self, *names: str) -> list[str]:
        value = self.get(*names)
        return [str(v) for v in value] if isinstance(value, (list, tuple)) else []

    @property
    def dim(self) -> int:
        return self.number("hidden_size", "n_embd", "d_model", "dim", "model_dim")

    @property
    def n_layers(self) -> int:
        n = self.number("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_transformer_layers")
        if n > 4096:
            raise Untold(f"{n} layers")
        return n

    @property
    def n_heads(self) -> int:
        return self.number(
            "num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads", "attention.heads"
        )

    @property
    def head_dim(self) -> int:
        found = self.get("head_dim", "kv_channels")
        return self.number("head_dim", "kv_channels") if found is not None else self.dim // max(self.n_heads, 1)

    def hidden(self, layer: int) -> int:
        names = (
            "intermediate_size",
            "n_inner",
            "ffn_dim",
            "ffn_hidden_size",
            "hidden_dim",
            "d_ff",
            "ffn_config.ffn_hidden_size",
        )
        return self.number(*names, default=4 * self.dim, at=layer)

    @property
    def n_kv_heads(self) -> int:
        names = ("num_key_value_heads", "n_kv_heads", "num_kv_heads", "multi_query_group_num", "attn_config.kv_n_heads")
        return self.number(*names, default=self.n_heads)

    @property
    def vocab(self) -> int:
        return self.number("vocab_size", "padded_vocab_size", "n_vocab")


class Mix(NamedTuple):
    """One layer's mixer: numbers, heads, what it caches for each token and what it keeps once for a sequence."""

    n_params: int
    n_heads: int = 0
    n_kv_heads: int = 0
    k_dim: int = 0
    v_dim: int = 0
    cached: int = 0
    state: int = 0


Row = Mapping[str, Any]


def linear(into: int, out: int, bias: bool = False) -> int:
    return into * out + (out if bias else 0)


def attention(
    s: Settings, row: Row, heads: int, kv: int, k: int, v: int, *, shared: bool = False, same: bool = False
) -> Mix:
    """Grouped-query attention; `shared`: keys and values are another layer's, `same`: values are the keys."""
    d, bias = s.dim, s.flag(row.get("qkv_bias"))
    n = linear(d, heads * k, bias) + linear(heads * v, d, s.flag(row.get("o_bias")))
    if not shared:
        n += linear(d, kv * k, bias) + (0 if same else linear(d, kv * v, bias))
    if row.get("qk_norm") and (not row.get("qk_flag") or s.flag(row["qk_flag"])):
        width = {"head": (k, k), "heads": (heads * k, kv * k), "full": (heads * k, kv * k)}[row["qk_norm"]]
        n += (width[0] + (0 if shared else width[1])) * (2 if row.get("qk_norm_bias") else 1)
    n += heads if row.get("sinks") else 0
    n += heads * v if row.get("sub_norms") else 0
    n += d * heads * {"full": v, "doubled": v, "heads": 1, "": 0}[row.get("gate", "")]
    n += heads * v if row.get("gate") == "doubled" and bias else 0
    return Mix(n, heads, kv, k, v, 0 if shared else kv * (k + v))


def gqa(s: Settings, row: Row, layer: int) -> Mix:
    k = s.head_dim
    return attention(s, row, s.n_heads, s.n_kv_heads, k, k)


def gemma4(s: Settings, row: Row, layer: int) -> Mix:
    """Wider heads in the global layers, whose values may be their keys; the last layers reuse others'."""
    full = row["kinds_found"][layer] == "full"
    k = s.number("global_head_dim", default=512) if full else s.head_dim
    same = full and bool(s.get("attention_k_eq_v"))
    kv = s.number("num_global_key_value_heads", default=s.n_kv_heads) if same else s.n_kv_heads
    own = s.get("per_layer_config")  # transformers 5 writes what single layers have of their own
    own = (own.get(f"{layer:02d}") or own.get(str(layer))) if isinstance(own, Mapping) else None
    if isinstance(own, Mapping):
        k, kv = own.get("head_dim", k), own.get("num_key_value_heads", kv)
        if type(k) is not int or type(kv) is not int or not 0 < k * kv < LIMIT:
            raise Untold("per_layer_config")
    shared = layer >= s.n_layers - s.number("num_kv_shared_layers", default=0)
    return attention(s, row, s.n_heads, kv, k, k, shared=shared, same=same)


def mla(s: Settings, row: Row, layer: int) -> Mix:
    """Multi-head latent attention (DeepSeek-V2): one compressed vector and one rotary key are cached for all heads."""
    d, h, bias = s.dim, s.n_heads, bool(s.get("attention_bias"))
    rank, rope, nope = s.number("kv_lora_rank"), s.number("qk_rope_head_dim"), s.number("qk_nope_head_dim")
    v, k = s.number("v_head_dim", default=d // max(h, 1)), rope + nope
    q = s.number("q_lora_rank", default=0)
    n = linear(d, q, bias) + q + q * h * k if q else d * h * k
    n += linear(d, rank + rope, bias) + rank + rank * h * (nope + v) + linear(h * v, d, bias)
    return Mix(n, h, h, k, v, rank + rope)


def dsa(s: Settings, row: Row, layer: int) -> Mix:
    """MLA with DeepSeek-V3.2's indexer, which caches a small key of its own."""
    mix, d = mla(s, row, layer), s.dim
    heads, width = s.number("index_n_heads"), s.number("index_head_dim")
    n = s.number("q_lora_rank") * heads * width + d * width + 2 * width + d * heads
    return mix._replace(n_params=mix.n_params + n, cached=mix.cached + width)


def deltanet(s: Settings, row: Row, layer: int) -> Mix:
    """Gated DeltaNet, as Qwen3-Next has it."""
    d, kernel = s.dim, s.number("linear_conv_kernel_dim")
    hk, hv = s.number("linear_num_key_heads"), s.number("linear_num_value_heads")
    dk, dv = s.number("linear_key_head_dim"), s.number("linear_value_head_dim")
    wide = 2 * hk * dk + hv * dv
    n = d * (wide + hv * dv) + d * 2 * hv + wide * kernel + 2 * hv + dv + hv * dv * d
    return Mix(n, hv, hk, dk, dv, 0, hv * dk * dv + wide * kernel)


def kda(s: Settings, row: Row, layer: int) -> Mix:
    """Kimi Delta Attention."""
    d, h = s.dim, s.number("linear_attn_config.num_heads", "linear_num_heads")
    k = s.number("linear_attn_config.head_dim", "linear_head_dim")
    kernel = s.number("linear_attn_config.short_conv_kernel_size", "linear_conv_kernel_dim")
    wide = h * k
    n = 3 * d * wide + 3 * wide * kernel + wide + h + 2 * (d * k + k * wide) + d * h + k + wide * d
    return Mix(n, h, h, k, k, 0, h * k * k + 3 * wide * kernel)


def lightning(s: Settings, row: Row, layer: int) -> Mix:
    """MiniMax's lightning attention."""
    d, h, k = s.dim, s.n_heads, s.head_dim
    return Mix(h * k + d * 3 * h * k + 2 * d * h * k, h, h, k, k, 0, h * k * k)


def short_conv(s: Settings, row: Row, layer: int) -> Mix:
    d, kernel, bias = s.dim, s.number("conv_L_cache"), bool(s.get("conv_bias"))
    return Mix(linear(d, 3 * d, bias) + d * (kernel + bias) + linear(d, d, bias), state=d * kernel)


def mamba1(s: Settings, row: Row, layer: int, *, normed: bool = False) -> Mix:
    d = s.dim
    inner = s.number("intermediate_size", default=0) if not normed else 0
    inner = inner or s.number("expand", "mamba_expand") * d
    n = s.number("state_size", "mamba_d_state")
    kernel, conv_bias = s.number("conv_kernel", "mamba_d_conv"), bool(s.get("use_conv_bias", "mamba_conv_bias"))
    bias = bool(s.get("use_bias", "mamba_proj_bias"))
    rank = s.get("time_step_rank", "mamba_dt_rank")
    rank = -(-d // 16) if rank in (None, "auto") else s.number("time_step_rank", "mamba_dt_rank")
    count = (
        linear(d, 2 * inner, bias) + inner * (kernel + conv_bias) + inner * (rank + 2 * n) + linear(rank, inner, True)
    )
    count += inner * n + inner + linear(inner, d, bias) + (rank + 2 * n if normed else 0)
    return Mix(count, state=inner * (n + kernel))


def mamba1_normed(s: Settings, row: Row, layer: int) -> Mix:
    """Jamba's: the inner projections are normalised."""
    return mamba1(s, row, layer, normed=True)


def state_space(
    d: int, inner: int, heads: int, groups: int, n: int, kernel: int, conv_bias: bool, bias: bool, norm: bool
) -> Mix:
    """Mamba-2 (state space duality)."""
    wide = inner + 2 * groups * n
    count = linear(d, inner + wide + heads, bias) + wide * (kernel + conv_bias) + 3 * heads + linear(inner, d, bias)
    return Mix(count + (inner if norm else 0), heads, 0, 0, 0, 0, inner * n + wide * kernel)


def mamba2(s: Settings, row: Row, layer: int) -> Mix:
    d = s.dim
    inner = s.number("mamba_d_ssm", default=0) or s.number("mamba_expand") * d
    heads, groups = s.number("n_mamba_heads", "mamba_n_heads"), s.number("mamba_n_groups", "mamba_ngroups")
    norm = bool(s.get("mamba_rms_norm")) if "mamba_rms_norm" in {**s.defaults, **s.config} else True
    n, kernel = s.number("mamba_d_state"), s.number("mamba_d_conv")
    conv_bias = bool(row.get("conv_bias") or s.get("mamba_conv_bias", "use_conv_bias"))
    bias = bool(s.get("mamba_proj_bias", "add_bias_linear"))
    return state_space(d, inner, heads, groups, n, kernel, conv_bias, bias, norm)


def mamba2_own(s: Settings, row: Row, layer: int) -> Mix:
    """Under Mamba-2's own names for its numbers (Mamba2, Nemotron-H)."""
    heads = s.number("num_heads", "mamba_num_heads") if row.get("mlp") == "none" else s.number("mamba_num_heads")
    inner = heads * s.number("head_dim" if row.get("mlp") == "none" else "mamba_head_dim")
    n, kernel = s.number("state_size", "ssm_state_size"), s.number("conv_kernel", "mamba_d_conv")
    bias = bool(s.get("use_bias") if row.get("mlp") == "none" else s.get("use_bias", "mamba_proj_bias"))
    conv_bias = bool(s.get("use_conv_bias", "mamba_conv_bias"))
    return state_space(s.dim, inner, heads, s.number("n_groups", "mamba_n_groups"), n, kernel, conv_bias, bias, True)


def falcon_h1(s: Settings, row: Row, layer: int) -> Mix:
    """Attention and a state space side by side."""
    one, other = gqa(s, row, layer), mamba2(s, row, layer)
    d, biases = s.dim, (bool(s.get("mamba_proj_bias")), bool(s.get("projectors_bias")))
    unequal = d * (biases[1] - biases[0])  # the way out has a flag of its own
    return one._replace(n_params=one.n_params + other.n_params + unequal, state=other.state)


def rglru(s: Settings, row: Row, layer: int) -> Mix:
    """Griffin's real-gated linear recurrent unit."""
    d, wide, heads = s.dim, s.number("lru_width", default=s.dim), s.n_heads
    block = wide // max(heads, 1)
    n = 2 * linear(d, wide, True) + linear(wide, d, True) + wide * (s.number("conv1d_width") + 1) + wide
    return Mix(n + 2 * heads * (block * block + block), heads, state=wide * (1 + s.number("conv1d_width")))


MIXERS = {
    f.__name__: f
    for f in (
        gqa, gemma4, mla, dsa, deltanet, kda, lightning, short_conv, mamba1, mamba1_normed, mamba2, mamba2_own,
        falcon_h1, rglru,
    )
}  # fmt: skip
