"""The judge of answers: a person's function f(prompt, completions, **columns) → a number each, by name or as it is."""

from __future__ import annotations

import importlib.util
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from brolly.errors import NotFound, OptionError, RecipeError

Reward = Callable[..., Sequence[float]]


def reward_of(given: str | Reward | None) -> Reward:
    """A function, or the one that "file.py:function" names: that file is run. Raises OptionError, NotFound."""
    if callable(given):
        return given
    if given is None:
        raise OptionError(
            "answers to prompts are learnt by a reward, and none was given; give reward=f in Python, or --reward "
            "file.py:function, where f(prompt, completions, **columns) returns a number for each completion."
        )
    file, colon, name = str(given).rpartition(":")
    path = Path(file).expanduser()
    if not colon or not name.isidentifier():
        raise OptionError(f"reward is {given!r:.200}; expected file.py:function, such as rewards.py:short.")
    if not path.is_file():
        raise NotFound(f"{path} does not exist; expected the Python file that holds the reward {name}.")
    spec = importlib.util.spec_from_file_location("brolly_reward", path)
    if spec is None or spec.loader is None:
        raise OptionError(f"{path} is no Python file; expected one that ends in .py and holds the function {name}.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise OptionError(f"{path} cannot be run ({type(error).__name__}: {str(error)[:200]}).") from error
    found = getattr(module, name, None)
    if not callable(found):
        raise OptionError(f"{path} has no function {name}; expected def {name}(prompt, completions, **columns).")
    return found


def judged(
    reward: Reward, where: str, prompt: Any, completions: Sequence[str], columns: Mapping[str, Any]
) -> list[float]:
    """A reward for each completion; a function gets those columns that it names, or all. Raises RecipeError."""
    try:
        found = reward(prompt, list(completions), **wanted(reward, columns))
        numbers = [float(x) for x in found]
    except Exception as error:
        raise RecipeError(f"{where}: the reward failed with {type(error).__name__}: {str(error)[:200]}") from error
    if len(numbers) != len(completions):
        raise RecipeError(f"{where}: the reward gave {len(numbers)} numbers for {len(completions)} completions.")
    if wrong := [x for x in numbers if not math.isfinite(x)]:
        raise RecipeError(f"{where}: the reward gave {wrong[0]}; expected finite numbers.")
    return numbers


def wanted(reward: Reward, columns: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that a function takes beside the prompt and the completions."""
    others = {str(name): value for name, value in columns.items() if name not in ("prompt", "completions")}
    try:
        takes = inspect.signature(reward).parameters.values()
    except (TypeError, ValueError):  # something built in
        return {}
    if any(one.kind is one.VAR_KEYWORD for one in takes):
        return others
    return {one.name: others[one.name] for one in takes if one.name in others}
