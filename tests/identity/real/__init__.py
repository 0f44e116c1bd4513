"""Real, well-known models as their publishers' files have them: names, shapes, dtypes; no bytes."""
