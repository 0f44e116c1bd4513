"""What is here, and what would make it faster; or whether a model keeps every promise of the suite."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any

from brolly.errors import MissingExtra

EXAMPLES = """examples:
  brolly doctor
  brolly doctor --conformance mini-llm                     in Python, and through a server in each wire format
  brolly doctor --conformance openai:gpt-5 --way python    costs a few cents: about 30 short answers

exit code: 0 all passed or skipped, 1 something failed
"""


def flags(command: argparse.ArgumentParser) -> None:
    command.formatter_class, command.epilog = argparse.RawDescriptionHelpFormatter, EXAMPLES
    command.add_argument("--json", action="store_true")
    command.add_argument("--conformance", metavar="MODEL", help="ask it everything that every model must answer alike")
    command.add_argument("--way", metavar="WAY,…", help="python, chat, responses, messages (default: all)")
    command.add_argument("--only", metavar="TEXT", default="", help="checks whose group or name holds this")
    command.add_argument("--markdown", metavar="FILE", help="write the table as a part of a document, too")


def run(args: argparse.Namespace) -> int:
    if args.conformance:
        return conformance(args)
    from brolly.doctor import examine

    report = examine()
    if args.json:
        print(json.dumps(report))
        return 0
    width = max(len(key) for lines in report.values() for key in lines)
    for title, lines in report.items():
        print(title)
        for key, value in lines.items():
            print(f"  {key:{width}}  {value}")
    return 0


def conformance(args: argparse.Namespace) -> int:
    """Ask a model everything, by each way; a line a check as it is done."""
    from brolly.conformance import WAYS, examine, markdown, table, ways_of
    from brolly.conformance.report import SIGNS
    from brolly.conformance.suite import FAILED, Outcome

    names = tuple(part.strip() for part in args.way.split(",")) if args.way else WAYS
    if set(names) - {"python"} and find_spec("fastapi") is None:  # before anything is paid for
        raise MissingExtra("Asking through a server (--way python needs none)", "serve")
    found: dict[str, list[Outcome]] = {}
    for way in ways_of(args.conformance, names):
        with way.open() as subject:
            found[way.name] = []
            for outcome in examine(subject, args.only):
                found[way.name].append(outcome)
                if sys.stderr.isatty():
                    print(f"{SIGNS[outcome.state]} {way.name}: {outcome.check}", file=sys.stderr)
    if args.json:
        rows: list[dict[str, Any]] = [{"way": way, **asdict(o)} for way, outcomes in found.items() for o in outcomes]
        print(json.dumps({"model": args.conformance, "outcomes": rows}, ensure_ascii=False))
    else:
        print(table(found))
    if args.markdown:
        with open(args.markdown, "w", encoding="utf-8") as file:
            file.write(markdown(found) + "\n")
    return 1 if any(o.state == FAILED for outcomes in found.values() for o in outcomes) else 0
