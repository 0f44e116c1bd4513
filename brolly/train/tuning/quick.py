"""Llama blocks that train fast: a block's forward and backward by hand, where LoRA trains and all else is frozen.

Frozen weights have no gradient, so what enters a product need not be kept for one. Kept are a block's input, queries,
keys, values, what attention gave, the stream after it, gate and up; norms and gated products are computed again. LoRA's
products run in the network's dtype, one for all layers that read the same input. The reference is the block itself.

N tokens of all sequences, C dim, H heads, KV key-value heads, D head_dim, F hidden_dim, r rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from brolly.engine.cache import Causal
from brolly.kernels import tuning
from brolly.kernels.tuning import Stretches
from brolly.layers.attention import Cache
from brolly.layers.norm import RMSNorm
from brolly.models.llama import Block, Llama
from brolly.train.tuning.lora import LoraLinear
from brolly.train.tuning.packing import Packed, attend, attend_back

LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def quicken(network: nn.Module, checkpoint: bool = False) -> str:
    """Swap each Llama block, with its LoRA in place, for one that trains fast; returns which path they take, in words.

    With `checkpoint` a block keeps its input alone and computes the rest again: less memory, about a third more time.
    """
    if not isinstance(network, Llama):
        return f"torch: a {type(network).__name__}'s blocks have no fast path"
    blocks: Any = network.model.layers
    if reasons := {why for block in blocks if (why := obstacle(block))}:
        return f"torch: {', '.join(sorted(reasons))}"
    for i, block in enumerate(blocks):
        blocks[i] = QuickBlock(block, checkpoint)
    weight = network.model.norm.weight
    dtype, device = weight.dtype, weight.device
    told = f"blocks by hand in {str(dtype).removeprefix('torch.')}"
    told += ", each computed twice" if checkpoint else ""
    if device.type != "cpu":
        return f"{told}, torch on {device.type} between products"
    lib, config = tuning.library(), network.config
    if isinstance(lib, str):
        return f"{told}, torch between products: {lib}"
    return f"{told}, fused C between products" + (
        " and for attention"
        if tuning.attends(torch.empty(0, 1, config.head_dim, dtype=dtype))
        else ", attention by torch"
    )


def obstacle(block: Block) -> str | None:
    """Why a block cannot be computed by hand, if so."""
    for name, layer in _layers(block).items():
        if isinstance(layer, LoraLinear) and layer.magnitude is not None:
            return "DoRA's lengths train too"
        if isinstance(layer, LoraLinear) and layer.dropout:
            return "LoRA has dropout"
        base = layer.base if isinstance(layer, LoraLinear) else layer
        if not isinstance(base, nn.Linear):
            return f"{name} is a {type(base).__name__}"
    low = {id(p) for m in block.modules() if isinstance(m, LoraLinear) for p in (m.lora_A, m.lora_B)}
    frozen = [p for p in block.parameters() if id(p) not in low]
    if any(p.requires_grad for p in frozen):
        return "weights of the base train too"
    if len(kinds := {p.dtype for p in frozen}) > 1 or not kinds <= {torch.float32, torch.bfloat16}:
        return f"weights in {', '.join(sorted(str(k).removeprefix('torch.') for k in kinds))}"
    return None


class QuickBlock(Block):
    """A Block over the same modules under the same names. What it cannot do by hand runs as before."""

    def __init__(self, block: Block, checkpoint: bool) -> None:
        nn.Module.__init__(self)
        for name, module in block.named_children():
            setattr(self, name, module)
        self.checkpoint = checkpoint

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, cache: Cache) -> Tensor:
        mixed = x.dtype != self.input_layernorm.weight.dtype or torch.is_autocast_enabled(x.device.type)
        if mixed or not isinstance(cache, (Packed, Causal)) or obstacle(self):
            return super().forward(x, cos, sin, cache)
        attention = self.self_attn
        lengths = cache.lengths if isinstance(cache, Packed) else [x.shape[1]] * x.shape[0]
        low = [t for m in _layers(self).values() for t in ((m.lora_A, m.lora_B) if _adapted(m) else (None, None))]
        plan = Plan(self, Stretches(lengths, cache.windows[attention.index]), *(t.flatten(0, 2) for t in (cos, sin)))
        return _Hand.apply(x.flatten(0, 1), plan, self.checkpoint, *low).view_as(x)


class Plan(NamedTuple):
    """What a block's pass needs beside its input: cosine, sine are (N, D / 2)."""

    block: Block
    where: Stretches
    cosine: Tensor
    sine: Tensor


class Low(NamedTuple):
    """One layer's LoRA in the network's dtype: a (r, in), b (out, r), which holds the scale."""

    a: Tensor
    b: Tensor
    scale: float


class Kept(NamedTuple):
    """What a block's backward needs of its forward. (q, k: before norm and rotation where heads have norms.)"""

    x: Tensor
    q: Tensor
    k: Tensor
    v: Tensor
    mixed: Tensor
    sums: Tensor | None
    x1: Tensor
    gate: Tensor
    up: Tensor
    low_qkv: Tensor | None
    low_o: Tensor | None
    low_ffn: Tensor | None
    low_down: Tensor | None


class _Hand(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, plan: Plan, checkpoint: bool, *low: Tensor | None) -> Tensor:
        x = x.contiguous()
        y, kept = compute(x, plan, lows(plan, low, x.dtype))
        ctx.plan, ctx.checkpoint = plan, checkpoint
        ctx.save_for_backward(*low, *([x] if checkpoint else kept))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        low, saved = ctx.saved_tensors[: 2 * len(LAYERS)], ctx.saved_tensors[2 * len(LAYERS) :]
        cast = lows(ctx.plan, low, dy.dtype)
        kept = compute(saved[0], ctx.plan, cast)[1] if ctx.checkpoint else Kept(*saved)
        del saved
        dx, grads = compute_back(dy.contiguous(), ctx.plan, cast, kept, ctx.needs_input_grad[0])
        return dx, None, None, *(g for name in LAYERS for g in grads.get(name, (None, None)))


def lows(plan: Plan, low: Sequence[Tensor | None], dtype: torch.dtype) -> dict[str, Low]:
    out = {}
    for i, (name, layer) in enumerate(_layers(plan.block).items()):
        a, b = low[2 * i : 2 * i + 2]
        if a is not None and b is not None:
            out[name] = Low(a.to(dtype), (layer.scale * b).to(dtype), layer.scale)
    return out


def compute(x: Tensor, plan: Plan, low: dict[str, Low]) -> tuple[Tensor, Kept]:
    """A block's output (N, C) of its input."""
    block, config = plan.block, plan.block.self_attn.config
    layers = _layers(block)
    h = _norm(x, block.input_layernorm)
    (q, k, v), low_qkv = apply(h, layers, low, LAYERS[:3])
    raw, (turned_q, turned_k) = (q, k), turned(q, k, plan)
    values = v.unflatten(-1, (config.n_kv_heads, -1))
    mixed, sums = attend(turned_q, turned_k, values, plan.where)
    mixed = mixed.flatten(1)  # (N, H * D)
    (added,), low_o = apply(mixed, layers, low, ("o_proj",))
    x1 = added.add_(x)
    h = _norm(x1, block.post_attention_layernorm)
    (gate, up), low_ffn = apply(h, layers, low, ("gate_proj", "up_proj"))
    (y,), low_down = apply(tuning.gate(gate, up), layers, low, ("down_proj",))
    return y.add_(x1), Kept(x, *raw, v, mixed, sums, x1, gate, up, low_qkv, low_o, low_ffn, low_down)


def compute_back(
    dy: Tensor, plan: Plan, low: dict[str, Low], kept: Kept, wanted: bool
) -> tuple[Tensor | None, dict[str, tuple[Tensor, Tensor]]]:
    """The gradients of a block's input, if it is `wanted`, and of each layer's A and B."""
    block, config, grads = plan.block, plan.block.self_attn.config, {}
    layers = _layers(block)

    def learn(
        names: Sequence[str], x: Tensor, pulls: Tensor | None, dys: Sequence[Tensor], lows: Tensor | None
    ) -> None:
        grads.update(learnt(x, pulls, dys, lows, low, names))

    d_product, pulls = apply_back([dy], layers, low, ("down_proj",))
    d_gate, d_up, product = tuning.gate_back(d_product, kept.gate, kept.up)
    learn(("down_proj",), product, pulls, [dy], kept.low_down)
    del d_product, product
    names: tuple[str, ...] = ("gate_proj", "up_proj")
    dh, pulls = apply_back([d_gate, d_up], layers, low, names)
    dx1, h = _norm_back(dh, kept.x1, block.post_attention_layernorm, dy, pulls is not None)
    learn(names, h, pulls, [d_gate, d_up], kept.low_ffn)
    del d_gate, d_up, h

    d_mixed, pulls = apply_back([dx1], layers, low, ("o_proj",))
    learn(("o_proj",), kept.mixed, pulls, [dx1], kept.low_o)
    q, k = turned(kept.q, kept.k, plan) if config.qk_norm else _heads(kept.q, kept.k, config)
    v, mixed = _heads(kept.v, kept.mixed, config, flip=True)
    dq, dk, dv = attend_back(d_mixed.view_as(q), q, k, v, mixed, kept.sums, plan.where)
    dq, dk = (tuning.turn(t, plan.cosine, plan.sine, back=True) for t in (dq, dk))
    if config.qk_norm:
        raw = _heads(kept.q, kept.k, config)
        norms = (block.self_attn.q_norm, block.self_attn.k_norm)
        dq, dk = (_norm_back(d, t, n, None, False)[0] for d, t, n in zip((dq, dk), raw, norms, strict=True))
    dys, names = [t.flatten(1) for t in (dq, dk, dv)], LAYERS[:3]
    dh, pulls = apply_back(dys, layers, low, names, wanted)
    if wanted:
        dx, h = _norm_back(dh, kept.x, block.input_layernorm, dx1, pulls is not None)
    else:
        dx, h = None, _norm(kept.x, block.input_layernorm)
    learn(names, h, pulls, dys, kept.low_qkv)
    return dx, grads


def apply(
    x: Tensor, layers: dict[str, Any], low: dict[str, Low], names: Sequence[str]
) -> tuple[list[Tensor], Tensor | None]:
    """What some layers make of x (N, in), and x under all their As side by side, (N, Σ r)."""
    adapted = [name for name in names if name in low]
    lows = F.linear(x, torch.cat([low[name].a for name in adapted])) if adapted else None
    columns, out = _columns(lows, low, adapted), []
    for name in names:
        base = _base(layers[name])
        if name not in low:
            out.append(F.linear(x, base.weight, base.bias))
            continue
        first = columns[name] @ low[name].b.t()  # the smaller sum first: the larger is added before it is rounded
        if base.bias is not None:
            first += base.bias
        out.append(first.addmm_(x, base.weight.t()))
    return out, lows


def apply_back(
    dys: Sequence[Tensor], layers: dict[str, Any], low: dict[str, Low], names: Sequence[str], wanted: bool = True
) -> tuple[Tensor, Tensor | None]:
    """The gradient of x, of the gradients of what `apply` made of it, and that of x under the As, (N, Σ r)."""
    given = dict(zip(names, dys, strict=True))
    adapted = [name for name in names if name in low]
    pulls = torch.cat([given[name] @ low[name].b for name in adapted], dim=1) if adapted else None
    if not wanted:
        return dys[0].new_empty(0), pulls
    dx = None if pulls is None else pulls @ torch.cat([low[name].a for name in adapted])
    for name, dy in given.items():
        weight = tuning.by_columns(_base(layers[name]).weight, len(dy))
        dx = dy @ weight if dx is None else dx.addmm_(dy, weight)
    assert dx is not None
    return dx, pulls


def learnt(
    x: Tensor,
    pulls: Tensor | None,
    dys: Sequence[Tensor],
    lows: Tensor | None,
    low: dict[str, Low],
    names: Sequence[str],
) -> dict[str, tuple[Tensor, Tensor]]:
    """The gradients of each A and B, float32."""
    adapted = [name for name in names if name in low]
    if pulls is None:
        return {}
    d_a, columns, given = (pulls.t() @ x).float(), _columns(lows, low, adapted), dict(zip(names, dys, strict=True))
    rows = dict(zip(adapted, d_a.split([len(low[name].a) for name in adapted]), strict=True))
    return {n: (rows[n], (given[n].t() @ columns[n]).float() * low[n].scale) for n in adapted}


def turned(q: Tensor, k: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:
    """Queries and keys (N, …) as attention reads them, (N, H, D): normed into new memory, or rotated where they lie."""
    attention = plan.block.self_attn
    heads = _heads(q, k, attention.config)
    if attention.config.qk_norm:
        heads = _norm(heads[0], attention.q_norm), _norm(heads[1], attention.k_norm)
    a, b = (tuning.turn(t, plan.cosine, plan.sine) for t in heads)
    return a, b


def _heads(a: Tensor, b: Tensor, config: Any, flip: bool = False) -> tuple[Tensor, Tensor]:
    """Queries' and keys' heads side by side, or, flipped, keys' and queries'."""
    n = (config.n_kv_heads, config.n_heads) if flip else (config.n_heads, config.n_kv_heads)
    return a.unflatten(-1, (n[0], -1)), b.unflatten(-1, (n[1], -1))


def _columns(lows: Tensor | None, low: dict[str, Low], names: Sequence[str]) -> dict[str, Tensor]:
    """Each layer's own of (N, Σ r)."""
    return {} if lows is None else dict(zip(names, lows.split([len(low[n].a) for n in names], dim=1), strict=True))


def _norm(x: Tensor, norm: RMSNorm) -> Tensor:
    return tuning.norm(x, norm.weight, norm.eps or 0.0)


def _norm_back(dy: Tensor, x: Tensor, norm: RMSNorm, skip: Tensor | None, again: bool) -> tuple[Tensor, Tensor]:
    return tuning.norm_back(dy, x, norm.weight, norm.eps or 0.0, skip, again)


def _layers(block: Block) -> dict[str, Any]:
    attention, mlp = block.self_attn, block.mlp
    both = {**dict(attention.named_children()), **dict(mlp.named_children())}
    return {name: both[name] for name in LAYERS}


def _base(layer: Any) -> nn.Linear:
    return layer.base if isinstance(layer, LoraLinear) else layer


def _adapted(layer: Any) -> bool:
    return isinstance(layer, LoraLinear) and layer.active
