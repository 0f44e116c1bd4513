"""Every model below a folder: what each is, which are the same, what is broken. In parallel: reading is Python."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from brolly.checkpoint.formats import MODEL_SUFFIXES
from brolly.errors import BrollyError, NotFound
from brolly.identity import Card, examine, name_of

MARKS = (
    "model_index.json", "config.json", "adapter_config.json", "params.json", "saved_model.pb", "oci-layout",
    "open_clip_config.json", "_METADATA", "_CHECKPOINT_METADATA", "Modelfile",
)  # fmt: skip
SKIPPED = {".git", "__pycache__", "node_modules", ".venv", "site-packages", ".locks", "refs", ".no_exist", "brolly"}
SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.\w+$")
NO_MODEL = (".xml", ".index", ".zip", ".gz", ".tar", ".tgz", ".npy", ".plan", ".h5", ".hdf5", ".npz", ".pkl", ".pickle")
MAX_DEPTH = 32
PARALLEL = 24  # models from which on a second process pays


@dataclass(frozen=True)
class Row:
    """One model of a tree: where it lies, its card as JSON (or an error), and what else has the same fingerprint."""

    path: str
    json: dict[str, Any]
    fingerprint: str | None = None
    error: str = ""
    duplicate_of: str | None = field(default=None)


def survey(folder: str | None = None, *, progress: bool = False) -> list[Row]:
    """A row for every model below a folder, by path; without one, the Hugging Face cache. Raises NotFound."""
    from brolly import hub

    root = Path(folder).expanduser() if folder else hub.cache_folder()
    if not root.exists():
        raise NotFound(f"{root} does not exist; expected a folder that holds models.")
    paths = sorted(models_below(root))
    rows = list(_all(paths, progress))
    first: dict[str, str] = {}
    out = []
    for row in rows:
        twin = first.setdefault(row.fingerprint, row.path) if row.fingerprint else row.path
        copy = None if twin == row.path else twin
        out.append(Row(row.path, row.json | {"duplicate_of": copy}, row.fingerprint, row.error, copy))
    return out


def models_below(root: Path) -> Iterator[str]:
    """Folders that are a model, and files that are one by themselves; nothing within a model is a model of its own."""
    if root.is_file():
        yield str(root)
        return
    todo = [(str(root), 0)]
    while todo:
        path, depth = todo.pop()
        try:
            entries = list(os.scandir(path))
        except OSError:
            continue
        names = {e.name for e in entries}
        if _is_model(names) or path.endswith(".mlpackage"):
            yield path
            continue
        snapshots = "snapshots" in names and "blobs" in names
        for entry in entries:
            try:
                if entry.is_dir(follow_symlinks=False):
                    if depth < MAX_DEPTH and entry.name not in SKIPPED and not (snapshots and entry.name == "blobs"):
                        todo.append((entry.path, depth + 1))
                elif entry.is_file() and _is_alone(entry.name, names):
                    yield entry.path
            except OSError:
                continue


def _is_model(names: set[str]) -> bool:
    weights = any(
        n.endswith((".safetensors", ".gguf", ".bin", ".pt", ".pth", ".msgpack", ".onnx", ".h5")) for n in names
    )
    if names & {"model_index.json", "adapter_config.json", "saved_model.pb", "oci-layout", "open_clip_config.json"}:
        return True
    if names & set(MARKS) and weights or any(n.endswith((".safetensors.index.json", ".bin.index.json")) for n in names):
        return True
    return "config.json" in names and bool(
        names & {"tokenizer.json", "tokenizer_config.json", "generation_config.json"}
    )


def _is_alone(name: str, names: set[str]) -> bool:
    """Whether a loose file is a model: the first of a series only, and no small companion of another."""
    lower = name.lower()
    if name.startswith(".") or not lower.endswith(MODEL_SUFFIXES):
        return False
    if matched := SHARD.fullmatch(name):
        return int(matched[2]) == min(int(m[2]) for n in names if (m := SHARD.fullmatch(n)) and m[1] == matched[1])
    if lower.endswith(NO_MODEL):
        return lower.endswith((".npz", ".h5", ".hdf5", ".pkl", ".pickle", ".plan"))
    companion = name[:-4] + ".xml" in names or name.startswith(("training_args", "optimizer", "tok"))
    return not (lower.endswith(".bin") and companion)


def _all(paths: list[str], progress: bool) -> Iterator[Row]:
    """A row for each path, in their order."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    done = 0

    def say() -> None:
        if progress:
            import sys

            sys.stderr.write(f"\r{done}/{len(paths)} models" if done < len(paths) else "\r\033[K")
            sys.stderr.flush()

    if len(paths) < PARALLEL or cores < 2:
        for path in paths:
            yield look(path)
            done += 1
            say()
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    method = "fork" if hasattr(os, "fork") else "spawn"
    with ProcessPoolExecutor(min(cores, 8), mp_context=get_context(method)) as pool:
        for row in pool.map(look, paths, chunksize=max(1, min(16, len(paths) // (4 * cores)))):
            yield row
            done += 1
            say()


def look(path: str) -> Row:
    """One model's row; whatever is wrong with it is in the row."""
    try:
        card = examine(Path(path), name_of(Path(path)))
        return Row(path, card.json(), fingerprint(card))
    except BrollyError as error:
        return Row(path, _nothing(path, str(error)), None, str(error))
    except Exception as error:  # one model that meets a fault of ours does not end the survey
        told = f"unexpected {type(error).__name__}: {error}; please report it."
        return Row(path, _nothing(path, told), None, told)


def _nothing(path: str, error: str) -> dict[str, Any]:
    """The JSON of a model that could not be read: every key, and a finding."""
    keys = (
        "family", "kind", "is_llm", "scope", "relation", "base_model", "size_class", "precision", "context_length",
        "kv_bytes_per_token", "name", "format",
    )  # fmt: skip
    finding = {"id": "broken-file", "severity": "warning", "file": os.path.basename(path), "message": error}
    size = {"total": None, "activated": None, "activated_without_embeddings": None, "exact": False}
    return {
        "path": path, **dict.fromkeys(keys), "modalities": {"in": [], "out": []}, "parameters": size,
        "licence": {"id": None, "commercial": None}, "training": {"tokens": None, "flop": None, "source": None},
        "rules": [], "findings": [finding], "verbs": [], "error": error,
    }  # fmt: skip


def fingerprint(card: Card) -> str | None:
    """A hash of every tensor's name, type and shape, and of bytes at the beginning, middle and end of each file."""
    import hashlib

    if not card.header.tensors:
        return None
    seen = hashlib.sha256()
    for name, info in sorted(card.header.tensors.items()):
        seen.update(f"{name}\0{info.dtype}\0{info.shape}\n".encode("utf-8", "replace"))
    for file in sorted(card.header.files, key=str):
        path = str(file)
        try:
            size = os.path.getsize(path)
            with open(path, "rb") as raw:
                for at in (size // 4, size // 2, 3 * size // 4, max(0, size - 4096)):
                    raw.seek(at)
                    seen.update(raw.read(4096))
            seen.update(str(size).encode())
        except OSError:
            return None
    return seen.hexdigest()


def show_tree(rows: list[Row], *, colour: bool = False, width: int | None = None) -> str:
    """A table, and what it adds up to; what is to be said of a model stands below it where there is no room beside."""
    from brolly.identity.show import amount, clean, columns, units

    base = os.path.commonpath([os.path.dirname(r.path) for r in rows]) if rows else ""
    width = width or columns()
    room = max(16, min(44, width - 57))
    lines: list[str] = []

    def add(name: str, text: str, note: str, style: str) -> None:
        name = name if len(name) <= room else "…" + name[1 - room :]
        head = f" {name:{room}} {text}"
        parts = [f"{head}  {note}"] if len(head) + 2 + len(note) <= width else [head, f"   {note}"]
        lines.extend(f"\033[{style}m{part.rstrip()}\033[0m" if colour and style else part.rstrip() for part in parts)

    for row in rows:
        name = clean(os.path.relpath(row.path, base) if base else row.path)
        if row.error:
            add(name, "broken", clean(row.error), "31")
            continue
        card = row.json
        worst = [f for f in card["findings"] if f["severity"] != "info"]
        notes = [f"same as {clean(os.path.relpath(row.duplicate_of, base))}"] if row.duplicate_of else []
        if worst:
            more = f" +{len(worst) - 1}" if len(worst) > 1 else ""
            notes.append(f"{worst[0]['severity']}: {worst[0]['id']}{more}")
        size = amount(card["parameters"]["total"]) if card["parameters"]["total"] else "?"
        disk = units(card["needs"]["disk"]) if card["needs"]["disk"] else ""
        what = clean(card["family"] or card["kind"] or "not told")[:14]
        kept = (card["precision"] or "")[:8], clean(card["licence"]["id"] or "-")[:12]
        text = f"{what:14} {size:>7} {kept[0]:8} {disk:>7}  {kept[1]:12}"
        danger = any(f["severity"] == "danger" for f in worst)
        add(name, text, "; ".join(notes), "31" if danger else "33" if notes else "")
    told = [r for r in rows if not r.error]
    whole = sum(r.json["needs"]["disk"] or 0 for r in told)
    twins = [r for r in told if r.duplicate_of]
    problems = sum(bool(r.error) or any(f["severity"] != "info" for f in r.json["findings"]) for r in rows)
    spare = sum(r.json["needs"]["disk"] or 0 for r in twins)
    counted = f"{len(rows)} models, {units(whole)}; {len(twins)} duplicates ({units(spare)}); {problems} with problems"
    return "\n".join([*lines, "", f" {counted}", ""])
