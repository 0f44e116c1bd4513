"""Whose servers there are: a row of data/vendors.json each, with the dialects that they speak."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from brolly.errors import OptionError

DATA = Path(__file__).parent / "data"
BLANK = re.compile(r"\{([A-Z_|]+)(?:=([a-z0-9-]+))?\}")  # {AWS_REGION|AWS_DEFAULT_REGION=us-east-1}
ADDRESS = re.compile(r"https?://[^\s/?#@]+(/[^\s?#@]*)?")
VALUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


@dataclass(frozen=True)
class Vendor:
    """One vendor. `dialects` maps a verb ("chat", "embed", "draw", "transcribe", "speak", "list", "tune", "count") to
    the modules below `brolly.remote.dialects` that say it, the preferred one first."""

    name: str  # before the colon: openai
    title: str  # as people write it: OpenAI
    # the address that paths are put behind, without a slash at the end; "" where the reference has it.
    # {NAME|OTHER=value} is filled by the first of these variables that is set, else by the value
    base: str
    auth: str  # a name in `brolly.remote.auth`
    dialects: Mapping[str, tuple[str, ...]]
    keys: tuple[str, ...] = ()  # environment variables that may hold the key, the first that is set wins
    account: str = ""  # the vendor whose key it shares, if it has none of its own
    bases: tuple[str, ...] = ()  # and the address,
    path: str = ""  # which this is put behind, filled likewise, if it is not there
    hosts: Mapping[str, str] = field(default_factory=dict)  # a host that a filled `base` has → what it is in truth
    headers: Mapping[str, str] = field(default_factory=dict)  # that go with every request
    console: str = ""  # where a key is made
    docs: str = ""  # the API's reference, and
    seen: str = ""  # the day on which it was read
    extra: str = ""  # of brolly, that `auth` needs
    takes: tuple[str, ...] = ()  # options that it has beyond its dialect's own: top_k, regex, chat_template_kwargs …
    lacks: tuple[str, ...] = ()  # options that it has not, though its dialect has
    words: Mapping[str, str] = field(default_factory=dict)  # an option → what it is called there, if otherwise
    examples: Mapping[str, str] = field(default_factory=dict)  # a verb → one of its models that can
    aka: tuple[str, ...] = ()  # what people may call it; a hint alone
    local: bool = False  # on the user's own machine: needs no key

    def address(self) -> str:
        """Where it is reached now: the environment's word, else its own. Raises OptionError."""
        name = next((name for name in self.bases if os.environ.get(name)), "")
        said = os.environ.get(name, "") if name else ""
        if said and not ADDRESS.fullmatch(said):
            shown = said.partition("?")[0].rpartition("@")[2]
            raise OptionError(
                f"{name} is {shown!r:.120}; expected http://host or https://host, without a user and a query."
            )
        if said:
            said, path = said.rstrip("/"), BLANK.sub(self._filled, self.path)
            return said if said.endswith(path) else said + path
        if not self.base:
            raise OptionError(f"{self.title} has an address for each customer; set {' or '.join(self.bases)}.")
        base = BLANK.sub(self._filled, self.base)
        host, slash, path = base.partition("://")[2].partition("/")
        return f"https://{self.hosts[host]}{slash}{path}" if host in self.hosts else base

    def _filled(self, blank: re.Match[str]) -> str:
        names = blank[1].split("|")
        value = next((os.environ[name] for name in names if os.environ.get(name)), blank[2] or "")
        if not value:
            raise OptionError(
                f"{self.title}'s address holds what {names[0]} says, and it is not set; export {names[0]}=…"
            )
        if not VALUE.fullmatch(value):
            raise OptionError(f"{names[0]} is {value!r:.60}; expected a name of letters, digits, dots and dashes.")
        return value


@cache
def vendors() -> dict[str, Vendor]:
    """Every vendor by its name."""
    rows = json.loads((DATA / "vendors.json").read_text())["vendors"]
    found = {}
    for row in rows:
        row |= {name: tuple(row.get(name, ())) for name in ("keys", "bases", "takes", "lacks", "aka")}
        row["dialects"] = {verb: tuple(names) for verb, names in row["dialects"].items()}
        found[row["name"]] = Vendor(**row)
    return found
