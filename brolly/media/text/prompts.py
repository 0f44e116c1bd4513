"""What stands before a text by its role, as sentence-transformers' prompts say: "query: ", "search_document: "."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from brolly.card import Header
from brolly.errors import OptionError

MAX_PROMPTS, MAX_PROMPT = 256, 2**14  # of published ones, Jina's and Nomic's have some ten, of a line each
ROLES = {"query": ("query",), "document": ("document", "passage", "corpus")}  # the first of these that there is


class Prompts(NamedTuple):
    """A model's own prompts by name; `usual` is that of texts whose role nobody tells."""

    named: Mapping[str, str]
    usual: str | None
    source: str
    markers: tuple[str, ...] = ()  # those that are one token of the vocabulary, if it has them

    def before(self, role: str | None) -> str:
        """What a text of this role begins with; nothing where its files have no prompts. Raises OptionError."""
        if role is not None and role in self.named:
            return self.named[role]
        if role is not None and role not in ROLES:
            known = ", ".join(dict.fromkeys([*ROLES, *self.named]))
            raise OptionError(f"{self.source} knows no role {role!r:.40}; expected one of {known}.")
        names = [name for name in ROLES.get(role or "", ()) if name in self.named]
        return self.named.get(names[0] if names else self.usual or "", "")


def prompts_of(header: Header) -> Prompts:
    """The prompts of a folder's config_sentence_transformers.json."""
    said = header.config.get("sentence_transformers")
    said = said if isinstance(said, Mapping) else {}
    found: Any = said.get("prompts")
    rows = list(found.items())[:MAX_PROMPTS] if isinstance(found, Mapping) else []
    named = {name: text for name, text in rows if isinstance(text, str) and len(text) <= MAX_PROMPT}
    usual = said.get("default_prompt_name")
    marks = {role: said.get(f"{role}_prefix") for role in ROLES}  # PyLate's, of late interaction
    marked = {role: mark for role, mark in marks.items() if isinstance(mark, str) and 0 < len(mark) <= MAX_PROMPT}
    named |= {role: mark + named.get(role, "").removeprefix(mark) for role, mark in marked.items()}
    source = str(header.path)
    return Prompts(named, usual if isinstance(usual, str) else None, source, tuple(marked.values()))
