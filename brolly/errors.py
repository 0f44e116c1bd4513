"""Everything that brolly raises at a user, drawn.

    BrollyError
    ├── CheckpointError        a file is broken, incomplete or not what it says it is
    │   └── UnsafeCheckpoint   a file asks for more than tensors: code, links, absurd sizes
    ├── UnknownModel           no family recognises this checkpoint
    ├── UnsupportedTask        the model is known, and this verb is not one of its own
    ├── OptionError            an option or an input out of its range
    │   └── ContextTooLong     more tokens than the model can hold
    ├── TemplateError          a chat template is missing, wrong or misbehaves
    ├── TokenizerError         no readable tokenizer, or one that cannot do this
    ├── RecipeError            a training recipe or its data
    ├── MediaError             an image, a sound or a video that cannot be read
    ├── MissingExtra           an optional package is not installed
    ├── Busy                   more is asked for than fits now; try again after `retry_after` seconds
    ├── RemoteError            a model that runs elsewhere: its vendor refused, failed or was not reached
    │   ├── KeyRefused         no key, a wrong one, or one that may not do this
    │   ├── QuotaSpent         the account has no credit left; waiting does not help
    │   ├── Filtered           the vendor's rules forbid the question or the answer
    │   ├── Overloaded         the vendor has no room now (503, 529); try again after `retry_after` seconds
    │   ├── Unreachable        no connection, or silence for too long
    │   └── BadAnswer          what came is not what was promised: cut off, not JSON, a call without a name
    ├── BudgetSpent            the next request could cost more than what is left of --max-cost
    └── HubError               a name could not be turned into files
        ├── NotFound           no such file, repository or revision
        ├── Gated              exists, and its owner wants something first
        ├── Offline            the hub could not be reached, or we were told not to try
        └── DiskFull           the files do not fit

Each message is one sentence or two: what was found, what was expected, what to do.
"""

from __future__ import annotations


class BrollyError(Exception):
    """Root of all errors that are the user's to mend; the command line prints them and exits with 2."""


class CheckpointError(BrollyError):
    """A checkpoint's file is broken, incomplete or not what it says it is. `finding` is its id in a card."""

    def __init__(self, message: str, finding: str = "broken-file", file: str = "") -> None:
        super().__init__(message)
        self.finding, self.file = finding, file


class UnsafeCheckpoint(CheckpointError):
    """A checkpoint asks for more than tensors."""

    def __init__(self, message: str, finding: str = "unsafe-file", file: str = "") -> None:
        super().__init__(message, finding, file)


class UnknownModel(BrollyError):
    """No family recognises the checkpoint."""


class UnsupportedTask(BrollyError):
    """The model cannot do this verb."""


class OptionError(BrollyError):
    """An option or an input is out of its range."""


class ContextTooLong(OptionError):
    """The prompt, or the prompt and the answer, exceed what the model can hold."""


class TemplateError(BrollyError):
    """A chat template is missing, wrong, too slow or reaches for what it may not."""


class TokenizerError(BrollyError):
    """There is no tokenizer that can be read, or it cannot do what was asked."""


class RecipeError(BrollyError):
    """A training recipe or its data is wrong."""


class MediaError(BrollyError):
    """An image, a sound or a video is broken, too large or of a kind that is not read here."""


class MissingExtra(BrollyError):
    """An optional package is not installed."""

    def __init__(self, purpose: str, extra: str) -> None:
        super().__init__(f"{purpose} needs an optional package; install it with: pip install 'brolly[{extra}]'")
        self.extra = extra


class Busy(BrollyError):
    """More is asked for than fits now; the same request may be granted after `retry_after` seconds."""

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RemoteError(BrollyError):
    """A model that runs elsewhere could not be asked, or its vendor failed. `status` is HTTP's, or 0."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class KeyRefused(RemoteError):
    """There is no key, a wrong one, or one that may not do this."""


class QuotaSpent(RemoteError):
    """The account has no credit left; waiting does not help."""


class Filtered(RemoteError):
    """The vendor's rules forbid the question or the answer."""


class Overloaded(RemoteError):
    """The vendor has no room now; the same request may be granted after `retry_after` seconds."""

    def __init__(self, message: str, status: int = 0, retry_after: float = 5.0) -> None:
        super().__init__(message, status)
        self.retry_after = retry_after


class Unreachable(RemoteError):
    """No connection, or silence for too long."""


class BadAnswer(RemoteError):
    """What came is not what was promised."""


class BudgetSpent(BrollyError):
    """The next request could cost more than what is left."""


class HubError(BrollyError):
    """A name could not be turned into files on this disk."""


class NotFound(HubError):
    """There is no such file, repository or revision."""


class Gated(HubError):
    """The repository exists, and its owner asks for a token or an agreement first."""


class Offline(HubError):
    """The hub could not be reached, or offline mode is on."""


class DiskFull(HubError):
    """The files do not fit on the disk."""
