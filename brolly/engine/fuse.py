"""A network's parameters under the names by which the fused kernel knows them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from brolly.configs import GPT2Config, LlamaConfig, WhisperConfig
from brolly.kernels.batch import Batch
from brolly.kernels.decoder import Decoder
from brolly.kernels.listener import SIZES, Listening, Texts
from brolly.kernels.weights import Weights
from brolly.layers.rope import frequencies

LLAMA = {
    "norm1": "input_layernorm.weight", "q": "self_attn.q_proj.weight", "k": "self_attn.k_proj.weight",
    "v": "self_attn.v_proj.weight", "o": "self_attn.o_proj.weight", "q_b": "self_attn.q_proj.bias",
    "k_b": "self_attn.k_proj.bias", "v_b": "self_attn.v_proj.bias", "o_b": "self_attn.o_proj.bias",
    "q_norm": "self_attn.q_norm.weight", "k_norm": "self_attn.k_norm.weight",
    "norm2": "post_attention_layernorm.weight",
    "gate": "mlp.gate_proj.weight", "up": "mlp.up_proj.weight", "down": "mlp.down_proj.weight",
    "gate_b": "mlp.gate_proj.bias", "up_b": "mlp.up_proj.bias", "down_b": "mlp.down_proj.bias",
}  # fmt: skip
GPT2 = {
    "norm1": "ln_1.weight", "norm1_b": "ln_1.bias", "o": "attn.c_proj.weight", "o_b": "attn.c_proj.bias",
    "norm2": "ln_2.weight", "norm2_b": "ln_2.bias", "up": "mlp.c_fc.weight", "up_b": "mlp.c_fc.bias",
    "down": "mlp.c_proj.weight", "down_b": "mlp.c_proj.bias",
}  # fmt: skip
WHISPER = {
    "norm1": "self_attn_layer_norm.weight", "norm1_b": "self_attn_layer_norm.bias",
    "q": "self_attn.q_proj.weight", "q_b": "self_attn.q_proj.bias", "k": "self_attn.k_proj.weight",
    "v": "self_attn.v_proj.weight", "v_b": "self_attn.v_proj.bias", "o": "self_attn.out_proj.weight",
    "o_b": "self_attn.out_proj.bias",
    "norm2": "encoder_attn_layer_norm.weight", "norm2_b": "encoder_attn_layer_norm.bias",
    "cross_q": "encoder_attn.q_proj.weight", "cross_q_b": "encoder_attn.q_proj.bias",
    "cross_o": "encoder_attn.out_proj.weight", "cross_o_b": "encoder_attn.out_proj.bias",
    "norm3": "final_layer_norm.weight", "norm3_b": "final_layer_norm.bias",
    "fc1": "fc1.weight", "fc1_b": "fc1.bias", "fc2": "fc2.weight", "fc2_b": "fc2.bias",
}  # fmt: skip


def fuse(network: nn.Module) -> Decoder:
    """The network's fused steps. Raises ValueError with the reason where it has none here."""
    return Decoder(weights(network))


def batched(network: nn.Module) -> Batch:
    """The network's fused batches. Raises ValueError with the reason where it has none here."""
    config: Any = network.config
    return Batch(weights(network), config.context)


def weights(network: nn.Module) -> Weights:
    config: Any = network.config
    if next(network.parameters()).device.type != "cpu":
        raise ValueError("the network is not on the CPU")
    match config:
        case LlamaConfig():
            return llama(network, config)
        case GPT2Config():
            return gpt2(network, config)
    raise ValueError(f"no fused steps for {type(config).__name__}")


def sizes(config: LlamaConfig | GPT2Config) -> dict[str, int]:
    names = ("vocab_size", "dim", "n_layers", "n_heads", "n_kv_heads", "head_dim", "hidden_dim")
    return {name: getattr(config, name) for name in names}


def llama(network: nn.Module, config: LlamaConfig) -> Weights:
    if config.rope.kind == "dynamic":
        raise ValueError("dynamic rope scaling changes with the length")
    given: dict[str, Tensor] = dict(network.named_parameters())
    tables = {"embed": given["model.embed_tokens.weight"], "norm": given["model.norm.weight"]}
    tables["head"] = tables["embed"] if config.tied_head else given["lm_head.weight"]
    layers = [named(given, f"model.layers.{i}.", LLAMA) for i in range(config.n_layers)]
    inv_freq, scale = frequencies(config.rope, config.head_dim)
    return Weights(sizes(config), config.norm_eps, False, tables, layers, config.windows, inv_freq, scale)


def gpt2(network: nn.Module, config: GPT2Config) -> Weights:
    for parameter in network.parameters():  # published files hold the matrices (in, out)
        parameter.data = parameter.data.contiguous()
    given: dict[str, Tensor] = dict(network.named_parameters())
    tables = {"embed": given["wte.weight"], "places": given["wpe.weight"]}
    tables |= {"norm": given["ln_f.weight"], "norm_b": given["ln_f.bias"]}
    tables["head"] = tables["embed"] if config.tied_head else given["lm_head.weight"]
    layers = []
    for i in range(config.n_layers):
        layer = named(given, f"h.{i}.", GPT2)
        if f"h.{i}.attn.c_attn.weight" not in given:
            raise ValueError(f"h.{i}.attn.c_attn.weight was replaced")
        for kind in ("weight", "bias"):
            parts = given[f"h.{i}.attn.c_attn.{kind}"].chunk(3)
            layer |= dict(zip(("q", "k", "v") if kind == "weight" else ("q_b", "k_b", "v_b"), parts, strict=True))
        layers.append(layer)
    return Weights(sizes(config), config.norm_eps, True, tables, layers, config.windows)


def whisper(network: nn.Module) -> Listening:
    """The decoder's fused pass. Raises ValueError with the reason where it has none here."""
    config: Any = network.config
    assert isinstance(config, WhisperConfig)
    if config.encoder.act != "gelu":
        raise ValueError(f"no fused pass with {config.encoder.act}")
    given: dict[str, Tensor] = dict(network.named_parameters())
    tables = {"embed": given["decoder.embed_tokens.weight"], "places": given["decoder.embed_positions.weight"]}
    tables |= {"norm": given["decoder.layer_norm.weight"], "norm_b": given["decoder.layer_norm.bias"]}
    tables["head"] = tables["embed"] if config.tied_head else given["proj_out.weight"]
    layers = [named(given, f"decoder.layers.{i}.", WHISPER) for i in range(config.n_layers)]
    return Listening(Texts({name: getattr(config, name) for name in SIZES}, config.encoder.norm_eps, tables, layers))


def named(given: dict[str, Tensor], prefix: str, names: dict[str, str]) -> dict[str, Tensor]:
    """A layer's tensors by the kernel's names. Raises ValueError without a matrix: something was put around it."""
    for short, name in names.items():
        if prefix + name not in given and not short.endswith(("_b", "_norm")):
            raise ValueError(f"{prefix}{name} was replaced")
    return {short: given[prefix + name] for short, name in names.items() if prefix + name in given}
