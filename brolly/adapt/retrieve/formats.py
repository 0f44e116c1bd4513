"""PDF, DOCX and HTML → documents, by pypdfium2, python-docx and selectolax. Runs in `child`, for they read strangers'
bytes in C."""

from __future__ import annotations

import re
import statistics
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from brolly.adapt.retrieve.document import Document, Paper
from brolly.adapt.retrieve.words import listed
from brolly.errors import MediaError, MissingExtra

UNPACKED = 256 << 20  # bytes of a DOCX, unpacked
PARTS = 10_000  # files in it
PAGES = 20_000
HTML = 64 << 20  # bytes


def read_pdf(path: Path) -> Document:
    """A PDF's pages, their lines joined to paragraphs; lines in larger letters are headings."""
    try:
        import pypdfium2 as pdfium
        import pypdfium2.raw as raw
    except ImportError:
        raise MissingExtra("Reading PDF", "retrieve") from None
    try:
        pdf = pdfium.PdfDocument(str(path))
    except pdfium.PdfiumError as error:
        locked = "password" in str(error).lower()
        raise MediaError("it is encrypted" if locked else "it is no PDF that can be read") from None
    n_pages = len(pdf)
    if n_pages > PAGES:
        raise MediaError(f"it has {n_pages:,} pages; {PAGES:,} are the most")
    paper, empty = Paper(), 0
    for i in range(n_pages):
        page = text = None
        try:
            page = pdf[i]
            text = page.get_textpage()
            found = text.get_text_range()
            if not found.strip():
                empty += 1
            _page(paper, found, _sizes(raw, text, found), i + 1)
        except pdfium.PdfiumError:
            empty += 1  # one broken page does not lose the others
        finally:
            for open_ in (text, page):
                if open_ is not None:
                    open_.close()
    if n_pages and empty == n_pages:
        raise MediaError("its pages hold no text: they are pictures, which wants OCR first")
    said = {key: value for key, value in pdf.get_metadata_dict(skip_empty=True).items() if key in ("Title", "Author")}
    fields = {key.lower(): str(value)[:500] for key, value in said.items()}
    return paper.done(fields.get("title", ""), fields)


def _sizes(raw: Any, text: Any, found: str) -> list[float]:
    """The height of the letters that each line begins with."""
    sizes, at = [], 0
    for line in found.split("\n"):
        inked = at + len(line) - len(line.lstrip())
        sizes.append(float(raw.FPDFText_GetFontSize(text.raw, inked)) if line.strip() else 0.0)
        at += len(line) + 1
    return sizes


def _page(paper: Paper, found: str, sizes: list[float], number: int) -> None:
    """A page's lines as blocks."""
    lines = [line.replace("\r", "").replace("\x02", "\xad").replace("\ufffe", "\xad") for line in found.split("\n")]
    inked = [size for line, size in zip(lines, sizes, strict=True) for _ in range(len(line.strip()))]
    usual = statistics.median(inked) if inked else 0.0
    longest = max((len(line) for line in lines), default=0)
    open_: list[str] = []

    def close() -> None:
        paper.add("".join(open_), page=number)
        open_.clear()

    for line, size in zip(lines, sizes, strict=True):
        line = line.strip()
        if not line:
            close()
        elif usual and size > 1.15 * usual and len(line) <= 120:
            close()
            paper.head(max(1, 4 - int(4 * (size / usual - 1.15))), line)
        else:
            cut = line.endswith("\xad") or (len(line) > 2 and line[-1] == "-" and line[-2].isalpha())
            open_.append(line[:-1] if cut and line.endswith("\xad") else line if cut else line + " ")
            if len(line) < 0.7 * longest and line.endswith((".", "!", "?", ":", ";")):
                close()
    close()


def read_docx(path: Path) -> Document:
    """A DOCX's paragraphs and tables in their order, under its headings."""
    try:
        import docx
        from docx.opc.exceptions import PackageNotFoundError
    except ImportError:
        raise MissingExtra("Reading DOCX", "retrieve") from None
    with path.open("rb") as file:
        if file.read(8) == b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1":
            raise MediaError("it is encrypted, or of Word before 2007")
    try:
        with zipfile.ZipFile(path) as parts:
            listed = parts.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        raise MediaError("it is no DOCX that can be read") from None
    total = sum(part.file_size for part in listed)
    if total > UNPACKED or len(listed) > PARTS:
        raise MediaError(f"it unpacks to {total:,} bytes in {len(listed):,} parts; {UNPACKED:,} are the most")
    try:
        word = docx.Document(str(path))
        paper = Paper()
        for part in word.iter_inner_content():
            if hasattr(part, "rows"):
                _table(paper, part)
            else:
                _paragraph(paper, part)
        about = word.core_properties
        said = {"title": about.title, "author": about.author, "subject": about.subject, "keywords": about.keywords}
    except (PackageNotFoundError, KeyError, ValueError, AttributeError, TypeError, SyntaxError, zipfile.BadZipFile):
        raise MediaError("it is no DOCX that can be read") from None  # lxml's faults are SyntaxErrors
    fields = {key: str(value)[:500] for key, value in said.items() if value and value != "python-docx"}
    return paper.done(fields.get("title", ""), fields)


def _paragraph(paper: Paper, part: Any) -> None:
    name = (part.style.name if part.style is not None else "") or ""
    if depth := re.fullmatch(r"[Hh]eading (\d)", name):
        paper.head(int(depth[1]) + 1, part.text)
    elif name == "Title":
        paper.head(1, part.text)
    else:
        paper.add(part.text)


def _table(paper: Paper, table: Any) -> None:
    """A row a block, each cell once: merged ones are told again for every column."""
    for row in table.rows:
        cells: list[str] = []
        for cell in row.cells:
            text = " ".join(cell.text.split())
            if text and (not cells or cells[-1] != text):
                cells.append(text)
        paper.add(" | ".join(cells), "row")


# HTML -----------------------------------------------------------------------------------------------------------------

SILENT = frozenset(listed("script style noscript template svg iframe object nav form button select canvas audio video"))
BLOCKS = frozenset(
    listed(
        "address article aside blockquote body center dd details dialog div dl dt fieldset figcaption figure "
        "footer header hr html li main menu ol p section summary table tbody tfoot thead tr ul caption pre h1 "
        "h2 h3 h4 h5 h6"
    )
)
HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden|font-size\s*:\s*0(?![.\d])", re.IGNORECASE)


def read_html(path: Path) -> Document:
    """What a page shows: its blocks under its headings; without scripts, menus and what is hidden from a reader."""
    try:
        from selectolax.lexbor import LexborHTMLParser
    except ImportError:
        raise MissingExtra("Reading HTML", "retrieve") from None
    with path.open("rb") as file:
        data = file.read(HTML + 1)
    if len(data) > HTML:
        raise MediaError(f"it has more than {HTML:,} bytes, the most that a page has")
    tree = LexborHTMLParser(_decoded(data))
    title = tree.css_first("title")
    paper, open_ = Paper(), [""]
    kind = "text"
    for node, entering in _walk(tree.root):
        tag = node.tag
        if tag == "-text":
            if entering:
                open_.append(node.text_content or "")
        elif tag == "br":
            open_.append("\n" if kind == "code" else " ")
        elif tag == "img" and entering:
            open_.append(f" {node.attributes.get('alt') or ''} ")
        elif tag in ("td", "th"):
            if not entering:
                open_.append(" | ")
        elif tag in BLOCKS:
            text = "".join(open_)
            open_.clear()
            if not entering and re.fullmatch("h[1-6]", tag):
                paper.head(int(tag[1]), text)
            else:
                paper.add(text.strip().rstrip("|") if tag == "tr" else text, "row" if tag == "tr" else kind)
            if tag == "pre":
                kind = "code" if entering else "text"
    paper.add("".join(open_))
    return paper.done(" ".join((title.text() if title else "").split())[:200])


def _walk(root: Any) -> Iterator[tuple[Any, bool]]:
    """Every node of a page as it opens and as it closes, without recursion: pages may be a million deep."""
    node = root
    while node is not None:
        yield node, True
        inner = None if node.tag in SILENT or node.tag == "head" or _hidden(node) else node.child
        if inner is not None:
            node = inner
            continue
        while node is not None:
            yield node, False
            if (after := node.next) is not None:
                node = after
                break
            node = node.parent if node.parent is not None and node.parent.tag not in ("-undef", "-document") else None


def _hidden(node: Any) -> bool:
    if node.tag.startswith("-"):
        return False
    said = node.attributes
    return bool(said) and ("hidden" in said or bool(HIDDEN.search(said.get("style") or "")))


def _decoded(data: bytes) -> str:
    """Bytes as the page says they are written, else UTF-8, else as old browsers read them."""
    said = re.search(rb"charset\s*=\s*[\"']?([\w.:-]{1,40})", data[:2048])
    for name in ("utf-8-sig", said[1].decode("ascii") if said else "utf-8"):
        try:
            return data.decode(name)
        except (UnicodeDecodeError, LookupError):
            continue
    return data.decode("cp1252", errors="replace")
