"""Run in its own process, where open_clip and timm can be imported: tiny networks of theirs, as they save them.

usage: python open_clip_reference.py FOLDER. Each folder in it gets weights and config in the publisher's layout, and
expected.st beside them: pixels, ids and what the reference makes of them.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch

OPS = torch.library.Library("torchvision", "FRAGMENT")
for name in (
    "nms(Tensor dets, Tensor scores, float iou) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou) -> Tensor",
):
    OPS.define(
        name
    )  # torchvision's wheel is built for CUDA: its own library does not load, and its import asks for these

SIZES = dict(image_size=32, patch_size=8, layers=2, width=128)
SMALL = dict(depth=2, embed_dim=128, num_heads=2)
WORDS = dict(context_length=12, vocab_size=99, width=64, heads=4, layers=2)
OPEN = {
    "clip": dict(embed_dim=24, vision_cfg=SIZES, text_cfg=WORDS),
    "clip-quick-scaled": dict(
        embed_dim=24, quick_gelu=True, vision_cfg=SIZES | dict(head_width=32, ls_init_value=0.5), text_cfg=WORDS
    ),
    "siglip": dict(
        embed_dim=128, init_logit_bias=-10, custom_text=True,
        vision_cfg=dict(image_size=32, timm_model_name="vit_base_patch16_siglip_224", timm_model_pretrained=False,
                        timm_pool="map", timm_proj="none"),
        text_cfg=WORDS | dict(no_causal_mask=True, proj_bias=True, pool_type="last", norm_kwargs=dict(eps=1e-6)),
    ),
}  # fmt: skip
TIMM: dict[str, dict[str, Any]] = {
    "vit_base_patch16_clip_quickgelu_224": dict(num_classes=0),
    "vit_base_patch16_clip_224.laion2b": dict(num_classes=24),
    "vit_base_patch16_clip_224.laion2b_ft_in1k": dict(num_classes=5),
    "vit_base_patch16_siglip_224": dict(num_classes=0),
    "vit_small_patch14_dinov2": dict(num_classes=0),
    "vit_small_patch14_reg4_dinov2": dict(num_classes=0),
    "vit_giant_patch14_reg4_dinov2": dict(num_classes=0),
    "vit_small_patch16_224": dict(num_classes=5),
}


PUBLISHED = (
    "ViT-B-32-quickgelu", "ViT-L-14", "ViT-H-14", "ViT-bigG-14", "ViT-H-14-worldwide", "ViT-SO400M-14-SigLIP-384",
    "ViT-gopt-16-SigLIP2-384",
)  # fmt: skip


def published(folder: Path) -> None:
    """Published networks in their true size, without numbers: their shapes, and what shapes do not tell."""
    from open_clip import get_model_config
    from open_clip.model import CLIP, CustomTextCLIP

    told = {}
    for name in PUBLISHED:
        config = get_model_config(name)
        custom = config.get("custom_text", False)
        with torch.device("meta"):
            model = (CustomTextCLIP if custom else CLIP)(**{k: v for k, v in config.items() if k != "custom_text"})
        trunk, text = getattr(model.visual, "trunk", None), model.text if custom else model
        vision = trunk.blocks[0].attn if trunk is not None else model.visual.transformer.resblocks[0].attn
        told[name] = dict(
            config=config,
            shapes={n: list(t.shape) for n, t in model.state_dict().items()},
            heads=[vision.num_heads, text.transformer.resblocks[0].attn.num_heads],
            eps=trunk.norm.eps if trunk is not None else model.visual.ln_post.eps,
        )
    (folder / "published.json").write_text(json.dumps(told))


def noisy(model: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.03)
    return model.eval()


def main(folder: Path) -> None:
    import open_clip
    import timm
    from open_clip.factory import create_model
    from safetensors.torch import save_file

    def write(name: str, weights: str, model: torch.nn.Module, told: dict[str, torch.Tensor]) -> Path:
        (folder / name).mkdir()
        save_file({k: t.contiguous() for k, t in model.state_dict().items()}, folder / name / weights)
        save_file({k: t.contiguous() for k, t in told.items()}, folder / name / "expected.st")
        return folder / name

    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    ids = torch.tensor([[97, 5, 6, 98] + [0] * 8, [97, 8, 9, 98] + [0] * 8])
    for name, config in OPEN.items():
        torch.manual_seed(0)
        open_clip.factory._MODEL_CONFIGS[name] = config
        options = dict(force_image_size=32) if name != "siglip" else {}
        if name == "siglip":  # timm's name tells a size; the config's is asked for
            timm.create_model, create = partial(timm.create_model, img_size=32, **SMALL), timm.create_model
        model = noisy(create_model(name, **options))
        if name == "siglip":
            timm.create_model = create
        with torch.inference_mode():
            images, texts = model.encode_image(pixels), model.encode_text(ids)
            logits = model.get_logits(pixels, ids)[0]
        told = dict(pixels=pixels, ids=ids, images=images, texts=texts, logits=logits)
        where = write(name, "open_clip_model.safetensors", model, told)
        (where / "open_clip_config.json").write_text(json.dumps(dict(model_cfg=config, preprocess_cfg={})))
    for name, options in TIMM.items():
        size = 28 if "14" in name else 32
        architecture, _, tag = name.partition(".")
        model = noisy(timm.create_model(architecture, img_size=size, **SMALL, **options))
        pixels = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(2))
        with torch.inference_mode():
            told = dict(pixels=pixels, images=model.forward_head(model.forward_features(pixels), pre_logits=True))
            if tag == "laion2b":
                told["images"] = model(pixels)
            elif options["num_classes"]:
                told["classes"] = model(pixels)
        where = write(name, "model.safetensors", model, told)
        said = dict(
            architecture=architecture,
            num_classes=options["num_classes"],
            num_features=model.num_features,
            pretrained_cfg=dict(tag=tag),
        )
        (where / "config.json").write_text(json.dumps(said))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    published(Path(sys.argv[1]))
