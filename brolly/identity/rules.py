"""Rules on a model's training compute: each is data with its article, text and date; here is what decides it.

Outcomes are indicative, not legal advice: what the rule's own number says of what the files tell. Where these do not
tell, an outcome is `cannot-tell`, unless even a bound that no training run comes near decides.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from brolly.identity import tables
from brolly.identity.answers import Kind, Licence, Parameters, Rule, Training
from brolly.identity.compute import flop_of, flop_of_hardware, same_publisher, spoken, training_of, two_figures
from brolly.identity.subject import Subject

__all__ = ["DISCLAIMER", "flop_of", "flop_of_hardware", "rules_of", "training_of", "two_figures"]

DISCLAIMER = "Indicative, not legal advice."
MEETS, NOT, UNTOLD = "meets", "does-not-meet", "cannot-tell"
SPECULATIVE = 3  # by which an estimate that its own author calls speculative may fall short, at the least
MARGIN = 0.30  # of the Guidelines, Annex A.2: an estimate may be off by that much
# The longest published training runs had some 4e13 tokens (Llama 4 Scout, 2025); 25 times that is more than all public
# text by Epoch AI's estimate (3e14, arXiv:2211.04325). Positions of images and sounds count as tokens.
MOST_TOKENS = 1e15
NARROW = {  # flavours that do one task, or are no model by themselves; the Guidelines' examples out of scope are alike
    "embedder": "gives embeddings",
    "reranker": "gives scores", "reward": "gives scores", "classifier": "gives labels",
    "guard": "only judges whether a text is safe", "ocr": "only reads text off images",
    "translation": "only translates",
    "vocoder": "only turns features into sound", "codec": "only codes sound", "vae": "only codes images",
    "controlnet": "only steers another model", "tokenizer": "is a tokenizer", "optimizer": "is a state of training",
}  # fmt: skip
OUT = {  # kinds that generate neither language, nor images or video from text
    "vision": "a vision model does one narrow task", "vision-language-embedding": "gives embeddings and scores",
    "text-encoder": "gives embeddings, no text", "audio": "sound effects are out of scope",
    "music": "music from prompts is out of scope", "protein": "generates no language",
    "scientific": "weather, physics and chemistry are out of scope", "robotics": "gives actions, no language",
    "time-series": "gives numbers, no language",
}  # fmt: skip
EDIT = re.compile(r"edit|img2img|image-?to-?image|pix2pix|i2v|image-?to-?video|kontext|control", re.IGNORECASE)
REPAIR = re.compile(r"inpaint|outpaint|upscal|super[-_ ]?res|\besrgan|restor", re.IGNORECASE)


class Facts(NamedTuple):
    """What the rules are decided on."""

    subject: Subject
    kind: Kind
    parameters: Parameters
    training: Training
    licence: Licence


class Verdict(NamedTuple):
    outcome: str
    inputs: Mapping[str, Any]
    because: str


def table() -> Any:
    """identity/data/rules.json."""
    return tables.table("rules.json")


def rules_of(
    subject: Subject, kind: Kind, parameters: Parameters, training: Training, licence: Licence
) -> tuple[Rule, ...]:
    """Every rule's outcome, in the order of the table."""
    facts = Facts(subject, kind, parameters, training, licence)
    rules = []
    for row in table()["rules"]:
        verdict = DECIDED_BY[row["id"]](facts, row["thresholds"])
        texts = {
            key: row[key] for key in ("id", "name", "article", "version", "source", "date", "applies_from", "dates")
        }
        rules.append(Rule(outcome=verdict.outcome, inputs=verdict.inputs, because=verdict.because, **texts))
    return tuple(rules)


# ---- what a rule asks


def generates(facts: Facts) -> tuple[bool | None, str]:
    """The modality test: language as text or speech, or images or video from text; the narrow tasks that are out."""
    kind = facts.kind
    if kind.kind is None:
        return None, "what kind of model it is, the files do not tell"
    if narrow := next((flavour for flavour in kind.flavours if flavour in NARROW), None):
        return False, f"it {NARROW[narrow]}"
    if kind.kind in OUT and not (kind.kind == "text-encoder" and "text" in kind.modalities_out):
        return False, OUT[kind.kind]
    into, out = set(kind.modalities_in), set(kind.modalities_out)
    if kind.kind == "speech":
        if "audio" in into and "audio" in out:
            return None, "speech to speech: whether it converses or converts, the files do not tell"
        task = "transcribes speech" if "text" in out else "speaks text" if "audio" in out else "does not generate"
        return False, f"it only {task}, a narrow task that the Guidelines put out of scope"
    if kind.kind in ("llm", "lmm", "text-encoder") and (out & {"text", "audio"} or not out):
        return True, "it generates language"
    if kind.kind in ("image", "video"):
        if repair := REPAIR.search(_told(facts)):
            return False, f"it only repairs or enlarges images (“{repair[0]}”), which the Guidelines put out of scope"
        if "image" in into and (edit := EDIT.search(_told(facts))):
            return (
                None,
                f"it makes {kind.kind}s from images (“{edit[0]}”); whether from text alone too, the files do not tell",
            )
        if "text" in into and out & {"image", "video"}:
            return True, f"it generates {kind.kind}s from text"
        if into:
            return False, f"it generates {kind.kind}s, but not from text"
    return None, "what it generates, the files do not tell"


def _told(facts: Facts) -> str:
    """The names by which a model says its task: its own, its pipeline's, its tags'."""
    header, matter = facts.subject.header, facts.subject.front_matter
    words = (facts.subject.name, facts.kind.name, header.config.get("_class_name"), matter.get("pipeline_tag"))
    return " ".join(str(word)[:200] for word in words if word)


def bound(parameters: Parameters) -> float | None:
    """More FLOP than any training run of a model of this size had: 6·N·10^15."""
    n = parameters.activated or parameters.total
    return flop_of(n, MOST_TOKENS) if n else None


def exceeds(flop: float, threshold: float) -> bool:
    """Strictly greater, beyond the rounding of floating point."""
    return flop > threshold * (1 + 1e-9)


def above(facts: Facts, threshold: float) -> Verdict:
    """Whether the training compute is greater than a threshold: strictly, as every one of these rules says."""
    flop, source = facts.training.flop, facts.training.source
    inputs: dict[str, Any] = {"flop": flop, "flop_source": source, "threshold": threshold}
    if flop is not None and exceeds(flop, threshold):
        return Verdict(
            MEETS, inputs, f"{spoken(flop)} FLOP ({source}) is more than {_power(threshold)}{_close(flop, threshold)}"
        )
    if flop is not None and "speculative" in (source or "") and flop > threshold / SPECULATIVE:
        because = (
            f"{spoken(flop)} FLOP ({source}) is less than {_power(threshold)}, and may well be off by {SPECULATIVE}×"
        )
        return Verdict(UNTOLD, inputs, because)
    most = bound(facts.parameters)
    if flop is not None and not _partial(facts, threshold):
        return Verdict(
            NOT, inputs, f"{spoken(flop)} FLOP ({source}) is not more than {_power(threshold)}{_close(flop, threshold)}"
        )
    if most is not None and most <= threshold and facts.parameters.total:
        n = facts.parameters.activated or facts.parameters.total
        because = (
            f"its {n:,} parameters would have needed {threshold / 6 / n:.1e} tokens to pass {_power(threshold)} FLOP, "
            f"more than {MOST_TOKENS:.0e}, which is far beyond any published training run"
        )
        return Verdict(NOT, inputs | {"bound": most}, because)
    if flop is not None:
        return Verdict(UNTOLD, inputs, f"{spoken(flop)} FLOP ({source}) is known, and what came on top is not")
    return Verdict(UNTOLD, inputs, "how much compute its training took is not known; state it with --tokens or --flop")


def _partial(facts: Facts, threshold: float) -> bool:
    """Whether what is known of a derived model's compute leaves room for the rest to pass the threshold."""
    base, change = facts.training.base, facts.training.modification
    if facts.kind.relation not in ("finetune", "adapter", "merge") or (base is None and change is None):
        return False
    if base is None:
        return True
    return change is None and base > threshold * 3 / 4 and not same_publisher(facts.subject, facts.kind)


def _power(threshold: float) -> str:
    return f"10^{round(math.log10(threshold))}"


def _close(flop: float, threshold: float) -> str:
    near = abs(flop - threshold) <= MARGIN * flop
    return ", though within the 30 % by which an estimate may be off" if near else ""


# ---- the rules, by id


def eu_gpai(facts: Facts, thresholds: Mapping[str, float]) -> Verdict:
    compute, (able, why) = above(facts, thresholds["flop"]), generates(facts)
    inputs = dict(compute.inputs) | {"generates": able, "kind": facts.kind.kind}
    if able is False:
        return Verdict(NOT, inputs, _sentence(f"{why}, whatever its compute"))
    if compute.outcome == NOT:
        return Verdict(NOT, inputs, _sentence(compute.because))
    if able and compute.outcome == MEETS:
        return Verdict(MEETS, inputs, _sentence(f"{why}, and {compute.because}"))
    return Verdict(UNTOLD, inputs, _sentence(why if able is None else compute.because))


def eu_systemic(facts: Facts, thresholds: Mapping[str, float]) -> Verdict:
    compute, (able, why) = above(facts, thresholds["flop"]), generates(facts)
    designated = "; the Commission may designate a model all the same (Article 52(4)), which no file tells"
    inputs = dict(compute.inputs) | {"generates": able}
    if able is False:
        return Verdict(NOT, inputs, _sentence(f"the presumption is for general-purpose models, and {why}{designated}"))
    if compute.outcome == NOT:
        return Verdict(NOT, inputs, _sentence(compute.because + designated))
    if able and compute.outcome == MEETS:
        return Verdict(MEETS, inputs, _sentence(f"{compute.because}: presumed, and its provider may rebut it"))
    return Verdict(UNTOLD, inputs, _sentence(why if able is None else compute.because))


def eu_open_source(facts: Facts, thresholds: Mapping[str, float]) -> Verdict:
    licence, header = facts.licence, facts.subject.header
    systemic = eu_systemic(facts, _thresholds("eu-systemic")).outcome
    weights = bool(header.tensors) or licence.openness.get("weights")
    inputs = {
        "licence": licence.id,
        "free_and_open": licence.free_and_open,
        "weights": weights,
        "architecture": bool(header.config or header.metadata),
        "usage": len(facts.subject.text("README.md", 4000)) > 200,
        "systemic": systemic,
    }
    if licence.free_and_open is False:
        return Verdict(
            NOT, inputs, _sentence(f"the licence {licence.id} restricts use, or has conditions that disqualify it")
        )
    if weights is False:
        return Verdict(NOT, inputs, "Its weights are not public.")
    if systemic == MEETS:
        return Verdict(NOT, inputs, "A model with systemic risk loses the exemption.")
    if licence.id is None:
        return Verdict(UNTOLD, inputs, "No licence is told.")
    if licence.free_and_open is None:
        return Verdict(
            UNTOLD,
            inputs,
            _sentence(f"whether {licence.id} is free and open in the Act's sense is contested or unknown"),
        )
    if lacking := [word for word in ("weights", "architecture", "usage") if not inputs[word]]:
        text = f"of weights, architecture and usage, the files here lack {' and '.join(lacking)}"
        return Verdict(UNTOLD, inputs, _sentence(f"{text}; they may be public elsewhere"))
    if systemic == UNTOLD:
        return Verdict(
            UNTOLD, inputs, "The licence qualifies; systemic risk, which ends the exemption, cannot be told."
        )
    because = (
        f"{licence.id} qualifies, and weights, architecture and usage information are here; that all is public, "
        "that nothing is charged for it, and that its limits are described, no file tells"
    )
    return Verdict(MEETS, inputs, _sentence(because))


def eu_modifier(facts: Facts, thresholds: Mapping[str, float]) -> Verdict:
    relation, training = facts.kind.relation, facts.training
    base, change = training.base, training.modification
    inputs: dict[str, Any] = {"relation": relation, "base_flop": base, "modification_flop": change}
    none = {
        "base": "it is no modification of another model",
        "quantized": "quantising trains nothing, so it spends no training compute",
        "merge": "averaging weights trains nothing, so it spends next to no training compute",
        "draft": "a draft model is trained beside its model and does not change it",
    }
    if relation in none and not (relation == "merge" and change):
        return Verdict(NOT, inputs, _sentence(none[relation]))
    if relation is None:
        return Verdict(UNTOLD, inputs, "Whether it was made from another model, the files do not tell.")
    if same_publisher(facts.subject, facts.kind):
        return Verdict(
            NOT, inputs, "The base model is the same publisher's, so this is a stage of one model (section 2.2)."
        )
    part, high, low = thresholds["part"], thresholds["systemic"], thresholds["otherwise"]
    if change is None:
        return Verdict(
            UNTOLD, inputs, "How much compute the modification took is not known; state it with --tokens or --flop."
        )
    if base:
        inputs["threshold"] = base / part
        outcome = MEETS if exceeds(change, base / part) else NOT
        word = "more" if outcome == MEETS else "not more"
        return Verdict(
            outcome, inputs, f"{spoken(change)} FLOP is {word} than a third of the base model's {spoken(base)}."
        )
    most = bound(facts.parameters)
    never = most is not None and most <= high
    inputs["threshold"] = (low if never else high) / part
    unknown = "the base model's compute is not known"
    if not exceeds(change, low / part) or exceeds(change, high / part) or never:
        limit = low if never or not exceeds(change, low / part) else high
        inputs["threshold"] = limit / part
        outcome = MEETS if exceeds(change, limit / part) else NOT
        word = "more" if outcome == MEETS else "not more"
        return Verdict(
            outcome, inputs, _sentence(f"{unknown}; {spoken(change)} FLOP is {word} than a third of {_power(limit)}")
        )
    return Verdict(
        UNTOLD, inputs, _sentence(f"{unknown}, nor whether it has systemic risk, on which the threshold hangs")
    )


def frontier(facts: Facts, thresholds: Mapping[str, float]) -> Verdict:
    """SB 53 and RAISE: a foundation model of more than 10^26 operations, later fine-tuning counted in."""
    compute = above(facts, thresholds["flop"])
    inputs = dict(compute.inputs) | {"scope": facts.kind.scope}
    if compute.outcome == MEETS and facts.kind.scope == "domain":
        return Verdict(UNTOLD, inputs, _sentence(f"{compute.because}; whether it is a foundation model is open"))
    tail = "; the duties fall on its developer, whose revenue no file tells" if compute.outcome == MEETS else ""
    return Verdict(compute.outcome, inputs, _sentence(compute.because + tail))


def us_eo_14110(facts: Facts, thresholds: Mapping[str, float]) -> Verdict:
    kind = facts.kind
    biological = kind.kind == "protein" or bool({"protein", "dna"} & {*kind.modalities_in, *kind.modalities_out})
    compute = above(facts, thresholds["biological" if biological else "flop"])
    data = " (of a model trained primarily on biological sequences)" if biological else ""
    because = f"revoked on 20 January 2025; {compute.because}{data}"
    return Verdict(compute.outcome, dict(compute.inputs) | {"biological": biological}, _sentence(because))


def _thresholds(name: str) -> Mapping[str, float]:
    found: Mapping[str, float] = next(row["thresholds"] for row in table()["rules"] if row["id"] == name)
    return found


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


DECIDED_BY: dict[str, Callable[[Facts, Mapping[str, float]], Verdict]] = {
    "eu-gpai": eu_gpai,
    "eu-systemic": eu_systemic,
    "eu-open-source": eu_open_source,
    "eu-modifier": eu_modifier,
    "ca-sb-53": frontier,
    "ny-raise": frontier,
    "us-eo-14110": us_eo_14110,
}
