"""Keys of vendors: kept in the system's keyring, told by where they are, tried at their vendors. Never shown."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import warnings
from dataclasses import asdict

from brolly.commands.columns import lined_up
from brolly.errors import BrollyError, KeyRefused, NotFound, OptionError, Unreachable, UnsupportedTask
from brolly.remote.dialect import Listed

FAILED = 2  # exit code where a key that was tried is not taken
NAME = "a vendor (openai, anthropic, gemini …) or an address (https://host)"


def flags(command: argparse.ArgumentParser) -> None:
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    command.epilog = (
        "examples:\n"
        "  brolly keys set openai                     asks for the key, and does not show it\n"
        "  pass openai | brolly keys set openai       from another program\n"
        "  brolly keys set https://vllm.example       goes to that address alone\n"
        "  brolly keys test                           asks each vendor that has a key for its models\n"
        "\nThe vendors' own variables (OPENAI_API_KEY …) come first. Exit code: 0 done, 2 a key is not taken"
    )
    actions = command.add_subparsers(metavar="ACTION", required=True, dest="action_of_keys")
    one = actions.add_parser("set", help="keep a key in the system's keyring")
    one.add_argument("name", help=NAME)
    one.add_argument("refused", nargs="*", default=[], help=argparse.SUPPRESS)
    one.set_defaults(keys=set_)
    one = actions.add_parser("list", help="where each vendor's key is")
    one.add_argument("--json", action="store_true")
    one.set_defaults(keys=list_)
    one = actions.add_parser("remove", help="take a key out of the keyring")
    one.add_argument("name", help=NAME)
    one.set_defaults(keys=remove)
    one = actions.add_parser("test", help="ask vendors for their models: is the key taken?")
    one.add_argument("names", nargs="*", help=f"{NAME}; default: all that have a key")
    one.add_argument("--json", action="store_true")
    one.set_defaults(keys=test)


def run(args: argparse.Namespace) -> int | None:
    code: int | None = args.keys(args)
    return code


def set_(args: argparse.Namespace) -> int:
    from brolly.remote.keys import set_key, user_of
    from brolly.remote.vendors import vendors

    user = user_of(args.name)
    if args.refused:
        raise OptionError(
            "a key on the command line stays in the shell's history and is seen by other users; run "
            f"`brolly keys set {user}` and type it, or pipe it in."
        )
    where = set_key(user, typed(user))
    print(f"The key of {user} is kept in {where}.")
    vendor = vendors().get(user)
    first = next((name for name in vendor.keys if os.environ.get(name)), "") if vendor else ""
    if first:
        print(f"brolly: {first} is set, too, and comes first.", file=sys.stderr)
    return 0


def typed(user: str) -> str:
    """The key that a person types or another program writes. Raises OptionError."""
    import getpass

    from brolly.remote.keys import MOST

    if sys.stdin is None:
        raise OptionError(f"there is no standard input that the key of {user} could come from.")
    if not sys.stdin.isatty():
        try:
            text = sys.stdin.read(MOST + 2).rstrip("\r\n")
        except UnicodeDecodeError:
            raise OptionError(f"what came as the key of {user} is no text.") from None
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("error", getpass.GetPassWarning)
            try:
                text = getpass.getpass(f"Key of {user} (it is not shown): ")
            except getpass.GetPassWarning:
                raise OptionError("this terminal cannot hide what is typed; pipe the key in.") from None
            except EOFError:
                text = ""
    if not text:
        raise OptionError(f"no key of {user} came; type it, or pipe it in.")
    return text


def list_(args: argparse.Namespace) -> int:
    from brolly.remote.keys import Source, sources

    found = sources()
    if args.json:
        print(json.dumps([asdict(one) | {"where": one.where or None} for one in found]))
        return 0

    def where(one: Source) -> str:
        if one.wrong:
            return "wrong"
        return one.where or (f"- (set {one.variables[0]})" if one.needed and one.variables else "-")

    rows = [("VENDOR", "KEY FROM", "ADDRESS"), *((one.name, where(one), one.address or "-") for one in found)]
    for line in lined_up(rows):
        print(line)
    for one in found:
        if one.wrong:
            print(f"brolly: {one.wrong}", file=sys.stderr)
    return 0


def remove(args: argparse.Namespace) -> int:
    from brolly.remote.keys import remove_key, user_of

    user = user_of(args.name)
    if not remove_key(user):
        raise NotFound(f"the keyring has no key of {user}; `brolly keys list` tells where keys are.")
    print(f"The key of {user} is out of the keyring.")
    return 0


def test(args: argparse.Namespace) -> int:
    from brolly.remote import loop
    from brolly.remote.keys import sources

    there = [] if args.names else sources()
    names = args.names or [one.name for one in there if one.where]
    wrong = [(one.name, "failed", one.wrong) for one in there if one.wrong]
    if not names and not wrong:
        raise OptionError("there is no key to test; set one: brolly keys set openai.")
    found = loop.wait(asked(list(dict.fromkeys(names)))) + wrong
    if args.json:
        print(json.dumps([{"name": name, "outcome": word, "message": text} for name, word, text in found]))
    else:
        width = max(len(name) for name, _, _ in found)
        for name, word, text in found:
            print(f"{name:{width}}  {word:11}  {text}".rstrip())
    return 0 if all(word == "ok" for _, word, _ in found) else FAILED


async def asked(names: list[str]) -> list[tuple[str, str, str]]:
    """Name, outcome (ok, refused, unreachable, failed) and a sentence of each, asked at one time."""
    return list(await asyncio.gather(*(outcome(name) for name in names)))


async def outcome(name: str) -> tuple[str, str, str]:
    from brolly.remote.listing import ask, source_of
    from brolly.verbs import RemoteOptions

    try:
        source = source_of(name)
        found: list[Listed] = await ask(source, RemoteOptions(retries=0, connect_seconds=10, silence_seconds=30))
        return name, "ok", f"{len(found)} models at {source.host}"
    except KeyRefused as error:
        return name, "refused", str(error)
    except Unreachable as error:
        return name, "unreachable", str(error)
    except UnsupportedTask as error:
        return name, "unknown", str(error)
    except BrollyError as error:
        return name, "failed", str(error)
