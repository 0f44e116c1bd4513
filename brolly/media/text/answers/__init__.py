"""A model's answers: how it writes tool calls and thoughts, taken apart as they come, forced, and shown to it again."""

from __future__ import annotations

from brolly.media.text.answers.format import AnswerFormat, check_tools, chosen_tools, format_of, function_of
from brolly.media.text.answers.render import render_chat
from brolly.media.text.answers.split import Split

__all__ = ["AnswerFormat", "Split", "check_tools", "chosen_tools", "format_of", "function_of", "render_chat"]
