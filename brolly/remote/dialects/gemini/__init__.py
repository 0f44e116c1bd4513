"""Gemini's HTTP, at Google's developer address and at Vertex."""
