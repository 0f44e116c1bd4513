"""What `brolly draw` and `brolly speak` share: a model that can, and files to write into."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from brolly.commands.flags import MODEL, remotely
from brolly.errors import DiskFull, OptionError, UnsupportedTask


def add_making(command: argparse.ArgumentParser, file: str) -> None:
    command.add_argument("model", help=MODEL)
    command.add_argument("prompt", nargs="?", help="a text (default: standard input)")
    command.add_argument("-o", "--out", metavar="FILE", help=f"where it goes, such as {file}; - is standard output")
    command.add_argument("--json", action="store_true", help="print one JSON object about what was made")
    command.add_argument("-v", "--verbose", action="store_true", help="say where it runs, the time and the cost")


def opened(args: argparse.Namespace, verb: str) -> Any:
    """The model that was named. Raises UnsupportedTask where its card says that it cannot."""
    from brolly.remote import Remote, is_remote
    from brolly.remote.dialect import dialects

    if is_remote(args.model):
        remote = Remote(args.model, **remotely(args))
        dialects(remote.target, verb)
        return remote
    from brolly.identity import identify
    from brolly.remote.meant import check

    check(args.model)
    can = ", ".join(identify(args.model).verbs) or "nothing here"
    raise UnsupportedTask(f"{args.model} can {can}; it cannot {verb}. Models that run elsewhere can: openai:…")


def text_of(args: argparse.Namespace, verb: str) -> str:
    """The text that was given, or standard input's. Raises OptionError."""
    text = args.prompt
    if text is None and sys.stdin is not None and not sys.stdin.isatty():
        from brolly.commands.inputs import stdin_text

        text = stdin_text()
    if not (text or "").strip():
        raise OptionError(f'there is nothing to {verb}; give a text: brolly {verb} {args.model} "…" -o FILE.')
    return str(text)


def place_of(args: argparse.Namespace, file: str) -> Path | None:
    """Where it goes; None: standard output. What cannot be written is told before anything is paid for."""
    if args.out is None:
        raise OptionError(f"no file is named; add -o {file}, or -o - for standard output.")
    if args.out == "-":
        if args.json or sys.stdout.isatty():
            raise OptionError("-o - writes the file itself; send it into a file or a program, without --json.")
        return None
    place = Path(args.out).expanduser()
    if place.is_dir():
        raise OptionError(f"{place} is a folder; name a file, such as {place / file}.")
    if not place.parent.is_dir():
        raise OptionError(f"{place.parent} is no folder; make it first.")
    return place


def write(place: Path | None, data: bytes) -> None:
    """Raises DiskFull, OptionError."""
    if place is None:
        sys.stdout.buffer.write(data)
        return
    try:
        place.write_bytes(data)
    except OSError as error:
        if error.errno == 28:
            raise DiskFull(f"{place} does not fit: the disk is full.") from None
        raise OptionError(f"{place} cannot be written ({error.strerror or error}).") from None
