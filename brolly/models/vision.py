"""An eye alone: DINOv2 (Oquab et al. 2023), plain vision transformers, and a classifier on them where there is one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from brolly.configs import ImageEncoderConfig
from brolly.layers.linear import Linear
from brolly.layers.vision import Pictures, ViT


class ImageEncoder(nn.Module):
    def __init__(self, config: ImageEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.vision_model = ViT(config.vision)
        if config.labels:
            self.classifier = Linear(config.vision.stack.dim * (1 + config.with_mean), len(config.labels))

    def images(self, pixels: Pictures) -> Tensor:
        """Each picture's vector: (B, C)."""
        return self.vision_model(pixels)

    def classify(self, pixels: Pictures) -> Tensor:
        """Each picture's logits for the labels it was trained on: (B, L)."""
        dtype = self.classifier.weight.dtype  # a new one learns in float32
        if not self.config.with_mean:
            return self.classifier(self.vision_model(pixels).to(dtype))
        x, spans = self.vision_model.tokens(pixels)
        means = self.vision_model.mean(x, spans)
        return self.classifier(torch.cat([x[spans.at([0] * len(spans.lengths))], means], dim=-1).to(dtype))
