"""The nouns of a card: one small frozen dataclass per section. `None` means: the files do not tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from brolly.card import Evidence

KINDS = (
    "llm", "lmm", "image", "video", "vision", "vision-language-embedding", "text-encoder", "speech", "audio", "music",
    "protein", "scientific", "robotics", "time-series", "other",
)  # fmt: skip
MODALITIES = ("text", "image", "video", "audio", "protein", "structure", "dna", "molecule", "weather", "action",
              "time-series", "embedding", "mask", "label", "score", "tokens", "tabular", "3d")  # fmt: skip
FLAVOURS = ("base", "instruct", "reasoning", "code", "moe", "embedder", "reranker", "reward", "guard", "classifier",
            "ocr", "translation", "vocoder", "codec", "tokenizer", "optimizer", "vae", "controlnet")  # fmt: skip
OUTCOMES = ("meets", "does-not-meet", "cannot-tell")


class Known(NamedTuple):
    """One row of the table of known models (identity/data/models.json): what is published about it, and where.

    `sources` names for each fact the page and the day it was read: {"parameters": {"url": …, "date": …}}.
    """

    name: str
    family: str
    organization: str | None
    kind: str | None
    modalities_in: tuple[str, ...]
    modalities_out: tuple[str, ...]
    flavours: tuple[str, ...] = ()
    scope: str | None = None
    open: str = "weights"  # "weights" (downloadable), "closed" (API only), "none"
    parameters: int | None = None
    activated: int | None = None
    context: int | None = None
    tokens: float | None = None  # training tokens
    flop: float | None = None  # training compute
    flop_source: str | None = None
    licence: str | None = None
    released: str | None = None  # "2024-07-23"
    ids: tuple[str, ...] = ()  # repositories on the hub
    aliases: tuple[str, ...] = ()
    shape: Mapping[str, Any] = {}  # config keys and values that tell it from its kin
    sources: Mapping[str, Any] = {}
    matched: str | None = None  # how it was found: "id", "name" or "shape", which a fine-tune has from its base


class Kind(NamedTuple):
    """What it is. `base_model` has several names for a merge; `sentence` answers "is it an LLM?"."""

    family: str | None
    name: str | None
    kind: str | None
    is_llm: bool | None
    sentence: str
    flavours: tuple[str, ...]
    modalities_in: tuple[str, ...]
    modalities_out: tuple[str, ...]
    scope: str | None
    scope_why: str
    relation: str | None
    base_model: tuple[str, ...]
    why: tuple[Evidence, ...] = ()


class Parameters(NamedTuple):
    """How many numbers the model has, unpacked from whatever they are packed in; a tied head counts once.

    `activated`: touched for one token, embeddings included; `activated_without_embeddings`: the same without the input
    embedding table (the convention of gpt-oss's 5.1 B), a tied head still counted once as the output projection.
    `exact`: counted from tensors, or from a config whose every number is known. `source`: "tensors", "config", "table".
    `shares`: dtype → share of the parameters. `components`: part → parameters ("language", "vision", "experts" …).
    """

    total: int | None
    activated: int | None
    activated_without_embeddings: int | None
    exact: bool
    source: str | None
    components: Mapping[str, int]
    precision: str | None
    shares: Mapping[str, float]
    quantization: str | None  # "AWQ 4-bit, groups of 128"
    size_class: str | None
    why: tuple[Evidence, ...] = ()


class Needs(NamedTuple):
    """What it takes to run it. Bytes, FLOP; `kv_bytes_per_token` at 16 bits a number, while no window is full yet."""

    disk: int | None  # bytes of the weight files
    memory: Mapping[str, int]  # dtype → bytes of the weights in it: as stored, F32, BF16, 8-bit, 4-bit
    context_length: int | None
    kv_bytes_per_token: int | None
    kv_bytes_full_context: int | None
    flop_per_token: float | None  # of one forward pass
    training_memory: Mapping[str, int]  # "lora", "full" → bytes
    fits: bool | None  # in this machine's free memory, as stored
    machine_memory: int | None
    tokens_per_second: float | None  # an estimate from the bandwidth of one core
    bandwidth: float | None  # bytes a second, and how it is known in `why`
    why: tuple[Evidence, ...] = ()


class Licence(NamedTuple):
    """Under which licence. `id` is SPDX's or the Hub's; `commercial` is yes, no, conditional or None.

    `free_and_open`: all four rights of the AI Act's Article 53(2) as the Guidelines read it; None where unknown.
    `openness`: weights, code, data → True, False or None; `mof_class`: by the Model Openness Framework.
    """

    id: str | None
    name: str | None
    commercial: str | None
    redistribution: str | None
    free_and_open: bool | None
    conditions: tuple[str, ...]  # user thresholds, naming duties, use restrictions, in a sentence each
    inherited_from: str | None
    url: str | None
    openness: Mapping[str, bool | None]
    mof_class: str | None
    why: tuple[Evidence, ...] = ()


class Training(NamedTuple):
    """With how much it was trained. `source`: "stated", "Epoch AI …", "6·N·D", or None where unknown.

    Of a derived model `flop` is the base model's and the modification's, as far as each is known.
    """

    tokens: float | None
    flop: float | None
    source: str | None
    why: tuple[Evidence, ...] = ()
    base: float | None = None  # FLOP of the model that it was made from
    modification: float | None = None  # FLOP of making it from that


class Rule(NamedTuple):
    """One rule's indicative outcome; not legal advice. `inputs` are the facts it was decided on."""

    id: str
    name: str
    outcome: str
    article: str
    version: str  # of the text
    source: str  # where the text is
    date: str  # of the text
    applies_from: str | None
    inputs: Mapping[str, Any]
    because: str
    dates: Mapping[str, str] = {}  # day → what applies from then on
