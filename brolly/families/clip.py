"""CLIP (Radford et al. 2021), both towers or one, in the layouts of Hugging Face, OpenAI, OpenCLIP and timm."""

from __future__ import annotations

from typing import Any, NamedTuple

from brolly.card import Family, Header, Rename
from brolly.configs import CLIPConfig
from brolly.families import open_clip, towers
from brolly.families.towers import EYE, SCALARS, SIGLIP_HEAD, TEXT

KINDS = ("clip", "clip_text_model", "clip_vision_model")


class Unsaid(NamedTuple):
    """What published configs leave out, and transformers fills in."""

    act: str = "quick_gelu"
    norm_eps: float = 1e-5
    text_heads: int = 8
    siglip: bool = False  # its texts look both ways, are filled up, and end with their vector


def config(header: Header) -> Any:
    if towers.is_timm(header, "_clip_"):
        return towers.timm_config(header)
    return open_clip.config(header) if open_clip.match(header) else hugging_face(header, Unsaid())


def hugging_face(header: Header, unsaid: Unsaid, **more: Any) -> CLIPConfig:
    """Both towers or one of transformers' layout; `more` is what the vision tower has besides."""
    found = towers.shapes(header, hugging_face_names(header))

    def blocks(tower: str, n_heads: int) -> tuple[int, str, float]:
        at = "" if header.config["model_type"].endswith("_model") else f"{tower}_config."
        said = header.config.get(f"{tower}_config", {}) if at else header.config
        act = said.get("hidden_act", unsaid.act) if isinstance(said, dict) else unsaid.act
        eps = float(header.number(f"{at}layer_norm_eps", unsaid.norm_eps, high=1))
        return header.whole(f"{at}num_attention_heads", n_heads), act, eps

    vision = text = None
    if "text" not in header.config["model_type"]:
        vision = towers.eye(header, found, *blocks("vision", 12), **more)
    if "vision" not in header.config["model_type"]:
        stack = towers.stack(header, found, TEXT, *blocks("text", unsaid.text_heads), causal=not unsaid.siglip)
        end = int(header.number("eos_token_id" if vision is None else "text_config.eos_token_id", 49407))
        # the first published configs had a wrong end, 2; of their tokens the end has the highest id
        pool = "last" if unsaid.siglip else "highest" if end == 2 else "eos"
        text = towers.text(header, found, stack, pool=pool, eos_id=end, padded=unsaid.siglip)
    head = found.get("text_projection.weight") or found.get("visual_projection.weight")
    return CLIPConfig(
        embed_dim=head[0] if head else (vision or text).stack.dim,  # type: ignore[union-attr]
        vision=vision,
        text=text,
        vision_head="visual_projection.weight" in found,
        text_head="text_projection.weight" in found,
        text_head_bias="text_projection.bias" in found,
        sigmoid="logit_bias" in found,
    )


def hugging_face_names(header: Header) -> tuple[Rename, ...]:
    tower = TEXT if "text" in header.config["model_type"] else EYE
    # transformers 5 leaves a tower's own name out where it stands alone
    bare = Rename(r"((?:embeddings|encoder|final_layer_norm|pre_layrnorm|post_layernorm|head)\..*)", rf"{tower}\1")
    return (*SCALARS, *SIGLIP_HEAD, bare)


def is_hugging_face(header: Header, kinds: tuple[str, ...]) -> bool:
    blocks = ("encoder.layers.0.self_attn.q_proj.weight", f"{EYE}encoder.layers.0.self_attn.q_proj.weight",
              f"{TEXT}encoder.layers.0.self_attn.q_proj.weight")  # fmt: skip
    return header.config.get("model_type") in kinds and any(name in header.tensors for name in blocks)


def names(header: Header) -> tuple[Rename, ...]:
    if towers.is_timm(header, "_clip_"):
        return towers.timm_names(header)
    return open_clip.names(header) if open_clip.match(header) else hugging_face_names(header)


def match(header: Header) -> bool:
    opened = open_clip.match(header) and "logit_bias" not in header.tensors
    return opened or is_hugging_face(header, KINDS) or towers.is_timm(header, "_clip_")


FAMILY = Family("CLIP", match, config, names, ("embed", "classify"))
