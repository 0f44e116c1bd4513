"""A folder to its Header: which of its files are the weights, and whether they are all there."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from typing import Any

from brolly.card import Header, TensorInfo
from brolly.checkpoint.bounded import json_object, note, opened, shown
from brolly.checkpoint.formats import EXPECTED, config_of, read_file, read_torch_file, reader, settings
from brolly.errors import BrollyError, CheckpointError, UnsafeCheckpoint
from brolly.place import Place, Where, there

Faults = list[CheckpointError] | None
VARIANT = re.compile(r"\.(fp16|bf16|fp32|fp8|ema|non_ema|int8)(?=[.-])")
SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})(\.safetensors|\.bin)")
QUANTISED = re.compile(r"([-._](ud|i1|imat|i?q\d\w*|tq\d\w*|f16|fp16|bf16|f32|mxfp4\w*|\d{5}-of-\d{5}))*\.gguf$")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tekken.json", "spiece.model")
MAX_COMPONENTS = 64
LARGE_INDEX, MAX_INDEX = 8 * 2**20, 64 * 2**20  # bytes; that of Kimi K2.5 has 23 MB, of 208,550 names
MAX_NAMES = 2**19  # Kimi K3 has 497,220
TEXT = rb'"((?:[^"\\]|\\.)*+)"\s*+'
NAMED = re.compile(TEXT + rb":\s*+" + TEXT + rb"([,}])\s*+", re.DOTALL)


def read_folder(folder: Where, faults: Faults = None) -> Header:
    """The model of a folder. With `faults`, what is missing or broken is put there, and the rest is still told."""
    names = listed(folder)
    if "oci-layout" in names:
        return reader("oci")(folder)
    if "model_index.json" in names:
        return read_components(folder, faults)
    config = config_of(folder, faults)
    header = _weights(folder, names, config, faults) or _other(folder, names, config, faults)
    if "modules.json" in names or (header is not None and "linear.weight" in header.tensors):
        from brolly.checkpoint.modules import with_modules

        header = with_modules(folder, header, faults)
    if header is not None:
        return header
    if lost := next((n for n in names if n.endswith(".index.json")), None):
        missing = sorted(set(weight_map(folder / lost).values()))
        error = CheckpointError(
            f"{folder} has {lost} and none of its {len(missing)} files ({shown(missing[0])} …); pull it again.",
            "missing-shards",
            lost,
        )
        note(faults, error)
        return Header(folder, "config", {}, config)
    if not names:
        raise CheckpointError(f"{folder} is empty; {EXPECTED}.", "no-model")
    found = ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
    error = CheckpointError(f"{folder} holds {found}, and no weights; {EXPECTED}.", "no-model")
    form = "config" if config or "open_clip_config.json" in names or "adapter_config.json" in names else ""
    form = form or ("tokenizer" if any(n in names for n in TOKENIZERS) else "")
    form = form or ("config" if "README.md" in names and has_front_matter(folder / "README.md") else "")
    if not form or faults is None:
        raise error
    error.finding = ""  # nothing is wrong, and there is something to tell; only loading cannot go on
    faults.append(error)
    return Header(folder, form, {}, config)


def snapshot(folder: Where) -> Where | None:
    """The revision that a repository in the Hugging Face cache stands at: main, else the only one."""
    commits = listed(folder / "snapshots")
    try:
        with opened(folder / "refs" / "main") as (file, size):
            wanted = file.read(min(size, 64)).decode("ascii", "replace").strip()
    except BrollyError:
        wanted = ""
    chosen = wanted if wanted in commits else commits[0] if len(commits) == 1 else ""
    return folder / "snapshots" / chosen if chosen else None


def has_front_matter(path: Where) -> bool:
    """Whether a README.md is a model card: a YAML header stands at its beginning."""
    try:
        with opened(path) as (file, size):
            return file.read(min(size, 16)).removeprefix(b"\xef\xbb\xbf").startswith((b"---\n", b"---\r\n"))
    except BrollyError:
        return False


def listed(folder: Where) -> list[str]:
    """The names in a folder, sorted; hidden ones left out."""
    try:
        inside = os.listdir(folder) if not isinstance(folder, Place) else [p.name for p in folder.iterdir()]
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be read ({error.strerror}).") from None
    return sorted(n for n in inside if not n.startswith("."))


def _weights(folder: Where, names: list[str], config: dict[str, Any], faults: Faults) -> Header | None:
    """The weights that brolly can load, in the order of preference: safetensors, PyTorch, Meta, GGUF."""

    def ending(*suffixes: str) -> list[str]:
        return [n for n in names if n.endswith(suffixes)]

    def joined(form: str, group: list[str], config: dict[str, Any]) -> Header:
        return _joined(folder, form, group, config, faults)

    tensors = ending(".safetensors")
    native = [n for n in tensors if n.startswith("consolidated")]
    adapter = [n for n in tensors if n.startswith("adapter_")]
    usual = plain([n for n in tensors if n not in native and n not in adapter])
    for group in (usual, native):
        if not group:
            continue
        index = next(
            (n for n in ending(".safetensors.index.json") if n.startswith("consolidated") == (group is native)), ""
        )
        own = (settings(folder / "params.json", faults) or config) if group is native else config
        if index:
            found, files = indexed(folder / index, faults)
            return Header(folder, "safetensors", found, own, {}, files)
        chosen = ["model.safetensors"] if "model.safetensors" in group else group
        _count_shards(folder, chosen, faults)
        return joined("safetensors", chosen, own)
    if meta := [n for n in ending(".pth") if n.startswith("consolidated.")]:
        own = settings(folder / "params.json", faults) or config
        return Header(folder, "meta", _ranks(folder, meta), own, {}, tuple(folder / n for n in meta))
    if index := next(iter(ending(".bin.index.json")), ""):
        if any(n.endswith(".bin") for n in names):
            found, files = indexed(folder / index, faults)
            return Header(folder, "torch", found, config, {}, files)
    elif pickled := [
        n for n in ending(".bin", ".pt", ".pth") if n.startswith(("pytorch_model", "model", "consolidated"))
    ]:
        _count_shards(folder, pickled, faults)
        return joined("torch", pickled, config)
    if adapter:
        return joined("safetensors", adapter, config)
    if "adapter_model.bin" in names:
        return joined("torch", ["adapter_model.bin"], config)
    gguf = ending(".gguf")
    models = [n for n in gguf if "mmproj" not in n.lower()] or gguf
    if len(several := {QUANTISED.sub("", n.lower()) for n in models}) > 1 and faults is not None:
        where = f"{folder} holds {len(several)} models, of which this is {models[0]}; --tree tells each."
        faults.append(CheckpointError(where, "several-models", models[0]))
    for name in models:
        return read_file(folder / name, faults)._replace(path=folder)
    return None


def plain(group: list[str]) -> list[str]:
    """Weights without their variants (model.fp16.safetensors beside model.safetensors)."""
    kept = [n for n in group if VARIANT.sub("", n) == n or VARIANT.sub("", n) not in group]
    variants = {m[1] for n in kept if (m := VARIANT.search(n))}
    if len(variants) > 1:  # only variants, of several kinds: the first
        first = sorted(variants)[0]
        kept = [n for n in kept if not (m := VARIANT.search(n)) or m[1] == first]
    return kept


def _other(folder: Where, names: list[str], config: dict[str, Any], faults: Faults) -> Header | None:
    """Weights in every other format that is told, and loose torch and llama2.c files."""

    def one(name: str) -> Header:
        return read_file(folder / name, faults)._replace(path=folder)

    if "saved_model.pb" in names:
        return reader("savedmodel")(folder)
    if any(n in names for n in ("_METADATA", "_CHECKPOINT_METADATA", "manifest.ocdbt")):
        return reader("orbax")(folder)
    if str(folder).endswith((".mlpackage", ".mlmodelc")) or "Manifest.json" in names:
        return reader("coreml")(folder)
    for name in names:
        if name.endswith((".mlpackage", ".mlmodelc")):
            return reader("coreml")(folder / name)
    pickled = [n for n in names if n.endswith((".pt", ".pth", ".ckpt")) and not n.startswith(("optimizer", "rng"))]
    groups: list[Callable[[str], bool]] = [
        lambda n: n in pickled,
        lambda n: n.endswith(".onnx"),
        lambda n: n.endswith(".msgpack"),
        lambda n: n.endswith((".h5", ".hdf5", ".keras")),
        lambda n: n.endswith(".xml") and n[:-4] + ".bin" in names,
        lambda n: n.endswith((".tflite", ".mlmodel", ".nemo", ".npz", ".ggml", ".engine", ".plan", ".trt")),
        lambda n: n.endswith(".index") and any(m.startswith(n[:-6] + ".data-") for m in names),
        lambda n: n == "Modelfile",
        lambda n: n.endswith(".bin") and not n.startswith(("tok", "training_args", "optimizer")),
        lambda n: n.endswith((".pt", ".pth", ".bin", ".npy", ".pkl")) and not n.startswith("tok"),
    ]
    for belongs in groups:
        group = [name for name in names if belongs(name) and not os.path.isdir(str(folder / name))]
        if len(group) > 1 and group[0].endswith((".onnx", ".xml")):
            return _graphs(folder, folder, group, config, faults)
        if group:
            return _with(one(group[0]), config)
    if any(n.isdigit() or n == "default" for n in names):  # Orbax keeps a folder a step
        try:
            return _with(reader("orbax")(folder), config)
        except CheckpointError:
            return None
    if "onnx" in names and (isinstance(folder, Place) or os.path.isdir(folder / "onnx")):
        group = [n for n in listed(folder / "onnx") if n.endswith(".onnx")]
        return _graphs(folder, folder / "onnx", group, config, faults) if group else None
    return None


def _graphs(folder: Where, place: Where, group: list[str], config: dict[str, Any], faults: Faults) -> Header:
    """One model of the graphs that lie in `place`, those of them that can be read."""
    from brolly.checkpoint.graphs import joined, parts

    found: list[Header] = []
    chosen = parts(group) or group[:1]
    for name in chosen:
        try:
            found.append(read_file(place / name, faults))
        except CheckpointError as error:
            error.file = error.file or name
            if len(chosen) == 1:
                raise
            note(faults, error)
    if not found:
        raise CheckpointError(f"{place} holds {len(chosen)} graphs, and none of them can be read; pull it again.")
    return _with(joined(folder, found), config)


def _with(header: Header, config: dict[str, Any]) -> Header:
    return header if header.config or not config else header._replace(config=config)


def _joined(folder: Where, form: str, group: list[str], config: dict[str, Any], faults: Faults) -> Header:
    tensors: dict[str, TensorInfo] = {}
    metadata: dict[str, Any] = {}
    for name in group:
        try:
            found, said = _tensors(folder / name, faults)
        except CheckpointError as error:
            error.file = error.file or name
            note(faults, error)
            continue
        metadata = metadata or said
        for key, info in found.items():
            if key in tensors:
                where = f"{folder}: {tensors[key].file.name} and {name} both hold {shown(key)}."
                note(faults, CheckpointError(where, "duplicate-tensors", name))
                break
            tensors[key] = info
    form = "torchscript" if metadata.get("container") == "torchscript" else form
    if group[0].startswith("open_clip"):  # such a file lies beside a config.json of other weights
        config = config_of(folder, faults, group[0])
    return Header(folder, form, tensors, config, metadata, tuple(folder / n for n in group))


def _tensors(path: Where, faults: Faults) -> tuple[dict[str, TensorInfo], dict[str, Any]]:
    if path.suffix == ".safetensors":
        from brolly.checkpoint.safetensors import read_safetensors

        found, said = read_safetensors(path, faults)
        return found, dict(said)
    header = read_torch_file(path, faults)
    return dict(header.tensors), dict(header.metadata)


def _count_shards(folder: Where, group: list[str], faults: Faults) -> None:
    """Whether all are there of files that call themselves one of several; without an index, nothing else tells."""
    found: dict[tuple[str, str], set[int]] = {}
    for name in group:
        if matched := SHARD.fullmatch(name):
            found.setdefault((matched[1], matched[3]), set()).add(int(matched[2]))
    for (stem, of), have in found.items():
        if len(have) < int(of):
            first = next(i for i in range(1, int(of) + 1) if i not in have)
            where = f"{folder} lacks {int(of) - len(have)} of its {int(of)} files ({stem}-{first:05d}-of-{of} …)"
            note(faults, CheckpointError(f"{where}; pull it again.", "missing-shards", f"{stem}-{first:05d}-of-{of}"))


def read_index(path: Where) -> list[str]:
    """The tensor names of an index file, whether or not its shards are here."""
    return list(weight_map(path))


def weight_map(path: Where) -> dict[str, str]:
    """Tensor name → file, as an index says. Raises CheckpointError."""
    found = large_map(path) or json_object(path).get("weight_map")
    if not isinstance(found, dict) or not found or not all(isinstance(v, str) for v in found.values()):
        raise CheckpointError(f"{path} has no weight_map; expected tensor names and the files that hold them.")
    return found


def large_map(path: Where) -> dict[str, str]:
    """The weight_map of an index too large for a parser of any JSON, name by name; empty of a usual one."""
    with opened(path) as (file, size):
        if size <= LARGE_INDEX:
            return {}
        raw = file.read(MAX_INDEX + 1)
    found: dict[str, str] = {}
    files: dict[bytes, str] = {}  # of 208,550 names 64 are different
    opens = re.search(rb'"weight_map"\s*+:\s*+\{\s*+', raw)
    at, closed = opens.end() if opens else 0, False
    if len(raw) > MAX_INDEX or raw.count(b'"weight_map"') != 1 or raw.count(b'"') > 4 * MAX_NAMES:
        raise CheckpointError(f"{path}: its {size:,} bytes of JSON are no index of any real model.")
    try:
        while not closed and (row := NAMED.match(raw, at)):
            name = row[1].decode() if b"\\" not in row[1] else json.loads(b'"' + row[1] + b'"')
            if row[2] not in files:
                files[row[2]] = row[2].decode()
            found[name] = files[row[2]]
            at, closed = row.end(), row[3] == b"}"
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON ({shown(str(error))}); download it again.") from None
    if not closed:
        raise CheckpointError(f"{path} is no index: its weight_map breaks off at byte {at:,}; download it again.")
    return found


def indexed(path: Where, faults: Faults) -> tuple[dict[str, TensorInfo], tuple[Where, ...]]:
    """What an index promises, held against its shards, each a plain name beside it; and the shards."""
    promised = weight_map(path)
    names = sorted(set(promised.values()))
    for name in names:
        if not re.fullmatch(r"[\w-][\w. +=-]{0,200}", name, re.ASCII):
            raise UnsafeCheckpoint(
                f"{path} points at {shown(name)}; a shard must be a file beside its index.", "external-path", path.name
            )
    missing = [n for n in names if not there(path.parent / n)]
    if missing:
        where = f"{path} lacks {len(missing)} of its {len(names)} files ({missing[0]} …); pull it again."
        note(faults, CheckpointError(where, "missing-shards", missing[0]))
    files = tuple(path.parent / name for name in names if name not in missing)
    tensors: dict[str, TensorInfo] = {}
    broken: set[str] = set(missing)
    for file in files:
        try:
            tensors |= _tensors(file, faults)[0]
        except CheckpointError as error:
            error.file = error.file or file.name
            note(faults, error)
            broken.add(file.name)
    for name, shard in promised.items():
        if shard not in broken and (name not in tensors or tensors[name].file.name != shard):
            where = f"{path} says that {shown(name)} is in {shard}, and it is not; pull it again."
            note(faults, CheckpointError(where, "index-mismatch", shard))
            break
    return tensors, files


def _ranks(folder: Where, names: list[str]) -> dict[str, TensorInfo]:
    """Meta's model-parallel files: each tensor's pieces under one name, in the order of the ranks."""
    from brolly.checkpoint.torchfile import read_torch

    ranks = [read_torch(folder / name) for name in names]
    for name, rank in zip(names[1:], ranks[1:], strict=True):
        if rank.keys() != ranks[0].keys():
            raise CheckpointError(f"{folder}: {name} does not hold the same tensors as {names[0]}; pull it again.")
    if len(ranks) == 1:
        return ranks[0]
    return {key: t._replace(shards=tuple(rank[key] for rank in ranks)) for key, t in ranks[0].items()}


def read_components(folder: Where, faults: Faults) -> Header:
    """A diffusers folder: model_index.json names the parts, tensors are called part/name, "components" has configs."""
    index = json_object(folder / "model_index.json")
    parts = [k for k, v in index.items() if not k.startswith("_") and isinstance(v, list) and len(v) == 2 and v[1]]
    tensors: dict[str, TensorInfo] = {}
    configs: dict[str, Any] = {}
    files: list[Where] = []
    empty: list[str] = []  # parts that have a network's config and no weights
    for part in parts[:MAX_COMPONENTS]:
        if not re.fullmatch(r"[\w-]{1,64}", part) or not there(folder / part):
            continue
        found: list[CheckpointError] = []
        try:
            inner = read_folder(folder / part, found)
        except CheckpointError as error:
            if error.finding != "no-model":  # a scheduler, a tokenizer, an image processor have no weights
                note(faults, error)
            continue
        except BrollyError:
            continue
        for fault in found:
            if fault.finding:
                fault.file = f"{part}/{fault.file}" if fault.file else part
                note(faults, fault)
        if inner.config:
            configs[part] = inner.config
            empty += [part] * (not inner.tensors and inner.format == "config")
        tensors |= {f"{part}/{name}": info._replace(name=f"{part}/{name}") for name, info in inner.tensors.items()}
        files += inner.files
    if not tensors:
        note(faults, CheckpointError(f"{folder} holds the settings of a pipeline, and no weights; pull it again.", ""))
    elif empty:
        where = f"{folder} lacks the weights of {', '.join(empty)}; pull it again."
        note(faults, CheckpointError(where, "missing-shards", empty[0]))
    return Header(folder, "diffusers", tensors, {**index, "components": configs}, {}, tuple(files))
