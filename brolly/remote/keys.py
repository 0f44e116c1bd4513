"""Where keys are kept: the vendors' own environment variables first, then the system's keyring. Never in a file."""

from __future__ import annotations

import hmac
import json
import os
import time
import warnings
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

from brolly.errors import BrollyError, KeyRefused, MissingExtra, OptionError
from brolly.remote.meant import no_vendor
from brolly.remote.target import COMPATIBLE, Target
from brolly.remote.vendors import Vendor, vendors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SERVICE = "brolly"  # under which the keyring has them
ADDRESSES = "addresses"  # its entry that lists the addresses with a key, as keyrings do not tell their users
VARIABLE = "BROLLY_KEYS"  # "https://host=key http://other:8000=key"
MOST = 8192  # characters of a key
MOST_ADDRESSES = 1000
PAUSE = 30.0  # seconds for which a keyring that failed is left alone: each try may ask its user
_told: set[str] = set()
_failed: list[float] = []  # when the keyring did, by time.monotonic


class Secret:
    """A key. Nothing that prints, formats, copies or stores objects shows it; `source` is where it was found."""

    __slots__ = ("reveal", "source")
    reveal: Callable[[], str]  # the key itself, for the header that carries it
    source: str

    def __init__(self, text: str, source: str) -> None:
        object.__setattr__(self, "reveal", lambda: text)
        object.__setattr__(self, "source", source)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("a key does not change.")

    def __repr__(self) -> str:
        return f"<key from {self.source}>"

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self.reveal().encode(), other.reveal().encode())

    __hash__ = None  # type: ignore[assignment]  # a hash would tell equal keys apart from others

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a key is not written anywhere; keep it with `brolly keys set`.")

    def __getstate__(self) -> NoReturn:
        raise TypeError("a key is not written anywhere; keep it with `brolly keys set`.")


@dataclass(frozen=True)
class Source:
    """Where one vendor's key is, without the key. `where` is "" if there is none."""

    name: str  # what `brolly keys set` calls it: a vendor, or an address
    title: str
    where: str
    address: str
    variables: tuple[str, ...] = ()
    needed: bool = True  # not of what runs on the user's own machine
    wrong: str = ""  # why what is there cannot be a key


def key_of(target: Target) -> Secret | None:
    """The key that goes to a target; None where there is none. May wait for the user to unlock the keyring.

    An address gets a key that is kept for its origin only, never a vendor's. Raises OptionError at one that cannot be
    sent.
    """
    found = _found(target)
    if found is not None and not is_private(target.base):
        _tell(f"{target.host} is reached by http://: whoever is on the way reads the key; use https://.")
    return found


def _found(target: Target) -> Secret | None:
    holder = holder_of(target)
    if target.vendor.name == COMPATIBLE:
        if text := _stated().get(holder):
            return Secret(checked(text, f"the key of {holder} in {VARIABLE}"), VARIABLE)
        return _kept(holder)
    for name in target.vendor.keys:
        if text := os.environ.get(name):
            return Secret(checked(text, name), name)
    return _kept(holder)


def holder_of(target: Target) -> str:
    """What `brolly keys set` calls whose key goes to a target: an address, or a vendor. Raises OptionError."""
    vendor = target.vendor
    return origin_of(target.base) if vendor.name == COMPATIBLE else vendor.account or vendor.name


def no_key(target: Target) -> str:
    """What to do where a vendor wants a key and there is none."""
    name, console = holder_of(target), target.vendor.console
    where = f" It is made at {console}." if console else ""
    return f"there is no key for {target.host}; set {_variable(name)}, or run `brolly keys set {name}`.{where}"


def set_key(name: str, text: str) -> str:
    """Keep a key in the system's keyring; returns what that is called. Raises OptionError, MissingExtra, KeyRefused."""
    user = user_of(name)
    checked(text, f"the key of {user}")
    with _keyring(user) as keyring:
        keyring.set_password(SERVICE, user, text)
        if keyring.get_password(SERVICE, user) != text:
            raise KeyRefused(f"the keyring took the key of {user} and has it not; set {_variable(user)} instead.")
        if "://" in user:
            _list(keyring, {*_addresses(keyring.get_password(SERVICE, ADDRESSES)), user})
        backend = keyring.get_keyring()
        return str(getattr(backend, "name", None) or type(backend).__name__)


def remove_key(name: str) -> bool:
    """Take a key out of the keyring; whether there was one. Raises OptionError, MissingExtra, KeyRefused."""
    user = user_of(name)
    with _keyring(user) as keyring:
        there = keyring.get_password(SERVICE, user) is not None
        if there:
            keyring.delete_password(SERVICE, user)
        if "://" in user:
            _list(keyring, set(_addresses(keyring.get_password(SERVICE, ADDRESSES))) - {user})
        return there


def sources() -> list[Source]:
    """Every vendor and every address with a key of its own, and where its key is."""
    found = []
    for vendor in vendors().values():
        if vendor.name != COMPATIBLE and not vendor.account:
            found.append(_source(vendor))
    try:
        stated = dict.fromkeys(_stated(), VARIABLE)
    except OptionError as error:
        stated = {}
        found.append(Source(VARIABLE, VARIABLE, "", "", (VARIABLE,), wrong=str(error)))
    for origin, where in sorted((dict.fromkeys(_addresses(_read(ADDRESSES)), "the keyring") | stated).items()):
        found.append(Source(origin, urlsplit(origin).netloc, where, origin, (VARIABLE,)))
    return found


def _source(vendor: Vendor) -> Source:
    where = wrong = address = ""
    try:
        held = _found(Target(vendor.name, vendor, vendor.base, ""))
        where = held.source if held else ""
    except OptionError as error:
        wrong = str(error)
    with suppress(OptionError):  # nothing says it yet, or fills its blanks
        address = vendor.address()
    needed = bool(vendor.keys) and not vendor.local
    return Source(vendor.name, vendor.title, where, address, vendor.keys, needed, wrong)


def user_of(name: str) -> str:
    """Under which name the keyring has the key of a vendor or of an address. Raises OptionError."""
    if name.partition(":")[0] in ("http", "https"):
        return origin_of(name.partition("#")[0])
    vendor = vendors().get(name.removesuffix(":"))
    if vendor is None or vendor.name == COMPATIBLE:
        raise no_vendor(name.removesuffix(":"))
    vendor = vendors()[vendor.account] if vendor.account else vendor
    if not vendor.keys:
        raise OptionError(
            f"{vendor.title} takes no key; it is shown who asks by credentials of its own ({vendor.docs})."
        )
    return vendor.name


def origin_of(address: str) -> str:
    """https://host:port of an address, as browsers mean it. Raises OptionError."""
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or parts.scheme not in ("http", "https") or parts.username is not None:
        told = address.rpartition("@")[2].partition("?")[0]
        raise OptionError(f"{told!r:.120} is no address; expected https://host or https://host:8000.")
    host = f"[{host}]" if ":" in host else host
    standing = port is None or port == {"http": 80, "https": 443}[parts.scheme]
    return f"{parts.scheme}://{host}" + ("" if standing else f":{port}")


def is_private(address: str) -> bool:
    """Whether nobody on the way can read what goes there: it is encrypted, or stays on this machine."""
    parts = urlsplit(address)
    host = (parts.hostname or "").rstrip(".")
    if parts.scheme == "https" or host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def checked(text: str, name: str) -> str:
    """The same, if it can be a key. Raises OptionError, which does not show it."""
    if text != text.strip():
        raise OptionError(f"{name} has a blank or a line's end around it; set it again without.")
    if not text or len(text) > MOST or not all("!" <= letter <= "~" for letter in text):
        raise OptionError(
            f"{name} cannot be a key: expected 1 to {MOST} letters, digits and signs of ASCII without blanks, "
            f"found {len(text)} characters{'' if text.isascii() else ', not all of ASCII'}."
        )
    return text


def _stated() -> dict[str, str]:
    """Origin → key, of the environment."""
    found = {}
    for at, row in enumerate(os.environ.get(VARIABLE, "").split()):
        address, equals, text = row.partition("=")
        if not equals or not address.startswith(("http://", "https://")):
            raise OptionError(f"word {at + 1} of {VARIABLE} is no address=key; expected https://host=KEY.")
        found[origin_of(address)] = text
    return found


def _kept(user: str) -> Secret | None:
    text = _read(user)
    return Secret(checked(text, f"the keyring's key of {user}"), "the keyring") if text else None


def _addresses(text: str | None) -> list[str]:
    try:
        found = json.loads(text or "[]")
    except ValueError:
        found = None
    rows = found if isinstance(found, list) else []
    return [row for row in rows[:MOST_ADDRESSES] if isinstance(row, str)]


def _list(keyring: Any, rows: set[str]) -> None:
    keyring.set_password(SERVICE, ADDRESSES, json.dumps(sorted(rows)[:MOST_ADDRESSES]))


def _variable(user: str) -> str:
    """How the environment holds the same key."""
    return f"{VARIABLE}={user}=KEY" if "://" in user else (vendors()[user].keys or (VARIABLE,))[0]


@contextmanager
def _keyring(user: str) -> Iterator[Any]:
    """The package, for writing. Raises MissingExtra, KeyRefused."""
    try:
        import keyring
        from keyring.errors import NoKeyringError
    except ModuleNotFoundError:
        raise MissingExtra(f"keeping keys (otherwise set {_variable(user)})", "keys") from None
    try:
        yield keyring
    except NoKeyringError:
        raise KeyRefused(f"this machine has no keyring that keys could be kept in; set {_variable(user)}.") from None
    except BrollyError:
        raise
    except Exception as error:  # backends raise what their systems raise, and one may not be there
        raise KeyRefused(f"the keyring refused ({_why(error)}); unlock it, or set {_variable(user)}.") from None


def _read(user: str) -> str | None:
    """What the keyring has; one that fails is told once, and the environment is all there is."""
    try:
        import keyring
        from keyring.errors import NoKeyringError
    except ModuleNotFoundError:
        return None
    if _failed and time.monotonic() - _failed[-1] < PAUSE:
        return None
    try:
        return keyring.get_password(SERVICE, user)
    except NoKeyringError:
        return None
    except Exception as error:  # backends raise what their systems raise
        _failed[:] = [time.monotonic()]
        _tell(f"the keyring cannot be read ({_why(error)}); keys are looked for in the environment alone.")
        return None


def _why(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _tell(text: str) -> None:
    if text not in _told:
        _told.add(text)
        warnings.warn(text, stacklevel=3)
