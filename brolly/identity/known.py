"""The table of known models: found by repository, by name, or by the shape that a config tells; and who is meant."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import TYPE_CHECKING, Any

from brolly.identity import tables
from brolly.identity.answers import Known

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from brolly.identity.subject import Subject

MAX_NAME = 200  # characters
LISTS = ("modalities_in", "modalities_out", "flavours", "ids", "aliases")
BESIDE = ("derived_from", "epoch", "told")  # of a row in the file, not of the dataclass

# what stands before or behind a model's name without naming another model
PROVIDER = re.compile(
    r"^(?:(?:us|eu|apac|jp|au|global)\.)?"
    r"(?:openai|anthropic|google|xai|mistral|meta|cohere|amazon|deepseek|moonshot|qwen|ai21|nvidia|hf|huggingface)[.:/]\s*"
)
DATED = re.compile(r"[-_@ :]*(?:20\d\d-?[01]\d-?[0-3]\d|\(?(?:latest|preview|snapshot)\)?|v\d+:\d+)\s*$")
DECIMAL = re.compile(r"(?<![\d.])(\d{1,2})[-_](\d)(?![\d.a-z])")  # claude-3-7-sonnet is 3.7
PIECES = re.compile(r"\d+(?:\.\d+)*|[^\W\d_]+|\+")
TUNED = ("instruct", "chat", "it", "base", "hf", "pt", "sft", "dpo", "gguf", "fp8", "bf16", "awq", "gptq")
INSTRUCT = re.compile(r"(?i)(?:^|[-_])(instruct|chat|it|sft|dpo)(?:$|[-_])")
BASE = re.compile(r"(?i)(?:^|[-_])(base|pt|pretrain(?:ed)?)(?:$|[-_])")
OTHER = re.compile(r"(?i)(?:^|[-_])(reward|rm|guard|zero|captioner|stage\d|gen|rl)(?:$|[-_])")
THINKS = re.compile(r"(?i)(?:^|[-_])(thinking|reasoning|think)(?:$|[-_])")


def find(subject: Subject) -> Known | None:
    """The row of a model's files: by its repository, by the name in its metadata, else by its shape.

    A shape names the lineage only, as any fine-tune has its base's: see Known.matched. None where it could be several.
    """
    from brolly.identity.shapes import contradicts, matching, told

    here = told(subject)
    for number, by in _named(subject):
        if not contradicts(_shape(number), here):
            return known(number, matched=by, name=subject.name or "")
    numbers = matching(here)
    if not numbers:
        return None
    title = subject.name or subject.folder.name
    rows = _roots(numbers)
    for number in numbers + _derived(rows, title):  # two signs agree: the shape, and the folder's name
        if title and _tail(title) in {_tail(i) for i in raw(number).get("ids", ())}:
            return known(number, matched="name", name=title)
    return agreed([known(number, matched="shape") for number in rows])


def by_name(text: str) -> list[Known]:
    """The rows that a name could mean, the best first; one row where it is exact. Spelling, dates and case are free."""
    return [known(number, matched="name", name=text) for number in _numbers(text)[:50]]


def named(text: str) -> Known | None:
    """The row whose repository or very name this is, spelling, provider and date aside; None where several are."""
    number = tables.table("models_ids.json")["ids"].get(text.strip()[:MAX_NAME].lower())
    numbers = _exact(text) if number is None else [number]
    return known(numbers[0], matched="name", name=text) if numbers else None


def lineage(text: str) -> tuple[str, str | None]:
    """The family that a name begins with, of those that are behind an API alone, and whose it is; "" for none."""
    whole = f"{key(PROVIDER.sub('', text.lower()).rpartition('/')[2])} "
    rows = tables.table("models.json")["models"]
    makers: dict[str, set[str | None]] = {}
    for row in rows:
        if row.get("open") == "closed" and whole.startswith(f"{key(row['family'])} "):
            makers.setdefault(row["family"], set()).add(row.get("organization"))
    family = max(makers, key=len, default="")
    by = makers.get(family, set())
    return family, next(iter(by)) if len(by) == 1 else None


def suggest(text: str) -> list[str]:
    """Names in the table that are close to this one."""
    from difflib import get_close_matches

    names = tables.table("models_names.json")["keys"]
    found = get_close_matches(key(text), names, n=8, cutoff=0.6)
    return list(dict.fromkeys(raw(names[k][0])["name"] for k in found))[:5]


def compute(name: str) -> dict[str, Any] | None:
    """Epoch AI's row of that very name, spelling aside: name, organization, date, parameters, flop, confidence …"""
    rows = tables.table("compute.json")
    wanted = key(name)
    found = [row for row in rows["models"] if key(row[0]) == wanted] if wanted else []
    return dict(zip(rows["columns"], found[0], strict=True)) if len(found) == 1 else None


# ---- rows


@cache
def _lines() -> tuple[list[bytes], int]:
    """models.json, which has one row a line, and the line of its first row."""
    lines = (tables.DATA / "models.json").read_bytes().split(b"\n")
    return lines, lines.index(b'"models":[') + 1


@cache
def raw(number: int) -> dict[str, Any]:
    """One row as the file has it; the others are not parsed."""
    lines, first = _lines()
    found: dict[str, Any] = json.loads(lines[first + number].rstrip(b","))
    return found


@cache
def _sources() -> Any:
    lines, first = _lines()
    return json.loads(b"\n".join(lines[: first - 1]).rstrip().rstrip(b",") + b"}")["sources"]


def known(number: int, *, matched: str | None = None, name: str = "") -> Known:
    """A row, its sources spelt out; `name` (a repository's) adds what it tells of the variant."""
    row = {k: v for k, v in raw(number).items() if k not in BESIDE}
    table = _sources()
    row["sources"] = {fact: table[where] for where, facts in row["sources"].items() for fact in facts.split()}
    row |= {k: tuple(row.get(k, ())) for k in LISTS}
    row["flavours"] = _flavours(row, name)
    return Known(**row, matched=matched)


def _flavours(row: dict[str, Any], name: str) -> tuple[str, ...]:
    """A row stands for a base model and its tuned variants; the repository's name tells which this is."""
    has: tuple[str, ...] = row["flavours"]
    tail = _tail(name)
    tails = [_tail(i) for i in row["ids"]]
    if tail not in tails or row["kind"] not in ("llm", "lmm") or {"base", "instruct", "guard", "reward"} & set(has):
        return has
    add: tuple[str, ...] = ("reasoning",) if THINKS.search(tail) else ()
    if INSTRUCT.search(tail):
        add += ("instruct",)
    elif BASE.search(tail):
        add += ("base",)
    elif not add and any(BASE.search(t) for t in tails) and not OTHER.search(tail):
        add += ("instruct",)
    elif not add and tail.replace("_", "-") in {_untuned(t) for t in tails if INSTRUCT.search(t)}:
        add += ("base",)
    if "base" in add:
        has = tuple(f for f in has if f != "reasoning")
    return has + tuple(f for f in add if f not in has)


def _untuned(tail: str) -> str:
    """A tuned variant's name less the word that says so: what its base is called, if both are named alike."""
    return re.sub(r"[-_]+", "-", INSTRUCT.sub("-", tail)).strip("-")


def agreed(rows: Sequence[Known]) -> Known | None:
    """What several rows have in common, where they are of one family and kind; None otherwise."""
    if len(rows) < 2:
        return rows[0] if rows else None
    first = rows[0]
    if len({(r.family, r.kind) for r in rows}) > 1:
        return None

    def common(field: str, default: Any = None) -> Any:
        values = [getattr(r, field) for r in rows]
        return values[0] if all(v == values[0] for v in values) else default

    return Known(
        name=" or ".join(r.name for r in rows[:3]) + (" or others" if len(rows) > 3 else ""),
        family=first.family,
        organization=common("organization", "several"),
        kind=first.kind,
        modalities_in=tuple(m for m in first.modalities_in if all(m in r.modalities_in for r in rows)),
        modalities_out=tuple(m for m in first.modalities_out if all(m in r.modalities_out for r in rows)),
        flavours=tuple(f for f in first.flavours if all(f in r.flavours for r in rows)),
        open=common("open", "weights"),
        shape=common("shape", {}),
        sources=common("sources", {}),
        matched="shape",
        **{f: common(f) for f in ("scope", "parameters", "activated", "context", "tokens", "flop", "flop_source",
                                  "licence", "released")},
    )  # fmt: skip


def in_common(rows: Sequence[Known]) -> Known:
    """What the models that a name could mean have in common, under the lineage's name; one row is itself."""
    first = rows[0]
    if len(rows) == 1:
        return first
    rows = [row for row in rows if row.family == first.family]
    empty: dict[str, Any] = {"flavours": (), "ids": (), "aliases": (), "shape": {}, "open": "none", "kind": None}
    empty |= {"modalities_in": (), "modalities_out": ()}
    fields = {
        name: getattr(first, name)
        if all(getattr(row, name) == getattr(first, name) for row in rows)
        else empty.get(name)
        for name in first._fields
    }
    facts = {fact: source for row in rows for fact, source in row.sources.items()}
    told: dict[str, Any] = fields | {"name": first.family, "family": first.family, "matched": "name", "sources": facts}
    return Known(**told)


def _roots(numbers: list[int]) -> list[int]:
    """Without the rows that are made from another one among them."""
    names = {raw(n)["name"] for n in numbers}
    return [n for n in numbers if raw(n).get("derived_from") not in names]


def _derived(numbers: list[int], title: str) -> list[int]:
    """Rows made from these whose repository has this name: a fine-tune that is in the table itself."""
    names = {raw(n)["name"] for n in numbers}
    found = tables.table("models_ids.json")["tails"].get(_tail(title), []) if title else []
    return [n for n in found if raw(n).get("derived_from") in names]


def _shape(number: int) -> Mapping[str, Any]:
    """A row's shape, or that of the row which it was made from."""
    row = raw(number)
    if "shape" in row or "derived_from" not in row:
        return row.get("shape", {})
    return raw(tables.table("models_names.json")["keys"][key(row["derived_from"])][0]).get("shape", {})


# ---- names


def key(text: str) -> str:
    """A name once its spelling does not matter: "GPT-4o", "gpt 4o" and "gpt4o" are "gpt 4 o"."""
    text = text[:MAX_NAME].lower().replace("·", "").replace("ü", "u")
    text = DECIMAL.sub(r"\1.\2", text)
    return " ".join(PIECES.findall(text))


def keys(text: str) -> Iterable[str]:
    """From the strictest to the freest."""
    text = text[:MAX_NAME].strip().lower()
    yield key(text)
    bare = PROVIDER.sub("", text).rpartition("/")[2]
    yield key(bare)
    short = bare
    while (shorter := DATED.sub("", short)) != short:
        short = shorter
    yield key(short)
    words = key(short).split()
    while words and words[-1] in TUNED:
        words.pop()
    yield " ".join(words)


def _tail(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2].lower()


def _numbers(text: str) -> list[int]:
    wanted = text.strip()[:MAX_NAME].lower()
    if (number := tables.table("models_ids.json")["ids"].get(wanted)) is not None:
        return [number]
    if "/" in wanted and _tail(wanted) in tables.table("models_ids.json")["tails"] and wanted.count("/") == 1:
        return list(tables.table("models_ids.json")["tails"][_tail(wanted)])
    table: dict[str, list[int]] = tables.table("models_names.json")["keys"]
    tried = [k for k in dict.fromkeys(keys(text)) if k]
    for k in tried:
        if k in table:
            return list(table[k])
    for exact, same in (
        (
            True,
            lambda k, other: len(k) == len(other) and sorted(k.split()) == sorted(other.split()),
        ),  # in another order
        (True, lambda k, other: k.replace(" ", "") == other.replace(" ", "")),
        (False, lambda k, other: len(k) > 1 and other.startswith((k + " ", k + ".0 "))),
        (False, lambda k, other: len(k) > 3 and f" {k} " in f" {other} "),
    ):
        for k in tried[:3]:
            if found := [n for other, numbers in table.items() if same(k, other) for n in numbers]:
                return list(dict.fromkeys(found)) if exact else _newest(found, k)
    return []


def _newest(numbers: Iterable[int], asked: str) -> list[int]:
    """Of the very family first; then the latest release, the shorter name first among equals."""
    some = sorted(set(numbers), key=lambda n: (len(raw(n)["name"]), raw(n)["name"]))
    some.sort(key=lambda n: raw(n).get("released", ""), reverse=True)
    return sorted(some, key=lambda n: key(raw(n)["family"]) != asked)


def _named(subject: Subject) -> Iterable[tuple[int, str]]:
    """Rows that have this repository, or the very name that the file gives itself."""
    if subject.name and (number := tables.table("models_ids.json")["ids"].get(subject.name.lower())) is not None:
        yield number, "id"
    metadata = subject.header.metadata
    for field in ("general.name", "general.basename"):
        text = metadata.get(field)
        if not isinstance(text, str) or not text.strip():
            continue
        label = metadata.get("general.size_label")
        sized = f"{text} {label}" if isinstance(label, str) and key(label) not in key(text) else text
        for number in _exact(sized):
            if _shape(number):  # a name alone is not enough: the shape must not gainsay it
                yield number, "name"


def _exact(text: str) -> list[int]:
    table: dict[str, list[int]] = tables.table("models_names.json")["keys"]
    for k in keys(text):
        if len(table.get(k, ())) == 1:
            return list(table[k])
    return []


__all__ = ["agreed", "by_name", "compute", "find", "key", "known", "lineage", "named", "suggest"]
