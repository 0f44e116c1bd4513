"""What tuning found, for a person: a table in Markdown, and a picture of every candidate with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from brolly.adapt.prompt.score import FEW
from brolly.adapt.prompt.search import Tuned
from brolly.measure.intervals import Measured

MOST = 24  # candidates shown
SAYS = {
    "better": "better: the interval of the difference lies above 0",
    "worse": "worse: the interval of the difference lies below 0",
    "no difference shown": "not shown to be better: the interval of the difference contains 0",
    "too few rows to tell": "not shown to be better: too few rows are held out",
    "nothing better found": "nothing better was found; the prompt stays as it was",
}


def markdown(tuned: Tuned, picture: str = "") -> str:
    """The report's text; `picture` is the name of its SVG."""
    d, new = tuned.difference, tuned.prompt
    rows = [
        ("what", "score on the search's rows", "rows", "instructions"),
        ("---", "---", "---", "---"),
        *((t.what or "as it was", _said(t.score), t.score.n, _short(t.prompt.instructions)) for t in _shown(tuned)),
    ]
    return "\n".join([
        f"# {new.name}, version {tuned.base.version} → {new.version}",
        "",
        f"On {d.n} rows that the search never saw, by {tuned.measure}:",
        "",
        "| | score | 95 % interval |",
        "|---|---|---|",
        f"| version {tuned.base.version} | {tuned.before.value:.3f} | {_span(tuned.before)} |",
        f"| the best found | {tuned.after.value:.3f} | {_span(tuned.after)} |",
        f"| difference, row by row | {d.value:+.3f} | {d.low:+.3f} to {d.high:+.3f} |",
        "",
        f"**{SAYS[tuned.verdict]}.** The model answered {tuned.calls} times, of {tuned.budget} allowed.",
        "",
        *([f"![every candidate and its interval]({picture})", ""] if picture else []),
        "Scores of the search choose the candidates, so the best of them looks better than it is; only the rows held "
        "out compare.",
        "",
        *("| " + " | ".join(map(str, row)) + " |" for row in rows),
        "",
    ])  # fmt: skip


def _shown(tuned: Tuned) -> Sequence[Any]:
    return tuned.tried[:MOST]


def _said(score: Measured) -> str:
    if score.n < FEW:
        return f"{score.value:.3f}" if score.n else "not tried"
    return f"{score.value:.3f} ({_span(score)})"


def _span(score: Measured) -> str:
    return f"{score.low:.3f} to {score.high:.3f}"


def _short(text: str) -> str:
    line = " ".join(text.split()).replace("|", "\\|")
    return line[:80] + "…" if len(line) > 80 else line


def picture(tuned: Tuned, width: int = 760) -> str:
    """An SVG: a row a candidate, its mean a dot and its interval a line; old and new on the rows held out on top."""
    rows = [(f"version {tuned.base.version}, held out", tuned.before, "#2471a3"),
            ("the best, held out", tuned.after, "#c0392b")]  # fmt: skip
    rows += [(t.what or "as it was", t.score, "#888888") for t in _shown(tuned) if t.score.n]
    low, high = min(0.0, *(r[1].low for r in rows)), max(1.0, *(r[1].high for r in rows))
    left, right, top, step = 220, width - 60, 60, 22
    height = top + step * len(rows) + 40

    def across(value: float) -> float:
        return left + (right - left) * (value - low) / (high - low)

    shown = "".join(filter(str.isprintable, tuned.prompt.name))  # XML holds no control characters
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="20" y="26" font-size="15">{escape(shown)}: {escape(tuned.measure)}, with 95 % intervals</text>',
    ]
    for part in range(5):
        value = low + (high - low) * part / 4
        out.append(f'<path d="M{across(value):.1f} {top - 12}V{height - 34}" stroke="#eeeeee"/>')
        out.append(f'<text x="{across(value):.1f}" y="{height - 16}" text-anchor="middle">{value:.2f}</text>')
    for n, (name, score, colour) in enumerate(rows):
        y = top + step * n
        out.append(f'<text x="{left - 10}" y="{y + 4}" text-anchor="end">{escape(name)}</text>')
        if score.n >= FEW:
            span = f"M{across(score.low):.1f} {y}H{across(score.high):.1f}"
            out.append(f'<path d="{span}" stroke="{colour}" stroke-width="2"/>')
        out.append(f'<circle cx="{across(score.value):.1f}" cy="{y}" r="4" fill="{colour}"/>')
        out.append(f'<text x="{right + 12}" y="{y + 4}" fill="{colour}">{score.value:.3f}</text>')
    return "\n".join([*out, "</svg>"]) + "\n"
