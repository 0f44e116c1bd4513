"""What is chosen where nothing is asked for: by the model's size and the data's. How it was found: docs/tune.md."""

from __future__ import annotations

from torch import nn

from brolly.verbs import Lora

PASSES, MOST_PASSES, LEAST_STEPS = 3.0, 20.0, 100


def step_size(n_examples: int) -> int:
    """Examples a step: small data need many steps more than smooth ones."""
    return 4 if n_examples < 300 else 8 if n_examples < 3000 else 16


def passes(n_examples: int) -> float:
    """Times that each text is seen: thrice, or as often as makes 100 steps, but 20 times at most."""
    return max(PASSES, min(MOST_PASSES, LEAST_STEPS * step_size(n_examples) / n_examples))


def learning_rate(network: nn.Module, lora: Lora | None) -> float:
    """AdamW's, for a network of so many channels: wide ones want less."""
    width = 256 / getattr(getattr(network, "config", None), "dim", 768)
    found = 5e-4 * width if lora is None else 2e-3 * width**0.65
    return float(f"{found:.1g}")
