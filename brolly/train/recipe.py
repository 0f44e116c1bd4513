"""A training run in one TOML file: model, tokenizer, sources, stages, numbers. Unknown keys are mistakes. No torch."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from brolly.configs import LlamaConfig, Rope
from brolly.errors import OptionError, RecipeError
from brolly.verbs import GenerateOptions

T = TypeVar("T")


@dataclass(frozen=True)
class Shape:
    """The network's numbers; the head is tied to the embedding."""

    dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    hidden_dim: int
    context: int
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5

    def config(self, vocab_size: int) -> LlamaConfig:
        return LlamaConfig(
            vocab_size=vocab_size, dim=self.dim, n_layers=self.n_layers, n_heads=self.n_heads,
            n_kv_heads=self.n_kv_heads, head_dim=self.dim // self.n_heads,
            hidden_dim=self.hidden_dim, norm_eps=self.norm_eps, context=self.context,
            rope=Rope(self.rope_theta), windows=(None,) * self.n_layers, tied_head=True,
            qkv_bias=False, o_bias=False, mlp_bias=False, qk_norm=False,
        )  # fmt: skip


@dataclass(frozen=True)
class Words:
    """The tokenizer: byte-level BPE of this size; the first special token ends every document."""

    vocab_size: int
    special: tuple[str, ...] = ("<|end|>",)
    chat_template: str = ""


@dataclass(frozen=True)
class Stage:
    """From where the stage before ended until this share of the steps, sources are drawn by these weights."""

    until: float
    mix: Mapping[str, float]


@dataclass(frozen=True)
class Run:
    """The loop's numbers. `batch` counts sequences a step over all processes; lr falls linearly from `decay_from`."""

    steps: int
    batch: int
    lr: float
    accumulate: int = 1
    optimizer: str = "adamw"
    weight_decay: float = 0.01
    clip: float = 1.0
    warmup: int = 50
    schedule: str = "cosine"
    decay_from: float = 0.5
    floor: float = 0.02
    dtype: str = "bfloat16"
    compile: bool = True
    seed: int = 0
    eval_every: int = 200
    save_every: int = 200
    sample_every: int = 0
    sample_prompt: str = "Once upon a time"


@dataclass(frozen=True)
class Recipe:
    """All of it, with the folder to work in."""

    name: str
    model: Shape
    tokenizer: Words
    sources: Mapping[str, Path]
    held_out: float
    stages: tuple[Stage, ...]
    train: Run
    generation: Mapping[str, Any]
    card: str
    out: Path
    path: Path


ADVICE = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "do_sample")
KEYS = ("name", "out", "model", "tokenizer", "data", "stage", "train", "generation", "card")


def read_recipe(path: Path, out: Path | None = None) -> Recipe:
    """A recipe, checked before anything is computed; paths in it are relative to its file. Raises RecipeError."""
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise RecipeError(f"{path} cannot be read ({error.strerror}).") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not valid TOML: {error}.") from None
    _known(raw, KEYS, path, "the recipe")
    data = raw.get("data") or {}
    _known(data, ("sources", "held_out"), path, "[data]")
    sources = _sources(data.get("sources") or {}, path)
    stages = _stages(raw.get("stage") or [], tuple(sources), path)
    held_out = data.get("held_out", 0.02)
    if not _is_number(held_out) or not 0 <= held_out < 1:
        raise RecipeError(
            f"{path}: [data] held_out is {held_out!r}; expected a share of the documents, from 0 to below 1."
        )
    shape = _made(Shape, raw.get("model") or {}, path, "[model]")
    run = _made(Run, raw.get("train") or {}, path, "[train]")
    words = _made(Words, raw.get("tokenizer") or {}, path, "[tokenizer]")
    if not _are_texts(words.special) or len(set(words.special)) != len(words.special):
        raise RecipeError(f"{path}: [tokenizer] special is {words.special!r}; expected a list of different texts.")
    words = replace(words, special=tuple(words.special))
    _sane(shape, run, words, path)
    generation = raw.get("generation") or {}
    _known(generation, ADVICE, path, "[generation]")
    try:
        GenerateOptions(**{key: value for key, value in generation.items() if key != "do_sample"})
    except OptionError as error:
        raise RecipeError(f"{path}: [generation] {error}") from None
    folder = out or path.parent / str(raw.get("out") or f"../runs/{path.stem}")
    card = path.parent / str(raw["card"]) if raw.get("card") else None
    if card and not card.is_file():
        raise RecipeError(f"{path}: card is {card}, which does not exist.")
    return Recipe(
        name=str(raw.get("name") or path.stem),
        model=shape,
        tokenizer=words,
        sources=sources,
        held_out=float(held_out),
        stages=stages,
        train=run,
        generation=generation,
        card=card.read_text("utf-8") if card else "",
        out=folder.resolve(),
        path=path.resolve(),
    )


def _sources(raw: Any, path: Path) -> dict[str, Path]:
    if not isinstance(raw, Mapping) or not raw or not all(isinstance(where, str) for where in raw.values()):
        raise RecipeError(f"{path}: [data] sources is {str(raw)[:60]!r}; expected sources = {{ name = 'file.txt' }}.")
    for name, where in raw.items():
        if not re.fullmatch(r"[\w-]{1,60}", name):
            raise RecipeError(f"{path}: source {name!r} has an odd name; expected letters, digits, - and _.")
        if not (path.parent / where).is_file():
            raise RecipeError(f"{path}: source {name!r} is {path.parent / where}, which does not exist or is no file.")
    return {name: (path.parent / where).resolve() for name, where in raw.items()}


def _stages(raw: Any, sources: tuple[str, ...], path: Path) -> tuple[Stage, ...]:
    if not isinstance(raw, list):
        raise RecipeError(f"{path}: stage is {str(raw)[:60]!r}; expected tables under [[stage]].")
    stages = tuple(_made(Stage, part, path, "[[stage]]") for part in raw) or (Stage(1.0, dict.fromkeys(sources, 1.0)),)
    for stage in stages:
        _known(stage.mix, sources, path, "a stage's mix")
        weights = list(stage.mix.values())
        if not all(_is_number(w) and w >= 0 for w in weights) or not any(weights):
            raise RecipeError(
                f"{path}: a stage's mix is {dict(stage.mix)}; expected weights from 0 up, not all of them 0."
            )
    ends = [s.until for s in stages]
    if not all(map(math.isfinite, ends)) or ends != sorted(ends) or ends[0] <= 0 or ends[-1] != 1.0:
        raise RecipeError(f"{path}: the stages end at {ends}; expected rising shares that end at 1.0.")
    return stages


def _are_texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(s, str) and s for s in value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


MOST = {  # the largest value of each whole number: a slip of the finger is told before it is allocated
    "dim": 2**16, "n_layers": 1024, "n_heads": 1024, "n_kv_heads": 1024, "hidden_dim": 2**20, "context": 2**20,
    "batch": 4096, "accumulate": 4096, "seed": 2**31, "steps": 10**8 - 1,
}  # fmt: skip
MAY_BE_ZERO = ("seed", "warmup", "sample_every", "weight_decay", "floor", "decay_from")


def _sane(shape: Shape, run: Run, words: Words, path: Path) -> None:
    for where, table in (("[model]", shape), ("[train]", run)):
        for key, value in vars(table).items():
            if isinstance(value, str | bool):
                continue
            low, high = 0 if key in MAY_BE_ZERO else 1 if isinstance(value, int) else 1e-30, MOST.get(key, 10**12)
            if not math.isfinite(value) or not low <= value <= high:
                raise RecipeError(f"{path}: {where} {key} is {value}; expected {low} to {high}.")
    if run.decay_from >= 1 or run.floor > 1:
        raise RecipeError(
            f"{path}: [train] decay_from is {run.decay_from} and floor {run.floor}; both are shares of 1."
        )
    if shape.dim % (2 * shape.n_heads) or shape.n_heads % shape.n_kv_heads:
        raise RecipeError(
            f"{path}: [model] dim {shape.dim}, n_heads {shape.n_heads}, n_kv_heads {shape.n_kv_heads} do not fit; "
            "expected n_heads to be a multiple of n_kv_heads, and dim an even multiple of n_heads."
        )
    choices = {"optimizer": ("adamw", "muon"), "schedule": ("cosine", "linear"), "dtype": ("bfloat16", "float32")}
    for key, allowed in choices.items():
        if getattr(run, key) not in allowed:
            raise RecipeError(f"{path}: [train] {key} is {getattr(run, key)!r}; expected {' or '.join(allowed)}.")
    if run.batch % run.accumulate:
        raise RecipeError(f"{path}: [train] batch is {run.batch}; expected a multiple of accumulate, {run.accumulate}.")
    if not words.special or words.vocab_size < 256 + len(words.special) or words.vocab_size > 2**20:
        raise RecipeError(f"{path}: vocab_size is {words.vocab_size}; bytes and special tokens alone need more.")


def _known(raw: Mapping[str, Any], keys: tuple[str, ...], path: Path, where: str) -> None:
    if not isinstance(raw, Mapping):
        raise RecipeError(f"{path}: {where} is {str(raw)[:60]!r}; expected a table.")
    for key in raw:
        if key not in keys:
            close = get_close_matches(key, keys, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"expected {', '.join(keys)}."
            raise RecipeError(f"{path}: {where} has an unknown key {key!r}; {hint}")


def _made(kind: type[T], raw: Any, path: Path, where: str) -> T:
    """A dataclass from a table, with each value's type checked against its default or annotation."""
    names = {f.name: str(f.type) for f in fields(kind)}  # type: ignore[arg-type]
    _known(raw, tuple(names), path, where)
    for key, value in raw.items():
        types: dict[str, Any] = {"int": int, "float": (int, float), "str": str, "bool": bool}
        expected = types.get(names[key])
        if expected and (not isinstance(value, expected) or isinstance(value, bool) != (names[key] == "bool")):
            raise RecipeError(f"{path}: {where} {key} is {value!r}; expected {names[key]}.")
    try:
        return kind(**raw)
    except TypeError as error:
        missing = str(error).partition(": ")[2]
        raise RecipeError(f"{path}: {where} lacks {missing}.") from None
