"""The dense cache where memory is dirty."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from brolly.engine import cache
from tests.check_family import assert_batch_equals_one_by_one
from tests.kernels.test_decoder import llama


def test_what_nobody_wrote_is_never_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh memory may hold NaN, masked or not; rows shorter than their neighbours have places that nobody wrote."""
    real = torch.empty

    def dirty(*shape: Any, **options: Any) -> Tensor:
        out = real(*shape, **options)
        return out.fill_(torch.nan) if out.is_floating_point() else out

    monkeypatch.setattr(cache.torch, "empty", dirty)
    assert_batch_equals_one_by_one(llama())
