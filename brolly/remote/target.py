"""A reference → which vendor, where, and which of its models."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import urlsplit

from brolly.errors import OptionError
from brolly.remote.vendors import Vendor, vendors

COMPATIBLE = "compatible"  # the row of addresses that a reference itself has


@dataclass(frozen=True)
class Target:
    """A model that runs elsewhere. `name` is what users call it, `model` what its vendor does."""

    name: str
    vendor: Vendor
    base: str  # https://api.openai.com/v1
    model: str

    @cached_property
    def host(self) -> str:
        """What errors and cards may tell of the address."""
        return urlsplit(self.base).netloc.rpartition("@")[2]

    def __str__(self) -> str:
        return self.name


def is_remote(reference: object) -> bool:
    """Whether a reference means a model that runs elsewhere: vendor:model, or an address with #model behind it."""
    if not isinstance(reference, str):
        return False
    head, colon, rest = reference.partition(":")
    if head in ("http", "https"):
        return "#" in rest
    return bool(colon) and head in vendors() and head != COMPATIBLE and not os.path.lexists(reference)


def _can_be(base: str) -> bool:
    """Whether an address has a host that can be looked up, no user and no query; its port is looked at later."""
    try:
        parts = urlsplit(base)
        host = (parts.hostname or "").encode("idna").decode("idna")
        return bool(host) and base.isprintable() and parts.username is None and not parts.query
    except ValueError:  # a bracket that stays open, a label that is too long
        return False


def parse(reference: str) -> Target:
    """The target of openai:gpt-5 or https://host/v1#model. Raises OptionError."""
    head, _, rest = reference.partition(":")
    if head in ("http", "https"):
        base, _, model = reference.partition("#")
        if not _can_be(base):
            raise OptionError(
                f"{base.partition('?')[0].rpartition('@')[2]!r:.120} is no address of models; expected "
                "https://host/v1#model, without a user and a query. Keep its key with `brolly keys set`."
            )
        vendor, base = vendors()[COMPATIBLE], base.rstrip("/")
    else:
        vendor, model = vendors()[head], rest
        base = vendor.address()
        if not _can_be(base):
            raise OptionError(f"{vendor.title}'s address is {base!r:.120}; expected https://host or https://host/path.")
    if not model.strip():
        raise OptionError(f"{reference!r:.120} names no model; `brolly list {head}:` tells which there are.")
    return Target(reference, vendor, base, model)
