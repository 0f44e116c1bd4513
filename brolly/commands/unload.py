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
    if found["state"] == "elsewhere":
        print(f"{found['name']} runs at {found['device']}; there is nothing to unload.")
        return 0
    n = found["uses"]
    goes = f"goes when {requests(n)} {'is' if n == 1 else 'are'} done" if n else "is not in memory any more"
    print(f"{found['name']} {goes}.")
    return 0
