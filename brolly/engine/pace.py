"""How many tokens of prompts may join a step without making running answers stutter. Knows seconds, and no clock."""

from __future__ import annotations


class Pace:
    """Learns from the steps that were: what answers alone take, and what a token of a prompt adds, by their number."""

    def __init__(self, budget: int, least: int = 8, stretch: float = 2.5) -> None:
        """A step with prompts in it shall take `stretch` times one without; at least `least` tokens join it."""
        self.budget, self.least, self.stretch = budget, min(least, budget), stretch
        self._alone: dict[int, float] = {}  # seconds of a step of about 2^key answers and nothing else
        self._each: dict[int, float] = {}  # seconds that a token of a prompt adds, in a part of about 2^key

    def chunk(self, answers: int, waiting: int) -> int:
        """Tokens of prompts in the next step, beside so many answers and with so many prompts waiting."""
        if not answers or (waiting > 8 and waiting > 4 * answers):  # many wait for a first word, few for the next one
            return self.budget
        if not self._alone or not self._each:
            return max(self.least, self.budget // 4)
        allowed = (self.stretch - 1) * near(self._alone, answers.bit_length())
        size = self.budget
        while size >= self.least:
            each = near(self._each, size.bit_length())
            if each * size <= allowed:
                return min(self.budget, int(allowed / each), 2 * size)
            size //= 2
        return self.least

    def note(self, answers: int, prompts: int, seconds: float) -> None:
        """A step of so many answers and tokens of prompts took so long."""
        key = answers.bit_length()
        if not prompts and answers:
            before = self._alone.get(key, seconds)
            self._alone[key] = 0.8 * before + 0.2 * min(seconds, 3 * before)  # one hiccup is no trend
        elif prompts >= self.least:
            spent = seconds - (near(self._alone, key) if answers and self._alone else 0.0)
            each, size = max(spent / prompts, 1e-8), prompts.bit_length()
            if size not in self._each:
                self._each[size] = each
                return
            before = self._each[size]
            change = 0.7 + 0.3 * min(each / before, 3.0)  # later tokens look at more keys, in parts of any size
            self._each = {other: known * change for other, known in self._each.items()}


def near(known: dict[int, float], key: int) -> float:
    """What is known of the nearest key."""
    return known[min(known, key=lambda other: abs(other - key))]
