"""Text to tokenizer to model: recipes, packed tokens and one plain loop."""

from __future__ import annotations

from pathlib import Path


def pretrain(recipe: Path, *, out: Path | None = None, resume: bool = False) -> Path:
    """Train as a recipe says; the folder of the finished model. Raises RecipeError."""
    from brolly.train.loop import train
    from brolly.train.recipe import read_recipe

    return train(read_recipe(recipe, out), resume=resume)
