"""The card of a model that runs elsewhere: from the table of known models, its vendor's row and its traits."""

from __future__ import annotations

import os
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from brolly import identity
from brolly.card import Evidence, Header, Recognised
from brolly.errors import BrollyError, OptionError, UnknownModel
from brolly.identity import Card, Nowhere
from brolly.identity.answers import Kind, Known, Needs
from brolly.identity.known import lineage, named
from brolly.identity.subject import Subject
from brolly.place import Place, Where
from brolly.remote.dialect import Listed
from brolly.remote.listing import cached
from brolly.remote.meant import check
from brolly.remote.prices import Price, price_of
from brolly.remote.target import COMPATIBLE, Target, is_remote, parse
from brolly.remote.traits import Traits, traits_of
from brolly.remote.vendors import vendors

if TYPE_CHECKING:
    from collections.abc import Sequence

# a vendor's verb → those of a card
VERBS = {
    "chat": ("generate", "chat"), "embed": ("embed",), "transcribe": ("transcribe",), "draw": ("draw",),
    "speak": ("speak",),
}  # fmt: skip
THINKS = {
    "budget": "by a budget of tokens", "adaptive": "as much as it finds right, by an effort", "effort": "by an effort",
    "level": "by a level", "none": "no",
}  # fmt: skip


def card_of(target: Target, *, tokens: float | None = None, flop: float | None = None) -> RemoteCard:
    """What is known of a model elsewhere, without asking anyone. `tokens` and `flop` state its training."""
    return RemoteCard(target, tokens=tokens, flop=flop)


def identify(
    reference: str | os.PathLike[str] | Where, *, tokens: float | None = None, flop: float | None = None
) -> Card:
    """The card of a folder, a file, a hub name, a URL, a known model's name, or a model elsewhere (openai:gpt-5).

    Raises brolly.errors.BrollyError.
    """
    if isinstance(reference, str) and is_remote(reference):
        return card_of(target_of(reference), tokens=tokens, flop=flop)
    try:
        return identity.identify(reference, tokens=tokens, flop=flop)
    except BrollyError:
        if isinstance(reference, str) and ":" in reference:
            check(reference)  # which may know what is meant
        raise


def target_of(reference: str) -> Target:
    """The target of a reference, also where its vendor's address is not known yet. Raises OptionError."""
    try:
        return parse(reference)
    except OptionError:
        head, _, model = reference.partition(":")
        vendor = vendors().get(head)
        if vendor is None or not model.strip():
            raise
        return Target(reference, vendor, vendor.base, model)


class RemoteCard(Card):
    """What is known of a model that runs elsewhere, and by whom; no files, no network."""

    def __init__(self, target: Target, *, tokens: float | None = None, flop: float | None = None) -> None:
        where = Place(Nowhere(target.name))
        super().__init__(Subject(where, Header(where, "table", {}), [], None), tokens=tokens, flop=flop)
        self.target = target
        self.traits: Traits = traits_of(target)
        self.price: Price | None = price_of(target)
        found = named(target.model)
        self.tabled = found is not None
        self.row = found or _row(target, self.traits)

    @property
    def name(self) -> str | None:
        return self.row.name if self.row and self.tabled else self.target.model

    @property
    def origin(self) -> str:
        return "table" if self.tabled else "vendor"

    @property
    def seen(self) -> str:
        table = "from the table of known models" if self.tabled else "not in the table of known models"
        return f"{table}; it runs at {self._place}, and no files were seen"

    @property
    def _host(self) -> str:
        """Empty where variables that are not set tell it."""
        return "" if "{" in self.target.host else self.target.host

    @property
    def _place(self) -> str:
        vendor, host = self.target.vendor, self._host
        if not host:
            host = "an address by region" if vendor.base else "an address of the customer's"
        return host if vendor.name == COMPATIBLE else f"{vendor.title}, {host}"

    @property
    def runs(self) -> str:
        return "Runs there"

    @cached_property
    def listed(self) -> Listed | None:
        """Its row of the vendor's own list, if that is in the cache."""
        return next((row for row in cached(self.target) or () if row.id == self.target.model), None)

    @cached_property
    def recognised(self) -> Recognised:
        raise UnknownModel(f"{self.target} runs at {self._place}; it has no files here.")

    @cached_property
    def kind(self) -> Kind:
        if self.tabled or (self.row and self.row.kind):
            found = super().kind
            if self.tabled:
                return found
            why: tuple[Evidence, ...] = (
                Evidence("kind", "data/traits.json", "reads, verbs", _facts(self.traits), self.traits.source),
            )
            return found._replace(scope=None, scope_why="not told", why=why)
        sentence = f"It cannot be told: {self.target.model} is not in the table of known models; nothing else tells it."
        family = self.row.family if self.row else None
        named_so = Evidence("family", "", "name", self.target.model, "a lineage of that name")
        why = (named_so,) if family else ()
        return Kind(
            family or None, self.target.model, None, None, sentence, (), (), (), None, "not told", None, (), why
        )

    @cached_property
    def needs(self) -> Needs:
        """Nothing of this machine; how much it reads and writes together."""
        listed = self.listed.context if self.listed else None
        context = self.traits.context or listed or (self.row.context if self.row else None)
        source = self.traits.source if self.traits.context else "the vendor's list" if listed else "the table"
        why = (Evidence("context_length", "", "tokens", f"{context:,}", source),) if context else ()
        return Needs(None, {}, context, None, None, None, {}, None, None, None, None, why)

    @cached_property
    def verbs(self) -> tuple[str, ...]:
        """What its vendor can be asked for, of what the model is known to do."""
        has = [verb for verb in VERBS if verb in self.target.vendor.dialects]
        able = self._able
        return tuple(word for verb in has if not able or verb in able for word in VERBS[verb])

    @property
    def _able(self) -> Sequence[str]:
        """Verbs by the first that tells: traits, the vendor's list, the table's kind."""
        return self.traits.verbs or (self.listed.verbs if self.listed else ()) or _by_kind(self.row)

    @cached_property
    def verbs_why(self) -> str:
        if not self.verbs:
            return f"{self._place} has no {' or '.join(self._able)} that brolly speaks."
        if self._able:
            return f"{self._place} is asked for them."
        return f"{self._place} is asked for them; which of them {self.target.model} can, is not known here."

    @property
    def beside(self) -> tuple[tuple[str, str], ...]:
        traits, rows = self.traits, []
        if traits.max_output:
            rows.append(("Writes", f"{traits.max_output:,} tokens at most"))
        if traits.thinking:
            efforts = f": {', '.join(traits.efforts)}" if traits.efforts else ""
            rows.append(("Thinks", THINKS[traits.thinking] + efforts))
        if traits.lacks:
            rows.append(("Refuses", ", ".join(word.replace("_", " ") for word in traits.lacks)))
        if self.listed:
            since = datetime.fromtimestamp(self.listed.created, UTC).date() if self.listed.created else None
            told = [self.listed.title, f"since {since}" if since else ""]
            rows.append(("Listed", ", ".join(filter(None, told)) or "by its vendor"))
        rows.append(("Price", said(self.price) if self.price else "not known here; --price states it for --max-cost"))
        return tuple(rows)

    @property
    def why(self) -> tuple[Evidence, ...]:
        own = []
        if self.traits.source:
            own.append(
                Evidence("traits", "data/traits.json", "seen", self.traits.seen, f"as told by {self.traits.source}")
            )
        if self.price:
            own.append(Evidence("price", "data/prices.json", "seen", self.price.seen, self.price.source))
        vendor = self.target.vendor
        own.append(Evidence("verbs", "data/vendors.json", "dialects", ", ".join(vendor.dialects), vendor.docs))
        return (*super().why, *own)

    @property
    def more(self) -> dict[str, Any]:
        traits, vendor = asdict(self.traits), self.target.vendor
        known = {name: traits[name] or None for name in ("max_output", "thinking", "source", "seen")}
        known |= {name: list(traits[name]) for name in ("efforts", "lacks", "reads")}
        row = {"vendor": vendor.name, "title": vendor.title, "host": self._host, "model": self.target.model}
        return {
            "remote": {
                **row,
                **known,
                "price": asdict(self.price) if self.price else None,
                "listed": self.listed._asdict() if self.listed else None,
            }
        }


def _row(target: Target, traits: Traits) -> Known:
    """A row for a model that the table does not have, with what its traits and its name tell."""
    family, maker = lineage(target.model) if target.vendor.name != COMPATIBLE else ("", None)
    kind: str | None = None
    flavours: tuple[str, ...] = ()
    into: tuple[str, ...] = ("text", *(r for r in traits.reads if r != "pdf"))
    out: tuple[str, ...] = ("text",)
    if traits.verbs == ("embed",):
        kind, flavours, into, out = "text-encoder", ("embedder",), ("text",), ("embedding",)
    elif traits.verbs == ("draw",):
        kind, into, out = "image", ("text",), ("image",)
    elif traits.verbs == ("transcribe",):
        kind, into, out = "speech", ("audio",), ("text",)
    elif traits.verbs == ("speak",):
        kind, into, out = "speech", ("text",), ("audio",)
    elif "chat" in traits.verbs and len(into) > 1:
        kind, flavours = "lmm", () if traits.thinking in ("", "none") else ("reasoning",)
    else:
        into = out = ()
    return Known(
        name=target.model, family=family, organization=maker, kind=kind, modalities_in=into, modalities_out=out,
        flavours=flavours, open="none", context=traits.context, matched="name",
    )  # fmt: skip


def _by_kind(row: Known | None) -> tuple[str, ...]:
    kind = row.kind if row else None
    if kind == "speech" and row:
        return ("transcribe",) if "text" in row.modalities_out else ("speak",)
    by = {"llm": "chat", "lmm": "chat", "text-encoder": "embed", "vision-language-embedding": "embed", "image": "draw"}
    return (by[kind],) if kind in by else ()


def _facts(traits: Traits) -> str:
    return f"{', '.join(traits.reads) or 'text'}; {', '.join(traits.verbs)}"


def said(price: Price) -> str:
    """A price in a line: $1.25 read, $10 written a million tokens (2026-11-29)."""
    parts = [f"${price.read:g} read", f"${price.write:g} written"]
    parts += [f"${price.cached:g} from the cache"] if price.cached is not None else []
    parts += [f"${price.stored:g} into it"] if price.stored is not None else []
    parts += [f"${price.heard:g} heard"] if price.heard is not None else []
    more = f"; ${price.then.read:g} and ${price.then.write:g} beyond {price.over:,} read" if price.then else ""
    until = f", until {price.until}" if price.until else ""
    return f"{', '.join(parts)} a million tokens{more} ({price.seen or 'stated'}{until})"
