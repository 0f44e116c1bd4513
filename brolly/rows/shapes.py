"""Which shape rows have, by the names of their columns: what people call things, and what the roles are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from brolly.errors import RecipeError

IMAGE = ("image", "file_name", "filepath", "image_path", "img", "path", "file", "picture")
AUDIO = ("audio", "audio_filepath", "file_name", "path", "audio_path", "file", "filepath", "sound")
WORDS = ("text", "sentence", "transcript", "transcription", "normalized_text")
QUERY, POSITIVE = ("query", "anchor", "question"), ("positive", "document", "passage", "pos", "positives")
NEGATIVES = ("negatives", "negative", "neg", "negs", "hard_negatives")
# what is asked and what is answered are called by pairs of names
ASKED = (
    ("prompt", "completion"), ("prompt", "response"), ("prompt", "answer"), ("instruction", "output"),
    ("instruction", "response"), ("input", "output"), ("question", "answer"), ("query", "response"),
    ("query", "answer"), ("source", "target"),
)  # fmt: skip


@dataclass(frozen=True)
class Form:
    """One way in which a shape's columns may be called: role → the names that it goes by, the surest first."""

    shape: str
    roles: Mapping[str, tuple[str, ...]]
    maybe: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


FORMS = (
    Form("preference", {"input": ("input",), "chosen": ("preferred_output",), "rejected": ("non_preferred_output",)}),
    Form(
        "preference", {"chosen": ("chosen",), "rejected": ("rejected",)},
        {"prompt": ("prompt", "question", "instruction")},
    ),
    Form(
        "chat", {"messages": ("messages", "conversations", "conversation")},
        {"tools": ("tools",), "system": ("system",)},
    ),
    *(
        Form("judged", {"prompt": (asked,), "completion": (answer,), "good": ("good", "label")})
        for asked, answer in ASKED[:2]
    ),
    *(
        Form(
            "completion", {"prompt": (asked,), "completion": (answer,)},
            {"input": ("input",)} if (asked, answer) == ("instruction", "output") else {},
        )
        for asked, answer in ASKED
    ),
    Form("pair", {"query": QUERY, "positive": POSITIVE}, {"negatives": NEGATIVES}),
    Form("speech", {"audio": AUDIO, "text": WORDS}, {"language": ("language", "locale", "lang")}),
    Form("caption", {"image": IMAGE, "text": ("text", "caption")}),
    Form("label", {"input": ("input", "text", "sentence", "content", *IMAGE), "label": ("label", "class", "category")}),
    Form("text", {"text": ("text", "content")}),
    Form("prompted", {"prompt": ("prompt",)}),
)  # fmt: skip
SHAPES = tuple(dict.fromkeys(form.shape for form in FORMS))
# a shape whose columns are there too when another one is meant
WITHIN = {
    "text": ("label", "caption", "speech"), "prompted": ("completion", "judged", "preference", "chat"),
    "completion": ("judged", "preference"), "label": ("judged",),
}  # fmt: skip
NUMBERED = re.compile(r"(?:hard_)?neg(?:ative)?_\d{1,3}\Z")


@dataclass(frozen=True)
class Found:
    """What rows are: their shape, and which column was taken for which role."""

    shape: str
    columns: Mapping[str, str]
    negatives: tuple[str, ...] = ()  # where each has a column of its own
    picture: bool = False  # whether what is to be classified is one
    usual: int = field(default=0, compare=False)  # columns that are called as they usually are


def find(
    kinds: Mapping[str, str], rare: Iterable[str], source: str, shape: str | None, columns: Mapping[str, str] | None
) -> Found:
    """The one shape that columns have. `kinds`: what each holds ("sound", "picture", "truth", "text" …); `rare`: those
    that few rows have, which may only add to a shape, as tools do.

    `shape` and `columns` (role → name) settle what is open. Raises RecipeError with the choices.
    """
    there, seldom, given = set(kinds), set(rare), dict(columns or {})
    if shape is not None and shape not in SHAPES:
        raise RecipeError(f"{shape!r} is no shape of rows; there are {', '.join(sorted(SHAPES))}.")
    known = {role for form in FORMS for role in (*form.roles, *form.maybe) if shape in (None, form.shape)}
    if unknown := given.keys() - known:
        raise RecipeError(
            f"columns names {sorted(unknown)[0]!r}, which is no part of {shape or 'any shape'}; there are "
            f"{', '.join(sorted(known))}."
        )
    if missing := [name for name in given.values() if name not in there]:
        raise RecipeError(f"{source} has no column {missing[0]!r}; it has {listed(there)}.")
    found: list[Found] = []
    for form in FORMS:
        if shape in (None, form.shape) and (one := _filled(form, kinds, seldom, given)) and one not in found:
            found.append(one)
    shapes = {one.shape for one in found}
    found = [one for one in found if shape or not shapes & set(WITHIN.get(one.shape, ()))]
    found = [one for one in found if not any(_less(one, other) for other in found)]
    if len(found) == 1:
        return found[0]
    if not found:
        wanted = (
            f"those of the shape {shape!r} ({_wanted(shape)})"
            if shape
            else f"those of a shape ({', '.join(sorted(SHAPES))})"
        )
        raise RecipeError(
            f"{source} has the columns {listed(there)}; expected {wanted}. Say which is which, such as columns "
            '{"prompt": "…", "completion": "…"}; docs/data.md lists the names that are known.'
        )
    choices = "; or ".join(f"{one.shape} ({told(one.columns)})" for one in found)
    how = "shape" if len({one.shape for one in found}) > 1 else "columns"
    raise RecipeError(f"{source} can be read in more than one way: {choices}. Say which by {how}.")


def _filled(form: Form, kinds: Mapping[str, str], rare: set[str], given: Mapping[str, str]) -> Found | None:
    if given.keys() - form.roles.keys() - form.maybe.keys():
        return None
    taken: dict[str, str] = {}
    for role, aliases in (*form.roles.items(), *form.maybe.items()):
        there = {*kinds, *rare} if role in form.maybe and role != "prompt" else {*kinds}
        free = [a for a in aliases if a in there and a not in taken.values() and a not in given.values()]
        name = given.get(role) or next((a for a in free if _fits(form.shape, role, kinds.get(a, ""))), None)
        if name:
            taken[role] = name
        elif role in form.roles:
            return None
    own = tuple(sorted((n for n in {*kinds, *rare} if NUMBERED.match(n)), key=lambda n: int(n.rpartition("_")[2])))
    return Found(
        form.shape, taken, own if form.shape == "pair" and "negatives" not in taken else (),
        form.shape == "label" and kinds.get(taken["input"]) == "picture",
        sum(name in aliases for role, aliases in form.roles.items() if (name := taken[role])),
    )  # fmt: skip


def _less(one: Found, other: Found) -> bool:
    """Whether another reading takes all that this one takes, and more (Alpaca's "input" is no prompt of its own), or
    what it takes is called as that usually is."""
    within = set(one.columns.values()) < set(other.columns.values())
    return one.shape == other.shape and (within or one.usual < other.usual)


def _fits(shape: str, role: str, kind: str) -> bool:
    """Whether what a column holds may play a role: a path to a sound is no picture, and a class no verdict."""
    match shape, role:
        case "speech", "audio":
            return kind == "sound"
        case "caption", "image":
            return kind == "picture"
        case "judged", "good":
            return kind in ("truth", "int")
        case "label", "input":
            return kind in ("picture", "text")
        case "text", "text":
            return kind == "text"
    return True


def _wanted(shape: str | None) -> str:
    return "; or ".join(
        ", ".join("/".join(dict.fromkeys(a)) for a in form.roles.values()) for form in FORMS if form.shape == shape
    )


def told(columns: Mapping[str, str]) -> str:
    """Roles and columns in words: "prompt from 'question', …"; a column called as its role is named once."""
    return ", ".join(role if role == name else f"{role} from {name!r}" for role, name in columns.items())


def listed(names: Iterable[str], most: int = 12) -> str:
    """Names for a message."""
    names = sorted(names)
    short = [repr(name[:60]) for name in names[:most]]
    return ", ".join(short) + (f" and {len(names) - most} more" if len(names) > most else "") if short else "none"
