"""A transformers' eye or pair of towers in the names of Facebook, OpenAI, OpenCLIP and timm."""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch
from torch import Tensor, nn

State = dict[str, Tensor]
FACEBOOK = (
    (r"embeddings\.(cls_token|mask_token|register_tokens)", r"\1"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.projection", "patch_embed.proj"),
    (r"encoder\.layer\.(\d+)\.attention\.attention\.(\w+)", r"blocks.\1.attn.\2"),
    (r"encoder\.layer\.(\d+)\.attention\.output\.dense", r"blocks.\1.attn.proj"),
    (r"encoder\.layer\.(\d+)\.layer_scale(\d)\.lambda1", r"blocks.\1.ls\2.gamma"),
    (r"encoder\.layer\.(\d+)\.mlp\.weights_in", r"blocks.\1.mlp.w12"),
    (r"encoder\.layer\.(\d+)\.mlp\.weights_out", r"blocks.\1.mlp.w3"),
    (r"encoder\.layer\.(\d+)", r"blocks.\1"),
    (r"layernorm\.", "norm."),
)
OPENAI = (
    (r"vision_model\.embeddings\.class_embedding", "visual.class_embedding"),
    (r"vision_model\.embeddings\.position_embedding\.weight", "visual.positional_embedding"),
    (r"vision_model\.embeddings\.patch_embedding", "visual.conv1"),
    (r"vision_model\.pre_layrnorm", "visual.ln_pre"),
    (r"vision_model\.post_layernorm", "visual.ln_post"),
    (r"visual_projection\.weight", "visual.proj"),
    (r"text_model\.embeddings\.token_embedding", "token_embedding"),
    (r"text_model\.embeddings\.position_embedding\.weight", "positional_embedding"),
    (r"text_model\.final_layer_norm", "ln_final"),
    (r"text_projection\.weight", "text_projection"),
    (r"vision_model\.encoder\.layers", "visual.transformer.resblocks"),
    (r"text_model\.encoder\.layers", "transformer.resblocks"),
    (r"layer_norm(\d)", r"ln_\1"),
    (r"self_attn", "attn"),
    (r"mlp\.fc1", "mlp.c_fc"),
    (r"mlp\.fc2", "mlp.c_proj"),
)


def renamed(state: State, rows: Iterable[tuple[str, str]]) -> State:
    out = {}
    for name, tensor in state.items():
        for pattern, to in rows:
            name = re.sub(pattern, to, name)
        out[name] = tensor
    return out


def joined(state: State, parts: tuple[str, ...], whole: str) -> State:
    """Projections that lie apart, as rows of one: `attn.query.weight` … to `attn.qkv.weight`."""
    out: State = {}
    for name, tensor in state.items():
        if part := next((p for p in parts if p in name), ""):
            if part == parts[0]:
                out[name.replace(part, whole)] = torch.cat([state[name.replace(part, p)] for p in parts])
        else:
            out[name] = tensor
    return out


def facebook(state: State) -> State:
    """Of DINOv2 as transformers saves it."""
    parts = (".attn.query.", ".attn.key.", ".attn.value.")
    return joined(renamed(state, FACEBOOK), parts, ".attn.qkv.")


def openai(state: State) -> State:
    """Of CLIP as transformers saves it."""
    found = joined(renamed(state, OPENAI), (".q_proj.", ".k_proj.", ".v_proj."), ".in_proj_")
    return {n: t.t().contiguous() if n in ("visual.proj", "text_projection") else t for n, t in found.items()}


def program(state: State) -> torch.jit.ScriptModule:
    """A traced tree of modules with these parameters, and a constant of the trace as OpenAI's files have them."""
    constant = torch.arange(3.0)

    class Node(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + constant

    root = Node()
    for name, tensor in state.items():
        *path, leaf = name.split(".")
        at: nn.Module = root
        for part in path:
            if part not in at._modules:
                at.add_module(part, Node())
            at = at._modules[part]  # type: ignore[assignment]
        at.register_parameter(leaf, nn.Parameter(tensor, requires_grad=False))
    return torch.jit.trace(root, torch.zeros(3))
