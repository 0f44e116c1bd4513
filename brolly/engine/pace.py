"""How many tokens of prompts may join a step without making running answers stutter. Knows seconds, and no clock."""

from __future__ import annotations


class Pace:
    """Learns from the steps that were: what answers alone take, and what a token of a prompt adds."""

    def __init__(self, budget: int, least: int = 32, stretch: float = 2.5) -> None:
        """A step with prompts in it shall take `stretch` times one without; at least `least` tokens join it."""
        self.budget, self.least, self.stretch = budget, min(least, budget), stretch
        self._alone: dict[int, float] = {}  # seconds of a step of about 2^key answers and nothing else
        self._each: float | None = None  # seconds that a token of a prompt adds

    def chunk(self, answers: int, waiting: int) -> int:
        """Tokens of prompts in the next step, beside so many answers and with so many prompts waiting."""
        if not answers or (waiting > 8 and waiting > 4 * answers):  # many wait for a first word, few for the next one
            return self.budget
        if not self._alone or self._each is None:
            return min(self.budget, 4 * self.least)
        near = min(self._alone, key=lambda key: abs(key - answers.bit_length()))
        allowed = (self.stretch - 1) * self._alone[near] / max(self._each, 1e-9)
        return int(max(self.least, min(self.budget, allowed)))

    def note(self, answers: int, prompts: int, seconds: float) -> None:
        """A step of so many answers and tokens of prompts took so long."""
        key = answers.bit_length()
        if not prompts and answers:
            before = self._alone.get(key, seconds)
            self._alone[key] = 0.8 * before + 0.2 * min(seconds, 3 * before)  # one hiccup is no trend
        elif prompts >= self.least:
            near = min(self._alone, key=lambda other: abs(other - key), default=None) if answers else None
            spent = seconds - (self._alone[near] if near is not None else 0.0)
            each = max(spent, 0.0) / prompts
            self._each = each if self._each is None else 0.7 * self._each + 0.3 * each
