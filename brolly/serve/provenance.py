"""Where an answer comes from: which files, in which numbers, by which version; a short hash and a header that tell."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from brolly import __version__
from brolly.families.peft import SETTINGS, WEIGHTS
from brolly.serve.elsewhere import Elsewhere
from brolly.serve.house import Use


class Provenance(NamedTuple):
    """`fingerprint` is OpenAI's system_fingerprint; `headers` go with every answer."""

    fingerprint: str
    headers: dict[str, str]


_files: WeakKeyDictionary[Any, str] = WeakKeyDictionary()  # a loaded model or adapter → the identity of its files


def provenance(use: Use) -> Provenance:
    """Of the answers that this use gives. Equal files, dtype, version and adapter have equal fingerprints."""
    model = use.model
    if isinstance(model, Elsewhere):  # of which nobody here knows the files
        target = model.target
        return _elsewhere(target.vendor.name, target.host, target.model, use.entry.name)
    if model not in _files:
        _files[model] = identity_of(model.card.header.files or (model.card.header.path,))
    adapter = ""
    if use.adapter is not None:
        lora = model.adapter(use.adapter)
        if lora not in _files:
            _files[lora] = identity_of(model.adapters[use.adapter] / name for name in (SETTINGS, *WEIGHTS))
        adapter = f"{use.adapter}@{_files[lora][:12]}"
    dtype = str(model.dtype).removeprefix("torch.")
    return _provenance(
        _files[model], use.entry.name, use.entry.revision, model.card.licence.id or "unknown", dtype, adapter
    )  # fmt: skip


@lru_cache(256)
def _provenance(files: str, name: str, revision: str, licence: str, dtype: str, adapter: str) -> Provenance:
    rows = {
        "model": name, "revision": revision or files[:12], "licence": licence, "dtype": dtype, "adapter": adapter,
    }  # fmt: skip
    return _told("\n".join((files, revision, dtype, __version__, adapter)), rows)


@lru_cache(256)
def _elsewhere(vendor: str, host: str, model: str, name: str) -> Provenance:
    return _told(f"{vendor} {host} {model}", {"model": name, "host": host})


def _told(said: str, rows: Mapping[str, str]) -> Provenance:
    fingerprint = "fp_" + hashlib.sha256(said.encode()).hexdigest()[:10]
    told = "; ".join(f"{key}={_plain(value)}" for key, value in {**rows, "brolly": __version__}.items() if value)
    return Provenance(fingerprint, {"x-brolly-provenance": told})


def identity_of(files: Any) -> str:
    """Names, sizes and times of change; reading gigabytes for a hash of their bytes would cost more than the answer."""
    found = hashlib.sha256()
    for file in sorted(map(str, files)):
        about = Path(file).stat() if Path(file).exists() else None
        found.update(f"{Path(file).name} {about and about.st_size} {about and about.st_mtime_ns}\n".encode())
    return found.hexdigest()


def _plain(text: str) -> str:
    """What a header may hold."""
    return "".join(c if " " < c < "\x7f" and c not in ";," else "_" for c in text)
