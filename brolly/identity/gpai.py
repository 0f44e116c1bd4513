"""The Model Documentation Form of the Code of Practice for general-purpose AI (10 July 2025), as far as files tell.

The form is that of the Transparency chapter, after Annexes XI and XII of the AI Act. What only the provider knows
stays empty and says so: a form that guesses is worth less than none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from brolly.identity.card import Card

PROVIDER = "to be filled in by the provider: files do not tell"
TEXT = (
    "Code of Practice for General-Purpose AI Models, Transparency chapter, Model Documentation Form (10 July 2025); "
    "Annexes XI and XII of Regulation (EU) 2024/1689"
)


def form(card: Card) -> dict[str, Any]:
    """Sections of the form → lines, each {"value", "from"}; `value` is None where the provider must fill it in."""
    from brolly.identity.roles import words

    kind, size, needs, licence, training = card.kind, card.parameters, card.needs, card.licence, card.training
    known = card.known

    def line(value: Any, source: str = "the model's files") -> dict[str, Any]:
        told = value is not None and value != "" and value != []
        return {"value": value if told else None, "from": source if told else PROVIDER}

    table = "brolly's table of known models"
    files = table if card.from_table else "the model's files"
    rounded = float(f"{size.total:.1e}") if size.total else None
    limits = f"{needs.context_length:,} tokens" if needs.context_length else None
    return {
        "form": TEXT,
        "note": "Filled as far as files tell; indicative, not legal advice. Check every line before you sign.",
        "general information": {
            "legal name of the model provider": line(known.organization if known else None, table),
            "model name": line(card.name, files),
            "model family": line(kind.family, files),
            "model authenticity (hashes of the weights)": line(None),
            "date of release": line(known.released if known else None, table),
            "date of placing on the Union market": line(None),
            "model dependencies (the model that it modifies)": line(list(kind.base_model), files),
        },
        "model properties": {
            "model architecture": line(words(card.header.config, "architectures") or kind.family, files),
            "design specifications": line(None),
            "input modalities": line(list(kind.modalities_in), files),
            "maximum size of each input": line(limits, files),
            "output modalities": line(list(kind.modalities_out), files),
            "maximum size of each output": line(limits if "text" in kind.modalities_out else None, files),
            "total model size (parameters)": line(size.total, files),
            "total model size (two significant figures)": line(rounded, files),
            "activated parameters": line(size.activated, files),
        },
        "methods of distribution and licences": {
            "distribution channels": line(_channels(card), files),
            "licence": line(licence.id or licence.name, files),
            "licence text": line(licence.url, files),
            "licence conditions": line(list(licence.conditions), files),
            "free and open-source licence (Article 53(2), indicative)": line(licence.free_and_open, files),
        },
        "use": {
            "acceptable use policy": line(_policy(card), files),
            "intended uses": line(None),
            "type and nature of systems for integration": line(None),
            "technical means for integration": line(list(card.verbs), files),
            "required hardware (bytes of memory for the weights)": line(dict(needs.memory) or None, files),
            "required software": line(card.subject.front_matter.get("library_name"), files),
        },
        "training process": {
            "design specifications of the training process": line(None),
            "decision rationale": line(None),
        },
        "information on the data used": {
            "data type and modality": line(list(kind.modalities_in), files),
            "data provenance": line(_datasets(card), files),
            "how data was obtained and selected": line(None),
            "number of data points (tokens)": line(training.tokens, training.source or files),
            "scope and main characteristics": line(None),
            "data curation methodologies": line(None),
            "measures to detect unsuitable data": line(None),
            "measures to detect identifiable biases": line(None),
        },
        "computational resources": {
            "training time": line(None),
            "amount of computation used for training (FLOP)": line(training.flop, training.source or files),
            "measurement methodology": line(_method(training.source)),
        },
        "energy consumption during training and inference": {
            "amount of energy used for training (MWh)": line(None),
            "measurement methodology": line(None),
            "benchmarked energy for inference": line(None),
        },
        "rules (indicative)": {rule.id: line(rule.outcome, f"{rule.article}: {rule.because}") for rule in card.rules},
    }


def _channels(card: Card) -> str | None:
    name = card.subject.name
    if name and "/" in name and "://" not in name:
        return f"Hugging Face Hub: https://huggingface.co/{name}"
    return None


def _policy(card: Card) -> str | None:
    return (
        next((n for n in card.subject.files if n.upper().startswith("USE_POLICY")), None)
        if not card.from_table
        else None
    )


def _datasets(card: Card) -> list[str]:
    from brolly.identity.sbom import datasets

    return datasets(card) if not card.from_table else []


def _method(source: str | None) -> str | None:
    if not source:
        return None
    return "6·N·D of the Guidelines' Annex A.2" if "6" in source and "N" in source else f"as published: {source}"
