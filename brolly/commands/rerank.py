"""`brolly rerank`: documents in the order in which they answer a query, a line each or as JSON."""

from __future__ import annotations

import argparse
import json

from brolly.commands.flags import MODEL, add_adapter, add_loading, add_options, given, open_adapted
from brolly.commands.inputs import Input, inputs, lines_of
from brolly.errors import OptionError

WIDTH = 100  # characters of a document on its line
EXAMPLES = """examples:
  brolly rerank org/reranker "who wrote Emma?" "Jane Austen wrote Emma." "Emma is a name." notes.txt
  brolly rerank org/reranker "who wrote Emma?" --file passages.txt --top 3 --json
"""


def flags(command: argparse.ArgumentParser) -> None:
    from brolly.verbs import RerankOptions

    command.formatter_class, command.epilog = argparse.RawDescriptionHelpFormatter, EXAMPLES
    command.add_argument("model", help=MODEL)
    command.add_argument("query", help="what is asked")
    command.add_argument(
        "documents",
        nargs="*",
        metavar="DOC",
        help="a text, a file, a folder, a pattern, or - for a text a line of stdin",
    )
    command.add_argument("--file", metavar="FILE", help="documents, one a line")
    command.add_argument(
        "--json", action="store_true", help='print {"model", "query", "data": [{"index", "document"…}]}'
    )
    add_options(command, RerankOptions)
    add_adapter(command)
    add_loading(command)


def run(args: argparse.Namespace) -> int:
    from brolly.verbs import RerankOptions

    options = given(args, RerankOptions)
    found = inputs(args.documents) if args.documents else []
    found += [Input(line, "text") for line in (lines_of(args.file, "documents") if args.file else ())]
    if not found:
        raise OptionError("there is no document; give texts or files, or --file with one a line.")
    if picture := next((one.name for one in found if one.kind == "image"), None):
        raise OptionError(f"{picture} is a picture; documents are texts.")
    texts = [str(one.value()) for one in found]
    ranked = open_adapted(args).rerank(args.query, texts, **options)
    rows = [{"index": r.index, "document": found[r.index].name, "score": r.score} for r in ranked]
    if args.json:
        print(json.dumps({"model": args.model, "query": args.query, "data": rows}, ensure_ascii=False))
    else:
        from brolly.identity.show import clean

        for row in rows:
            print(f"{row['score']:8.4f}  {clean(' '.join(str(row['document']).split()))[:WIDTH]}")
    return 0
