"""Measures and their intervals as a picture: SVG, written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import floor, isfinite, log10

from brolly.measure.intervals import Difference
from brolly.measure.report import Report, number

WIDTH, ROW, LEFT, RIGHT, TOP = 820, 56, 210, 150, 76
COLOURS = ("#2471a3", "#c0392b")


def picture(reports: Sequence[Report], found: Sequence[Difference] = ()) -> str:
    """One report, or two and their differences: a line a measure, each on an axis of its own; dots are values."""
    names = [one.name for one in reports[0].measures]
    height = TOP + ROW * len(names) + 26 + 18 * len(reports)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        'font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="20" y="26" font-size="15">{plain(reports[0].data, 90)}</text>',
        f'<text x="20" y="46" fill="#666666">{reports[0].n_rows:,} rows, dots with 95 % intervals</text>',
    ]
    words = {one.name: one for one in found}
    for i, name in enumerate(names):
        y = TOP + ROW * i + ROW / 2
        each = [(n, one) for n, report in enumerate(reports) for one in report.measures if one.name == name]
        top = 1.0 if each[0][1].bounded else ceiling(max(one.high for _, one in each))
        out.append(f'<text x="{LEFT - 14}" y="{y + 4:.1f}" text-anchor="end">{plain(name, 34)}</text>')
        out.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#dddddd"/>')
        for part in range(5):
            x = across(top * part / 4, top)
            out.append(f'<path d="M{x:.1f} {y - 3:.1f}v6" stroke="#bbbbbb"/>')
            if part in (0, 4):
                out.append(
                    f'<text x="{x:.1f}" y="{y + 24:.1f}" text-anchor="middle" font-size="10" fill="#888888">'
                    f"{top * part / 4:,.10g}</text>"
                )
        for n, one in each:
            at = y + 10 * (n - (len(each) - 1) / 2)
            low, high, dot = (across(x, top) for x in (one.low, one.high, one.value))
            out.append(
                f'<path d="M{low:.1f} {at:.1f}H{high:.1f}" stroke="{COLOURS[n]}" stroke-width="3" opacity="0.5"/>'
            )
            out.append(f'<circle cx="{dot:.1f}" cy="{at:.1f}" r="4" fill="{COLOURS[n]}"/>')
            beside = y + 4 + 15 * (n - (len(each) - 1) / 2)
            mark = " ✓" if name in words and words[name].better == "ab"[n] else ""
            out.append(
                f'<text x="{WIDTH - RIGHT + 16}" y="{beside:.1f}" fill="{COLOURS[n]}">{number(one.value)}{mark}</text>'
            )
    for n, report in enumerate(reports):
        y = TOP + ROW * len(names) + 20 + 18 * n
        out.append(f'<circle cx="26" cy="{y - 4}" r="4" fill="{COLOURS[n]}"/>')
        out.append(f'<text x="38" y="{y}">{plain(report.model, 110)}</text>')
    return "\n".join(out) + "\n</svg>\n"


def across(x: float, top: float) -> float:
    return LEFT + (WIDTH - RIGHT - LEFT) * min(max(x / top, 0.0), 1.0)


def ceiling(x: float) -> float:
    """A round number at or above: 1, 2 or 5 times a power of ten."""
    if not isfinite(x) or x <= 0:
        return 1.0
    power = 10.0 ** floor(log10(x))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= x)


def plain(text: str, most: int) -> str:
    """A text for XML, its end where it is too long: XML holds no control characters."""
    shown = "".join(filter(str.isprintable, text))
    return escape(shown if len(shown) <= most else "…" + shown[1 - most :])
