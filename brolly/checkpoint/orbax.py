"""Orbax, JAX's checkpoints: a folder with a tree of names (_METADATA), and zarr arrays, each a folder or in one OCDBT.

Sources: github.com/google/orbax, checkpoint/orbax/checkpoint/_src/metadata; zarr-specs.readthedocs.io, versions 2 and 3
(read 2026-11).
"""

from __future__ import annotations

import re
from typing import Any

from brolly.card import Header
from brolly.checkpoint.bounded import MAX_TENSORS, json_object, shape_of, shown
from brolly.checkpoint.gathered import Gathered, is_folder, names_in, size_there
from brolly.errors import CheckpointError, NotFound
from brolly.place import Where

MARKS = ("_METADATA", "manifest.ocdbt", "_sharding", "array_metadatas")
ARRAYS = (".zarray", "zarr.json")
ZARR2 = re.compile(r"[<>|=]?([biufc])(\d{1,2})")
KINDS = {"b": "BOOL", "i": "I", "u": "U", "f": "F", "c": "C"}
WORDS = {
    "bool": "BOOL", "bfloat16": "BF16", "int2": "I2", "int4": "I4", "uint2": "U2", "uint4": "U4", "complex64": "C64",
    "complex128": "C128", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ", "float8_e4m3b11fnuz": "F8_E4M3B11FNUZ", "float8_e8m0fnu": "F8_E8M0",
    "float4_e2m1fn": "F4",
} | {f"{a}{n}": f"{b}{n}" for a, b in (("int", "I"), ("uint", "U")) for n in (8, 16, 32, 64)} | {
    f"float{n}": f"F{n}" for n in (16, 32, 64)
}  # fmt: skip
TRAINING = re.compile(r"(?:^|\.)(?:opt_state|optimizer|opt|ema|step|rng|rngs|dropout_rng|batch_stats_ema)(?:\.|$)")
MAX_FOLDERS, MAX_LEVELS = 100_000, 6
MAX_PARTS = 64


def read_orbax(path: Where) -> Header:
    """The arrays of a checkpoint's folder: of itself, of its items, or of its newest step.

    Zarr arrays in folders of their own are told in full; their bytes are in chunks, so offsets are -1 and `file` is the
    array's own description. Of an OCDBT, names are told and dtypes are not: then there are no tensors.
    metadata: step, items, names (of all leaves), value_types {name: type}, layout ("zarr", "zarr3", "ocdbt"),
    told (whether `tensors` has every array), shapes {name: shape} where an array lies on one device, so that what was
    written is the whole, write_shapes {name: shape of one device's part}, handlers and custom (of the step),
    training_state (names of what is not weights), faults. Raises NotFound, CheckpointError.
    """
    if not is_folder(path):
        path = path.parent
    folder, step = _newest(path)
    parts = _items(folder)
    if not parts:
        raise CheckpointError(f"{path} holds neither arrays nor a tree of names; expected an Orbax checkpoint.")
    found = Gathered(path)
    says: dict[str, Any] = {
        "step": step, "items": [name for name, _ in parts if name], "names": [], "value_types": {}, "layout": None,
        "told": True, "shapes": {}, "write_shapes": {}, "handlers": {}, "custom": None,
    }  # fmt: skip
    files: list[Where] = []
    if (notes := _object(folder / "_CHECKPOINT_METADATA")) is not None:
        files.append(folder / "_CHECKPOINT_METADATA")
        handlers = notes.get("item_handlers")
        says["handlers"] = handlers if isinstance(handlers, (dict, str)) else {}
        says["custom"] = notes.get("custom_metadata", notes.get("custom"))
    for name, part in parts:
        _item(part, f"{name}." if name and len(parts) > 1 else "", found, says, files)
    says["training_state"] = [n for n in says["names"] if TRAINING.search(n)]
    return Header(path, "orbax", found.tensors, {}, says | {"faults": found.faults}, tuple(files))


def _newest(path: Where) -> tuple[Where, int | None]:
    """The folder to read, and the step that it is where `path` holds several."""
    if _items(path):
        return path, int(path.name) if path.name.isdecimal() and len(path.name) < 12 else None
    steps = []
    for name in names_in(path)[:MAX_FOLDERS]:
        if (matched := re.fullmatch(r"(?:.*[_-])?(\d{1,11})", name)) and is_folder(path / name):
            steps.append((int(matched[1]), name))
    for number, name in sorted(steps, reverse=True)[:8]:
        if _items(path / name):
            return path / name, number
    return path, None


def _items(folder: Where) -> list[tuple[str, Where]]:
    """What a step is made of: itself ("") or the folders within that hold arrays or a tree of names."""
    names = names_in(folder)
    if any(mark in names for mark in MARKS):
        return [("", folder)]
    inner = [n for n in names[:MAX_FOLDERS] if not n.startswith((".", "_"))]
    found = [(n, folder / n) for n in inner if any(there(folder / n / m) for m in MARKS)][:MAX_PARTS]
    if not found and any(there(folder / n / mark) for n in inner[:MAX_PARTS] for mark in ARRAYS):
        return [("", folder)]
    return found


def there(path: Where) -> bool:
    return size_there(path) is not None or is_folder(path)


def _object(path: Where) -> dict[str, Any] | None:
    return json_object(path) if size_there(path) is not None else None


def _item(folder: Where, prefix: str, found: Gathered, says: dict[str, Any], files: list[Where]) -> None:
    """Keep one item's arrays and names."""
    tree = _object(folder / "_METADATA")
    leaves: dict[str, str] = {}
    if tree is not None:
        files.append(folder / "_METADATA")
        leaves = _leaves(tree, folder)
        says["value_types"] |= {prefix + name: kind for name, kind in leaves.items()}
    ocdbt = size_there(folder / "manifest.ocdbt") is not None
    if not ocdbt:
        for name, where in _zarrs(folder):
            _array(prefix + name, where, found)
            files.append(where)
            leaves.setdefault(name, "zarr")
            says["layout"] = "zarr" if where.name == ".zarray" else "zarr3"
        missing = [n for n, kind in leaves.items() if _is_array(kind) and prefix + n not in found.tensors]
        if missing:
            said = f"lacks {len(missing)} of its {len(leaves)} arrays ({shown(missing[0])} …); pull it again."
            found.faults.append(f"{folder.name} {said}")
    else:
        files.append(folder / "manifest.ocdbt")
        says["layout"], says["told"] = "ocdbt", False
        written = _written(folder)
        says["write_shapes"] |= {prefix + name: shape for name, shape in written.items()}
        if _on_one_device(folder):
            says["shapes"] |= {prefix + name: shape for name, shape in written.items()}
        for name in written:
            leaves.setdefault(name, "jax.Array")
    says["names"] += [prefix + name for name in leaves]


def _is_array(kind: str) -> bool:
    return kind in ("jax.Array", "np.ndarray", "jax.ndarray")


def _leaves(tree: dict[str, Any], folder: Where) -> dict[str, str]:
    """Names of the leaves, joined by points as Orbax names its arrays, and the type of each; empty nodes left out."""
    entries = tree.get("tree_metadata", {})
    if not isinstance(entries, dict) or len(entries) > MAX_TENSORS:
        raise CheckpointError(f"{folder}/_METADATA has no tree of at most {MAX_TENSORS:,} names.")
    found: dict[str, str] = {}
    for title, entry in entries.items():
        keys = entry.get("key_metadata") if isinstance(entry, dict) else None
        if isinstance(keys, list) and all(isinstance(k, dict) for k in keys):
            name = ".".join(str(k.get("key"))[:256] for k in keys[:64])
        else:
            name = ".".join(re.findall(r"'([^']{0,256})'", title[:4096])) or title[:4096]
        name = name.encode("utf-8", "replace").decode()  # half of a surrogate pair would break whoever prints it
        value = entry.get("value_metadata") if isinstance(entry, dict) else None
        value = value if isinstance(value, dict) else {}
        if not value.get("skip_deserialize"):
            found[name] = str(value.get("value_type"))[:80]
    return found


def _zarrs(folder: Where) -> list[tuple[str, Where]]:
    """Arrays below a folder: name (folders joined by points) and description."""
    found: list[tuple[str, Where]] = []
    todo: list[tuple[str, Where, int]] = [("", folder, 0)]
    seen = 0
    while todo:
        prefix, here, level = todo.pop()
        for name in names_in(here):
            seen += 1
            if seen > MAX_FOLDERS or len(found) > MAX_TENSORS:
                raise CheckpointError(f"{folder} holds more than {MAX_FOLDERS:,} folders, as no real checkpoint does.")
            child = here / name
            if name.startswith((".", "_")) or not is_folder(child):
                continue
            for mark in ARRAYS:
                if size_there(child / mark) is not None:
                    found.append((prefix + name, child / mark))
                    break
            else:
                if level + 1 < MAX_LEVELS:
                    todo.append((f"{prefix}{name}.", child, level + 1))
    return sorted(found, key=lambda row: row[0])


def _array(name: str, where: Where, found: Gathered) -> None:
    try:
        said = json_object(where)
    except NotFound:
        raise CheckpointError(f"{where} went away while it was read.") from None
    kind = said.get("dtype", said.get("data_type"))
    dtype = WORDS.get(kind) if isinstance(kind, str) else None
    if dtype is None and isinstance(kind, str) and (matched := ZARR2.fullmatch(kind)):
        dtype = "BOOL" if matched[1] == "b" else f"{KINDS[matched[1]]}{int(matched[2]) * 8}"
    if dtype is None or dtype not in WORDS.values():
        raise CheckpointError(f"{where} has dtype {shown(kind)}; expected one of zarr's.")
    found.add(name, dtype, shape_of(said.get("shape"), str(where)), where, -1)


def _written(folder: Where) -> dict[str, list[int]]:
    """The shape that each process wrote of each array, by the first process that tells."""
    found: dict[str, list[int]] = {}
    inner = folder / "array_metadatas"
    for name in [n for n in names_in(inner) if n.startswith("process_")][:MAX_PARTS]:
        rows = json_object(inner / name).get("array_metadatas")
        for row in rows[:MAX_TENSORS] if isinstance(rows, list) else []:
            said = row.get("array_metadata") if isinstance(row, dict) else None
            if isinstance(said, dict) and isinstance(said.get("param_name"), str):
                shape = shape_of(said.get("write_shape"), f"{inner / name}: {shown(said['param_name'])}")
                found.setdefault(said["param_name"][:4096], list(shape))
    return found


def _on_one_device(folder: Where) -> bool:
    """Whether every array lay on one device when it was written, as _sharding says."""
    from brolly.checkpoint.bounded import parse_json

    said = _object(folder / "_sharding")
    if not said:
        return False
    for value in said.values():
        inner = parse_json(value.encode("utf-8", "replace"), f"{folder}/_sharding") if isinstance(value, str) else value
        if not isinstance(inner, dict):
            return False
        if inner.get("sharding_type") == "NamedSharding":
            mesh = inner.get("shape")
            if not isinstance(mesh, list) or any(n != 1 for n in mesh):
                return False
        elif inner.get("sharding_type") != "SingleDeviceSharding":
            return False
    return True
