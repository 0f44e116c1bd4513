"""The card for a person's eyes: one screen of a terminal, read in ten seconds."""

from __future__ import annotations

import os
import re
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from brolly.identity.card import Card

WIDTH = 80  # columns at least; as many as 100 where the terminal has them
LABEL = 11
STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
KIND_WORDS = {
    "llm": "large language model (LLM)", "lmm": "large multimodal model (LMM)", "image": "image generator",
    "video": "video generator", "vision": "vision model",
    "vision-language-embedding": "vision-language embedding model",
    "text-encoder": "text encoder", "speech": "speech model", "audio": "audio model", "music": "music generator",
    "protein": "protein model", "scientific": "scientific model", "robotics": "robot policy",
    "time-series": "time-series model", "other": "another kind of model",
}  # fmt: skip
OUTCOME = {"meets": ("meets", "yellow"), "does-not-meet": ("does not meet", ""), "cannot-tell": ("cannot tell", "dim")}
SEVERITY = {"danger": "red", "warning": "yellow", "info": ""}


class Page:
    """Lines of label and text, wrapped; colours only where asked for."""

    def __init__(self, colour: bool, width: int) -> None:
        self.colour, self.width = colour, width
        self.lines: list[str] = []

    def style(self, text: str, *names: str) -> str:
        codes = ";".join(STYLES[n] for n in names if n)
        return f"\033[{codes}m{text}\033[0m" if self.colour and codes else text

    def row(self, name: str, text: str, *styles: str, label: int = LABEL) -> None:
        """One labelled line; what is too long goes on below, under the text."""
        room = self.width - label - 2
        parts = textwrap.wrap(clean(text), room, break_long_words=True, break_on_hyphens=False) or [""]
        for i, part in enumerate(parts):
            left = self.style(f"{name if i == 0 else '':{label}}", "dim")
            self.lines.append(f" {left} {self.style(part, *styles)}".rstrip())

    def text(self) -> str:
        return "\n".join(self.lines) + "\n"


def show(card: Card, *, colour: bool = False, width: int | None = None) -> str:
    """The card as text. `width` in columns: by default the terminal's, from 80 to 100."""
    page = Page(colour, width or min(max(columns(), 60), 100))
    kind = card.kind
    title = card.name or kind.family or card.subject.where.name
    page.lines.append("")
    page.lines.append(" " + page.style(clean(title), "bold", "cyan"))
    if card.from_table:
        page.row("", card.seen, "yellow")
        if card.others:
            page.row("", f"the name could mean {', '.join(card.others)} …; told is what they share", "dim")
    elif str(card.subject.where) != title:
        page.row("", str(card.subject.where), "dim")
    page.lines.append("")
    words = KIND_WORDS.get(kind.kind or "", "not told by the files")
    flavours = f" ({', '.join(kind.flavours)})" if kind.flavours else ""
    flow = f": {', '.join(kind.modalities_in)} → {', '.join(kind.modalities_out)}" if kind.modalities_in else ""
    family = f"{kind.family}, " if kind.family else ""
    page.row("Kind", f"{family}{words}{flavours}{flow}", "bold")
    page.row("LLM?", kind.sentence)
    if card.shaped_as:
        page.row("Shape", f"that of {card.shaped_as}; a fine-tune has its base's")
    page.row("Scope", ": ".join(part for part in (kind.scope, kind.scope_why) if part) or "not told")
    if kind.relation:
        page.row("Relation", kind.relation + (f" of {', '.join(kind.base_model)}" if kind.base_model else ""))
    _size(page, card)
    _needs(page, card)
    _licence(page, card)
    training = card.training
    told = [f"{amount(training.tokens)} tokens"] if training.tokens else []
    told += [f"{training.flop:.1e} FLOP".replace("e+", "e")] if training.flop else []
    source = f" ({training.source})" if training.source else ""
    page.row("Training", (" · ".join(told) or "tokens and compute unknown; --tokens states them") + source)
    for i, rule in enumerate(card.rules):
        word, style = OUTCOME[rule.outcome]
        name = re.sub(r" \([^()]*\)$", "", rule.name)
        page.row("Rules" if i == 0 else "", f"{word:14}{name}", style)
    if card.rules:
        page.row("", "indicative, not legal advice; --why gives inputs, texts and dates", "dim")
    for i, finding in enumerate(card.findings):
        where = f"{finding.file}: " if finding.file and finding.file not in finding.message else ""
        label = "Findings" if i == 0 else ""
        page.row(label, f"{finding.severity}: {where}{finding.message}", SEVERITY[finding.severity])
    if not card.findings and not card.from_table:
        page.row("Findings", "none", "green")
    for label, text in card.beside:
        page.row(label, text)
    page.row(card.runs, ", ".join(card.verbs) if card.verbs else f"no: {card.verbs_why}")
    page.lines.append("")
    return page.text()


def columns() -> int:
    """COLUMNS, or the terminal's width, or WIDTH."""
    if (said := os.environ.get("COLUMNS", "")).isdigit():
        return int(said)
    try:
        return os.get_terminal_size().columns
    except OSError:
        return WIDTH


def _size(page: Page, card: Card) -> None:
    size = card.parameters
    if size.total is None:
        page.row("Size", "not told by the files" if not card.from_table else "not published")
        return
    about = "" if size.exact else "about "
    text = f"{about}{amount(size.total)} parameters"
    if size.activated is not None and size.activated != size.total:
        text += f", {amount(size.activated)} activated a token"
        if size.activated_without_embeddings:
            text += f" ({amount(size.activated_without_embeddings)} without input embeddings)"
    if size.size_class:
        text += f" · {size.size_class}"
    page.row("Size", text, "bold")
    if len(size.components) > 1:
        parts = sorted(size.components.items(), key=lambda p: -p[1])
        page.row("", " + ".join(f"{name} {amount(n)}" for name, n in parts[:6]), "dim")
    if size.precision:
        shares = sorted(size.shares.items(), key=lambda p: -p[1])
        mixed = f" ({', '.join(f'{d} {share:.1%}' for d, share in shares[:4])})" if len(shares) > 1 else ""
        page.row("Precision", (size.quantization or size.precision) + mixed)


def _needs(page: Page, card: Card) -> None:
    needs = card.needs
    if needs.context_length:
        text = f"{needs.context_length:,} tokens"
        if needs.kv_bytes_per_token:
            text += f" · KV cache {units(needs.kv_bytes_per_token)} a token"
            text += f", {units(needs.kv_bytes_full_context)} in full" if needs.kv_bytes_full_context else ""
        page.row("Context", text)
    told = [f"{units(needs.disk)} on disk"] if needs.disk else []
    told += [f"{units(n)} {name}" for name, n in needs.memory.items()][:4]
    if told:
        page.row("Memory", " · ".join(told))
    if needs.fits is not None and needs.machine_memory:
        word = "fits" if needs.fits else "does not fit"
        speed = (
            f" · about {two_digits(needs.tokens_per_second)} tokens/s by its bandwidth"
            if needs.tokens_per_second
            else ""
        )
        page.row("Here", f"{word} this machine's {units(needs.machine_memory)} free{speed}")
    if needs.training_memory:
        words = {"lora": "LoRA", "full": "in full"}
        told = [f"{words.get(name, name)} {units(n)}" for name, n in needs.training_memory.items()]
        page.row("To train", " · ".join(told))


def _licence(page: Page, card: Card) -> None:
    licence = card.licence
    if card.row and card.row.open == "closed":
        page.row("Licence", "closed: behind its vendor's API and terms")
        return
    if not licence.id and not licence.name:
        page.row("Licence", "not told", "yellow")
        return
    text = licence.id or ""
    text += f" ({licence.name})" if licence.name and licence.name != licence.id else ""
    text += f" · commercial use: {licence.commercial or 'not told'}"
    text += f" · from {licence.inherited_from}" if licence.inherited_from else ""
    page.row("Licence", text, {"no": "red", "conditional": "yellow"}.get(licence.commercial or "", ""))
    for condition in licence.conditions[:3]:
        page.row("", condition, "dim")


def why(card: Card, *, width: int | None = None) -> str:
    """The evidence behind each line: file, key, value, rule; then each rule's inputs, text and dates."""
    page = Page(False, width or min(max(columns(), 60), 120))
    label = max([len(e.line) for e in card.why] + [len("rules." + rule.id) for rule in card.rules] + [10])
    for e in card.why:
        place = f"{e.file}: " if e.file else ""
        value = e.value if len(e.value) <= 200 else e.value[:200] + "…"
        page.row(e.line, place + (f"{e.key} = {value}" if e.key else value), label=label)
        if e.rule:
            page.row("", f"→ {e.rule}", label=label)
    for rule in card.rules:
        inputs = ", ".join(f"{k} = {v}" for k, v in rule.inputs.items())
        page.row(f"rules.{rule.id}", f"{OUTCOME[rule.outcome][0]}: {rule.because}", label=label)
        page.row("", f"inputs: {inputs}", label=label)
        page.row("", f"{rule.article}; {rule.version} ({rule.date})", label=label)
        page.lines.append(f" {'':{label}} {clean(rule.source)}")  # an address is not broken
        for day, what in rule.dates.items():
            page.row("", f"{day}: {what}", label=label)
    return page.text()


def clean(text: str) -> str:
    """What a file says, with nothing in it that a terminal would obey."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", "�", text)


def two_digits(n: float) -> str:
    """5.342 → "5.3", 2391 → "2,400"."""
    return f"{float(f'{n:.1e}'):,.10g}"


def amount(n: float) -> str:
    """8030261248 → "8.03 B"."""
    for size, unit in ((1e12, " T"), (1e9, " B"), (1e6, " M"), (1e3, " k")):
        if n >= size * 0.9995:
            return f"{n / size:.3g}{unit}" if n < size * 999.5 else f"{n / size:,.0f}{unit}"
    return f"{n:,.0f}"


def units(n: float) -> str:
    """Bytes, decimal: 16060522496 → "16.1 GB"."""
    for size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if n >= size:
            return f"{n / size:.3g} {unit}"
    return f"{n:,.0f} B"
