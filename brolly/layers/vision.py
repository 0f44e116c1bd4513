"""Pictures as rows of tokens (Dosovitskiy et al. 2021): the eye of CLIP, SigLIP and DINOv2.

B pictures of any sizes, H × W pixels, h × w patches of P × P; N tokens of all of them, C dim.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brolly.configs import StackConfig, ViTConfig
from brolly.layers.linear import Embedding, Linear
from brolly.layers.norm import LayerNorm
from brolly.layers.transformer import MLP, Spans, Stack

Pictures = Tensor | Sequence[Tensor]  # (B, 3, H, W), or B times (3, H, W) of sizes that may differ


class ViT(nn.Module):
    """Patches, blocks, a last norm, and one vector a picture."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config, stack = config, config.stack
        self.embeddings = Patches(config)
        self.pre_layrnorm = LayerNorm(stack.dim, eps=stack.norm_eps) if config.pre_norm else nn.Identity()
        self.encoder = Stack(stack)
        self.post_layernorm = LayerNorm(stack.dim, eps=stack.norm_eps)
        if config.pool == "attention":
            self.head = AttentionPool(stack)

    def forward(self, pictures: Pictures) -> Tensor:
        """One vector a picture: (B, C)."""
        x, spans = self.embeddings(pictures)
        x = self.encoder(self.pre_layrnorm(x), spans)
        if self.config.pool == "class":
            return self.post_layernorm(x[spans.at([0] * len(spans.lengths))])
        if self.config.pool == "mean":
            return self.post_layernorm(self.mean(x, spans))
        return self.head(self.post_layernorm(x), spans)

    def tokens(self, pictures: Pictures) -> tuple[Tensor, Spans]:
        """Every token behind the last norm, and where each picture's end: (N, C)."""
        x, spans = self.embeddings(pictures)
        return self.post_layernorm(self.encoder(self.pre_layrnorm(x), spans)), spans

    def mean(self, x: Tensor, spans: Spans) -> Tensor:
        """Of each picture's patches: (N, C) → (B, C)."""
        front = self.config.class_token + self.config.n_registers
        return torch.stack([one[front:].mean(0) for one in x.split(spans.lengths)])


class Patches(nn.Module):
    """Pixels to tokens in reading order, after the class token and the registers, with their positions added."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config, dim = config, config.stack.dim
        self.patch_embedding = PatchEmbedding(config)
        if config.class_token:
            self.class_embedding = nn.Parameter(torch.empty(dim))
        if config.n_registers:
            self.register_tokens = nn.Parameter(torch.empty(config.n_registers, dim))
        self.position_embedding = Embedding(config.side**2 + config.class_position, dim)

    def forward(self, pictures: Pictures) -> tuple[Tensor, Spans]:
        batches = [pictures] if isinstance(pictures, Tensor) else [p[None] for p in pictures]
        rows = [self.rows(pixels) for pixels in batches]  # (B, n, C) each
        spans = Spans([t.shape[1] for t in rows for _ in range(len(t))], rows[0].device)
        return torch.cat([t.flatten(0, 1) for t in rows]), spans

    def rows(self, pixels: Tensor) -> Tensor:
        patches = self.patch_embedding(pixels)  # (B, h, w, C)
        first, places = self.positions(*patches.shape[1:3])
        x = patches.flatten(1, 2) + places  # (B, h w, C)
        front = [self.class_embedding[None] + first] if self.config.class_token else []
        front += [self.register_tokens] if self.config.n_registers else []
        return torch.cat([*(t.expand(len(x), -1, -1) for t in front), x], dim=1)

    def positions(self, height: int, width: int) -> tuple[Tensor | float, Tensor]:
        """The class token's position, and a grid's of patches, resized from the one that was learned: (h w, C)."""
        config, table = self.config, self.position_embedding.weight
        first, grid = (table[:1], table[1:]) if config.class_position else (0.0, table)
        if (height, width) != (config.side, config.side):
            square = grid.unflatten(0, (config.side, config.side)).permute(2, 0, 1)[None].float()  # (1, C, side, side)
            resized = F.interpolate(square, (height, width), mode=config.resize, antialias=config.antialias)
            grid = resized[0].flatten(1).t().to(grid.dtype)
        return first, grid


class PatchEmbedding(nn.Module):
    """One product a patch; a convolution's weight (C, 3, P, P), or a linear layer's over pixels with channels last."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.patch_size, self.channels_last, dim = config.patch_size, config.channels_last, config.stack.dim
        shape = (config.n_channels, config.patch_size, config.patch_size)
        self.weight = nn.Parameter(
            torch.empty(dim, shape[0] * shape[1] ** 2) if self.channels_last else torch.empty(dim, *shape)
        )
        self.bias = nn.Parameter(torch.empty(dim)) if config.patch_bias else None

    def forward(self, pixels: Tensor) -> Tensor:
        size = self.patch_size
        height, width = pixels.shape[2] // size, pixels.shape[3] // size
        x = pixels[:, :, : height * size, : width * size].to(self.weight.dtype)
        x = x.unflatten(3, (width, size)).unflatten(2, (height, size))  # (B, 3, h, P, w, P)
        x = x.permute(0, 2, 4, 3, 5, 1) if self.channels_last else x.permute(0, 2, 4, 1, 3, 5)
        return F.linear(x.flatten(3), self.weight.flatten(1), self.bias)  # (B, h, w, C)


class AttentionPool(nn.Module):
    """A learned probe looks at all tokens of a picture (Zhai et al. 2022): (N, C) → (B, C)."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        self.n_heads, dim = config.n_heads, config.dim
        self.probe = nn.Parameter(torch.empty(dim))
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (Linear(dim, dim) for _ in range(4))
        self.layernorm = LayerNorm(dim, eps=config.norm_eps)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, spans: Spans) -> Tensor:
        q = self.q_proj(self.probe).unflatten(0, (self.n_heads, 1, -1))  # (H, 1, D)
        k, v = (proj(x).unflatten(-1, (self.n_heads, -1)) for proj in (self.k_proj, self.v_proj))  # (N, H, D)
        seen = []
        for first, count, n in spans.runs:
            k1, v1 = (t[first : first + count * n].unflatten(0, (count, n)).transpose(1, 2) for t in (k, v))
            mixed = F.scaled_dot_product_attention(q.expand(count, -1, -1, -1), k1, v1)  # (B, H, 1, D)
            seen.append(mixed.flatten(1))
        x = self.out_proj(torch.cat(seen))
        return x + self.mlp(self.layernorm(x))
