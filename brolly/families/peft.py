"""PEFT's folders: what a LoRA (Hu et al. 2021) changes, by the network's own names. Knows no tensors' numbers.

adapter_config.json says ranks and scales. adapter_model.safetensors (or .bin) holds a pair of matrices a module, and in
DoRA (Liu et al. 2024) the length of each row, under Hugging Face's names. A family's name table for that layout brings
them to the network's, whatever layout its base has.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from brolly.card import Header, Recognised, Rename, TensorInfo
from brolly.checkpoint import json_object
from brolly.checkpoint.bounded import shown
from brolly.checkpoint.formats import read_file
from brolly.checkpoint.names import rename, sources
from brolly.errors import CheckpointError, NotFound
from brolly.families.saved import saved

SETTINGS = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
DTYPES = ("F64", "F32", "F16", "BF16")
MOST_RANK = 2048
MOST_MATCHES = 2**20  # patterns times modules
# ".default" was an adapter's name
NAME = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_(?:([AB])(?:\.\w+)?\.weight|(magnitude_vector)(?:\.\w+)?)")
ROWS = re.compile(r"(?:base_model\.model\.)?(.+)\.token_adapter\.trainable_tokens_delta")
# What changes the sums and is not done here; without these, a pair of matrices a module is all there is.
REFUSED = {
    "modules_to_save": "whole modules beside the low-rank ones",
    "lora_bias": "biases of its own",
    "target_parameters": "parameters that are no layer's",
    "layer_replication": "layers that stand several times",
    "alora_invocation_tokens": "activated LoRA, which begins in mid-text",
    "use_qalora": "QA-LoRA's pooled inputs",
    "use_bdlora": "block-diagonal matrices",
    "arrow_config": "Arrow's routing",
    "kasa_config": "KaSA's singular values",
    "monteclora_config": "MonteCLoRA's samples",
}
PREFIXES = {"LlamaConfig": "", "GPT2Config": "transformer."}  # of classes whose files may leave it out
INITIALISED = (None, True, False, "gaussian", "eva", "orthogonal")  # beside a base that stays as it was


class Pair(NamedTuple):
    """y += scale · B A x of one module; with a magnitude, the rows of W + scale · B A have these lengths."""

    a: TensorInfo  # (rank, in)
    b: TensorInfo  # (out, rank)
    scale: float
    magnitude: TensorInfo | None = None  # (out,)


class Rows(NamedTuple):
    """Rows of an embedding or a head that stand in place of the base's."""

    info: TensorInfo  # (n, C)
    ids: tuple[int, ...]


class Lora(NamedTuple):
    """An adapter's file, its pairs and its learnt rows by the names of the network's modules."""

    header: Header
    pairs: Mapping[str, Pair]
    rows: Mapping[str, Rows] = {}
    whole: Mapping[str, TensorInfo] = {}  # a classifier's, by transformers' names
    labels: tuple[str, ...] = ()


def read_lora(
    folder: Path, base: Recognised, linear: Mapping[str, tuple[int, int]],
    tables: Mapping[str, tuple[int, ...]] | None = None, heads: bool = False,
) -> Lora:  # fmt: skip
    """The LoRA of a folder in PEFT's layout for a base whose linear modules have these shapes (out, in), and whose
    embedding and head these (V, C), where rows of them may be replaced; `heads`: it may bring a classifier.

    Raises NotFound, CheckpointError: every tensor must be of use, and fit.
    """
    config, header = settings(folder, heads), weights(folder)
    whole, labels, header = saved(header, folder / SETTINGS, config)
    rows, rest = learnt_rows(header, folder, config, base, tables or {})
    found = paired(header._replace(tensors=rest), folder, config)
    for key in ("rank_pattern", "alpha_pattern"):
        if isinstance(config.get(key), dict) and len(config[key]) * len(found) > MOST_MATCHES:
            raise CheckpointError(f"{folder / SETTINGS}: {key} has {len(config[key]):,} patterns; expected a few.")
    table = naming(base, header)
    renamed = rename((f"{module}.weight" for module in found), table)
    about = f"{base.header.path}, a {base.family.name}"
    pairs: dict[str, Pair] = {}
    for module, (a, b, *length) in found.items():
        targets, _ = renamed[f"{module}.weight"]
        target = targets[0].removesuffix(".weight") if len(targets) == 1 else module
        if target not in linear:
            raise CheckpointError(
                f"{header.path} changes {shown(module)}, which is no linear layer within the blocks of {about}; use it "
                "with the model for which it was made."
            )
        if target in pairs:
            raise CheckpointError(f"{header.path}: two of its modules are {shown(target)} of {about}.")
        (out, into), rank = linear[target], ranked(config, folder, module)
        if (a.shape, b.shape) != ((rank, into), (out, rank)):
            raise CheckpointError(
                f"{header.path}: {shown(module)} has lora_A {shown(a.shape)} and lora_B {shown(b.shape)}; for {about}, "
                f"at rank {rank} expected {(rank, into)} and {(out, rank)}. Use it with its own base."
            )
        alpha = patterned(config, folder, "alpha_pattern", module, config.get("lora_alpha", 8))
        if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not abs(alpha) <= 1e6:
            raise CheckpointError(
                f"{folder / SETTINGS}: the alpha of {shown(module)} is {shown(alpha)}; expected a number."
            )
        if any(m.shape != (out,) for m in length):
            raise CheckpointError(
                f"{header.path}: {shown(length[0].name)} is {shown(length[0].shape)}; expected {(out,)}."
            )
        pairs[target] = Pair(a, b, alpha / (math.sqrt(rank) if config.get("use_rslora") else rank), *length)
    return Lora(header, pairs, rows, whole, labels)


def naming(base: Recognised, header: Header) -> tuple[Rename, ...]:
    """An adapter's names to the network's: of what writes, Hugging Face's whatever the base's; else the base's own."""
    bare = header._replace(config={}, metadata={})
    kind = type(base.config).__name__
    if kind in PREFIXES:
        return tuple(base.family.names(bare))
    own = tuple(base.family.names(base.header))
    return own + tuple(base.family.names(bare)) if kind == "WhisperConfig" else own


def learnt_rows(
    header: Header, folder: Path, config: Mapping[str, Any], base: Recognised, tables: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, Rows], dict[str, TensorInfo]]:
    """The tokens that an adapter has rows of its own for, by module, and the file's other tensors."""
    asked = config.get("trainable_token_indices")
    table = naming(base, header)
    rows: dict[str, Rows] = {}
    rest: dict[str, TensorInfo] = {}
    for name, info in header.tensors.items():
        told = ROWS.fullmatch(name)
        if not told:
            rest[name] = info
            continue
        target = rename([f"{told[1]}.weight"], table)[f"{told[1]}.weight"][0]
        module = target[0].removesuffix(".weight") if len(target) == 1 else told[1]
        ids = asked.get(told[1].rpartition(".")[2]) if isinstance(asked, dict) else asked
        shape = tables.get(module)
        if shape is None:
            raise CheckpointError(
                f"{header.path} has rows for {shown(told[1])}, and {base.header.path}, a {base.family.name}, has no "
                "table of that name whose rows are replaced here; use it with its own base, or merge it with PEFT."
            )
        ids = ids if isinstance(ids, list) else []
        fit = all(type(i) is int and 0 <= i < shape[0] for i in ids) and len(set(ids)) == len(ids) > 0
        if not fit or info.shape != (len(ids), shape[1]) or info.dtype not in DTYPES:
            raise CheckpointError(
                f"{header.path}: {shown(name)} is {info.dtype} {shown(info.shape)} for the tokens {shown(ids)} of "
                f"{folder / SETTINGS}; expected a row of {shape[1]} numbers for each of some of {shape[0]:,} tokens."
            )
        rows[module] = Rows(info, tuple(ids))
    if asked and not rows:
        raise CheckpointError(
            f"{folder / SETTINGS}: trainable_token_indices names tokens, and {header.path} has no rows."
        )
    return rows, rest


def peft_name(base: Recognised, module: str) -> str:
    """A module's name as PEFT has it behind "base_model.model.", as transformers does. Raises CheckpointError."""
    kind = type(base.config).__name__
    if kind in PREFIXES:
        return PREFIXES[kind] + module
    given = sources(base.header.tensors, base.family.names(base.header))
    found = given.get(f"{module}.weight", "")
    if not found.endswith(".weight") or sum(source == found for source in given.values()) > 1:
        raise CheckpointError(
            f"{base.header.path}: {module} has no tensor of its own there, so PEFT has no name for it."
        )
    return found.removesuffix(".weight")


def settings(folder: Path, heads: bool = False) -> dict[str, Any]:
    """adapter_config.json of a LoRA that is a pair of matrices a module; where `heads`, with a classifier beside them.

    Raises NotFound, CheckpointError.
    """
    path = folder / SETTINGS
    if not os.path.isfile(path):  # which says no where Path would raise
        what = "does not exist"
        if os.path.exists(folder):
            what = f"has no {SETTINGS}" if os.path.isdir(folder) else "is a file"
        raise NotFound(f"{folder} {what}; expected a folder with {SETTINGS} and {WEIGHTS[0]}, as PEFT writes them.")
    config = json_object(path)
    if config.get("peft_type") != "LORA":
        raise CheckpointError(f"{path}: peft_type is {shown(config.get('peft_type'))}; LoRA alone is applied here.")
    for key, what in REFUSED.items():
        if config.get(key) and not (heads and key == "modules_to_save"):
            raise CheckpointError(f"{path}: {key} asks for {what}, which is not done here; merge it into its base.")
    if config.get("bias", "none") not in ("none", None):
        raise CheckpointError(f"{path}: bias is {shown(config['bias'])}, and 'none' alone is applied here; merge it.")
    began = config.get("init_lora_weights")
    if not any(began is value or (isinstance(value, str) and began == value) for value in INITIALISED):
        raise CheckpointError(
            f"{path}: init_lora_weights is {shown(began)}: the adapter belongs to a base that was changed with it; "
            "convert it into a plain LoRA with PEFT's path_initial_model_for_weight_conversion."
        )
    return config


def weights(folder: Path) -> Header:
    """The adapter's file. Raises NotFound, CheckpointError."""
    path = next((folder / name for name in WEIGHTS if os.path.isfile(folder / name)), None)
    if path is None:
        raise NotFound(f"{folder} has {SETTINGS} and none of {', '.join(WEIGHTS)}; pull it again.")
    return read_file(path)


def paired(header: Header, folder: Path, config: Mapping[str, Any]) -> dict[str, list[TensorInfo]]:
    """A, B and DoRA's magnitude by module, as the file names it. Raises CheckpointError where a tensor is of no use."""
    parts = {"A": "lora_A.weight", "B": "lora_B.weight"}
    parts |= {"magnitude_vector": "lora_magnitude_vector"} if config.get("use_dora") else {}
    named = config.get("target_modules")
    few = not isinstance(named, list) or len(named) * len(header.tensors) <= 16 * MOST_MATCHES
    if few and isinstance(named, list) and all(isinstance(name, str) for name in named):
        ends = tuple("." + name for name in named)
    elif named is None or isinstance(named, str):  # a pattern of anybody's making: the tensors tell what it means
        ends = ("",)
    else:
        raise CheckpointError(f"{folder / SETTINGS}: target_modules is {shown(named)}; expected some names.")
    found: dict[str, dict[str, TensorInfo]] = {}
    unused: list[str] = []
    for name, info in header.tensors.items():
        told = NAME.fullmatch(name)
        part = told and (told[2] or told[3])
        if not told or part not in parts or not f".{told[1]}".endswith(ends) or part in found.get(told[1], ()):
            unused.append(name)
        elif info.dtype not in DTYPES or info.shards:
            raise CheckpointError(f"{header.path}: {shown(name)} is {info.dtype}; expected one of {', '.join(DTYPES)}.")
        else:
            found.setdefault(told[1], {})[part] = info
    lacking = [f"{module}.{parts[part]}" for module, given in found.items() for part in parts if part not in given]
    if unused:
        raise CheckpointError(
            f"{header.path} holds {_few(unused)}, for which a LoRA of its {SETTINGS} has no use; expected names like "
            "base_model.model.<module>.lora_A.weight and lora_B.weight, of modules that target_modules names."
        )
    if lacking or not found:
        raise CheckpointError(f"{header.path} lacks {_few(lacking) or 'all tensors'}; it is incomplete.")
    return {module: [given[part] for part in parts] for module, given in found.items()}


def ranked(config: Mapping[str, Any], folder: Path, module: str) -> int:
    """A module's rank by its settings."""
    rank = patterned(config, folder, "rank_pattern", module, config.get("r", 8))
    if type(rank) is not int or not 1 <= rank <= MOST_RANK:
        raise CheckpointError(
            f"{folder / SETTINGS}: the rank of {shown(module)} is {shown(rank)}; expected 1 to {MOST_RANK}."
        )
    return rank


def patterned(config: Mapping[str, Any], folder: Path, key: str, module: str, otherwise: Any) -> Any:
    """What the first pattern says that a module's name ends with, else the setting of all."""
    patterns = config.get(key) or {}
    if not isinstance(patterns, dict):
        raise CheckpointError(f"{folder / SETTINGS}: {key} is {shown(patterns)}; expected an object.")
    for pattern, value in patterns.items():
        if ending(pattern, str(folder / SETTINGS)).match(module):
            return value
    return otherwise


@lru_cache(2**12)
def ending(pattern: str, source: str) -> re.Pattern[str]:
    """PEFT's own reading of a pattern; one that could take for ever is refused."""
    repeats = len(re.findall(r"[*+?{]", pattern))
    try:
        if len(pattern) > 256 or repeats > 3 or re.search(r"\)[*+?{]", pattern):
            raise re.error("too many repetitions")
        return re.compile(rf"(.*\.)?({pattern})$")
    except (re.error, RecursionError, OverflowError) as error:
        raise CheckpointError(f"{source}: the pattern {shown(pattern)} is not read here ({error}).") from None


def _few(names: Iterable[str], most: int = 3) -> str:
    listed = list(names)
    more = f" and {len(listed) - most} more" * (len(listed) > most)
    return ", ".join(shown(name) for name in listed[:most]) + more
