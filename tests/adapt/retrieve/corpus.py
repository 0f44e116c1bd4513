"""Writes a world's papers into a folder in their formats, and tells the questions with their answers."""

from __future__ import annotations

import html
from pathlib import Path
from random import Random
from typing import NamedTuple

from tests.adapt.retrieve.rehearsal import DEV as DEV
from tests.adapt.retrieve.world import TEST as TEST
from tests.adapt.retrieve.world import Kind, Prose


class Question(NamedTuple):
    """What is asked; the file that answers and the words that do, or neither. `kind` tells how it is hard."""

    text: str
    name: str = ""
    answer: str = ""
    kind: str = "fact"


World = tuple[list[Kind], list[Prose], list[str], list[str]]


def write(folder: Path, world: World, seed: int = 7) -> list[Question]:
    """Every paper of a world below a folder; the questions in a fixed order."""
    kinds, papers, elsewhere, nowhere = world
    draw, questions = Random(seed), []
    for k, kind in enumerate(kinds):
        for i, name in enumerate(kind.names):
            sentences = [(draw.choice(fact.said).format(v=fact.values[i]), fact, fact.values[i]) for fact in kind.facts]
            spoken = [said[0].upper() + said[1:] for said, _, _ in sentences] + kind.filling
            draw.shuffle(spoken)
            cut = draw.randint(2, len(spoken) - 2)
            path = f"{kind.suffix}{k}/{name.lower().replace(' ', '-').replace(chr(39), '')}.{kind.suffix}"
            title = kind.title.format(n=name)
            paper(folder / path, title, [" ".join(spoken[:cut]), " ".join(spoken[cut:])])
            few = draw.sample(kind.facts, min(2, len(kind.facts)))
            for fact in few:
                asked = draw.choice(fact.asked).format(n=name, l=name[0].lower() + name[1:])
                questions.append(Question(asked, path, fact.values[i]))
        for text in kind.unanswered:
            name = draw.choice(kind.names)
            questions.append(Question(text.format(n=name, l=name[0].lower() + name[1:]), kind="missing"))
    for one in papers:
        paper(folder / one.name, one.title, one.text.split("\n\n"))
        questions += [Question(text, one.name, answer, "prose") for text, answer in one.asked]
    questions += [Question(text, kind="elsewhere") for text in elsewhere]
    return questions + [Question(text, kind="nowhere") for text in nowhere]


def paper(path: Path, title: str, paragraphs: list[str]) -> None:
    """One file in the format that its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    own = [p for p in paragraphs if p != title]
    match path.suffix:
        case ".html":
            body = "".join(f"<p>{html.escape(p)}</p>\n" for p in own)
            path.write_text(
                f"<!doctype html><title>{html.escape(title)}</title><nav><a href='/'>Home</a> <a href='/all'>All pages</a></nav>"
                f"<main><h1>{html.escape(title)}</h1>{body}</main><script>track('{len(body)}')</script>"
            )
        case ".md":
            text = "\n\n".join(own)
            path.write_text(text if text.startswith("#") else f"# {title}\n\n{text}\n")
        case ".txt":
            path.write_text(f"{title}\n\n" + "\n\n".join(own) + "\n")
        case ".py":
            lines = [f'    """{own[0]}"""', *(f"    # {s.strip()}" for s in ". ".join(own[1:]).split("\n"))]
            path.write_text(
                f'"""{title}: one of the office\'s own tools."""\n\n\ndef run(place: str) -> None:\n'
                + "\n".join([*lines, f"    print('{title}', place)", ""])
            )
        case ".docx":
            import docx

            word = docx.Document()
            word.add_heading(title, 0)
            for text in own:
                word.add_paragraph(text)
            word.save(str(path))
        case ".pdf":
            path.write_bytes(pdf([(title, own)]))
        case _:
            raise ValueError(path.suffix)


def pdf(pages: list[tuple[str, list[str]]], width: int = 78) -> bytes:
    """A PDF of text in Helvetica, each page with a large line above: enough to be read again."""
    import textwrap

    def shown(text: str) -> bytes:
        return text.encode("cp1252", "replace").replace(b"\\", b"\\\\").replace(b"(", b"\\(").replace(b")", b"\\)")

    bodies = []
    for title, paragraphs in pages:
        parts = [b"BT /F1 20 Tf 60 780 Td (" + shown(title) + b") Tj ET"]
        y = 740
        for text in paragraphs:
            for line in textwrap.wrap(text, width):
                parts.append(b"BT /F1 11 Tf 60 %d Td (" % y + shown(line) + b") Tj ET")
                y -= 15
            y -= 12
        bodies.append(b"\n".join(parts))
    n = len(bodies)
    kids = b" ".join(b"%d 0 R" % (4 + 2 * i) for i in range(n))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Kids [" + kids + b"] /Count %d >>" % n,
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]  # fmt: skip
    for i, body in enumerate(bodies):
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Resources << /Font << /F1 3 0 R >> >> "
            b"/Contents %d 0 R >>" % (5 + 2 * i)
        )
        objects.append(b"<< /Length %d >>\nstream\n" % len(body) + body + b"\nendstream")
    out, places = b"%PDF-1.4\n", []
    for i, one in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n" % i + one + b"\nendobj\n"
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    trailer = b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % (len(objects) + 1, len(out))
    return out + b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1) + table + trailer
