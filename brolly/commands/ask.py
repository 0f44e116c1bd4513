"""`brolly ask`: an answer from an index's documents with its sources, or that there is none; --chat asks on."""

from __future__ import annotations

import argparse
import json
import sys
from types import SimpleNamespace
from typing import Any

from brolly.commands.flags import MODEL, add_loading, add_options, add_remote, given, open_one, remotely
from brolly.errors import BrollyError, OptionError

EXAMPLES = """examples:
  brolly ask "how long is the guarantee?" --index ./docs --model org/chat-model
  brolly ask "how long is the guarantee?" --index ./docs            no model: the sentences that answer
  brolly ask --index ./docs --model org/chat-model --chat
  brolly ask "how long is the guarantee?" --index ./docs --model openai:gpt-5 --max-cost 0.1

exit code: 0 answered, 3 the files hold no answer, 2 it could not be asked
"""


def flags(command: argparse.ArgumentParser) -> None:
    from brolly.verbs import GenerateOptions

    command.formatter_class, command.epilog = argparse.RawDescriptionHelpFormatter, EXAMPLES
    command.add_argument("prompt", nargs="?", metavar="QUESTION", help="what to ask (default: standard input)")
    command.add_argument(
        "--index", required=True, metavar="INDEX", help="an index, or the documents that it lies beside"
    )
    command.add_argument("--model", metavar="X", help=f"who writes the answer: {MODEL}")
    how = command.add_mutually_exclusive_group()
    how.add_argument(
        "--quote", dest="quote", action="store_true", default=None, help="sentences of the sources themselves"
    )
    how.add_argument("--write", dest="quote", action="store_false", help="the model's own words, however small it is")
    command.add_argument("--chat", action="store_true", help="ask on; a line each")
    command.add_argument("--top", type=int, default=5, metavar="N", help="chunks that are looked at (default: 5)")
    command.add_argument(
        "--filter", action="append", default=[], metavar="K=V", help="only documents of which this is so"
    )
    command.add_argument("--rerank", metavar="MODEL", help="a reranker that puts the chunks in order")
    command.add_argument("--budget", type=int, metavar="N", help="most tokens of sources (default: 3000)")
    command.add_argument(
        "--sure", type=float, default=0.5, metavar="P", help="below it there is no answer; 0: always one"
    )
    command.add_argument("--embed", metavar="E", help="where the index's embedder lies now")
    command.add_argument("--json", action="store_true", help="print one JSON object: text, answered, citations, …")
    add_loading(command)
    add_options(command, GenerateOptions)
    add_remote(command)


def run(args: argparse.Namespace) -> int:
    from brolly.adapt.retrieve import Index
    from brolly.adapt.retrieve.filters import parse
    from brolly.commands.index import check_embedder, reranker
    from brolly.commands.took import tell_cost
    from brolly.remote import is_remote
    from brolly.remote.prices import Budget
    from brolly.verbs import GenerateOptions

    options, filters = given(args, GenerateOptions), parse(args.filter)
    if args.chat and (args.json or args.prompt):
        raise OptionError("--chat reads questions line by line; leave the question and --json out.")
    question = "" if args.chat else args.prompt if args.prompt is not None else _stdin()
    if not args.chat and not question.strip():
        raise OptionError('there is no question; ask one: brolly ask "how long is the guarantee?" --index ./docs')
    budget = Budget(args.max_cost)
    remote = {**remotely(args), "budget": budget}
    if args.model and is_remote(args.model):
        remote.pop("price", None)  # which is the writer's
    with Index(args.index, embed=args.embed, remote=remote) as index:
        check_embedder(args, index, *([args.model] if args.model else []))
        model = open_one(args, args.model, budget) if args.model else None
        how: dict[str, Any] = {
            "top": args.top,
            "filters": filters,
            "quote": args.quote,
            "rerank": reranker(args.rerank),
            "budget": args.budget,
            "sure": args.sure,
            **options,
        }
        code = _talk(index, model, how) if args.chat else _once(index, model, question, how, args.json)
        if is_remote(args.model) or is_remote(args.embed or index.meta.get("texts.reference")):
            tell_cost(args, SimpleNamespace(budget=budget))
        return code


def _once(index: Any, model: Any, question: str, how: dict[str, Any], as_json: bool) -> int:
    from dataclasses import asdict

    from brolly.adapt.retrieve import ask

    answer = ask(model, index, question, show=None if as_json else _show, **how)
    if as_json:
        said = {
            "question": question,
            "text": answer.text,
            "answered": answer.answered,
            "mode": answer.mode,
            "confidence": round(answer.confidence, 3),
            "citations": [asdict(one) for one in answer.citations],
            "dropped": answer.dropped,
            "nearest": [hit.place for hit in answer.hits],
        }
        print(json.dumps(said, ensure_ascii=False))
    else:
        _sources(answer)
    return 0 if answer.answered else 3


def _talk(index: Any, model: Any, how: dict[str, Any]) -> int:
    """A question a line until the end of input; what was said before is remembered."""
    from brolly.adapt.retrieve import ask

    history: list[tuple[str, str]] = []
    mark = ">>> " if sys.stdin.isatty() else ""
    while True:
        try:
            question = input(mark).strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return 0
        if question in ("/exit", "/quit", "/bye"):
            return 0
        if not question:
            continue
        try:
            answer = ask(model, index, question, history=history, show=_show, **how)
        except KeyboardInterrupt:
            print(" (stopped)")
            continue
        except BrollyError as error:
            print(f"{error}")
            continue
        _sources(answer)
        if answer.answered:
            history.append((question, answer.text))


def _show(text: str) -> None:
    from brolly.identity.show import clean

    sys.stdout.write("\n".join(clean(line) for line in text.split("\n")))
    sys.stdout.flush()


def _sources(answer: Any) -> None:
    """Under an answer: where its sources stand, and what was wrong with its citations."""
    from brolly.identity.show import clean

    print()
    for one in answer.citations:
        print(f"  [{one.number}] {clean(one.place)}" + (f"  {clean(one.heading)}" if one.heading else ""))
    if not answer.answered and answer.hits:
        print("  nearest: " + ", ".join(dict.fromkeys(clean(hit.name) for hit in answer.hits)))
    if answer.dropped:
        told = ", ".join(f"[{number}]" for number in answer.dropped)
        print(f"brolly: the model cited {told}, which is no source; taken out.", file=sys.stderr)
    if answer.answered and not answer.citations:
        print("brolly: the answer cites no source; do not trust it.", file=sys.stderr)


def _stdin() -> str:
    from brolly.commands.inputs import stdin_text

    return "" if sys.stdin is None or sys.stdin.isatty() else stdin_text()
