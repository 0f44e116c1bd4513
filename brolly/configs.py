"""The numbers that shape each network: one frozen dataclass per architecture. No torch: identifying needs none."""

from __future__ import annotations

from typing import NamedTuple


class Rope(NamedTuple):
    """Rotary position embedding (Su et al. 2021) and the published ways to stretch it.

    kind: "default", "linear" (Chen et al. 2023), "dynamic" (NTK), "llama3" (Llama 3.1), "yarn" (Peng et al. 2023).
    `original_context` is the length that the model was first trained on; the other numbers are each kind's own.
    """

    theta: float = 10000.0
    kind: str = "default"
    factor: float = 1.0
    original_context: int = 0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True


class LlamaConfig(NamedTuple):
    """Pre-norm decoder with rotary attention and SwiGLU: Llama, Mistral, Qwen2, Qwen3, SmolLM, TinyLlama.

    `context` is the longest sequence in tokens; `windows` is each layer's attention window (None: everything before).
    """

    vocab_size: int
    dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    hidden_dim: int
    norm_eps: float
    context: int
    rope: Rope
    windows: tuple[int | None, ...]
    tied_head: bool
    qkv_bias: bool
    o_bias: bool
    mlp_bias: bool
    qk_norm: bool


class GPT2Config(NamedTuple):
    """Pre-norm decoder with learned positions, LayerNorm and GELU (Radford et al. 2019)."""

    vocab_size: int
    dim: int
    n_layers: int
    n_heads: int
    head_dim: int
    hidden_dim: int
    norm_eps: float
    context: int
    tied_head: bool

    @property
    def n_kv_heads(self) -> int:
        return self.n_heads

    @property
    def windows(self) -> tuple[None, ...]:
        return (None,) * self.n_layers


class StackConfig(NamedTuple):
    """A row of transformer blocks over whole sequences: every encoder's, and the text towers' (Vaswani et al. 2017).

    `act` is gelu, gelu_tanh, quick_gelu, relu or silu. `post_norm` norms after each sum, as BERT does; others norm what
    enters each half. `gated` multiplies act(gate x) by fc1 x. `layer_scale` scales what each half adds. `ropes` and
    `windows` are each layer's rotary embedding and its attention window to both sides (None: none; empty: no layer).
    """

    dim: int
    n_layers: int
    n_heads: int
    hidden_dim: int
    norm_eps: float
    act: str
    post_norm: bool = False
    causal: bool = False
    gated: bool = False
    layer_scale: bool = False
    q_bias: bool = True
    k_bias: bool = True
    v_bias: bool = True
    o_bias: bool = True
    mlp_bias: bool = True
    up_bias: bool = True  # GTE has one behind the activation alone
    norm_bias: bool = True
    first_norm: bool = True  # ModernBERT's first block has none before its attention
    ropes: tuple[Rope | None, ...] = ()
    windows: tuple[int | None, ...] = ()

    @property
    def head_dim(self) -> int:
        return self.dim // self.n_heads


class ViTConfig(NamedTuple):
    """Pictures as rows of patches (Dosovitskiy et al. 2021): the eye of CLIP, SigLIP and DINOv2.

    Positions were learned for squares of `image_size` pixels and are resized to others by `resize` ("bicubic" or
    "bilinear") and `antialias`. `pool` makes one vector of a picture's tokens: "class" takes the class token,
    "attention" lets a probe look at all, "mean" averages the patches. `channels_last` is how pixels lie within a patch.
    """

    stack: StackConfig
    image_size: int
    patch_size: int
    pool: str = "class"
    n_channels: int = 3
    patch_bias: bool = True
    channels_last: bool = False
    pre_norm: bool = False
    class_token: bool = True
    class_position: bool = True
    n_registers: int = 0
    resize: str = "bicubic"
    antialias: bool = False

    @property
    def side(self) -> int:
        """Patches to a side."""
        return self.image_size // self.patch_size


class TextConfig(NamedTuple):
    """CLIP's text tower. `pool` says whose vector is the text's: "eos" the first `eos_id`'s, "highest" that of the
    highest id, "last" the last. `padded` texts are filled up to `context` with the tokenizer's padding."""

    stack: StackConfig
    vocab_size: int
    context: int
    pool: str = "eos"
    eos_id: int = 49407
    padded: bool = False


class CLIPConfig(NamedTuple):
    """Pictures and texts in one space of `embed_dim` (Radford et al. 2021), or one of the two towers alone.

    `vision_head` and `text_head` are linear layers into that space; `sigmoid` is SigLIP's way to judge each pair.
    """

    embed_dim: int
    vision: ViTConfig | None
    text: TextConfig | None
    vision_head: bool = True
    vision_head_bias: bool = False
    text_head: bool = True
    text_head_bias: bool = False
    sigmoid: bool = False

    @property
    def context(self) -> int:
        """Most tokens of a text."""
        return self.text.context if self.text else 0

    @property
    def vocab_size(self) -> int:
        return self.text.vocab_size if self.text else 0

    @property
    def tasks(self) -> tuple[str, ...]:
        return ("embed", "classify") if self.vision and self.text else ("embed",)


class ImageEncoderConfig(NamedTuple):
    """An eye alone, and the labels of its classifier, which may look at the patches' mean beside the class token."""

    vision: ViTConfig
    labels: tuple[str, ...] = ()
    with_mean: bool = False

    @property
    def tasks(self) -> tuple[str, ...]:
        return ("embed", "classify") if self.labels else ("embed",)


class WhisperConfig(NamedTuple):
    """Sound to text (Radford et al. 2022): an encoder of mel frames, and a decoder that looks at what it makes of them.

    `audio_context` counts encoder places, each two mel frames or 0.02 s; `context` counts tokens. The decoder has the
    encoder's width.
    """

    encoder: StackConfig
    n_mels: int
    audio_context: int
    vocab_size: int
    context: int
    n_layers: int
    n_heads: int
    hidden_dim: int
    tied_head: bool = True

    @property
    def dim(self) -> int:
        return self.encoder.dim

    @property
    def head_dim(self) -> int:
        return self.dim // self.n_heads

    @property
    def n_kv_heads(self) -> int:
        return self.n_heads

    @property
    def windows(self) -> tuple[None, ...]:
        return (None,) * self.n_layers


class DenseConfig(NamedTuple):
    """A linear layer behind the pooling, and its activation: a StackConfig's, or identity, tanh or sigmoid."""

    in_dim: int
    out_dim: int
    bias: bool = True
    act: str = "tanh"


class LateConfig(NamedTuple):
    """Late interaction (Khattab and Zaharia 2020): queries and documents keep a vector a token.

    Both are cut to their lengths (None: to the network's). Queries are filled up to `expand` tokens with a mask, which
    the others see if `attend`; documents leave out the vectors of the tokens in `skip`.
    """

    query_length: int | None = None
    document_length: int | None = None
    expand: int = 0
    expand_token: str | None = None
    attend: bool = False
    skip: tuple[str, ...] = ()


class PoolConfig(NamedTuple):
    """How a text's tokens become its vector.

    `modes` are cls, max, mean, mean_sqrt_len_tokens, weightedmean or lasttoken, side by side where there are several;
    there are none where tokens keep vectors of their own (`late`). `normalize` gives vectors the length 1.
    """

    modes: tuple[str, ...] = ("mean",)
    dense: tuple[DenseConfig, ...] = ()
    normalize: bool = True
    late: LateConfig | None = None


class HeadConfig(NamedTuple):
    """A classifier of a text or a pair: pooled by `mode`, a layer with `act` (none where empty), then the `labels`.

    One label is a judge's score. `sigmoid` brings that, or each label by itself, into 0 to 1.
    """

    labels: tuple[str, ...]
    mode: str = "cls"
    act: str = "tanh"
    dense_bias: bool = True
    norm: bool = False
    norm_bias: bool = False
    sigmoid: bool = True


class TextEncoderConfig(NamedTuple):
    """BERT and its kin (Devlin et al. 2018), with a pool over their tokens or a classifier's head.

    `context` is the longest text in tokens. Where there are learned positions, the first token stands at
    `first_position`; `n_buckets` are MPNet's of relative distance; `last_norm` norms what leaves the blocks.
    """

    stack: StackConfig
    vocab_size: int
    context: int
    n_positions: int = 0
    first_position: int = 0
    n_types: int = 0
    n_buckets: int = 0
    last_norm: bool = False
    pool: PoolConfig = PoolConfig()
    head: HeadConfig | None = None

    @property
    def normalize(self) -> bool:
        return self.pool.normalize

    @property
    def sigmoid(self) -> bool:
        return self.head is not None and self.head.sigmoid

    @property
    def labels(self) -> tuple[str, ...]:
        """Those of a classifier; a judge has none."""
        return self.head.labels if self.head and len(self.head.labels) > 1 else ()

    @property
    def tasks(self) -> tuple[str, ...]:
        if self.head:
            return ("classify",) if self.labels else ("rerank",)
        return ("embed", "rerank") if self.pool.late else ("embed",)


class LlamaTextsConfig(NamedTuple):
    """A Llama that reads texts alone: it embeds by `pool`, or judges by how likely the first of two `words` (yes, no)
    is beside the second, whose ids the tokenizer tells where the files do not."""

    llama: LlamaConfig
    pool: PoolConfig | None = None
    words: tuple[int, int] | None = None
    sigmoid: bool = True

    @property
    def context(self) -> int:
        return self.llama.context

    @property
    def vocab_size(self) -> int:
        return self.llama.vocab_size

    @property
    def head_dim(self) -> int:
        return self.llama.head_dim

    @property
    def normalize(self) -> bool:
        return self.pool is not None and self.pool.normalize
