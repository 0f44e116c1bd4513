"""CLIP (Radford et al. 2021) and SigLIP (Zhai et al. 2023): pictures and texts in one space, or either tower alone.

B pictures or texts, N tokens of all texts one behind the other, C a tower's dim, E the space's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brolly.configs import CLIPConfig, TextConfig
from brolly.layers.linear import Embedding, Linear
from brolly.layers.norm import LayerNorm
from brolly.layers.transformer import Spans, Stack
from brolly.layers.vision import Pictures, ViT


class CLIP(nn.Module):
    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        self.config = config
        if config.vision:
            self.vision_model = ViT(config.vision)
            head = Linear(config.vision.stack.dim, config.embed_dim, bias=config.vision_head_bias)
            self.visual_projection = head if config.vision_head else nn.Identity()
        if config.text:
            self.text_model = Text(config.text)
            head = Linear(config.text.stack.dim, config.embed_dim, bias=config.text_head_bias)
            self.text_projection = head if config.text_head else nn.Identity()
        if config.vision and config.text:
            self.logit_scale = nn.Parameter(torch.empty(()))
            if config.sigmoid:
                self.logit_bias = nn.Parameter(torch.empty(()))

    def images(self, pixels: Pictures) -> Tensor:
        """Each picture's vector, of whatever length: (B, E)."""
        return self.visual_projection(self.vision_model(pixels))

    def texts(self, ids: Tensor, spans: Spans) -> Tensor:
        """Each text's vector, of whatever length: (N,) → (B, E)."""
        return self.text_projection(self.text_model(ids, spans))

    def logits(self, image: Tensor, text: Tensor) -> Tensor:
        """How well each picture goes with each text: (B, E), (T, E) → (B, T)."""
        cosines = F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).t()
        scaled = cosines * self.logit_scale.exp()
        return scaled + self.logit_bias if self.config.sigmoid else scaled

    def probabilities(self, logits: Tensor) -> Tensor:
        """Of each text among the texts; SigLIP judges each by itself."""
        return logits.sigmoid() if self.config.sigmoid else logits.softmax(-1)


class Text(nn.Module):
    """A text tower: (N,) → (B, C), the vector at each text's end."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config, dim = config, config.stack.dim
        self.embeddings = nn.ModuleDict(
            {
                "token_embedding": Embedding(config.vocab_size, dim),
                "position_embedding": Embedding(config.context, dim),
            }
        )
        self.encoder = Stack(config.stack)
        self.final_layer_norm = LayerNorm(dim, eps=config.stack.norm_eps)

    def forward(self, ids: Tensor, spans: Spans) -> Tensor:
        x = self.embeddings["token_embedding"](ids) + self.embeddings["position_embedding"](spans.positions)
        return self.final_layer_norm(self.encoder(x, spans)[self.ends(ids, spans)])

    def ends(self, ids: Tensor, spans: Spans) -> Tensor:
        """The row that stands for each text: the first end token's, the highest id's, or the last."""
        if self.config.pool == "last":
            return spans.at([-1] * len(spans.lengths))
        marks = ids if self.config.pool == "highest" else (ids == self.config.eos_id).int()
        return spans.at([int(one.argmax()) for one in marks.split(spans.lengths)])
