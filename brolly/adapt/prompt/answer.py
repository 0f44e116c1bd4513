"""The shape of an answer: how the engine keeps to it, how an example is written in it, and how it is read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from brolly.adapt.prompt.shapes import instance_of, plain_of, schema_of
from brolly.errors import OptionError

NUMBERS = {"integer": r"-?(0|[1-9][0-9]{0,17})", "number": r"-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,17})?"}
FLAGS = {"i": re.IGNORECASE, "s": re.DOTALL, "m": re.MULTILINE, "x": re.VERBOSE}
TYPES = ("text", "integer", "number", "boolean")


@dataclass(frozen=True)
class Answer:
    """What may be answered: a `type`, one of `choice`, what a `regex` matches, or JSON of a `schema`.

    `name` is the key of an answer in rows; `kind` is the Python class that a schema was made of, which answers become.
    """

    type: str = "text"
    choice: tuple[str, ...] = ()
    regex: str = ""
    schema: Mapping[str, Any] | None = None
    name: str = "answer"
    kind: Any = field(default=None, compare=False)

    def __post_init__(self) -> None:
        given = [n for n, v in (("choice", self.choice), ("regex", self.regex), ("schema", self.schema)) if v]
        if len(given) > 1:
            raise OptionError(f"{given[0]} and {given[1]} both say what may be answered; leave one of them out.")
        if self.type not in TYPES:
            raise OptionError(f"the answer's type is {self.type!r:.40}; expected one of {', '.join(TYPES)}.")
        if isinstance(self.choice, str) or not all(isinstance(c, str) and c.strip() == c != "" for c in self.choice):
            raise OptionError(f"choice is {self.choice!r:.80}; expected texts without blanks around them.")
        if len(set(self.choice)) < len(self.choice):
            raise OptionError("a text is in choice twice; give each once.")
        object.__setattr__(self, "choice", tuple(self.choice))
        if not isinstance(self.regex, str) or not isinstance(self.schema, (Mapping, type(None))):
            raise OptionError("the answer's regex must be a text, and its schema an object.")

    @property
    def free(self) -> bool:
        """Whether any text will do."""
        return self.type == "text" and not (self.choice or self.regex or self.schema is not None)

    def limits(self, lead: str = "") -> dict[str, Any]:
        """GenerateOptions that keep an answer in shape, with `lead` before it."""
        choice = ("true", "false") if self.type == "boolean" else self.choice
        if choice:
            return {"choice": tuple(lead + one for one in choice)}
        if expression := self.regex or NUMBERS.get(self.type, ""):
            return {"regex": f"{lead}(?:{expression})" if lead else expression}
        if self.schema is None:
            return {}
        if not lead:
            return {"json_schema": json.dumps(self.schema)}
        from brolly.engine.guide import json_rule

        return {"grammar": f"start: {json.dumps(lead)} value\nvalue: {json_rule(self.schema)}\n"}

    def told(self, instructions: str) -> str:
        """A sentence about the shape, where the instructions have not said it all."""
        if self.choice and not all(one in instructions for one in self.choice):
            return f"Answer with one of: {', '.join(self.choice)}."
        if self.schema is not None:
            return f"Answer in JSON that this schema allows: {json.dumps(self.schema, ensure_ascii=False)}"
        return {"integer": "Answer with a whole number.", "number": "Answer with a number.",
                "boolean": "Answer with true or false."}.get(self.type, "")  # fmt: skip

    def write(self, value: Any) -> str:
        """An answer as a model should write it. Raises OptionError where the shape does not allow it."""
        value = plain_of(value)
        if self.schema is not None:
            return json.dumps(value, ensure_ascii=False)
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        self.read(text)
        return text

    def read(self, text: str) -> Any:
        """The answer that a text is, as Python has it. Raises OptionError where it is none."""
        text = text.strip()
        if self.choice and text not in self.choice:
            raise OptionError(f"{text!r:.80} is no answer; expected one of {', '.join(self.choice)}.")
        if self.type == "boolean":
            if text not in ("true", "false"):
                raise OptionError(f"{text!r:.80} is no answer; expected true or false.")
            return text == "true"
        if self.type in NUMBERS:
            power = r"([eE][+-]?[0-9]{1,3})?" if self.type == "number" else ""  # as JSON may write it
            if not re.fullmatch(NUMBERS[self.type] + power, text):
                raise OptionError(f"{text!r:.80} is no answer; expected a {self.type}.")
            return int(text) if self.type == "integer" else float(text)
        if self.regex and self.fits(text) is False:
            raise OptionError(f"{text!r:.80} is no answer; expected what {self.regex!r:.80} matches.")
        if self.schema is None:
            return text
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise OptionError(f"{text!r:.120} is no JSON ({error}).") from None
        return found if self.kind is None else instance_of(self.kind, found)

    def fits(self, text: str) -> bool | None:
        """Whether the regex matches a text; None where it is in a notation that Python does not read."""
        try:
            return bool(re.fullmatch(self.regex, text))
        except re.error:
            return None

    def table(self) -> dict[str, Any]:
        """As a file has it."""
        made: dict[str, Any] = {"name": self.name} if self.name != "answer" else {}
        made |= {"type": self.type} if self.type != "text" else {}
        made |= {"choice": list(self.choice)} if self.choice else {}
        made |= {"regex": self.regex} if self.regex else {}
        return made | ({"schema": self.schema} if self.schema is not None else {})


def answer_of(given: Any) -> Answer:
    """An answer's shape of whatever says one: None, a class, texts, a schema, an expression. Raises OptionError."""
    if isinstance(given, Answer):
        return given
    if given is None or given is str:
        return Answer()
    if given in (int, float, bool):
        return Answer({int: "integer", float: "number", bool: "boolean"}[given])
    if isinstance(given, re.Pattern):
        flags = "".join(letter for letter, flag in FLAGS.items() if given.flags & flag)
        return Answer(regex=f"(?{flags}){given.pattern}" if flags else given.pattern)
    if isinstance(given, Mapping):
        return Answer(schema=given)
    if isinstance(given, Sequence) and not isinstance(given, str):
        return Answer(choice=tuple(given))
    return Answer(schema=schema_of(given), kind=given)
