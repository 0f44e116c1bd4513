"""Under which licence: what card, metadata, LICENSE file and base model say, and where they contradict. Not advice."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from brolly.card import Evidence, Finding
from brolly.identity import tables
from brolly.identity.answers import Kind, Known, Licence
from brolly.identity.subject import Subject
from brolly.place import is_folder

DERIVED = ("finetune", "adapter", "quantized", "merge", "draft")
UNTOLD = ("other", "unknown", "none", "n/a", "na", "tbd", "custom", "")
MOST = 200  # characters of a licence's name that a file may state
MANY = 4  # licences that one card may name, and LICENSE files that are read
STRICT = {"no": 0, "conditional": 1, "yes": 2}
NOISE = re.compile(r"licen[cs]e|agreement|community|terms of use|\bversion\b|\bthe\b|\bv(?=\d)")
PYTHON_CODE = re.compile(r"(modeling|modelling|model|pipeline|inference)\w*\.py$")


class Said(NamedTuple):
    """What one place says: the licence's id in the table (None if the table has no such), its words, file and key."""

    id: str | None
    value: str
    file: str
    key: str


def table() -> Any:
    """identity/data/licences.json."""
    return tables.table("licences.json")


def spelling(text: str) -> str:
    """What is left of a licence's name once its spelling does not matter: “Apache License, Version 2.0” is apache20."""
    return re.sub(r"[^a-z0-9+]", "", NOISE.sub("", text.lower())) or re.sub(r"[^a-z0-9+]", "", text.lower())


def licence_named(text: str) -> str | None:
    """The id in the table of a licence spelt in any usual way, or of the address of its text."""
    text = text.strip()[:MOST]
    rows = table()["licences"]
    if text.lower() in rows:
        return text.lower()
    if text.lower() in UNTOLD:
        return None
    if found := table()["spellings"].get(spelling(text)):
        return str(found)
    if "/" in text and "." in text:
        return next((name for part, name in table()["links"] if part in text.lower()), None)
    return None


def spdx_id(name: str | None) -> str | None:
    """The SPDX id of a licence of the table, None where SPDX has none."""
    row = table()["licences"].get(name) if name else None
    return row["spdx"] if row else None


# ---- who says what


def stated(subject: Subject) -> Iterator[Said]:
    """What the files say themselves, in the order of their word: the card, metadata, the LICENSE file."""
    yield from in_card(subject)
    yield from in_metadata(subject)
    yield from in_text(subject)


def in_card(subject: Subject) -> Iterator[Said]:
    """README.md's license; where that is "other" or strange to us, its license_name and license_link."""
    matter = subject.front_matter
    value = matter.get("license")
    known = False
    for text in [v for v in (value if isinstance(value, list) else [value]) if isinstance(v, str)][:MANY]:
        if text.strip().lower() in UNTOLD:
            continue
        whole = licence_named(text)
        for part in [text] if whole else re.split(r"\s+or\s+|\s+and\s+|[,/]", text, flags=re.IGNORECASE)[:MANY]:
            found = licence_named(part)
            known = known or found is not None
            yield Said(found, part.strip()[:MOST], "README.md", "license")
    name, link = matter.get("license_name"), matter.get("license_link")
    if not known and isinstance(name, str) and name.strip().lower() not in UNTOLD:
        known = licence_named(name) is not None
        yield Said(licence_named(name), name.strip()[:MOST], "README.md", "license_name")
    if not known and isinstance(link, str) and licence_named(link):
        yield Said(licence_named(link), link.strip()[:MOST], "README.md", "license_link")


def in_metadata(subject: Subject) -> Iterator[Said]:
    """GGUF's general.license, config.json's license, safetensors' __metadata__."""
    header = subject.header
    name = header.path.name
    for source, file, keys in (
        (header.metadata, name, ("general.license", "general.license.name", "general.license.link")),
        (header.config, "config.json", ("license",)),
        (header.metadata, name, ("license", "modelspec.license")),
    ):
        for key in keys:
            text = source.get(key)
            if isinstance(text, str) and text.strip().lower() not in UNTOLD:
                found = licence_named(text)
                if found or not key.endswith(".link"):
                    yield Said(found, text.strip()[:MOST], file, key)


def in_text(subject: Subject, *, notices: bool = True) -> Iterator[Said]:
    """The LICENSE files beside the weights, recognised by their text; the model's own before others."""
    if is_folder(subject.where):
        names = [name for name in subject.files if "/" not in name]
    elif subject.has("README.md") or subject.has("config.json"):
        names = [n for n in ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "COPYING") if subject.has(n)]
    else:  # a file alone in somebody's folder: what lies there may belong to something else
        names = []
    words = ("licen", "copying", "notice", "policy", "terms")
    if not any(word in name.lower() for name in names for word in words):
        return
    from brolly.identity import licence_text

    ranked = sorted((r, n) for n in names if (r := licence_text.rank(n)) is not None and (notices or r < 2))
    for _, name in ranked[:MANY]:
        if found := licence_text.licence_in(subject.text(name, licence_text.MAX_TEXT)):
            yield Said(found[0], found[1], name, "text")


def of_base(name: str) -> Said | None:
    """The licence of a published model by its repository's name: the table of known models, or a pattern of names."""
    from brolly.identity.known import by_name

    wanted = name.strip().lower().removeprefix("https://huggingface.co/")[:MOST]
    for row in by_name(wanted):
        if row.licence and wanted in [i.lower() for i in row.ids]:
            return Said(licence_named(row.licence), row.licence, "table of known models", row.name)
    for pattern, licence in table()["bases"]:
        if re.match(pattern, wanted):
            return Said(licence, licence, "table of licences", name)
    return None


# ---- the answer


def licence_of(subject: Subject, kind: Kind, known: Known | None) -> Licence:
    """The licence as far as files tell; a derived model is bound by its base's licence as well."""
    own = next((s for s in stated(subject) if s.id), None) or next(stated(subject), None)
    base, base_name = strictest(kind.base_model) if kind.relation in DERIVED else (None, None)
    if known and known.licence:
        row = Said(licence_named(known.licence), known.licence, "table of known models", known.name)
        if known.matched == "shape":
            pass  # a shape is no licence
        elif kind.relation in DERIVED and not kind.base_model:
            base, base_name = row, known.name
        elif kind.relation not in DERIVED:
            own = own or row
    openness, why = _openness(subject, known)
    if not own and not base and known and known.licence and known.matched == "shape":
        rule = "that of the model whose shape it has; whether this one has it, no file tells"
        why.append(Evidence("licence", "table of known models", known.name, known.licence, rule))
    if base and base_name:
        rule = "a derived model stays bound by its base model's licence"
        why.insert(0, Evidence("licence", base.file, base_name, base.value, rule))
    if own:
        why.insert(0, Evidence("licence", own.file, own.key, own.value, "the first place that names a licence"))
    first = own or base
    if not first:
        return Licence(None, None, None, None, None, (), None, None, openness, None, tuple(why))
    granted = _row(first)
    inherited = None if own else base_name
    if own and base and (bound := _bound(granted, _row(base))) != granted:
        granted, inherited = bound, base_name
    why.append(
        Evidence("licence.commercial", "table of licences", first.id or "", str(granted["commercial"]), granted["how"])
    )
    return Licence(
        id=first.id or first.value,
        name=granted["name"],
        commercial=granted["commercial"],
        redistribution=granted["redistribution"],
        free_and_open=granted["free"],
        conditions=tuple(granted["conditions"]),
        inherited_from=inherited,
        url=granted["url"] or _link(subject),
        openness=openness,
        mof_class=_mof(subject, granted) if openness["weights"] else None,
        why=tuple(why),
    )


def _bound(row: dict[str, Any], under: dict[str, Any]) -> dict[str, Any]:
    """What a licence grants of a model whose base model's licence is `under`: of each right, the lesser."""
    stricter = STRICT.get(under["commercial"], 3) < STRICT.get(row["commercial"], 3)
    closer = row["free"] is True and under["free"] is not True
    if not stricter and not closer:
        return row
    added = [f"The base model's licence binds too: {under['name']}."]
    return row | {
        "commercial": under["commercial"] if stricter else row["commercial"],
        "redistribution": under["redistribution"] if row["redistribution"] == "yes" else row["redistribution"],
        "free": under["free"] if closer else row["free"],
        "osi": row["osi"] and under["osi"],
        "conditions": [*row["conditions"], *added, *(c for c in under["conditions"] if c not in row["conditions"])],
    }


def strictest(names: tuple[str, ...]) -> tuple[Said | None, str | None]:
    """Of several base models, the one whose licence grants least."""
    found = [(said, name) for name in names[:16] if (said := of_base(name))]
    if not found:
        return None, None
    return min(found, key=lambda f: STRICT.get(_row(f[0])["commercial"], 3))


def _row(said: Said) -> dict[str, Any]:
    """The table's row of a licence with its conditions in sentences; of one that it lacks, what its name says."""
    row = table()["licences"].get(said.id) if said.id else None
    if row is None:
        barred = re.search(r"non-?_? ?commercial|research[-_ ]only|\bnc\b", said.value.lower())
        how = "its own name says non-commercial" if barred else "not in the table of licences"
        return {"name": said.value, "commercial": "no" if barred else None, "redistribution": None, "url": None,
                "free": False if barred else None, "conditions": [], "how": how, "osi": False}  # fmt: skip
    sentences = table()["conditions"]
    read = {
        "spdx": "a well-known licence of the SPDX list",
        "text": f"its text was read on {row['read']}",
        "secondary": f"as others report, {row['read']}",
    }
    how = read.get(row["by"], "from memory; check the text")
    return row | {"conditions": [sentences[c] for c in row["conditions"]], "how": how}


def _link(subject: Subject) -> str | None:
    link = subject.front_matter.get("license_link")
    return link[:MOST] if isinstance(link, str) and link.startswith(("https://", "http://")) else None


def _openness(subject: Subject, known: Known | None) -> tuple[dict[str, bool | None], list[Evidence]]:
    """Whether weights, code and training data can be had: what lies here, and what the card names."""
    header, matter = subject.header, subject.front_matter
    weights: bool | None = True if header.tensors else None
    if weights is None and known and known.matched != "shape":
        weights = {"weights": True, "closed": False}.get(known.open)
    code: bool | None = None
    config: Mapping[str, Any] = header.config
    if any(PYTHON_CODE.search(name) for name in subject.files):
        code = True
    elif "auto_map" not in config and ("_diffusers_version" in config or _in_transformers(config.get("model_type"))):
        code = True  # a class of diffusers or transformers, which are Apache-2.0
    datasets = matter.get("datasets")
    why = []
    if isinstance(datasets, list) and datasets:
        named = ", ".join(str(d)[:60] for d in datasets[:5])
        why = [
            Evidence(
                "licence.openness.data", "README.md", "datasets", named, "named; whether that is all, no file tells"
            )
        ]
    return {"weights": weights, "code": code, "data": None}, why


def _in_transformers(model_type: object) -> bool:

    return isinstance(model_type, str) and model_type in tables.table("architectures.json")["types"]


def _mof(subject: Subject, row: Mapping[str, Any]) -> str | None:
    """Which components of the Model Openness Framework's class III are seen; a class itself no file can prove."""
    if not (row["osi"] or row.get("free")):
        return None
    card = subject.text("README.md")
    measured = re.search(r"(?im)^#+ .{0,80}(?:evaluation|benchmark)", card)
    seen = {
        "model parameters": True,
        "architecture": bool(subject.header.config),
        "model card": len(card) > 500,
        "technical report": "arxiv.org/" in card or "arxiv:" in card,
        "evaluation results": "model-index" in subject.front_matter or measured is not None,
        "data card": False,
    }  # fmt: skip
    have = [name for name, there in seen.items() if there]
    lacking = [name for name, there in seen.items() if not there]
    return f"partial: class III's {', '.join(have)} seen under an open licence; not seen: {', '.join(lacking)}"


# ---- contradictions


def conflicts(subject: Subject, kind: Kind, known: Known | None) -> list[Finding]:
    """Where card, metadata, LICENSE file and base model contradict each other; what is absent is no contradiction."""
    card, meta = [s for s in in_card(subject) if s.id], [s for s in in_metadata(subject) if s.id]
    text = [s for s in in_text(subject, notices=False) if s.id]
    findings = []
    for mine, others in ((card, meta), (card, text), (meta if not card else [], text)):
        if mine and others and not any(agree(a.id, b.id) for a in mine for b in others):
            a, b = mine[0], others[0]
            message = (
                f"{a.file} says {a.id} ({a.key}), and {b.file} says {b.id} ({b.key}); "
                "ask its publisher which of them holds, and until then keep to the stricter."
            )
            findings.append(Finding("licence-conflict", "warning", b.file, message))
    granted = next((s for s in (*card, *meta, *text)), None)
    if granted and kind.relation in DERIVED:
        base, name = strictest(kind.base_model)
        if base and base.id and not agree(granted.id, base.id):
            mine, under = _row(granted)["commercial"], _row(base)["commercial"]
            if mine and under and STRICT[mine] > STRICT[under]:
                message = (
                    f"{granted.file} grants {granted.id} (commercial use: {mine}), but the base model {name} is under "
                    f"{base.id} (commercial use: {under}), which binds what is derived from it."
                )
                findings.append(Finding("licence-base-conflict", "warning", granted.file, message))
    return findings


def agree(one: str | None, other: str | None) -> bool:
    """Whether two ids can mean the same licence: a family (bsd, cc, openrail) agrees with its members."""
    if one == other or one is None or other is None:
        return True
    short, long = sorted((one, other), key=len)
    family = "family" in table()["licences"][short]["conditions"]
    if family and (long.startswith(short) or (short == "openrail" and "openrail" in long)):
        return True
    return {short, long} <= {"modified-mit", "kimi-k2-modified-mit"}
