"""The files that `brolly prompt new` writes: commented, and ready to run as they are."""

from __future__ import annotations

from brolly.adapt.prompt.file import literal

WRITE = '''# {name}: a prompt for any language model. Try it:
#   brolly prompt show {file} --set ticket="The page is blank after I log in."
#   brolly prompt run {file} --set ticket="The page is blank after I log in."
#   brolly prompt run {file} tickets.jsonl -o answers.jsonl    rows like {{"ticket": "…"}}; CSV and Parquet too
#   brolly prompt tune {file} labelled.jsonl --budget 200      rows like {{"ticket": "…", "label": "bug"}}

name = {quoted}
version = 1
model = "mini-llm"             # any model that writes; --model says another. mini-llm only shows that it works

instructions = """
Sort a support ticket. A bug is something that worked or should work; a question asks how to do something;
billing is about money.
"""

# What each row brings. Types: text, integer, number, boolean, json. More: {{ type = "text", default = "…" }},
# choice = ["a", "b"] for a text that is one of these, bare = true for one that needs no tags around it.
[variables]
ticket = "text"
plan = {{ type = "text", choice = ["free", "paid"], default = "free" }}

# What may be answered; the engine lets the model write nothing else. Instead of choice: regex = "[A-Z]{{3}}-[0-9]+",
# type = "integer" (number, boolean, text), or schema = "ticket.schema.json", a JSON Schema beside this file.
[answer]
name = "label"                 # how rows with known answers call it
choice = ["bug", "question", "billing"]

# How to write; every option of `brolly run` but those of shape. Without temperature, 0: the likeliest answer.
[options]
max_tokens = 20

# Which examples a row gets: the first `most`, or by = "nearest": those most alike, by an embedder.
[select]
most = 4
# by = "nearest"
# embed = "mini-embed"

# What tuning may try beside the instructions above; examples it takes from the labelled rows.
[tune]
instructions = ["Is this support ticket a bug, a question or about billing?"]

[[examples]]
ticket = "The app closes when I press save."
label = "bug"

[[examples]]
ticket = "How do I invite a colleague?"
label = "question"

[[examples]]
ticket = "I was charged twice in May."
plan = "paid"
label = "billing"
'''

CLASSIFY = """# {name}: what a picture shows, by a model that knows pictures and texts in one space. Try it:
#   brolly prompt run {file} --set image=photo.jpg
#   brolly prompt run {file} pictures.jsonl                    rows like {{"image": "photo.jpg"}}
#   brolly prompt tune {file} labelled.jsonl --budget 200      rows like {{"image": "photo.jpg", "label": "cat"}}

name = {quoted}
kind = "classify"
version = 1
model = "mini-clip"            # any CLIP or SigLIP; --model says another

# Texts around each label; their vectors are averaged. Without them, the model's usual one.
templates = ["a photo of a {{}}.", "a picture of a {{}}."]

[answer]
name = "label"
choice = ["cat", "dog", "truck"]

[variables]
image = "image"                # a path

# Sets of templates that tuning may try.
[tune]
templates = [["a {{}}"], ["a drawing of a {{}}.", "an icon of a {{}}."]]
"""
KINDS = {"write": WRITE, "classify": CLASSIFY}


def starter(kind: str, name: str, file: str) -> str:
    """A new prompt's file."""
    shown = [text if text.isprintable() else "it" for text in (name, file)]
    return KINDS[kind].format(name=shown[0], file=shown[1], quoted=literal(name))
