"""Eyes and text towers: each publisher's names for their parts, and the sizes that the tensors' shapes tell."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from math import isqrt, prod
from typing import Any

from brolly.card import Header, Rename
from brolly.checkpoint.names import rename
from brolly.configs import CLIPConfig, ImageEncoderConfig, StackConfig, TextConfig, ViTConfig
from brolly.errors import CheckpointError

Shapes = Mapping[str, tuple[int, ...]]
ACTS = {
    "quick_gelu": "quick_gelu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh",
    "gelu_tanh": "gelu_tanh", "relu": "relu", "silu": "silu",
}  # fmt: skip
EYE, TEXT = "vision_model.", "text_model."
MAX_LABELS = 1 << 20


def resblocks(at: str, to: str) -> tuple[Rename, ...]:
    """OpenAI's blocks, which OpenCLIP kept."""
    here, there = rf"{at}transformer\.resblocks\.(\d+)\.", rf"{to}encoder.layers.\1."
    return (
        Rename(rf"{here}ln_([12])\.(weight|bias)", rf"{there}layer_norm\2.\3"),
        Rename(rf"{here}attn\.in_proj_(weight|bias)", tuple(rf"{there}self_attn.{p}_proj.\2" for p in "qkv")),
        Rename(rf"{here}attn\.out_proj\.(weight|bias)", rf"{there}self_attn.out_proj.\2"),
        Rename(rf"{here}mlp\.c_fc\.(weight|bias)", rf"{there}mlp.fc1.\2"),
        Rename(rf"{here}mlp\.c_proj\.(weight|bias)", rf"{there}mlp.fc2.\2"),
        Rename(rf"{here}ls_([12])\.gamma", rf"{there}scale\2"),
    )


OPEN_TEXT = (
    Rename(r"(?:text\.)?token_embedding\.weight", f"{TEXT}embeddings.token_embedding.weight"),
    Rename(r"(?:text\.)?positional_embedding", f"{TEXT}embeddings.position_embedding.weight"),
    Rename(r"(?:text\.)?ln_final\.(weight|bias)", rf"{TEXT}final_layer_norm.\1"),
    Rename(r"(?:text\.)?text_projection", "text_projection.weight", "transpose"),
    Rename(r"text\.text_projection\.(weight|bias)", r"text_projection.\1"),
    Rename(r"(?:text\.)?attn_mask|input_resolution|context_length|vocab_size|constants\..*", None),
    *resblocks(r"(?:text\.)?", TEXT),
)
OPEN_EYE = (
    Rename(r"visual\.class_embedding", f"{EYE}embeddings.class_embedding"),
    Rename(r"visual\.positional_embedding", f"{EYE}embeddings.position_embedding.weight"),
    Rename(r"visual\.conv1\.(weight|bias)", rf"{EYE}embeddings.patch_embedding.\1"),
    Rename(r"visual\.ln_pre\.(weight|bias)", rf"{EYE}pre_layrnorm.\1"),
    Rename(r"visual\.ln_post\.(weight|bias)", rf"{EYE}post_layernorm.\1"),
    Rename(r"visual\.proj", "visual_projection.weight", "transpose"),
    *resblocks(r"visual\.", EYE),
)
SCALARS = (Rename(r"(logit_scale|logit_bias)", r"\1", "reshape"), Rename(r".*\.position_ids", None))
SIGLIP_HEAD = (
    Rename(r"(?:vision_model\.)?head\.probe", f"{EYE}head.probe", "reshape"),
    Rename(
        r"(?:vision_model\.)?head\.attention\.in_proj_(weight|bias)", tuple(rf"{EYE}head.{p}_proj.\1" for p in "qkv")
    ),
    Rename(r"(?:vision_model\.)?head\.attention\.out_proj\.(weight|bias)", rf"{EYE}head.out_proj.\1"),
    Rename(r"(?:text_model\.)?head\.(weight|bias)", r"text_projection.\1"),
)
HF_EYE = (
    Rename(r"embeddings\.mask_token|pooler\..*", None),
    Rename(r"embeddings\.cls_token", f"{EYE}embeddings.class_embedding", "reshape"),
    Rename(r"embeddings\.register_tokens", f"{EYE}embeddings.register_tokens", "reshape"),
    Rename(r"embeddings\.position_embeddings", f"{EYE}embeddings.position_embedding.weight", "reshape"),
    Rename(r"embeddings\.patch_embeddings\.projection\.(weight|bias)", rf"{EYE}embeddings.patch_embedding.\1"),
    Rename(r"encoder\.layer\.(\d+)\.norm([12])\.(weight|bias)", rf"{EYE}encoder.layers.\1.layer_norm\2.\3"),
    Rename(r"encoder\.layer\.(\d+)\.layernorm_before\.(weight|bias)", rf"{EYE}encoder.layers.\1.layer_norm1.\2"),
    Rename(r"encoder\.layer\.(\d+)\.layernorm_after\.(weight|bias)", rf"{EYE}encoder.layers.\1.layer_norm2.\2"),
    *(
        Rename(
            rf"encoder\.layer\.(\d+)\.attention\.attention\.{name}\.(weight|bias)",
            rf"{EYE}encoder.layers.\1.self_attn.{name[0]}_proj.\2",
        )
        for name in ("query", "key", "value")
    ),
    Rename(
        r"encoder\.layer\.(\d+)\.attention\.output\.dense\.(weight|bias)",
        rf"{EYE}encoder.layers.\1.self_attn.out_proj.\2",
    ),
    Rename(r"encoder\.layer\.(\d+)\.layer_scale([12])\.lambda1", rf"{EYE}encoder.layers.\1.scale\2"),
    Rename(r"encoder\.layer\.(\d+)\.mlp\.(fc[12]\.(?:weight|bias))", rf"{EYE}encoder.layers.\1.mlp.\2"),
    Rename(
        r"encoder\.layer\.(\d+)\.mlp\.weights_in\.(weight|bias)",
        (rf"{EYE}encoder.layers.\1.mlp.gate.\2", rf"{EYE}encoder.layers.\1.mlp.fc1.\2"),
    ),
    Rename(r"encoder\.layer\.(\d+)\.mlp\.weights_out\.(weight|bias)", rf"{EYE}encoder.layers.\1.mlp.fc2.\2"),
    Rename(r"encoder\.layer\.(\d+)\.intermediate\.dense\.(weight|bias)", rf"{EYE}encoder.layers.\1.mlp.fc1.\2"),
    Rename(r"encoder\.layer\.(\d+)\.output\.dense\.(weight|bias)", rf"{EYE}encoder.layers.\1.mlp.fc2.\2"),
    Rename(r"layernorm\.(weight|bias)", rf"{EYE}post_layernorm.\1"),
)  # of DINOv2 and ViT, behind their prefixes


def timm(header: Header, at: str = "") -> tuple[Rename, ...]:
    """timm's names below `at`, which are Facebook's too but for two."""
    here, there = rf"{at}blocks\.(?:\d+\.)?(\d+)\.", rf"{EYE}encoder.layers.\1."
    shape = {name: info.shape for name, info in header.tensors.items()}
    packed = any(
        name.endswith("blocks.0.mlp.fc1.weight") and shape.get(name.replace("fc1", "fc2"), (0, 0))[1] * 2 == s[0]
        for name, s in shape.items()
        if len(s) == 2
    )
    joined = r"w12|fc1" if packed else r"w12"
    return (
        Rename(rf"{at}mask_token", None),
        Rename(rf"{at}cls_token", f"{EYE}embeddings.class_embedding", "reshape"),
        Rename(rf"{at}reg(?:ister)?_tokens?", f"{EYE}embeddings.register_tokens", "reshape"),
        Rename(rf"{at}pos_embed", f"{EYE}embeddings.position_embedding.weight", "reshape"),
        Rename(rf"{at}patch_embed\.proj\.(weight|bias)", rf"{EYE}embeddings.patch_embedding.\1"),
        Rename(rf"{at}norm_pre\.(weight|bias)", rf"{EYE}pre_layrnorm.\1"),
        Rename(rf"{at}(?:fc_)?norm\.(weight|bias)", rf"{EYE}post_layernorm.\1"),
        Rename(rf"{here}norm([12])\.(weight|bias)", rf"{there}layer_norm\2.\3"),
        Rename(rf"{here}attn\.qkv\.(weight|bias)", tuple(rf"{there}self_attn.{p}_proj.\2" for p in "qkv")),
        Rename(rf"{here}attn\.proj\.(weight|bias)", rf"{there}self_attn.out_proj.\2"),
        Rename(rf"{here}ls([12])\.gamma", rf"{there}scale\2"),
        Rename(rf"{here}mlp\.(?:{joined})\.(weight|bias)", (rf"{there}mlp.gate.\2", rf"{there}mlp.fc1.\2")),
        Rename(rf"{here}mlp\.fc1\.(weight|bias)", rf"{there}mlp.fc1.\2"),
        Rename(rf"{here}mlp\.(?:fc2|w3)\.(weight|bias)", rf"{there}mlp.fc2.\2"),
        Rename(rf"{at}attn_pool\.latent", f"{EYE}head.probe", "reshape"),
        Rename(rf"{at}attn_pool\.q\.(weight|bias)", rf"{EYE}head.q_proj.\1"),
        Rename(rf"{at}attn_pool\.kv\.(weight|bias)", (rf"{EYE}head.k_proj.\1", rf"{EYE}head.v_proj.\1")),
        Rename(rf"{at}attn_pool\.proj\.(weight|bias)", rf"{EYE}head.out_proj.\1"),
        Rename(rf"{at}attn_pool\.norm\.(weight|bias)", rf"{EYE}head.layernorm.\1"),
        Rename(rf"{at}attn_pool\.mlp\.(fc[12]\.(?:weight|bias))", rf"{EYE}head.mlp.\1"),
    )


def shapes(header: Header, table: Iterable[Rename]) -> dict[str, tuple[int, ...]]:
    """The network's names, and the shapes that the file gives them; what is joined counts as equal parts."""
    found = {}
    for source, (targets, how) in rename(header.tensors, table).items():
        shape = header.tensors[source].shape
        if len(targets) > 1 and shape:
            shape = (shape[0] // len(targets), *shape[1:])
        found.update(dict.fromkeys(targets, shape[::-1] if how == "transpose" else shape))
    return found


def stack(
    header: Header, found: Shapes, at: str, n_heads: int, act: Any, norm_eps: float, causal: bool = False
) -> StackConfig:
    """The blocks below `at`; heads, activation and the norms' epsilon are not in the shapes."""
    first = f"{at}encoder.layers.0."
    (dim,), (hidden_dim, _) = found[f"{first}layer_norm1.weight"], found[f"{first}mlp.fc1.weight"]
    if not isinstance(act, str) or act not in ACTS:
        raise CheckpointError(f"{header.path}: its activation is {act!r:.60}; expected one of {', '.join(ACTS)}.")
    if n_heads < 1 or dim % n_heads:
        raise CheckpointError(f"{header.path}: {dim} channels do not divide among {n_heads} heads.")
    norms = re.compile(re.escape(f"{at}encoder.layers.") + r"\d+\.layer_norm1\.weight").fullmatch
    q, k, v = (f"{first}self_attn.{p}_proj.bias" in found for p in "qkv")
    return StackConfig(
        dim,
        n_layers=sum(norms(name) is not None for name in found),
        n_heads=n_heads,
        hidden_dim=hidden_dim,
        norm_eps=norm_eps,
        act=ACTS[act],
        causal=causal,
        gated=f"{first}mlp.gate.weight" in found,
        layer_scale=f"{first}scale1" in found,
        q_bias=q,
        k_bias=k,
        v_bias=v,
    )


def eye(header: Header, found: Shapes, n_heads: int, act: Any, norm_eps: float, **more: Any) -> ViTConfig:
    """The vision tower that these shapes are of."""
    blocks = stack(header, found, EYE, n_heads, act, norm_eps)
    patch, dim = found[f"{EYE}embeddings.patch_embedding.weight"], blocks.dim
    linear = len(patch) == 2
    size = patch[-1] if not linear else isqrt(patch[1] // 3)
    if not linear and len(patch) == 4 and patch[1] != 3:
        raise CheckpointError(f"{header.path}: its eye sees {patch[1]} channels; brolly gives it red, green and blue.")
    class_token = f"{EYE}embeddings.class_embedding" in found
    n_positions = prod(found[f"{EYE}embeddings.position_embedding.weight"]) // dim
    on_class = class_token and isqrt(n_positions) ** 2 != n_positions
    side = isqrt(n_positions - on_class)
    if len(patch) not in (2, 4) or size < 1 or side < 1 or side**2 != n_positions - on_class:
        raise CheckpointError(f"{header.path}: {n_positions} positions of patches {patch} are no square picture.")
    pool = more.pop("pool", "attention" if f"{EYE}head.probe" in found else "class")
    if pool == "class" and not class_token:
        raise CheckpointError(f"{header.path}: its eye has neither a class token nor a head that pools its patches.")
    return ViTConfig(
        blocks,
        image_size=side * size,
        patch_size=size,
        pool=pool,
        n_channels=3 if linear else patch[1],
        patch_bias=f"{EYE}embeddings.patch_embedding.bias" in found,
        channels_last=linear,
        pre_norm=f"{EYE}pre_layrnorm.weight" in found,
        class_token=class_token,
        class_position=on_class,
        n_registers=prod(found.get(f"{EYE}embeddings.register_tokens", (0,))) // dim,
        **more,
    )


def text(header: Header, found: Shapes, blocks: StackConfig, **more: Any) -> TextConfig:
    """The text tower that these shapes are of."""
    vocab_size, context = (found[f"{TEXT}embeddings.{kind}_embedding.weight"][0] for kind in ("token", "position"))
    return TextConfig(blocks, vocab_size, context, **more)


def usual_heads(dim: int, attention_pool: bool) -> int:
    """Heads of 64 channels, but for the published giants, which have sixteen."""
    return 16 if dim in (1152, 1280, 1408, 1664) or (attention_pool and dim == 1536) else max(dim // 64, 1)


def labels_of(header: Header, n_labels: int) -> tuple[str, ...]:
    """A classifier's labels by number: id2label, timm's label_names, or their numbers where nobody names them."""
    if n_labels > MAX_LABELS:
        raise CheckpointError(f"{header.path}: its classifier tells {n_labels:,} labels apart; at most {MAX_LABELS:,}.")
    said = header.config.get("id2label")
    if isinstance(said, dict):
        return tuple(str(said.get(str(i), f"LABEL_{i}")) for i in range(n_labels))
    named = header.config.get("label_names")
    if isinstance(named, list) and len(named) == n_labels:
        return tuple(map(str, named))
    return tuple(f"LABEL_{i}" for i in range(n_labels))


# of timm's SigLIPs, those that were made for SigLIP 2 and therefore have its own activation
TANH = re.compile(r"patch32_siglip|large_patch16_siglip(_gap)?_512|so400m_patch16_siglip|giantopt")


def is_timm(header: Header, *words: str) -> bool:
    """Whether this is timm's vision transformer of a name with one of these words in it."""
    name = header.config.get("architecture")
    named = isinstance(name, str) and name.startswith("vit_") and any(word in name for word in words)
    return named and "blocks.0.attn.qkv.weight" in header.tensors


def is_projected(header: Header) -> bool:
    """Whether timm's head is CLIP's layer into the space of texts, which it stays until it is tuned to classes."""
    said = header.config.get("pretrained_cfg")
    tag = said.get("tag") if isinstance(said, dict) else None
    return is_timm(header, "_clip_") and "head.weight" in header.tensors and isinstance(tag, str) and "ft_" not in tag


def timm_names(header: Header) -> tuple[Rename, ...]:
    head = "visual_projection" if is_projected(header) else "classifier"
    return (*timm(header), Rename(r"head\.(weight|bias)", rf"{head}.\1"))


def timm_config(header: Header) -> CLIPConfig | ImageEncoderConfig:
    """A vision transformer as timm publishes it: its name and arguments say what the shapes do not."""
    found = shapes(header, timm_names(header))
    vision = timm_eye(header, found, header.config["architecture"])
    if is_projected(header):
        return CLIPConfig(found["visual_projection.weight"][0], vision, None, vision_head_bias=True, text_head=False)
    n_labels = found.get("classifier.weight", (0,))[0]
    return ImageEncoderConfig(vision, labels_of(header, n_labels))


def timm_eye(header: Header, found: Shapes, name: str) -> ViTConfig:
    said = header.config.get("model_args")
    said = said if isinstance(said, dict) else {}
    act = "quick_gelu" if "quickgelu" in name else "gelu_tanh" if TANH.search(name) else "gelu"
    gated = f"{EYE}encoder.layers.0.mlp.gate.weight" in found
    dim, pooled = found[f"{EYE}post_layernorm.weight"][0], f"{EYE}head.probe" in found
    n_heads = said.get("num_heads", usual_heads(dim, pooled))
    return eye(
        header, found, n_heads if type(n_heads) is int else 0, "silu" if gated else said.get("act_layer", act),
        1e-5 if "_clip_" in name else 1e-6, antialias=True,
        **({"pool": "mean"} if "fc_norm.weight" in header.tensors else {}),
    )  # fmt: skip
