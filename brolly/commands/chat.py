"""`brolly chat`: a conversation at the terminal, or down a pipe."""

from __future__ import annotations

import argparse

from brolly.commands.flags import MODEL, adapter_folder, given, open_model
from brolly.commands.run import add_generation


def flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", help=MODEL)
    add_generation(command)


def run(args: argparse.Namespace) -> int:
    from brolly.tasks.chat import Conversation
    from brolly.verbs import GenerateOptions

    options = given(args, GenerateOptions)
    model = open_model(args)
    first = [{"role": "system", "content": args.system}] if args.system else []
    hello = [*first, {"role": "user", "content": "Hello"}]
    # no template, an option that its vendor has no word for, a wrong adapter: told before the first word
    if hasattr(model, "target"):
        model.check(model.prepare_chat(hello, adapter=args.adapter, **options))
        adapter = None
    else:
        model.tokenizer.prompt(hello)
        adapter = adapter_folder(args) if args.adapter else None
        if adapter:
            model.add_adapter(adapter, adapter)
    talk = Conversation(model, options, args.system, adapter=adapter)
    for path in args.attach:
        talk.attach(path)
    return talk.talk()
