"""The card: what `identify` answers about one checkpoint, on one page; a section is worked out when it is asked for."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from brolly.card import Evidence, Finding, Header, Recognised
from brolly.errors import BrollyError, UnknownModel

if TYPE_CHECKING:
    from brolly.identity.answers import Kind, Known, Licence, Needs, Parameters, Rule, Training
    from brolly.identity.subject import Subject


class Card:
    """What brolly can tell about one checkpoint from its files; `load` builds on the same card."""

    def __init__(self, subject: Subject, *, tokens: float | None = None, flop: float | None = None) -> None:
        self.subject = subject
        self.stated = {"tokens": tokens, "flop": flop}  # by the user: --tokens, --flop
        self.row: Known | None = None  # of the table, where a name alone was given
        self.others: tuple[str, ...] = ()  # further models that the name could mean
        self.unseen = ""  # why no files were seen, where they were looked for

    @property
    def header(self) -> Header:
        return self.subject.header

    @property
    def name(self) -> str | None:
        """What people call it: the table's name, else the repository's, else the files' own. A shape is no name."""
        known = self._own
        return known.name if known and known.matched != "shape" else self.subject.name or self.kind.name

    @property
    def shaped_as(self) -> str | None:
        """The published model of this shape, where nothing else names it: a fine-tune has its base's."""
        known = self._own
        return known.name if known and known.matched == "shape" else None

    @property
    def from_table(self) -> bool:
        """Whether this is the table's answer to a name: no files seen."""
        return self.row is not None

    @property
    def origin(self) -> str:
        """What was looked at: "files", "table", or "vendor" for a model elsewhere that the table does not have."""
        return "table" if self.from_table else "files"

    @property
    def seen(self) -> str:
        """The same as a line of the page, where that is no path."""
        return "from the table; no files seen" + (f" ({self.unseen})" if self.unseen else "")

    @property
    def beside(self) -> tuple[tuple[str, str], ...]:
        """Lines of a page that only some cards have: label and text."""
        return ()

    @property
    def more(self) -> dict[str, Any]:
        """Keys of its JSON that only some cards have."""
        return {}

    @property
    def runs(self) -> str:
        """The label of its verbs."""
        return "Runs here"

    @cached_property
    def recognised(self) -> Recognised:
        """The family that runs it. Raises the first fault of reading, or UnknownModel."""
        from brolly.families import recognise

        if self.row:
            raise UnknownModel(
                f"{self.row.name} is known from the table only; "
                + ("it is closed." if self.row.open == "closed" else "pull its files to run it.")
            )
        if self.subject.faults:
            raise self.subject.faults[0]
        return recognise(self.header)

    @cached_property
    def known(self) -> Known | None:
        """The row of the table of known models that has this shape or name."""
        from brolly.identity.known import find

        return self.row or find(self.subject)

    @cached_property
    def kind(self) -> Kind:
        from brolly.identity.kinds import kind_of

        return kind_of(self.subject, self.known)

    @cached_property
    def parameters(self) -> Parameters:
        from brolly.identity.sizes import NO_NUMBERS, from_known, parameters_of

        if self._vocabulary:
            return NO_NUMBERS
        found = parameters_of(self.subject, self.kind)
        if found.total is not None or self.known is None:
            return found
        return from_known(self.known)._replace(precision=found.precision, quantization=found.quantization)

    @cached_property
    def needs(self) -> Needs:
        from brolly.identity.needs import needs_of

        found = needs_of(self.subject, self.parameters)
        if self._vocabulary:
            found = found._replace(context_length=None, kv_bytes_per_token=None, kv_bytes_full_context=None)
        return found

    @property
    def _vocabulary(self) -> bool:
        """Whether this is a tokenizer alone, though its file may state the shape of the model that it is for."""
        return "tokenizer" in self.kind.flavours

    @property
    def _own(self) -> Known | None:
        """The row of the table, where it is of these files and not of the model that a tokenizer is for."""
        return None if self._vocabulary else self.known

    @cached_property
    def licence(self) -> Licence:
        from brolly.identity.licences import licence_of

        return licence_of(self.subject, self.kind, self._own)

    @cached_property
    def training(self) -> Training:
        from brolly.identity.rules import training_of

        found = training_of(self.subject, self.kind, self.parameters, self._own, **self.stated)
        known = self._own
        if known and self.shaped_as and found.source and (known.flop_source or "") in found.source and known.flop:
            found = found._replace(source=f"{found.source}, for {known.name}, whose shape it has")
        return found

    @cached_property
    def rules(self) -> tuple[Rule, ...]:
        from brolly.identity.rules import rules_of

        return rules_of(self.subject, self.kind, self.parameters, self.training, self.licence)

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """What is wrong with the files: of reading, of safety, of the licence; none on a clean checkpoint."""
        from brolly.identity.licences import conflicts
        from brolly.identity.safety import findings_of
        from brolly.identity.structure import misfits

        if self.from_table:
            return ()
        found = (*findings_of(self.subject), *misfits(self.subject), *conflicts(self.subject, self.kind, self.known))
        return tuple(f for f in found if f.id)

    @cached_property
    def verbs(self) -> tuple[str, ...]:
        """What brolly can do with it here; `verbs_why` says why not more."""
        try:
            return self.recognised.tasks
        except BrollyError:
            return ()

    @cached_property
    def verbs_why(self) -> str:
        try:
            return f"brolly runs it as a {self.recognised.family.name}."
        except BrollyError as error:
            return str(error)

    @property
    def why(self) -> tuple[Evidence, ...]:
        parts = (self.kind, self.parameters, self.needs, self.licence, self.training)
        return tuple(e for part in parts for e in part.why)

    def json(self) -> dict[str, Any]:
        """The card as docs/identify.md and the shipped JSON Schema describe it."""
        from brolly.identity.form import to_json

        return to_json(self)
