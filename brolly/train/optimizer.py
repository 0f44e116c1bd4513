"""How weights are drawn and moved: the first draw, AdamW or Muon, and the learning rate of each step."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from brolly.train.recipe import Training


def draw(network: nn.Module, n_layers: int, seed: int) -> None:
    """Normal weights of std 0.02, those that end a residual branch shrunk by √(2·layers) (Radford et al. 2019)."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in network.named_parameters():
            if p.dim() < 2:
                p.fill_(0.0 if name.endswith("bias") else 1.0)
            else:
                ends = name.endswith(("o_proj.weight", "down_proj.weight"))
                p.normal_(0.0, 0.02 / math.sqrt(2 * n_layers) if ends else 0.02, generator=generator)


def optimizers(network: nn.Module, recipe: Training) -> list[torch.optim.Optimizer]:
    """AdamW over everything, or Muon (Jordan 2024) over the matrices inside the blocks and AdamW over the rest."""
    matrices: list[Tensor] = []
    embeddings: list[Tensor] = []
    vectors: list[Tensor] = []
    for name, p in network.named_parameters():
        inside = ".layers." in name
        (vectors if p.dim() < 2 else matrices if inside else embeddings).append(p)
    betas = (recipe.beta1, recipe.beta2)
    plain = [{"params": vectors, "weight_decay": 0.0}, {"params": embeddings, "weight_decay": 0.0}]
    if recipe.optimizer == "adamw":
        groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, *plain]
        return [torch.optim.AdamW(groups, lr=recipe.lr, betas=betas, fused=True)]
    muon = torch.optim.Muon(matrices, lr=recipe.lr, weight_decay=recipe.weight_decay, adjust_lr_fn="match_rms_adamw")
    return [torch.optim.AdamW(plain, lr=recipe.lr, betas=betas, fused=True), muon]


def rate(step: int, steps: int, recipe: Training) -> float:
    """The share of the peak learning rate at `step`: warm-up, then flat and a straight fall ("wsd"), or a cosine."""
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    if recipe.schedule == "cosine":
        done = (step - recipe.warmup) / max(1, steps - recipe.warmup)
        fall = 0.5 * (1 + math.cos(math.pi * done))
    else:
        fall = min(1.0, (steps - step) / max(1.0, recipe.decay * steps))
    return recipe.final_lr + (1 - recipe.final_lr) * fall
