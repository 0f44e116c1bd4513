"""Tensors that a format's reader marked: packed weights, scales, constants of a graph, what training left behind."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from math import prod
from typing import Any, NamedTuple

from brolly.card import Header, TensorInfo

# formats that hold a graph's constants as they hold its weights
GRAPHS = frozenset(("onnx", "tflite", "openvino", "coreml", "savedmodel", "graphdef"))
WORDS = {
    "I8": "INT8", "U8": "INT8", "I4": "INT4", "U4": "INT4", "I3": "INT3", "U3": "INT3", "I2": "INT2", "U2": "INT2",
    "U6": "INT6", "U1": "INT1", "I32": "INT32", "I16": "INT16", "U16": "INT16", "F4": "FP4", "F8_E4M3": "FP8_E4M3",
    "F8_E5M2": "FP8_E5M2", "NF4": "NF4",
}  # fmt: skip
NUMBERED = frozenset(("I8", "U8", "I4", "U4", "I3", "U3", "I2", "U2", "U6", "U1"))  # narrow enough to be weights
# keys at the top of a checkpoint from the middle of a training, beside its weights
STATE = re.compile(
    r"(?:[a-z\d]+_)*optim(?:izer)?s?(?:_\w+)?|opt(?:_state\w*)?|(?:lr_?)?schedulers?(?:_\w+)?|callbacks|loops|step|epoch"
    r"|(?:\w+_)?scaler(?:_\w+)?|(?:\w+_)?rng(?:_\w+)?|random_\w+|criterion(?:_\w+)?|loss(?:_\w+)?|losses|extra_state"
    r"|history|base_optimizer_state|global_step|iteration|best_\w+|param_groups|sampler(?:_\w+)?|train(?:ing|er)_state"
    r"|amp(?:_\w+)?|metrics?|MixedPrecision\w*|single_partition_of_fp32_groups|fp32_flat_groups|hyper_parameters",
    re.IGNORECASE,
)
COPY = re.compile(
    r"(?:\w+_)?ema(?:_\w+)?|teacher(?:_\w+)?|swa(?:_\w+)?|(?:model_)?averaged?(?:_model)?|shadow(?:_\w+)?",
    re.IGNORECASE,
)
# collections of JAX's libraries that are no parameters
COLLECTIONS = re.compile(
    r"(?:^|[/.])(?:opt_state|optimizer|batch_stats|ema_params|params_ema|ema|rngs?|step)(?:[/.]|$)"
)
KERAS = ("optimizer_weights/", "optimizer/", "_optimizer/")
ONE_BIT = 8  # numbers that a byte can stand for at most


class Aside(NamedTuple):
    """What the marks say: name → (numbers, word, sure), 0 for no parameter; and which of those are training's."""

    counted: Mapping[str, tuple[int, str, bool]] = {}
    training: frozenset[str] = frozenset()


def aside_of(header: Header) -> Aside:
    """The marks of a header, as far as its format's reader leaves some."""
    training = frozenset(training_of(header))
    counted = graph(header) if header.format in GRAPHS else {}
    return Aside(counted | dict.fromkeys(training, (0, "", True)), training)


def training_of(header: Header) -> Iterable[str]:
    """Optimizers' slots, counters, metrics, and averages of weights that are there themselves."""
    said, tensors = header.metadata, header.tensors
    marked = said.get("training_state")
    if isinstance(marked, (list, tuple)):
        yield from (name for name in marked if name in tensors)
    if header.format in ("keras", "keras-h5", "hdf5") and said.get("optimizer"):
        yield from (name for name in tensors if name.startswith(KERAS))
    elif header.format in ("flax", "orbax", "npz"):
        found = [name for name in tensors if COLLECTIONS.search(name)]
        if len(found) < len(tensors):
            yield from found
    elif header.format in ("torch", "torchscript") and isinstance(top := said.get("top_level"), list):
        yield from of_torch(tensors, top)


def of_torch(tensors: Mapping[str, TensorInfo], top: list[str]) -> Iterable[str]:
    """The same of a pickled dictionary, by its keys."""
    if {"state", "param_groups"} <= set(top):  # an optimizer alone
        yield from (name for name in tensors if name.startswith(("state.", "param_groups.")))
        return
    keys = [key for key in top if isinstance(key, str) and key not in tensors and STATE.fullmatch(key)]
    begins = tuple(f"{key}." for key in keys)
    state = [name for name in tensors if begins and name.startswith(begins)]
    if any(key not in tensors for key in top):  # weights lie deeper, so what lies here is a counter or a score
        state += [n for n in top if n in tensors and not tensors[n].shape and STATE.fullmatch(n)]
    yield from state
    copies = tuple(f"{key}." for key in top if isinstance(key, str) and COPY.fullmatch(key))
    if copies:
        gone = set(state)
        copied = [n for n in tensors if n not in gone and n.startswith(copies)]
        others = sum(t.n_elements for n, t in tensors.items() if n not in gone and not n.startswith(copies))
        if 0 < sum(tensors[n].n_elements for n in copied) <= others:
            yield from copied


def graph(header: Header) -> dict[str, tuple[int, str, bool]]:
    """Of a graph: which constants are weights, and how many numbers stand in a packed one."""
    said, tensors, form = header.metadata, header.tensors, header.format
    counted: dict[str, tuple[int, str, bool]] = {}
    constants = set(_names(said, "constants"))
    integers = set(_names(said, "integers"))
    for name, info in tensors.items():
        n, dtype = info.n_elements, info.dtype
        if not info.shape or (n == 1 and (name in constants or form == "openvino")):
            counted[name] = (0, "", True)
        elif name in integers or (form == "openvino" and dtype in NUMBERED):
            counted[name] = (n, WORDS.get(dtype, dtype), True)
        elif dtype in WORDS and dtype not in ("I8", "U8", "I32", "I16", "U16"):
            counted[name] = (n, WORDS[dtype], True)
    if form == "coreml":
        counted |= {n: (0, "", True) for n in tensors if n.endswith(("/mean", "/variance"))}
        coreml(said, tensors, counted)
    elif form == "onnx":
        packed = said.get("packed")
        for name, how in packed.items() if isinstance(packed, Mapping) else ():
            if name in tensors and isinstance(how, Mapping):
                counted[name] = nbits(tensors[name], how)
    for name in _names(said, "scales"):
        counted[name] = (0, "", True)
    return counted


def _names(said: Mapping[str, Any], key: str) -> list[str]:
    found = said.get(key)
    return [name for name in found if isinstance(name, str)] if isinstance(found, (list, tuple)) else []


def nbits(info: TensorInfo, how: Mapping[str, Any]) -> tuple[int, str, bool]:
    """ONNX Runtime's packed weights: what the node says, where it agrees with the bytes that are there."""
    op = how.get("op")
    bits = how.get("expert_weight_bits" if op == "QMoE" else "bits", 4)
    if bits not in (1, 2, 3, 4, 8) or info.dtype not in ("U8", "I8"):
        return info.n_elements, WORDS.get(info.dtype, info.dtype), info.dtype not in ("U8", "I8")
    word, n = f"INT{bits}", info.nbytes * 8 // bits
    if op == "MatMulBnb4":
        word = "FP4" if how.get("quant_type") == 0 else "NF4"
    if op in ("GatherBlockQuantized", "QMoE"):
        return n, word, True
    inner, outer, block = (how.get(key, 0) for key in ("K", "N", "block_size"))
    if not all(type(v) is int and 0 < v < 2**32 for v in (inner, outer, block)):
        return n, word, False
    whole = inner * outer if op == "MatMulBnb4" else -(-inner // block) * block * outer
    return (inner * outer, word, True) if whole == n else (n, word, False)


def coreml(said: Mapping[str, Any], tensors: Mapping[str, TensorInfo], counted: dict[str, Any]) -> None:
    """Layers' packed weights by their bits; in a program, the tensor that is unpacked, in place of its parts."""
    packed = said.get("packed")
    outputs = {k: v for k, v in packed.items() if isinstance(v, Mapping)} if isinstance(packed, Mapping) else {}
    within = {part for how in outputs.values() for part in how.get("parts") or () if part in outputs}
    for name, how in outputs.items():
        if how.get("op") == "weights":
            bits = how.get("bits")
            if name in tensors and type(bits) is int and 0 < bits <= 8:
                counted[name] = (tensors[name].nbytes * 8 // bits, f"INT{bits}", True)
            continue
        if name in within:  # is itself unpacked further
            continue
        parts = _parts(name, outputs, tensors)
        shape, held = how.get("shape"), sum(info.nbytes for info in parts)
        if not parts:
            continue
        largest = max(parts, key=lambda info: (info.dtype in NUMBERED, info.nbytes))
        counted |= dict.fromkeys([info.name for info in parts], (0, "", True))
        known = isinstance(shape, list) and all(type(n) is int and n > 0 for n in shape)
        n = prod(shape) if known and isinstance(shape, list) else 0
        if 0 < n <= held * ONE_BIT:
            bits = largest.nbytes * 8 // n  # indices may be packed into bytes
            narrow = largest.dtype in NUMBERED and 0 < bits <= 8
            counted[largest.name] = (n, f"INT{bits}" if narrow else WORDS.get(largest.dtype, largest.dtype), True)
        else:
            counted[largest.name] = (largest.n_elements, WORDS.get(largest.dtype, largest.dtype), False)


def _parts(name: str, outputs: Mapping[str, Mapping[str, Any]], tensors: Mapping[str, TensorInfo]) -> list[TensorInfo]:
    """The tensors that an unpacked one is made of, through what is itself unpacked."""
    found: dict[str, TensorInfo] = {}
    todo, seen = [name], {name}
    while todo:
        for part in outputs[todo.pop()].get("parts") or ():
            if part in tensors:
                found[part] = tensors[part]
            elif part in outputs and part not in seen:
                seen.add(part)
                todo.append(part)
    return list(found.values())
