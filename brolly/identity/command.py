"""`brolly identify`: one card, two, or a tree of them, said as a page, as JSON or as another tool's document."""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from collections.abc import Callable
from typing import Any

from brolly.errors import OptionError
from brolly.identity import Card, identify

FAILED = 3  # exit code where a condition of --fail-on holds


def run(args: Namespace, identify: Callable[..., Card] = identify) -> int:
    """What the command line asked for; the exit code. `identify` may know more names than those of this room."""
    if args.no_remote:
        os.environ["HF_HUB_OFFLINE"] = "1"
    if args.tree is not None:
        return _tree(args)
    if args.model is None:
        raise OptionError("there is nothing to identify; give a path, org/name, a URL or a name, or --tree DIR.")
    card = identify(args.model, tokens=args.tokens, flop=args.flop)
    if args.compare:
        from brolly.identity.compare import compare, show_comparison

        other = identify(args.compare, tokens=args.tokens, flop=args.flop)
        found = compare(card, other)
        out(json.dumps(found, ensure_ascii=False) + "\n" if args.json else show_comparison(found, colour=colours()))
        return verdict([card, other], args.fail_on)
    said = document(card, args)
    if said is not None:
        out(json.dumps(said, ensure_ascii=False, indent=None if args.json and not args.sbom else 2) + "\n")
    elif not args.html:
        from brolly.identity.show import show, why

        out(show(card, colour=colours()))
        if args.why:
            out(why(card))
    if args.html:
        from brolly.identity.html import write_page

        write_page(card, args.html)
        print(f"{args.html} is written.", file=sys.stderr)
    return verdict([card], args.fail_on)


def document(card: Card, args: Namespace) -> Any:
    """The one document asked for, as plain values; None for the page."""
    if args.sbom:
        from brolly.identity import sbom

        make = sbom.cyclonedx if args.sbom == "cyclonedx" else sbom.spdx
        return make(card, hashes=args.hash)
    if args.sarif:
        from brolly.identity.sarif import sarif

        return sarif([card])
    if args.form:
        from brolly.identity.gpai import form

        return form(card)
    if args.json:
        from brolly.identity.form import to_json

        return to_json(card, why=args.why)
    return None


def verdict(cards: list[Card], fail_on: tuple[str, ...]) -> int:
    """0, or FAILED with a line on standard error for each condition that holds."""
    from brolly.identity.show import clean

    code = 0
    for card in cards:
        for name in fail_on:
            if reason := holds(card, name):
                print(clean(f"brolly: {card.subject.where}: {name}: {reason}"), file=sys.stderr)
                code = FAILED
    return code


def holds(card: Card, condition: str) -> str:
    """Why a condition of --fail-on holds for a card, or nothing."""
    rules = {rule.id: rule for rule in card.rules} if condition in ("systemic", "gpai") else {}
    match condition:
        case "unsafe":
            found = next((f for f in card.findings if f.severity == "danger"), None)
            return found.message if found else ""
        case "findings":
            found = next((f for f in card.findings if f.severity != "info"), None)
            return found.message if found else ""
        case "non-commercial":
            return f"licence {card.licence.id}" if card.licence.commercial == "no" else ""
        case "unknown-licence":
            return "no licence is told" if card.licence.commercial is None else ""
        case "not-open":
            return f"licence {card.licence.id}" if card.licence.free_and_open is not True else ""
        case "systemic" | "gpai":
            rule = rules.get(f"eu-{condition}")
            return rule.because if rule and rule.outcome == "meets" else ""
        case _:
            return "the files do not tell its kind" if card.kind.kind is None else ""


def _tree(args: Namespace) -> int:
    from brolly.identity.tree import show_tree, survey

    if args.model and not args.tree:
        args.tree = args.model
    bar = sys.stderr.isatty()
    rows = survey(args.tree or None, progress=bar)
    if args.sarif:
        from brolly.identity.sarif import sarif_of_rows

        out(json.dumps(sarif_of_rows(rows), ensure_ascii=False, indent=2) + "\n")
    elif args.json:
        out(json.dumps([row.json for row in rows], ensure_ascii=False) + "\n")
    else:
        out(show_tree(rows, colour=colours()))
    return 0


def colours() -> bool:
    """Whether the reader is a terminal that wants colours (NO_COLOR, FORCE_COLOR)."""
    if os.environ.get("FORCE_COLOR"):
        return True
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def out(text: str) -> None:
    sys.stdout.write(text)
