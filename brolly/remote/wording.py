"""What of a request a model's vendor has words for: which dialect says it, what is left out with a warning, and what is
refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, NamedTuple, TypeVar, cast

from brolly.errors import OptionError
from brolly.remote.ask import Ask
from brolly.remote.dialect import dialects
from brolly.remote.shapes import Filter, fitted
from brolly.remote.target import Target
from brolly.remote.traits import traits_of
from brolly.verbs import STOPS, GenerateOptions

Asked = TypeVar("Asked")
PLAIN = vars(GenerateOptions())
# options that change no meaning: left out with a warning where a vendor has no word for them
HINTS = frozenset({"seed", "effort", "thoughts"})
# what says nothing where a vendor has no word for it: that it is as the model has it, and nothing is kept from it
NEUTRAL = {"temperature": 1, "top_p": 1, "top_k": 0, "min_p": 0, "repetition_penalty": 1}


class Said(NamedTuple):
    """An ask in the words of a dialect, and what undoes in each answer what that changed."""

    dialect: Any
    ask: Ask
    undo: Callable[[], Filter] | None


class Wording:
    """The words that a target's vendor has. `warn` is told of hints that it has none for; `strict` refuses them."""

    def __init__(self, target: Target, strict: bool, warn: Callable[[str], None]) -> None:
        self.target, self.strict, self.warn = target, strict, warn
        self.traits = traits_of(target)

    def takes(self, option: str, verb: str) -> bool:
        """Whether there is a word for an option of a verb. Raises UnsupportedTask."""
        own = "OPTIONS" if verb == "chat" else verb.upper()
        several: list[frozenset[str]] = [getattr(dialect, own, frozenset()) for dialect in dialects(self.target, verb)]
        return any(option in self.has(one) for one in several)

    def has(self, own: frozenset[str]) -> frozenset[str]:
        """Options that this model has, of those that a dialect has words for."""
        lacks = {*self.target.vendor.lacks, *self.traits.lacks}
        if self.traits.thinking == "none":
            lacks |= {"effort", "thoughts"}
        return (own | set(self.target.vendor.takes)) - lacks

    def said(self, ask: Ask) -> Said:
        """By the dialect that says most of it. Raises OptionError."""
        lacking: list[str] = []
        able: list[tuple[tuple[int, bool], list[str], Said]] = []
        for dialect in dialects(self.target, "chat"):
            said, lacks, hints = self._by(dialect, ask)
            if lacks or (hints and ask.strict):
                lacking = lacking or [*lacks, *(hints if ask.strict else ())]
            else:
                able.append(((len(hints), said.undo is not None), hints, said))
        if not able:
            raise OptionError(f"{'; '.join(lacking)}; leave it out, or ask a model that has it.")
        _, hints, said = min(able, key=lambda one: one[0])  # the first of several that leave out as little
        for hint in hints:
            self.warn(hint)
        return said

    def fit(self, asked: Asked, own: frozenset[str] | None) -> Asked:
        """Options of another verb without the hints that the vendor has no word for. Raises OptionError.

        `own` are those that the dialect has words for; None: it tells by itself what it lacks.
        """
        plain = type(asked)()
        given = [f.name for f in fields(cast(Any, asked)) if getattr(asked, f.name) != getattr(plain, f.name)]
        has = self.has(frozenset(given) if own is None else own)
        missing = [name for name in given if name not in has]
        if refused := [name for name in missing if name not in HINTS or self.strict]:
            raise OptionError(f"{self.target} has no {', '.join(refused)}; leave it out, or ask a model that has it.")
        for name in missing:
            self.warn(f"{self.target} has no {name}")
        return replace(cast(Any, asked), **{name: getattr(plain, name) for name in missing})

    def _by(self, dialect: Any, ask: Ask) -> tuple[Said, list[str], list[str]]:
        """An ask by one dialect, what of it that has no word for, and which hints it leaves out."""
        has = self.has(dialect.OPTIONS)
        blank = getattr(dialect, "BLANK_STOPS", True) or all(stop.strip() for stop in ask.options.stop)
        if len(ask.options.stop) > getattr(dialect, "STOPS", STOPS) or not blank:
            has -= {"stop"}  # more than it takes, or white space: looked for here
        fitting, undo = fitted(ask, has)
        if undo and ask.n > 1 and fitting.options.stop != ask.options.stop:
            undo, fitting = None, ask  # several answers cannot be cut one by one
        missing = [name for name, value in vars(fitting.options).items() if value != PLAIN[name] and name not in has]
        idle = [name for name in missing if getattr(fitting.options, name) == NEUTRAL.get(name)]
        unsaid = [name for name in missing if name in HINTS]
        plain = {name: PLAIN[name] for name in (*idle, *unsaid)}
        fitting = replace(fitting, options=replace(fitting.options, **plain)) if plain else fitting
        lacks = [f"{self.target} has no {name}" for name in missing if name not in plain]
        lacks += self._unread(ask) + dialect.lacks(fitting, self.target)
        if undo and fitting.options.logprobs is not None:  # they would be those of another text
            lacks.append(f"{self.target} has no log-probabilities of what it carries as JSON, or is cut here")
        # one that never thinks is asked in vain not to
        calm = self.traits.thinking == "none" and ask.options.effort == "none"
        hints = [f"{self.target} has no {name}" for name in unsaid if not (calm and name == "effort")]
        if not getattr(dialect, "NAMES", False) and any(m.get("name") and m["role"] != "tool" for m in ask.messages):
            hints.append(f"{self.target} has no names of who speaks")
        return Said(dialect, fitting, undo), lacks, hints + dialect.hints(fitting, self.target)

    def _unread(self, ask: Ask) -> list[str]:
        """Kinds of parts that this model is known not to read."""
        reads = self.traits.reads
        kinds = {"image_url": "image", "input_audio": "audio", "file": "pdf"} if reads else {}
        known = ", ".join(("text", *reads))
        return [
            f"{self.target} reads {known}; it reads no {k}" for t, k in kinds.items() if k not in reads and ask.uses(t)
        ]
