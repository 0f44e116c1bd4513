"""`brolly tune` for a model that runs elsewhere: its vendor's job, followed until it ends or one has seen enough."""

from __future__ import annotations

import argparse
import shlex
import sys
from typing import Any

from brolly.commands.flags import given, remotely
from brolly.commands.tune import Bar, Lines, NothingToDo, agreed, columns, read
from brolly.errors import BrollyError, OptionError

# flags of a tuning on this computer
HERE = (
    "out", "recipe", "full", "start", "resume", "processes", "report_to", "device", "dtype",
)  # fmt: skip


def run(args: argparse.Namespace, model: str, data: str | None) -> int:
    """Begin a job and follow it, or follow or cancel one that was begun before."""
    from brolly.remote import Remote
    from brolly.verbs import Lora, TuneOptions

    if flag := next((flag for flag in HERE if getattr(args, flag)), None):
        word = {"start": "from"}.get(flag, flag.replace("_", "-"))
        raise OptionError(f"--{word} is for a model on this computer; {model} is tuned where it runs, and stays there.")
    options = {**given(args, Lora), **given(args, TuneOptions)}
    options |= {name: getattr(args, name) for name in ("suffix", "lr_multiplier") if getattr(args, name) is not None}
    job = args.follow or args.cancel
    if (data is None) != bool(job):
        raise OptionError(
            f"{job} has its rows already; name a model and a job alone."
            if job
            else f"no rows are named; brolly tune {model} rows.jsonl begins a job, --follow JOB looks on at one."
        )
    remote = Remote(model, **remotely(args))
    if args.cancel:
        from brolly.remote.tuning import Hosted

        print(f"{args.cancel} is {Hosted(remote).cancel(args.cancel).state}")
        return 0
    show: Any = Lines() if args.json else Look(quiet=not sys.stderr.isatty())
    begun = Begun(show, args.follow or "")
    try:
        from brolly.train import hosted

        if args.follow:
            adapter = hosted.follow(remote, args.follow, progress=begun)
        else:
            adapter = hosted.tune(
                remote, read(data, args), eval=read(args.eval, args), shape=args.shape, columns=columns(args.column),
                approve=lambda plan: approve(args, plan), progress=begun, **options,
            )  # fmt: skip
    except NothingToDo:
        return 0
    except KeyboardInterrupt:
        show.close()
        show.failed(f"stopped looking; {begun.how(model)}" if begun.job else "stopped; no job was begun.")
        return 130
    except BrollyError as error:
        show.close()
        if args.json:
            show.failed(str(error))
            return 2
        raise
    finally:
        remote.close()
    show.close()
    if not args.json:
        print(adapter.path)
        print(f'try it:   brolly run {shlex.quote(adapter.path)} "…"', file=sys.stderr)
    return 0


class Begun:
    """Passes events on, and remembers the job that they are of."""

    def __init__(self, show: Any, job: str) -> None:
        self.show, self.job = show, job

    def __call__(self, event: dict[str, Any]) -> None:
        if event["event"] == "job":
            self.job = event["id"]
        self.show(event)

    def how(self, model: str) -> str:
        """What a job needs that nobody looks at: nothing."""
        words = f"brolly tune {shlex.quote(model)}"
        return f"{self.job} goes on. Look on: {words} --follow {self.job}; end it: {words} --cancel {self.job}"


def approve(args: argparse.Namespace, plan: Any) -> bool:
    """Whether to begin what costs money: a person at a terminal is asked."""
    if not args.json:
        print(plan, file=sys.stderr)
    if args.dry_run:
        raise NothingToDo
    return agreed(args)


class Look(Bar):
    """A bar while a job's steps are told; its other words as they come."""

    def __call__(self, event: dict[str, Any]) -> None:
        from brolly.identity.show import clean

        match event["event"]:
            case "plan" | "done":
                return
            case "job":
                self.say(f"job {event['id']}: ^C stops looking and not the job")
            case "said":
                self.say(clean(event["message"]))
            case "step":
                if self.bar is not None and event["step"] > self.bar.n + 1:  # steps that were not told
                    self.bar.update(event["step"] - 1 - self.bar.n)
                super().__call__(event)
            case _:
                super().__call__(event)
