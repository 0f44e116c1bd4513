"""What came of it, for a terminal and for a page of documentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from brolly.conformance.suite import FAILED, PASSED, SKIPPED, Outcome

SIGNS = {PASSED: "✓", FAILED: "✗", SKIPPED: "–"}


def summary(outcomes: Sequence[Outcome]) -> str:
    """11 passed, 1 failed, 2 skipped."""
    return ", ".join(f"{sum(o.state == state for o in outcomes)} {state}" for state in (PASSED, FAILED, SKIPPED))


def table(found: Mapping[str, Sequence[Outcome]]) -> str:
    """Checks in rows, ways in columns, then why something failed or was skipped."""
    ways = list(found)
    names = list(dict.fromkeys((o.group, o.check) for outcomes in found.values() for o in outcomes))
    width = max((len(f"{group}: {name}") for group, name in names), default=10)
    lines = [f"{'':{width}}  " + "  ".join(f"{way:>9}" for way in ways)]
    for group, name in names:
        states = [next((o for o in found[way] if (o.group, o.check) == (group, name)), None) for way in ways]
        lines.append(f"{f'{group}: {name}':{width}}  " + "  ".join(f"{SIGNS[s.state] if s else '':>9}" for s in states))
    lines.append("")
    lines += [f"{way}: {summary(outcomes)}" for way, outcomes in found.items()]
    lines += [
        f"  {SIGNS[o.state]} {way}, {o.check}: {o.why}"
        for state in (FAILED, SKIPPED)
        for way, outcomes in found.items()
        for o in outcomes
        if o.state == state
    ]
    return "\n".join(lines)


def markdown(found: Mapping[str, Sequence[Outcome]]) -> str:
    """The same as a table of a document."""
    ways = list(found)
    names = list(dict.fromkeys((o.group, o.check) for outcomes in found.values() for o in outcomes))
    lines = ["| the model … | " + " | ".join(ways) + " |", "|---|" + ":-:|" * len(ways)]
    for group, name in names:
        states = [next((o for o in found[way] if (o.group, o.check) == (group, name)), None) for way in ways]
        lines.append(f"| {name} | " + " | ".join(SIGNS[s.state] if s else "" for s in states) + " |")
    lines += ["| **passed / failed / skipped** | " + " | ".join(_counts(found[way]) for way in ways) + " |"]
    return "\n".join(lines)


def _counts(outcomes: Sequence[Outcome]) -> str:
    return " / ".join(str(sum(o.state == state for o in outcomes)) for state in (PASSED, FAILED, SKIPPED))
