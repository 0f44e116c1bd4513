"""OpenAI's layout of CLIP and OpenCLIP's own: `visual.…` beside a text tower, with open_clip_config.json or without."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from brolly.card import Header, Rename
from brolly.configs import CLIPConfig
from brolly.errors import CheckpointError
from brolly.families import towers
from brolly.families.towers import EYE, OPEN_EYE, OPEN_TEXT, SCALARS, TEXT

# what decides the sums and is told by shapes or read below, and what only training or the tokenizer needs
KNOWN = {
    "": "embed_dim quick_gelu vision_cfg text_cfg custom_text init_logit_bias init_logit_scale",
    "vision_cfg": "image_size layers width patch_size head_width mlp_ratio ls_init_value patch_dropout act_kwargs "
    "norm_kwargs timm_model_name timm_model_pretrained timm_pool timm_proj timm_drop timm_drop_path",
    "text_cfg": "context_length vocab_size width heads layers mlp_ratio ls_init_value hf_tokenizer_name "
    "tokenizer_kwargs no_causal_mask proj_bias proj_type pool_type eos_id act_kwargs norm_kwargs",
}
TEXTS = ("transformer.resblocks.0.attn.in_proj_weight", "text.transformer.resblocks.0.attn.in_proj_weight")
EYES = ("visual.transformer.resblocks.0.attn.in_proj_weight", "visual.trunk.blocks.0.attn.qkv.weight")


def match(header: Header) -> bool:
    return any(n in header.tensors for n in TEXTS) and any(n.startswith("visual.") for n in header.tensors)


def names(header: Header) -> tuple[Rename, ...]:
    trunk = Rename(r"visual\.head\.proj\.weight", "visual_projection.weight")
    return (*SCALARS, *OPEN_TEXT, *OPEN_EYE, trunk, *towers.timm(header, r"visual\.trunk\."))


def config(header: Header) -> CLIPConfig:
    if not any(name in header.tensors for name in EYES):
        raise CheckpointError(
            f"{header.path} is a CLIP whose eye is a ResNet or another; brolly runs those with a ViT."
        )
    said = header.config.get("model_cfg", header.config)
    found = towers.shapes(header, names(header))
    width, dim = found[f"{TEXT}final_layer_norm.weight"][0], found[f"{EYE}post_layernorm.weight"][0]
    if isinstance(said, dict) and isinstance(said.get("text_cfg"), dict) and isinstance(said.get("vision_cfg"), dict):
        for part, keys in KNOWN.items():
            of = said[part] if part else said
            if odd := [key for key in of if key not in keys.split() and of[key] not in (None, False)]:
                raise CheckpointError(f"{header.path}: its config says {odd[0]!r:.60}, a part that is not known here.")
        seen, read = said["vision_cfg"], said["text_cfg"]
        plain = "quick_gelu" if said.get("quick_gelu") else "gelu"
        per_head, n_heads = seen.get("head_width", 64), read.get("heads", 8)
        if type(per_head) is not int or type(n_heads) is not int or per_head < 1:
            raise CheckpointError(f"{header.path}: its config says {per_head!r:.40} channels of {n_heads!r:.40} heads.")
    elif header.format == "torchscript":  # OpenAI's own, which had one activation and one width of heads
        seen, read, plain, per_head, n_heads = {}, {}, "quick_gelu", 64, width // 64
    else:
        raise CheckpointError(
            f"{header.path} is a CLIP in OpenCLIP's layout, whose activation only open_clip_config.json tells; "
            "put that file beside it."
        )
    pools = {"argmax": "highest", "last": "last", "eos": "eos"}
    pool, end = read.get("pool_type", "argmax"), read.get("eos_id", 2)
    if pool not in pools or type(end) is not int:
        raise CheckpointError(
            f"{header.path}: its texts are pooled by {pool!r:.40} (eos_id {end!r:.40}); expected {', '.join(pools)}."
        )
    causal = not read.get("no_causal_mask", False)
    blocks = towers.stack(header, found, TEXT, n_heads, _act(read, plain), _eps(header, read), causal)
    name = seen.get("timm_model_name")
    return CLIPConfig(
        embed_dim=found["text_projection.weight"][0] if "text_projection.weight" in found else width,
        vision=towers.timm_eye(header, found, str(name))
        if name
        else towers.eye(header, found, dim // per_head, _act(seen, plain), _eps(header, seen)),
        text=towers.text(header, found, blocks, pool=pools[pool], eos_id=end, padded=pool == "last"),
        vision_head="visual_projection.weight" in found,
        text_head="text_projection.weight" in found,
        text_head_bias="text_projection.bias" in found,
        sigmoid="logit_bias" in found,
    )


def _act(said: Mapping[str, Any], plain: str) -> str:
    more = said.get("act_kwargs")
    return "gelu_tanh" if isinstance(more, dict) and more.get("approximate") == "tanh" else plain


def _eps(header: Header, said: Mapping[str, Any]) -> float:
    more = said.get("norm_kwargs")
    eps = more.get("eps", 1e-5) if isinstance(more, dict) else 1e-5
    if not isinstance(eps, float) or not 0 < eps < 1:
        raise CheckpointError(f"{header.path}: its norms' eps is {eps!r:.40}; expected a small number.")
    return eps
