"""A prompt is a small file: instructions, variables, examples and the shape of the answer; run, measured and tuned."""

from __future__ import annotations

from brolly.adapt.prompt.answer import Answer
from brolly.adapt.prompt.prompt import Example, Prompt, Result, Select
from brolly.adapt.prompt.variables import Variable

__all__ = ["Answer", "Example", "Prompt", "Result", "Select", "Variable"]
