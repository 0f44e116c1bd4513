"""Spans and the Stack: sequences in a row compute what each computes alone, and what a padded batch computes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from brolly.configs import Rope, StackConfig
from brolly.layers.transformer import Spans, Stack

PLAIN = StackConfig(32, 2, 4, 64, 1e-5, "gelu")
CONFIGS = {
    "pre-norm": PLAIN,
    "post-norm": PLAIN._replace(post_norm=True),
    "causal": PLAIN._replace(causal=True, act="quick_gelu"),
    "gated": PLAIN._replace(gated=True, act="silu", mlp_bias=False, o_bias=False),
    "rotary windows": PLAIN._replace(ropes=(Rope(), Rope(theta=160000.0)), windows=(2, None), first_norm=False),
    "layer scale": PLAIN._replace(layer_scale=True, k_bias=False),
}


def filled(config: StackConfig) -> Stack:
    torch.manual_seed(0)
    stack = Stack(config)
    for parameter in stack.parameters():
        parameter.data = torch.randn(parameter.shape) * 0.3
    return stack.eval()


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@torch.inference_mode()
def test_sequences_in_a_row_equal_each_alone(config: StackConfig) -> None:
    stack, lengths = filled(config), (5, 5, 1, 9, 2)
    x = torch.randn(sum(lengths), config.dim)
    together = stack(x, Spans(lengths))
    alone = [stack(part, Spans([len(part)])) for part in x.split(lengths)]
    assert (together - torch.cat(alone)).abs().max() < 1e-5


def by_hand(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor) -> Tensor:
    scores = torch.einsum("ihd,jhd->hij", q, k) / q.shape[-1] ** 0.5
    return torch.einsum("hij,jhd->ihd", scores.masked_fill(~allowed, -torch.inf).softmax(-1), v)


def test_attention_sees_its_own_sequence_its_window_and_its_past_alone() -> None:
    q, k, v = torch.randn(3, 7, 2, 8).unbind()
    own = torch.block_diag(torch.ones(4, 4), torch.ones(3, 3)).bool()
    places = torch.tensor([0, 1, 2, 3, 0, 1, 2])
    near = (places[:, None] - places).abs() <= 1
    past = places[:, None] >= places
    spans = Spans((4, 3))
    for given, allowed in (({}, own), ({"window": 1}, own & near), ({"causal": True}, own & past)):
        assert torch.allclose(spans.attend(q, k, v, **given), by_hand(q, k, v, allowed), atol=1e-6)


def test_places_count_from_both_ends() -> None:
    spans = Spans((4, 3))
    assert spans.positions.tolist() == [0, 1, 2, 3, 0, 1, 2]
    assert spans.at((0, 2)).tolist() == [0, 6]
    assert spans.at((-1, -3)).tolist() == [3, 4]
