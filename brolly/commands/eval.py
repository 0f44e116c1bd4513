"""`brolly eval`: a model's own measures on people's data, with intervals, as a table, a picture and a line a row."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brolly.commands.flags import (
    MODEL,
    adapter_folder,
    adapter_of,
    add_loading,
    add_options,
    add_remote,
    check_kinds,
    given,
    open_model,
    open_one,
)
from brolly.commands.took import tell_cost
from brolly.errors import CheckpointError, OptionError

if TYPE_CHECKING:
    from brolly.measure import Difference, Report

EXAMPLES = """examples:
  brolly eval mini-llm held.jsonl                              perplexity, exact match, F1 …
  brolly eval mini-llm held.jsonl --compare my-adapter         what an adapter changed, by a paired interval
  brolly eval mini-clip ./pictures --out report/               accuracy on a folder a label; rows.jsonl, plot.svg
  brolly eval mini-whisper manifest.jsonl --normalize unicode  WER and CER
  brolly eval mini-llm held.jsonl --compare openai:gpt-5 --max-cost 1
  brolly eval org/model --harness hellaswag,arc_easy           tasks of lm-evaluation-harness

docs/evaluate.md tells what is measured of which rows; docs/data.md, which files and shapes are read.
"""


def flags(command: argparse.ArgumentParser) -> None:
    from brolly.verbs import GenerateOptions

    command.formatter_class, command.epilog = argparse.RawDescriptionHelpFormatter, EXAMPLES
    command.add_argument("model", help=MODEL)
    command.add_argument("data", nargs="?", help="JSONL, JSON, Parquet, CSV, a folder, hf-dataset:org/name:split")
    command.add_argument("--adapter", metavar="A", help="an adapter of the model: a folder, org/name")
    command.add_argument(
        "--compare", metavar="B", help="a second model, or an adapter of the same one, on the same rows"
    )
    command.add_argument("--shape", help="what rows are, where that is not found out: completion, chat, pair …")
    command.add_argument(
        "--columns", metavar="ROLE=NAME,…", type=columns_of, help="which column is which: prompt=q,completion=a"
    )
    command.add_argument("--limit", type=int, metavar="N", help="the first N good rows alone")
    command.add_argument(
        "--normalize", choices=("none", "unicode", "english"), help="how texts are made alike before they are compared"
    )
    command.add_argument(
        "--generate", action=argparse.BooleanOptionalAction, default=True,
        help="have answers written; otherwise only how likely the expected ones are",
    )  # fmt: skip
    command.add_argument("--templates", metavar="FILE", help="texts around a label, one a line: a photo of a {}.")
    command.add_argument("--language", help="what is spoken, where rows do not tell")
    command.add_argument("--trained-on", metavar="DATA", help="tell which rows share runs of words with these")
    command.add_argument("--out", metavar="DIR", help="a folder for rows.jsonl, report.json and plot.svg")
    command.add_argument("--resume", action="store_true", help="go on in --out where it was stopped")
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.add_argument("--harness", metavar="TASKS", help="tasks of lm-evaluation-harness, or its YAML files")
    command.add_argument("--chat", action="store_true", help="put the harness's prompts into the chat template")
    add_loading(command)
    add_options(command, GenerateOptions)
    add_remote(command)


def run(args: argparse.Namespace) -> int:
    from brolly.verbs import GenerateOptions

    options = given(args, GenerateOptions)
    if args.harness:
        if args.data or args.compare or args.out:
            raise OptionError("--harness brings data of its own; leave DATA, --compare and --out out.")
        return harness(args, options)
    if not args.data:
        raise OptionError("there is no data; name a file or a folder: brolly eval MODEL data.jsonl.")
    if args.resume and not args.out:
        raise OptionError("--resume goes on in a folder; name it with --out.")
    from brolly.commands.inputs import lines_of
    from brolly.measure import compare, evaluate
    from brolly.rows import open_rows

    if args.language:
        options["language"] = args.language
    rows = open_rows(args.data, shape=args.shape, columns=args.columns)
    check_kinds(args, *_named(args))
    model = open_one(args, args.model)
    asked: dict[str, Any] = {
        "normalize": args.normalize, "limit": args.limit, "generate": args.generate, "options": options,
        "templates": lines_of(args.templates, "templates") if args.templates else None, "out": args.out,
        "resume": args.resume, "quiet": args.json or not sys.stderr.isatty(),
    }  # fmt: skip
    adapter = args.adapter and adapter_of(args, model)
    second, found = None, None
    try:
        report = evaluate(model, rows, adapter=adapter, **asked)
        if args.compare:
            other, theirs = compared(args, model)
            log = "compared-rows.jsonl"
            asked["resume"] = args.resume and (Path(args.out) / log).exists()
            second = evaluate(other, rows, adapter=theirs, log=log, **asked)
            found = compare(report, second)
    except KeyboardInterrupt:
        if args.out:
            print(f"\nbrolly: stopped; the same command with --resume goes on in {args.out}.", file=sys.stderr)
        raise
    tell_cost(args, model, *([other] if second is not None else []))
    if args.trained_on:
        report = replace(report, notes=(*report.notes, contamination(rows, args)))
    if args.out:
        write(Path(args.out), report, second, found)
    if args.json:
        print(json.dumps(as_json(report, second, found), ensure_ascii=False))
    else:
        from brolly.measure.report import comparison, table

        print(table(report) if second is None or found is None else comparison(report, second, found), end="")
    return 1 if report.n_failed or (second and second.n_failed) else 0


def contamination(rows: Any, args: argparse.Namespace) -> str:
    """What the rows measured share with those of --trained-on."""
    from itertools import islice

    from brolly.rows import open_rows, overlap

    return str(overlap(open_rows(args.trained_on), islice(iter(rows), args.limit)))


def compared(args: argparse.Namespace, model: Any) -> tuple[Any, str | None]:
    """What --compare names: an adapter of this model, or a model of its own."""
    from brolly import hub
    from brolly.remote import is_remote

    if is_remote(args.compare):
        return open_one(args, args.compare, getattr(model, "budget", None)), None
    path = hub.resolve(args.compare, quiet=not sys.stderr.isatty())
    if not hasattr(model, "target") and (Path(path) / "adapter_config.json").is_file():
        return model, str(path)
    return open_one(args, args.compare), None


def _named(args: argparse.Namespace) -> list[str]:
    return [args.model, *([args.compare] if args.compare else [])]


def as_json(report: Report, second: Report | None, found: Sequence[Difference] | None) -> dict[str, Any]:
    from dataclasses import asdict

    if second is None or found is None:
        return report.as_json()
    return {"a": report.as_json(), "b": second.as_json(), "differences": [asdict(one) for one in found]}


def write(out: Path, report: Report, second: Report | None, found: Sequence[Difference] | None) -> None:
    """report.json and plot.svg beside the rows."""
    from brolly.measure.plot import picture
    from brolly.measure.report import PLOT, REPORT

    try:
        said = json.dumps(as_json(report, second, found), indent=1, ensure_ascii=False) + "\n"
        (out / REPORT).write_text(said, "utf-8")
        (out / PLOT).write_text(picture([report] if second is None else [report, second], found or ()), "utf-8")
    except OSError as error:
        raise CheckpointError(f"{out} cannot be written ({error.strerror or error}).") from None


def harness(args: argparse.Namespace, options: Mapping[str, Any]) -> int:
    """Tasks of lm-evaluation-harness, by its own rules and its own table."""
    from brolly.measure.harness import run_tasks, told

    names = [name.strip() for name in args.harness.split(",") if name.strip()]
    model = open_model(args)
    if args.adapter:
        model = model.with_adapter(adapter_folder(args))
    found = run_tasks(model, names, limit=args.limit, options=options, chat=args.chat)
    print(
        json.dumps(found, ensure_ascii=False, default=str) if args.json else told(found),
        end="" if not args.json else "\n",
    )
    return 0


def columns_of(text: str) -> dict[str, str]:
    """prompt=q,completion=a → which column plays which role."""
    found = {}
    for part in text.split(","):
        role, equal, name = part.partition("=")
        if not equal or not role.strip() or not name.strip():
            raise argparse.ArgumentTypeError(f"{part[:60]!r} is no role=column, such as prompt=question")
        found[role.strip()] = name.strip()
    return found
