"""Bring a model into a running server's memory, with a bar while it comes."""

from __future__ import annotations

import argparse
from typing import Any

from brolly.commands.ps import sentence
from brolly.commands.running import add_server, events
from brolly.commands.serve import duration


def flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", help="a name that the server knows, as /v1/models or `brolly ps` tells it")
    command.add_argument(
        "--keep-alive", type=duration, metavar="TIME", help="how long it stays idle: 10m, 1h, -1 for ever"
    )
    command.add_argument("--pin", action=argparse.BooleanOptionalAction, help="never unload it")
    add_server(command)


def run(args: argparse.Namespace) -> int | None:
    from brolly import progress

    body = {"model": args.model, "stream": True, "keep_alive": args.keep_alive, "pin": args.pin}
    last: dict[str, Any] = {}
    with progress.bar(None, "B", what=args.model) as bar:
        for last in events(args, "/v1/brolly/load", body):
            if last.get("total"):
                bar.total = last["total"]
                bar.update(last["completed"] - bar.n)
            else:
                bar.set_postfix_str(last["state"])
    print(sentence(last))
    return 0
