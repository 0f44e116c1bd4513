"""Anthropic's HTTP."""
