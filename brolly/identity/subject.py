"""What identification looks at: a header, the files around it, and their small texts, each read once and bounded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from brolly.card import Header
from brolly.checkpoint import json_object
from brolly.checkpoint.bounded import opened
from brolly.errors import BrollyError, CheckpointError
from brolly.place import Place, Where, is_folder, there

MAX_FILES = 50_000
MAX_LEVELS = 24
MAX_TEXT = 2**20  # bytes


class Subject:
    """One model's files. `name` is what the user called it ("org/name" where that is known), `where` its place.

    `faults` are the errors that reading went on after; `header` then says what could still be read.
    """

    def __init__(self, where: Where, header: Header, faults: list[CheckpointError], name: str | None = None) -> None:
        self.where, self.header, self.faults = where, header, faults
        self.name = name
        self._json: dict[str, Mapping[str, Any]] = {}

    @property
    def folder(self) -> Where:
        return self.where if is_folder(self.where) else self.where.parent

    @cached_property
    def files(self) -> dict[str, int]:
        """Every file of the model by its path within `folder`: bytes. Of a single file: itself alone."""
        if not is_folder(self.where):
            return {self.where.name: size_of(self.where)}
        return listing(self.where)

    def has(self, name: str) -> bool:
        """Whether a file lies in the model's folder, whatever part of it the user named."""
        return name in self.files or there(self.folder / name)

    def json(self, name: str) -> Mapping[str, Any]:
        """A JSON object beside the weights; empty where there is none, or where it is broken."""
        if name not in self._json:
            try:
                self._json[name] = json_object(self.folder / name) if there(self.folder / name) else {}
            except BrollyError:
                self._json[name] = {}
        return self._json[name]

    def text(self, name: str, most: int = MAX_TEXT) -> str:
        """The beginning of a text beside the weights; empty where there is none."""
        try:
            with opened(self.folder / name) as (file, size):
                return file.read(min(size, most)).decode("utf-8", "replace")
        except BrollyError:
            return ""

    @cached_property
    def front_matter(self) -> Mapping[str, Any]:
        """The model card's YAML header (README.md), as far as it is plain keys, texts and lists."""
        from brolly.identity.frontmatter import front_matter

        return front_matter(self.text("README.md"))


def size_of(path: Where) -> int:
    return path.n_bytes if isinstance(path, Place) else os.path.getsize(path)


def listing(folder: Where) -> dict[str, int]:
    """Files below a folder and their bytes, at most MAX_FILES, MAX_LEVELS deep; folders that are links are left out."""
    if isinstance(folder, Place):
        base = str(folder.path) + "/" if str(folder.path) != "." else ""
        return {n[len(base) :]: size for n, size in folder.store.sizes.items() if n.startswith(base)}
    found: dict[str, int] = {}
    todo: list[tuple[str, str, int]] = [(str(folder), "", 0)]
    while todo and len(found) < MAX_FILES:
        path, prefix, depth = todo.pop()
        try:
            entries = sorted(os.scandir(path), key=lambda e: e.name)
        except OSError:
            continue
        for entry in entries:
            try:
                if entry.is_dir(follow_symlinks=False):
                    if depth < MAX_LEVELS and entry.name not in (".git", "__pycache__", ".cache"):
                        todo.append((entry.path, f"{prefix}{entry.name}/", depth + 1))
                elif entry.is_file():
                    found[prefix + entry.name] = entry.stat().st_size
            except OSError:
                continue
    return found
