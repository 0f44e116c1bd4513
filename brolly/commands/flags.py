"""What commands share: the model and where it runs, and a flag for each field of an options dataclass."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from brolly.errors import OptionError

MODEL = (
    "a folder, a file, org/name, org/name@revision, hf://…, a URL, a bundled model; or one that runs elsewhere: "
    "openai:gpt-5, https://host/v1#model"
)
ATTACHED = "a picture, a sound, a PDF or a text that goes with the prompt (may be repeated)"

NOTATIONS = (".json", ".lark", ".gbnf", ".ebnf")  # how files of schemas and grammars are called


def add_loading(command: argparse.ArgumentParser) -> None:
    """Where and how the model runs."""
    command.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the best one here)")
    command.add_argument("--dtype", help="float32, bfloat16 or float16 (default: the checkpoint's, where native)")
    command.add_argument("-v", "--verbose", action="store_true", help="say which device, dtype and speed")


def add_remote(command: argparse.ArgumentParser) -> None:
    """How a model that runs elsewhere is asked."""
    from brolly.verbs import RemoteOptions

    add_options(command.add_argument_group("models that run elsewhere"), RemoteOptions)


def add_attach(command: argparse.ArgumentParser) -> None:
    command.add_argument("-a", "--attach", action="append", default=[], metavar="FILE", help=ATTACHED)


def add_adapter(command: argparse.ArgumentParser) -> None:
    command.add_argument("--adapter", metavar="LORA", help="a LoRA of the model, in PEFT's layout: a folder, org/name")


def open_model(args: argparse.Namespace) -> Any:
    """The model that was named, downloaded where it is not here; or one that runs elsewhere, without torch."""
    check_kinds(args, args.model)
    return open_one(args, args.model)


def open_one(args: argparse.Namespace, name: str, budget: Any = None) -> Any:
    """One of several models, by the flags of its kind; those that run elsewhere share a budget."""
    from brolly.remote import is_remote
    from brolly.remote.meant import check

    if not name.strip():
        raise OptionError(f"the model's name is empty; expected {MODEL}.")
    check(name)
    if is_remote(name):
        from brolly.remote import Remote

        model: Any = Remote(name, budget=budget, **remotely(args))
    else:
        model = _here(args, name)
    if args.verbose:
        print(model, file=sys.stderr)
        print(model.describe(), file=sys.stderr)
    return model


def _here(args: argparse.Namespace, name: str) -> Any:
    from brolly import hub
    from brolly.loader import load

    here = Path(name).expanduser().exists() or name in hub.minis() or hub.looks_local(name)
    path = hub.resolve(name) if here else hub.pull(name, quiet=not sys.stderr.isatty())
    return load(path, device=args.device, dtype=args.dtype)


def remotely(args: argparse.Namespace) -> dict[str, Any]:
    """The flags of models that run elsewhere. Raises OptionError."""
    from brolly.verbs import RemoteOptions

    return given(args, RemoteOptions)


def check_kinds(args: argparse.Namespace, *names: str) -> None:
    """Flags of one kind of models want one of that kind among those named. Raises OptionError."""
    from brolly.remote import is_remote

    elsewhere = [name for name in names if is_remote(name)]
    told = ", ".join(names)
    if elsewhere and len(elsewhere) == len(names):
        if flag := next((flag for flag in ("device", "dtype") if getattr(args, flag, None) is not None), None):
            raise OptionError(f"--{flag} is for models on this disk; {told} runs elsewhere.")
    elif not elsewhere and (found := remotely(args)):
        flag = min(found).replace("_", "-")
        raise OptionError(f"--{flag} is for models that run elsewhere; {told} is on this disk.")


def open_adapted(args: argparse.Namespace) -> Any:
    """The same with the adapter that was named, if one was."""
    model = open_model(args)
    return model.with_adapter(adapter_of(args, model)) if args.adapter else model


def adapter_of(args: argparse.Namespace, model: Any) -> str:
    """The adapter that was named, as its model takes it: elsewhere by its name there, here by its folder."""
    return str(args.adapter) if hasattr(model, "target") else adapter_folder(args)


def adapter_folder(args: argparse.Namespace) -> str:
    """The folder of the LoRA that was named, downloaded where it is not here."""
    from brolly import hub

    return str(hub.resolve(args.adapter, quiet=not sys.stderr.isatty()))


def answers(folder: Path) -> bool:
    """Whether brolly tuned what lies there on conversations: a prompt is then asked as one, by the chat template."""
    path = folder / "run.json"
    try:
        return path.is_file() and path.stat().st_size < 2**20 and json.loads(path.read_text())["shape"] == "chat"
    except (ValueError, KeyError, TypeError, RecursionError):
        return False  # somebody else's run.json


def add_options(command: argparse._ActionsContainer, kind: type) -> None:
    """A flag for each field of an options dataclass, with its own help."""
    from dataclasses import fields

    for option in fields(kind):
        flag, help = "--" + option.name.replace("_", "-"), option.metadata["help"]
        types = str(option.type).split(" | ")
        if types == ["bool"]:
            command.add_argument(flag, action=argparse.BooleanOptionalAction, help=help)
        elif types[0].startswith("tuple[str"):
            command.add_argument(flag, action="append", metavar="TEXT", help=help)
        elif types[0].startswith("tuple[float"):
            command.add_argument(flag, type=numbers, metavar="N,N…", help=help)
        elif types[0].startswith("dict"):
            command.add_argument(flag, type=biases, metavar='{"ID": BIAS}', help=help)
        elif option.metadata.get("file"):
            command.add_argument(flag, type=text_or_file, metavar="FILE|TEXT", help=help)
        elif types[0] == "str":
            command.add_argument(flag, metavar="TEXT", help=help)
        else:
            command.add_argument(flag, type=int if types[0] == "int" else float, metavar="N", help=help)


def given(args: argparse.Namespace, kind: type) -> dict[str, Any]:
    """The options that were set on the command line; a wrong one is told before a model is loaded."""
    from dataclasses import fields

    found = {f.name: value for f in fields(kind) if (value := getattr(args, f.name, None)) is not None}
    kind(**found)
    return found


def text_or_file(given: str) -> str:
    """What a file of this name holds, or the text itself where there is none and it does not look like a name."""
    path = Path(given).expanduser()
    try:
        if len(given) < 1024 and path.is_file():
            return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:  # ValueError: a text that can be no name, a file that is no UTF-8
        if path.suffix in NOTATIONS:
            raise argparse.ArgumentTypeError(f"{given[:200]!r} cannot be read ({error})") from None
    if path.suffix in NOTATIONS and not any(c in given for c in "{:\n"):
        raise argparse.ArgumentTypeError(f"there is no file {given[:200]!r}")
    return given


def numbers(text: str) -> tuple[float, ...]:
    """Numbers between commas."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text[:60]!r} is not numbers between commas") from None


def biases(text: str) -> dict[int, float]:
    """JSON's keys are strings; ours are token ids."""
    try:
        return {int(token): float(bias) for token, bias in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError):
        raise argparse.ArgumentTypeError(f'{text[:60]!r} is not JSON like {{"50256": -100}}') from None
