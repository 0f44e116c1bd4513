"""Prompt: instructions, variables, examples, the shape of the answer, how to write it; one call, or many rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from brolly.adapt.prompt.answer import Answer, answer_of
from brolly.adapt.prompt.shapes import plain_of
from brolly.adapt.prompt.variables import NAME, Variable, check_fields, variables_of
from brolly.errors import OptionError, RecipeError

KINDS = ("write", "classify")
USUAL = {"temperature": 0.0, "max_tokens": 512}  # options of a prompt that says nothing else


@dataclass(frozen=True)
class Example:
    """A row whose answer is known."""

    values: Mapping[str, Any]
    answer: Any


@dataclass(frozen=True)
class Select:
    """Which examples a row gets: `most` of them, by "fixed" order or "nearest" by the embedder named `embed`."""

    most: int | None = None
    by: str = "fixed"
    embed: str = ""

    def __post_init__(self) -> None:
        if self.by not in ("fixed", "nearest"):
            raise OptionError(f"select.by is {self.by!r:.40}; expected fixed or nearest.")
        if self.most is not None and (type(self.most) is not int or self.most < 0):
            raise OptionError(f"select.most is {self.most!r:.40}; expected a whole number, 0 or more.")


@dataclass(frozen=True)
class Result:
    """A row's answer, or its error. `broken` are the model's own markers that its data spelled; they were broken up."""

    number: int
    value: Any = None
    text: str = ""
    error: Exception | None = None
    finish_reason: str = ""
    tokens: tuple[int, int] = (0, 0)  # read, written
    cached: bool = False
    broken: tuple[str, ...] = ()
    probabilities: Mapping[str, float] = field(default_factory=dict)  # of a classify prompt's labels


@dataclass(frozen=True)
class Prompt:
    """What is asked of a model, apart from the model. Calling it answers one row; `map` answers many together.

    `answer` is None (any text), a list of texts, a JSON Schema, a compiled expression, a type, a dataclass or a
    pydantic model. `variables` maps names to types. An example is a mapping of the variables and "answer", or a pair
    of the only variable's value and the answer. `kind` "classify" sorts pictures into a choice by `templates`.
    """

    instructions: str = ""
    answer: Any = None
    variables: Any = ()
    examples: Any = ()
    input: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    select: Any = Select()
    name: str = "prompt"
    kind: str = "write"
    templates: Sequence[str] = ()
    model: str = ""
    tries: Mapping[str, Any] = field(default_factory=dict)  # what tuning may try: instructions, templates
    version: int = 1
    history: Sequence[Mapping[str, Any]] = ()

    def __post_init__(self) -> None:
        put = object.__setattr__
        if self.kind not in KINDS:
            raise OptionError(f"kind is {self.kind!r:.40}; expected one of {', '.join(KINDS)}.")
        for name in ("instructions", "name", "model"):
            if not isinstance(getattr(self, name), str):
                raise OptionError(f"{name} is {getattr(self, name)!r:.60}; expected a text.")
        if self.input is not None and not isinstance(self.input, str):
            raise OptionError(f"input is {self.input!r:.60}; expected a text with {{fields}}.")
        if type(self.version) is not int or self.version < 1:
            raise OptionError(f"version is {self.version!r:.40}; expected a whole number from 1 on.")
        put(self, "answer", answer_of(self.answer))
        if isinstance(self.select, Mapping):
            put(self, "select", Select(**self.select))
        put(self, "variables", variables_of(self.variables, self.input, self.kind))
        if any(v.name == self.answer.name for v in self.variables):
            raise OptionError(f"{self.answer.name!r} names a variable and the answer; set [answer] name to another.")
        if self.answer.name in ("row", "by", "input", "error") or not NAME.fullmatch(self.answer.name):
            raise OptionError(f"the answer is called {self.answer.name!r:.40}; expected another name, without blanks.")
        check_fields(self.input or "", self.variables)
        put(self, "examples", tuple(map(self._example, self.examples)))
        if isinstance(self.templates, str) or not all(isinstance(t, str) for t in self.templates):
            raise OptionError(f"templates is {self.templates!r:.60}; expected a list of texts.")
        put(self, "templates", tuple(self.templates))
        put(self, "history", tuple(self.history))
        self._check_kind()

    def _check_kind(self) -> None:
        from brolly.verbs import GenerateOptions, read_options

        if not isinstance(self.options, Mapping) or not isinstance(self.tries, Mapping):
            raise OptionError("options and tune are tables of names and values.")
        texts, sets = self.tries.get("instructions", ()), self.tries.get("templates", ())
        if not _texts(texts) or isinstance(sets, str) or not all(map(_texts, sets)):
            raise OptionError("tune has instructions, a list of texts, and templates, a list of lists of them.")
        shapes = {"json_schema", "regex", "choice", "grammar"} & set(self.options)
        if shapes:
            raise OptionError(f"options say {min(shapes)}; the shape of the answer stands in `answer`.")
        read_options(GenerateOptions, self.options)
        if self.kind == "write":
            if self.templates or any(v.type == "image" for v in self.variables):
                raise OptionError('templates and images are for kind = "classify"; this prompt writes.')
            return
        if [v.type for v in self.variables] != ["image"] or not self.answer.choice:
            raise OptionError("a classify prompt has one variable of type image, and an answer with a choice.")
        if self.instructions or self.examples:
            raise OptionError("a classify prompt has templates; it takes no instructions and no examples.")

    def _example(self, given: Any) -> Example:
        if isinstance(given, Example):
            values, answer = given.values, given.answer
        elif isinstance(given, Mapping):
            if self.answer.name not in given:
                raise OptionError(f"an example is {given!r:.80}; expected {self.answer.name!r} in it, too.")
            values, answer = {k: v for k, v in given.items() if k != self.answer.name}, given[self.answer.name]
        else:
            try:
                values, answer = given
            except (TypeError, ValueError):
                raise OptionError(f"an example is {given!r:.80}; expected a mapping or an input and its answer.") from None  # fmt: skip # noqa: E501
        found = Example(self.values(values), plain_of(answer))
        self.answer.write(found.answer)
        return found

    # Files and identity ----------------------------------------------------------------------------------------------

    @classmethod
    def load(cls, path: str | Path) -> Prompt:
        """A prompt from its TOML file. Raises NotFound, RecipeError."""
        from brolly.adapt.prompt.file import read_table

        path = Path(path).expanduser()
        found = read_table(path)
        found["tries"] = found.pop("tune", {})
        found.setdefault("name", path.stem)
        try:
            found["answer"] = Answer(**found.get("answer", {}))
            found["select"] = Select(**found.get("select", {}))
            return cls(**found)
        except (OptionError, TypeError) as error:
            raise RecipeError(f"{path}: {error}") from None

    def save(self, path: str | Path) -> None:
        """Write the prompt to a TOML file, whole or not at all. Raises OptionError, DiskFull."""
        from brolly.adapt.prompt.file import written
        from brolly.checkpoint.safetensors import write_whole

        data = written(self.table()).encode()
        write_whole(Path(path).expanduser(), lambda: [data], len(data))

    def table(self) -> dict[str, Any]:
        """The prompt as its file has it."""
        select = {k: v for k, v in vars(self.select).items() if v not in (None, "") and (k, v) != ("by", "fixed")}
        return {
            "name": self.name, "kind": self.kind if self.kind != "write" else None, "version": self.version,
            "model": self.model or None, "instructions": self.instructions or None, "input": self.input,
            "templates": list(self.templates), "variables": {v.name: v.table() for v in self.variables},
            "answer": self.answer.table(), "select": select, "options": dict(self.options), "tune": dict(self.tries),
            "examples": [{**e.values, self.answer.name: e.answer} for e in self.examples],
            "history": [dict(one) for one in self.history],
        }  # fmt: skip

    @property
    def hash(self) -> str:
        """Of all that a model is told and how it answers; neither of the name nor of the history."""
        kept = {k: v for k, v in self.table().items() if k not in ("name", "version", "model", "history", "tune")}
        return hashlib.sha256(json.dumps(kept, sort_keys=True, ensure_ascii=True, default=str).encode()).hexdigest()

    @property
    def id(self) -> str:
        """Its name and the beginning of its hash."""
        return f"{self.name}@{self.hash[:12]}"

    # Asking ----------------------------------------------------------------------------------------------------------

    def values(self, given: Any) -> dict[str, Any]:
        """A row's variables, read by their types; what else the row holds is left. Raises OptionError."""
        if isinstance(given, Example):
            given = given.values
        if not isinstance(given, Mapping):
            needed = [v for v in self.variables if v.default is None] or list(self.variables)
            if len(needed) != 1:
                names = ", ".join(v.name for v in needed)
                raise OptionError(f"{given!r:.60} is one value, and this prompt needs {names}; give a mapping.")
            given = {needed[0].name: given}
        return {v.name: v.read(given.get(v.name)) for v in self.variables}

    def __call__(self, model: Any, given: Any = None, *, adapter: Any = None, embedder: Any = None, **more: Any) -> Any:
        """The answer to one row: its variables as a mapping, as the only one's value, or by name.

        `model` is a Model or what `brolly.load` takes. Raises what the row's error is.
        """
        row = {**given, **more} if isinstance(given, Mapping) else more if given is None else given
        if more and isinstance(row, Mapping) and (unknown := more.keys() - {v.name for v in self.variables}):
            raise OptionError(f"{min(unknown)!r} is no variable; there are {', '.join(v.name for v in self.variables)}.")  # fmt: skip # noqa: E501
        (found,) = self.map(model, [row], adapter=adapter, embedder=embedder)
        if found.error is not None:
            raise found.error
        return found.value

    def map(self, model: Any, rows: Iterable[Any], **how: Any) -> list[Result]:
        """The result of each row, in order, written together. `how` is what `stream` takes."""
        return list(self.stream(model, rows, **how))

    def stream(
        self, model: Any, rows: Iterable[Any], *, adapter: Any = None, embedder: Any = None, cache: Any = None
    ) -> Iterator[Result]:
        """The same one by one; a row's error takes its answer's place, and the others go on.

        A row that is an exception passes as one. `embedder` chooses the nearest examples; `cache` is a `cache.Cache`.
        """
        from brolly.adapt.prompt.run import classified, written

        model = _loaded(model)
        if self.kind == "classify":
            if adapter is not None:
                raise OptionError("an adapter is of a model that writes; this prompt sorts pictures. Leave it out.")
            return classified(self, model, rows)
        if self.select.by == "nearest" and embedder is None:
            if not self.select.embed:
                raise OptionError("select.by is nearest; name an embedder in select.embed, or give one (--embed).")
            embedder = self.select.embed
        return written(self, model, rows, adapter=adapter, embedder=_loaded(embedder), cache=cache)

    def show(self, model: Any, given: Any, *, embedder: Any = None) -> str:
        """The prompt of one row as the model reads it, for a person; cut markers show a ⁝ where they are cut."""
        from brolly.adapt.prompt.run import shown

        embedder = embedder or (self.select.embed if self.select.by == "nearest" else None) or None
        return shown(self, _loaded(model), given, _loaded(embedder))

    def tune(self, model: Any, dev: Iterable[Mapping[str, Any]], **how: Any) -> Any:
        """A new version, searched on one part of labelled rows and compared on the other; see `search.tune`."""
        from brolly.adapt.prompt.search import tune

        embedder = how.pop("embedder", None) or (self.select.embed if self.select.by == "nearest" else None) or None
        return tune(self, _loaded(model), list(dev), embedder=_loaded(embedder), **how)

    def changed(self, **fields: Any) -> Prompt:
        """The same prompt but for these fields."""
        return replace(self, **fields)


def _loaded(model: Any) -> Any:
    if isinstance(model, (str, Path)):
        from brolly.loader import load

        return load(model)
    return model


def _texts(given: Any) -> bool:
    return isinstance(given, (list, tuple)) and all(isinstance(one, str) for one in given)


def batches(rows: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Rows by so many."""
    waiting = iter(rows)
    while some := list(islice(waiting, size)):
        yield some


__all__ = ["Answer", "Example", "Prompt", "Result", "Select", "Variable"]
