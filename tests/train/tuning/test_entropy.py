"""Cross-entropy a stretch at a time: torch's own over all logits, in losses and in every gradient."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from brolly.train.tuning import entropy
from brolly.train.tuning.entropy import IGNORED, token_losses

N, C = 37, 32


def given(vocabulary: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hidden states, a head, targets of which a third is ignored, and what each loss counts."""
    draw = torch.Generator().manual_seed(vocabulary)
    hidden = torch.randn(N, C, generator=draw).to(dtype).requires_grad_()
    head = torch.randn(vocabulary, C, generator=draw).to(dtype).requires_grad_()
    targets = torch.randint(vocabulary, (N,), generator=draw)
    targets[::3] = IGNORED
    return hidden, head, targets, torch.randn(N, generator=draw)


def plain(hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(hidden, head).float(), targets, reduction="none", ignore_index=IGNORED)


@pytest.mark.parametrize("vocabulary", [48, 61], ids=["whole vectors", "a vocabulary that fills no whole vector"])
@pytest.mark.parametrize("n_logits", [2**24, 500], ids=["one stretch", "three stretches"])
def test_losses_and_gradients_are_those_of_all_logits(
    vocabulary: int, n_logits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entropy, "N_LOGITS", n_logits)
    hidden, head, targets, weights = given(vocabulary)
    expected, found = plain(hidden, head, targets), token_losses(hidden, head, targets)
    torch.testing.assert_close(found, expected, rtol=2e-6, atol=2e-6)
    assert (found[targets == IGNORED] == 0).all()
    theirs = torch.autograd.grad((expected * weights).sum(), [hidden, head])
    ours = torch.autograd.grad((found * weights).sum(), [hidden, head])
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_bfloat16_is_as_near_to_float32_as_torch_is() -> None:
    hidden, head, targets, weights = given(301, torch.bfloat16)
    wide = [t.detach().float().requires_grad_() for t in (hidden, head)]
    exact = torch.autograd.grad((plain(*wide, targets) * weights).sum(), wide)
    ours = torch.autograd.grad((token_losses(hidden, head, targets) * weights).sum(), [hidden, head])
    theirs = torch.autograd.grad((plain(hidden, head, targets) * weights).sum(), [hidden, head])
    for a, b, c in zip(ours, theirs, exact, strict=True):
        assert (a.float() - c).norm() <= 1.1 * (b.float() - c).norm()


def test_a_loss_that_no_gradient_is_asked_of_keeps_nothing() -> None:
    hidden, head, targets, _ = given(48)
    with torch.no_grad():
        found = token_losses(hidden, head, targets)
    assert not found.requires_grad
    torch.testing.assert_close(found, plain(hidden, head, targets).detach(), rtol=2e-6, atol=2e-6)


def test_rows_that_are_all_ignored_have_no_loss_and_no_gradient() -> None:
    hidden, head, targets, _ = given(48)
    found = token_losses(hidden, head, torch.full_like(targets, IGNORED))
    found.sum().backward()
    assert not found.detach().any() and hidden.grad is not None and not hidden.grad.any()


def test_under_autocast_products_are_bfloat16_and_gradients_float32() -> None:
    hidden, head, targets, weights = given(61)
    exact = torch.autograd.grad((plain(hidden, head, targets) * weights).sum(), [hidden, head])
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.autograd.grad((token_losses(hidden, head, targets) * weights).sum(), [hidden, head])
    for a, b in zip(found, exact, strict=True):
        assert a.dtype == torch.float32 and 0 < (a - b).norm() < 0.01 * b.norm()
