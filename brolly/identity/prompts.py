"""Chat templates read as suspects: what reaches for Python, or puts words into a conversation behind one's back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from brolly.card import Finding
from brolly.checkpoint.bounded import shown
from brolly.identity.subject import Subject

MAX_TEMPLATE = 2**18  # characters; published ones have up to about 30,000
MAX_TEMPLATES = 32
FILES = ("tokenizer_config.json", "chat_template.json", "processor_config.json")
QUOTED = re.compile(r"'(?:[^'\\]|\\.)*+'|\"(?:[^\"\\]|\\.)*+\"", re.DOTALL)
TOKEN = re.compile(r"[][(){}'\"%]")
RAW_ENDS = re.compile(r"\{%[-+]?\s*+endraw\s*+[-+]?%\}")
DUNDER = re.compile(r"__\w+__|_TemplateReference__\w+|__$|^__")
# Attributes and names by which published escapes from Jinja reach the interpreter.
ATTRIBUTES = re.compile(
    r"\.\s*(mro|func_globals|gi_frame|gi_code|cr_frame|f_globals|f_builtins|tb_frame|popen|system|subprocess|os|sys"
    r"|modules|builtins|eval|exec|import_module|environ|environment|_module|exported_vars|blocks|name)\b(?!\s*\()"
)
CALLS = re.compile(r"\b(?:eval|exec|popen|system|open|compile|getattr|setattr|import_module|__import__)\s*\(")
NAMES = re.compile(r"(?<![\w.'\"|])(lipsum|cycler|request|get_flashed_messages|url_for|joiner)\b|\bself\s*[.\[]")
WALKS = {"name", "blocks", "environ", "environment", "modules"}  # of `self` and modules; innocent on anything else
INNER = {"gi_frame", "gi_code", "cr_frame", "ag_frame", "f_back", "f_globals", "f_builtins", "f_locals", "func_globals",
         "tb_frame", "mro"}  # fmt: skip
# A key or an attribute's name that is put together: x['a' ~ b], x[(…)|join], map(attribute=a ~ b), groupby(a).
MAKES = re.compile(
    r"~|\|\s{0,9}(?:join|reverse|replace|format|lower|string|trim)\b|''\s{0,9}[%*]"
    r"|\.(?:join|format|replace|lower|strip)\s{0,9}\("
)
BRACKET = re.compile(r"[][(){}]")
KEYED = re.compile(r"(\w{1,32}|[)\]'])\s{0,9}$")  # what a key follows, but for these
WORDS = {"in", "else", "and", "or", "not", "is", "if"}
ATTRIBUTE = re.compile(
    r"\battribute\s{0,9}=\s{0,9}(?!\s|''\s{0,9}[,)])|\b(?:selectattr|rejectattr|groupby)\s{0,9}\(\s{0,9}(?!\s|''\s{0,9}[,)])"
)
SET = re.compile(r"[-+\s]*set\s+(\w+)\s*=(.*)", re.DOTALL)
MADE = re.compile(r"[~%*|+]|\.(?:join|format|replace)\b")
FETCHED = re.compile(r"\[\s{0,9}(\w+)\s{0,9}\]")
LOADS = re.compile(r"^[-+\s]*(include|import|from|extends)\b")
ATTR = re.compile(r"\|\s*attr\s*\(")
# What a reader does not see: zero-width and bidirectional marks, and the tags that spell hidden ASCII.
HIDDEN = re.compile("[\u200b\u2060-\u2064\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]")
# An address that something is put into, or a picture: how words get out of a conversation.
ADDRESS = re.compile(
    r"!\[[^\]]{0,80}\]\(\s{0,9}https?://|https?://[^\s'\"<>{}|]{0,200}['\"]?\s{0,9}(?:\+|~|\{\{)", re.I
)
ORDERS = re.compile(
    r"ignore (?:all |any )?(?:the )?(?:previous|prior|above) (?:instructions|messages)"
    r"|do not (?:tell|reveal to) the user"
    r"|without (?:telling|informing) the user|<script\b|javascript:",
    re.I,
)
# A condition on what the user wrote, rather than on markers such as '</think>': words and nothing else.
TRIGGER = re.compile(
    r"(['\"])\s{0,9}([A-Za-z][A-Za-z0-9 ,.-]{2,80})\1\s{1,9}(?:not\s{1,9})?in\s{1,9}([\w.\[\]'\"-]{0,80}content)\b",
    re.I,
)
KEYS = {
    "audio", "content", "document", "file", "image", "images", "name", "reasoning", "role", "text", "thinking", "type",
    "video",
}  # fmt: skip


def templates(subject: Subject) -> Iterator[tuple[str, str]]:
    """Each chat template and the file that it stands in."""
    inside = [n for n in subject.files if n.count("/") == 1 and n.rpartition("/")[2] in FILES]
    for name in (*FILES, *inside):
        if subject.has(name):
            for text in _within(subject.json(name).get("chat_template")):
                yield name, text
    for name in list(subject.files):
        if name.endswith((".jinja", ".jinja2", ".j2")):
            yield name, subject.text(name, 4 * MAX_TEMPLATE + 4)
    for key, value in subject.header.metadata.items():
        if isinstance(key, str) and key.startswith("tokenizer.chat_template") and isinstance(value, str):
            yield subject.header.path.name, value


def _within(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (v for v in value.values() if isinstance(v, str))
    elif isinstance(value, list):
        yield from (v["template"] for v in value if isinstance(v, dict) and isinstance(v.get("template"), str))


def findings(subject: Subject, alone: bool = False) -> list[Finding]:
    """What is wrong with the model's chat templates; `alone` looks at those of the header only."""
    found: list[Finding] = []
    given = ((file, text) for file, text in templates(subject) if not alone or file == subject.header.path.name)
    for n, (file, text) in enumerate(given):
        if n >= MAX_TEMPLATES:
            said = f"There are more than {MAX_TEMPLATES} chat templates, as no real model has; not all were looked at."
            found.append(Finding("template-size", "warning", file, said))
            break
        found += judge(text, file)
    return found


def judge(text: str, file: str) -> list[Finding]:
    """What is wrong with one template, at most one finding of each kind."""
    found: list[Finding] = []
    if len(text) > MAX_TEMPLATE:
        said = (
            f"The chat template has {len(text):,} characters, which no real one has; only its beginning was looked at."
        )
        found.append(Finding("template-size", "warning", file, said))
        text = text[:MAX_TEMPLATE]
    if reason := _code(text):
        said = f"The chat template {reason}, by which templates break out and run code; do not render it."
        found.append(Finding("template-code", "danger", file, said))
    if reason := _hidden(text):
        said = f"The chat template {reason}; read it before you use it."
        found.append(Finding("template-hidden", "warning", file, said))
    return found


def blocks(text: str) -> Iterator[str]:
    """The code of a template: what stands in {{ }} and {% %}, cut as Jinja cuts it; comments and raw text left out."""
    at = 0
    while (begin := text.find("{", at)) >= 0:
        close = {"{": "}}", "%": "%}", "#": "#}"}.get(text[begin + 1 : begin + 2])
        at = begin + 1
        if close == "#}":
            at = text.find(close, begin + 2) + 2
            if at < 2:
                return
        elif close is not None:
            end = _end(text, begin + 2, close)
            code = text[begin + 2 : end]
            yield code
            at = end + 2
            if code.strip("-+ \n\t") == "raw":
                over = RAW_ENDS.search(text, at)
                at = over.end() if over else len(text)


def _end(text: str, at: int, close: str) -> int:
    """Where a block ends: at its closing sign outside of texts and brackets."""
    depth = 0
    while token := TOKEN.search(text, at):
        found = token[0]
        if found[0] in "'\"":
            quoted = QUOTED.match(text, token.start())
            if quoted is None:
                break
            at = quoted.end()
            continue
        if not depth and text.startswith(close, token.start()):
            return token.start()
        depth += (found in "([{") - (found in ")]}")
        depth = max(depth, 0)
        at = token.end()
    return len(text)


def _apart(code: str) -> tuple[str, list[str]]:
    """Code with its texts emptied, and the texts."""
    bare: list[str] = []
    texts: list[str] = []
    at = 0
    for start in re.finditer(r"['\"]", code):
        if start.start() < at:
            continue
        bare.append(code[at : start.start()])
        quoted = QUOTED.match(code, start.start())
        texts.append(quoted[0] if quoted else code[start.start() :])
        bare.append("''")
        at = quoted.end() if quoted else len(code)
    bare.append(code[at:])
    return "".join(bare), texts


def _decoded(text: str) -> str:
    """A text with its escapes undone, as Jinja undoes them."""
    if "\\" not in text:
        return text
    import codecs
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return codecs.decode(text.encode("ascii", "backslashreplace"), "unicode_escape")
        except (UnicodeError, ValueError):
            return text


def _joined(bare: str, texts: list[str]) -> list[str]:
    """Texts that are put together of texts, in quotes."""
    found: list[str] = []
    end, n_parts = -1, 0
    for text, place in zip(texts, re.finditer("''", bare), strict=False):
        if end >= 0 and bare[end : min(place.start(), end + 32)].strip() in ("", "~", "+"):
            n_parts += 1
            found[-1] += text[1:-1]
        else:
            found.append(text[:-1])
        end = place.end()
    return [text + "'" for text in found] if n_parts else []


def _computes(bare: str) -> bool:
    """Whether a key in brackets is put together of pieces, rather than a name, a text or a number."""
    stack: list[bool] = []  # of each open bracket, whether it is a key's or lies in one
    at = 0
    for found in BRACKET.finditer(bare):
        if stack and stack[-1] and MAKES.search(bare, at, found.start() + 1):
            return True
        if found[0] in "[({":
            before = KEYED.search(bare[max(0, found.start() - 32) : found.start()])
            key = found[0] == "[" and before is not None and before[1] not in WORDS
            stack.append(key or bool(stack and stack[-1]))
        elif stack:
            stack.pop()
        at = found.start() if found[0] == "(" else found.end()
    return False


def _code(text: str) -> str:
    """What in its code reaches for Python, or nothing."""
    made: set[str] = set()
    lone = ""
    for code in blocks(text):
        bare, texts = _apart(code)
        texts = [*texts, *_joined(bare, texts)]
        if loads := LOADS.match(bare):
            return f"{loads[1]}s another file"
        if dunder := DUNDER.search(bare.strip()):
            return f"uses {shown(dunder[0])}"
        for quoted in texts:
            plain = _decoded(quoted[1:-1])
            if inside := DUNDER.search(plain):
                return f"names {shown(inside[0])}"
            if plain.count("_") > quoted.count("_") or "%c" in quoted:
                return f"spells {shown(quoted[1:-1])}"
            if inner := INNER & set(plain.split(".")):
                return f"names {shown(sorted(inner)[0])}"
            lone = lone or (plain if plain and not plain.strip("_") else "")
        if ATTRIBUTE.search(bare) or _computes(bare):
            return "fetches attributes by computed names"
        if matched := SET.match(bare):
            made |= {matched[1]} if MADE.search(matched[2]) else set()
        if lone and any(m[1] in made for m in FETCHED.finditer(bare)):
            return "fetches attributes by computed names"
        if ATTR.search(bare):
            return "fetches attributes by computed names"
        for matched in ATTRIBUTES.finditer(bare):
            if matched[1] not in WALKS or re.search(r"\bself\s*[.\[]", bare):
                return f"reaches for {shown(matched[0].strip())}"
        if called := CALLS.search(bare):
            return f"calls {shown(called[0])}"
        if named := NAMES.search(bare):
            return f"uses {shown(named[0])}"
    return ""


def _hidden(text: str) -> str:
    if mark := HIDDEN.search(text):
        return f"holds marks that cannot be seen (U+{ord(mark[0]):04X})"
    if order := ORDERS.search(text):
        return f"says {shown(order[0])}"
    for code in blocks(text):
        for _, words, where in TRIGGER.findall(code):
            if " " in words.strip() or (where.lower() != "content" and words.lower() not in KEYS):
                return f"does something else where a message says {shown(words)}"
    if address := ADDRESS.search(text):
        return f"holds the address {shown(address[0])}"
    return ""
