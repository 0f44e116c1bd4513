"""The card as JSON: the shape of data/card.schema.json, which docs/identify.md explains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from brolly.identity.card import Card

VERSION = "1"


def to_json(card: Card, *, why: bool = False) -> dict[str, Any]:
    """One object of plain values; null where the files do not tell."""
    kind, size, needs, licence, training = card.kind, card.parameters, card.needs, card.licence, card.training
    base = list(kind.base_model)
    out: dict[str, Any] = {
        "schema": VERSION,
        "path": str(card.subject.where) if not card.from_table else None,
        "from": card.origin,
        "name": card.name,
        "shaped_as": card.shaped_as,
        "family": kind.family,
        "kind": kind.kind,
        "is_llm": kind.is_llm,
        "sentence": kind.sentence,
        "flavours": list(kind.flavours),
        "scope": kind.scope,
        "scope_why": kind.scope_why,
        "relation": kind.relation,
        "base_model": None if not base else base[0] if len(base) == 1 else base,
        "modalities": {"in": list(kind.modalities_in), "out": list(kind.modalities_out)},
        "format": card.header.format,
        "parameters": {
            "total": size.total,
            "activated": size.activated,
            "activated_without_embeddings": size.activated_without_embeddings,
            "exact": size.exact,
            "source": size.source,
            "components": dict(size.components),
        },
        "size_class": size.size_class,
        "precision": size.precision,
        "precision_shares": {k: round(v, 6) for k, v in size.shares.items()},
        "quantization": size.quantization,
        "context_length": needs.context_length,
        "kv_bytes_per_token": needs.kv_bytes_per_token,
        "needs": {
            "disk": needs.disk,
            "memory": dict(needs.memory),
            "kv_bytes_full_context": needs.kv_bytes_full_context,
            "flop_per_token": needs.flop_per_token,
            "training_memory": dict(needs.training_memory),
            "fits": needs.fits,
            "machine_memory": needs.machine_memory,
            "tokens_per_second": needs.tokens_per_second,
        },
        "licence": {
            "id": licence.id,
            "name": licence.name,
            "commercial": licence.commercial,
            "redistribution": licence.redistribution,
            "free_and_open": licence.free_and_open,
            "conditions": list(licence.conditions),
            "inherited_from": licence.inherited_from,
            "url": licence.url,
            "openness": dict(licence.openness),
            "mof_class": licence.mof_class,
        },
        "training": {"tokens": training.tokens, "flop": training.flop, "source": training.source},
        "rules": [rule._asdict() | {"inputs": dict(rule.inputs)} for rule in card.rules],
        "findings": [finding._asdict() for finding in card.findings],
        "verbs": list(card.verbs),
        "verbs_why": card.verbs_why,
    }
    if card.row:
        out["sources"] = {fact: dict(source) for fact, source in card.row.sources.items()}
        out["organization"], out["released"], out["open"] = card.row.organization, card.row.released, card.row.open
        out["others"] = list(card.others)
    out |= card.more
    if why:
        out["why"] = [evidence._asdict() for evidence in card.why]
    return out
