"""Orbax, JAX's checkpoints: a folder with a tree of names (_METADATA), and zarr arrays, each a folder or in one OCDBT.

Sources: github.com/google/orbax, checkpoint/orbax/checkpoint/_src/metadata; zarr-specs.readthedocs.io, versions 2 and 3
(read 2026-11).
"""

from __future__ import annotations

import re
from typing import Any

from brolly.card import Header
from brolly.checkpoint.bounded import MAX_TENSORS, json_object, parse_json, shape_of, shown
from brolly.checkpoint.gathered import Gathered, names_in, size_there
from brolly.errors import CheckpointError, NotFound
from brolly.place import Place, Where, is_folder

MARKS = ("_METADATA", "manifest.ocdbt", "_sharding", "array_metadatas")
ARRAYS = (".zarray", "zarr.json")
ARRAY_TYPES = ("jax.Array", "np.ndarray", "jax.ndarray")
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

    An array's bytes are in chunks, packed, so offsets are -1, nbytes is what it takes unpacked, and `file` is its
    description or the OCDBT's manifest. Where the OCDBT cannot be read, there are names and no tensors.
    metadata: step, items, names (of all leaves), value_types {name: type}, layout ("zarr", "zarr3", "ocdbt"),
    told (whether `tensors` has every array), write_shapes {name: shape of one device's part} where it has not,
    handlers and custom (of the step), training_state (names of what is not weights), faults.
    Raises NotFound, CheckpointError.
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
        "told": True, "write_shapes": {}, "handlers": {}, "custom": None,
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
    if isinstance(folder, Place):
        pairs = {tuple(path.split("/", 2)[:2]) for path in _paths(folder)}
        names = sorted({pair[0] for pair in pairs})

        def holds(name: str, marks: tuple[str, ...]) -> bool:
            return any((name, mark) in pairs for mark in marks)
    else:
        names = names_in(folder)[:MAX_FOLDERS]

        def holds(name: str, marks: tuple[str, ...]) -> bool:
            return any(there(folder / name / mark) for mark in marks)

    if any(mark in names for mark in MARKS):
        return [("", folder)]
    inner = [n for n in names if not n.startswith((".", "_"))]
    found = [(n, folder / n) for n in inner if holds(n, MARKS)][:MAX_PARTS]
    return found or ([("", folder)] if any(holds(n, ARRAYS) for n in inner[:MAX_PARTS]) else [])


def _paths(folder: Place) -> list[str]:
    """The files below a folder elsewhere, by their paths within it."""
    base = f"{folder.path}/" if str(folder.path) != "." else ""
    return [path[len(base) :] for path in folder.store.sizes if path.startswith(base)]


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
    else:
        files.append(folder / "manifest.ocdbt")
        says["layout"] = "ocdbt"
        for name in _database(folder, prefix, found, says):
            leaves.setdefault(name, "jax.Array")
    missing = [n for n, kind in leaves.items() if kind in ARRAY_TYPES and prefix + n not in found.tensors]
    if missing and says["told"]:
        said = f"lacks {len(missing)} of its {len(leaves)} arrays ({shown(missing[0])} …); pull it again."
        found.faults.append(f"{folder.name} {said}")
        says["told"] = False
    says["names"] += [prefix + name for name in leaves]


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
    if isinstance(folder, Place):
        for path in _paths(folder):
            above, _, mark = path.rpartition("/")
            if mark in ARRAYS and above.count("/") < MAX_LEVELS:
                found.append((above.replace("/", "."), folder / path))
        return sorted(found, key=lambda row: row[0])
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
            mark = next((m for m in ARRAYS if size_there(child / m) is not None), "")
            if mark:
                found.append((prefix + name, child / mark))
            elif level + 1 < MAX_LEVELS:
                todo.append((f"{prefix}{name}.", child, level + 1))
    return sorted(found, key=lambda row: row[0])


def _database(folder: Where, prefix: str, found: Gathered, says: dict[str, Any]) -> list[str]:
    """Keep the arrays of an OCDBT; their names, or where it cannot be read those of what each process wrote."""
    from brolly.checkpoint.ocdbt import Ocdbt

    manifest, names = folder / "manifest.ocdbt", []
    try:
        with Ocdbt(folder) as database:
            rows = database.values(tuple(f"/{mark}".encode() for mark in ARRAYS))
    except (CheckpointError, NotFound) as error:
        found.faults.append(str(error))
        says["told"] = False
        written = _written(folder)
        says["write_shapes"] |= {prefix + name: shape for name, shape in written.items()}
        return list(written)
    for key, value in rows:
        name = key.rpartition(b"/")[0].decode("utf-8", "replace").replace("/", ".")
        said = parse_json(value, f"{manifest}: {shown(name)}")
        if not isinstance(said, dict):
            raise CheckpointError(f"{manifest}: {shown(name)} is described by a {type(said).__name__}.")
        _keep(prefix + name, said, found, manifest)
        names.append(name)
    return names


def _array(name: str, where: Where, found: Gathered) -> None:
    try:
        _keep(name, json_object(where), found, where)
    except NotFound:
        raise CheckpointError(f"{where} went away while it was read.") from None


def _keep(name: str, said: dict[str, Any], found: Gathered, where: Where) -> None:
    """Keep an array by its description, of either version of zarr."""
    kind = said.get("dtype", said.get("data_type"))
    dtype = WORDS.get(kind) if isinstance(kind, str) else None
    if dtype is None and isinstance(kind, str) and (matched := ZARR2.fullmatch(kind)):
        dtype = "BOOL" if matched[1] == "b" else f"{KINDS[matched[1]]}{int(matched[2]) * 8}"
    if dtype is None or dtype not in WORDS.values():
        raise CheckpointError(f"{where}: array {shown(name)} has dtype {shown(kind)}; expected one of zarr's.")
    found.add(name, dtype, shape_of(said.get("shape"), f"{where}: array {shown(name)}"), where, -1)


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
