"""Let a running server give a model's memory back."""

from __future__ import annotations

import argparse

from brolly.commands.ps import requests
from brolly.commands.running import add_server, ask


def flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", help="a name that `brolly ps` tells")
    add_server(command)


def run(args: argparse.Namespace) -> int | None:
    found = ask(args, "/v1/brolly/unload", {"model": args.model})
    goes = (
        f"goes when {requests(found['uses'])} are done" if found["state"] == "leaving" else "is not in memory any more"
    )
    print(f"{found['name']} {goes}.")
    return 0
