"""Sound: what people hand in ↔ samples and frames."""
