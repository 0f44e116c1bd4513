"""`brolly tune`: what will be learnt and what it takes, then learning it, with a bar or as one JSON line an event."""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import sys
from typing import Any

from brolly.commands.flags import MODEL, add_options, check_kinds, given
from brolly.errors import OptionError

EXAMPLES = """examples:
  brolly tune mini-llm data.jsonl -o my-adapter --epochs 20
  brolly run mini-llm --adapter my-adapter "…"
  brolly tune org/name chats.jsonl -o out --eval held.jsonl --rank 32 --lr 2e-4
  brolly tune org/name data.parquet -o out --full
  brolly tune --recipe out/recipe.toml -o again
  brolly tune … --processes 2                     or torchrun --nproc_per_node 2 -m brolly tune …
  brolly tune … --resume                          the same command, after ^C or a crash
  brolly tune openai:gpt-4.1-mini chats.jsonl --epochs 3            learnt at the vendor's, and kept there
  brolly tune openai:gpt-4.1-mini --follow JOB                      look on again; --cancel JOB ends it

rows: .jsonl, .json, .csv, .tsv, .parquet, folders, hf-dataset:org/name:split; docs/tune.md tells the shapes
exit code: 0 done, 2 a mistake, 130 stopped and saved
"""

ELSEWHERE = ("suffix", "lr_multiplier", "follow", "cancel")


def flags(command: argparse.ArgumentParser) -> None:
    from brolly.verbs import Lora, RemoteOptions, TuneOptions

    command.formatter_class, command.epilog = argparse.RawDescriptionHelpFormatter, EXAMPLES
    command.add_argument(
        "models", nargs="*", metavar="MODEL DATA", help=f"{MODEL}; then a file or a folder of examples"
    )
    command.add_argument("-o", "--out", metavar="FOLDER", help="where what was learnt goes")
    command.add_argument("--recipe", metavar="FILE", help="a TOML file with any of these options; flags go before it")
    command.add_argument("--eval", metavar="DATA", help="examples to evaluate on, in place of a share of the data")
    command.add_argument("--full", action="store_true", help="learn all numbers, and write a whole model")
    command.add_argument("--from", dest="start", metavar="ADAPTER", help="go on from an adapter in PEFT's layout")
    command.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out")
    command.add_argument("-y", "--yes", action="store_true", help="begin without asking")
    command.add_argument("--processes", type=int, metavar="N", help="of this computer; or start this by torchrun")
    command.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    command.add_argument("--shape", help="the rows' shape, where looking at them does not tell: chat, completion …")
    command.add_argument(
        "--column", action="append", metavar="ROLE=NAME", help="a column by its role (may be repeated)"
    )
    command.add_argument("--no-paths", action="store_true", help="rows may not name files: for data of strangers")
    command.add_argument("--report-to", action="append", metavar="NAME", help="wandb, mlflow or trackio too")
    command.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the best one here)")
    command.add_argument("--dtype", help="float32, bfloat16 or float16 (default: the checkpoint's; --full: float32)")
    command.add_argument("--json", action="store_true", help="one JSON line an event: plan, step, held, saved, done")
    add_options(command.add_argument_group("what is learnt (LoRA)"), Lora)
    add_options(command.add_argument_group("how"), TuneOptions)
    elsewhere = command.add_argument_group("models that run elsewhere: their vendor learns the rows")
    add_options(elsewhere, RemoteOptions)
    elsewhere.add_argument("--suffix", metavar="TEXT", help="a part of the tuned model's name")
    elsewhere.add_argument("--lr-multiplier", type=float, metavar="N", help="times the learning rate of the vendor's")
    elsewhere.add_argument("--follow", metavar="JOB", help="look on while a job learns that was begun before")
    elsewhere.add_argument("--cancel", metavar="JOB", help="end a job that was begun before")


def run(args: argparse.Namespace) -> int | None:
    from brolly.errors import BrollyError
    from brolly.remote import is_remote
    from brolly.verbs import Lora, TuneOptions

    if args.processes is not None and args.processes < 1:
        raise OptionError(f"--processes is {args.processes}; expected 1 or more.")
    if (args.processes or 1) > 1 and "WORLD_SIZE" not in os.environ:
        from brolly.train.tuning.launch import again, launch

        return launch(args.processes, again())
    if len(args.models) > 2:
        raise OptionError(f"{len(args.models)} names were given; expected a model and its data.")
    model, data = [*args.models, None, None][:2]
    check_kinds(args, *args.models[:1])
    if is_remote(model):
        from brolly.commands.tune_hosted import run as tune_hosted

        return tune_hosted(args, model, data)
    if flag := next((flag for flag in ELSEWHERE if getattr(args, flag) is not None), None):
        raise OptionError(f"--{flag.replace('_', '-')} is for models that run elsewhere.")
    if args.recipe and data is None and model is not None:
        model, data = None, model  # a recipe's model on other data
    if args.no_paths and data is None:
        raise OptionError("--no-paths is about the data that is named beside it, and none is.")
    chosen, options = given(args, Lora), given(args, TuneOptions)
    if args.full and chosen:
        raise OptionError(f"--full learns all numbers, and --{next(iter(chosen)).replace('_', '-')} is a LoRA's.")
    show: Any = Lines() if args.json else Bar(quiet=not sys.stderr.isatty())
    if not first():
        show = Other()
    try:
        from brolly.train.tuning import tune

        adapter = tune(
            model, read(data, args), out=args.out, lora=None if args.full else Lora(**chosen), recipe=args.recipe,
            eval=read(args.eval, args),
            start=args.start, resume=args.resume, device=args.device, dtype=args.dtype, shape=args.shape,
            columns=columns(args.column), report_to=args.report_to or (), progress=show,
            approve=lambda plan: approve(args, plan), **options,
        )  # fmt: skip
    except NothingToDo:
        return 0
    except KeyboardInterrupt as stop:
        show.close()
        if first():
            show.failed(f"{stop}" or "stopped")
        return 130
    except BrollyError as error:
        show.close()
        if args.json:
            show.failed(str(error))
            return 2
        if not first():  # which tells the same, or tells what it was
            show.failed(str(error))
            return 2
        raise
    show.close()
    if not args.json and first():
        finished(adapter)
    return 0


def read(data: str | None, args: argparse.Namespace) -> Any:
    """Data as `tune` takes it: opened already where its rows may name no files."""
    if data is None or not args.no_paths:
        return data
    from brolly.rows import open_rows

    return open_rows(data, shape=args.shape, columns=columns(args.column), paths=False)


class NothingToDo(Exception):
    """--dry-run."""


def approve(args: argparse.Namespace, plan: Any) -> bool:
    """Whether to begin: a person at a terminal is asked, if it takes more than a few minutes."""
    if args.dry_run:
        raise NothingToDo
    if not first() or math.isfinite(plan.seconds) and plan.seconds < 300:
        return True
    return agreed(args)


def agreed(args: argparse.Namespace) -> bool:
    """What a person at a terminal says to it; where there is none, and with --yes, yes."""
    if args.yes or args.json or not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
        return True
    print("begin? [Y/n] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("", "y", "yes")


def columns(given: list[str] | None) -> dict[str, str] | None:
    """--column ROLE=NAME as a mapping."""
    if not given:
        return None
    wrong = [one for one in given if "=" not in one]
    if wrong:
        raise OptionError(f"--column {wrong[0]!r} says no role; expected ROLE=NAME, such as prompt=question.")
    return dict(one.split("=", 1) for one in given)


def first() -> bool:
    """Whether this is the only process, or the first of many."""
    return os.environ.get("RANK", "0") == "0"


class Other:
    """What a process shows that is not the first: nothing but why it failed."""

    def __call__(self, event: dict[str, Any]) -> None:
        """Nothing: the first process tells it."""

    def failed(self, message: str) -> None:
        print(f"brolly: process {os.environ.get('RANK')}: {message}", file=sys.stderr)

    def close(self) -> None:
        """Nothing is open."""


class Lines:
    """Events as JSON lines on standard output, for programs."""

    def __call__(self, event: dict[str, Any]) -> None:
        event = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in event.items()}
        print(json.dumps(event, ensure_ascii=False), flush=True)

    def failed(self, message: str) -> None:
        self({"event": "error", "message": message})

    def close(self) -> None:
        """Nothing is open."""


class Bar:
    """The plan, then a bar with loss and speed, on standard error; where nobody watches, a line ten times a run."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.bar: Any = None

    def __call__(self, event: dict[str, Any]) -> None:
        from brolly import progress

        match event["event"]:
            case "plan":
                from brolly.train.tuning.plan import Plan

                plan = Plan(**{k: v for k, v in event.items() if k != "event"})
                print(plan, file=sys.stderr)
            case "step":
                if self.bar is None:
                    self.bar = progress.bar(event["steps"], "step", quiet=self.quiet)
                    self.bar.update(event["step"] - 1)
                said = f"loss {event['loss']:.3f}"
                said += f", {event['tokens_per_s']:,} tokens/s" if "tokens_per_s" in event else ""
                said += f", reward {event['reward']:.3f}" if "reward" in event else ""
                self.bar.set_postfix_str(said, refresh=False)
                self.bar.update(1)
                if self.quiet and not event["step"] % max(event["steps"] // 10, 1):
                    self.say(f"step {event['step']:,} of {event['steps']:,}: {said}")
            case "held":
                found = ", ".join(f"{k} {v:.3f}" for k, v in event.items() if isinstance(v, float))
                self.say(f"step {event['step']:,}, held out: {found}")
            case "saved":
                self.say(f"step {event['step']:,}: saved")

    def say(self, line: str) -> None:
        if self.bar is not None and not self.bar.disable:
            self.bar.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr)

    def failed(self, message: str) -> None:
        print(f"brolly: {message}", file=sys.stderr)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def finished(adapter: Any) -> None:
    """Where it is, and what to do with it."""
    from brolly.checkpoint import json_object

    measures = ", ".join(f"{name} {value:.4f}" for name, value in adapter.measures.items())
    path = shlex.quote(str(adapter.path))
    print(f"{adapter.path}  ({measures})")
    verb = json_object(adapter.path / "run.json").get("verb", "run")
    if adapter.kind == "full":
        print(f'try it:   brolly {verb} {path} "…"', file=sys.stderr)
        return
    base = shlex.quote(adapter.base)
    print(f'try it:   brolly {verb} {base} --adapter {path} "…"', file=sys.stderr)
    print(f"merge it: brolly merge {base} {path} -o merged", file=sys.stderr)
