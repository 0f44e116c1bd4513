"""`brolly run`: an answer to a prompt, or its continuation, as it is written."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from brolly.commands.flags import (
    MODEL,
    adapter_of,
    add_adapter,
    add_attach,
    add_loading,
    add_options,
    add_remote,
    answers,
    given,
    open_model,
)
from brolly.commands.took import Took
from brolly.errors import OptionError


def flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", help=MODEL)
    command.add_argument("prompt", nargs="?", help="text to continue (default: standard input)")
    command.add_argument("--json", action="store_true", help="print one JSON object at the end")
    add_generation(command)


def add_generation(command: argparse.ArgumentParser) -> None:
    """What a conversation has, too."""
    from brolly.verbs import GenerateOptions

    command.add_argument("-s", "--system", help="an instruction, given through the model's chat template")
    add_attach(command)
    add_adapter(command)
    add_loading(command)
    add_options(command, GenerateOptions)
    add_remote(command)


def run(args: argparse.Namespace) -> int:
    from brolly.remote import is_remote
    from brolly.tasks.attach import attached, content, reads_of, within_budget
    from brolly.tasks.chat import visible
    from brolly.verbs import GenerateOptions

    options = given(args, GenerateOptions)
    prompt = _prompt(args)
    elsewhere = is_remote(args.model)
    if elsewhere and not prompt.strip() and not args.attach:
        raise OptionError("there is nothing to ask; give a prompt, or a file with -a.")
    parts = [] if elsewhere else [attached(path, args.model, ()) for path in args.attach]  # told before it is loaded
    model = open_model(args)
    if elsewhere:
        parts = [attached(path, *reads_of(model)) for path in args.attach]
    if args.adapter:
        options["adapter"] = adapter_of(args, model)
    chats = elsewhere or bool(args.system) or answers(Path(options.get("adapter") or model.card.header.folder))
    messages: list[dict[str, Any]] = [{"role": "system", "content": args.system}] if args.system else []
    messages.append({"role": "user", "content": content(parts, prompt)})
    if not chats:
        prompt = messages[-1]["content"]
    asked, options = options, within_budget(model, options)
    took = Took(model)
    if args.json:
        result = model.chat(messages, **options) if chats else model.generate(prompt, **options)
        took.whole(result.usage)
        print(json.dumps(as_json(result), ensure_ascii=False))
    else:
        if sys.stdout.isatty() and not chats:  # a person reads the whole; a pipe gets the continuation alone
            write(prompt if os.environ.get("NO_COLOR") else f"\033[1m{prompt}\033[0m")
        person = sys.stdout.isatty()
        thinking = Thoughts() if args.thoughts else None
        reason = None
        for piece in took.watch(model.stream_chat(messages, **options) if chats else model.stream(prompt, **options)):
            if thinking:
                thinking.show(piece.reasoning, bool(piece.text))
            write(visible(piece.text) if person else piece.text)
            reason = piece.finish_reason or reason
        write("\n")
        if reason == "content_filter":
            print("brolly: the vendor's rules kept the answer, or the rest of it, back.", file=sys.stderr)
        if reason == "length" and asked != options:
            print(f"brolly: cut at {options['max_tokens']:,} tokens, which --max-cost pays for.", file=sys.stderr)
    if args.verbose:
        print(took, file=sys.stderr)
    return 0


def _prompt(args: argparse.Namespace) -> str:
    """What was given, and what is piped in where it belongs to it. Raises OptionError."""
    given_alone = args.prompt is not None and not args.system
    piped = "" if sys.stdin is None or sys.stdin.isatty() or given_alone else _stdin()
    prompt = "\n\n".join(part for part in (args.prompt, piped) if part) if args.system else args.prompt or piped
    if not prompt and not args.system and not args.attach and args.prompt is None:
        raise OptionError('there is nothing to continue; give a prompt: brolly run MODEL "Once upon a time".')
    return prompt


def _stdin() -> str:
    from brolly.commands.inputs import stdin_text

    try:
        return stdin_text()
    except OSError:
        return ""


def as_json(result: Any) -> dict[str, Any]:
    """A Generation as JSON has it: what a vendor wants back, and nobody else reads, is left out."""
    out = asdict(result)
    del out["opaque"]
    for detail in out["logprobs"] or ():  # of bytes JSON knows nothing
        said, others = detail.pop("said"), detail.pop("others")
        if detail["token"] < 0:
            detail |= {"bytes": list(said), "others": [{"bytes": list(b), "logprob": p} for b, p in others]}
    out["usage"]["total_tokens"] = result.usage.total_tokens
    return {k: v for k, v in out.items() if v not in (None, ())}


class Thoughts:
    """Shows what a model thinks on standard error, dimmed at a terminal: the answer alone goes down a pipe."""

    def __init__(self) -> None:
        self.dim = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
        self.open = False

    def show(self, text: str, answered: bool) -> None:
        if text:
            from brolly.tasks.chat import visible

            text = visible(text) if sys.stderr.isatty() else text
            sys.stderr.write(f"\033[2m{text}\033[0m" if self.dim else text)
            self.open = True
        if answered and self.open:
            sys.stderr.write("\n\n")
            self.open = False
        sys.stderr.flush()


def write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
