"""The card as one page without scripts or outside parts, to hand on: light and dark, on a screen, a phone and paper."""

from __future__ import annotations

import os
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brolly import __version__
from brolly.errors import OptionError
from brolly.identity.show import KIND_WORDS, amount, clean, two_digits, units

if TYPE_CHECKING:
    from brolly.identity.card import Card

STYLE = """
:root{color-scheme:light dark;--bg:#f6f7f9;--card:#fff;--ink:#1b1f24;--soft:#5b6570;--line:#dfe3e8;--blue:#1f5fbf;
--green:#1a7f37;--amber:#8a5a00;--red:#b42318;--track:#e8ebef}
@media(prefers-color-scheme:dark){:root{--bg:#0f1216;--card:#181c22;--ink:#e8ebef;--soft:#9aa5b1;--line:#2b323b;
--blue:#79b0ff;--green:#56d37a;--amber:#e5b454;--red:#ff8a80;--track:#262c34}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:60rem;margin:0 auto;padding:1.5rem 1rem 3rem}
h1{font-size:1.7rem;line-height:1.2;margin:0 0 .3rem;overflow-wrap:anywhere}
h2{font-size:1.05rem;margin:0 0 .6rem}
p{margin:.3rem 0}
.path,.soft{color:var(--soft);overflow-wrap:anywhere}
.chips{display:flex;flex-wrap:wrap;gap:.4rem;margin:.6rem 0 .8rem}
.chip{border:1px solid var(--line);background:var(--card);border-radius:1rem;padding:.1rem .7rem;font-size:.85rem}
.chip.main{background:var(--blue);border-color:var(--blue);color:var(--card)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.8rem;margin:1rem 0}
section,.tile{background:var(--card);border:1px solid var(--line);border-radius:.6rem;padding:.9rem 1rem}
section{margin:.8rem 0}
.tile b{display:block;font-size:1.35rem;line-height:1.3;overflow-wrap:anywhere}
.tile span{color:var(--soft);font-size:.85rem}
table{width:100%;border-collapse:collapse;font-size:.93rem}
td,th{text-align:left;vertical-align:top;padding:.35rem .6rem .35rem 0;border-top:1px solid var(--line);
overflow-wrap:anywhere}
tr:first-child td,tr:first-child th{border-top:0}
th{font-weight:500;color:var(--soft);width:11rem}
.meets,.warning{color:var(--amber)}.danger{color:var(--red)}.good{color:var(--green)}.cannot-tell{color:var(--soft)}
.does-not-meet{color:var(--green)}
.outcome{font-weight:600;white-space:nowrap}
.bar{display:flex;height:.8rem;border-radius:.4rem;overflow:hidden;background:var(--track);margin:.4rem 0}
.bar i{display:block;min-width:2px}
.legend{display:flex;flex-wrap:wrap;gap:.2rem 1rem;font-size:.85rem;color:var(--soft)}
.legend i{display:inline-block;width:.7rem;height:.7rem;border-radius:.2rem;margin-right:.35rem}
details{margin-top:.5rem}summary{cursor:pointer;color:var(--blue)}
code{font:.88em ui-monospace,Menlo,Consolas,monospace}
a{color:var(--blue)}
footer{color:var(--soft);font-size:.85rem;margin-top:1.2rem}
@media(max-width:34rem){th{width:auto;display:block;border-top:1px solid var(--line);padding-bottom:0}
td{display:block;border-top:0;padding-top:0}tr:first-child th{border-top:0}.outcome{white-space:normal}
h1{font-size:1.35rem}}
@media print{body{background:#fff}section,.tile{break-inside:avoid}}
"""
COLOURS = ("#3b82d0", "#d08a3b", "#3ba57a", "#9a63c9", "#c9637a", "#7a8896", "#5fb6c9", "#a7b23b")
TRAIN = {"lora": "LoRA", "full": "in full"}
OUTCOMES = {"meets": "meets", "does-not-meet": "does not meet", "cannot-tell": "cannot tell"}


def write_page(card: Card, target: str) -> None:
    """Write the page; the file appears when it is whole. Raises OptionError where it cannot be written."""
    path = Path(target).expanduser()
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "x", encoding="utf-8", errors="replace") as file:  # never through a link that waits there
            file.write(page(card))
        os.replace(part, path)
    except FileExistsError:
        raise OptionError(f"{part} exists; remove it first.") from None
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OptionError(
            f"{path} cannot be written ({error.strerror}); give a file in a folder that exists."
        ) from None


def page(card: Card) -> str:
    """The whole document."""
    data = card.json()
    name = data["name"] or data["family"] or card.subject.where.name
    parts = [_head(card, data, name), _tiles(data), _size(data), _needs(data), _licence(data), _rules(data)]
    parts += [_findings(card, data), _evidence(card)]
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_t(name)} – model card by brolly</title><style>{STYLE}</style></head>\n<body><main>\n"
        + "\n".join(part for part in parts if part)
        + f"\n<footer>Told from the model's files by brolly {_t(__version__)}; nothing was executed. "
        "Rules and licences are indicative, not legal advice.</footer>\n</main></body></html>\n"
    )


def _t(value: Any) -> str:
    return escape(clean(str(value)))


def _head(card: Card, data: dict[str, Any], name: str) -> str:
    words = KIND_WORDS.get(data["kind"] or "", "kind not told")
    chips = [f'<span class="chip main">{_t(words)}</span>']
    marks = [data["family"], *data["flavours"], data["size_class"], data["scope"]]
    if data["relation"]:
        base = data["base_model"]
        names = ", ".join(base) if isinstance(base, list) else base
        marks.append(f"{data['relation']} of {names}" if names else data["relation"])
    chips += [f'<span class="chip">{_t(mark)}</span>' for mark in marks if mark]
    where = f"{card.seen[0].upper()}{card.seen[1:]}." if card.from_table else str(card.subject.where)
    flow = f"{', '.join(data['modalities']['in'])} → {', '.join(data['modalities']['out'])}"
    moves = f'<p class="soft">{_t(flow)}</p>' if data["modalities"]["in"] else ""
    return (
        f'<h1>{_t(name)}</h1><p class="path">{_t(where)}</p><div class="chips">{"".join(chips)}</div>'
        f"<p><strong>Is it an LLM?</strong> {_t(data['sentence'])}</p>{moves}"
    )


def _tiles(data: dict[str, Any]) -> str:
    size, needs, licence, training = data["parameters"], data["needs"], data["licence"], data["training"]
    tiles = []
    if size["total"] is not None:
        about = "" if size["exact"] else "about "
        active = size["activated"]
        note = f"{amount(active)} activated a token" if active not in (None, size["total"]) else "parameters"
        tiles.append((about + amount(size["total"]), note))
    if data["precision"]:
        tiles.append((data["precision"], data["quantization"] or "precision"))
    if data["context_length"]:
        tiles.append((f"{data['context_length']:,}", "tokens of context"))
    if needs["memory"]:
        stored = next(iter(needs["memory"].items()))
        fits = {True: "fits this machine", False: "does not fit this machine", None: "of memory"}[needs["fits"]]
        tiles.append((units(stored[1]), f"{stored[0]}: {fits}"))
    use = {"yes": "commercial use: yes", "no": "no commercial use", "conditional": "commercial use: conditional"}
    tiles.append((licence["id"] or "not told", use.get(licence["commercial"] or "", "licence")))
    if training["flop"]:
        tiles.append((f"{training['flop']:.1e}".replace("e+", "e"), f"FLOP of training, {training['source']}"))
    return (
        '<div class="tiles">'
        + "".join(f'<div class="tile"><b>{_t(a)}</b><span>{_t(b)}</span></div>' for a, b in tiles)
        + "</div>"
    )


def _bar(shares: dict[str, float], words: dict[str, str]) -> str:
    """A bar of parts, and what each is; the eight largest."""
    rows = sorted(shares.items(), key=lambda row: -row[1])[: len(COLOURS)]
    whole = sum(shares.values()) or 1
    bars = "".join(
        f'<i style="width:{100 * n / whole:.2f}%;background:{COLOURS[i]}"></i>' for i, (_, n) in enumerate(rows)
    )
    names = "".join(
        f'<span><i style="background:{COLOURS[i]}"></i>{_t(name)} {_t(words[name])}</span>'
        for i, (name, _) in enumerate(rows)
    )
    return f'<div class="bar">{bars}</div><div class="legend">{names}</div>'


def _size(data: dict[str, Any]) -> str:
    size = data["parameters"]
    if size["total"] is None:
        return ""
    how = {"tensors": "counted from the tensors", "config": "counted from the config", "table": "as published"}
    rows = [
        (
            "In total",
            f"{size['total']:,} ({how.get(size['source'], 'estimated')}{'' if size['exact'] else ', not exact'})",
        ),
        ("Activated a token", f"{size['activated']:,}, embeddings included" if size["activated"] is not None else ""),
        (
            "Activated, other convention",
            f"{size['activated_without_embeddings']:,}, without the input embeddings"
            if size["activated_without_embeddings"] is not None
            else "",
        ),
    ]
    body = _table(rows)
    if len(size["components"]) > 1:
        body += _bar(size["components"], {k: amount(v) for k, v in size["components"].items()})
    if len(data["precision_shares"]) > 1:
        body += _bar(data["precision_shares"], {k: f"{v:.1%}" for k, v in data["precision_shares"].items()})
    return f"<section><h2>Size</h2>{body}</section>"


def _needs(data: dict[str, Any]) -> str:
    needs = data["needs"]
    rows = [("On disk", units(needs["disk"]) if needs["disk"] else "")]
    rows += [(f"Weights, {name}", units(n)) for name, n in needs["memory"].items()]
    if data["kv_bytes_per_token"]:
        full = needs["kv_bytes_full_context"]
        rows.append(
            ("KV cache", f"{units(data['kv_bytes_per_token'])} a token" + (f", {units(full)} in full" if full else ""))
        )
    rows.append(("Work a token", f"{needs['flop_per_token']:.2e} FLOP" if needs["flop_per_token"] else ""))
    rows += [(f"To train, {TRAIN.get(name, name)}", units(n)) for name, n in needs["training_memory"].items()]
    if needs["fits"] is not None:
        fits = "fits" if needs["fits"] else "does not fit"
        speed = f"; about {two_digits(needs['tokens_per_second'])} tokens/s" if needs["tokens_per_second"] else ""
        rows.append(("On this machine", f"{fits} {units(needs['machine_memory'])} of free memory{speed}"))
    table = _table(rows)
    return f"<section><h2>Needs</h2>{table}</section>" if table else ""


def _licence(data: dict[str, Any]) -> str:
    licence = data["licence"]
    url = licence["url"] or ""
    link = f' <a href="{escape(url)}" rel="noopener noreferrer">text</a>' if url.startswith("https://") else ""
    name = _t(licence["name"] or licence["id"] or "not told") + link
    rows = [
        ("Licence", name),
        ("Commercial use", _t(licence["commercial"] or "not told")),
        ("Redistribution", _t(licence["redistribution"] or "not told")),
        ("Free and open", {True: "yes", False: "no", None: "cannot tell"}[licence["free_and_open"]]),
        ("Inherited from", _t(licence["inherited_from"] or "")),
        ("Conditions", "<br>".join(_t(c) for c in licence["conditions"])),
        ("Openness", ", ".join(f"{_t(k)}: {_word(v)}" for k, v in licence["openness"].items())),
        ("Openness framework", _t(licence["mof_class"] or "")),
    ]
    return f"<section><h2>Licence</h2>{_table(rows, raw=True)}</section>"


def _word(value: bool | None) -> str:
    return {True: "open", False: "closed", None: "not told"}[value]


def _rules(data: dict[str, Any]) -> str:
    rows = []
    for rule in data["rules"]:
        outcome = rule["outcome"]
        source = f' <a href="{escape(rule["source"])}" rel="noopener noreferrer">text</a>' if rule["source"] else ""
        text = f"{_t(rule['article'])}; {_t(rule['version'])}, {_t(rule['date'])}.{source}"
        rows.append(
            f'<tr><th class="outcome {escape(outcome)}">{_t(OUTCOMES[outcome])}</th>'
            f"<td><strong>{_t(rule['name'])}</strong><br>{_t(rule['because'])}"
            f'<br><span class="soft">{text}</span></td></tr>'
        )
    if not rows:
        return ""
    note = '<p class="soft">Indicative, not legal advice.</p>'
    return f"<section><h2>Rules</h2><table>{''.join(rows)}</table>{note}</section>"


def _findings(card: Card, data: dict[str, Any]) -> str:
    rows = [
        f'<tr><th class="outcome {escape(f["severity"])}">{_t(f["severity"])}</th><td><code>{_t(f["id"])}</code> '
        f"{_t(f['file'])}<br>{_t(f['message'])}</td></tr>"
        for f in data["findings"]
    ]
    body = (
        f"<table>{''.join(rows)}</table>" if rows else '<p class="good">None: the files are sound and hold no code.</p>'
    )
    if card.from_table:
        body = '<p class="soft">No files were seen.</p>'
    verbs = ", ".join(data["verbs"]) or f"none. {data['verbs_why']}"
    body += _table(list(card.beside))
    return f"<section><h2>Findings</h2>{body}<p><strong>brolly's verbs:</strong> {_t(verbs)}</p></section>"


def _evidence(card: Card) -> str:
    rows = "".join(
        f"<tr><th><code>{_t(e.line)}</code></th><td>{_t(e.file)} <code>{_t(e.key)} {_t(e.value)[:300]}</code>"
        f'<br><span class="soft">{_t(e.rule)}</span></td></tr>'
        for e in card.why
    )
    return (
        f"<section><details><summary>Evidence for each line</summary><table>{rows}</table></details></section>"
        if rows
        else ""
    )


def _table(rows: list[tuple[str, str]], raw: bool = False) -> str:
    filled = [(k, v if raw else _t(v)) for k, v in rows if v]
    return (
        "<table>" + "".join(f"<tr><th>{_t(k)}</th><td>{v}</td></tr>" for k, v in filled) + "</table>" if filled else ""
    )
