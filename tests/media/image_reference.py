"""Run in its own process, where open_clip and timm can be imported: what their transforms make of pictures.

usage: python image_reference.py FOLDER. Writes each case's arrays beside the pictures in it, as CASE-PICTURE.npy.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

OPS = torch.library.Library("torchvision", "FRAGMENT")  # its wheel is built for CUDA, and its import asks for these
for name in ("nms", "qnms"):
    OPS.define(f"{name}(Tensor dets, Tensor scores, float iou) -> Tensor")


def main(folder: Path) -> None:
    from open_clip.transform import PreprocessCfg, image_transform_v2
    from timm.data import create_transform, resolve_data_config

    cases = json.loads((folder / "cases.json").read_text())
    transforms = {}
    for name, said in cases.items():
        if name.startswith("open"):
            transforms[name] = image_transform_v2(PreprocessCfg(**said), is_train=False)
        else:
            transforms[name] = create_transform(**resolve_data_config(pretrained_cfg=said))
    for path in folder.glob("*.png"):
        picture = Image.open(path).convert("RGB")
        for name, transform in transforms.items():
            np.save(folder / f"{name}-{path.stem}.npy", transform(picture).numpy())


main(Path(sys.argv[1]))
