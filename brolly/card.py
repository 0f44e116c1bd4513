"""The nouns of reading: what a file says (Header), how we know it (Family), what we found (Finding). No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from brolly.errors import CheckpointError
from brolly.place import Where

# bits per element, by safetensors' dtype names (the words used everywhere in brolly)
BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "C64": 64, "C128": 128,
    "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip


class TensorInfo(NamedTuple):
    """Where one tensor lies: bytes [offset, offset + nbytes) of `file`, row-major unless `strides` says otherwise.

    `dtype` is safetensors' word ("BF16"); a quantised GGUF block type keeps GGUF's ("Q4_K").
    `strides` counts elements, for views in torch files. `shards` holds the same name's pieces where a
    checkpoint was written by several model-parallel ranks; the piece in `file` is shards[0].
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Where
    offset: int
    nbytes: int
    strides: tuple[int, ...] | None = None
    shards: tuple[TensorInfo, ...] = ()

    @property
    def n_elements(self) -> int:
        return prod(self.shape)


class Header(NamedTuple):
    """All that a checkpoint says before its tensors' bytes are read.

    `format` names the layout ("safetensors", "torch", "gguf", "llama2c", "meta", "onnx" …); `config` is config.json,
    params.json or what stands in for it; `metadata` is the container's own (safetensors' __metadata__, GGUF's
    key-values). `path` is what the user named; `folder` is where its neighbours (tokenizer, templates) lie.
    """

    path: Where
    format: str
    tensors: Mapping[str, TensorInfo]
    config: Mapping[str, Any] = {}
    metadata: Mapping[str, Any] = {}
    files: tuple[Where, ...] = ()

    @property
    def folder(self) -> Path:
        """Where the neighbours lie, of a model on this disk."""
        path: Any = self.path
        return path if path.is_dir() else path.parent

    @property
    def n_params(self) -> int:
        """Numbers stored in the file."""
        return sum(t.n_elements for t in self.tensors.values())

    @property
    def n_bytes(self) -> int:
        return sum(t.nbytes for t in self.tensors.values())

    def number(self, key: str, default: float | None = None, *, low: float = 0, high: float = 2**31) -> Any:
        """The config's number at `key` ("a.b" looks inside a) within its range; without a default it must be there."""
        value: Any = self.config if self.config else self.metadata
        for part in (key,) if not self.config else key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        value = default if value is None else value
        if value is None:
            raise CheckpointError(f"{self.path}: the config has no {key!r}, which this architecture needs.")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise CheckpointError(f"{self.path}: the config says {key} = {value!r}; expected {low:g} to {high:g}.")
        return value

    def whole(self, key: str, default: int | None = None, *, high: int = 2**20) -> int:
        """The config's positive whole number at `key`."""
        value = self.number(key, default, low=1, high=high)
        if value != int(value):
            raise CheckpointError(f"{self.path}: the config says {key} = {value!r}; expected a whole number.")
        return int(value)


class Rename(NamedTuple):
    """One row of a name table: a pattern in the checkpoint, what it is called in the network, what happens on the way.

    `pattern` is a regular expression that must match the whole name; `to` is its replacement template, or None to drop
    the tensor, or several templates between which its rows are shared out in their order (a joined query, key and
    value). `how` names the change of its numbers: "" as it is, "transpose", "reshape" (the same numbers in the
    parameter's shape: (1, 1, C) for (C)), or "rope" (the rows of interleaved rotary projections brought to half-split
    order).
    """

    pattern: str
    to: str | tuple[str, ...] | None
    how: str = ""


class Family(NamedTuple):
    """How to recognise and read one lineage of checkpoints."""

    name: str
    match: Callable[[Header], bool]
    config: Callable[[Header], Any]
    names: Callable[[Header], Iterable[Rename]]
    tasks: tuple[str, ...]
    narrows: Family | None = None  # a lineage within another family: where both match, this one says yes


class Recognised(NamedTuple):
    """A header, the family that runs it, and the network's config."""

    header: Header
    family: Family
    config: Any

    @property
    def tasks(self) -> tuple[str, ...]:
        """Its verbs: the family's, or those of them that this one's parts allow (a tower alone cannot classify)."""
        found: tuple[str, ...] = getattr(self.config, "tasks", self.family.tasks)
        return found


class Finding(NamedTuple):
    """Something wrong with a model's files: `severity` is info, warning or danger; `file` is relative to the model."""

    id: str
    severity: str
    file: str
    message: str


class Evidence(NamedTuple):
    """Why the card says a line: the line (as a path in its JSON), and the file, key, value and rule behind it."""

    line: str
    file: str
    key: str
    value: str
    rule: str
