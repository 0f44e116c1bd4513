"""OpenAI's HTTP, and that of all who speak it."""
