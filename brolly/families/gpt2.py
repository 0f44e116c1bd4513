"""GPT-2, in the hub's layout (no prefix), transformers' own (`transformer.`) and GGUF's."""

from __future__ import annotations

from brolly.card import Family, Header, Rename
from brolly.configs import GPT2Config
from brolly.errors import CheckpointError
from brolly.families import llama

# The linear layers are stored (in, out), as OpenAI's TensorFlow had them.
HUGGING_FACE = (
    Rename(r"(?:transformer\.)?h\.\d+\.attn\.(?:masked_)?bias", None),
    Rename(r"(?:transformer\.)?(h\.\d+\.(?:attn|mlp)\.c_\w+\.weight)", r"\1", "transpose"),
    Rename(r"transformer\.(.*)", r"\1"),
)
GGUF = (
    Rename(r"token_embd\.weight", "wte.weight"),
    Rename(r"position_embd\.weight", "wpe.weight"),
    Rename(r"output_norm\.(weight|bias)", r"ln_f.\1"),
    Rename(r"output\.weight", "lm_head.weight"),
    Rename(r"blk\.(\d+)\.attn_norm\.(weight|bias)", r"h.\1.ln_1.\2"),
    Rename(r"blk\.(\d+)\.ffn_norm\.(weight|bias)", r"h.\1.ln_2.\2"),
    Rename(r"blk\.(\d+)\.attn_qkv\.(weight|bias)", r"h.\1.attn.c_attn.\2"),
    Rename(r"blk\.(\d+)\.attn_output\.(weight|bias)", r"h.\1.attn.c_proj.\2"),
    Rename(r"blk\.(\d+)\.ffn_up\.(weight|bias)", r"h.\1.mlp.c_fc.\2"),
    Rename(r"blk\.(\d+)\.ffn_down\.(weight|bias)", r"h.\1.mlp.c_proj.\2"),
)


def config(header: Header) -> GPT2Config:
    if header.format == "gguf":
        dim, n_heads = header.whole("gpt2.embedding_length"), header.whole("gpt2.attention.head_count")
        return GPT2Config(
            vocab_size=header.tensors["token_embd.weight"].shape[0],
            dim=dim,
            n_layers=header.whole("gpt2.block_count", high=10000),
            n_heads=n_heads,
            head_dim=max(dim // n_heads, 1),
            hidden_dim=header.whole("gpt2.feed_forward_length"),
            norm_eps=float(header.number("gpt2.attention.layer_norm_epsilon", 1e-5, high=1)),
            context=header.whole("gpt2.context_length", high=2**30),
            tied_head="output.weight" not in header.tensors,
        )
    if header.config.get("activation_function", "gelu_new") not in ("gelu_new", "gelu_pytorch_tanh"):
        found = header.config["activation_function"]
        raise CheckpointError(f"{header.path}: activation_function is {found!r:.60}; expected 'gelu_new'.")
    plain = ("scale_attn_weights", True), ("scale_attn_by_inverse_layer_idx", False), ("add_cross_attention", False)
    for key, expected in plain:
        if header.config.get(key, expected) is not expected:
            raise CheckpointError(f"{header.path}: {key} is {header.config[key]!r:.20}; GPT-2 has {expected}.")
    dim, n_heads = header.whole("n_embd"), header.whole("n_head")
    tied = header.config.get("tie_word_embeddings")
    return GPT2Config(
        vocab_size=header.whole("vocab_size", high=2**24),
        dim=dim,
        n_layers=header.whole("n_layer", high=10000),
        n_heads=n_heads,
        head_dim=max(dim // n_heads, 1),
        hidden_dim=header.whole("n_inner", 4 * dim),
        norm_eps=float(header.number("layer_norm_epsilon", 1e-5, high=1)),
        context=header.whole("n_positions", header.config.get("n_ctx"), high=2**30),
        tied_head="lm_head.weight" not in header.tensors if tied is None else bool(tied),
    )


def names(header: Header) -> tuple[Rename, ...]:
    if header.format == "gguf":
        return GGUF
    dropped = (Rename(r"lm_head\.weight", None),) if header.config.get("tie_word_embeddings", True) else ()
    return (*dropped, *HUGGING_FACE)


def match(header: Header) -> bool:
    tensors = any(name.endswith("h.0.attn.c_attn.weight") for name in header.tensors)
    return header.config.get("model_type") == "gpt2" and tensors or llama.is_gguf(header, "gpt2")


FAMILY = Family("GPT-2", match, config, names, ("generate", "chat", "score"))
