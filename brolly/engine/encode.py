"""Gives the Stacks of a finished network their fused pass, where the machine and the weights allow one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from brolly.configs import Rope
from brolly.kernels.encoder import Blocks, Encoder
from brolly.layers.rope import cos_sin
from brolly.layers.transformer import Spans, Stack

PARTS = {
    "norm1": "layer_norm1.weight", "norm1_b": "layer_norm1.bias", "norm2": "layer_norm2.weight",
    "norm2_b": "layer_norm2.bias", "q": "self_attn.q_proj.weight", "q_b": "self_attn.q_proj.bias",
    "k": "self_attn.k_proj.weight", "k_b": "self_attn.k_proj.bias", "v": "self_attn.v_proj.weight",
    "v_b": "self_attn.v_proj.bias", "o": "self_attn.out_proj.weight", "o_b": "self_attn.out_proj.bias",
    "fc1": "mlp.fc1.weight", "fc1_b": "mlp.fc1.bias", "gate": "mlp.gate.weight", "gate_b": "mlp.gate.bias",
    "fc2": "mlp.fc2.weight", "fc2_b": "mlp.fc2.bias", "scale1": "scale1", "scale2": "scale2",
}  # fmt: skip


class FusedStack(Stack):
    """A Stack whose passes run in the kernel. What that does not take, such as a bias, runs as before."""

    def __init__(self, stack: Stack) -> None:
        nn.Module.__init__(self)
        self.config, self.layers = stack.config, stack.layers
        self.turns: dict[Rope, Tensor] = {}
        self.weights = list(self.parameters())
        self.encoder, self.read = encoder(self), self.places()

    def forward(self, x: Tensor, spans: Spans, bias: Callable[[int], Tensor] | None = None) -> Tensor:
        trains = torch.is_grad_enabled() and (x.requires_grad or any(p.requires_grad for p in self.weights))
        if bias is not None or trains or x.dtype != torch.bfloat16:
            return super().forward(x, spans, bias)
        if self.read != self.places():  # a settler moved them
            self.encoder, self.read = encoder(self), self.places()
        config, longest = self.config, max(spans.lengths, default=0)
        turns = [self.table(rope, longest) if rope else None for rope in config.ropes or [None] * config.n_layers]
        return self.encoder(x, spans.lengths, turns)

    def places(self) -> list[int]:
        """Where each weight lies."""
        return [p.data_ptr() for p in self.weights]

    def table(self, rope: Rope, longest: int) -> Tensor:
        """Cosines, then sines, of at least that many positions: (positions, D)."""
        if rope not in self.turns or len(self.turns[rope]) < longest:
            positions = torch.arange(-(-longest // 512) * 512)[None]
            angles = cos_sin(rope, self.config.head_dim, positions, torch.float32)
            self.turns[rope] = torch.cat([t[0, 0] for t in angles], dim=-1).contiguous()
        return self.turns[rope]


def encoder(stack: Stack) -> Encoder:
    """The kernel's view of a Stack. Raises ValueError with the reason where it has none here."""
    config = stack.config
    if any(rope and rope.kind == "dynamic" for rope in config.ropes):
        raise ValueError("dynamic rope scaling changes with the length")
    layers = []
    for block in stack.layers:
        given = dict(block.named_parameters())
        layers.append({short: given[name] for short, name in PARTS.items() if name in given})
    sizes = {name: getattr(config, name) for name in ("dim", "n_layers", "n_heads", "head_dim", "hidden_dim")}
    windows = config.windows or (None,) * config.n_layers
    return Encoder(Blocks(sizes, config.act, config.post_norm, config.causal, config.norm_eps, layers, windows))


def accelerate(network: nn.Module) -> str:
    """Swap each Stack for its fused twin; returns which path they take, in a few words."""
    paths = set()
    for name, stack in list(network.named_modules()):
        if isinstance(stack, Stack):
            try:
                network.set_submodule(name, FusedStack(stack))
                paths.add("fused C for the blocks")
            except ValueError as error:
                paths.add(f"torch ({error})")
    return ", ".join(sorted(paths)) or "torch"
