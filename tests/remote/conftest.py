"""Vendors are where their rows say, whoever's keys, addresses and proxies this machine has; tests set their own."""

from __future__ import annotations

import os

from brolly.remote.vendors import BLANK, vendors

NAMES = [f"{kind}_PROXY" for kind in ("HTTP", "HTTPS", "ALL", "NO")]
NAMES += [*map(str.lower, NAMES), "BROLLY_KEYS", "COLUMNS"]
for vendor in vendors().values():
    NAMES += [*vendor.keys, *vendor.bases]
    NAMES += [
        name for text in (vendor.base, vendor.path) for blank in BLANK.finditer(text) for name in blank[1].split("|")
    ]

if not os.environ.get("BROLLY_LIVE"):
    for name in NAMES:
        os.environ.pop(name, None)  # before any test module reads a target
