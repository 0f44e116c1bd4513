"""What a name tells: the lineage behind a shared architecture, a field of knowledge, who published it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from brolly.identity.roles import role
from brolly.identity.tables import table


def spelt(name: str) -> str:
    """A name as the table spells it: "meta-llama/Llama-3.1-8B" → "-meta-llama-llama-3-1-8b-"."""
    return "-" + re.sub(r"[^a-z0-9]+", "-", name[:200].lower()).strip("-") + "-"


def own(name: str) -> str:
    """The part of a hub's name after the organisation."""
    return spelt(name.rpartition("/")[2])


def refine(family: str, does: str, names: Iterable[str]) -> tuple[str, str, str]:
    """Family and role where a name tells more than the architecture, and the name's part that told; "" where none did.

    A name may only move an architecture to a lineage that is built on it: Yi on Llama's, Chronos on T5's.
    """
    kind = role(does).kind if does else None
    for name in names:
        text = own(name)
        for part, over, is_family, is_role in table("lineages.json")["lineages"]:
            if part not in text or (over and over != family):
                continue
            if over == "" and is_role and kind not in (role(is_role).kind, "llm", "text-encoder"):
                continue
            keeps = does in (
                "embedder",
                "reranker",
                "reward",
                "llm-classifier",
                "classifier",
                "draft",
                "tokenizer",
                "optimizer",
            )
            return is_family or family, does if keeps or not is_role else is_role, part.strip("-")
    return family, does, ""


def of_name(name: str) -> tuple[str, str]:
    """Family and role of a base model known by its name alone; empty where the name tells nothing."""
    text = own(name)
    for part, family, does in table("lineages.json")["names"]:
        if part in text:
            return family, does
    return "", ""


def field_of(names: Iterable[str], labels: Iterable[str]) -> tuple[str, str] | None:
    """The field of knowledge that a name, a tag or a data set names, and the word that named it."""
    texts = [own(n) for n in names if n]
    texts += [spelt(label.rpartition("/")[2].rpartition(":")[2]) for label in labels]
    for field, known in table("lineages.json")["domains"].items():
        for told in known:
            if any(f"-{told}-" in text for text in texts):
                return field, told
    return None


def broad_data(datasets: Iterable[str]) -> str | None:
    """A data set among these that is of no field."""
    known = table("lineages.json")["broad"]
    return next((d for d in datasets if any(own(d).startswith(f"-{name}-") for name in known)), None)


def is_publishers(name: str) -> str | None:
    """The organisation, where a hub's name is its own publisher's for a general lineage."""
    organisation, slash, _ = name.lower().partition("/")
    parts = table("lineages.json")["publishers"].get(organisation, "") if slash else ""
    return organisation if parts and any(f"-{p}" in own(name) for p in parts.split(",")) else None
