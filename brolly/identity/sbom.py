"""The card as a bill of materials: CycloneDX 1.6 (ML-BOM) and SPDX 3.0.1 (AI profile), as plain values.

CycloneDX has no field for a parameter count or a base model: those are properties (names of the draft taxonomy
cdx:ai-ml where it has one) and pedigree.ancestors. SPDX's AI profile asks for a release time, a supplier, a version and
a download location: where files do not tell, it gets NOASSERTION, or the time of the newest file, said so in a comment.
"""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from brolly import __version__
from brolly.checkpoint.bounded import opened

if TYPE_CHECKING:
    from brolly.identity.card import Card

SPACE = uuid.UUID("6c0e8f3a-6f5e-5c53-9e0b-1d0a54f3b2c7")  # of our serial numbers
CHUNK = 2**20
TOOL = {"type": "application", "name": "brolly", "version": __version__}


def cyclonedx(card: Card, *, hashes: bool = False) -> dict[str, Any]:
    """A CycloneDX 1.6 document. `hashes` reads every file for its SHA-256."""
    kind, licence = card.kind, card.licence
    files = [_cyclonedx_file(name, n_bytes, digest) for name, n_bytes, digest in contents(card, hashes)]
    parameters: dict[str, Any] = {
        "task": _task(card),
        "architectureFamily": kind.family,
        "modelArchitecture": _architecture(card),
        "datasets": [{"type": "dataset", "name": name} for name in datasets(card)],
        "inputs": [{"format": m} for m in kind.modalities_in],
        "outputs": [{"format": m} for m in kind.modalities_out],
    }
    model = {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": title(card),
        "version": _version(card),
        "description": kind.sentence,
        "licenses": _cyclonedx_licences(card),
        "purl": _purl(card),
        "modelCard": {"modelParameters": {k: v for k, v in parameters.items() if v}},
        "pedigree": {"ancestors": [{"type": "machine-learning-model", "name": n} for n in kind.base_model]},
        "externalReferences": [{"type": "license", "url": licence.url}] if licence.url else [],
        "properties": [{"name": k, "value": v} for k, v in properties(card)],
        "components": files,
    }
    if not kind.base_model:
        model.pop("pedigree")
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": uuid.uuid5(SPACE, _identity(card)).urn,
        "version": 1,
        "metadata": {
            "timestamp": _now(),
            "tools": {"components": [TOOL]},
            "component": {k: v for k, v in model.items() if v},
        },
    }
    return document


def _cyclonedx_file(name: str, n_bytes: int, digest: str) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "type": "file", "bom-ref": f"file:{name}", "name": name,
        "properties": [{"name": "brolly:file:bytes", "value": str(n_bytes)}],
    }  # fmt: skip
    if digest:
        entry["hashes"] = [{"alg": "SHA-256", "content": digest}]
    return entry


def _cyclonedx_licences(card: Card) -> list[dict[str, Any]]:
    from brolly.identity.licences import spdx_id

    licence = card.licence
    if not licence.id and not licence.name:
        return []
    spdx = spdx_id(licence.id)
    found: dict[str, Any] = {"id": spdx} if spdx else {"name": licence.name or licence.id}
    if licence.url:
        found["url"] = licence.url
    return [{"license": found | {"acknowledgement": "declared"}}]


def properties(card: Card) -> Iterator[tuple[str, str]]:
    """What CycloneDX has no field for, as name and text."""
    data = card.json()
    size = data["parameters"]
    rows: list[tuple[str, Any]] = [
        ("cdx:ai-ml:model:parameter:count", size["total"]),
        ("brolly:parameters:activated", size["activated"]),
        ("brolly:parameters:activated-without-embeddings", size["activated_without_embeddings"]),
        ("brolly:parameters:exact", str(size["exact"]).lower()),
        ("brolly:size-class", data["size_class"]),
        ("brolly:kind", data["kind"]),
        ("brolly:is-llm", None if data["is_llm"] is None else str(data["is_llm"]).lower()),
        ("brolly:scope", data["scope"]),
        ("brolly:relation", data["relation"]),
        ("brolly:format", data["format"]),
        ("brolly:precision", data["precision"]),
        ("brolly:quantization", data["quantization"]),
        ("brolly:context-length", data["context_length"]),
        ("brolly:training:tokens", data["training"]["tokens"]),
        ("brolly:training:flop", data["training"]["flop"]),
        ("brolly:training:source", data["training"]["source"]),
        ("brolly:licence:commercial", data["licence"]["commercial"]),
        *((f"brolly:rule:{rule['id']}", rule["outcome"]) for rule in data["rules"]),
        *((f"brolly:finding:{f['severity']}", f"{f['id']}: {f['file']}: {f['message']}") for f in data["findings"]),
    ]
    for name, value in rows:
        if value is not None:
            yield name, str(value)


def spdx(card: Card, *, hashes: bool = False) -> dict[str, Any]:
    """An SPDX 3.0.1 JSON-LD document with the AI profile. `hashes` reads every file for its SHA-256."""
    from brolly.identity.licences import spdx_id

    kind, licence = card.kind, card.licence
    base = f"https://spdx.org/spdxdocs/brolly-{uuid.uuid5(SPACE, _identity(card))}"
    info, package = "_:creationinfo", f"{base}#model"
    organization = _organization(card) or "NOASSERTION"
    time, told = _released(card)
    graph: list[dict[str, Any]] = [
        {
            "type": "CreationInfo", "@id": info, "specVersion": "3.0.1", "created": _now(),
            "createdBy": [f"{base}#brolly"], "createdUsing": [f"{base}#tool"],
        },
        {"type": "SoftwareAgent", "spdxId": f"{base}#brolly", "creationInfo": info, "name": "brolly"},
        {"type": "Tool", "spdxId": f"{base}#tool", "creationInfo": info, "name": f"brolly {__version__}"},
        {"type": "Organization", "spdxId": f"{base}#supplier", "creationInfo": info, "name": organization},
    ]  # fmt: skip
    notes = [] if told else ["The release time is that of the newest file; the files tell no other."]
    notes += [f"{f.severity}: {f.id}: {f.file}: {f.message}" for f in card.findings]
    model: dict[str, Any] = {
        "type": "ai_AIPackage", "spdxId": package, "creationInfo": info, "name": title(card),
        "summary": kind.sentence, "comment": "\n".join(notes),
        "releaseTime": time, "suppliedBy": f"{base}#supplier",
        "software_downloadLocation": _download(card), "software_packageVersion": _version(card) or "NOASSERTION",
        "software_packageUrl": _purl(card), "software_primaryPurpose": "model",
        "ai_typeOfModel": [t for t in (kind.family, _architecture(card), kind.kind) if t],
        "ai_domain": [kind.scope] if kind.scope else [],
        "ai_informationAboutTraining": _training(card),
        "ai_informationAboutApplication": f"{', '.join(kind.modalities_in)} to {', '.join(kind.modalities_out)}"
        if kind.modalities_in
        else "",
        "ai_hyperparameter": [
            {"type": "DictionaryEntry", "key": name, "value": value} for name, value in properties(card)
            if not name.startswith(("brolly:rule", "brolly:finding"))
        ],
        "ai_standardCompliance": [],
    }  # fmt: skip
    graph.append({k: v for k, v in model.items() if v})
    name = spdx_id(licence.id) or ("LicenseRef-" + re.sub(r"[^A-Za-z0-9.-]+", "-", licence.id) if licence.id else "")
    graph.append(
        {
            "type": "simplelicensing_LicenseExpression", "spdxId": f"{base}#licence", "creationInfo": info,
            "simplelicensing_licenseExpression": name or "NOASSERTION",
        }
    )  # fmt: skip
    elements = [package, f"{base}#licence", f"{base}#supplier"]

    def relate(kind: str, source: str, targets: list[str]) -> None:
        key = f"{base}#relation-{sum(e['type'] == 'Relationship' for e in graph) + 1}"
        graph.append(
            {
                "type": "Relationship", "spdxId": key, "creationInfo": info, "from": source,
                "relationshipType": kind, "to": targets,
            }
        )  # fmt: skip
        elements.append(key)

    relate("hasDeclaredLicense", package, [f"{base}#licence"])
    relate("hasConcludedLicense", package, [f"{base}#licence"])
    files = []
    for number, (path, n_bytes, digest) in enumerate(contents(card, hashes), 1):
        entry: dict[str, Any] = {
            "type": "software_File", "spdxId": f"{base}#file-{number}", "creationInfo": info, "name": path,
            "software_primaryPurpose": "model" if path.endswith(_WEIGHTS) else "data", "software_fileKind": "file",
            "comment": f"{n_bytes} bytes",
        }  # fmt: skip
        if digest:
            entry["verifiedUsing"] = [{"type": "Hash", "algorithm": "sha256", "hashValue": digest}]
        graph.append(entry)
        files.append(entry["spdxId"])
    if files:
        elements += files
        relate("contains", package, files)

    def named(key: str, name: str, purpose: str) -> str:
        entry = {"type": "software_Package", "spdxId": key, "creationInfo": info, "name": name}
        graph.append(entry | {"software_primaryPurpose": purpose})
        elements.append(key)
        return key

    for number, ancestor in enumerate(kind.base_model, 1):
        relate("descendantOf", package, [named(f"{base}#base-{number}", ancestor, "model")])
    if sets := [named(f"{base}#dataset-{n}", name, "data") for n, name in enumerate(datasets(card), 1)]:
        relate("trainedOn", package, sets)
    graph.append(
        {
            "type": "software_Sbom", "spdxId": f"{base}#sbom", "creationInfo": info, "rootElement": [package],
            "element": elements, "software_sbomType": ["analyzed"],
        }
    )  # fmt: skip
    graph.append(
        {
            "type": "SpdxDocument", "spdxId": base, "creationInfo": info, "name": title(card),
            "profileConformance": ["core", "software", "ai", "simpleLicensing"], "rootElement": [f"{base}#sbom"],
            "element": [f"{base}#sbom", *elements],
        }
    )  # fmt: skip
    return {"@context": "https://spdx.org/rdf/3.0.1/spdx-context.jsonld", "@graph": graph}


_WEIGHTS = (".safetensors", ".gguf", ".bin", ".pt", ".pth", ".onnx", ".h5", ".msgpack", ".npz", ".ckpt", ".tflite")


def contents(card: Card, hashes: bool) -> Iterator[tuple[str, int, str]]:
    """The model's files: path, bytes, and the SHA-256 where asked for."""
    if card.from_table:
        return
    for name, n_bytes in sorted(card.subject.files.items()):
        yield name, n_bytes, sha256(card, name) if hashes else ""


def sha256(card: Card, name: str) -> str:
    """SHA-256 of one of the model's files."""
    seen = hashlib.sha256()
    with opened(card.subject.folder / name) as (file, _):
        while chunk := file.read(CHUNK):
            seen.update(chunk)
    return seen.hexdigest()


def datasets(card: Card) -> list[str]:
    """The data that the model card names."""
    said = card.subject.front_matter.get("datasets")
    return [str(d) for d in (said if isinstance(said, list) else [said]) if d]


def title(card: Card) -> str:
    return card.subject.name or card.name or card.kind.family or card.subject.where.name or "model"


def _task(card: Card) -> str | None:
    said = card.subject.front_matter.get("pipeline_tag")
    return str(said) if said else None


def _architecture(card: Card) -> str | None:
    named = card.header.config.get("architectures")
    if isinstance(named, list) and named and isinstance(named[0], str):
        return named[0]
    said = card.header.config.get("_class_name") or card.header.metadata.get("general.architecture")
    return said if isinstance(said, str) else None


def _version(card: Card) -> str:
    """The revision, where the files lie in the Hugging Face cache."""
    found = re.search(r"snapshots[/\\]([0-9a-f]{40})", str(card.subject.where))
    return found[1] if found else ""


def _purl(card: Card) -> str:
    """pkg:huggingface/org/name@revision, where the name is known."""
    name = card.subject.name
    if not name or not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return ""
    revision = _version(card)
    return f"pkg:huggingface/{name}" + (f"@{revision}" if revision else "")


def _download(card: Card) -> str:
    name = card.subject.name
    return f"https://huggingface.co/{name}" if name and "/" in name and "://" not in name else "NOASSERTION"


def _organization(card: Card) -> str:
    known = card.known
    if known:
        return known.organization or ""
    name = card.subject.name
    return name.partition("/")[0] if name and "/" in name else ""


def _released(card: Card) -> tuple[str, bool]:
    """When it was released, and whether anything tells that."""
    known = card.known
    if known and known.released and re.fullmatch(r"\d{4}-\d{2}-\d{2}", known.released):
        return f"{known.released}T00:00:00Z", True
    newest = 0.0
    for name in card.subject.files if not card.from_table else ():
        path = str(card.subject.folder / name)
        if os.path.exists(path):
            newest = max(newest, os.path.getmtime(path))
    return datetime.fromtimestamp(newest, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), False


def _training(card: Card) -> str:
    training = card.training
    told = [f"{training.tokens:.3g} tokens"] if training.tokens else []
    told += [f"{training.flop:.2g} FLOP"] if training.flop else []
    return f"{', '.join(told)} ({training.source})" if told else ""


def _identity(card: Card) -> str:
    """What makes two documents of the same files the same: names and sizes."""
    files = "\n".join(f"{n} {s}" for n, s in sorted(card.subject.files.items())) if not card.from_table else ""
    return f"{title(card)}\n{files}".encode("utf-8", "replace").decode()


def _now() -> str:
    """Now, or SOURCE_DATE_EPOCH, for documents that can be made again byte for byte."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    at = datetime.fromtimestamp(int(epoch), UTC) if epoch.isdigit() else datetime.now(UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
