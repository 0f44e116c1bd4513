"""Which models are on this disk, or which a vendor has."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from datetime import UTC, datetime

from brolly.commands.columns import lined_up
from brolly.errors import OptionError
from brolly.remote.dialect import Listed
from brolly.remote.target import Target


def flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("vendor", nargs="?", help="openai:, another vendor, or https://host/v1 (default: this disk)")
    command.add_argument("--json", action="store_true")
    command.add_argument("--refresh", action="store_true", help="ask the vendor, though its list is in the cache")


def run(args: argparse.Namespace) -> int | None:
    if args.vendor is None:
        if args.refresh:
            raise OptionError("--refresh is for a vendor's list; name one: brolly list openai:.")
        return here(args.json)
    from brolly.remote.listing import models, source_of

    source = source_of(args.vendor)
    found = models(source, refresh=args.refresh)
    if args.json:
        print(json.dumps([row(source, one) for one in found]))
    else:
        print(table(source, found))
    return 0


def here(as_json: bool) -> int:
    """What is on this disk."""
    from brolly import hub

    models = hub.cached()
    if as_json:
        print(json.dumps([asdict(m) | {"path": str(m.path)} for m in models]))
        return 0
    width = max((len(m.name) for m in models), default=4)
    for m in models:
        state = "" if m.complete else "  incomplete: pull it again"
        print(f"{m.name:{width}}  {m.revision:12}  {m.n_bytes / 1e6:10,.1f} MB{state}")
    return 0


def row(source: Target, one: Listed) -> dict[str, object]:
    """A model as JSON: `model` is what `brolly run` takes."""
    from brolly.remote.listing import reference_of

    return {
        "model": reference_of(source, one.id), "id": one.id, "title": one.title or None, "created": one.created,
        "context": one.context, "verbs": list(one.verbs),
    }  # fmt: skip


def table(source: Target, found: list[Listed]) -> str:
    """A line a model: name, context, day, verbs as far as they are known; then how many."""
    from brolly.identity.show import clean
    from brolly.remote.listing import reference_of

    rows = [("MODEL", "CONTEXT", "SINCE", "CAN")]
    for one in found:
        context = f"{one.context:,}" if one.context else "-"
        name = reference_of(source, one.id)
        rows.append((clean(name), context, day(one.created), clean(", ".join(one.verbs)) or "-"))
    lines = lined_up(rows) if found else []
    return "\n".join([*lines, f"{len(found)} models at {source.host}"])


def day(seconds: int | None) -> str:
    try:
        return "-" if seconds is None else datetime.fromtimestamp(seconds, UTC).date().isoformat()
    except (OverflowError, ValueError, OSError):
        return "-"
