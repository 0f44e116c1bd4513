"""HTTP words: OpenAI's, Anthropic's and Ollama's over the same verbs, and the web page. Needs the extra "serve"."""
