"""With how much compute a model was trained: stated, in its card or the Trainer's state, in Epoch's table, or 6·N·D.

The counting is that of the Commission's Guidelines on general-purpose AI models (18 July 2025), Annexes A.1 and A.2. A
card's prose is read in sentences, and a number that could mean something else is left alone.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from brolly.card import Evidence
from brolly.errors import OptionError
from brolly.identity.answers import Kind, Known, Parameters, Training
from brolly.identity.subject import Subject

UTILISATION = 0.5  # as Annex A.3 assumes
WHOLE, LATER = ("pre", "plain"), ("later",)  # stages of training; see prose.py


class Estimate(NamedTuple):
    """One answer to how much: `tokens` where it was made from them; `key` and `value` as the file has them."""

    flop: float
    tokens: float | None
    source: str
    file: str
    key: str
    value: str


def flop_of(parameters: float, tokens: float) -> float:
    """6·N·D (Kaplan et al. 2020; Annex A.2.2): N parameters, of a mixture of experts the activated ones; D tokens."""
    return 6.0 * parameters * tokens


def flop_of_hardware(gpu_hours: float, peak: float, utilisation: float = UTILISATION) -> float:
    """N·L·H·U (Annex A.2.1): accelerator hours, peak FLOP a second, the share of it that was used."""
    return gpu_hours * 3600 * peak * utilisation


def two_figures(value: float) -> float:
    """Rounded as the Guidelines report compute."""
    return float(f"{value:.1e}")


def spoken(flop: float) -> str:
    """“3.8e25”."""
    return f"{flop:.1e}".replace("e+", "e")


# ---- the answer


def training_of(
    subject: Subject,
    kind: Kind,
    parameters: Parameters,
    known: Known | None,
    tokens: float | None = None,
    flop: float | None = None,
) -> Training:
    """Training compute by the best source there is; what others say is kept as evidence. Raises OptionError."""
    for name, value in (("tokens", tokens), ("flop", flop)):
        if value is not None and not (isinstance(value, (int, float)) and math.isfinite(value) and 0 < value < 1e40):
            raise OptionError(f"{name} is {value!r}; expected a positive number such as 15e12.")
    if kind.relation in ("finetune", "adapter", "quantized", "merge"):
        return _derived(subject, kind, parameters, known, tokens, flop)
    found = [
        *_by_user(parameters, tokens, flop),
        *_by_files(subject, parameters),
        *_by_table(parameters, known),
    ]
    stated = tokens or next((e.tokens for e in found if e.tokens), None)
    if not found:
        if not stated and subject.has("README.md"):
            from brolly.identity.prose import card_of, tokens_in

            stated = next((value for value, _ in tokens_in(card_of(subject), parameters.total)), None)
        return Training(stated or (known.tokens if known else None), None, None)
    return Training(found[0].tokens or stated, found[0].flop, found[0].source, _why(found))


def _derived(
    subject: Subject, kind: Kind, parameters: Parameters, known: Known | None, tokens: float | None, flop: float | None
) -> Training:
    """Of a fine-tune, adapter, quantisation or merge: the base model's compute, and what was added to it."""
    user, modified = _by_user(parameters, tokens, flop), _by_files(subject, parameters, LATER)
    own = _is_own(subject, known)
    bases: list[tuple[str, Estimate]] = []
    for name in kind.base_model[:16]:
        row = _row_of(name) or (known if known and not own and len(kind.base_model) == 1 else None)
        bases += [(name, e) for e in [*_by_table(parameters, row)][:1]]
    if own:  # the publisher's own later stage is in the table itself
        bases = [(known.name, e) for e in [*_by_table(parameters, known)][:1]] if known else []
    elif not kind.base_model and known:
        bases = [(known.name, e) for e in [*_by_table(parameters, known)][:1]]
    if not bases:
        bases = [("", e) for e in _by_files(subject, parameters, ("pre",))[:1]]
    distinct = {(e.flop, e.value): e for _, e in bases}
    base = sum(e.flop for e in distinct.values()) or None
    if kind.relation == "quantized":  # nothing is trained
        modified = []
    if user and (kind.relation == "quantized" or own or same_publisher(subject, kind)):
        return Training(tokens, user[0].flop, user[0].source, _why([*user, *distinct.values()]), base=base)
    added = [*user, *modified]
    change = added[0].flop if added else None
    total = (base or 0.0) + (change or 0.0) or None
    names = ", ".join(dict.fromkeys(name for name, _ in bases if name))
    sources = [f"{e.source} of the base model{' ' + names if names else ''}" for e in [*distinct.values()][:1]]
    if change and not (len(added) and added[0].flop == base):
        sources.append(f"{added[0].source} of the modification")
    read = next((e.tokens for e in distinct.values() if e.tokens), None)
    return Training(
        tokens=read if read or not user else tokens,
        flop=total,
        source=" + ".join(sources) or None,
        why=_why([*distinct.values(), *added], in_order=False),
        base=base,
        modification=change,
    )


def same_publisher(subject: Subject, kind: Kind) -> bool:
    """Whether model and base model are one organisation's, by their names on the Hub."""
    mine, base = (subject.name or "").lower(), kind.base_model[0].lower() if kind.base_model else ""
    return "/" in mine and "/" in base and mine.split("/")[0] == base.split("/")[0]


def _is_own(subject: Subject, known: Known | None) -> bool:
    return bool(known and subject.name and subject.name.lower() in [i.lower() for i in known.ids])


def _row_of(name: str) -> Known | None:
    """The row of the table of known models with this repository among its ids."""
    from brolly.identity.known import by_name

    wanted = name.lower().removeprefix("https://huggingface.co/")[:200]
    return next((row for row in by_name(wanted) if wanted in [i.lower() for i in row.ids]), None)


def _why(found: list[Estimate], *, in_order: bool = True) -> tuple[Evidence, ...]:
    """The first is the answer; the others say it too, or otherwise."""
    rules = ["the first source that tells"] + ["for comparison: not used"] * (len(found) - 1)
    rules = rules if in_order else [f"{spoken(e.flop)} FLOP, summed up" for e in found]
    return tuple(
        Evidence("training.flop", e.file, e.key, f"{e.value} → {spoken(e.flop)} FLOP ({e.source})", rule)
        for e, rule in zip(found, rules, strict=True)
    )


# ---- its sources


def _passes(parameters: Parameters) -> float | None:
    """N of 6·N·D: what a full pass touches."""
    return parameters.activated or parameters.total


def _by_user(parameters: Parameters, tokens: float | None, flop: float | None) -> list[Estimate]:
    found = []
    if flop:
        found.append(Estimate(float(flop), tokens, "stated by the user", "", "--flop", f"{flop:g}"))
    if tokens and (n := _passes(parameters)):
        found.append(_six(n, tokens, "tokens stated by the user", "", "--tokens"))
    return found


def _six(n: float, tokens: float, by: str, file: str, key: str) -> Estimate:
    return Estimate(flop_of(n, tokens), tokens, f"6·N·D, {by}", file, key, f"6 · {n:.3g} · {tokens:.3g}")


def _by_table(parameters: Parameters, row: Known | None) -> list[Estimate]:
    if row is None:
        return []
    found = []
    if row.flop:
        source = row.flop_source or "table of known models"
        found.append(Estimate(row.flop, row.tokens, source, "table of known models", row.name, f"{row.flop:g}"))
    n = row.activated or row.parameters or _passes(parameters)
    if row.tokens and n:
        found.append(_six(n, row.tokens, "tokens from the table of known models", "table of known models", row.name))
    return found


def _by_files(subject: Subject, parameters: Parameters, stages: tuple[str, ...] = WHOLE) -> list[Estimate]:
    """What card and Trainer say of these stages of training."""
    n, found = _passes(parameters), []
    total = subject.json("trainer_state.json").get("total_flos") if stages != ("pre",) else None
    if isinstance(total, (int, float)) and not isinstance(total, bool) and 1e9 < total < 1e30:
        found.append(
            Estimate(float(total), None, "the Trainer's count", "trainer_state.json", "total_flos", f"{total:g}")
        )
    if not subject.has("README.md"):
        return found
    from brolly.identity.prose import PEAK, card_of, flop_in, hours_in, tokens_in

    card = card_of(subject)
    for value, text in flop_in(card, stages)[:1]:
        found.insert(0, Estimate(value, None, "stated in the model card", "README.md", "text", text))
    for value, text in tokens_in(card, parameters.total, stages)[:1]:
        if n:
            found.append(_six(n, value, "tokens stated in the model card", "README.md", text))
    if stages == WHOLE and (hours := hours_in(card)):
        gpu_hours, gpu = hours
        source = f"stated GPU hours at {UTILISATION:.0%} of the peak"
        value = flop_of_hardware(gpu_hours, PEAK[gpu])
        found.append(Estimate(value, None, source, "README.md", "Hours used", f"{gpu_hours:,.0f} h of {gpu}"))
    return found
