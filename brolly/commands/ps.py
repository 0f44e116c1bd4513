"""What a running server has in memory, how much, until when, and who uses it."""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from brolly.commands.columns import lined_up
from brolly.commands.running import add_server, ask


def flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true")
    add_server(command)


def run(args: argparse.Namespace) -> int | None:
    found = ask(args, "/v1/brolly/ps")
    print(json.dumps(found) if args.json else table(found, time.time()))
    return 0


def table(found: dict[str, Any], now: float) -> str:
    """A line a model, then the sum."""
    rows = [("MODEL", "STATE", "MEMORY", "ON", "USED BY", "UNTIL")]
    for m in found["models"]:
        on = " ".join(filter(None, (m["device"], m["dtype"]))) or "-"
        room = "-" if m["state"] == "elsewhere" else _mb(m["bytes"])
        rows.append((m["name"], m["state"], room, on, requests(m["uses"]), until(m, now)))
    lines = lined_up(rows) if found["models"] else ["No model is in memory."]
    lines += [f"{m['name']} failed to load: {m['error']}" for m in found["failed"]]
    lines.append(f"{_mb(found['used'])} of {_mb(found['memory'])} for models; {_mb(found['process'])} in all")
    return "\n".join(lines)


def sentence(row: dict[str, Any]) -> str:
    """A sentence about a model that has been loaded, or need not be."""
    if row["state"] == "elsewhere":
        return f"{row['name']} runs at {row['device']}; there is nothing to load."
    return f"{row['name']} is in memory: {_mb(row['bytes'])} on {row['device']}, {row['dtype']}."


def requests(n: int) -> str:
    return "nobody" if not n else f"{n} request{'s' * (n != 1)}"


def until(row: dict[str, Any], now: float) -> str:
    """When it goes, in words."""
    if row["state"] == "elsewhere":
        return "-"
    if row["pinned"]:
        return "for ever (pinned)"
    if row["until"] is None:
        return "in use" if row["uses"] else "for ever"
    left = max(row["until"] - now, 0)
    return f"in {left:.0f} s" if left < 120 else f"in {left / 60:.0f} min" if left < 7200 else f"in {left / 3600:.0f} h"


def _mb(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:,.2f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:,.0f} MB"
