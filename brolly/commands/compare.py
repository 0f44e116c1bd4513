"""`brolly compare`: the same prompts to several models, side by side: answers, time, tokens, cost."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from brolly.commands.flags import add_loading, add_options, add_remote, check_kinds, given, open_one
from brolly.errors import OptionError

EXAMPLES = """examples:
  brolly compare mini-llm openai:gpt-6-luna prompts.txt
  brolly compare openai:gpt-6-luna anthropic:claude-opus-5-5 gemini:gemini-3.8-flash prompts.jsonl --html
  brolly compare A B C prompts.jsonl --html page.html --json --max-cost 2 --max-tokens 300 > all.json

prompts: a .txt file (a prompt a line), JSON lines (a text, {"prompt"} or {"messages"}, with "system", and "images" by
their paths below the file's folder), or rows of any shape that `brolly tune` and `brolly eval` read
exit code: 0 done, 1 every answer of a model failed, 2 a mistake, 130 stopped: what was answered is shown
"""
SHORT = 400  # characters of an answer that the terminal shows


def flags(command: argparse.ArgumentParser) -> None:
    from brolly.verbs import GenerateOptions

    command.formatter_class, command.epilog = argparse.RawDescriptionHelpFormatter, EXAMPLES
    command.add_argument("models", nargs="*", metavar="MODEL", help="two or more models, then a file of prompts")
    command.add_argument(
        "--html", nargs="?", const="compare.html", metavar="FILE", help="a page to look at (default: compare.html)"
    )
    command.add_argument("--json", action="store_true", help="print one JSON object with everything")
    command.add_argument("--limit", type=int, metavar="N", help="the first prompts alone")
    command.add_argument(
        "--parallel", type=int, default=8, metavar="N", help="prompts that a model elsewhere has at a time (default: 8)"
    )
    add_loading(command)
    add_options(command, GenerateOptions)
    add_remote(command)


def run(args: argparse.Namespace) -> int:
    from brolly.measure.beside import beside
    from brolly.measure.questions import questions
    from brolly.progress import bar
    from brolly.remote.prices import Budget
    from brolly.verbs import GenerateOptions

    names, source = _named(args)
    options = given(args, GenerateOptions)
    for flag in ("limit", "parallel"):
        if (value := getattr(args, flag)) is not None and value < 1:
            raise OptionError(f"--{flag} is {value}; expected at least 1.")
    asked, faults = questions(source, args.limit)
    for fault in faults[:5]:
        print(f"brolly: left out: {fault}", file=sys.stderr)
    if len(faults) > 5:
        print(f"brolly: and {len(faults) - 5:,} more lines left out", file=sys.stderr)
    check_kinds(args, *names)
    if args.html:
        _writable(Path(args.html))
    budget = Budget(args.max_cost)
    models = [(name, open_one(args, name, budget)) for name in names]
    if "max_tokens" not in options and (most := _affordable([model for _, model in models], args.parallel)):
        options["max_tokens"] = most
        print(f"brolly: an answer may have {most:,} tokens, for --max-cost; --max-tokens states more.", file=sys.stderr)
    try:
        with bar(len(asked) * len(models), "answer") as done:
            found = beside(models, asked, options, parallel=args.parallel, tell=lambda: done.update(1))
    finally:
        for _, model in models:
            if hasattr(model, "target"):
                model.close()
    if args.html:
        from brolly.commands.compare_page import page

        said = ", ".join(f"{name} {value}" for name, value in options.items()) or "each model's own"
        text = page(found, Path(source).name, (("prompts", source), ("options", said)))
        Path(args.html).write_text(text, encoding="utf-8")
    if args.json:
        print(json.dumps(found.as_json(), ensure_ascii=False))
    else:
        if not args.html:
            _show(found)
        _table(found)
        if args.html:
            print(args.html)
    if found.stopped:
        print("brolly: stopped; what was answered by then is there.", file=sys.stderr)
        return 130
    return int(any(column.totals.errors == len(asked) for column in found.columns))


def _affordable(models: Sequence[Any], parallel: int) -> int | None:
    """Tokens of an answer that a budget pays for with all prompts that are open at a time; None: any number."""
    there = [model for model in models if hasattr(model, "target")]
    paid = [(model.budget.pays(model.price), model.traits.max_output) for model in there]
    each = [(tokens // (parallel * len(there)), most) for tokens, most in paid if tokens is not None]
    short = [tokens for tokens, most in each if most is None or tokens < most]
    return max(min(short), 16) if short else None


def _named(args: argparse.Namespace) -> tuple[list[str], str]:
    """The models, and the file of prompts, which comes last. Raises OptionError."""
    if args.html and not args.html.lower().endswith((".html", ".htm")):
        args.models.append(args.html)  # brolly compare A B --html prompts.jsonl
        args.html = "compare.html"
    if len(args.models) < 3:
        raise OptionError(
            f"{len(args.models)} names were given; expected two models or more, and a file of prompts behind them."
        )
    *names, source = args.models
    if twice := next((name for at, name in enumerate(names) if name in names[:at]), None):
        raise OptionError(f"{twice} is named twice; name each model once.")
    return names, source


def _writable(path: Path) -> None:
    """Told before anything is paid for. Raises OptionError."""
    try:
        with path.open("a"):
            pass
    except OSError as error:
        raise OptionError(f"{path} cannot be written ({error.strerror or error}).") from None


def _show(found: Any) -> None:
    """Every question and its answers, shortened."""
    from brolly.identity.show import clean

    for at, question in enumerate(found.questions):
        print(f"{at + 1}. {_short(str(question))}")
        for column in found.columns:
            answer = column.answers[at]
            text = f"error: {answer.error}" if answer.error else answer.shown if answer.done else "(not answered)"
            print(f"   {clean(column.name)}: {_short(text)}")
        print()


def _short(text: str) -> str:
    """A text, shortened, with its line ends as blanks and nothing in it that a terminal would obey."""
    from brolly.identity.show import clean

    text = clean(" ".join(text.split()))
    return text if len(text) <= SHORT else f"{text[:SHORT]}…"


def _table(found: Any) -> None:
    """A line a model."""
    from brolly.commands.compare_page import dollars, seconds
    from brolly.identity.show import clean

    rows = [("model", "answered", "failed", "first", "time", "read", "cached", "written", "thought", "cost")]
    for column in found.columns:
        t = column.totals
        rows.append((
            clean(column.name), f"{t.answered:,}", f"{t.errors:,}", seconds(t.first), seconds(t.seconds), f"{t.read:,}",
            f"{t.cached:,}", f"{t.written:,}", f"{t.reasoning:,}", dollars(t.cost, column.here),
        ))  # fmt: skip
    for line in aligned(rows):
        print(line)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns under each other: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
