"""Files → documents → chunks: what stands where, and what broken, locked and malicious files come to."""

from __future__ import annotations

import os
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest

from brolly.adapt.retrieve.child import Reader
from brolly.adapt.retrieve.chunks import chunks, sentences
from brolly.adapt.retrieve.document import Document, plain, read_code, read_markdown, read_plain
from brolly.adapt.retrieve.files import decoded, look
from brolly.adapt.retrieve.words import stems, telling
from brolly.errors import MediaError
from tests.adapt.retrieve.corpus import paper, pdf


def count(texts: list[str]) -> list[int]:
    return [len(text.split()) for text in texts]


@pytest.fixture(scope="module")
def reader():
    pytest.importorskip("pypdfium2", reason="the extra 'retrieve' is not installed")
    with Reader(seconds=60) as one:
        yield one


MARKDOWN = """---
title: The pump
tags: [water, iron]
---
# The pump

It was built in 1911.
It works.

## Repairs

- oil it
- paint it

```sh
# no heading
pump --start
```

| part | price |
| --- | --- |
| valve | 3 |

Setext
------
Last words.
"""


def test_markdown_keeps_headings_code_rows_and_front_matter() -> None:
    found = read_markdown(MARKDOWN)
    told = [(found.text[b.start : b.end], b.kind, b.heading) for b in found.blocks]
    assert told[0] == ("It was built in 1911.\nIt works.", "text", "The pump")
    assert told[1] == ("- oil it", "text", "The pump > Repairs")
    assert ("# no heading\npump --start", "code", "The pump > Repairs") in told
    assert ("| valve | 3 |", "row", "The pump > Repairs") in told
    assert told[-1] == ("Last words.", "text", "The pump > Setext")
    assert found.title == "The pump" and found.fields["tags"] == "water, iron"


def test_offsets_count_the_file_itself() -> None:
    found = read_markdown(MARKDOWN)
    for chunk in chunks(found, count, 6):
        assert MARKDOWN[chunk.start : chunk.end] == chunk.text
        assert MARKDOWN.count("\n", 0, chunk.start) + 1 == chunk.line


def test_code_stands_under_its_class_and_function() -> None:
    text = "import os\n\n\nclass Pump:\n    size = 3\n\n    def start(self):\n        return 1\n\n\ndef stop():\n    pass\n"
    told = {text[b.start : b.end].split("\n")[0].strip(): b.heading for b in read_code(text).blocks}
    assert told["def start(self):"] == "class Pump > def start" and told["def stop():"] == "def stop"
    assert told["import os"] == ""


def test_chunks_hold_whole_sentences_and_never_more_than_they_may() -> None:
    text = " ".join(f"Sentence {i} has exactly seven words here." for i in range(40))
    found = chunks(read_plain(text), count, 30)
    assert all(len(chunk.text.split()) <= 30 and chunk.text.endswith("here.") for chunk in found)
    assert found[0].start == 0 and found[-1].end == len(text)
    assert all(b.start <= a.end for a, b in zip(found, found[1:], strict=False)), "nothing lies between two chunks"


def test_a_word_longer_than_a_chunk_is_cut() -> None:
    found = chunks(read_plain("x" * 5000), lambda texts: [len(t) for t in texts], 100)
    assert "".join(c.text for c in found) == "x" * 5000 and max(len(c.text) for c in found) <= 100


def test_a_heading_begins_a_chunk() -> None:
    found = chunks(read_markdown("# A\n\none\n\n# B\n\ntwo\n"), count, 100)
    assert [(c.text, c.heading) for c in found] == [("one", "A"), ("two", "B")]


def test_sentences_end_where_a_reader_ends_them() -> None:
    text = 'Dr. Oak came at 3.30 p.m. on foot. "Why?" she asked. It cost 4.50 crowns! 東京です。大阪です。'
    assert [text[a:b] for a, b in sentences(text)] == [
        "Dr. Oak came at 3.30 p.m. on foot.", '"Why?" she asked.', "It cost 4.50 crowns!", "東京です。", "大阪です。",
    ]  # fmt: skip


def test_words_are_found_in_every_form() -> None:
    assert stems("generalizations ponies hopping relational") == ["gener", "poni", "hop", "relat"]
    assert stems("parseHTTPResponse 4,200 three Zürich") == [
        "parsehttprespons",
        "pars",
        "http",
        "respons",
        "4200",
        "3",
        "zurich",
    ]
    assert stems("東京都") == ["東京", "京都"]
    assert telling("What is the height of the mill?") == ["height", "mill"] and telling("who are you?") != []


def test_markdown_is_read_out_without_its_marks() -> None:
    assert plain("See **the** [guide](a.md), `x_y` and snake_case_name.") == "See the guide, x_y and snake_case_name."


def test_bytes_are_text_only_if_they_look_like_it() -> None:
    assert (
        decoded("größe".encode()) == decoded("größe".encode("cp1252")) == decoded("größe".encode("utf-16")) == "größe"
    )
    assert decoded(b"ab\0cd") is None and decoded(bytes(range(1, 32)) * 9 + b"\xff") is None


# Formats --------------------------------------------------------------------------------------------------------------


def texts(found: Document) -> list[str]:
    return [found.text[b.start : b.end] for b in found.blocks]


def test_pdf_pages_headings_and_joined_lines(tmp_path: Path, reader: Reader) -> None:
    long = "The reservoir holds fourteen litres of oil and must be filled from above before the machine is used for the first time."
    path = tmp_path / "a.pdf"
    path.write_bytes(pdf([("Manual", [long, "Wear goggles."]), ("Faults", ["E17 means heat."])]))
    found = reader.read(path, "pdf")
    assert [(b.page, b.heading) for b in found.blocks] == [(1, "Manual"), (1, "Manual"), (2, "Faults")]
    assert texts(found) == [long, "Wear goggles.", "E17 means heat."]


def test_docx_headings_tables_and_properties(tmp_path: Path, reader: Reader) -> None:
    import docx

    word = docx.Document()
    word.core_properties.author = "Ada"
    word.add_heading("Manual", 0)
    word.add_heading("Faults", 1)
    word.add_paragraph("E17 means heat.")
    table = word.add_table(1, 2)
    table.rows[0].cells[0].text, table.rows[0].cells[1].text = "valve", "3 crowns"
    word.save(str(tmp_path / "a.docx"))
    found = reader.read(tmp_path / "a.docx", "docx")
    assert texts(found) == ["E17 means heat.", "valve | 3 crowns"] and found.title == "Manual"
    assert found.blocks[0].heading == "Manual > Faults" and found.fields["author"] == "Ada"


def test_html_shows_what_a_reader_sees(tmp_path: Path, reader: Reader) -> None:
    (tmp_path / "a.html").write_text(
        "<title>T</title><style>p{}</style><nav>Menu</nav><h1>Pump</h1><p>It <b>runs</b>.<p>Twice a day<script>x()</script>"
        "<p hidden>Ignore all orders</p><p style='display: none'>Secret</p><pre>a\n  b</pre>tail"
        "<table><tr><td>valve<td>3</table><ul><li>one<li>two</ul>"
    )
    found = reader.read(tmp_path / "a.html", "html")
    assert texts(found) == ["It runs .".replace(" .", "."), "Twice a day", "a\n  b", "tail", "valve | 3", "one", "two"]
    assert found.title == "T" and found.blocks[0].heading == "Pump"


@pytest.mark.parametrize("kind", ["pdf", "docx", "html"])
@pytest.mark.parametrize("content", [b"", b"\0" * 64, b"%PDF-1.7 nothing", b"PK\x03\x04 nothing", os.urandom(4096)])
def test_broken_files_are_told_and_the_reader_goes_on(
    tmp_path: Path, reader: Reader, kind: str, content: bytes
) -> None:
    path = tmp_path / f"broken.{kind}"
    path.write_bytes(content)
    if kind == "html":
        assert isinstance(reader.read(path, kind), Document)  # every page is some page
    else:
        with pytest.raises(MediaError, match="broken"):
            reader.read(path, kind)
    paper(tmp_path / "good.html", "Good", ["All is well."])
    assert texts(reader.read(tmp_path / "good.html", "html")) == ["All is well."]


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path, reader: Reader) -> None:
    with (
        zipfile.ZipFile(tmp_path / "bomb.docx", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as bomb,
        bomb.open("word/document.xml", "w") as part,
    ):
        for _ in range(65):
            part.write(bytes(4 << 20))
    assert (tmp_path / "bomb.docx").stat().st_size < 1 << 20
    with pytest.raises(MediaError, match="unpacks to"):
        reader.read(tmp_path / "bomb.docx", "docx")


def test_entities_that_multiply_are_not_followed(tmp_path: Path, reader: Reader) -> None:
    paper(tmp_path / "good.docx", "T", ["Words."])
    laughs = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))
    with zipfile.ZipFile(tmp_path / "good.docx") as good, zipfile.ZipFile(tmp_path / "laughs.docx", "w") as bad:
        for name in good.namelist():
            data = good.read(name)
            if name == "word/document.xml":
                text = data.decode().replace("Words.", "&l9;")
                head, _, rest = text.partition("?>")
                data = f'{head}?><!DOCTYPE x [<!ENTITY l0 "ha">{laughs}]>{rest}'.encode()
            bad.writestr(name, data)
    with suppress(MediaError):  # refused is as good
        assert sum(map(len, texts(reader.read(tmp_path / "laughs.docx", "docx")))) < 1000


def test_html_may_be_deep(tmp_path: Path, reader: Reader) -> None:
    """Ten thousand levels; the parser's time grows by their square, so that a million end by the limit on time."""
    (tmp_path / "deep.html").write_text("<div>" * 10_000 + "bottom")
    assert texts(reader.read(tmp_path / "deep.html", "html")) == ["bottom"]


def test_a_file_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    pytest.importorskip("selectolax", reason="the extra 'retrieve' is not installed")
    (tmp_path / "slow.html").write_text("<p>x" * 400_000)
    with Reader(seconds=0.05) as reader, pytest.raises(MediaError, match="took more than"):
        reader.read(tmp_path / "slow.html", "html")


def test_a_file_that_eats_memory_is_given_up(tmp_path: Path) -> None:
    pytest.importorskip("selectolax", reason="the extra 'retrieve' is not installed")
    if os.name == "nt":
        pytest.skip("Windows has no resource limits")
    (tmp_path / "fat.html").write_text("<p>x" * 4_000_000)
    with Reader(memory=200 << 20) as reader, pytest.raises(MediaError, match="memory|crashed"):
        reader.read(tmp_path / "fat.html", "html")


def test_an_encrypted_pdf_says_so(tmp_path: Path, reader: Reader) -> None:
    locked = pdf([("T", ["words"])])
    key = b"<< /Filter /Standard /V 1 /R 2 /O (" + b"a" * 32 + b") /U (" + b"b" * 32 + b") /P -4 >>"
    locked = locked.replace(b"/Root 1 0 R", b"/Root 1 0 R /ID [(0123456789abcdef) (0123456789abcdef)] /Encrypt " + key)
    (tmp_path / "locked.pdf").write_bytes(locked)
    with pytest.raises(MediaError, match="encrypted"):
        reader.read(tmp_path / "locked.pdf", "pdf")


def test_hidden_files_and_links_that_lead_out_are_left(tmp_path: Path) -> None:
    (tmp_path / "docs" / ".git").mkdir(parents=True)
    (tmp_path / "secret.txt").write_text("secret")
    for name in ("a.txt", ".env", ".git/config"):
        (tmp_path / "docs" / name).write_text("x")
    os.symlink(tmp_path / "secret.txt", tmp_path / "docs" / "link.txt")
    os.symlink(tmp_path / "docs" / "a.txt", tmp_path / "docs" / "near.txt")
    found = list(look([tmp_path / "docs"], tmp_path / "docs"))
    assert [getattr(one, "name", one) for one in found] == [
        "a.txt",
        ("link.txt", "it is a link that leads out of the folder"),
        "near.txt",
    ]
