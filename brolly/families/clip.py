"""CLIP and OpenCLIP: Hugging Face's layout of both towers or one."""

from __future__ import annotations

from typing import Any

from brolly.card import Family, Header, Rename
from brolly.configs import CLIPConfig, StackConfig, TextConfig, ViTConfig
from brolly.errors import CheckpointError

ACTS = {"quick_gelu": "quick_gelu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh",
        "relu": "relu", "silu": "silu"}  # fmt: skip
TYPES = ("clip", "clip_text_model", "clip_vision_model")


def config(header: Header) -> CLIPConfig:
    tensors, kind = header.tensors, header.config["model_type"]
    projections = ("visual_projection.weight", "text_projection.weight")
    vision = kind != "clip_text_model"
    text = kind != "clip_vision_model"
    return CLIPConfig(
        embed_dim=header.whole("projection_dim", 512),
        vision=vision_of(header, "vision_config." if text else "") if vision else None,
        text=text_of(header, "text_config." if vision else "") if text else None,
        vision_head=projections[0] in tensors,
        text_head=projections[1] in tensors,
    )


def vision_of(header: Header, at: str) -> ViTConfig:
    stack = stack_of(header, at, {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}, 1e-5)
    return ViTConfig(
        stack,
        image_size=header.whole(f"{at}image_size", 224, high=2**14),
        patch_size=header.whole(f"{at}patch_size", 32, high=2**10),
        n_channels=header.whole(f"{at}num_channels", 3, high=64),
        patch_bias=False,
        pre_norm=True,
    )


def text_of(header: Header, at: str) -> TextConfig:
    stack = stack_of(header, at, {"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8}, 1e-5)
    end = int(header.number(f"{at}eos_token_id", 49407))
    return TextConfig(
        stack._replace(causal=True),
        vocab_size=header.whole(f"{at}vocab_size", 49408, high=2**24),
        context=header.whole(f"{at}max_position_embeddings", 77),
        pool="highest" if end == 2 else "eos",  # the first published configs had a wrong end, and the highest id is it
        eos_id=end,
    )


def stack_of(header: Header, at: str, unsaid: dict[str, int], norm_eps: float, act: str = "quick_gelu") -> StackConfig:
    """A tower's blocks, from transformers' keys below `at`; `unsaid` are its defaults."""
    said = section(header, at)
    if (found := said.get("hidden_act", act)) not in ACTS:
        raise CheckpointError(f"{header.path}: hidden_act is {found!r:.60}; expected one of {', '.join(ACTS)}.")
    sizes = {key: header.whole(at + key, default) for key, default in unsaid.items()}
    dim, n_heads = sizes["hidden_size"], sizes["num_attention_heads"]
    if dim % n_heads:
        raise CheckpointError(f"{header.path}: {dim} channels do not divide among {n_heads} heads.")
    return StackConfig(
        dim=dim,
        n_layers=header.whole(f"{at}num_hidden_layers", 12, high=10000),
        n_heads=n_heads,
        hidden_dim=sizes["intermediate_size"],
        norm_eps=float(header.number(f"{at}layer_norm_eps", norm_eps, high=1)),
        act=ACTS[found],
    )


def section(header: Header, at: str) -> dict[str, Any]:
    found = header.config.get(at.rstrip("."), {}) if at else header.config
    return found if isinstance(found, dict) else {}


def names(header: Header) -> tuple[Rename, ...]:
    tower = {"clip_text_model": "text_model", "clip_vision_model": "vision_model"}.get(header.config["model_type"])
    bare = Rename(r"((?:embeddings|encoder|final_layer_norm|pre_layrnorm|post_layernorm)\..*)", rf"{tower}.\1")
    buffers = Rename(r".*\.position_ids", None)
    return (buffers, bare) if tower else (buffers,)


def match(header: Header) -> bool:
    tensors = any("encoder.layers.0.self_attn.q_proj.weight" in name for name in header.tensors)
    return header.config.get("model_type") in TYPES and tensors


FAMILY = Family("CLIP", match, config, names, ("embed", "classify"))
