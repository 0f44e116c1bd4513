"""A sentence-transformers folder: what modules.json lists besides the network, its settings and its tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from brolly.card import Header, TensorInfo
from brolly.checkpoint.bounded import note, opened, parse_json, shown
from brolly.checkpoint.formats import read_file, settings
from brolly.errors import BrollyError, CheckpointError
from brolly.place import Where, there

MAX_MODULES, MAX_LIST = 16, 2**16
LENGTHS = ("sentence_bert_config.json", "sentence_roberta_config.json", "sentence_distilbert_config.json",
           "sentence_camembert_config.json", "sentence_xlm-roberta_config.json")  # fmt: skip
SAID = ("max_seq_length", "do_lower_case", "query_length", "document_length", "query_expansion")


def listed(folder: Where) -> list[dict[str, str]]:
    """Each module's `path` and the last word of its `type`, in order. Raises CheckpointError."""
    with opened(folder / "modules.json") as (file, size):
        rows = parse_json(file.read(min(size, MAX_LIST)), str(folder / "modules.json"))
    good = isinstance(rows, list) and 0 < len(rows) <= MAX_MODULES
    found = (
        [{k: str(row.get(k, "")) for k in ("path", "type")} for row in rows if isinstance(row, dict)] if good else []
    )
    if not found or len(found) < len(rows) or not all(re.fullmatch(r"[\w-]{0,64}", row["path"]) for row in found):
        raise CheckpointError(
            f"{folder / 'modules.json'} is no list of up to {MAX_MODULES} modules, each with its type and its folder."
        )
    return [row | {"type": row["type"].rpartition(".")[2][:64]} for row in found]


def with_modules(folder: Where, header: Header | None, faults: list[CheckpointError] | None) -> Header | None:
    """The network's header, which may lie in a folder of its own, with what comes before and behind the network:
    config["sentence_transformers"]."""
    if not there(folder / "modules.json"):
        return colbert(folder, header, faults) if header is not None else None
    try:
        rows = listed(folder)
        if header is None and rows[0]["path"] and there(folder / rows[0]["path"]):
            from brolly.checkpoint.folders import read_folder

            header = read_folder(folder / rows[0]["path"], faults)
    except CheckpointError as error:
        note(faults, error)
        return header
    if header is None:
        return None
    tensors, files = dict(header.tensors), list(header.files)
    modules: list[Mapping[str, Any]] = []
    for row in rows[1:]:
        place = folder / row["path"]
        modules.append({**((row["path"] and settings(place / "config.json", faults)) or {}), **row})
        if row["type"] == "Dense" and row["path"]:
            found = dense_tensors(place, faults)
            tensors |= {f"{row['path']}/{name}": info for name, info in found.items()}
            files += sorted({info.file for info in found.values()}, key=str)
    first = folder / rows[0]["path"] if rows[0]["path"] else folder
    kept = header.config.get("sentence_transformers")
    said: dict[str, Any] = dict(kept) if isinstance(kept, Mapping) else {}
    tokenizer = settings(first / "tokenizer_config.json", faults) or {}
    said["max_seq_length"] = tokenizer.get("model_max_length")
    said |= settings(folder / "config_sentence_transformers.json", faults) or {}
    for name in LENGTHS:
        own = settings(first / name, faults) or {}
        said |= {key: own[key] for key in SAID if own.get(key) is not None}
    config = {**header.config, "sentence_transformers": {**said, "modules": modules}}
    return header._replace(tensors=tensors, config=config, files=tuple(files))


def colbert(folder: Where, header: Header, faults: list[CheckpointError] | None) -> Header:
    """A network of Stanford's ColBERT, with a layer beside it and artifact.metadata, in PyLate's words."""
    said = settings(folder / "artifact.metadata", faults)
    shape = header.tensors["linear.weight"].shape if "linear.weight" in header.tensors else ()
    if len(shape) != 2 or (said is None and header.config.get("architectures") != ["HF_ColBERT"]):
        return header
    said = said or {}
    dense = {"in_features": shape[1], "out_features": shape[0], "bias": False, "activation_function": "Identity"}
    told: dict[str, Any] = {
        "query_prefix": f"{said.get('query_token_id') or '[unused0]'} ",
        "document_prefix": f"{said.get('doc_token_id') or '[unused1]'} ",
        "query_length": said.get("query_maxlen") or 32,
        "document_length": said.get("doc_maxlen"),
        "attend_to_expansion_tokens": said.get("attend_to_mask_tokens"),
        "modules": [{"path": "", "type": "Dense", **dense}],
    }
    told |= {} if said.get("mask_punctuation", True) else {"skiplist_words": []}
    return header._replace(config={**header.config, "sentence_transformers": told})


def dense_tensors(place: Where, faults: list[CheckpointError] | None) -> dict[str, TensorInfo]:
    """The tensors of a layer's own folder. With `faults`, what is wrong with them is put there."""
    try:
        path = next((place / n for n in ("model.safetensors", "pytorch_model.bin") if there(place / n)), None)
        if path is None:
            raise CheckpointError(f"{place} lacks its weights; pull it again.", "missing-shards", place.name)
        found = read_file(path, faults).tensors
    except BrollyError as error:
        if faults is None or not isinstance(error, CheckpointError):
            raise
        faults.append(error)
        return {}
    return {name: info._replace(name=f"{shown(place.name)[1:-1]}/{name}") for name, info in found.items()}
