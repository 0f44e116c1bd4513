"""Tune a prompt: try instructions and examples on one part of labelled rows, then compare the best with what was on
the other part, once. Every answer of the model counts towards a budget."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from brolly.adapt.prompt.score import Case, cases_of, difference, interval, measure_of, scored, verdict
from brolly.adapt.prompt.select import same
from brolly.errors import OptionError
from brolly.measure.intervals import Difference, Measured

if TYPE_CHECKING:
    from brolly.adapt.prompt.prompt import Example, Prompt

LEAST = 8  # labelled rows
FIRST = 4  # rows that every candidate is tried on, where the budget allows it


@dataclass(frozen=True)
class Tried:
    """A candidate, what was changed in it, and its scores on the rows of the search that it was tried on."""

    prompt: Prompt
    what: str
    score: Measured


@dataclass(frozen=True)
class Tuned:
    """What tuning found: the new version, all that was tried, and old against new on rows that the search never saw."""

    prompt: Prompt
    base: Prompt
    tried: tuple[Tried, ...]
    before: Measured
    after: Measured
    difference: Difference
    verdict: str  # better, worse, no difference shown, too few rows to tell, nothing better found
    measure: str
    calls: int
    budget: int
    data: str = ""  # the labelled rows' hash

    def table(self) -> dict[str, Any]:
        """What a version's history keeps of it."""
        return {
            "version": self.base.version, "hash": self.base.hash[:12], "verdict": self.verdict, "measure": self.measure,
            "before": round(self.before.value, 4), "after": round(self.after.value, 4),
            "difference": [round(v, 4) for v in (self.difference.value, self.difference.low, self.difference.high)],
            "held": self.difference.n, "calls": self.calls, "data": self.data[:12],
        }  # fmt: skip


@dataclass
class Bench:
    """The model at work on candidates: what each scored on each row is known once and for all."""

    model: Any
    measure: Callable[[Any, Any], float]
    budget: int
    how: Mapping[str, Any]
    calls: int = 0
    known: dict[tuple[str, int], float] = field(default_factory=dict)
    whats: dict[str, tuple[Prompt, str]] = field(default_factory=dict)
    told: Callable[[int], None] | None = None

    def scores(self, prompt: Prompt, cases: Sequence[Case], places: Sequence[int]) -> list[float]:
        """Of a candidate on these rows; those not known yet are asked for."""
        key = prompt.hash
        new = [i for i in places if (key, i) not in self.known]
        for i, result in zip(new, prompt.stream(self.model, [cases[i].values for i in new], **self.how), strict=True):
            self.known[key, i] = scored(self.measure, cases[i].expected, result)
            self.spend(1)
        return [self.known[key, i] for i in places]

    def spend(self, n: int) -> None:
        self.calls += n
        if self.told:
            self.told(n)

    def seen(self, prompt: Prompt, places: Sequence[int]) -> list[float]:
        """What a candidate scored on those of the rows that it was tried on."""
        return [self.known[prompt.hash, i] for i in places if (prompt.hash, i) in self.known]


def tune(
    prompt: Prompt, model: Any, dev: Sequence[Any], *, budget: int = 200, measure: Any = None, examples: int = 4,
    propose: int = 0, share: float = 0.5, seed: int = 0, adapter: Any = None, embedder: Any = None, cache: Any = None,
    told: Callable[[int], None] | None = None,
) -> Tuned:  # fmt: skip
    """A new version of a prompt, from labelled rows and at most `budget` answers of the model.

    `share` of the rows are held out: the search never sees them, and old and new are compared on them at the end.
    Candidates are the prompt's own `tries`, `propose` instructions that the model writes, and sets of up to `examples`
    rows of the search's part. They are halved on ever more rows (Jamieson and Talwalkar 2016), then single examples are
    exchanged while calls are left. Raises OptionError.
    """
    cases = cases_of(prompt, dev)
    if len(cases) < LEAST:
        raise OptionError(f"there are {len(cases)} labelled rows; tuning needs {LEAST} at least, and some 50 to tell.")
    if not 0.1 <= share <= 0.9:
        raise OptionError(f"share is {share}; expected a part to hold out between 0.1 and 0.9.")
    name, function = measure_of(measure, prompt)
    search, held = parted(prompt, cases, share)
    held = held[: max(budget // 4, 2)]
    left = budget - 2 * len(held)
    if left < 2 * FIRST:
        raise OptionError(f"a budget of {budget} leaves {max(left, 0)} calls to search with; give {4 * FIRST} or more.")
    if not 0 <= propose <= left // 4:
        raise OptionError(f"propose is {propose}; expected 0 to {left // 4}, a quarter of the calls to search with.")
    how = {"embedder": embedder, "cache": cache} | ({"adapter": adapter} if adapter is not None else {})
    bench = Bench(model, function, left, how, told=told)
    draws = random.Random(seed)
    order = list(search)
    draws.shuffle(order)
    best = _searched(prompt, bench, cases, order, examples, propose, draws)

    before = bench.scores(prompt, cases, held)
    after = bench.scores(best, cases, held)
    found = difference(after, before, seed)
    said = verdict(found) if best.hash != prompt.hash else "nothing better found"
    tried = [Tried(p, what, interval(bench.seen(p, order), seed)) for p, what in bench.whats.values()]
    tried.sort(key=lambda one: (-one.score.n, -one.score.value))
    digest = hashlib.sha256(json.dumps([[c.values, c.expected] for c in cases], default=str).encode()).hexdigest()
    tuned = Tuned(
        best, prompt, tuple(tried), interval(before, seed), interval(after, seed), found, said, name, bench.calls,
        budget, digest,
    )  # fmt: skip
    if best.hash == prompt.hash:
        return tuned
    new = best.changed(version=prompt.version + 1, history=(*prompt.history, tuned.table()))
    return Tuned(**{**vars(tuned), "prompt": new})


def parted(prompt: Prompt, cases: Sequence[Case], share: float) -> tuple[list[int], list[int]]:
    """The places of the rows to search on and of those held out: by a hash of the input, equal inputs on one side."""
    marks: dict[str, list[int]] = {}
    for i, case in enumerate(cases):
        said = json.dumps(dict(case.values), sort_keys=True, default=str)
        marks.setdefault(hashlib.sha256(said.encode()).hexdigest(), []).append(i)
    groups = [marks[mark] for mark in sorted(marks)]
    held: list[int] = []
    while groups and len(held) < share * len(cases):
        held += groups.pop(0)
    rest = [i for group in groups for i in group]
    if len(rest) < 2:
        raise OptionError("the labelled rows are all alike; tuning needs different ones to search and to compare on.")
    return rest, held


def _searched(
    prompt: Prompt, bench: Bench, cases: Sequence[Case], order: Sequence[int], size: int, propose: int,
    draws: random.Random,
) -> Prompt:  # fmt: skip
    """The best candidate on the search's part."""
    bench.whats[prompt.hash] = (prompt, "as it was")
    if prompt.kind == "classify":
        sets = [prompt.changed(templates=tuple(one)) for one in prompt.tries.get("templates", ())]
        if not sets:
            raise OptionError("[tune] templates is empty; give lists of templates to try.")
        return _halved(bench, [prompt, *sets], [""] + ["other templates"] * len(sets), cases, order, bench.budget)
    texts = [t for t in prompt.tries.get("instructions", ()) if t.strip() != prompt.instructions.strip()]
    whats = ["other instructions"] * len(texts)
    for text in _proposed(prompt, bench, cases, order, propose):
        texts.append(text)
        whats.append("instructions by the model")
    others = [prompt.changed(instructions=text) for text in texts]
    pool = [example for i in order if (example := _example(prompt, cases[i]))]
    pool += [one for one in prompt.examples if not any(same(prompt, one.values, two.values) for two in pool)]
    size = min(size, len(pool))
    if not others and not size:
        raise OptionError("there is nothing to try; give [tune] instructions, --propose, or --examples above 0.")
    best, spent = prompt, bench.calls
    if others:
        part = (bench.budget - spent) * (2 if size else 5) // 5
        best = _halved(bench, [prompt, *others], ["", *whats], cases, order, part)
    if not size:
        return best
    left = bench.budget - bench.calls
    if best.select.by == "nearest":  # all of them are there to be chosen from, a row's own apart
        return _halved(
            bench, [best, best.changed(examples=tuple(pool))], ["", "all rows to choose from"], cases, order, left
        )
    if best.select.most is not None:
        size = min(size, best.select.most)
    n_sets = max(2, min(16, left // (3 * FIRST)))
    sizes = [draws.randint(1, size) for _ in range(n_sets)] if size else []
    sets = [best.changed(examples=tuple(draws.sample(pool, n))) for n in sizes]
    if best.examples:
        sets.append(best.changed(examples=()))
    best = _halved(bench, [best, *sets], ["", *[_count(one) for one in sets]], cases, order, left * 2 // 3)
    return _exchanged(best, bench, cases, order, pool, size, draws)


def _count(prompt: Prompt) -> str:
    n = len(prompt.examples)
    return f"{n} other example{'s' if n != 1 else ''}" if n else "no examples"


def _example(prompt: Prompt, case: Case) -> Example | None:
    """A labelled row as an example, where its answer has the prompt's shape."""
    from brolly.adapt.prompt.prompt import Example

    try:
        prompt.answer.write(case.expected)
    except OptionError:
        return None
    return Example(case.values, case.expected)


def _halved(
    bench: Bench, candidates: Sequence[Prompt], whats: Sequence[str], cases: Sequence[Case], order: Sequence[int],
    calls: int,
) -> Prompt:  # fmt: skip
    """The best of several: all on a few rows, the better half on more, and so on; the earlier one of equals."""
    left: list[Prompt] = []
    names: dict[str, str] = {}
    for one, what in zip(candidates, whats, strict=True):
        if all(one.hash != other.hash for other in left):
            left.append(one)
            names.setdefault(one.hash, what)
    while len(left) > 2 and calls // (len(left) * _rounds(left)) < FIRST:
        left.pop()  # more than the calls can tell apart; the first ones are those that somebody asked for
    rounds = _rounds(left)
    for one in left:
        bench.whats.setdefault(one.hash, (one, names[one.hash]))
    n, end = 0, bench.calls + calls
    for turn in range(rounds):
        share = (end - bench.calls) // (rounds - turn)
        n = min(len(order), n + share // len(left))
        if n == 0:  # not a row for each: the first of them alone can be tried
            return left[0]
        means = [sum(bench.scores(one, cases, order[:n])) / n for one in left]
        ranked = sorted(range(len(left)), key=lambda i: (-means[i], i))
        left = [left[i] for i in sorted(ranked[: math.ceil(len(left) / 2)])] if turn < rounds - 1 else [left[ranked[0]]]
    return left[0]


def _rounds(candidates: Sequence[Prompt]) -> int:
    return max(1, math.ceil(math.log2(len(candidates))))


def _exchanged(
    best: Prompt, bench: Bench, cases: Sequence[Case], order: Sequence[int], pool: Sequence[Example], size: int,
    draws: random.Random,
) -> Prompt:  # fmt: skip
    """Exchange, add or drop an example, and keep what scores higher on the same rows, while calls are left."""
    n = len(bench.seen(best, order)) or min(len(order), bench.budget - bench.calls)
    for _ in range(200):  # a small pool runs out of new sets before it runs out of calls
        if not 0 < n <= bench.budget - bench.calls:
            break
        examples = list(best.examples)
        step = draws.choice(["exchange", "add", "drop"])
        unused = [one for one in pool if one not in examples]
        if step == "drop" and len(examples) > 1:
            examples.pop(draws.randrange(len(examples)))
        elif step == "add" and unused and len(examples) < size:
            examples.insert(draws.randint(0, len(examples)), draws.choice(unused))
        elif step == "exchange" and unused and examples:
            examples[draws.randrange(len(examples))] = draws.choice(unused)
        else:
            continue
        other = best.changed(examples=tuple(examples))
        if other.hash in bench.whats:
            continue
        bench.whats[other.hash] = (other, f"an example: {step}")
        if sum(bench.scores(other, cases, order[:n])) > sum(bench.scores(best, cases, order[:n])):
            best = other
    return best


PROPOSE = (
    "An instruction tells a model what to do with an input. Write a better instruction for the task that the examples "
    "show: one or two plain sentences, and nothing else."
)


def _proposed(prompt: Prompt, bench: Bench, cases: Sequence[Case], order: Sequence[int], n: int) -> list[str]:
    """Instructions that the model itself writes, from the present one and rows of the search's part."""
    from brolly.adapt.prompt.prompt import Prompt as Plain

    found: list[str] = []
    for turn in range(n):
        some = [cases[order[(3 * turn + k) % len(order)]] for k in range(min(3, len(order)))]
        shown = "\n".join(
            f"{json.dumps(dict(c.values), default=str)} → {prompt.answer.write(c.expected)}" for c in some
        )
        options: dict[str, Any] = {"temperature": 0.8, "seed": turn, "max_tokens": 120}
        if hasattr(bench.model, "target"):  # many a closed model has neither, and thinks before it writes
            takes = {k: v for k, v in options.items() if k != "max_tokens" and bench.model.takes(k)}
            options = {"max_tokens": bench.model.usual["max_tokens"], **takes}
        asking = Plain(PROPOSE, variables={"present_instruction": "text", "examples": "text"}, options=options)
        row = {"present_instruction": prompt.instructions, "examples": shown}
        how = {k: v for k, v in bench.how.items() if k != "embedder"}
        (result,) = asking.stream(bench.model, [row], **how)
        bench.spend(1)
        text = " ".join(str(result.value or "").split())
        if result.error is None and text and text not in (*found, prompt.instructions):
            found.append(text)
    return found
