"""What somebody means by a name that is none: a vendor's misspelt, a closed model's without its vendor."""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

from brolly.errors import NotFound, OptionError
from brolly.remote.target import COMPATIBLE, Target, is_remote
from brolly.remote.vendors import vendors

VENDOR = re.compile(r"([A-Za-z][A-Za-z0-9._-]+):(?!//)(.*)", re.DOTALL)


def check(reference: object) -> None:
    """A name that can only mean a model elsewhere, and is not written as one, is told before anybody is asked.

    Raises OptionError where there is no such vendor, NotFound where the vendor's name is wanting.
    """
    text = str(reference)
    if is_remote(text) or os.path.lexists(text):
        return
    if found := VENDOR.fullmatch(text):
        raise no_vendor(found[1], found[2])
    if re.fullmatch(r"https?://[^/?#]+((/[^/?#]+)?/v\d+\w*)?/?", text) and urlsplit(text).netloc not in _hubs():
        raise OptionError(f"{text!r:.120} names no model; expected {text.rstrip('/')[:120]}#model.")
    if whose := of_closed(text):
        raise NotFound(f"{text!r:.120} runs elsewhere; expected {' or '.join(whose)}.")


def _hubs() -> tuple[str, ...]:
    """Hosts whose addresses are of repositories."""
    from brolly import hub

    return urlsplit(hub.endpoint()).netloc, "huggingface.co", "hf.co"


def no_vendor(word: str, model: str = "") -> OptionError:
    """The error of a vendor's name that is none."""
    from difflib import get_close_matches

    names = [name for name, vendor in vendors().items() if name != COMPATIBLE and not vendor.account]
    known = {alias: name for name in names for alias in (name, *vendors()[name].aka)}
    close = get_close_matches(word.lower()[:60], known, n=3, cutoff=0.6)
    meant = list(dict.fromkeys(known[one] for one in close[: 1 if close and word.lower() in known else 3]))
    if meant:
        hint = f"perhaps {' or '.join(f'{name}:{model}'[:120] if model else name for name in meant)} is meant"
    else:
        hint = f"expected {', '.join(names)}, or an address: https://host/v1{f'#{model}'[:60] if model else ''}"
    return OptionError(f"{word!r:.80} is no vendor; {hint}.")


def of_closed(text: str) -> list[str]:
    """References of the closed model that a name without vendor means, as gpt-5 or openai/gpt-5; none: unknown."""
    from brolly.remote.traits import traits_of

    head, slash, rest = text.partition("/")
    own = {head: rest} if slash else dict.fromkeys(vendors(), text)
    found = []
    for name, model in own.items():
        vendor = vendors().get(name)
        if vendor is not None and not vendor.account and traits_of(Target(text, vendor, "", model)).source:
            found.append(f"{name}:{model}")
    return found
