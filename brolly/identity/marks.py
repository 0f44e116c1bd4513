"""What tensor names tell where no config does: Meta's, OpenAI's, Stability's own files, adapters, optimizer states."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from brolly.identity.roles import Told
from brolly.identity.tables import table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from brolly.card import TensorInfo
    from brolly.identity.subject import Subject

MAX_NAMES = 20_000  # looked at; published models repeat their layers long before
SAMPLE = 2000
WRAPPERS = ("module.", "_orig_mod.", "state_dict.", "state_dict/", "base_model.model.", "params/")
OPTIMIZER = re.compile(r"exp_avg|exp_avg_sq|momentum_buffer|fp32_flat_groups|single_partition_of_fp32_groups")
OPTIMIZER_FILES = ("optimizer.pt", "optimizer.bin", "optimizer.pth", "optim_states.pt", "optim.pt", "optim.pth")
LORA = re.compile(
    r"\.lora_[AB]\b|\.lora_(?:up|down|a|b)\b|lora_embedding_[AB]|\.lora\.(?:up|down)|_lora\.(?:up|down)|\.hada_w\d_[ab]|\.lokr_w\d|:(?:up|down)$"
)


def skeletons(tensors: Mapping[str, TensorInfo]) -> str:
    """Each kind of name once, digits as N, every wrapper's prefix off, one a line; "\\n" before and after each."""
    seen: dict[str, None] = {}
    for i, name in enumerate(tensors):
        if i >= MAX_NAMES:
            break
        for start in WRAPPERS:
            name = name.removeprefix(start)
        seen[re.sub(r"\d+", "N", name[:200])] = None
    return "\n" + "\n".join(seen) + "\n"


def sample(tensors: Mapping[str, TensorInfo]) -> list[str]:
    """Names from the whole of a file, at most SAMPLE of them."""
    names = list(tensors)
    return names[:: -(-len(names) // SAMPLE)] if names else []


def left_over(subject: Subject) -> Told | None:
    """An optimizer's state, which is no model."""
    name, tensors = subject.where.name, subject.header.tensors
    named = name.endswith(OPTIMIZER_FILES) or name == "distrib_optim.pt"
    some = sample(tensors)
    hits = sum(1 for n in some if OPTIMIZER.search(n[:300]))
    model = any(n.startswith(("state_dict", "model.", "module.")) and not OPTIMIZER.search(n[:300]) for n in some)
    if named or (hits and hits * 3 >= len(some) and not model and not weights_beside(subject)):
        key = "tensor names" if hits else "file name"
        return Told(
            "", "optimizer", name, key, some[0][:80] if some and hits else name, "moments of an optimizer, no weights"
        )
    return None


def weights_beside(subject: Subject) -> bool:
    """Whether a checkpoint from the middle of a training holds the model's weights beside the optimizer's moments."""
    from brolly.identity.aside import training_of

    state = set(training_of(subject.header))
    return bool(state) and any(n not in state and not OPTIMIZER.search(n[:300]) for n in subject.header.tensors)


def is_lora(tensors: Mapping[str, TensorInfo]) -> bool:
    """Whether most of the tensors are low-rank factors, or words learnt for a text encoder."""
    some = sample(tensors)
    return bool(some) and sum(1 for n in some if LORA.search(n[:300])) * 2 > len(some)


def by_tensors(subject: Subject) -> Told | None:
    """The first row of the table whose marks are all there."""
    tensors = subject.header.tensors
    if not tensors:
        return None
    if is_lora(tensors):
        return _of_lora(tensors, subject.where.name)
    if any(n.startswith(("string_to_param", "emb_params")) for n in list(tensors)[:8]):
        return Told(
            "",
            "image",
            subject.where.name,
            "tensor names",
            next(iter(tensors))[:80],
            "a learnt word (textual inversion)",
        )
    text = skeletons(tensors)
    for family, does, parts in table("tensor_marks.json")["marks"]:
        if all(p.replace("^", "\n") in text for p in parts):
            family, does = _by_shape(family, does, tensors)
            return Told(
                family,
                does,
                subject.where.name,
                "tensor names",
                ", ".join(parts)[:160],
                "names that this family's files have",
            )
    return None


def _by_shape(family: str, does: str, tensors: Mapping[str, TensorInfo]) -> tuple[str, str]:
    """Stable Diffusion's generations differ in how wide the text encoder is that the denoiser attends to."""
    if family == "Stable Diffusion" and _text_width(tensors) == 2048:
        family = "SDXL"
    if does == "vision-classifier" and family == "ResNet" and "fc.weight" not in tensors:
        does = "vision"
    return family, does


def _text_width(tensors: Mapping[str, TensorInfo]) -> int | None:
    """Columns of the first cross-attention's keys: 768 (SD 1), 1024 (SD 2), 2048 (SDXL)."""
    for name, info in tensors.items():
        if re.search(r"attn2[._]to_k\.(weight|lora_A\.weight|lora_down\.weight|lora\.down\.weight)$", name[-120:]):
            return info.shape[-1] if info.shape else None
    return None


def _of_lora(tensors: Mapping[str, TensorInfo], file: str) -> Told:
    """What an adapter changes, by the names of the layers that it touches."""
    text = skeletons(tensors)

    def has(*parts: str) -> bool:
        return any(p in text for p in parts)

    told_at = (file, "tensor names", next(n for n in tensors if LORA.search(n[:300]))[:80])
    if has("single_transformer_blocks", "single_blocks_N", "single_blocks.N"):
        return Told("FLUX", "image", *told_at, "an adapter to FLUX's blocks")
    if has("joint_blocks"):
        return Told("Stable Diffusion 3", "image", *told_at, "an adapter to SD 3's blocks")
    if has("attnN.to_k", "attnN_to_k", "unet:N", "lora_unet_", "\nunet."):
        width = _text_width(tensors)
        family = {768: "Stable Diffusion", 1024: "Stable Diffusion", 2048: "SDXL"}.get(width or 0, "")
        family = "SDXL" if has("lora_teN_") and not has("lora_te_") and not family else family
        if not family and has("unet:N") and has("text_encoder:N"):
            family = "Stable Diffusion"
        return Told(family, "image", *told_at, f"an adapter to a denoiser over a text encoder {width or '?'} wide")
    if has("cross_attn.q.", "cross_attn_q."):
        return Told("Wan", "video", *told_at, "an adapter to Wan's blocks")
    if has("self_attn.q_proj", "self_attn.qkv_proj", "attn.c_attn", "query_key_value", "self_attn.v_proj"):
        if has("vision_tower", "visual.", "mm_projector"):
            return Told("", "lmm", *told_at, "an adapter to a decoder and its image encoder")
        if has("encoder_attn", "EncDecAttention"):
            return Told("", "", *told_at, "an adapter to an encoder and a decoder")
        if not has("text_model", "vision_model"):
            return Told("", "llm", *told_at, "an adapter to a decoder's attention")
    return Told("", "", *told_at, "an adapter; its layers' names are no known model's")
