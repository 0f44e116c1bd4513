"""A comparison as one page: a column a model, totals on top, what differs marked. No script, nothing loaded."""

from __future__ import annotations

import base64
import difflib
import io
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from brolly import __version__
from brolly.measure.beside import Answer, Column, Comparison, Totals
from brolly.measure.questions import Question

ALIKE = 0.35  # answers that share less are told apart at a glance: no word of them is marked
WORDS = 1500  # of an answer that are compared word by word
THUMB = 320  # pixels of a picture's longer side
PICTURES = 200  # that are shown
CELL = 200_000  # characters of an answer that are shown
COLOURS = ("#3b6fd4", "#c2571a", "#2f8f5b", "#8a4fc7", "#b8336a", "#1b8a9a", "#8a7a12", "#64748b")


def page(found: Comparison, title: str, about: Sequence[tuple[str, str]]) -> str:
    """The page; `about` are lines for its foot: what was asked with, and when."""
    totals = [column.totals for column in found.columns]
    heads = "".join(
        _head(column, own, totals, COLOURS[at % len(COLOURS)], found.questions)
        for at, (column, own) in enumerate(zip(found.columns, totals, strict=True))
    )
    rows = "".join(_row(found, at, question) for at, question in enumerate(found.questions))
    same = sum(_kind(found, at) == "same" for at in range(len(found.questions)))
    stopped = " · stopped before all was answered" if found.stopped else ""
    said = f"{len(found.questions):,} questions, {len(found.columns)} models · {same:,} answered the same{stopped}"
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    foot = "".join(f"<div><dt>{_text(key)}</dt><dd>{_text(value)}</dd></div>" for key, value in (
        *about, ("made", f"{now} by brolly {__version__}")))  # fmt: skip
    csp = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" '
        f'content="{csp}"><meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{_text(title)}</title><style>{STYLE}{_widths(len(found.columns))}</style></head><body>"
        f"<header><h1>{_text(title)}</h1><p>{_text(said)}</p>{SWITCHES}</header>"
        f'<table><thead><tr><th class="q" scope="col"><span>question</span></th>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table><footer><dl>{foot}</dl></footer></body></html>\n"
    )


def _head(
    column: Column, own: Totals, every: Sequence[Totals], colour: str, questions: Sequence[Question]
) -> str:  # fmt: skip
    """A model's name and its totals, each with a bar beside those of the others."""
    lines: list[tuple[str, str, str, float | None, list[float | None]]] = [
        ("time", seconds(own.seconds), "median of an answer", own.seconds, [t.seconds for t in every]),
        ("first", seconds(own.first), "median until the first words", own.first, [t.first for t in every]),
        ("tokens", f"{own.written:,}", f"written; {own.read:,} read, {own.cached:,} of them cached, "
         f"{own.reasoning:,} written as thoughts", float(own.written), [float(t.written) for t in every]),
        ("cost", dollars(own.cost, column.here).removeprefix("cost "), "all answers", own.cost,
         [t.cost for t in every]),
    ]  # fmt: skip
    rows = "".join(
        f'<div title="{_text(f"{name}: {why}")}"><dt>{name}</dt><dd>{_text(value)}</dd>{_bar(number, others)}</div>'
        for name, value, why, number, others in lines
    )
    wrong = f' <b class="bad">{own.errors:,} failed</b>' if own.errors else ""
    right = sum(alike(answer.shown, q.expected) for answer, q in zip(column.answers, questions, strict=True))
    said = f" · {right:,} as expected" if any(question.expected for question in questions) else ""
    return (
        f'<th scope="col" style="--own:{colour}"><div class="name">{_text(column.name)}</div>'
        f'<div class="where">{_text(column.where)} · {own.answered:,} answered{said}{wrong}</div><dl>{rows}</dl></th>'
    )


def _bar(number: float | None, others: Sequence[float | None]) -> str:
    most = max((other for other in others if other is not None), default=0.0)
    share = 100 * number / most if number is not None and most > 0 else 0
    return f'<i class="bar"><i style="width:{share:.0f}%"></i></i>'


def _row(found: Comparison, at: int, question: Question) -> str:
    answers = [column.answers[at] for column in found.columns]
    times = [a.seconds for a in answers if a.seconds is not None and a.finish]
    soonest = min(times) if len(times) > 1 else None
    cells = "".join(
        _cell(answer, answers[0] if place else None, column.here, answer.finish and answer.seconds == soonest,
              alike(answer.shown, question.expected))
        for place, (column, answer) in enumerate(zip(found.columns, answers, strict=True))
    )  # fmt: skip
    kind = _kind(found, at)
    badge = {"same": "all the same", "failed": "failed", "open": "not answered"}.get(kind, "")
    pictures = "".join(_thumb(path) for path in question.files[:8]) if at < PICTURES else ""
    wanted = f'<div class="expected"><b>expected</b>{_text(question.expected)}</div>' if question.expected else ""
    return (
        f'<tr id="q{at + 1}" class="{kind}"><th class="q" scope="row"><div class="no">{at + 1}'
        f'{f" <em>{badge}</em>" if badge else ""}</div>{pictures}<div class="asked">{_asked(question)}</div>'
        f"{wanted}</th>{cells}</tr>"
    )


def _asked(question: Question) -> str:
    if len(question.messages) == 1:
        return f"<p>{_text(str(question)[:CELL])}</p>"
    return "".join(
        f'<p><b class="role">{_text(m["role"])}</b>{_text(str(Question("", (m,)))[:CELL])}</p>'
        for m in question.messages
    )


def _cell(answer: Answer, beside: Answer | None, here: bool, soonest: Any, expected: bool) -> str:
    parts = []
    if answer.thoughts:
        parts.append(f"<details><summary>thoughts</summary><p>{_text(answer.thoughts[:CELL])}</p></details>")
    shown = answer.shown.rstrip()
    if shown or not answer.error:
        body = _marked(shown, beside.shown) if beside is not None and beside.done else _text(shown[:CELL])
        parts.append(f'<div class="said">{body or "<i class=none>nothing</i>"}</div>')
    if answer.error:
        parts.append(f'<div class="error"><b>error</b> {_text(answer.error[:2000])}</div>')
    chips = ['<span class="best">as expected</span>'] if expected else []
    if answer.seconds is not None:
        star = ' class="best" title="the soonest"' if soonest else ""
        chips.append(f"<span{star}>{seconds(answer.seconds)}</span>")
    if answer.first is not None:
        chips.append(f'<span title="until the first words">first {seconds(answer.first)}</span>')
    if usage := answer.usage:
        more = "".join(f", {n:,} {word}" for n, word in (
            (usage.cached_tokens, "cached"), (usage.reasoning_tokens, "thought")) if n)  # fmt: skip
        counts = f"{usage.prompt_tokens:,} → {usage.completion_tokens:,} tokens{more}"
        chips.append(f'<span title="tokens read and written">{counts}</span>')
    if answer.usage is not None or answer.cost is not None:
        chips.append(f"<span>{dollars(answer.cost, here)}</span>")
    if answer.finish not in ("", "stop"):
        chips.append(f'<span class="warn">{_text(WHY.get(answer.finish, answer.finish))}</span>')
    if not answer.done:
        chips.append('<span class="warn">not finished</span>')
    return f'<td>{"".join(parts)}<div class="chips">{"".join(chips)}</div></td>'


WHY = {"length": "cut at the most tokens", "content_filter": "kept back by its rules", "tool_calls": "calls a tool"}


def _kind(found: Comparison, at: int) -> str:
    answers = [column.answers[at] for column in found.columns]
    if any(answer.error for answer in answers):
        return "failed"
    if not all(answer.done for answer in answers):
        return "open"
    return "same" if all(alike(answer.shown, answers[0].shown) for answer in answers) else "differ"


def alike(text: str, other: str) -> bool:
    """Whether two texts differ by no more than their white space; an empty one is like none."""
    return bool(other.strip()) and text.split() == other.split()


def _marked(text: str, beside: str) -> str:
    """A text with the words marked that the first model's answer has not, where the two are alike at all."""
    mine, theirs = (re.findall(r"\s+|\w+|[^\w\s]", one[:CELL]) for one in (text, beside))
    if not 0 < len(mine) <= WORDS or len(theirs) > WORDS or _shared(mine, theirs) < ALIKE:
        return _text(text[:CELL])
    found = []
    for tag, _, _, start, end in difflib.SequenceMatcher(None, theirs, mine, autojunk=False).get_opcodes():
        part = _text("".join(mine[start:end]))
        word = part.strip()
        found.append(part if tag == "equal" or not word else part.replace(word, f"<mark>{word}</mark>", 1))
    return "".join(found)


def _shared(mine: Sequence[str], theirs: Sequence[str]) -> float:
    """How much of two answers' words are the same ones, whatever their order: 0 to 1."""
    one, other = ({word for word in words if word.isalnum()} for words in (mine, theirs))
    return 2 * len(one & other) / max(len(one) + len(other), 1)


def _thumb(path: Path) -> str:
    """A picture made small; of another file its name."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            picture.thumbnail((THUMB, THUMB))
            made = io.BytesIO()
            picture.convert("RGB").save(made, "JPEG", quality=80)
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError):
        return ""
    data = base64.b64encode(made.getvalue()).decode()
    return f'<img alt="{_text(path.name)}" src="data:image/jpeg;base64,{data}">'


def seconds(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value * 1000:.0f} ms" if value < 0.9995 else f"{value:.1f} s" if value < 100 else f"{value:,.0f} s"


def dollars(value: float | None, here: bool) -> str:
    if here:
        return "runs here"
    if value is None:
        return "cost unknown"
    return f"${value:,.2f}" if value >= 1 else f"${value:.6f}".rstrip("0").rstrip(".") if value else "$0"


def _text(text: str) -> str:
    """Escaped, without what turns the direction of writing or is no letter."""
    return escape(re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", "\ufffd", text))


def _widths(n: int) -> str:
    return f":root{{--wide:{18 + 19 * n}rem}}"


SWITCHES = (
    '<div class="switches"><label><input type="checkbox" id="marks" checked>mark what differs from the first</label>'
    '<label><input type="checkbox" id="differ">only what differs</label>'
    '<label><input type="checkbox" id="failed">only what failed</label>'
    '<label><input type="checkbox" id="invert">other light</label></div>'
)
LIGHT = (
    "--bg:#f6f7f9;--card:#fff;--ink:#171a1f;--soft:#616975;--line:#dfe3e8;--mark:#fff0b3;--bad:#b42318;"
    "--badbg:#fdecea;--chip:#eef1f5;--best:#dff3e6;--bestink:#176b3a"
)
DARK = (
    "--bg:#101317;--card:#181c22;--ink:#e8eaed;--soft:#98a1ad;--line:#2b313a;--mark:#5b4a00;--bad:#ff8f85;"
    "--badbg:#3a1a18;--chip:#232932;--best:#173826;--bestink:#8fe0b0"
)
STYLE = (
    f":root{{color-scheme:light;{LIGHT}}}"
    f"@media(prefers-color-scheme:dark){{:root{{color-scheme:dark;{DARK}}}"
    f":root:has(#invert:checked){{color-scheme:light;{LIGHT}}}}}"
    f"@media(prefers-color-scheme:light){{:root:has(#invert:checked){{color-scheme:dark;{DARK}}}}}"
    "*{box-sizing:border-box}tr{scroll-margin-top:12rem}"
    "body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,sans-serif;"
    "min-width:var(--wide)}"
    "header{padding:1.1rem 1.25rem .9rem;position:sticky;left:0;width:100vw;max-width:100%}"
    "h1{font-size:1.25rem;margin:0}header p{margin:.1rem 0 .6rem;color:var(--soft)}"
    ".switches{display:flex;flex-wrap:wrap;gap:.3rem 1.1rem;font-size:.85rem}.switches label{cursor:pointer}"
    ".switches input{margin:0 .4rem 0 0;vertical-align:-1px;accent-color:#3b6fd4}"
    "table{border-collapse:separate;border-spacing:0;table-layout:fixed;width:100%}"
    "th,td{text-align:left;vertical-align:top;font-weight:400;padding:.8rem 1rem;border-bottom:1px solid var(--line)}"
    "td,thead th{border-left:1px solid var(--line)}td{background:var(--card)}"
    "thead th{position:sticky;top:0;z-index:2;background:var(--card);vertical-align:bottom;"
    "border-top:3px solid var(--own,var(--line));"
    "border-bottom:1px solid var(--line);box-shadow:0 4px 10px -8px #0008}"
    "th.q{position:sticky;left:0;z-index:1;background:var(--bg);width:18rem;border-left:0}"
    "thead th.q{z-index:3;color:var(--soft);vertical-align:bottom}"
    ".name{font-weight:650;overflow-wrap:anywhere}.where{color:var(--soft);font-size:.8rem;margin-bottom:.45rem}"
    "thead dl{margin:0;display:grid;gap:.12rem;font-size:.82rem}"
    "thead dl div{display:grid;grid-template-columns:3.4rem 6.2rem 1fr;align-items:center}"
    "thead dt{color:var(--soft)}thead dd{margin:0;font-variant-numeric:tabular-nums}"
    ".bar{display:block;height:.4rem;border-radius:1rem;background:var(--chip);overflow:hidden}"
    ".bar i{display:block;height:100%;border-radius:1rem;background:var(--own)}"
    ".no{color:var(--soft);font-size:.8rem;margin-bottom:.2rem}.no em{font-style:normal;background:var(--chip);"
    "border-radius:1rem;padding:.05rem .5rem;margin-left:.3rem}"
    ".same .no em{background:var(--best);color:var(--bestink)}.failed .no em{background:var(--badbg);color:var(--bad)}"
    ".asked{white-space:pre-wrap;overflow-wrap:anywhere;max-height:22rem;overflow:auto}.asked p{margin:0 0 .5rem}"
    ".role,.expected b{display:block;color:var(--soft);font-size:.75rem;font-weight:600}"
    ".expected{border-left:3px solid var(--line);padding-left:.6rem;margin-top:.6rem;white-space:pre-wrap;"
    "overflow-wrap:anywhere;font-size:.9rem}"
    "th img{display:block;max-width:100%;max-height:11rem;border-radius:6px;margin:0 0 .5rem}"
    ".said{white-space:pre-wrap;overflow-wrap:anywhere;max-height:32rem;overflow:auto}.none{color:var(--soft)}"
    "mark{background:none;color:inherit}"
    ":root:has(#marks:checked) mark{background:var(--mark);border-radius:3px;padding:0 1px}"
    "details{margin:0 0 .5rem;border-left:3px solid var(--line);padding-left:.6rem;color:var(--soft)}"
    "details p{white-space:pre-wrap;overflow-wrap:anywhere;margin:.3rem 0;max-height:20rem;overflow:auto}"
    "summary{cursor:pointer;font-size:.85rem}"
    ".error{background:var(--badbg);color:var(--bad);border-radius:6px;padding:.5rem .7rem;overflow-wrap:anywhere;"
    "white-space:pre-wrap;font-size:.9rem;margin-top:.3rem}"
    ".chips{display:flex;flex-wrap:wrap;gap:.3rem;margin-top:.6rem;font-size:.76rem;color:var(--soft);"
    "font-variant-numeric:tabular-nums}.chips span{background:var(--chip);border-radius:1rem;padding:.05rem .55rem}"
    ".chips .best{background:var(--best);color:var(--bestink)}.chips .warn,.bad{color:var(--bad)}"
    ":root:has(#differ:checked) tr.same{display:none}:root:has(#failed:checked) tbody tr:not(.failed){display:none}"
    "footer{position:sticky;left:0;width:100vw;max-width:100%;padding:1rem 1.25rem 2rem;color:var(--soft);"
    "font-size:.82rem}footer dl{display:grid;gap:.1rem;margin:0}footer dl div{display:flex;gap:.7rem}"
    "footer dt{width:6rem;flex:none}footer dd{margin:0;overflow-wrap:anywhere}"
    "@media print{th,thead th,th.q{position:static}.said,.asked{max-height:none}.switches{display:none}}"
    "@media(max-width:48rem){th.q{width:11rem;padding:.6rem}}"
)
