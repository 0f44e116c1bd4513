"""The command line: one row a verb over verbs.py. Torch and the hub are imported when a verb runs, not before."""

from __future__ import annotations

import argparse
import io
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from brolly import __version__
from brolly.commands.flags import MODEL
from brolly.errors import BrollyError, OptionError

EXAMPLES = """examples:
  brolly identify org/name
  brolly run mini-llm "Once upon a time"
  brolly run org/name "Hello" --max-tokens 100 --temperature 0
  cat notes.txt | brolly run org/name -s "Summarise"
  brolly chat org/name
  brolly run openai:gpt-5 "What is on it?" -a photo.jpg
  brolly search org/clip ./photos "a red truck at dusk"
  brolly serve                                   then http://127.0.0.1:8000
  brolly pull org/name@main
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code: 0 done, 1 our fault, 2 the user's to mend, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal may know fewer letters than a model
    debug = False
    try:
        try:
            args = parsed(argv)
            debug = args.debug
            with warnings.catch_warnings():
                warnings.showwarning = lambda message, *_, **__: print(f"brolly: {message}", file=sys.stderr)
                warnings.filterwarnings("ignore", module="PIL")  # what a picture's file has too much of
                return args.action(args) or 0
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        # the reader has left; nothing more goes there, at exit neither
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except BrollyError as error:
        if debug:
            raise
        print(f"brolly: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    except Exception as error:
        if debug:
            raise
        print(f"brolly: unexpected {type(error).__name__}: {str(error)[:300]} (--debug shows where)", file=sys.stderr)
        return 1


def program() -> int:
    """`main` in a process of its own, which ends soon: looking for garbage in a card would take a tenth of its time."""
    import gc
    import signal

    if "identify" in sys.argv[1:2] and "--tree" not in sys.argv:
        gc.disable()
    code = main()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second ^C ends the end itself, without a traceback
    gc.freeze()
    return code


class Parser(argparse.ArgumentParser):
    """One that says what is wrong in a line, without the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"brolly: {message}; see {self.prog} --help.\n")


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments; a prompt, rows, inputs and models may come after the options too, where argparse loses them."""
    words = sys.argv[1:] if argv is None else argv
    chosen = next((word for word in words if not word.startswith("-")), "")
    reader = parser(chosen)
    args, rest = reader.parse_known_args(argv)
    literal = rest[:1] == ["--"]
    if isinstance(inputs := getattr(args, "inputs", getattr(args, "models", None)), list):
        if literal or not any(word.startswith("-") for word in rest):
            inputs += rest[literal:]
            rest = []
    elif name := next((name for name in ("prompt", "rows") if getattr(args, name, "") is None), None):
        rest = rest[literal:]
        if rest and (literal or not rest[0].startswith("-")):
            setattr(args, name, rest.pop(0))
    if rest:
        reader.prog += f" {chosen}"
        reader.error(f"unrecognized arguments: {' '.join(rest)}")
    return args


def parser(chosen: str) -> argparse.ArgumentParser:
    """Every command by name, and the flags of the chosen one: to make those of all would cost more than to identify."""
    top = Parser(
        prog="brolly",
        description="One runtime for every kind of foundation model.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"brolly {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    for name, (action, help, flags) in COMMANDS.items():
        command = commands.add_parser(name, help=help, description=help)
        command.set_defaults(action=action)
        command.add_argument("--debug", action="store_true", help="show where an error came from")
        if name == chosen:
            flags(command)
    return top


def add_pull(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", help=MODEL)


def add_remove(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", help="org/name or a URL")


def add_pretrain(command: argparse.ArgumentParser) -> None:
    command.add_argument("recipe", help="a TOML file; see docs/pretrain.md")
    command.add_argument("--out", help="folder for checkpoints and the model (default: the recipe's)")
    command.add_argument("--resume", action="store_true", help="go on from the last checkpoint")


FAILS = ("unsafe", "non-commercial", "systemic", "gpai", "unknown-licence", "not-open", "findings", "unknown")


def add_identify(command: argparse.ArgumentParser) -> None:
    """The flags of `identify`: what to look at, how to say it, when to fail."""
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    command.epilog = (
        "examples:\n"
        "  brolly identify ./Llama-3.1-8B --why\n"
        "  brolly identify gpt-5                      from the table of known models\n"
        "  brolly identify openai:gpt-5               and what its vendor can be asked for\n"
        "  brolly identify org/name                   headers only, by HTTP ranges\n"
        "  brolly identify --tree ~/.cache/huggingface/hub\n"
        "  brolly identify model.pt --fail-on unsafe,non-commercial && deploy\n"
        "\nexit code: 0 done, 2 cannot be read, 3 a condition of --fail-on holds"
    )
    command.add_argument(
        "model", nargs="?", help="a folder, a file, org/name, a URL, a known model's name, openai:NAME"
    )
    command.add_argument(
        "--json", action="store_true", help="one JSON object, as brolly/identity/data/card.schema.json"
    )
    command.add_argument("--why", action="store_true", help="the evidence for each line: file, key, value, rule")
    command.add_argument(
        "--tree", metavar="DIR", nargs="?", const="", help="every model below a folder (default: the cache)"
    )
    command.add_argument(
        "--compare", metavar="B", help="a second model beside it: a fine-tune, a quantisation, a merge?"
    )
    command.add_argument("--sbom", choices=("cyclonedx", "spdx"), help="CycloneDX 1.6 ML-BOM or SPDX 3.0.1 AI profile")
    command.add_argument("--hash", action="store_true", help="with SHA-256 of every file (reads them all)")
    command.add_argument("--sarif", action="store_true", help="findings as SARIF 2.1.0, for code scanning")
    command.add_argument("--html", metavar="FILE", help="write the card as a page to hand on")
    command.add_argument(
        "--form", choices=("gpai",), help="the Commission's model documentation form, as far as files tell"
    )
    command.add_argument(
        "--fail-on",
        metavar="CONDITIONS",
        type=conditions,
        default=(),
        help=f"exit 3 where any holds: {', '.join(FAILS)}",
    )
    command.add_argument(
        "--tokens", type=quantity, metavar="N", help="training tokens, where no file tells: 15T, 1.5e13"
    )
    command.add_argument("--flop", type=quantity, metavar="N", help="training compute, where no file tells: 3.8e25")
    command.add_argument("--no-remote", action="store_true", help="only what is on this disk")


def conditions(text: str) -> tuple[str, ...]:
    """The comma-separated names of --fail-on."""
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    if unknown := [name for name in names if name not in FAILS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is no condition; there are {', '.join(FAILS)}")
    return names


def quantity(text: str) -> float:
    """15T, 1.5e13, 200B → a number."""
    body, scale = text.strip().replace(",", "").replace("_", ""), 1.0
    if body[-1:].upper() in ("K", "M", "B", "T"):
        scale = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}[body[-1].upper()]
        body = body[:-1]
    try:
        value = float(body) * scale
    except ValueError:
        value = -1.0
    if not 0 < value < 1e40:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no number like 15T or 3.8e25")
    return value


def tell(args: argparse.Namespace) -> int | None:
    from brolly.identity.command import run

    if ":" in f"{args.model}{args.compare}":
        from brolly.remote.card import identify

        return run(args, identify)
    return run(args)


def pull_model(args: argparse.Namespace) -> int | None:
    from brolly import hub
    from brolly.remote import is_remote
    from brolly.remote.meant import check

    if is_remote(args.model):
        raise OptionError(f"{args.model} runs elsewhere; there are no files of it to download. Use it as it is.")
    check(args.model)
    print(hub.resolve(args.model, quiet=not sys.stderr.isatty()))
    return 0


def remove_model(args: argparse.Namespace) -> int | None:
    from brolly import hub
    from brolly.remote import is_remote

    if is_remote(args.model):
        raise OptionError(f"{args.model} runs elsewhere; there are no files of it to delete.")
    print(f"{args.model} is gone; {hub.remove(args.model) / 1e6:,.1f} MB are free again.")
    return 0


def pretrain(args: argparse.Namespace) -> int | None:

    from brolly.train import pretrain as train

    print(train(Path(args.recipe), out=Path(args.out) if args.out else None, resume=args.resume))
    return 0


# what a command does, its line of help, its flags
Row = tuple[Callable[[argparse.Namespace], int | None], str, Callable[[argparse.ArgumentParser], None]]


def apart(command: str, help: str) -> Row:
    """A command that has a file of its own, which is imported when it is called."""
    module = f"brolly.commands.{command}"
    return lambda args: import_module(module).run(args), help, lambda parser: import_module(module).flags(parser)


COMMANDS: dict[str, Row] = {
    "identify": (tell, "what a model is: kind, size, needs, rules, licence, safety", add_identify),
    "run": apart("run", "answer or continue a prompt; with -s, follow an instruction"),
    "chat": apart("chat", "talk with a model that has a chat template, or that runs elsewhere"),
    "embed": apart("embed", "vectors of texts and images"),
    "classify": apart("classify", "which of some labels an image shows"),
    "search": apart("search", "pictures of a folder, by a text or a picture"),
    "transcribe": apart("transcribe", "what is said in sounds and videos, with times"),
    "draw": apart("draw", "pictures of what a text says, or changed as it says, by a model that runs elsewhere"),
    "speak": apart("speak", "a text as sound, by a model that runs elsewhere"),
    "rerank": apart("rerank", "documents in the order in which they answer a query"),
    "serve": apart("serve", "every verb over HTTP, as OpenAI's, Anthropic's and Ollama's clients speak it"),
    "ps": apart("ps", "what a running server has in memory, until when, and who uses it"),
    "load": apart("load", "bring a model into a running server's memory"),
    "unload": apart("unload", "let a running server give a model's memory back"),
    "pull": (pull_model, "download a model into the cache", add_pull),
    "list": apart("list", "models on this disk, or those that a vendor has: openai:, https://host/v1"),
    "keys": apart("keys", "keys of vendors: keep them in the system's keyring, list, remove, test"),
    "remove": (remove_model, "delete a model from the cache", add_remove),
    "tune": apart("tune", "fine-tune a model on your examples: LoRA, or all of it"),
    "merge": apart("merge", "an adapter's numbers added to its base, as a model of its own"),
    "eval": apart("eval", "how well a model does its task on your examples, with intervals"),
    "compare": apart("compare", "the same prompts to several models, side by side: answers, time, tokens, cost"),
    "prompt": apart("prompt", "instructions, examples and a schema in a file: make, run, tune"),
    "index": apart("index", "documents into a searchable index, of which only what changed is read again"),
    "ask": apart("ask", "an answer from an index, with its sources"),
    "pretrain": (pretrain, "train a model from text by a recipe", add_pretrain),
    "doctor": apart("doctor", "versions, device, caches; or whether a model keeps every promise: --conformance"),
}
