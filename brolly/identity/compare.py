"""Two cards side by side, and what their numbers say of each other: the same, a fine-tune, a quantisation, unrelated.

Weights are sampled, never read whole: norms keep their numbers in nearly every quantisation, and a fine-tune's matrices
stay close to those they began with, where two trainings from different seeds have nothing in common.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any

from brolly.card import TensorInfo
from brolly.checkpoint.bounded import opened
from brolly.errors import BrollyError

if TYPE_CHECKING:
    from brolly.identity.card import Card

SAMPLES = 24  # tensors looked at of each kind
VALUES = 1024  # numbers looked at of each
CODES = {"F32": ("f", 4), "F16": ("e", 2), "F64": ("d", 8)}
PACKED = (".qweight", ".weight_packed", "_blocks")
AIDS = (
    ".scales", ".qzeros", ".g_idx", ".weight_scale", ".weight_shape", ".weight_zero_point", ".absmax", ".quant_map",
    ".biases", "_scales", ".weight_scale_inv", ".input_scale", ".weight_scale_2", ".weight_g_idx",
)  # fmt: skip
SAME, CLOSE, FAR = 0.99999, 0.6, 0.2  # correlations; seeds apart give about 1/sqrt(VALUES · SAMPLES) = 0.006
LINES = (
    ("Kind", "kind"), ("Family", "family"), ("Parameters", "parameters.total"), ("Activated", "parameters.activated"),
    ("Precision", "precision"), ("Quantised", "quantization"), ("Context", "context_length"),
    ("Licence", "licence.id"), ("Commercial", "licence.commercial"), ("Disk", "needs.disk"), ("Format", "format"),
)  # fmt: skip


def compare(a: Card, b: Card) -> dict[str, Any]:
    """{"a", "b": the cards' JSON, "relation", "because", "evidence": numbers behind it, "differences": keys}."""
    left, right = a.json(), b.json()
    relation, because, evidence = relate(a, b)
    differences = [key for _, key in LINES if value(left, key) != value(right, key)]
    return {
        "a": left, "b": right, "relation": relation, "because": because, "evidence": evidence,
        "differences": differences,
    }  # fmt: skip


def relate(a: Card, b: Card) -> tuple[str, str, dict[str, Any]]:
    """What B is to A: identical, same-weights, quantized, finetune, merge, adapter, same-architecture, unrelated or
    cannot-tell; why; and the correlations measured."""
    if adapted := _adapter(a, b):
        return adapted
    mine, theirs = canonical(a), canonical(b)
    shared = [n for n in mine if n in theirs]
    evidence: dict[str, Any] = {"tensors": [len(mine), len(theirs)], "shared": len(shared)}
    if len(shared) < 0.5 * min(len(mine), len(theirs)) or not shared:
        return _by_size(a, b, evidence)
    norms = [n for n in shared if len(mine[n].shape) == 1 and mine[n].shape == theirs[n].shape]
    matrices = [n for n in shared if len(mine[n].shape) > 1 and mine[n].shape == theirs[n].shape]
    odd = sum(mine[n].shape != theirs[n].shape for n in shared)
    on_norms, equal_norms = _agreement(mine, theirs, norms)
    on_matrices, equal = _agreement(mine, theirs, matrices)
    evidence |= {
        "norm_correlation": on_norms, "matrix_correlation": on_matrices,
        "equal_norms": equal_norms, "equal_matrices": equal,
    }  # fmt: skip
    quantised = (a.parameters.quantization is None) != (b.parameters.quantization is None)
    if odd == len(shared) and not quantised:
        return "unrelated", "tensors of the same names have other shapes.", evidence
    if on_matrices is None or (quantised and odd):
        if quantised and on_norms is not None and on_norms > SAME:
            which = "B" if b.parameters.quantization else "A"
            return "quantized", f"{which} has the other's norms number for number, and packed matrices.", evidence
        if quantised and on_norms is not None and on_norms > CLOSE:
            return (
                "finetune",
                "the norms are close and not equal: a quantisation of a fine-tune of the other.",
                evidence,
            )
        return "cannot-tell", "no matrices of a kind that can be read are in both.", evidence
    if (
        equal == 1.0
        and (equal_norms is None or equal_norms == 1.0)
        and not odd
        and len(shared) == len(mine) == len(theirs)
    ):
        return "identical", "every sampled tensor has the same numbers in both.", evidence
    if on_matrices > SAME and (on_norms is None or on_norms > SAME) and not odd:
        return "same-weights", "the numbers agree to rounding: one was converted from the other.", evidence
    if on_matrices > CLOSE:
        if b.kind.relation == "merge" or a.kind.relation == "merge":
            return "merge", f"its card calls it a merge, and the matrices correlate by {on_matrices:.3f}.", evidence
        kept = f"; {equal:.0%} of the sampled matrices are untouched" if equal else ""
        return "finetune", f"the matrices correlate by {on_matrices:.3f}: one began as the other{kept}.", evidence
    if on_matrices < FAR:
        return "same-architecture", f"the matrices correlate by {on_matrices:.3f}: trained apart.", evidence
    return "cannot-tell", f"the matrices correlate by {on_matrices:.3f}: a long fine-tune, a merge or chance.", evidence


def _by_size(a: Card, b: Card, evidence: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
    same = a.parameters.total is not None and a.parameters.total == b.parameters.total and a.parameters.total > 10**5
    named = {n.lower() for n in (a.subject.name, a.kind.name) if n} & {n.lower() for n in b.kind.base_model}
    if named:
        return b.kind.relation or "finetune", f"B's card names {sorted(named)[0]} as its base.", evidence
    if same:
        return "cannot-tell", "as many parameters to the last one, under names that cannot be matched.", evidence
    if not evidence["tensors"][0] or not evidence["tensors"][1]:
        return "cannot-tell", "there are no weights to compare.", evidence
    return "unrelated", "few tensors have a counterpart of the same name.", evidence


def _adapter(a: Card, b: Card) -> tuple[str, str, dict[str, Any]] | None:
    """An adapter beside a base that it fits: each low-rank pair hangs on a matrix of its width."""
    for adapter, base, word in ((b, a, "B"), (a, b, "A")):
        if adapter.kind.relation != "adapter" or base.kind.relation == "adapter":
            continue
        targets = {n.removesuffix(".weight"): t for n, t in base.header.tensors.items()}
        fits = misses = 0
        for name, info in adapter.header.tensors.items():
            if ".lora_A" in name and len(info.shape) == 2:
                stem = name.split(".lora_A")[0].removeprefix("base_model.model.")
                target = targets.get(stem)
                good = target is not None and info.shape[1] in target.shape
                fits, misses = fits + good, misses + (not good)
        evidence = {"modules_that_fit": fits, "modules_that_do_not": misses}
        if fits and not misses:
            return (
                "adapter",
                f"{word} is an adapter, and all {fits} modules that it changes are in the other.",
                evidence,
            )
        return "unrelated", f"{word} is an adapter for another network: {misses} modules do not fit.", evidence
    return None


def canonical(card: Card) -> dict[str, TensorInfo]:
    """Tensors by the network's own names where brolly knows the family, else by the file's."""
    from brolly.checkpoint.names import rename

    try:
        found = card.recognised
    except BrollyError:
        return {_unpacked(n): t for n, t in card.header.tensors.items() if not n.endswith(AIDS)}
    table = found.family.names(card.header)
    # where the order of numbers changes (rotary halves, transposed), they cannot be compared one by one
    return {
        " + ".join(to) + (f" ({how})" if how else ""): card.header.tensors[name]
        for name, (to, how) in rename(card.header.tensors, table).items()
        if to
    }


def _unpacked(name: str) -> str:
    """The name that a packed matrix has where it is not packed."""
    for ending in PACKED:
        if name.endswith(ending):
            return name.removesuffix(ending) + ".weight"
    return name.removeprefix("module.")


def _agreement(
    a: dict[str, TensorInfo], b: dict[str, TensorInfo], names: list[str]
) -> tuple[float | None, float | None]:
    """The mean correlation over sampled tensors that both sides can read, and the share of them that is equal."""
    step = max(1, len(names) // SAMPLES)
    scores, equal = [], 0
    for name in names[::step][:SAMPLES]:
        x, y = numbers(a[name]), numbers(b[name])
        if x and y and len(x) == len(y):
            scores.append(correlation(x, y))
            equal += x == y
    scores = [s for s in scores if s is not None]
    if not scores:
        return None, None
    return round(sum(s for s in scores if s is not None) / len(scores), 6), round(equal / len(scores), 4)


def correlation(x: list[float], y: list[float]) -> float | None:
    """The cosine of two samples; None where one of them is nought. Not centred: a norm is nearly constant."""
    dot = math.fsum(p * q for p, q in zip(x, y, strict=True))
    size = math.sqrt(math.fsum(p * p for p in x) * math.fsum(q * q for q in y))
    return dot / size if size > 0 and math.isfinite(size) and math.isfinite(dot) else None


def numbers(info: TensorInfo) -> list[float] | None:
    """The first VALUES numbers of a tensor, from the middle of its bytes; None of a dtype that is packed."""
    width = 2 if info.dtype == "BF16" else CODES.get(info.dtype, ("", 0))[1]
    if not width or info.offset < 0 or info.strides is not None or info.shards:
        return None
    count = min(VALUES, info.n_elements)
    start = (info.n_elements - count) // 2
    try:
        with opened(info.file) as (file, _):
            file.seek(info.offset + start * width)
            raw = file.read(count * width)
    except BrollyError:
        return None
    if len(raw) != count * width:
        return None
    if info.dtype == "BF16":  # the upper half of a float32
        wide = b"".join(b"\0\0" + raw[i : i + 2] for i in range(0, len(raw), 2))
        return list(struct.unpack(f"<{count}f", wide))
    return list(struct.unpack(f"<{count}{CODES[info.dtype][0]}", raw))


def value(card: dict[str, Any], key: str) -> Any:
    """card["a"]["b"] for "a.b"."""
    for part in key.split("."):
        card = card[part]
    return card


def show_comparison(found: dict[str, Any], *, colour: bool = False) -> str:
    """Two columns and a verdict."""
    from brolly.identity.show import clean, units

    def said(card: dict[str, Any], key: str) -> str:
        what = value(card, key)
        if what is None:
            return "not told"
        if key == "needs.disk":
            return units(what)
        return clean(f"{what:,}" if isinstance(what, int) else str(what))[:30]

    def title(card: dict[str, Any]) -> str:
        return clean(str(card["name"] or card["path"] or ""))[-30:]

    lines = ["", f" {'':12} {title(found['a']):31} {title(found['b'])}"]
    for label, key in LINES:
        a, b = said(found["a"], key), said(found["b"], key)
        mark = "" if a == b else "≠"
        text = f" {label:12} {a:31} {b:31}{mark}".rstrip()
        lines.append(f"\033[33m{text}\033[0m" if colour and mark else text)
    lines += ["", f" B to A: {found['relation']} — {clean(found['because'])}", ""]
    return "\n".join(lines)
