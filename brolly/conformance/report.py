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
    rows = _rows(found)
    width = max((len(f"{group}: {name}") for group, name, _ in rows), default=10)
    lines = [f"{'':{width}}  " + "  ".join(f"{way:>9}" for way in found)]
    for group, name, signs in rows:
        lines.append(f"{f'{group}: {name}':{width}}  " + "  ".join(f"{sign:>9}" for sign in signs))
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
    lines = ["| the model … | " + " | ".join(found) + " |", "|---|" + ":-:|" * len(found)]
    lines += [f"| {name} | " + " | ".join(signs) + " |" for _, name, signs in _rows(found)]
    lines += ["| **passed / failed / skipped** | " + " | ".join(map(_counts, found.values())) + " |"]
    return "\n".join(lines)


def _rows(found: Mapping[str, Sequence[Outcome]]) -> list[tuple[str, str, list[str]]]:
    """Each check's group and name, and its sign by each way; "" where it was not asked."""
    signs = [{(o.group, o.check): SIGNS[o.state] for o in outcomes} for outcomes in found.values()]
    return [(*check, [by.get(check, "") for by in signs]) for check in dict.fromkeys(c for by in signs for c in by)]


def _counts(outcomes: Sequence[Outcome]) -> str:
    return " / ".join(str(sum(o.state == state for o in outcomes)) for state in (PASSED, FAILED, SKIPPED))
