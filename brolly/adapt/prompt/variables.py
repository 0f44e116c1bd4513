"""A prompt's variables and the text they are put into. Fields are names alone: nothing here can be made to run."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from brolly.errors import OptionError

TYPES = ("text", "integer", "number", "boolean", "json", "image")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
FIELD = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]{0,63})\}|[{}]")
LONGEST = 4 << 20  # characters of one value
WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True)
class Variable:
    """A value that each row brings. `default` stands in where it is missing; `bare` puts a text in without its tags."""

    name: str
    type: str = "text"
    default: Any = None
    choice: tuple[str, ...] = ()
    bare: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not NAME.fullmatch(self.name):
            raise OptionError(f"a variable is called {self.name!r:.80}; expected letters, digits and _.")
        if self.type not in TYPES:
            raise OptionError(f"{self.name} is of type {self.type!r:.40}; expected one of {', '.join(TYPES)}.")
        if type(self.bare) is not bool:
            raise OptionError(f"bare of {self.name} is {self.bare!r:.40}; it must be true or false.")
        chosen = (self.choice,) if isinstance(self.choice, str) else tuple(self.choice)
        if not all(isinstance(one, str) for one in chosen):
            raise OptionError(f"choice of {self.name} is {self.choice!r:.80}; expected a list of texts.")
        object.__setattr__(self, "choice", chosen)
        if self.default is not None:
            object.__setattr__(self, "default", self.read(self.default))

    @property
    def tagged(self) -> bool:
        """Whether a value is free text, which is delimited."""
        return self.type in ("text", "json") and not self.choice and not self.bare

    def read(self, value: Any) -> Any:
        """A value of this type, of one that a file or a caller gave. Raises OptionError."""
        if value is None:
            if self.default is None:
                raise OptionError(f"{self.name} is missing, and has no default.")
            return self.default
        found = READERS[self.type](value)
        if found is None:
            raise OptionError(f"{self.name} is {value!r:.80}; expected {EXPECTED[self.type]}.")
        if self.choice and found not in self.choice:
            raise OptionError(f"{self.name} is {value!r:.80}; expected one of {', '.join(self.choice)}.")
        if isinstance(found, str) and len(found) > LONGEST:
            raise OptionError(f"{self.name} has {len(found):,} characters; at most {LONGEST:,} are read.")
        return found

    def write(self, value: Any) -> str:
        """A value as the model reads it."""
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    def table(self) -> Any:
        """As a file has it: the type's name, or a table where there is more to say."""
        kept = {} if self.default is None else {"default": self.default}
        kept |= {"choice": list(self.choice)} if self.choice else {}
        kept |= {"bare": True} if self.bare else {}
        return {"type": self.type, **kept} if kept else self.type


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    return json.dumps(value) if isinstance(value, (int, float)) else None


def _integer(value: Any) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d{1,300}\s*", value):
        return int(value)
    return value if type(value) is int else int(value) if type(value) is float and value.is_integer() else None


def _number(value: Any) -> float | int | None:
    try:
        found = float(value) if isinstance(value, str) else value
    except ValueError:
        return None
    return found if type(found) in (int, float) and abs(found) < float("inf") else None


def _boolean(value: Any) -> bool | None:
    return WORDS.get(value.strip().lower()) if isinstance(value, str) else value if type(value) is bool else None


def _json(value: Any) -> Any:
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return None
    return value


def _image(value: Any) -> Any:
    return value if value != "" else None


READERS: dict[str, Callable[[Any], Any]] = {
    "text": _text, "integer": _integer, "number": _number, "boolean": _boolean, "json": _json, "image": _image,
}  # fmt: skip
EXPECTED = {
    "text": "a text", "integer": "a whole number", "number": "a number", "boolean": "true or false",
    "json": "what JSON can say", "image": "a picture's path",
}  # fmt: skip


def variables_of(given: Any, input: str | None, kind: str) -> tuple[Variable, ...]:
    """Variables as they were declared, else those that the input names, else one. Raises OptionError."""
    if isinstance(given, Mapping):
        found = tuple(_declared(name, said) for name, said in given.items())
    else:
        found = tuple(one if isinstance(one, Variable) else Variable(one) for one in given)
    if not found:
        named = dict.fromkeys(name for _, name in parts_of(input or "") if name)
        usual = Variable("image", "image") if kind == "classify" else Variable("text")
        found = tuple(map(Variable, named)) or (usual,)
    if len({one.name for one in found}) < len(found):
        raise OptionError("a variable is declared twice; give each a name of its own.")
    return found


def _declared(name: str, said: Any) -> Variable:
    if isinstance(said, Variable):
        return said
    if isinstance(said, Mapping):
        if unknown := said.keys() - {"type", "default", "choice", "bare"}:
            raise OptionError(f"{name} says {min(unknown)!r}; expected type, default, choice and bare.")
        return Variable(name, **said)
    return Variable(name, said)


def parts_of(input: str) -> list[tuple[str, str]]:
    """Pairs of text and the name of the variable behind it, "" behind the last. Raises OptionError at a lone brace."""
    found, text, at = [], "", 0
    for match in FIELD.finditer(input):
        text += input[at : match.start()]
        at = match.end()
        if match[1]:
            found.append((text, match[1]))
            text = ""
        elif len(match[0]) == 2:
            text += match[0][0]
        else:
            raise OptionError(
                f"input has a lone {match[0]} at character {match.start()}; expected {{name}}, and {{{{ or }}}} for a "
                "brace itself."
            )
    return [*found, (text + input[at:], "")]


def filled(input: str, texts: Mapping[str, str]) -> str:
    """The input with each field's text in its place; fields within a text are not read again."""
    return "".join(text + (texts[name] if name else "") for text, name in parts_of(input))


def check_fields(input: str, variables: Sequence[Variable]) -> None:
    """Every field is a variable. Raises OptionError."""
    known = [one.name for one in variables]
    if unknown := [name for _, name in parts_of(input) if name and name not in known]:
        raise OptionError(f"input names {{{unknown[0]}}}, which is no variable; there are {', '.join(known)}.")
